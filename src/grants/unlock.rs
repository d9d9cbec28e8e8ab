//! A door is to be opened from afar.

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{ActionAttemptId, Code, DeviceName, Job, JobId, Order, Outcome, Priority, SystemName, Window},
    seams::Random,
};

use super::{AttemptError, Mode, Refused};

/// Who waits before a door does not wait longer; what has not begun by then is not begun.
const START_WITHIN: SignedDuration = SignedDuration::from_secs(20);
/// A little later the cloud ends the attempt of a job that never reached its bridge.
const UNSENT_AFTER: SignedDuration = SignedDuration::from_secs(25);
/// A job that began at the last moment and found its lock slow is over by then.
const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(90);

/// What is known of the door that is to be opened.
#[derive(Debug, Clone)]
pub struct UnlockFacts<'a> {
    /// What the method is.
    pub mode: Mode,
    /// When its grant holds.
    pub window: Window,
    /// It is being deleted.
    pub is_deleted: bool,
    /// Its system.
    pub system: &'a SystemName,
    /// The device.
    pub device: &'a DeviceName,
    /// Whether it can be opened from afar.
    pub can_be_opened: bool,
    /// The attempt that is under way.
    pub pending: Option<ActionAttemptId>,
}

/// What an unlock call leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlock {
    /// The attempt that is under way already.
    Same(ActionAttemptId),
    /// A new attempt.
    New {
        /// Its id.
        attempt: ActionAttemptId,
        /// The job for the bridge.
        job: Box<Job>,
        /// Ended then if the job was never handed to the bridge.
        unsent_at: Timestamp,
        /// Ended then in any case.
        silent_at: Timestamp,
    },
}

/// Plans the opening of a door. Whether the site allows it, the site says.
///
/// # Errors
/// When this key does not open it, or not now.
pub fn plan_unlock(facts: &UnlockFacts<'_>, now: Timestamp, random: &Random) -> Result<Unlock, Refused> {
    if facts.mode != Mode::CloudKey {
        return Err(Refused::NotACloudKey { mode: facts.mode.as_str() });
    }
    let not_now = |why: &str| Err(Refused::KeyNotValid { why: why.to_owned() });
    if facts.is_deleted {
        return not_now("This cloud key is deleted");
    }
    if now < facts.window.starts_at() {
        return not_now("The access grant of this cloud key has not begun");
    }
    if facts.window.is_over(now) {
        return not_now("The access grant of this cloud key has ended");
    }
    if !facts.can_be_opened {
        return not_now("This door cannot be opened from afar");
    }
    if let Some(attempt) = facts.pending {
        return Ok(Unlock::Same(attempt));
    }
    let after = |span| now.saturating_add(span).unwrap_or(now);
    Ok(Unlock::New {
        attempt: ActionAttemptId(random.uuid_at(now)),
        job: Box::new(Job {
            job_id: JobId(random.uuid_at(now)),
            system: facts.system.clone(),
            priority: Priority::Desk,
            created_at: now,
            expires_at: after(START_WITHIN),
            order: Order::DeviceUnlock { device: facts.device.clone() },
        }),
        unsent_at: after(UNSENT_AFTER),
        silent_at: after(SILENT_AFTER),
    })
}

/// How an attempt to open a door ends after its job has.
///
/// # Errors
/// When it did not succeed; the type is the reason's own name.
pub fn unlock_end(outcome: &Outcome) -> Result<(), AttemptError> {
    let error = |code: Code, message: String| Err(AttemptError { kind: code.as_str(), message });
    match outcome {
        Outcome::Succeeded(_) => Ok(()),
        Outcome::Failed(why) => error(why.code, why.to_string()),
        Outcome::Unknown(why) => error(why.code, format!("The door may have been opened: {why}")),
        Outcome::Expired(why) => {
            Err(AttemptError { kind: "action_attempt_expired", message: why.to_string() })
        }
        Outcome::Cancelled => error(Code::Cancelled, "It was taken back before anything was sent".into()),
        Outcome::Superseded => {
            error(Code::Superseded, "A newer job took its place before anything was sent".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::target::tests::at;

    #[test]
    fn a_door_opens_only_for_a_cloud_key_and_within_its_window() {
        let (system, device) = (SystemName::new("annex").unwrap(), DeviceName::new("lock-1").unwrap());
        let facts = UnlockFacts {
            mode: Mode::CloudKey,
            window: Window::new(at(10), Some(at(20))).unwrap(),
            is_deleted: false,
            system: &system,
            device: &device,
            can_be_opened: true,
            pending: None,
        };
        let plan = |facts: &UnlockFacts<'_>, now: i64| plan_unlock(facts, at(now), &Random::seeded(1));
        let name = |facts: &UnlockFacts<'_>, now| plan(facts, now).unwrap_err().name();
        assert_eq!(name(&facts, 9), "access_method_not_valid");
        assert_eq!(name(&facts, 20), "access_method_not_valid");
        assert_eq!(name(&UnlockFacts { is_deleted: true, ..facts.clone() }, 15), "access_method_not_valid");
        assert_eq!(
            name(&UnlockFacts { can_be_opened: false, ..facts.clone() }, 15),
            "access_method_not_valid"
        );
        let card = UnlockFacts { mode: Mode::Card, ..facts.clone() };
        assert_eq!(name(&card, 15), "access_method_not_a_cloud_key");
        let Ok(Unlock::New { attempt, job, .. }) = plan(&facts, 10) else { panic!("a new attempt") };
        assert_eq!(job.order, Order::DeviceUnlock { device: device.clone() });
        let again = UnlockFacts { pending: Some(attempt), ..facts };
        assert_eq!(plan(&again, 11), Ok(Unlock::Same(attempt)));
    }
}
