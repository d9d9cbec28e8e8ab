//! What happened at doors, on its way to the cloud.
//!
//! A device's memory is read up to a mark, and what was read is stored with the mark in one transaction: nothing is missed
//! and nothing is read twice. It stands in a table of its own, where the oldest make room for the newest and are counted;
//! only what a cloud can read goes on into the outbox, a little at a time, so that no job's end waits long behind it.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::Queue;
use crate::{
    model::{DeviceName, DoorEvent, DoorEvents, JobId, SystemName},
    protocol::Position,
    store::StoreError,
};

/// Events that are kept at the site beside the outbox.
pub const DOOR_EVENTS_KEPT: u64 = 10_000;
/// In the outbox, beside the revisions of jobs' reports: what happened at a door.
pub(super) const HAPPENED: u8 = 5;
/// Events of one message.
const AT_ONCE: usize = 64;
/// Messages about doors in the outbox that no cloud has acknowledged.
const IN_OUTBOX: i64 = 16;

/// Where what happened at doors stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandedOn {
    /// Whether something came into the outbox.
    pub any: bool,
    /// Whether something is left that has no room there yet.
    pub more: bool,
}

impl Queue {
    /// Up to where a device's memory was read; none if it never was, or has to be read from its beginning.
    ///
    /// # Errors
    /// Those of the database.
    pub fn door_mark(&self, system: &SystemName, device: &DeviceName) -> Result<Option<String>, StoreError> {
        let mark = self
            .connection
            .prepare_cached("SELECT mark FROM door_read WHERE system = ?1 AND device = ?2")?
            .query_row([system.as_str(), device.as_str()], |row| row.get::<_, Option<String>>(0))
            .optional()?;
        Ok(mark.flatten())
    }

    /// Takes what a device remembers behind one mark, up to another. What was read behind an older mark than the one that
    /// is held counts for nothing. Says how many events are lost by it: those that the device has forgotten, and those that
    /// had to make room.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], and those of the database.
    pub fn take_door_events(
        &mut self,
        seen: &DoorEvents,
        after: Option<&str>,
        up_to: &str,
    ) -> Result<u64, StoreError> {
        let DoorEvents { system, device, lost, events } = seen;
        if self.disk_is_full {
            return Err(StoreError::DiskFull);
        }
        if self.door_mark(system, device)?.as_deref() != after {
            return Ok(0);
        }
        self.connection
            .prepare_cached(
                "INSERT INTO door_read VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET mark = excluded.mark, lost = lost + excluded.lost",
            )?
            .execute(params![system.as_str(), device.as_str(), up_to, lost.cast_signed()])?;
        // What is read once more may be here still.
        let mut new = Vec::new();
        for event in events {
            if !self.holds_door_event(system, device, event.door_event_id)? {
                new.push(event);
            }
        }
        for some in new.chunks(AT_ONCE) {
            let body = self.sealed(&place(system, device), &some);
            self.connection
                .prepare_cached(
                    "INSERT INTO door_event(system, device, events, body) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    system.as_str(),
                    device.as_str(),
                    i64::try_from(some.len()).unwrap_or(i64::MAX),
                    body
                ])?;
            self.note_door_events(system, device, some.iter().copied())?;
        }
        Ok(*lost + self.make_room()?)
    }

    /// Whether an event of a device is among those that are kept here.
    fn holds_door_event(
        &self,
        system: &SystemName,
        device: &DeviceName,
        event: uuid::Uuid,
    ) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM door_event_id WHERE system = ?1 AND device = ?2 AND event = ?3")?
            .exists(params![system.as_str(), device.as_str(), event.as_bytes()])?)
    }

    /// Notes the ids of the events in the row that was just put.
    fn note_door_events<'a>(
        &self,
        system: &SystemName,
        device: &DeviceName,
        events: impl Iterator<Item = &'a DoorEvent>,
    ) -> Result<(), StoreError> {
        let n = self.connection.last_insert_rowid();
        let mut statement =
            self.connection.prepare_cached("INSERT OR REPLACE INTO door_event_id VALUES (?1, ?2, ?3, ?4)")?;
        for event in events {
            statement.execute(params![
                system.as_str(),
                device.as_str(),
                event.door_event_id.as_bytes(),
                n
            ])?;
        }
        Ok(())
    }

    /// Of a damaged file only some rows may be left: ids are noted anew, of those.
    pub(super) fn forget_door_event_ids(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch("DELETE FROM door_event_id; UPDATE memory SET door_ids_noted = 0")
            .map_err(StoreError::from)
    }

    /// Once for a file of the version before, which noted no ids. What cannot be read any more has none.
    pub(super) fn note_earlier_door_events(&mut self) -> Result<(), StoreError> {
        let are_noted = "SELECT 1 FROM memory WHERE door_ids_noted = 1";
        if self.connection.prepare_cached(are_noted)?.exists([])? {
            return Ok(());
        }
        self.connection.execute_batch("SAVEPOINT earlier_door_events")?;
        let kept: Vec<(i64, String, String, Vec<u8>)> = self
            .connection
            .prepare("SELECT n, system, device, body FROM door_event ORDER BY n")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<_, _>>()?;
        for (n, system, device, body) in kept {
            let at = format!("door_event.body/{system}/{device}");
            let Ok(events) = self.unseal::<Vec<DoorEvent>>(&at, &body) else { continue };
            for event in events {
                self.connection
                    .prepare_cached("INSERT OR REPLACE INTO door_event_id VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![system, device, event.door_event_id.as_bytes(), n])?;
            }
        }
        self.connection.execute_batch("UPDATE memory SET door_ids_noted = 1; RELEASE earlier_door_events")?;
        Ok(())
    }

    /// The oldest go where there are too many, and are counted.
    fn make_room(&mut self) -> Result<u64, StoreError> {
        let mut held: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(sum(events), 0) FROM door_event")?
            .query_row([], |row| row.get(0))?;
        let mut gone = 0;
        while DOOR_EVENTS_KEPT < held.cast_unsigned() {
            let (system, device, events): (String, String, i64) = self
                .connection
                .prepare_cached(
                    "DELETE FROM door_event WHERE n = (SELECT min(n) FROM door_event)
                     RETURNING system, device, events",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            self.connection
                .prepare_cached("UPDATE door_read SET lost = lost + ?3 WHERE system = ?1 AND device = ?2")?
                .execute(params![system, device, events])?;
            held -= events;
            gone += events.cast_unsigned();
        }
        Ok(gone)
    }

    /// Moves the oldest of what happened into the outbox, as far as it has room for that. Only for a cloud that can read it:
    /// what is in the outbox goes in its turn, and nothing behind it goes before.
    ///
    /// # Errors
    /// Those of the database.
    pub fn hand_on_door_events(&mut self, now: Timestamp) -> Result<HandedOn, StoreError> {
        let acknowledged = self.memory()?.reports.acknowledged.cast_signed();
        let waiting: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM report WHERE n > ?1 AND revision = ?2 LIMIT ?3)",
            )?
            .query_row(params![acknowledged, HAPPENED, IN_OUTBOX], |row| row.get(0))?;
        let mut handed_on = HandedOn::default();
        for _ in waiting..IN_OUTBOX {
            let Some(seen) = self.take_oldest_door_events()? else { return Ok(handed_on) };
            handed_on.any = true;
            let about = JobId(self.random.uuid_at(now));
            let body = self.sealed(&super::outbox::place(about, HAPPENED), &seen);
            self.put_report(about.0, HAPPENED, &body)?;
        }
        handed_on.more = self.connection.prepare_cached("SELECT 1 FROM door_event LIMIT 1")?.exists([])?;
        Ok(handed_on)
    }

    /// Takes what happened at doors back out of the outbox, for a cloud that cannot read it: no job's end is to wait behind
    /// it. Gives where the rest goes on, if there was any; it goes into the outbox again for a cloud that can.
    ///
    /// # Errors
    /// Those of the database.
    pub fn take_doors_back(&mut self) -> Result<Option<Position>, StoreError> {
        let reports = self.memory()?.reports;
        // The newest first, each before those that are there.
        let waiting: Vec<(i64, [u8; 16], Vec<u8>)> = self
            .connection
            .prepare_cached(
                "SELECT n, job_id, body FROM report WHERE n > ?1 AND revision = ?2 ORDER BY n DESC",
            )?
            .query_map(params![reports.acknowledged.cast_signed(), HAPPENED], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        if waiting.is_empty() {
            return Ok(None);
        }
        for (n, about, body) in waiting {
            let about = JobId(uuid::Uuid::from_bytes(about));
            let seen: DoorEvents = self.unseal(&super::outbox::place(about, HAPPENED), &body)?;
            self.put_door_events_first(&seen)?;
            self.connection.prepare_cached("DELETE FROM report WHERE n = ?1")?.execute([n])?;
        }
        let epoch = reports.last.epoch + 1;
        self.begin_reports_epoch(epoch)?;
        Ok(Some(Position { epoch, n: 0 }))
    }

    fn put_door_events_first(&mut self, seen: &DoorEvents) -> Result<(), StoreError> {
        let DoorEvents { system, device, lost, events } = seen;
        self.connection
            .prepare_cached("UPDATE door_read SET lost = lost + ?3 WHERE system = ?1 AND device = ?2")?
            .execute(params![system.as_str(), device.as_str(), lost.cast_signed()])?;
        let body = self.sealed(&place(system, device), events);
        self.connection
            .prepare_cached(
                "INSERT INTO door_event(n, system, device, events, body)
                 VALUES ((SELECT coalesce(min(n), 1) - 1 FROM door_event), ?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                system.as_str(),
                device.as_str(),
                i64::try_from(events.len()).unwrap_or(i64::MAX),
                body
            ])?;
        self.note_door_events(system, device, events.iter())
    }

    fn take_oldest_door_events(&mut self) -> Result<Option<DoorEvents>, StoreError> {
        let oldest: Option<(String, String, i64, Vec<u8>)> = self
            .connection
            .prepare_cached(
                "DELETE FROM door_event WHERE n = (SELECT min(n) FROM door_event)
                 RETURNING system, device, events, body",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((system, device, events, body)) = oldest else { return Ok(None) };
        let lost: Option<i64> = self
            .connection
            .prepare_cached("SELECT lost FROM door_read WHERE system = ?1 AND device = ?2")?
            .query_row([&system, &device], |row| row.get(0))
            .optional()?;
        self.connection
            .prepare_cached("UPDATE door_read SET lost = 0 WHERE system = ?1 AND device = ?2 AND lost > 0")?
            .execute([&system, &device])?;
        let corrupt = |error| StoreError::corrupt("door_event", error);
        let system = SystemName::new(system).map_err(corrupt)?;
        let device = DeviceName::new(device).map_err(corrupt)?;
        let mut lost = lost.unwrap_or_default().cast_unsigned();
        let events = match self.unseal::<Vec<DoorEvent>>(&place(&system, &device), &body) {
            Ok(read) => read,
            // Nobody will ever read them, and nothing behind them may wait for that.
            Err(error) => {
                tracing::error!(%system, %device, error = error.chain(), "what happened at a door cannot be read");
                lost += events.cast_unsigned();
                Vec::new()
            }
        };
        Ok(Some(DoorEvents { system, device, lost, events }))
    }

    /// The cloud has forgotten what it was told: the devices tell all that they remember once more, and the cloud knows by
    /// their ids which events are new to it.
    pub(super) fn read_doors_again(&mut self) -> Result<(), StoreError> {
        self.connection.execute("UPDATE door_read SET mark = NULL WHERE mark IS NOT NULL", [])?;
        Ok(())
    }
}

fn place(system: &SystemName, device: &DeviceName) -> String {
    format!("door_event.body/{system}/{device}")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        model::{DoorAct, Outcome, Report},
        protocol::{EpochReason, Message},
        queue::Rules,
        seal::SealKey,
        seams::{Random, Storage},
    };

    fn queue(folder: &tempfile::TempDir) -> Queue {
        let random = Random::seeded(1);
        let key = SealKey::new([7; 32], random.clone());
        Queue::open(&Storage::folder(folder.path()), key, random, Rules::default()).unwrap()
    }

    fn system() -> SystemName {
        SystemName::new("keypads").unwrap()
    }

    fn device() -> DeviceName {
        DeviceName::new("101").unwrap()
    }

    fn seen(numbers: std::ops::Range<u128>) -> DoorEvents {
        let event = |n| DoorEvent {
            door_event_id: uuid::Uuid::from_u128(n),
            at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::try_from(n).unwrap()),
            what: DoorAct::Unlocked,
            by: None,
            slot: None,
            job_id: None,
        };
        DoorEvents { system: system(), device: device(), lost: 0, events: numbers.map(event).collect() }
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// All that the outbox holds of doors: how many were lost, and the events by their numbers.
    fn told(queue: &Queue) -> Vec<(u64, Vec<u128>)> {
        let reports = queue.reports_after(Position::default(), 10_000).unwrap();
        let of = |(_, message)| match message {
            Message::DoorEvents(seen) => {
                let numbers = seen.events.iter().map(|event| event.door_event_id.as_u128()).collect();
                Some((seen.lost, numbers))
            }
            _ => None,
        };
        reports.into_iter().filter_map(of).collect()
    }

    #[test]
    fn what_is_read_behind_an_old_mark_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        assert_eq!(queue.take_door_events(&seen(0..3), None, "three").unwrap(), 0);
        assert_eq!(queue.take_door_events(&seen(0..3), None, "three").unwrap(), 0);
        assert_eq!(queue.door_mark(&system(), &device()).unwrap().as_deref(), Some("three"));
        queue.take_door_events(&seen(3..4), Some("three"), "four").unwrap();
        assert!(told(&queue).is_empty(), "nothing goes before a cloud can read it");
        assert_eq!(queue.hand_on_door_events(now()).unwrap(), HandedOn { any: true, more: false });
        assert_eq!(told(&queue), [(0, vec![0, 1, 2]), (0, vec![3])]);
        assert_eq!(queue.hand_on_door_events(now()).unwrap(), HandedOn::default());
    }

    #[test]
    fn the_outbox_holds_few_of_them_and_the_rest_follows_what_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_door_events(&seen(0..2_000), None, "all").unwrap();
        let told_of = |queue: &Queue| told(queue).iter().map(|(_, events)| events.len()).sum::<usize>();
        assert_eq!(queue.hand_on_door_events(now()).unwrap(), HandedOn { any: true, more: true });
        assert_eq!(queue.hand_on_door_events(now()).unwrap(), HandedOn { any: false, more: true });
        assert_eq!(told_of(&queue), 1_024);
        let last = queue.memory().unwrap().reports.last;
        queue.acknowledge_reports(last);
        assert_eq!(queue.hand_on_door_events(now()).unwrap(), HandedOn { any: true, more: false });
        let later = queue.reports_after(last, 100).unwrap().len();
        assert_eq!(later, (2_000 - 1_024_usize).div_ceil(64));
    }

    #[test]
    fn where_there_is_no_room_the_oldest_go_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        let kept = u128::from(DOOR_EVENTS_KEPT);
        let seen = DoorEvents { lost: 7, ..seen(0..kept + 100) };
        assert_eq!(queue.take_door_events(&seen, None, "all").unwrap(), 7 + 128, "whole messages of 64");
        queue.hand_on_door_events(now()).unwrap();
        let (lost, first) = told(&queue).remove(0);
        assert_eq!((lost, first[0]), (7 + 128, 128));
        assert_eq!(told(&queue)[1].0, 0, "it is said once");
    }

    #[test]
    fn what_is_read_once_more_and_not_told_yet_is_kept_once_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        let kept = u128::from(DOOR_EVENTS_KEPT);
        assert_eq!(queue.take_door_events(&seen(0..kept), None, "all").unwrap(), 0);
        queue.read_doors_again().unwrap();
        assert_eq!(queue.take_door_events(&seen(0..kept), None, "all").unwrap(), 0, "they are the same");
        queue.hand_on_door_events(now()).unwrap();
        assert_eq!(told(&queue)[0], (0, (0..64).collect()));
    }

    #[test]
    fn what_is_kept_is_known_without_being_opened_and_none_of_it_once_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_door_events(&seen(0..100), None, "hundred").unwrap();
        queue.connection.execute("UPDATE door_event SET body = x'00'", []).unwrap();
        queue.read_doors_again().unwrap();
        queue.take_door_events(&seen(0..101), None, "more").unwrap();
        let count =
            |queue: &Queue, sql: &str| queue.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert_eq!(count(&queue, "SELECT sum(events) FROM door_event").unwrap(), 101);
        queue.hand_on_door_events(now()).unwrap();
        assert_eq!(count(&queue, "SELECT count(*) FROM door_event_id").unwrap(), 0);
        // What comes back out of the outbox is known again.
        queue.take_door_events(&seen(101..103), Some("more"), "all").unwrap();
        queue.hand_on_door_events(now()).unwrap();
        queue.take_doors_back().unwrap().unwrap();
        queue.read_doors_again().unwrap();
        queue.take_door_events(&seen(100..103), None, "all").unwrap();
        assert_eq!(count(&queue, "SELECT sum(events) FROM door_event").unwrap(), 3);
        assert_eq!(count(&queue, "SELECT count(*) FROM door_event_id").unwrap(), 3);
    }

    #[test]
    fn what_the_version_before_kept_is_known_too() {
        let folder = tempfile::tempdir().unwrap();
        {
            let mut held = queue(&folder);
            held.take_door_events(&seen(0..100), None, "hundred").unwrap();
            // As that version left it.
            held.forget_door_event_ids().unwrap();
        }
        let mut queue = queue(&folder);
        queue.read_doors_again().unwrap();
        queue.take_door_events(&seen(0..101), None, "more").unwrap();
        queue.hand_on_door_events(now()).unwrap();
        assert_eq!(told(&queue), [(0, (0..64).collect()), (0, (64..100).collect()), (0, vec![100])]);
    }

    #[test]
    fn for_a_cloud_that_cannot_read_it_what_happened_leaves_the_outbox_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_door_events(&DoorEvents { lost: 7, ..seen(0..100) }, None, "hundred").unwrap();
        queue.hand_on_door_events(now()).unwrap();
        queue.take_door_events(&seen(100..101), Some("hundred"), "more").unwrap();
        let end = Report {
            job_id: JobId(uuid::Uuid::from_u128(1)),
            revision: 1,
            at: now(),
            outcome: Outcome::Cancelled,
            resolution: None,
            rooms: Vec::new(),
            local: None,
        };
        queue.report(&end).unwrap();
        let before = queue.memory().unwrap().reports.last;
        let after = queue.take_doors_back().unwrap().unwrap();
        assert_eq!(after, Position { epoch: before.epoch + 1, n: 0 });
        let first = Position { n: 1, ..after };
        assert_eq!(queue.reports_after(after, 100).unwrap(), [(first, Message::Outcome(end))]);
        assert_eq!(queue.take_doors_back().unwrap(), None);
        // For a cloud that can, all of it is there once and in order.
        queue.hand_on_door_events(now()).unwrap();
        assert_eq!(told(&queue), [(7, (0..64).collect()), (0, (64..100).collect()), (0, vec![100])]);
    }

    #[test]
    fn a_cloud_that_has_forgotten_reports_has_the_doors_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_door_events(&seen(0..3), None, "three").unwrap();
        queue.hand_on_door_events(now()).unwrap();
        let last = queue.memory().unwrap().reports.last;
        queue.acknowledge_reports(last);
        queue.resume(now(), 1, Some(EpochReason::SenderBehind), Position { epoch: 1, n: 0 }).unwrap();
        assert_eq!(queue.door_mark(&system(), &device()).unwrap(), None);
        queue.take_door_events(&seen(0..3), Some("three"), "three").unwrap();
        assert_eq!(queue.door_mark(&system(), &device()).unwrap(), None, "read before it was forgotten");
        queue.take_door_events(&seen(0..4), None, "four").unwrap();
        queue.hand_on_door_events(now()).unwrap();
        assert_eq!(told(&queue), [(0, vec![0, 1, 2, 3])]);
    }
}
