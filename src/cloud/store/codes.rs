//! Codes: [`Book`]s from rows and back, the orders that follow, and what bridges say of slots.
//!
//! A change loads the book of one grant, or one slot of a method that nobody knows any more, lets the planner change it,
//! and stores what became of it with the orders that follow. What is over leaves no row behind, so that a lock with a long
//! history costs no more than a new one.

mod load;
mod reports;
mod save;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{ErrorCode, params};
use serde_json::json;

use crate::{
    grants::{
        PinMark,
        codes::{Book, Moment},
        pin,
    },
    model::{
        AccessGrantId, AccessMethodId, Capabilities, Device, DeviceId, Private, SlotContent, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Db, Tenant,
    rows::{id, maybe_time, ms},
};

/// On a full disk nothing is ordered; what is missing is looked for again after this long.
const ONCE_THERE_IS_ROOM: SignedDuration = SignedDuration::from_mins(1);
/// How many grants whose time has come are looked at in one go: nobody at a desk waits behind a whole house.
const DUE_AT_ONCE: u32 = 64;
/// A grant whose rows cannot be read is looked at again after this long: somebody may have mended them.
pub(super) const PUT_OFF: SignedDuration = SignedDuration::from_mins(30);

/// Whose slots are changed.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// Those of a grant's codes.
    Grant(AccessGrantId),
    /// One of a method that nobody knows any more.
    Stray(DeviceId, AccessMethodId),
}

/// What a change has to know of the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Their own slots and rules: no PIN is drawn.
    Slots,
    /// The PINs that others have there as well.
    Pins,
}

impl Db {
    /// Looks at the grants whose time has come; says whether there were any, and when the next one's comes. One that
    /// cannot be read is put off, and keeps nobody else waiting.
    pub(super) fn run_due_codes(&mut self, now: Timestamp) -> Result<(bool, Option<Timestamp>), StoreError> {
        let due = self.all(
            "SELECT access_grant_id, workspace_id FROM code_grant WHERE due_at <= ?1 ORDER BY due_at, rowid LIMIT ?2",
            params![ms(now), DUE_AT_ONCE],
            |row| Ok((Of::Grant(id(row, "access_grant_id")?), id::<WorkspaceId>(row, "workspace_id")?)),
        )?;
        let strays = self.all(
            "SELECT device_id, access_method_id, workspace_id FROM stray_slot WHERE due_at <= ?1
             ORDER BY due_at, rowid LIMIT ?2",
            params![ms(now), DUE_AT_ONCE],
            |row| {
                Ok((Of::Stray(id(row, "device_id")?, id(row, "access_method_id")?), id(row, "workspace_id")?))
            },
        )?;
        let any = !due.is_empty() || !strays.is_empty();
        for (of, workspace) in due.into_iter().chain(strays) {
            let looked_at = self.apart(|db| db.tenant(workspace).look_at(now, of))?;
            if let Err(error) = looked_at {
                tracing::error!(
                    ?of,
                    error = &error as &dyn std::error::Error,
                    "codes cannot be looked at, and are put off"
                );
                let later = now.saturating_add(PUT_OFF).unwrap_or(now);
                self.tenant(workspace).keep_due(of, Some(later))?;
            }
        }
        let next = self.one(
            "SELECT min(due_at) AS next FROM (
               SELECT min(due_at) AS due_at FROM code_grant WHERE due_at IS NOT NULL
               UNION ALL SELECT min(due_at) FROM stray_slot WHERE due_at IS NOT NULL)",
            [],
            |row| maybe_time(row, "next"),
        )?;
        Ok((any, next.flatten()))
    }

    /// Makes a change that leaves nothing behind where it fails for rows that it cannot read or write; the outer result
    /// is for faults of the whole database.
    pub(super) fn apart<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        self.connection.execute_batch("SAVEPOINT apart")?;
        match change(self) {
            Ok(made) => {
                self.connection.execute_batch("RELEASE apart")?;
                Ok(Ok(made))
            }
            Err(error) if is_of_rows(&error) => {
                self.connection.execute_batch("ROLLBACK TO apart; RELEASE apart")?;
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }
}

impl Tenant<'_> {
    /// The time of some codes has come.
    fn look_at(&mut self, now: Timestamp, of: Of) -> Result<(), StoreError> {
        match of {
            Of::Grant(grant) => self
                .with_book(now, grant, |book, at| {
                    let devices = book.grants.get(&grant).map(|own| own.devices.clone()).unwrap_or_default();
                    book.clock(at);
                    book.retarget(at, grant, devices);
                })
                .map(drop),
            Of::Stray(device, method) => {
                let book = self.load_stray(now, device, method)?;
                self.change(now, book, of, |_, _| ())
            }
        }
    }

    /// A device is back: it is read, and what it refused is tried again.
    pub(super) fn device_is_back(&mut self, now: Timestamp, device: DeviceId) -> Result<(), StoreError> {
        let at = params![device.to_string(), ms(now)];
        self.db.execute(
            "UPDATE device SET read_due = ?2 WHERE device_id = ?1
               AND EXISTS (SELECT 1 FROM desired_slot d WHERE d.device_id = ?1)",
            at,
        )?;
        self.db
            .execute("UPDATE slot_work SET not_before = NULL WHERE device_id = ?1", [device.to_string()])?;
        self.db.execute(
            "UPDATE code_grant SET due_at = ?2 WHERE access_grant_id IN (
               SELECT access_grant_id FROM access_method JOIN slot_work USING(access_method_id)
               WHERE device_id = ?1 AND failures > 0)",
            at,
        )?;
        self.strays_due(now, device)
    }

    /// What nobody knows any more is looked at again in a device.
    pub(super) fn strays_due(&self, now: Timestamp, device: DeviceId) -> Result<(), StoreError> {
        self.db.execute(
            "UPDATE stray_slot SET due_at = ?2 WHERE device_id = ?1",
            params![device.to_string(), ms(now)],
        )?;
        Ok(())
    }

    /// Changes the codes of a grant: loads what they touch, lets the change be made, orders what is missing, and stores
    /// what became of it. `None` where there is no such grant.
    pub(super) fn with_book<T>(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        change: impl FnOnce(&mut Book, &Moment<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let Some(book) = self.load_book(now, grant, Known::Pins)? else { return Ok(None) };
        let mut made = None;
        self.change(now, book, Of::Grant(grant), |book, at| made = Some(change(book, at)))?;
        Ok(made)
    }

    /// Changes a slot of the grant that a method is of, or of a method that is gone. False where its rows cannot be read or
    /// written: then nothing is changed, and everything behind it goes on.
    fn with_slot(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
        device: DeviceId,
        known: Known,
        change: impl FnOnce(&mut Book, &Moment<'_>),
    ) -> Result<bool, StoreError> {
        let workspace = self.id;
        let changed =
            self.db.apart(|db| db.tenant(workspace).try_slot(now, method, device, known, change))?;
        if let Err(error) = &changed {
            tracing::error!(
                %method,
                %device,
                error = error as &dyn std::error::Error,
                "what is known of a slot cannot be read or written, and what was said of it is not noted"
            );
        }
        Ok(changed.is_ok())
    }

    fn try_slot(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
        device: DeviceId,
        known: Known,
        change: impl FnOnce(&mut Book, &Moment<'_>),
    ) -> Result<(), StoreError> {
        let grant = self.db.one(
            "SELECT access_grant_id FROM access_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        let of = grant.map_or(Of::Stray(device, method), Of::Grant);
        let book = match of {
            Of::Grant(grant) => self.load_book(now, grant, known)?,
            Of::Stray(device, method) => Some(self.load_stray(now, device, method)?),
        };
        match book {
            Some(book) => self.change(now, book, of, change),
            None => Ok(()),
        }
    }

    fn load_stray(
        &mut self,
        now: Timestamp,
        device: DeviceId,
        method: AccessMethodId,
    ) -> Result<Book, StoreError> {
        let mut book = Book::default();
        self.load_slots(&mut book, method)?;
        book.slots.retain(|(on, _), _| *on == device);
        self.load_locks(&mut book, None, &[device], now, Known::Slots)?;
        Ok(book)
    }

    fn change(
        &mut self,
        now: Timestamp,
        before: Book,
        of: Of,
        change: impl FnOnce(&mut Book, &Moment<'_>),
    ) -> Result<(), StoreError> {
        let (seal, random) = (self.db.seal.clone(), self.db.random.clone());
        let mark = |pin: &str| PinMark(seal.blind_index("slot.pin", pin));
        let at = Moment { now, random: &random, mark: &mark };
        let mut after = before.clone();
        change(&mut after, &at);
        let (orders, due) = if self.db.disk_is_full {
            after.settle_all(&at);
            (Vec::new(), now.checked_add(ONCE_THERE_IS_ROOM).ok())
        } else {
            let orders = after.reconcile(&at);
            (orders, after.due(now))
        };
        self.save_book(now, &before, &after, &mark)?;
        for order in orders {
            self.order_slot(now, order)?;
        }
        match of {
            Of::Stray(device, method) if !after.slots.contains_key(&(device, method)) => {
                self.forget_stray(device, method)?;
            }
            of => self.keep_due(of, due)?,
        }
        for event in std::mem::take(&mut after.events) {
            match event.missing_devices.as_slice() {
                [] => self.tell(now, std::slice::from_ref(&event))?,
                missing => self.tell_more(now, &event, json!({"missing_device_ids": missing}))?,
            }
        }
        Ok(())
    }

    /// Some codes are to be looked at then.
    fn keep_due(&self, of: Of, due: Option<Timestamp>) -> Result<(), StoreError> {
        match of {
            Of::Grant(grant) => self.db.execute(
                "UPDATE code_grant SET due_at = ?2 WHERE access_grant_id = ?1",
                params![grant.to_string(), due.map(ms)],
            )?,
            Of::Stray(device, method) => self.db.execute(
                "INSERT INTO stray_slot VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(device_id, access_method_id) DO UPDATE SET due_at = excluded.due_at",
                params![device.to_string(), method.to_string(), self.workspace, due.map(ms)],
            )?,
        };
        Ok(())
    }

    fn forget_stray(&self, device: DeviceId, method: AccessMethodId) -> Result<(), StoreError> {
        self.db.execute(
            "DELETE FROM stray_slot WHERE device_id = ?1 AND access_method_id = ?2",
            params![device.to_string(), method.to_string()],
        )?;
        Ok(())
    }

    /// Asks for the cards of a grant, by their places, at devices that know cards by number, where that was not done yet.
    pub(super) fn request_cards(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        places: &[u32],
    ) -> Result<(), StoreError> {
        let mut has_any = false;
        for device in self.devices_of_grant(grant)? {
            has_any |= self.takes_cards(device)?;
        }
        if places.is_empty() || !has_any {
            return Ok(());
        }
        self.with_book(now, grant, |book, at| {
            places.iter().for_each(|place| book.request_card(at, grant, *place));
        })
        .map(drop)
    }

    /// Whether a device that is there knows cards by number.
    pub(super) fn takes_cards(&self, device: DeviceId) -> Result<bool, StoreError> {
        let declared = self.declared(device)?;
        Ok(declared.is_some_and(|(device, can)| device.card_numbers && can.slots.is_some()))
    }

    /// A grant follows the devices of its spaces.
    pub(super) fn follow_devices(&mut self, now: Timestamp, grant: AccessGrantId) -> Result<(), StoreError> {
        self.request_wanted_cards(now, grant)?;
        if !self.has_requests(grant)? {
            return Ok(());
        }
        self.with_book(now, grant, |book, at| {
            let devices = book.grants.get(&grant).map(|own| own.devices.clone()).unwrap_or_default();
            book.retarget(at, grant, devices);
        })
        .map(drop)
    }

    /// Whether codes, or cards that devices know by number, are asked for.
    pub(super) fn has_requests(&self, grant: AccessGrantId) -> Result<bool, StoreError> {
        let found = self.db.one(
            "SELECT 1 FROM code_request WHERE access_grant_id = ?1 AND workspace_id = ?2 LIMIT 1",
            params![grant.to_string(), self.workspace],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Asks for the cards that a grant wants, where it leads to devices that know cards by number and did not before.
    pub(super) fn request_wanted_cards(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
    ) -> Result<(), StoreError> {
        let cards = self.db.all(
            "SELECT place FROM requested_method r WHERE access_grant_id = ?1 AND workspace_id = ?2 AND mode = 'card'
               AND NOT EXISTS (SELECT 1 FROM declined_method d
                               WHERE d.access_grant_id = ?1 AND d.place = r.place AND d.acs_system_id IS NULL)",
            params![grant.to_string(), self.workspace],
            |row| row.get("place"),
        )?;
        self.request_cards(now, grant, &cards)
    }

    /// Whether a device that is there can be given codes.
    pub(super) fn takes_codes(&self, device: DeviceId) -> Result<bool, StoreError> {
        let rules = |(device, can): (Device, Capabilities)| device.pins.filter(|_| can.slots.is_some());
        Ok(self.declared(device)?.and_then(rules).as_ref().is_some_and(pin::can_be_given))
    }

    /// The devices that a grant leads to, as its site has them now.
    pub(super) fn devices_of_grant(&self, grant: AccessGrantId) -> Result<Vec<DeviceId>, StoreError> {
        let devices = self.db.all(
            "SELECT device_id FROM (
               SELECT 0 AS part, place, 0 AS member, device_id FROM grant_device WHERE access_grant_id = ?1
               UNION ALL
               SELECT 1, place, s.rowid, s.device_id FROM grant_space JOIN space_device s USING(space_id)
               WHERE access_grant_id = ?1) JOIN device USING(device_id)
             WHERE removed_at IS NULL AND workspace_id = ?2 ORDER BY part, place, member",
            params![grant.to_string(), self.workspace],
            |row| id(row, "device_id"),
        )?;
        let mut seen = BTreeSet::new();
        Ok(devices.into_iter().filter(|device| seen.insert(*device)).collect())
    }
}

/// Whether a fault is one of the rows that were looked at, and others may be sound.
fn is_of_rows(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt { .. } | StoreError::Sealed(_) => true,
        StoreError::Sql(error) => {
            matches!(error.sqlite_error_code(), None | Some(ErrorCode::ConstraintViolation))
        }
        _ => false,
    }
}

fn signed(generation: u64) -> i64 {
    i64::try_from(generation).unwrap_or(i64::MAX)
}

fn unsigned(generation: i64) -> u64 {
    u64::try_from(generation).unwrap_or(0)
}

fn pin_place(method: AccessMethodId) -> String {
    format!("code_method.pin/{method}")
}

fn wish_place(method: AccessMethodId) -> String {
    format!("code_method.wish/{method}")
}

fn slot_place(device: DeviceId, method: AccessMethodId) -> String {
    format!("desired_slot.pin/{device}/{method}")
}

fn trouble_place(device: DeviceId, method: AccessMethodId) -> String {
    format!("slot_work.message/{device}/{method}")
}

/// What precedes the number of a card where a slot's content is kept. A PIN has digits alone.
const CARD: &str = "card ";

/// A slot's content as it is sealed.
fn text_of(content: &SlotContent) -> Private {
    match content {
        SlotContent::Pin(pin) => pin.clone(),
        SlotContent::CardNumber(number) => Private::new(format!("{CARD}{}", number.expose())),
    }
}

fn content_of(text: Private) -> SlotContent {
    match text.expose().strip_prefix(CARD) {
        Some(number) => SlotContent::CardNumber(Private::new(number)),
        None => SlotContent::Pin(text),
    }
}

#[cfg(test)]
mod tests;
