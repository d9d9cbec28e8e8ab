//! [`Book`]s from rows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, params};

use crate::{
    grants::{
        PinMark,
        codes::{
            Book, CodeGrant, CodeMethod, CodeRequest, Content, Deed, Desired, Doubt, Key, Lack, Lock,
            Observed, Slot, Trouble, UnderWay, Work,
        },
    },
    model::{AccessGrantId, AccessMethodId, Code, Device, DeviceId, JobId, Private, Window},
    store::StoreError,
};

use super::{
    super::{
        CodeView, Tenant,
        grants::window,
        rows::{id, json as json_of, maybe_id, maybe_time, ms, time},
    },
    Known, content_of, pin_place, slot_place, trouble_place, unsigned, wish_place,
};

/// Codes whose windows ended longer ago than this take part in nothing any more; ample for any lead.
const TAKEN_BEFORE: SignedDuration = SignedDuration::from_hours(48);
/// How many PINs of a person are thought of for a new grant.
const HABITS: u32 = 5;

impl Tenant<'_> {
    /// Everything that the codes of a grant touch. `None` where there is no such grant.
    pub(super) fn load_book(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        known: Known,
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
            "SELECT c.*, m.place, m.mode FROM code_method c JOIN access_method m USING(access_method_id)
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
        self.load_locks(&mut book, Some(grant), &touched, now, known)?;
        let habits = match known {
            Known::Slots => Vec::new(),
            Known::Pins => self.habits(grant)?,
        };
        let requests = self.requests(grant)?;
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
                requests,
            },
        );
        Ok(Some(book))
    }

    /// The codes that a grant asks for, by their places.
    fn requests(&self, grant: AccessGrantId) -> Result<BTreeMap<u32, CodeRequest>, StoreError> {
        let rows = self.db.all(
            "SELECT c.place, c.declined, c.is_closed, c.lack_since, c.lack_devices, r.code,
                    coalesce(r.mode, 'code') AS mode
             FROM code_request c
             LEFT JOIN requested_method r USING(access_grant_id, place)
             WHERE access_grant_id = ?1 AND c.workspace_id = ?2",
            params![grant.to_string(), self.workspace],
            |row| {
                let request = CodeRequest {
                    key: key(row)?,
                    is_closed: row.get("is_closed")?,
                    wish: None,
                    declined: json_of(row, "declined")?,
                    lack: lack(row)?,
                };
                Ok((row.get::<_, u32>("place")?, request, row.get::<_, Option<Vec<u8>>>("code")?))
            },
        )?;
        let mut requests = BTreeMap::new();
        for (place, mut request, wish) in rows {
            request.wish = self.unseal(&format!("requested_method.code/{grant}/{place}"), wish)?;
            requests.insert(place, request);
        }
        Ok(requests)
    }

    /// What cannot be had now of the codes that a grant asks for.
    pub(in crate::cloud::store) fn lacks(&self, grant: AccessGrantId) -> Result<Vec<Lack>, StoreError> {
        let lacks = self.db.all(
            "SELECT lack_since, lack_devices FROM code_request WHERE access_grant_id = ?1 AND lack_since IS NOT NULL
             ORDER BY place",
            [grant.to_string()],
            lack,
        )?;
        Ok(lacks.into_iter().flatten().collect())
    }

    /// PINs that the person of a grant had or has elsewhere. They are only thought of: one that cannot be read stands in
    /// nobody's way.
    fn habits(&self, grant: AccessGrantId) -> Result<Vec<Private>, StoreError> {
        let rows = self.db.all(
            "SELECT c.access_method_id, c.pin FROM access_grant own
             JOIN access_grant g ON g.user_identity_id = own.user_identity_id AND g.access_grant_id <> own.access_grant_id
             JOIN access_method m ON m.access_grant_id = g.access_grant_id
             JOIN code_method c ON c.access_method_id = m.access_method_id
             WHERE own.access_grant_id = ?1 AND own.workspace_id = ?2 AND g.workspace_id = ?2 AND c.deleted_at IS NULL
               AND c.pin <> x'' AND m.mode = 'code'
             ORDER BY c.rowid DESC LIMIT ?3",
            params![grant.to_string(), self.workspace, HABITS],
            |row| Ok((id::<AccessMethodId>(row, "access_method_id")?, row.get::<_, Vec<u8>>("pin")?)),
        )?;
        let pins = rows.into_iter().filter_map(|(method, sealed)| {
            let pin = self.open_text(&pin_place(method), &sealed);
            pin.inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::error!(%method, error, "a PIN cannot be read, and is not thought of");
            })
            .ok()
        });
        Ok(pins.filter(|pin| !pin.expose().is_empty()).collect())
    }

    /// The PIN of a code, if it has one that is not forgotten; one that cannot be read is told by nobody.
    pub(in crate::cloud::store) fn readable_pin_of(
        &self,
        method: AccessMethodId,
    ) -> Result<Option<Private>, StoreError> {
        let sealed = self.db.one(
            "SELECT pin FROM code_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
            |row| row.get::<_, Vec<u8>>("pin"),
        )?;
        let Some(sealed) = sealed else { return Ok(None) };
        match self.open_text(&pin_place(method), &sealed) {
            Ok(pin) => Ok(Some(pin).filter(|pin| !pin.expose().is_empty())),
            Err(error) => {
                tracing::error!(%method, error = error.chain(), "a PIN cannot be read, and is not told");
                Ok(None)
            }
        }
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
            key: row.key,
            pin: self.open_text(&pin_place(method), &row.pin)?,
            wish,
            devices: row.devices,
            joining: row.joining,
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

    pub(super) fn load_slots(&self, book: &mut Book, method: AccessMethodId) -> Result<(), StoreError> {
        let rows = self.db.all(
            "SELECT d.device_id, d.generation AS wanted, d.pin, d.starts_at, d.ends_at,
               o.generation, o.mark, o.opens_until, o.since, o.doubt_job_ids, w.job_id, w.earlier_job_ids, coalesce(w.failures, 0) AS failures, w.not_before, w.code, w.message,
               w.trouble_since
             FROM desired_slot d LEFT JOIN observed_slot o USING(device_id, access_method_id)
             LEFT JOIN slot_work w USING(device_id, access_method_id)
             WHERE d.access_method_id = ?1 AND d.workspace_id = ?2",
            params![method.to_string(), self.workspace],
            slot_row,
        )?;
        for row in rows {
            let SlotRow { device, pin, message, job, earlier, doubts, mut slot, wanted } = row;
            if let (Some(pin), Some(window)) = (pin, wanted) {
                let text = self.open_text(&slot_place(device, method), &pin)?;
                slot.desired.content = Some((content_of(text), window));
            }
            if let (Some(trouble), Some(message)) = (&mut slot.work.trouble, message) {
                trouble.message =
                    self.open_text(&trouble_place(device, method), &message)?.expose().to_owned();
            }
            for job in doubts {
                if let Some(deed) = self.deed_of(job)? {
                    slot.observed.doubts.push(Doubt { job, deed });
                }
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

    pub(super) fn load_locks(
        &mut self,
        book: &mut Book,
        but: Option<AccessGrantId>,
        devices: &[DeviceId],
        now: Timestamp,
        known: Known,
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
            let taken = match known {
                Known::Slots => Vec::new(),
                Known::Pins => self.taken(but.as_deref(), *device, now)?,
            };
            let lock = Lock {
                pins: declared.pins.filter(|_| has_slots),
                takes_cards: has_slots && declared.card_numbers,
                is_here,
                lead: SignedDuration::from_secs(declared.lead_seconds.unwrap_or(0).into()),
                taken,
            };
            book.devices.insert(*device, lock);
        }
        Ok(())
    }

    /// The PINs that others than a grant have on a device, or may have.
    fn taken(
        &self,
        but: Option<&str>,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<Vec<(PinMark, Window)>, StoreError> {
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
                "SELECT o.mark, s.mark AS ordered_mark FROM desired_slot d
                 LEFT JOIN observed_slot o USING(device_id, access_method_id)
                 LEFT JOIN slot_work w USING(device_id, access_method_id)
                 LEFT JOIN ordered_slot s ON s.job_id = w.job_id
                 LEFT JOIN access_method m ON m.access_method_id = d.access_method_id
                 WHERE d.device_id = ?1
                   AND (d.mark IS NULL OR (o.mark IS NOT NULL AND o.mark <> d.mark) OR o.generation <> d.generation OR s.generation <> d.generation)
                   AND (?2 IS NULL OR m.access_grant_id IS NULL OR m.access_grant_id <> ?2)",
                params![device.to_string(), but],
                |row| {
                    let marks: [Option<[u8; 32]>; 2] = [row.get("mark")?, row.get("ordered_mark")?];
                    Ok(marks)
                },
            )?;
        let coming = self.db.all(
            "SELECT s.mark FROM (
                   SELECT access_method_id, e.value AS job_id FROM slot_work JOIN json_each(earlier_job_ids) e
                   WHERE device_id = ?1
                   UNION SELECT access_method_id, e.value FROM observed_slot JOIN json_each(doubt_job_ids) e
                   WHERE device_id = ?1) w
                 JOIN ordered_slot s ON s.job_id = w.job_id
                 LEFT JOIN access_method m ON m.access_method_id = w.access_method_id
                 WHERE s.mark IS NOT NULL
                   AND (?2 IS NULL OR m.access_grant_id IS NULL OR m.access_grant_id <> ?2)",
            params![device.to_string(), but],
            |row| row.get::<_, [u8; 32]>("mark"),
        )?;
        let always = Window::new(Timestamp::UNIX_EPOCH, None).ok();
        let left =
            left.into_iter().flatten().flatten().chain(coming).map(PinMark).zip(always.into_iter().cycle());
        Ok(wanted.into_iter().chain(left).collect())
    }

    /// What is shown of a code.
    pub(in crate::cloud::store) fn code_view(
        &self,
        grant: AccessGrantId,
        method: AccessMethodId,
    ) -> Result<Option<CodeView>, StoreError> {
        let row = self.db.one(
            "SELECT c.*, m.place, m.mode FROM code_method c JOIN access_method m USING(access_method_id)
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
}

struct CodeRow {
    place: u32,
    key: Key,
    pin: Vec<u8>,
    wish: Option<Vec<u8>>,
    devices: Vec<DeviceId>,
    joining: BTreeSet<DeviceId>,
    asked_at: Timestamp,
    is_issued: bool,
    issued_at: Option<Timestamp>,
    updating_from: Option<Window>,
    deleted_at: Option<Timestamp>,
    has_ended: bool,
    late_since: Option<Timestamp>,
    failed_since: Option<Timestamp>,
}

fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(match row.get_ref("mode")?.as_str()? {
        "card" => Key::Card,
        _ => Key::Pin,
    })
}

fn code_row(row: &Row<'_>) -> rusqlite::Result<CodeRow> {
    let updating: bool = row.get("is_updating")?;
    let updating_from = match (updating, maybe_time(row, "updating_starts_at")?) {
        (true, Some(starts_at)) => Window::new(starts_at, maybe_time(row, "updating_ends_at")?).ok(),
        _ => None,
    };
    Ok(CodeRow {
        place: row.get("place")?,
        key: key(row)?,
        pin: row.get("pin")?,
        wish: row.get("wish")?,
        devices: json_of(row, "device_ids")?,
        joining: json_of(row, "joining")?,
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
    doubts: Vec<JobId>,
    slot: Slot,
}

fn slot_row(row: &Row<'_>) -> rusqlite::Result<SlotRow> {
    let wanted = match maybe_time(row, "starts_at")? {
        Some(starts_at) => Window::new(starts_at, maybe_time(row, "ends_at")?).ok(),
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
        earlier: jobs(row, "earlier_job_ids")?,
        doubts: jobs(row, "doubt_job_ids")?,
        slot: Slot {
            desired: Desired { generation: unsigned(row.get("wanted")?), content: None },
            observed: Observed {
                holds: content(row, "generation", "mark", "opens_until")?,
                since: maybe_time(row, "since")?,
                doubts: Vec::new(),
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

fn lack(row: &Row<'_>) -> rusqlite::Result<Option<Lack>> {
    let Some(since) = maybe_time(row, "lack_since")? else { return Ok(None) };
    Ok(Some(Lack { since, devices: json_of(row, "lack_devices")? }))
}

/// Jobs in a list; none where there is no row.
fn jobs(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<JobId>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(Vec::new()),
        _ => json_of(row, column),
    }
}

pub(super) fn content(
    row: &Row<'_>,
    generation: &str,
    mark: &str,
    until: &str,
) -> rusqlite::Result<Option<Content>> {
    let Some(generation) = row.get::<_, Option<i64>>(generation)? else { return Ok(None) };
    Ok(Some(Content {
        generation: unsigned(generation),
        mark: row.get::<_, Option<[u8; 32]>>(mark)?.map(PinMark),
        until: maybe_time(row, until)?,
    }))
}
