//! Codes: [`Book`]s from rows and back, the orders that follow, and what bridges say of slots.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    grants::{
        PinMark,
        codes::{
            Action, Book, CodeGrant, CodeMethod, Content, Deed, Desired, Doubt, Lock, Moment, Observed, Slot,
            SlotOrder, Told, Trouble, UnderWay, Work,
        },
    },
    model::{
        AccessGrantId, AccessMethodId, BridgeId, Code, Device, DeviceId, Job, JobId, Kind, LocalJob, Order,
        Outcome, PinConstraint, Priority, Private, Report, SlotContent, SlotPut, SlotSeen, Verdict, Window,
        WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Cancel, CodeView, Db, Tenant,
    devices::READ_EVERY,
    grants::window,
    rows::{id, json as json_of, maybe_id, maybe_time, ms, time},
};

/// Codes whose windows ended longer ago than this take part in nothing any more; ample for any lead.
const TAKEN_BEFORE: SignedDuration = SignedDuration::from_hours(48);
/// How many PINs of a person are thought of for a new grant.
const HABITS: u32 = 5;
/// On a full disk nothing is ordered; what is missing is looked for again after this long.
const ONCE_THERE_IS_ROOM: SignedDuration = SignedDuration::from_mins(1);
/// A removal is never too late: the year 9000.
const NEVER: i64 = 221_845_392_000;

/// What a job was ordered for.
struct OrderedSlot {
    workspace: WorkspaceId,
    device: DeviceId,
    method: AccessMethodId,
    deed: Deed,
    revision: u8,
}

impl Db {
    /// Looks at the grants whose time has come; says whether there were any, and when the next one's comes.
    pub(super) fn run_due_codes(&mut self, now: Timestamp) -> Result<(bool, Option<Timestamp>), StoreError> {
        let due = self.all(
            "SELECT access_grant_id, workspace_id FROM code_grant WHERE due_at <= ?1 ORDER BY due_at, rowid",
            [ms(now)],
            |row| Ok((id::<AccessGrantId>(row, "access_grant_id")?, id::<WorkspaceId>(row, "workspace_id")?)),
        )?;
        let any = !due.is_empty();
        for (grant, workspace) in due {
            self.tenant(workspace).with_book(now, grant, |book, at| {
                let devices = book.grants.get(&grant).map(|own| own.devices.clone()).unwrap_or_default();
                book.clock(at);
                book.retarget(at, grant, devices);
            })?;
        }
        let next =
            self.one("SELECT min(due_at) AS next FROM code_grant WHERE due_at IS NOT NULL", [], |row| {
                maybe_time(row, "next")
            })?;
        Ok((any, next.flatten()))
    }

    /// Takes in how a job on a slot ended. False where it is no such job.
    pub(super) fn slot_reported(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let Some(ordered) = self.ordered_slot(bridge, report.job_id)? else {
            return Ok(false);
        };
        if report.revision <= ordered.revision {
            return Ok(true);
        }
        self.execute(
            "UPDATE ordered_slot SET revision = ?2 WHERE job_id = ?1",
            params![report.job_id.to_string(), report.revision],
        )?;
        let told = told(report);
        self.tenant(ordered.workspace).with_book_of(now, ordered.method, ordered.device, |book, at| {
            book.reported(at, ordered.device, ordered.method, report.job_id, ordered.deed, &told);
        })?;
        Ok(true)
    }

    /// A job on a slot was taken back that its bridge never heard of: what it was for is still to be done.
    pub(super) fn slot_withdrawn(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        let Some(ordered) = self.ordered_slot(bridge, job)?.filter(|ordered| ordered.revision == 0) else {
            return Ok(());
        };
        self.tenant(ordered.workspace).with_book_of(now, ordered.method, ordered.device, |book, at| {
            book.withdrawn(at, ordered.device, ordered.method, job);
        })
    }

    /// The bridge has forgotten a job on a slot.
    pub(super) fn slot_lost(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        let Some(ordered) = self.ordered_slot(bridge, job)?.filter(|ordered| ordered.revision == 0) else {
            return Ok(());
        };
        self.tenant(ordered.workspace).with_book_of(now, ordered.method, ordered.device, |book, at| {
            book.lost(at, ordered.device, ordered.method, job, ordered.deed);
        })
    }

    fn ordered_slot(&self, bridge: BridgeId, job: JobId) -> Result<Option<OrderedSlot>, StoreError> {
        self.one(
            "SELECT * FROM ordered_slot WHERE job_id = ?1 AND bridge_id = ?2",
            params![job.to_string(), bridge.to_string()],
            |row| {
                Ok(OrderedSlot {
                    workspace: id(row, "workspace_id")?,
                    device: id(row, "device_id")?,
                    method: id(row, "access_method_id")?,
                    deed: content(row, "generation", "mark", "opens_until")?.map_or(Deed::Remove, Deed::Put),
                    revision: row.get("revision")?,
                })
            },
        )
    }

    /// A job of the site's own changed a slot.
    pub(super) fn slot_changed_at_site(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        bridge: BridgeId,
        report: &Report,
        local: &LocalJob,
    ) -> Result<(), StoreError> {
        let (Some(device), Some(slot)) = (&local.device, &local.slot) else {
            return Ok(());
        };
        let Ok(method) = slot.parse::<AccessMethodId>() else { return Ok(()) };
        if !matches!(told(report), Told::Done) {
            return Ok(());
        }
        let device = self.one(
            "SELECT device_id FROM device JOIN acs_system s USING(acs_system_id)
             WHERE s.bridge_id = ?1 AND s.name = ?2 AND device.name = ?3",
            params![bridge.to_string(), local.system.as_str(), device],
            |row| id::<DeviceId>(row, "device_id"),
        )?;
        let Some(device) = device else { return Ok(()) };
        self.tenant(workspace).with_book_of(now, method, device, |book, at| match local.kind {
            Kind::SlotPut => book.filled(at, device, method),
            _ => book.emptied(at, device, method),
        })
    }

    /// Takes in what a reading shows. False where the job was no reading of ours.
    pub(super) fn device_read(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let found = self.one(
            "SELECT device_id, device.workspace_id FROM device JOIN acs_system USING(acs_system_id)
             WHERE read_job = ?1 AND bridge_id = ?2",
            params![report.job_id.to_string(), bridge.to_string()],
            |row| Ok((id::<DeviceId>(row, "device_id")?, id::<WorkspaceId>(row, "workspace_id")?)),
        )?;
        let Some((device, workspace)) = found else { return Ok(false) };
        self.execute("UPDATE device SET read_job = NULL WHERE device_id = ?1", [device.to_string()])?;
        if let Outcome::Succeeded(success) = &report.outcome
            && let Some(seen) = &success.slots
        {
            self.tenant(workspace).compare_with(now, device, seen)?;
            let again = now.saturating_add(READ_EVERY).unwrap_or(now);
            self.execute(
                "UPDATE device SET read_due = CASE WHEN EXISTS
                   (SELECT 1 FROM desired_slot d LEFT JOIN observed_slot o USING(device_id, access_method_id)
                    WHERE d.device_id = device.device_id
                      AND (d.pin IS NOT NULL OR o.generation IS NOT NULL OR o.doubt_job IS NOT NULL)) THEN ?2 END
                 WHERE device_id = ?1",
                params![device.to_string(), ms(again)],
            )?;
        }
        Ok(true)
    }

    /// Forgets what jobs on slots were ordered for, long after it could matter.
    pub(super) fn forget_ordered_slots(&self, before: i64, most: u32) -> Result<usize, StoreError> {
        self.execute(
            "DELETE FROM ordered_slot WHERE rowid IN (
               SELECT o.rowid FROM ordered_slot o
               WHERE ordered_at < ?1 AND revision > 0
                 AND NOT EXISTS (SELECT 1 FROM bridge_order b WHERE b.job_id = o.job_id)
                 AND NOT EXISTS (SELECT 1 FROM slot_work w WHERE w.job_id = o.job_id)
                 AND NOT EXISTS (SELECT 1 FROM observed_slot s WHERE s.doubt_job = o.job_id)
               LIMIT ?2)",
            params![before, most],
        )
    }
}

impl Tenant<'_> {
    /// A device is back: it is read, and what it refused is tried again.
    pub(super) fn device_is_back(&mut self, now: Timestamp, device: DeviceId) -> Result<(), StoreError> {
        self.db.execute(
            "UPDATE device SET read_due = ?2 WHERE device_id = ?1
               AND EXISTS (SELECT 1 FROM desired_slot d WHERE d.device_id = ?1)",
            params![device.to_string(), ms(now)],
        )?;
        self.db
            .execute("UPDATE slot_work SET not_before = NULL WHERE device_id = ?1", [device.to_string()])?;
        self.db.execute(
            "UPDATE code_grant SET due_at = ?2 WHERE access_grant_id IN (
               SELECT access_grant_id FROM access_method JOIN slot_work USING(access_method_id)
               WHERE device_id = ?1 AND failures > 0)",
            params![device.to_string(), ms(now)],
        )?;
        Ok(())
    }

    /// Compares a device's table with what is known of its slots.
    fn compare_with(
        &mut self,
        now: Timestamp,
        device: DeviceId,
        seen: &[SlotSeen],
    ) -> Result<(), StoreError> {
        let known = self.db.all(
            "SELECT d.access_method_id, o.generation, o.doubt_job IS NOT NULL AS in_doubt, m.access_grant_id
             FROM desired_slot d LEFT JOIN observed_slot o USING(device_id, access_method_id)
             LEFT JOIN access_method m USING(access_method_id)
             WHERE d.device_id = ?1 AND d.workspace_id = ?2",
            params![device.to_string(), self.workspace],
            |row| {
                Ok((
                    id::<AccessMethodId>(row, "access_method_id")?,
                    row.get::<_, Option<i64>>("generation")?,
                    row.get::<_, bool>("in_doubt")?,
                    maybe_id::<AccessGrantId>(row, "access_grant_id")?,
                ))
            },
        )?;
        let shown: BTreeMap<AccessMethodId, u64> =
            seen.iter().filter_map(|seen| Some((seen.slot.parse().ok()?, seen.generation))).collect();
        let mut grants = BTreeSet::new();
        let mut strays: BTreeSet<_> = shown.keys().copied().collect();
        for (method, generation, in_doubt, grant) in known {
            let is_so = shown.get(&method).copied() == generation.and_then(|of| u64::try_from(of).ok());
            match grant {
                Some(grant) => {
                    strays.remove(&method);
                    if in_doubt || !is_so {
                        grants.insert(grant);
                    }
                }
                None => drop(strays.insert(method)),
            }
        }
        for grant in grants {
            self.with_book(now, grant, |book, at| book.read(at, device, seen))?;
        }
        // Of a method that nobody knows any more: this memory was set back, or the lock's was.
        for method in strays {
            self.with_stray(now, device, method, |book, at| {
                book.slots.entry((device, method)).or_default();
                book.read(at, device, seen);
            })?;
        }
        Ok(())
    }

    /// Changes the codes of the grant that a method is of, or a slot of a method that is gone.
    fn with_book_of(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
        device: DeviceId,
        change: impl FnOnce(&mut Book, &Moment<'_>),
    ) -> Result<(), StoreError> {
        let grant = self.db.one(
            "SELECT access_grant_id FROM access_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        match grant {
            Some(grant) => self.with_book(now, grant, change).map(drop),
            None => self.with_stray(now, device, method, change),
        }
    }

    fn with_stray(
        &mut self,
        now: Timestamp,
        device: DeviceId,
        method: AccessMethodId,
        change: impl FnOnce(&mut Book, &Moment<'_>),
    ) -> Result<(), StoreError> {
        let mut book = Book::default();
        self.load_slots(&mut book, method)?;
        book.slots.retain(|(on, _), _| *on == device);
        self.load_locks(&mut book, None, &[device], now)?;
        self.change(now, book, None, change)
    }

    /// Changes the codes of a grant: loads what they touch, lets the change be made, orders what is missing, and stores
    /// what became of it.
    pub(super) fn with_book<T>(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        change: impl FnOnce(&mut Book, &Moment<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let Some(book) = self.load_book(now, grant)? else { return Ok(None) };
        let mut made = None;
        self.change(now, book, Some(grant), |book, at| made = Some(change(book, at)))?;
        Ok(made)
    }

    fn change(
        &mut self,
        now: Timestamp,
        before: Book,
        grant: Option<AccessGrantId>,
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
        if let Some(grant) = grant {
            self.db.execute(
                "UPDATE code_grant SET due_at = ?2 WHERE access_grant_id = ?1",
                params![grant.to_string(), due.map(ms)],
            )?;
        }
        let events = std::mem::take(&mut after.events);
        self.tell(now, &events)
    }

    /// Everything that the codes of a grant touch. `None` where there is no such grant.
    pub(super) fn load_book(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
    ) -> Result<Option<Book>, StoreError> {
        let own = grant.to_string();
        let found = self.db.one(
            "SELECT g.*, coalesce(c.deletion_told, 0) AS deletion_told FROM access_grant g
             LEFT JOIN code_grant c USING(access_grant_id) WHERE g.access_grant_id = ?1 AND g.workspace_id = ?2",
            params![own, self.workspace],
            |row| {
                let deleted_at = maybe_time(row, "deleted_at")?;
                Ok((window(row)?, deleted_at, row.get::<_, bool>("deletion_told")?))
            },
        )?;
        let Some((grant_window, deleted_at, deletion_told)) = found else {
            return Ok(None);
        };
        let mut book = Book::default();
        let methods = self.db.all(
            "SELECT c.*, m.place FROM code_method c JOIN access_method m USING(access_method_id)
             WHERE m.access_grant_id = ?1 ORDER BY m.rowid",
            [&own],
            |row| Ok((id::<AccessMethodId>(row, "access_method_id")?, code_row(row)?)),
        )?;
        for (method, row) in methods {
            let method_row = self.open_code(grant, method, row)?;
            book.methods.insert(method, method_row);
            self.load_slots(&mut book, method)?;
        }
        let devices = self.devices_of_grant(grant)?;
        let opened =
            self.db.all("SELECT device_id FROM opened_device WHERE access_grant_id = ?1", [&own], |row| {
                id(row, "device_id")
            })?;
        let mut touched: BTreeSet<DeviceId> = devices.iter().copied().collect();
        touched.extend(book.slots.keys().map(|(device, _)| *device));
        touched.extend(book.methods.values().flat_map(|method| method.devices.iter().copied()));
        let touched: Vec<_> = touched.into_iter().collect();
        self.load_locks(&mut book, Some(grant), &touched, now)?;
        let habits = self.habits(grant)?;
        let doors_open = !self.has_closed_doors(grant)?;
        book.grants.insert(
            grant,
            CodeGrant {
                window: grant_window,
                deleted_at,
                deletion_told,
                devices,
                opened: opened.into_iter().collect(),
                doors_open,
                habits,
            },
        );
        Ok(Some(book))
    }

    /// A grant follows the devices of its spaces.
    pub(super) fn follow_devices(&mut self, now: Timestamp, grant: AccessGrantId) -> Result<(), StoreError> {
        let has_codes = self.db.one(
            "SELECT 1 FROM code_method JOIN access_method USING(access_method_id)
             WHERE access_grant_id = ?1 AND code_method.workspace_id = ?2 LIMIT 1",
            params![grant.to_string(), self.workspace],
            |_| Ok(()),
        )?;
        if has_codes.is_none() {
            return Ok(());
        }
        self.with_book(now, grant, |book, at| {
            let devices = book.grants.get(&grant).map(|own| own.devices.clone()).unwrap_or_default();
            book.retarget(at, grant, devices);
        })
        .map(drop)
    }

    /// Whether a device that is there takes codes.
    pub(super) fn takes_codes(&self, device: DeviceId) -> Result<bool, StoreError> {
        let found = self.db.one(
            "SELECT declared, capabilities FROM device JOIN acs_system USING(acs_system_id)
             WHERE device_id = ?1 AND device.workspace_id = ?2 AND device.removed_at IS NULL",
            params![device.to_string(), self.workspace],
            |row| {
                let capabilities: crate::model::Capabilities = json_of(row, "capabilities")?;
                Ok(json_of::<Device>(row, "declared")?.pins.filter(|_| capabilities.slots.is_some()))
            },
        )?;
        let pins = found.flatten();
        Ok(pins.is_some_and(|pins| {
            !pins.lengths.is_empty() && !pins.constraints.contains(&PinConstraint::CannotSpecifyPinCode)
        }))
    }

    /// What is shown of a code.
    pub(super) fn code_view(
        &self,
        grant: AccessGrantId,
        method: AccessMethodId,
    ) -> Result<Option<CodeView>, StoreError> {
        let row = self.db.one(
            "SELECT c.*, m.place FROM code_method c JOIN access_method m USING(access_method_id)
             WHERE access_method_id = ?1 AND c.workspace_id = ?2",
            params![method.to_string(), self.workspace],
            code_row,
        )?;
        let Some(row) = row else { return Ok(None) };
        let code = self.open_code(grant, method, row)?;
        let mut book = Book::default();
        self.load_slots(&mut book, method)?;
        let is_coming = |(device, slot): (DeviceId, &Slot)| {
            (slot.desired.content.is_some() && !slot.is_settled()).then_some(device)
        };
        Ok(Some(CodeView {
            coming: book.slots_of(method).filter_map(is_coming).collect(),
            leaving: book.still_there(method),
            trouble: book.slots_of(method).find_map(|(_, slot)| slot.work.trouble.clone()),
            code,
        }))
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

    fn habits(&self, grant: AccessGrantId) -> Result<Vec<Private>, StoreError> {
        let rows = self.db.all(
            "SELECT c.access_method_id, c.pin FROM access_grant own
             JOIN access_grant g ON g.user_identity_id = own.user_identity_id AND g.access_grant_id <> own.access_grant_id
             JOIN access_method m ON m.access_grant_id = g.access_grant_id
             JOIN code_method c ON c.access_method_id = m.access_method_id
             WHERE own.access_grant_id = ?1 AND own.workspace_id = ?2 AND g.workspace_id = ?2 AND c.deleted_at IS NULL
               AND c.pin <> x''
             ORDER BY c.rowid DESC LIMIT ?3",
            params![grant.to_string(), self.workspace, HABITS],
            |row| Ok((id::<AccessMethodId>(row, "access_method_id")?, row.get::<_, Vec<u8>>("pin")?)),
        )?;
        rows.into_iter().map(|(method, sealed)| self.open_text(&pin_place(method), &sealed)).collect()
    }

    /// What was forgotten is an empty text.
    fn open_text(&self, place: &str, sealed: &[u8]) -> Result<Private, StoreError> {
        if sealed.is_empty() {
            return Ok(Private::new(""));
        }
        let plain = self.db.seal.open(place, sealed)?;
        String::from_utf8(plain)
            .map(Private::new)
            .map_err(|error| StoreError::corrupt(place, error.utf8_error()))
    }

    fn open_code(
        &self,
        grant: AccessGrantId,
        method: AccessMethodId,
        row: CodeRow,
    ) -> Result<CodeMethod, StoreError> {
        let wish = row.wish.map(|wish| self.open_text(&wish_place(method), &wish)).transpose()?;
        Ok(CodeMethod {
            grant,
            place: row.place,
            pin: self.open_text(&pin_place(method), &row.pin)?,
            wish,
            devices: row.devices,
            asked_at: row.asked_at,
            is_issued: row.is_issued,
            issued_at: row.issued_at,
            updating_from: row.updating_from,
            deleted_at: row.deleted_at,
            has_ended: row.has_ended,
            late_since: row.late_since,
            failed_since: row.failed_since,
        })
    }

    fn load_slots(&self, book: &mut Book, method: AccessMethodId) -> Result<(), StoreError> {
        let rows = self.db.all(
            "SELECT d.device_id, d.generation AS wanted, d.pin, d.starts_at, d.ends_at,
               o.generation, o.mark, o.opens_until, o.since, o.doubt_job, o.before_generation, o.before_mark,
               o.before_until, w.job_id, w.earlier_job_ids, coalesce(w.failures, 0) AS failures, w.not_before, w.code, w.message,
               w.trouble_since
             FROM desired_slot d LEFT JOIN observed_slot o USING(device_id, access_method_id)
             LEFT JOIN slot_work w USING(device_id, access_method_id)
             WHERE d.access_method_id = ?1 AND d.workspace_id = ?2",
            params![method.to_string(), self.workspace],
            slot_row,
        )?;
        for row in rows {
            let SlotRow { device, pin, message, job, earlier, mut slot, wanted } = row;
            if let (Some(pin), Some(window)) = (pin, wanted) {
                slot.desired.content = Some((self.open_text(&slot_place(device, method), &pin)?, window));
            }
            if let (Some(trouble), Some(message)) = (&mut slot.work.trouble, message) {
                trouble.message =
                    self.open_text(&trouble_place(device, method), &message)?.expose().to_owned();
            }
            for job in earlier {
                if let Some(Deed::Put(content)) = self.deed_of(job)? {
                    slot.work.earlier.push((job, content));
                }
            }
            if let Some(job) = job {
                let was_handed = self.was_handed(job)?;
                slot.work.under_way = self.deed_of(job)?.map(|deed| UnderWay { job, deed, was_handed });
            }
            book.slots.insert((device, method), slot);
        }
        Ok(())
    }

    fn deed_of(&self, job: JobId) -> Result<Option<Deed>, StoreError> {
        self.db.one(
            "SELECT generation, mark, opens_until FROM ordered_slot WHERE job_id = ?1",
            [job.to_string()],
            |row| Ok(content(row, "generation", "mark", "opens_until")?.map_or(Deed::Remove, Deed::Put)),
        )
    }

    fn was_handed(&self, job: JobId) -> Result<bool, StoreError> {
        let handed = self.db.one(
            "SELECT handed FROM bridge_order WHERE job_id = ?1 AND what = 'job'",
            [job.to_string()],
            |row| row.get(0),
        )?;
        Ok(handed.unwrap_or(false))
    }

    fn load_locks(
        &mut self,
        book: &mut Book,
        but: Option<AccessGrantId>,
        devices: &[DeviceId],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let but = but.map(|grant| grant.to_string());
        for device in devices {
            let found = self.db.one(
                "SELECT declared, capabilities, device.removed_at IS NULL AS here FROM device
                 JOIN acs_system USING(acs_system_id) WHERE device_id = ?1 AND device.workspace_id = ?2",
                params![device.to_string(), self.workspace],
                |row| {
                    let capabilities: crate::model::Capabilities = json_of(row, "capabilities")?;
                    Ok((
                        json_of::<Device>(row, "declared")?,
                        capabilities.slots.is_some(),
                        row.get::<_, bool>("here")?,
                    ))
                },
            )?;
            let Some((declared, has_slots, is_here)) = found else { continue };
            let wanted = self.db.all(
                "SELECT d.mark, d.starts_at, d.ends_at FROM desired_slot d
                 LEFT JOIN access_method m USING(access_method_id)
                 WHERE d.device_id = ?1 AND d.mark IS NOT NULL AND (d.ends_at IS NULL OR d.ends_at > ?3)
                   AND (?2 IS NULL OR m.access_grant_id IS NULL OR m.access_grant_id <> ?2)",
                params![device.to_string(), but, ms(now.saturating_sub(TAKEN_BEFORE).unwrap_or(now))],
                |row| Ok((PinMark(row.get("mark")?), window(row)?)),
            )?;
            // What should not be there, and may be: until it is seen to be gone, it is in the way.
            let left = self.db.all(
                "SELECT o.mark, o.before_mark, s.mark AS ordered_mark FROM desired_slot d
                 LEFT JOIN observed_slot o USING(device_id, access_method_id)
                 LEFT JOIN slot_work w USING(device_id, access_method_id)
                 LEFT JOIN ordered_slot s ON s.job_id = w.job_id
                 LEFT JOIN access_method m ON m.access_method_id = d.access_method_id
                 WHERE d.device_id = ?1
                   AND (d.mark IS NULL OR (o.mark IS NOT NULL AND o.mark <> d.mark) OR o.before_mark IS NOT NULL
                        OR o.generation <> d.generation OR s.generation <> d.generation)
                   AND (?2 IS NULL OR m.access_grant_id IS NULL OR m.access_grant_id <> ?2)",
                params![device.to_string(), but],
                |row| {
                    let marks: [Option<[u8; 32]>; 3] =
                        [row.get("mark")?, row.get("before_mark")?, row.get("ordered_mark")?];
                    Ok(marks)
                },
            )?;
            let coming = self.db.all(
                "SELECT s.mark FROM slot_work w JOIN json_each(w.earlier_job_ids) e
                 JOIN ordered_slot s ON s.job_id = e.value
                 LEFT JOIN access_method m ON m.access_method_id = w.access_method_id
                 WHERE w.device_id = ?1 AND s.mark IS NOT NULL
                   AND (?2 IS NULL OR m.access_grant_id IS NULL OR m.access_grant_id <> ?2)",
                params![device.to_string(), but],
                |row| row.get::<_, [u8; 32]>("mark"),
            )?;
            let always = Window::new(Timestamp::UNIX_EPOCH, None).ok();
            let left = left
                .into_iter()
                .flatten()
                .flatten()
                .chain(coming)
                .map(PinMark)
                .zip(always.into_iter().cycle());
            let lock = Lock {
                pins: declared.pins.filter(|_| has_slots),
                is_here,
                lead: SignedDuration::from_secs(declared.lead_seconds.unwrap_or(0).into()),
                taken: wanted.into_iter().chain(left).collect(),
            };
            book.devices.insert(*device, lock);
        }
        Ok(())
    }

    fn save_book(
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
                "INSERT INTO access_method SELECT ?1, workspace_id, ?2, ?3, acs_system_id, 'code', ?4 FROM device
                 WHERE device_id = ?5",
                params![
                    method.to_string(),
                    own.grant.to_string(),
                    own.place,
                    ms(now),
                    own.devices.first().map(ToString::to_string)
                ],
            )?;
        }
        let seal = &self.db.seal;
        let wish = own.wish.as_ref().map(|wish| seal.seal(&wish_place(method), wish.expose().as_bytes()));
        self.db.execute(
            "INSERT INTO code_method VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT(access_method_id) DO UPDATE SET pin = excluded.pin, wish = excluded.wish,
               device_ids = excluded.device_ids, asked_at = excluded.asked_at, is_issued = excluded.is_issued,
               issued_at = excluded.issued_at, is_updating = excluded.is_updating,
               updating_starts_at = excluded.updating_starts_at, updating_ends_at = excluded.updating_ends_at,
               deleted_at = excluded.deleted_at, has_ended = excluded.has_ended, late_since = excluded.late_since,
               failed_since = excluded.failed_since",
            params![
                method.to_string(),
                self.workspace,
                seal.seal(&pin_place(method), own.pin.expose().as_bytes()),
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
                own.failed_since.map(ms)
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
        let pin =
            wanted.map(|(pin, _)| self.db.seal.seal(&slot_place(device, method), pin.expose().as_bytes()));
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
                wanted.map(|(pin, _)| mark(pin.expose()).0),
                wanted.map(|(_, window)| ms(window.starts_at())),
                wanted.and_then(|(_, window)| window.ends_at()).map(ms)
            ],
        )?;
        let observed = &slot.observed;
        let before = observed.doubt.and_then(|doubt| doubt.before);
        let mark_of = |content: Option<Content>| content.and_then(|content| content.mark).map(|mark| mark.0);
        let until_of = |content: Option<Content>| content.and_then(|content| content.until).map(ms);
        let generation_of = |content: Option<Content>| content.map(|content| signed(content.generation));
        self.db.execute(
            "INSERT INTO observed_slot VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT(device_id, access_method_id) DO UPDATE SET generation = excluded.generation,
               mark = excluded.mark, opens_until = excluded.opens_until, since = excluded.since,
               doubt_job = excluded.doubt_job, before_generation = excluded.before_generation,
               before_mark = excluded.before_mark, before_until = excluded.before_until",
            params![
                on,
                of,
                self.workspace,
                generation_of(observed.holds),
                mark_of(observed.holds),
                until_of(observed.holds),
                observed.since.map(ms),
                observed.doubt.map(|doubt| doubt.job.to_string()),
                generation_of(before),
                mark_of(before),
                until_of(before)
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

    fn order_slot(&mut self, now: Timestamp, order: SlotOrder) -> Result<(), StoreError> {
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
            Action::Put { generation, pin, mark, window } => {
                let put = SlotPut {
                    device: reached.name,
                    slot: method.to_string(),
                    content: SlotContent::Pin(pin),
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

/// How a job on a slot ended, by its report; what settled a doubt counts more than the doubt.
fn told(report: &Report) -> Told {
    let not_done = |code: Code, message: &str| Told::NotDone { code, message: message.to_owned() };
    if let Some(resolution) = &report.resolution {
        return match resolution.verdict {
            Verdict::Done => Told::Done,
            Verdict::NotDone => not_done(Code::Rejected, "it had not been done"),
        };
    }
    match &report.outcome {
        Outcome::Succeeded(_) => Told::Done,
        Outcome::Failed(why) | Outcome::Expired(why) => not_done(why.code, &why.message),
        Outcome::Unknown(_) => Told::Doubt,
        Outcome::Cancelled => not_done(Code::Cancelled, "it was taken back at the site"),
        Outcome::Superseded => not_done(Code::Superseded, "a newer order took its place"),
    }
}

struct CodeRow {
    place: u32,
    pin: Vec<u8>,
    wish: Option<Vec<u8>>,
    devices: Vec<DeviceId>,
    asked_at: Timestamp,
    is_issued: bool,
    issued_at: Option<Timestamp>,
    updating_from: Option<Window>,
    deleted_at: Option<Timestamp>,
    has_ended: bool,
    late_since: Option<Timestamp>,
    failed_since: Option<Timestamp>,
}

fn code_row(row: &Row<'_>) -> rusqlite::Result<CodeRow> {
    let updating: bool = row.get("is_updating")?;
    let updating_from = match (updating, maybe_time(row, "updating_starts_at")?) {
        (true, Some(starts_at)) => Window::new(starts_at, maybe_time(row, "updating_ends_at")?).ok(),
        _ => None,
    };
    Ok(CodeRow {
        place: row.get("place")?,
        pin: row.get("pin")?,
        wish: row.get("wish")?,
        devices: json_of(row, "device_ids")?,
        asked_at: time(row, "asked_at")?,
        is_issued: row.get("is_issued")?,
        issued_at: maybe_time(row, "issued_at")?,
        updating_from,
        deleted_at: maybe_time(row, "deleted_at")?,
        has_ended: row.get("has_ended")?,
        late_since: maybe_time(row, "late_since")?,
        failed_since: maybe_time(row, "failed_since")?,
    })
}

/// A slot as its rows have it; what is sealed is still to be opened.
struct SlotRow {
    device: DeviceId,
    pin: Option<Vec<u8>>,
    wanted: Option<Window>,
    message: Option<Vec<u8>>,
    job: Option<JobId>,
    earlier: Vec<JobId>,
    slot: Slot,
}

fn slot_row(row: &Row<'_>) -> rusqlite::Result<SlotRow> {
    let wanted = match maybe_time(row, "starts_at")? {
        Some(starts_at) => Window::new(starts_at, maybe_time(row, "ends_at")?).ok(),
        None => None,
    };
    let doubt = match maybe_id::<JobId>(row, "doubt_job")? {
        Some(job) => {
            let before = content(row, "before_generation", "before_mark", "before_until")?;
            Some(Doubt { job, before })
        }
        None => None,
    };
    let code: Option<String> = row.get("code")?;
    let trouble = match (code, maybe_time(row, "trouble_since")?) {
        (Some(code), Some(since)) => {
            let code = Code::ALL.iter().copied().find(|known| known.as_str() == code).unwrap_or(Code::Other);
            Some(Trouble { code, message: String::new(), since })
        }
        _ => None,
    };
    Ok(SlotRow {
        device: id(row, "device_id")?,
        pin: row.get("pin")?,
        wanted,
        message: row.get("message")?,
        job: maybe_id(row, "job_id")?,
        earlier: match row.get_ref("earlier_job_ids")? {
            rusqlite::types::ValueRef::Null => Vec::new(),
            _ => json_of(row, "earlier_job_ids")?,
        },
        slot: Slot {
            desired: Desired { generation: unsigned(row.get("wanted")?), content: None },
            observed: Observed {
                holds: content(row, "generation", "mark", "opens_until")?,
                since: maybe_time(row, "since")?,
                doubt,
            },
            work: Work {
                under_way: None,
                earlier: Vec::new(),
                failures: row.get("failures")?,
                not_before: maybe_time(row, "not_before")?,
                trouble,
            },
        },
    })
}

fn content(row: &Row<'_>, generation: &str, mark: &str, until: &str) -> rusqlite::Result<Option<Content>> {
    let Some(generation) = row.get::<_, Option<i64>>(generation)? else { return Ok(None) };
    Ok(Some(Content {
        generation: unsigned(generation),
        mark: row.get::<_, Option<[u8; 32]>>(mark)?.map(PinMark),
        until: maybe_time(row, until)?,
    }))
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

#[cfg(test)]
mod tests;
