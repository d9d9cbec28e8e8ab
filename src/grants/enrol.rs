//! A card's number is to be read at a desk, for devices that know cards by it.

use jiff::Timestamp;

use crate::{
    model::{
        AccessMethodId, AcsEncoderId, ActionAttemptId, CardEncode, EncoderName, Job, JobId, Order, Priority,
        SystemName, Window,
    },
    seams::Random,
};

use super::{
    Encode, Refused,
    encode::{CARD_WAIT, SILENT_AFTER, START_WITHIN, UNSENT_AFTER},
};

/// What is known of the card whose number is to be read.
#[derive(Debug)]
pub struct EnrolFacts<'a> {
    /// The method that it will be.
    pub method: AccessMethodId,
    /// Whether no card was read for it yet.
    pub awaits_card: bool,
    /// Whether it, or its grant, is deleted.
    pub deleted: bool,
    /// When its grant holds.
    pub window: Window,
    /// The attempt that is under way.
    pub pending: Option<(ActionAttemptId, AcsEncoderId)>,
    /// Which encoder.
    pub encoder: AcsEncoderId,
    /// Its name in its system.
    pub encoder_name: &'a EncoderName,
    /// Its system.
    pub encoder_system: &'a SystemName,
    /// Whether it reads the numbers of chips.
    pub reads_numbers: bool,
}

/// Plans the reading. The job names no door: nothing is written to the card.
///
/// # Errors
/// When it cannot be read for this method, or is being read elsewhere.
pub fn plan_enrol(facts: EnrolFacts<'_>, now: Timestamp, random: &Random) -> Result<Encode, Refused> {
    if !facts.reads_numbers {
        return Err(Refused::EncoderReadsNoNumbers);
    }
    match facts.pending {
        Some((attempt, encoder)) if encoder == facts.encoder => return Ok(Encode::Same(attempt)),
        Some(_) => return Err(Refused::AlreadyEncoding),
        None => {}
    }
    let not_ready = |why: &str| Err(Refused::NotReady { why: why.to_owned() });
    if facts.deleted {
        return not_ready("The access grant of this card is deleted");
    }
    if facts.window.is_over(now) {
        return not_ready("The access grant of this card has ended");
    }
    if !facts.awaits_card {
        return not_ready("A card was read for this access method; ask for another one for a second card");
    }
    let order = Order::CardEncode(CardEncode {
        encoder: facts.encoder_name.clone(),
        doors: Vec::new(),
        reservation_key: None,
        window: facts.window,
        access_method_id: facts.method,
        guest_name: None,
        card_wait_seconds: u16::try_from(CARD_WAIT.as_secs()).unwrap_or(u16::MAX),
        begin_again: false,
    });
    Ok(Encode::New {
        attempt: ActionAttemptId(random.uuid_at(now)),
        job: Box::new(Job {
            job_id: JobId(random.uuid_at(now)),
            system: facts.encoder_system.clone(),
            priority: Priority::Desk,
            created_at: now,
            expires_at: now + START_WITHIN,
            order,
        }),
        doors: Vec::new(),
        unsent_at: now + UNSENT_AFTER,
        silent_at: now + SILENT_AFTER,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::target::tests::at;

    fn plan(change: impl FnOnce(&mut EnrolFacts<'_>)) -> Result<Encode, Refused> {
        let (desk, reader) = (EncoderName::new("desk").unwrap(), SystemName::new("reader").unwrap());
        let mut facts = EnrolFacts {
            method: AccessMethodId(uuid::Uuid::nil()),
            awaits_card: true,
            deleted: false,
            window: Window::new(at(0), Some(at(100))).unwrap(),
            pending: None,
            encoder: AcsEncoderId(uuid::Uuid::nil()),
            encoder_name: &desk,
            encoder_system: &reader,
            reads_numbers: true,
        };
        change(&mut facts);
        plan_enrol(facts, at(0), &Random::seeded(1))
    }

    #[test]
    fn the_job_goes_to_the_readers_own_system_and_names_no_door() {
        let Ok(Encode::New { job, doors, .. }) = plan(|_| ()) else { panic!("a new attempt") };
        assert_eq!(job.system.as_str(), "reader");
        let Order::CardEncode(card) = job.order else { panic!("a card") };
        assert!(doors.is_empty() && card.doors.is_empty());
        assert_eq!((card.encoder.as_str(), card.guest_name), ("desk", None));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        fn check(name: &str, change: impl FnOnce(&mut EnrolFacts<'_>)) {
            assert_eq!(plan(change).unwrap_err().name(), name);
        }
        let not_ready = "access_method_not_ready_for_encoding";
        check("acs_encoder_reads_no_card_numbers", |facts| facts.reads_numbers = false);
        check(not_ready, |facts| facts.awaits_card = false);
        check(not_ready, |facts| facts.deleted = true);
        check(not_ready, |facts| facts.window = Window::new(at(-100), Some(at(0))).unwrap());
        let pending = ActionAttemptId(uuid::Uuid::nil());
        let elsewhere = AcsEncoderId(uuid::Uuid::max());
        check("access_method_already_encoding", |facts| facts.pending = Some((pending, elsewhere)));
        let here = AcsEncoderId(uuid::Uuid::nil());
        assert_eq!(plan(|facts| facts.pending = Some((pending, here))), Ok(Encode::Same(pending)));
    }
}
