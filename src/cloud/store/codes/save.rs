//! [`Book`]s to rows, and the orders that follow.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::json;

use crate::{
    grants::{
        Mode, PinMark,
        codes::{Action, Book, CodeMethod, CodeRequest, Key, Slot, SlotOrder, mark_of},
    },
    model::{AccessGrantId, AccessMethodId, DeviceId, Job, Order, Priority, SlotPut},
    store::StoreError,
};

use super::{
    super::{Cancel, Tenant, devices::READ_EVERY, rows::ms},
    pin_place, signed, slot_place, text_of, trouble_place, wish_place,
};

/// A removal is never too late: the year 9000.
const NEVER: i64 = 221_845_392_000;

impl Tenant<'_> {
    pub(super) fn save_book(
        &mut self,
        now: Timestamp,
        before: &Book,
        after: &Book,
        mark: &dyn Fn(&str) -> PinMark,
    ) -> Result<(), StoreError> {
        for (grant, own) in &after.grants {
            let known = before.grants.get(grant);
            self.db.execute(
                "INSERT INTO code_grant(access_grant_id, workspace_id, deletion_told) VALUES(?1, ?2, ?3)
                 ON CONFLICT(access_grant_id) DO UPDATE SET deletion_told = excluded.deletion_told",
                params![grant.to_string(), self.workspace, own.deletion_told],
            )?;
            let requests_before = known.map(|known| &known.requests);
            for (place, request) in &own.requests {
                if requests_before.and_then(|known| known.get(place)) != Some(request) {
                    self.save_request(*grant, *place, request)?;
                }
            }
            for place in requests_before.into_iter().flat_map(|known| known.keys()) {
                if !own.requests.contains_key(place) {
                    self.db.execute(
                        "DELETE FROM code_request WHERE access_grant_id = ?1 AND place = ?2",
                        params![grant.to_string(), place],
                    )?;
                }
            }
            for device in
                own.opened.iter().filter(|device| known.is_none_or(|known| !known.opened.contains(device)))
            {
                self.db.execute(
                    "INSERT OR IGNORE INTO opened_device VALUES(?1, ?2, ?3, ?4)",
                    params![self.workspace, grant.to_string(), device.to_string(), ms(now)],
                )?;
            }
        }
        for (method, own) in &after.methods {
            if before.methods.get(method) != Some(own) {
                self.save_code(now, *method, own, !before.methods.contains_key(method))?;
            }
        }
        for (key, slot) in &after.slots {
            if before.slots.get(key) != Some(slot) {
                self.save_slot(*key, slot, mark)?;
            }
        }
        for key in before.slots.keys().filter(|key| !after.slots.contains_key(key)) {
            self.drop_slot(*key)?;
        }
        for (method, own) in &before.methods {
            if !after.methods.contains_key(method) {
                self.remove_method(*method)?;
                self.sweep(own.grant)?;
            }
        }
        Ok(())
    }

    fn save_request(
        &self,
        grant: AccessGrantId,
        place: u32,
        request: &CodeRequest,
    ) -> Result<(), StoreError> {
        let lack = request.lack.as_ref();
        self.db.execute(
            "INSERT INTO code_request VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT(access_grant_id, place) DO UPDATE SET declined = excluded.declined, is_closed = excluded.is_closed,
               lack_since = excluded.lack_since, lack_devices = excluded.lack_devices",
            params![
                grant.to_string(),
                self.workspace,
                place,
                json!(request.declined).to_string(),
                lack.map(|lack| ms(lack.since)),
                lack.map(|lack| json!(lack.devices).to_string()),
                request.is_closed
            ],
        )?;
        Ok(())
    }

    fn save_code(
        &self,
        now: Timestamp,
        method: AccessMethodId,
        own: &CodeMethod,
        is_new: bool,
    ) -> Result<(), StoreError> {
        if is_new {
            // A code may be for devices of several systems; the row names the first one's.
            self.db.execute(
                "INSERT INTO access_method SELECT ?1, workspace_id, ?2, ?3, acs_system_id, ?6, ?4 FROM device
                 WHERE device_id = ?5",
                params![
                    method.to_string(),
                    own.grant.to_string(),
                    own.place,
                    ms(now),
                    own.devices.first().map(ToString::to_string),
                    match own.key {
                        Key::Pin => Mode::Code,
                        Key::Card => Mode::Card,
                    }
                    .as_str()
                ],
            )?;
        }
        let seal = &self.db.seal;
        // One that was forgotten shows without being opened.
        let pin = match own.pin.expose() {
            "" => Vec::new(),
            pin => seal.seal(&pin_place(method), pin.as_bytes()),
        };
        let wish = own.wish.as_ref().map(|wish| seal.seal(&wish_place(method), wish.expose().as_bytes()));
        self.db.execute(
            "INSERT INTO code_method VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT(access_method_id) DO UPDATE SET pin = excluded.pin, wish = excluded.wish,
               device_ids = excluded.device_ids, asked_at = excluded.asked_at, is_issued = excluded.is_issued,
               issued_at = excluded.issued_at, is_updating = excluded.is_updating,
               updating_starts_at = excluded.updating_starts_at, updating_ends_at = excluded.updating_ends_at,
               deleted_at = excluded.deleted_at, has_ended = excluded.has_ended, late_since = excluded.late_since,
               failed_since = excluded.failed_since, joining = excluded.joining",
            params![
                method.to_string(),
                self.workspace,
                pin,
                wish,
                json!(own.devices).to_string(),
                ms(own.asked_at),
                own.is_issued,
                own.issued_at.map(ms),
                own.updating_from.is_some(),
                own.updating_from.map(|window| ms(window.starts_at())),
                own.updating_from.and_then(|window| window.ends_at()).map(ms),
                own.deleted_at.map(ms),
                own.has_ended,
                own.late_since.map(ms),
                own.failed_since.map(ms),
                json!(own.joining).to_string()
            ],
        )?;
        Ok(())
    }

    fn save_slot(
        &self,
        (device, method): (DeviceId, AccessMethodId),
        slot: &Slot,
        mark: &dyn Fn(&str) -> PinMark,
    ) -> Result<(), StoreError> {
        let (on, of) = (device.to_string(), method.to_string());
        let wanted = slot.desired.content.as_ref();
        let pin = wanted.map(|(what, _)| {
            self.db.seal.seal(&slot_place(device, method), text_of(what).expose().as_bytes())
        });
        self.db.execute(
            "INSERT INTO desired_slot VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT(device_id, access_method_id) DO UPDATE SET generation = excluded.generation,
               pin = excluded.pin, mark = excluded.mark, starts_at = excluded.starts_at, ends_at = excluded.ends_at",
            params![
                on,
                of,
                self.workspace,
                signed(slot.desired.generation),
                pin,
                wanted.map(|(what, _)| mark_of(mark, what).0),
                wanted.map(|(_, window)| ms(window.starts_at())),
                wanted.and_then(|(_, window)| window.ends_at()).map(ms)
            ],
        )?;
        let observed = &slot.observed;
        let holds = observed.holds;
        let doubts: Vec<_> = observed.doubts.iter().map(|doubt| doubt.job).collect();
        self.db.execute(
            "INSERT INTO observed_slot(device_id, access_method_id, workspace_id, generation, mark, opens_until, since,
                                       doubt_job_ids)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT(device_id, access_method_id) DO UPDATE SET generation = excluded.generation,
               mark = excluded.mark, opens_until = excluded.opens_until, since = excluded.since,
               doubt_job_ids = excluded.doubt_job_ids",
            params![
                on,
                of,
                self.workspace,
                holds.map(|content| signed(content.generation)),
                holds.and_then(|content| content.mark).map(|mark| mark.0),
                holds.and_then(|content| content.until).map(ms),
                observed.since.map(ms),
                json!(doubts).to_string()
            ],
        )?;
        let work = &slot.work;
        let message = work
            .trouble
            .as_ref()
            .map(|trouble| self.db.seal.seal(&trouble_place(device, method), trouble.message.as_bytes()));
        self.db.execute(
            "INSERT INTO slot_work VALUES(?1, ?2, ?3, ?4, ?10, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT(device_id, access_method_id) DO UPDATE SET job_id = excluded.job_id,
               earlier_job_ids = excluded.earlier_job_ids,
               failures = excluded.failures, not_before = excluded.not_before, code = excluded.code,
               message = excluded.message, trouble_since = excluded.trouble_since",
            params![
                on,
                of,
                self.workspace,
                work.under_way.map(|way| way.job.to_string()),
                work.failures,
                work.not_before.map(ms),
                work.trouble.as_ref().map(|trouble| trouble.code.as_str()),
                message,
                work.trouble.as_ref().map(|trouble| ms(trouble.since)),
                json!(work.earlier.iter().map(|(job, _)| job).collect::<Vec<_>>()).to_string()
            ],
        )?;
        Ok(())
    }

    fn drop_slot(&self, (device, method): (DeviceId, AccessMethodId)) -> Result<(), StoreError> {
        for table in ["desired_slot", "observed_slot", "slot_work"] {
            self.db.execute(
                &format!("DELETE FROM {table} WHERE device_id = ?1 AND access_method_id = ?2"),
                params![device.to_string(), method.to_string()],
            )?;
        }
        Ok(())
    }

    pub(super) fn order_slot(&mut self, now: Timestamp, order: SlotOrder) -> Result<(), StoreError> {
        let SlotOrder { device, method, job, action } = order;
        let Some(reached) = self.reached(device)? else { return Ok(()) };
        let (generation, mark, until, expires_at, order) = match action {
            Action::Withdraw => {
                match self.db.enqueue_cancel(now, reached.bridge, job)? {
                    Cancel::Withdrawn => {
                        self.db.execute("DELETE FROM ordered_slot WHERE job_id = ?1", [job.to_string()])?;
                    }
                    Cancel::Ordered | Cancel::TooLate => {}
                }
                return Ok(());
            }
            Action::Put { generation, what, mark, window } => {
                let put = SlotPut {
                    device: reached.name,
                    slot: method.to_string(),
                    content: what,
                    window,
                    generation,
                };
                (
                    Some(signed(generation)),
                    Some(mark.0),
                    window.ends_at(),
                    window.ends_at(),
                    Order::SlotPut(put),
                )
            }
            Action::Remove => {
                let remove = Order::SlotRemove { device: reached.name, slot: method.to_string() };
                (None, None, None, None, remove)
            }
        };
        let job = Job {
            job_id: job,
            system: reached.system,
            priority: Priority::Background,
            created_at: now,
            expires_at: expires_at.unwrap_or_else(|| Timestamp::from_second(NEVER).unwrap_or(Timestamp::MAX)),
            order,
        };
        self.db.execute(
            "INSERT INTO ordered_slot(job_id, workspace_id, bridge_id, device_id, access_method_id, generation, mark,
                                      opens_until, ordered_at)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                job.job_id.to_string(),
                self.workspace,
                reached.bridge.to_string(),
                device.to_string(),
                method.to_string(),
                generation,
                mark,
                until.map(ms),
                ms(now)
            ],
        )?;
        self.db.enqueue_job(now, reached.bridge, &job)?;
        let again = now.saturating_add(READ_EVERY).unwrap_or(now);
        self.db.execute(
            "UPDATE device SET read_due = ?2 WHERE device_id = ?1 AND read_due IS NULL",
            params![device.to_string(), ms(again)],
        )?;
        self.db.has_ordered = true;
        Ok(())
    }
}
