//! Encoders that may still be at work on a command whose answer did not come.
//!
//! Over a network a late answer finds nobody. But the server goes on: it may wait for a card still, and would write the
//! last guest's onto the one that is laid down for the next. So the encoder gets no command until its answer must have
//! come.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Past, Resting};
use crate::model::{Code, EncoderName, LaneName, Refusal};

/// Which encoders rest, and until when.
#[derive(Debug)]
pub(super) struct Rests {
    span: Duration,
    /// All of them, where it is not known which one was at work when the last run ended.
    all_until: Option<Instant>,
    until: Mutex<BTreeMap<String, Instant>>,
}

impl Rests {
    /// Every rest lasts `span`.
    pub(super) fn new(span: Duration, past: Past) -> Self {
        let all_until = (past == Past::AnswerMayCome).then(|| Instant::now() + span);
        Self { span, all_until, until: Mutex::default() }
    }

    /// A command is about to leave that is answered within this time. Whoever drops it does not tell of its end.
    pub(super) fn begin(&self, encoder: &str, within: Duration) {
        self.all().insert(encoder.to_owned(), Instant::now() + within + self.span);
    }

    /// How the command ended: its answer has come, or may come still.
    pub(super) fn end(&self, encoder: &str, answer_may_come: bool) {
        match answer_may_come {
            true => self.all().insert(encoder.to_owned(), Instant::now() + self.span),
            false => self.all().remove(encoder),
        };
    }

    /// Until when an encoder gets no command, if it gets none now.
    pub(super) fn until(&self, encoder: &str) -> Option<Instant> {
        let own = self.all().get(encoder).copied();
        own.max(self.all_until).filter(|until| Instant::now() < *until)
    }

    /// How a lane, or one encoder of it, rests while `encoder` does.
    pub(super) fn resting(
        &self,
        encoder: &str,
        lane: LaneName,
        within_lane: Option<EncoderName>,
    ) -> Option<Resting> {
        let until = self.until(encoder)?;
        let message = format!("encoder {encoder} may still be at work on a command that was not answered");
        let why = Refusal::new(Code::EncoderBusy, message);
        Some(Resting { lane, encoder: within_lane, until, why })
    }

    /// Why an encoder gets no command now, if it does not.
    pub(super) fn refusal(&self, encoder: &str) -> Option<Refusal> {
        let left = self.until(encoder)?.saturating_duration_since(Instant::now());
        let message = format!(
            "encoder {encoder} may still be at work on a command that was not answered; it is used again in {} s",
            left.as_secs() + 1
        );
        Some(Refusal::new(Code::EncoderBusy, message))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        // Each change is whole.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SPAN: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn an_encoder_rests_alone_and_until_its_answer_must_have_come() {
        let rests = Rests::new(SPAN, Past::Answered);
        assert_eq!(rests.refusal("1"), None);
        rests.begin("1", SPAN);
        assert_eq!(rests.refusal("2"), None);
        advance(SPAN).await;
        assert!(rests.refusal("1").is_some(), "whoever dropped the command did not tell of its end");
        rests.end("1", true);
        advance(SPAN - Duration::from_millis(1)).await;
        assert_eq!(rests.refusal("1").unwrap().code, Code::EncoderBusy);
        advance(Duration::from_millis(1)).await;
        assert_eq!(rests.refusal("1"), None);
        rests.begin("1", SPAN);
        rests.end("1", false);
        assert_eq!(rests.refusal("1"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_run_that_ended_over_a_command_all_rest() {
        let rests = Rests::new(SPAN, Past::AnswerMayCome);
        assert!(rests.refusal("1").is_some() && rests.refusal("2").is_some());
        advance(SPAN).await;
        assert_eq!(rests.refusal("1"), None);
    }
}
