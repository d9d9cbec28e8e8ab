//! Cards that devices know by the numbers of their chips: ordering the number to be read, and what comes of it.
//!
//! With the bridge's report the number is durable, and the attempt has ended; then the devices are told it, slot by slot, as
//! they are told a PIN. A reading changes nothing on the card and nothing in a door: an attempt whose end nobody knows is
//! made once more by whoever stands at the desk.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{
        AttemptError, Encode, EnrolFacts, Refused, Resource, attempt_end,
        codes::{CodeMethod, NotEnrolled},
        plan_enrol,
    },
    model::{
        AccessMethodId, AcsEncoderId, ActionAttemptId, BridgeId, Capabilities, DeviceId, EncoderName, JobId,
        Outcome, Private, Report, SystemName, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Cancel, Db, Fault, Tenant,
    attempts::WrittenCard,
    grants::Method,
    rows::{id, json, ms, parsed},
};

/// The bytes of a chip's number: ISO 14443-3 has 4, 7 or 10; other families up to 8.
const NUMBER_BYTES: std::ops::RangeInclusive<usize> = 4..=10;

/// What a job was ordered for.
struct OrderedChip {
    workspace: WorkspaceId,
    method: AccessMethodId,
    revision: u8,
}

impl Tenant<'_> {
    /// Orders the number of a method's card to be read.
    pub(super) fn enrol(
        &mut self,
        now: Timestamp,
        method: &Method,
        encoder: AcsEncoderId,
    ) -> Result<ActionAttemptId, Fault> {
        let at = self.db.one(
            "SELECT e.name AS encoder, s.name AS system, s.bridge_id, s.capabilities
             FROM acs_encoder e JOIN acs_system s USING(acs_system_id)
             WHERE e.acs_encoder_id = ?1 AND e.workspace_id = ?2 AND e.removed_at IS NULL",
            params![encoder.to_string(), self.workspace],
            |row| {
                let names = (parsed::<EncoderName>(row, "encoder")?, parsed::<SystemName>(row, "system")?);
                Ok((names, id::<BridgeId>(row, "bridge_id")?, json::<Capabilities>(row, "capabilities")?))
            },
        )?;
        let ((encoder_name, encoder_system), bridge, can) =
            at.ok_or_else(|| Refused::not_found(Resource::AcsEncoder, encoder))?;
        let pending = self.db.one(
            "SELECT action_attempt_id, acs_encoder_id FROM action_attempt
             WHERE access_method_id = ?1 AND workspace_id = ?2 AND status = 'pending'",
            params![method.id.to_string(), self.workspace],
            |row| Ok((id(row, "action_attempt_id")?, id(row, "acs_encoder_id")?)),
        )?;
        let code = method.code.as_ref().map(|view| &view.code);
        let window = method.window.ok_or_else(|| Refused::not_found(Resource::AccessMethod, method.id))?;
        let facts = EnrolFacts {
            method: method.id,
            awaits_card: code.is_some_and(CodeMethod::awaits_card),
            deleted: method.deleted.is_some(),
            window,
            pending,
            encoder,
            encoder_name: &encoder_name,
            encoder_system: &encoder_system,
            reads_numbers: can.chip_numbers.is_some(),
        };
        match plan_enrol(facts, now, &self.db.random)? {
            Encode::Same(attempt) => Ok(attempt),
            Encode::New { attempt, job, unsent_at, silent_at, .. } => {
                let ids = params![
                    attempt.to_string(),
                    self.workspace,
                    method.id.to_string(),
                    encoder.to_string(),
                    job.job_id.to_string(),
                    ms(now),
                    ms(unsent_at),
                    ms(silent_at)
                ];
                self.db.execute(
                    "INSERT INTO action_attempt VALUES(?1, ?2, ?3, ?4, ?5, 'pending', NULL, NULL, NULL, ?6, ?7, ?8, NULL, NULL)",
                    ids,
                )?;
                self.db.execute(
                    "INSERT INTO ordered_chip VALUES(?1, ?2, ?3, ?4, 0, ?5)",
                    params![
                        job.job_id.to_string(),
                        self.workspace,
                        bridge.to_string(),
                        method.id.to_string(),
                        ms(now)
                    ],
                )?;
                self.db.enqueue_job(now, bridge, &job)?;
                Ok(attempt)
            }
        }
    }

    /// A method is taken back: nobody waits for its card any more.
    pub(super) fn cancel_chip(&mut self, now: Timestamp, method: AccessMethodId) -> Result<(), StoreError> {
        let pending = self.db.one(
            "SELECT o.job_id, o.bridge_id FROM action_attempt a JOIN ordered_chip o USING(job_id)
             WHERE a.access_method_id = ?1 AND a.workspace_id = ?2 AND a.status = 'pending'",
            params![method.to_string(), self.workspace],
            |row| Ok((id::<JobId>(row, "job_id")?, id::<BridgeId>(row, "bridge_id")?)),
        )?;
        let Some((job, bridge)) = pending else { return Ok(()) };
        match self.db.enqueue_cancel(now, bridge, job)? {
            // The bridge never heard of it, so nobody else will say how it ended.
            Cancel::Withdrawn => self.end_chip(now, job, &AttemptError::deleted()),
            Cancel::Ordered | Cancel::TooLate => Ok(()),
        }
    }

    fn end_chip(&mut self, now: Timestamp, job: JobId, error: &AttemptError) -> Result<(), StoreError> {
        match self.attempt_of(job)? {
            Some(attempt) => self.end_attempt(now, attempt, &Err(error.clone())).map(drop),
            None => Ok(()),
        }
    }

    /// A card was read for a method: it is the method's from now on, and goes into its devices.
    fn card_read(
        &mut self,
        now: Timestamp,
        job: JobId,
        method: AccessMethodId,
        number: &str,
    ) -> Result<(), StoreError> {
        let Some(known) = self.method(method)? else {
            return self.end_chip(now, job, &AttemptError::deleted());
        };
        let secret = Private::new(number);
        let enrolled = self.with_book(now, known.grant, |book, at| book.enrol(at, method, &secret))?;
        let error = match enrolled {
            Some(Ok(())) => None,
            None | Some(Err(NotEnrolled::Gone)) => Some(AttemptError::deleted()),
            Some(Err(NotEnrolled::Other)) => Some(AttemptError {
                kind: "credential_cannot_be_reissued",
                message: "Another card was read for this access method before: ask for another access method for this one"
                    .into(),
            }),
            Some(Err(NotEnrolled::Taken(devices))) => Some(self.card_is_taken(&devices)?),
        };
        if let Some(error) = error {
            return self.end_chip(now, job, &error);
        }
        self.keep_serial(method, number)?;
        let card = WrittenCard {
            method,
            window: known.window.ok_or_else(|| StoreError::corrupt("access_grant", "it has no times"))?,
            card_number: Some(number.to_owned()),
            proven: true,
        };
        let card = self.keep_credential(now, &card)?;
        if let Some(attempt) = self.attempt_of(job)? {
            self.end_attempt(now, attempt, &card.ok_or_else(AttemptError::deleted))?;
        }
        Ok(())
    }

    fn card_is_taken(&self, devices: &[DeviceId]) -> Result<AttemptError, StoreError> {
        let mut names = Vec::new();
        for device in devices.iter().take(3) {
            names.extend(self.declared(*device)?.map(|(device, _)| device.name.to_string()));
        }
        Ok(AttemptError {
            kind: "credential_cannot_be_reissued",
            message: format!(
                "This card is another access grant's at {}, or may still be: lay another card down, or take that one back \
                 first",
                names.join(", ")
            ),
        })
    }

    /// Remembers which method a card is, so that it is known when it is read again.
    fn keep_serial(&self, method: AccessMethodId, number: &str) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT OR REPLACE INTO card_serial
             SELECT m.access_method_id, m.workspace_id, ?3
             FROM access_method m JOIN access_grant g USING(access_grant_id) JOIN user_identity i USING(user_identity_id)
             WHERE m.access_method_id = ?1 AND m.workspace_id = ?2 AND i.erased_at IS NULL",
            params![method.to_string(), self.workspace, self.serial_index(number)],
        )?;
        Ok(())
    }

    /// Under what the number of a chip is found again.
    pub(super) fn serial_index(&self, number: &str) -> [u8; 32] {
        self.db.seal.blind_index("card_serial", &format!("chip/{number}"))
    }
}

impl Db {
    /// Takes in how the reading of a card's number ended. False where it is no such job.
    pub(super) fn chip_reported(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let Some(ordered) = self.ordered_chip(bridge, report.job_id)? else { return Ok(false) };
        if report.revision <= ordered.revision {
            return Ok(true);
        }
        self.execute(
            "UPDATE ordered_chip SET revision = ?2 WHERE job_id = ?1",
            params![report.job_id.to_string(), report.revision],
        )?;
        let mut tenant = self.tenant(ordered.workspace);
        if let Outcome::Succeeded(success) = &report.outcome {
            let serial = success.card.as_ref().and_then(|card| card.serial.as_deref());
            match serial.and_then(chip_number) {
                Some(number) => tenant.card_read(now, report.job_id, ordered.method, &number)?,
                None => {
                    let error = AttemptError {
                        kind: "incompatible_card_format",
                        message: "The reader told no number of the card's chip: lay another card down".into(),
                    };
                    tenant.end_chip(now, report.job_id, &error)?;
                }
            }
            return Ok(true);
        }
        let error = match &report.outcome {
            Outcome::Unknown(why) => unread(&why.to_string()),
            outcome => attempt_end(outcome).err().unwrap_or_else(|| unread("it was settled otherwise")),
        };
        tenant.end_chip(now, report.job_id, &error)?;
        Ok(true)
    }

    /// Nobody will say how the reading of a card's number ended. False where it is no such job.
    pub(super) fn chip_unheard(&mut self, now: Timestamp, job: JobId, why: &str) -> Result<bool, StoreError> {
        let found =
            self.one("SELECT workspace_id FROM ordered_chip WHERE job_id = ?1", [job.to_string()], |row| {
                id::<WorkspaceId>(row, "workspace_id")
            })?;
        let Some(workspace) = found else { return Ok(false) };
        self.tenant(workspace).end_chip(now, job, &unread(why))?;
        Ok(true)
    }

    /// A reading was taken back that its bridge never heard of.
    pub(super) fn chip_withdrawn(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        match self.ordered_chip(bridge, job)? {
            Some(ordered) => self.tenant(ordered.workspace).end_chip(now, job, &AttemptError::deleted()),
            None => Ok(()),
        }
    }

    fn ordered_chip(&self, bridge: BridgeId, job: JobId) -> Result<Option<OrderedChip>, StoreError> {
        self.one(
            "SELECT * FROM ordered_chip WHERE job_id = ?1 AND bridge_id = ?2",
            params![job.to_string(), bridge.to_string()],
            |row| {
                Ok(OrderedChip {
                    workspace: id(row, "workspace_id")?,
                    method: id(row, "access_method_id")?,
                    revision: row.get("revision")?,
                })
            },
        )
    }

    /// Forgets what readings were ordered for, long after it could matter.
    pub(super) fn forget_ordered_chips(&self, before: i64, most: u32) -> Result<usize, StoreError> {
        self.execute(
            "DELETE FROM ordered_chip WHERE rowid IN (
               SELECT rowid FROM ordered_chip o WHERE ordered_at < ?1
                 AND NOT EXISTS (SELECT 1 FROM bridge_order b WHERE b.job_id = o.job_id) LIMIT ?2)",
            params![before, most],
        )
    }
}

/// The number of a chip as it is compared: its bytes in hexadecimal, in capitals. None where it is no such number.
pub(super) fn chip_number(serial: &str) -> Option<String> {
    let is_hex = serial.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_one = is_hex && serial.len().is_multiple_of(2) && NUMBER_BYTES.contains(&(serial.len() / 2));
    is_one.then(|| serial.to_ascii_uppercase())
}

fn unread(why: &str) -> AttemptError {
    AttemptError {
        kind: "encoder_communication_timeout",
        message: format!(
            "Nobody knows whether the card was read, and nothing was changed: lay it down again ({why})"
        ),
    }
}
