//! What the cloud wants of this site, kept for a desk that has to go on without it. Rows are sealed; who looks for a grant
//! finds it by a blind index.
//!
//! A picture replaces the one before. When the cloud begins a new epoch, what it told before stays in use until all of the
//! new one has come, so that the desk is never without a picture; then what was not named again is gone.

use rusqlite::{OptionalExtension, Params, Row, params};

use super::Queue;
use crate::{
    model::{AccessGrantId, AccessMethodId, DesiredGrant, ReservationKey},
    protocol::{Desired, Position},
    store::StoreError,
};

/// Grants of an earlier epoch that are deleted at a time, so that no commit is held up.
const DROPPED_AT_ONCE: i64 = 500;

/// How much of what the cloud wants is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DesiredHeld {
    /// The last change that is held.
    pub position: Position,
    /// Whether all of this epoch was told. Until then there may be grants that are not known, and some that are over.
    pub is_complete: bool,
}

impl DesiredHeld {
    /// Whether no cloud has ever told this memory anything.
    pub(super) fn was_never_told(&self) -> bool {
        self.position == Position::default()
    }
}

/// What counts: once all of an epoch was told, only what was told in it, and what the site made and the cloud does not know.
const COUNTS: &str = "(made_here = 1 OR EXISTS (SELECT 1 FROM desired WHERE is_complete = 0 \
     OR desired.epoch = desired_grant.epoch))";

impl Queue {
    /// How much is known of what the cloud wants.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_held(&self) -> Result<DesiredHeld, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT epoch, n, is_complete FROM desired")?;
        let held = statement.query_row([], |row| {
            let number = |column| row.get(column).map(i64::cast_unsigned);
            Ok(DesiredHeld {
                position: Position { epoch: number(0)?, n: number(1)? },
                is_complete: row.get(2)?,
            })
        });
        Ok(held?)
    }

    /// Takes a change of what the cloud wants, whole, unless it is held already. Gives what is held then: that may be
    /// acknowledged once it is committed.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::DiskFull`] while nothing new is taken.
    pub fn take_desired(&mut self, desired: &Desired) -> Result<Position, StoreError> {
        let reports = self.memory()?.reports;
        self.take_desired_after(desired, Position { n: reports.acknowledged, ..reports.last })
    }

    /// [`Queue::take_desired`] for a change that has waited since it came: the cloud had acknowledged the reports up to
    /// `heard` by then. What the desk took back later than that is not there again.
    ///
    /// # Errors
    /// As [`Queue::take_desired`].
    pub fn take_desired_after(&mut self, desired: &Desired, heard: Position) -> Result<Position, StoreError> {
        let held = self.desired_held()?;
        let Desired { up_to, grants, gone, complete } = desired;
        let begins = held.position.epoch < up_to.epoch;
        let is_complete = *complete || (held.is_complete && !begins);
        if *up_to < held.position || (*up_to == held.position && is_complete == held.is_complete) {
            return Ok(held.position);
        }
        if self.disk_is_full {
            return Err(StoreError::DiskFull);
        }
        for grant in gone {
            self.forget_desired(*grant)?;
            self.forget_made(*grant)?;
        }
        for grant in grants {
            if !self.is_revoked_unheard(grant.access_grant_id, heard)? {
                self.put_desired(grant, up_to.epoch, false)?;
                self.keep_told(grant)?;
            }
        }
        self.hold_desired(DesiredHeld { position: *up_to, is_complete })?;
        self.drop_outdated_desired()?;
        Ok(*up_to)
    }

    /// This memory was set back: whatever it holds, the cloud is to tell all of it again.
    pub(super) fn doubt_desired(&mut self) -> Result<(), StoreError> {
        if self.desired_held()?.was_never_told() {
            return Ok(());
        }
        self.hold_desired(DesiredHeld { position: Position::LOST, is_complete: false })
    }

    fn hold_desired(&mut self, held: DesiredHeld) -> Result<(), StoreError> {
        let Position { epoch, n } = held.position;
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO desired(one, epoch, n, is_complete) VALUES (1, ?1, ?2, ?3)",
            )?
            .execute(params![epoch.cast_signed(), n.cast_signed(), held.is_complete])?;
        Ok(())
    }

    /// A grant that the site made: it stays, whatever the cloud tells of others.
    pub(super) fn put_made(&mut self, grant: &DesiredGrant) -> Result<(), StoreError> {
        self.put_desired(grant, 0, true)
    }

    /// Whether any grant was told or made here.
    pub(super) fn knows_a_grant(&self) -> Result<bool, StoreError> {
        Ok(self.connection.prepare_cached("SELECT 1 FROM desired_grant LIMIT 1")?.exists([])?)
    }

    /// Whether a stay has a grant that was made here and that the cloud has not told since.
    pub(super) fn stay_was_made_here(&self, stay: &ReservationKey) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM desired_grant WHERE reservation = ?1 AND made_here = 1")?
            .exists([self.told_stay_index(stay)])?)
    }

    fn put_desired(
        &mut self,
        grant: &DesiredGrant,
        epoch: u64,
        is_made_here: bool,
    ) -> Result<(), StoreError> {
        let id = grant.access_grant_id;
        self.forget_desired(id)?;
        let key = grant.access_grant_key.as_deref().map(|key| self.told_key_index(key));
        let reservation = grant.reservation_key.as_ref().map(|key| self.told_stay_index(key));
        let body = self.sealed(&place(id), grant);
        self.connection
            .prepare_cached(
                "INSERT INTO desired_grant(grant_id, epoch, key, reservation, made_here, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![id.0.as_bytes(), epoch.cast_signed(), key, reservation, is_made_here, body])?;
        let codes = grant.codes.iter().map(|code| code.access_method_id);
        for method in grant.cards.iter().map(|card| card.access_method_id).chain(codes) {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO desired_card(method_id, grant_id) VALUES (?1, ?2)")?
                .execute(params![method.0.as_bytes(), id.0.as_bytes()])?;
        }
        Ok(())
    }

    pub(super) fn forget_desired(&mut self, grant: AccessGrantId) -> Result<(), StoreError> {
        for sql in
            ["DELETE FROM desired_card WHERE grant_id = ?1", "DELETE FROM desired_grant WHERE grant_id = ?1"]
        {
            self.connection.prepare_cached(sql)?.execute([grant.0.as_bytes()])?;
        }
        Ok(())
    }

    /// Deletes a bounded number of grants that were told in an earlier epoch than the one that was told whole. Says how
    /// many went.
    pub(super) fn drop_outdated_desired(&mut self) -> Result<usize, StoreError> {
        let held = self.desired_held()?;
        if !held.is_complete {
            return Ok(0);
        }
        let outdated = self.grants(
            "SELECT grant_id FROM desired_grant WHERE epoch < ?1 AND made_here = 0 LIMIT ?2",
            [held.position.epoch.cast_signed(), DROPPED_AT_ONCE],
            |row| row.get(0).map(|id| AccessGrantId(uuid::Uuid::from_bytes(id))),
        )?;
        outdated.iter().try_for_each(|grant| self.forget_desired(*grant))?;
        Ok(outdated.len())
    }

    /// Grants in the order of their ids, behind one of them if it is named, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_grants(
        &self,
        after: Option<AccessGrantId>,
        limit: usize,
    ) -> Result<Vec<DesiredGrant>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let after = after.map_or_else(Vec::new, |grant| grant.0.as_bytes().to_vec());
        self.opened_grants(
            &format!("WHERE grant_id > ?1 AND {COUNTS} ORDER BY grant_id LIMIT ?2"),
            params![after, limit],
        )
    }

    /// A grant.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_grant(&self, grant: AccessGrantId) -> Result<Option<DesiredGrant>, StoreError> {
        let of_id = format!("WHERE grant_id = ?1 AND {COUNTS}");
        Ok(self.opened_grants(&of_id, [grant.0.as_bytes()])?.pop())
    }

    /// The grants that a person at the desk means: by the id of a card, a code or a grant, by a grant's key, or by a stay's.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_named(&self, name: &str) -> Result<Vec<DesiredGrant>, StoreError> {
        if let Ok(id) = uuid::Uuid::parse_str(name) {
            let of_card = self.desired_grant_of_card(AccessMethodId(id))?;
            let found = match of_card {
                Some(grant) => Some(grant),
                None => self.desired_grant(AccessGrantId(id))?,
            };
            if let Some(grant) = found {
                return Ok(vec![grant]);
            }
        }
        let by_key = self.desired_by_key(name)?;
        match (by_key.is_empty(), ReservationKey::new(name)) {
            (true, Ok(stay)) => self.desired_of_stay(&stay),
            _ => Ok(by_key),
        }
    }

    /// The grants with this key: one at most, unless a desk and its cloud gave it without hearing each other.
    pub(super) fn desired_by_key(&self, key: &str) -> Result<Vec<DesiredGrant>, StoreError> {
        let of_key = format!("WHERE key = ?1 AND {COUNTS} ORDER BY grant_id");
        self.opened_grants(&of_key, [self.told_key_index(key)])
    }

    /// The grants of a stay.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_of_stay(&self, stay: &ReservationKey) -> Result<Vec<DesiredGrant>, StoreError> {
        let of_stay = format!("WHERE reservation = ?1 AND {COUNTS} ORDER BY grant_id");
        self.opened_grants(&of_stay, [self.told_stay_index(stay)])
    }

    /// The grant of a card.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_grant_of_card(&self, card: AccessMethodId) -> Result<Option<DesiredGrant>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT grant_id FROM desired_card WHERE method_id = ?1")?;
        let grant = statement.query_row([card.0.as_bytes()], |row| row.get(0)).optional()?;
        match grant {
            Some(id) => self.desired_grant(AccessGrantId(uuid::Uuid::from_bytes(id))),
            None => Ok(None),
        }
    }

    fn opened_grants(&self, which: &str, params: impl Params) -> Result<Vec<DesiredGrant>, StoreError> {
        let rows =
            self.grants(&format!("SELECT grant_id, body FROM desired_grant {which}"), params, |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Vec<u8>>(1)?))
            })?;
        let mut grants = Vec::new();
        for (id, body) in rows {
            let id = AccessGrantId(uuid::Uuid::from_bytes(id));
            match self.unseal(&place(id), &body) {
                Ok(grant) => grants.push(grant),
                // Left over from a damaged file: it hides no other.
                Err(error @ (StoreError::Sealed(_) | StoreError::Corrupt { .. })) => {
                    tracing::warn!(grant = %id, error = error.chain(), "a grant cannot be read any more");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(grants)
    }

    fn grants<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn told_key_index(&self, key: &str) -> [u8; 32] {
        self.seal.blind_index("desired_grant.key", key)
    }

    fn told_stay_index(&self, stay: &ReservationKey) -> [u8; 32] {
        self.seal.blind_index("desired_grant.reservation", stay.as_str())
    }
}

fn place(grant: AccessGrantId) -> String {
    format!("desired_grant.body/{grant}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        model::{DesiredCard, DesiredCardState, DesiredDoors, DoorName, Private, SystemName, Window},
        queue::{
            FILE, MIGRATIONS, Rules,
            testing::{at, opened},
        },
        seams::Storage,
    };

    fn queue(folder: &tempfile::TempDir) -> Queue {
        opened(folder, Rules::default())
    }

    fn grant_id(number: u128) -> AccessGrantId {
        AccessGrantId(uuid::Uuid::from_u128(number))
    }

    fn card_id(number: u128) -> AccessMethodId {
        AccessMethodId(uuid::Uuid::from_u128(0xca4d_0000 + number))
    }

    fn grant(number: u128, guest: &str) -> DesiredGrant {
        let system = SystemName::new("salto").unwrap();
        DesiredGrant {
            access_grant_id: grant_id(number),
            access_grant_key: Some(format!("booking-{number}")),
            reservation_key: ReservationKey::new(format!("stay-{}", number / 10)).ok(),
            guest_name: Some(Private::new(guest)),
            window: Window::new(Timestamp::UNIX_EPOCH, Some(at(3600))).unwrap(),
            doors: vec![DesiredDoors { system: system.clone(), doors: vec![DoorName::new("101").unwrap()] }],
            cards: vec![DesiredCard {
                access_method_id: card_id(number),
                system,
                state: DesiredCardState::EncodingRequired,
                why: None,
            }],
            codes: Vec::new(),
        }
    }

    fn frame(epoch: u64, n: u64, grants: &[u128], complete: bool) -> Desired {
        let grants = grants.iter().map(|number| grant(*number, "Jane Secretsson")).collect();
        Desired { up_to: Position { epoch, n }, grants, gone: Vec::new(), complete }
    }

    fn known(queue: &Queue) -> Vec<u128> {
        let grants = queue.desired_grants(None, 100).unwrap();
        grants.iter().map(|grant| grant.access_grant_id.0.as_u128()).collect()
    }

    fn rows(queue: &Queue, table: &str) -> i64 {
        queue.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_grant_is_found_by_each_of_its_names_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = queue(&folder);
        held.take_desired(&frame(1, 3, &[11, 12, 21], true)).unwrap();
        drop(held);
        let queue = queue(&folder);
        assert_eq!(
            queue.desired_held().unwrap(),
            DesiredHeld { position: Position { epoch: 1, n: 3 }, is_complete: true }
        );
        let named = |name: &str| {
            let grants = queue.desired_named(name).unwrap();
            grants.iter().map(|grant| grant.access_grant_id.0.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(named("booking-12"), [12]);
        assert_eq!(named(&grant_id(21).to_string()), [21]);
        assert_eq!(named(&card_id(11).to_string()), [11]);
        assert_eq!(named("stay-1"), [11, 12]);
        assert_eq!(named("nobody"), [] as [u128; 0]);
        let one = queue.desired_named("booking-12").unwrap().remove(0);
        assert_eq!(one, grant(12, "Jane Secretsson"));
        assert_eq!(queue.desired_grants(Some(grant_id(11)), 1).unwrap().remove(0), one);
    }

    #[test]
    fn a_later_picture_replaces_an_earlier_one_and_what_is_gone_leaves_no_row() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_desired(&frame(1, 2, &[1, 2], true)).unwrap();
        let renamed = Desired { grants: vec![grant(1, "")], ..frame(1, 3, &[], true) };
        queue.take_desired(&renamed).unwrap();
        assert_eq!(queue.desired_grant(grant_id(1)).unwrap().unwrap(), grant(1, ""));
        let gone = Desired { gone: vec![grant_id(1), grant_id(2), grant_id(3)], ..frame(1, 6, &[], true) };
        assert_eq!(queue.take_desired(&gone).unwrap(), Position { epoch: 1, n: 6 });
        assert_eq!((rows(&queue, "desired_grant"), rows(&queue, "desired_card")), (0, 0));
    }

    #[test]
    fn what_came_before_changes_nothing_when_it_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_desired(&frame(2, 2, &[1, 2], true)).unwrap();
        for old in [frame(2, 1, &[3], false), frame(2, 2, &[3], true), frame(1, 9, &[3], true)] {
            assert_eq!(queue.take_desired(&old).unwrap(), Position { epoch: 2, n: 2 });
        }
        assert_eq!(known(&queue), [1, 2]);
    }

    #[test]
    fn a_new_epoch_drops_what_it_does_not_name_only_when_all_of_it_has_come() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_desired(&frame(1, 3, &[1, 2, 3], true)).unwrap();
        queue.take_desired(&frame(2, 1, &[1], false)).unwrap();
        assert_eq!(known(&queue), [1, 2, 3]);
        assert!(!queue.desired_held().unwrap().is_complete);
        // Another one before the end of the first.
        queue.take_desired(&frame(3, 1, &[3], false)).unwrap();
        assert_eq!(known(&queue), [1, 2, 3]);
        queue.take_desired(&frame(3, 1, &[], true)).unwrap();
        assert_eq!(known(&queue), [3]);
        assert_eq!((rows(&queue, "desired_grant"), rows(&queue, "desired_card")), (1, 1));
    }

    #[test]
    fn more_outdated_grants_than_go_at_once_are_seen_no_more_and_go_by_and_by() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.connection.execute_batch("BEGIN").unwrap();
        let all: Vec<_> = (1..=1_200).collect();
        queue.take_desired(&frame(1, 1_200, &all, true)).unwrap();
        queue.take_desired(&frame(2, 0, &[], true)).unwrap();
        assert_eq!(known(&queue), [] as [u128; 0]);
        assert_eq!(queue.desired_named("stay-7").unwrap(), []);
        assert_eq!(rows(&queue, "desired_grant"), 700);
        assert_eq!(queue.purge(Timestamp::UNIX_EPOCH).unwrap(), 500);
        assert_eq!(queue.purge(Timestamp::UNIX_EPOCH).unwrap(), 200);
        assert_eq!(queue.purge(Timestamp::UNIX_EPOCH).unwrap(), 0);
        queue.connection.execute_batch("COMMIT").unwrap();
    }

    #[test]
    fn a_memory_that_was_set_back_asks_for_everything_and_goes_on_with_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_desired(&frame(4, 2, &[1, 2], true)).unwrap();
        queue.restored(at(0)).unwrap();
        assert_eq!(queue.desired_held().unwrap().position, Position::LOST);
        assert_eq!(known(&queue), [1, 2]);
        queue.take_desired(&frame(5, 1, &[2], true)).unwrap();
        assert_eq!(known(&queue), [2]);
    }

    #[test]
    fn a_file_from_before_codes_were_told_asks_for_everything_once_and_goes_on_with_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let before_codes = MIGRATIONS.iter().position(|step| step.contains("lack the codes")).unwrap();
        let former = crate::store::open(&storage, FILE, &MIGRATIONS[..before_codes]).unwrap();
        former.execute("UPDATE desired SET epoch = 4, n = 2, is_complete = 1", []).unwrap();
        drop(former);
        let mut held = queue(&folder);
        assert_eq!(
            held.desired_held().unwrap(),
            DesiredHeld { position: Position::LOST, is_complete: false }
        );
        assert!(!held.desired_held().unwrap().was_never_told(), "a desk may go on making grants");
        held.take_desired(&frame(5, 1, &[2], true)).unwrap();
        drop(held);
        let held = queue(&folder);
        assert_eq!(held.desired_held().unwrap().position, Position { epoch: 5, n: 1 });
        assert_eq!(known(&held), [2]);
    }

    #[test]
    fn a_memory_that_no_cloud_ever_told_anything_says_so_when_it_is_set_back_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.restored(at(0)).unwrap();
        assert!(queue.desired_held().unwrap().was_never_told());
    }

    #[test]
    fn a_grant_that_cannot_be_read_any_more_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_desired(&frame(1, 2, &[11, 12], true)).unwrap();
        queue.connection.execute("UPDATE desired_grant SET body = x'00' WHERE rowid = 1", []).unwrap();
        assert_eq!(known(&queue), [12]);
    }

    #[test]
    fn no_name_lies_open_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = queue(&folder);
        queue.take_desired(&frame(1, 1, &[11], true)).unwrap();
        drop(queue);
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for name in ["Secretsson", "booking-11", "stay-1"] {
                assert!(!bytes.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
            }
        }
    }
}
