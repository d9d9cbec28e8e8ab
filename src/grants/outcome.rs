//! What the end of a job says about the attempt and about the card.

use crate::model::{Code, Outcome, Refusal, Report, Verdict, Written};

/// Why an attempt failed, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptError {
    /// One of the types that clients know.
    pub kind: &'static str,
    /// For a person: the reason by name, and what the system said.
    pub message: String,
}

impl AttemptError {
    /// The bridge was not there to take the job.
    #[must_use]
    pub fn bridge_away() -> Self {
        Self {
            kind: "bridge_disconnected",
            message: "The property's bridge was not connected; nothing was sent to the encoder".into(),
        }
    }

    /// Nobody knows whether a card was written.
    #[must_use]
    pub fn in_doubt(why: &str) -> Self {
        Self {
            kind: "encoding_interrupted",
            message: format!("The card may have been written: read the card before another is made ({why})"),
        }
    }

    /// The method went before anything was sent.
    #[must_use]
    pub fn deleted() -> Self {
        Self {
            kind: "credential_deleted",
            message: "The access method was deleted before the card was written".into(),
        }
    }
}

/// How an attempt ends after its job has.
///
/// # Errors
/// When it did not succeed.
pub fn attempt_end(outcome: &Outcome) -> Result<(), AttemptError> {
    let refused = |kind, refusal: &Refusal| Err(AttemptError { kind, message: refusal.to_string() });
    match outcome {
        Outcome::Succeeded(_) => Ok(()),
        Outcome::Failed(refusal) => refused(error_type(refusal.code), refusal),
        Outcome::Unknown(refusal) => Err(AttemptError::in_doubt(&refusal.to_string())),
        Outcome::Expired(refusal) => refused("action_attempt_expired", refusal),
        Outcome::Cancelled => Err(AttemptError::deleted()),
        Outcome::Superseded => Err(AttemptError {
            kind: "uncategorized_error",
            message: "A newer job took its place before anything was sent".into(),
        }),
    }
}

fn error_type(code: Code) -> &'static str {
    match code {
        Code::NoCard => "no_credential_on_encoder",
        Code::BadCard => "incompatible_card_format",
        Code::EncoderOffline => "encoder_not_online",
        Code::SystemOffline => "bridge_disconnected",
        Code::NoAnswer => "encoder_communication_timeout",
        Code::Expired => "action_attempt_expired",
        Code::Cancelled => "credential_deleted",
        _ => "uncategorized_error",
    }
}

/// What a report says about the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardEnd {
    /// Written.
    Written {
        /// Whether the system said that it physically was.
        proven: bool,
    },
    /// Perhaps written.
    InDoubt,
    /// Certainly not written.
    NotWritten,
}

/// Judges the card by a report; what settled a doubt counts more than the doubt.
#[must_use]
pub fn card_end(report: &Report) -> CardEnd {
    if let Some(resolution) = &report.resolution {
        return match resolution.verdict {
            Verdict::Done => CardEnd::Written { proven: true },
            Verdict::NotDone => CardEnd::NotWritten,
        };
    }
    match &report.outcome {
        Outcome::Succeeded(success) => {
            CardEnd::Written { proven: success.written != Some(Written::Accepted) }
        }
        Outcome::Unknown(_) => CardEnd::InDoubt,
        Outcome::Failed(_) | Outcome::Cancelled | Outcome::Expired(_) | Outcome::Superseded => {
            CardEnd::NotWritten
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, Resolution, Success};

    #[test]
    fn outcomes_become_the_error_types_that_clients_know() {
        let check = |outcome: Outcome, kind: &str, words: &str| {
            let error = attempt_end(&outcome).unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(error.message.contains(words), "{}", error.message);
        };
        let failed = |code| Outcome::failed(code, "so it said");
        check(failed(Code::NoCard), "no_credential_on_encoder", "so it said");
        check(failed(Code::BadCard), "incompatible_card_format", "so it said");
        check(failed(Code::EncoderOffline), "encoder_not_online", "so it said");
        check(failed(Code::SystemOffline), "bridge_disconnected", "so it said");
        check(failed(Code::NoAnswer), "encoder_communication_timeout", "so it said");
        check(
            failed(Code::RoomHeldByOtherReservation),
            "uncategorized_error",
            "room_held_by_other_reservation: so it said",
        );
        check(Outcome::unknown(Code::NoAnswer, "silence"), "encoding_interrupted", "read the card");
        check(Outcome::Expired(Refusal::new(Code::Expired, "late")), "action_attempt_expired", "late");
        check(Outcome::Cancelled, "credential_deleted", "deleted");
        assert!(attempt_end(&Outcome::Succeeded(Success::default())).is_ok());
    }

    #[test]
    fn a_resolution_counts_more_than_the_doubt_it_settles() {
        let report = |verdict: Option<Verdict>| Report {
            job_id: JobId(uuid::Uuid::nil()),
            revision: 1 + u8::from(verdict.is_some()),
            at: jiff::Timestamp::UNIX_EPOCH,
            outcome: Outcome::unknown(Code::LineLost, "cut"),
            resolution: verdict.map(|verdict| Resolution { verdict, by: "desk".into() }),
            rooms: Vec::new(),
            local: None,
        };
        assert_eq!(card_end(&report(None)), CardEnd::InDoubt);
        assert_eq!(card_end(&report(Some(Verdict::NotDone))), CardEnd::NotWritten);
        assert_eq!(card_end(&report(Some(Verdict::Done))), CardEnd::Written { proven: true });
    }
}
