//! Which state may follow which. Pure: no SQL, no clock.

use std::{fmt, time::Duration};

use crate::model::{JobState, Outcome, Verdict};

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It takes its place in a lane.
    Queue,
    /// It is marked; from here on bytes may leave.
    Send,
    /// Proven: nothing was written after all.
    Unsend,
    /// Done.
    Succeed,
    /// Certainly not done.
    Fail,
    /// May have been done.
    Doubt,
    /// This memory was set back to before its end: it may have been done since.
    SetBack,
    /// Taken back; after the mark only with the proof that nothing was written.
    Cancel,
    /// Too late.
    Expire,
    /// Replaced by a newer one.
    Supersede,
    /// A doubt is settled.
    Resolve(Verdict),
}

/// A state that an event cannot follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} cannot {event}")]
pub struct Illegal {
    /// Where the job stands.
    pub state: JobState,
    /// What was to happen.
    pub event: Event,
}

/// The state after an event.
///
/// # Errors
/// When the event cannot follow the state.
pub fn next(state: JobState, event: Event) -> Result<JobState, Illegal> {
    use JobState::{Cancelled, Expired, Failed, Received, Sent, Succeeded, Superseded, Unknown, Waiting};
    let (from, to): (&[JobState], JobState) = match event {
        Event::Queue => (&[Received], Waiting),
        Event::Send => (&[Received, Waiting], Sent),
        Event::Unsend => (&[Sent], Waiting),
        Event::Succeed => (&[Sent], Succeeded),
        Event::Fail => (&[Received, Waiting, Sent], Failed),
        Event::Doubt => (&[Sent], Unknown),
        Event::SetBack => (&[Received, Waiting, Sent], Unknown),
        Event::Cancel => (&[Received, Waiting, Sent], Cancelled),
        Event::Expire => (&[Received, Waiting], Expired),
        Event::Supersede => (&[Received, Waiting], Superseded),
        Event::Resolve(Verdict::Done) => (&[Unknown], Succeeded),
        Event::Resolve(Verdict::NotDone) => (&[Unknown], Failed),
    };
    if from.contains(&state) { Ok(to) } else { Err(Illegal { state, event }) }
}

/// How long a job waits after its `attempt`-th mark was proven empty: a second, doubled each time, at most half a
/// minute. Long enough for a line to come back, short enough for a person at the desk.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(5);
    Duration::from_secs(1 << doublings).min(Duration::from_secs(30))
}

impl From<&Outcome> for Event {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded(_) => Self::Succeed,
            Outcome::Failed(_) => Self::Fail,
            Outcome::Unknown(_) => Self::Doubt,
            Outcome::Cancelled => Self::Cancel,
            Outcome::Expired(_) => Self::Expire,
            Outcome::Superseded => Self::Supersede,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "be queued",
            Self::Send => "be sent",
            Self::Unsend => "be put back",
            Self::Succeed => "succeed",
            Self::Fail => "fail",
            Self::Doubt | Self::SetBack => "end in doubt",
            Self::Cancel => "be cancelled",
            Self::Expire => "expire",
            Self::Supersede => "be superseded",
            Self::Resolve(_) => "be resolved",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_transitions_and_no_others_are_legal() {
        use Event::*;
        use JobState::*;
        let legal = [
            (Received, Queue, Waiting),
            (Received, Send, Sent),
            (Received, Fail, Failed),
            (Received, SetBack, Unknown),
            (Received, Cancel, Cancelled),
            (Received, Expire, Expired),
            (Received, Supersede, Superseded),
            (Waiting, Send, Sent),
            (Waiting, Fail, Failed),
            (Waiting, SetBack, Unknown),
            (Waiting, Cancel, Cancelled),
            (Waiting, Expire, Expired),
            (Waiting, Supersede, Superseded),
            (Sent, Unsend, Waiting),
            (Sent, Succeed, Succeeded),
            (Sent, Fail, Failed),
            (Sent, Doubt, Unknown),
            (Sent, SetBack, Unknown),
            (Sent, Cancel, Cancelled),
            (Unknown, Resolve(Verdict::Done), Succeeded),
            (Unknown, Resolve(Verdict::NotDone), Failed),
        ];
        let events = [
            Queue,
            Send,
            Unsend,
            Succeed,
            Fail,
            Doubt,
            SetBack,
            Cancel,
            Expire,
            Supersede,
            Resolve(Verdict::Done),
            Resolve(Verdict::NotDone),
        ];
        for state in JobState::ALL {
            for event in events {
                let expected = legal
                    .iter()
                    .find(|(from, by, _)| (*from, *by) == (state, event))
                    .map(|(_, _, to)| *to)
                    .ok_or(Illegal { state, event });
                assert_eq!(next(state, event), expected, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn the_backoff_doubles_and_ends_at_half_a_minute() {
        let seconds: Vec<_> = (0..8).map(|attempt| backoff(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff(u32::MAX).as_secs(), 30);
    }
}
