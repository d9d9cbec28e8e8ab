//! What bridges say of jobs, and what it changes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{AttemptError, CardEnd, CardFate, Event, Subject, attempt_end, card_end},
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, ActionAttemptId, BridgeId, CardFacts,
        DeviceId, JobId, Origin, Outcome, Report, Window, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Db, Fault, GrantName, Tenant,
    attempts::WrittenCard,
    grants::{Method, window},
    rows::{id, json, ms},
    stays::WAS_WRITTEN,
};

/// How `ordered_card` says that nobody knows.
const IN_DOUBT: &str = "in_doubt";

/// A card job as it was ordered.
pub(super) struct OrderedCard {
    job: JobId,
    workspace: WorkspaceId,
    method: AccessMethodId,
    doors: Vec<AcsEntranceId>,
    window: Window,
    revision: u8,
}

impl Db {
    /// Takes in how a job ended, or what settled a doubt about it. A report that was taken in before changes nothing.
    ///
    /// # Errors
    /// Those of the database.
    pub fn apply_report(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<(), StoreError> {
        if report.local.is_none()
            && let Some(card) = self.ordered_card(bridge, report.job_id)?
        {
            if report.revision <= card.revision {
                return Ok(());
            }
            self.execute(
                "UPDATE ordered_card SET revision = ?2 WHERE job_id = ?1",
                params![report.job_id.to_string(), report.revision],
            )?;
            self.copy_ledger(now, bridge, report)?;
            return self.tenant(card.workspace).card_reported(now, &card, report);
        }
        if let Some(local) = report.local.as_ref().filter(|local| local.origin != Origin::Cloud) {
            if !self.local_job_reported(now, bridge, report, local)? {
                return Ok(());
            }
        } else if !self.scan_reported(now, bridge, report)?
            && !self.chip_reported(now, bridge, report)?
            && !self.slot_reported(now, bridge, report)?
            && !self.device_read(now, bridge, report)?
            && !self.unlock_reported(now, bridge, report)?
        {
            self.checkout_reported(bridge, report)?;
            self.stay_end_reported(bridge, report)?;
        }
        self.copy_ledger(now, bridge, report)
    }

    /// A job of the site's own took the place of an ordered card: the method follows it as it would have followed the
    /// ordered one. An attempt that ended stays as it is.
    pub(super) fn card_done_by_another(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        ordered: JobId,
        report: &Report,
    ) -> Result<(), StoreError> {
        match self.ordered_card(bridge, ordered)? {
            Some(card) => self.tenant(card.workspace).card_reported(now, &card, report),
            None => Ok(()),
        }
    }

    /// A card job was taken back that its bridge, as far as is known here, never heard of. That is our word, not the
    /// bridge's: should it report the job after all, because this database was set back, its word counts.
    pub(super) fn job_withdrawn(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        let Some(card) = self.ordered_card(bridge, job)? else {
            return self.chip_withdrawn(now, bridge, job);
        };
        let (outcome, rooms) = (Outcome::Cancelled, Vec::new());
        let report =
            Report { job_id: job, revision: 0, at: now, outcome, resolution: None, rooms, local: None };
        self.tenant(card.workspace).card_reported(now, &card, &report)
    }

    /// The bridge has forgotten jobs that had been handed to it: nobody will ever say how they ended.
    ///
    /// # Errors
    /// Those of the database.
    pub fn orders_lost(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        jobs: &[JobId],
    ) -> Result<(), StoreError> {
        for &job in jobs {
            self.scan_lost(now, bridge, job)?;
            self.chip_unheard(now, job, "the bridge has lost its memory of it")?;
            if let Some(card) = self.ordered_card(bridge, job)?
                && card.revision == 0
            {
                self.tenant(card.workspace).doubt(now, job, "the bridge has lost its memory of it")?;
            }
            self.slot_lost(now, bridge, job)?;
            self.unlock_lost(now, bridge, job)?;
            self.stay_end_lost(bridge, job)?;
        }
        Ok(())
    }

    pub(super) fn ordered_card(
        &self,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<Option<OrderedCard>, StoreError> {
        self.one(
            "SELECT * FROM ordered_card WHERE job_id = ?1 AND bridge_id = ?2",
            params![job.to_string(), bridge.to_string()],
            |row| {
                Ok(OrderedCard {
                    job,
                    workspace: id(row, "workspace_id")?,
                    method: id(row, "access_method_id")?,
                    doors: json(row, "acs_entrance_ids")?,
                    window: window(row)?,
                    revision: row.get("revision")?,
                })
            },
        )
    }

    fn checkout_reported(&mut self, bridge: BridgeId, report: &Report) -> Result<(), StoreError> {
        let freed = matches!(card_end(report), CardEnd::Written { .. });
        let known = self.one(
            "UPDATE ordered_checkout SET revision = ?3, freed = ?4
             WHERE job_id = ?1 AND bridge_id = ?2 AND revision < ?3
             RETURNING workspace_id, acs_system_id, reservation_key",
            params![report.job_id.to_string(), bridge.to_string(), report.revision, freed],
            |row| {
                Ok((
                    id::<WorkspaceId>(row, "workspace_id")?,
                    id::<AcsSystemId>(row, "acs_system_id")?,
                    row.get::<_, String>("reservation_key")?,
                ))
            },
        )?;
        match known {
            Some((workspace, system, key)) if freed => self.tenant(workspace).rooms_freed(system, &key),
            _ => Ok(()),
        }
    }

    /// The newer word about a room wins, whichever way the reports came. A stay that proves to hold a room after a doubt
    /// about it may have come to another end meanwhile, which nobody could tell the room's lock system.
    pub(super) fn copy_ledger(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<(), StoreError> {
        let mut proven = BTreeSet::new();
        for room in &report.rooms {
            if let (Some(key), true) = (&room.reservation_key, room.certain) {
                let workspace = self.one(
                    "SELECT workspace_id FROM door_ledger
                     WHERE bridge_id = ?1 AND system = ?2 AND room = ?3 AND certain = 0",
                    params![bridge.to_string(), room.system.as_str(), room.room.as_str()],
                    |row| id::<WorkspaceId>(row, "workspace_id"),
                )?;
                proven.extend(workspace.map(|workspace| (workspace, key)));
            }
            self.execute(
                "INSERT INTO door_ledger(workspace_id, bridge_id, system, room, reservation_key, certain, since, cards,
                                         printed_ends, told_at)
                 SELECT workspace_id, bridge_id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM site WHERE bridge_id = ?1
                 ON CONFLICT(bridge_id, system, room) DO UPDATE SET reservation_key = excluded.reservation_key,
                   certain = excluded.certain, since = excluded.since, cards = excluded.cards,
                   printed_ends = excluded.printed_ends, told_at = excluded.told_at
                 WHERE (excluded.told_at, excluded.since) >= (told_at, since)",
                params![
                    bridge.to_string(),
                    room.system.as_str(),
                    room.room.as_str(),
                    room.reservation_key.as_ref().map(crate::model::ReservationKey::as_str),
                    room.certain,
                    ms(room.since),
                    room.cards,
                    serde_json::to_string(&room.printed_ends).expect("times are texts"),
                    ms(report.at),
                ],
            )?;
        }
        for (workspace, key) in proven {
            let mut tenant = self.tenant(workspace);
            if tenant.has_told_an_end(key)? {
                tenant.follow_stay_end(now, key)?;
            }
        }
        Ok(())
    }
}

impl Tenant<'_> {
    fn card_reported(
        &mut self,
        now: Timestamp,
        card: &OrderedCard,
        report: &Report,
    ) -> Result<(), StoreError> {
        let method = self.method(card.method)?;
        let end = card_end(report);
        self.note_card_end(card, end)?;
        let written = match (end, &method) {
            (CardEnd::Written { proven }, Some(method)) => {
                let facts = facts(&report.outcome);
                let serial = facts.as_ref().and_then(|facts| facts.serial.clone());
                // What settles a doubt says nothing about what was written since.
                match serial.filter(|_| report.revision == 1) {
                    Some(serial) => self.card_written_over(now, method, &serial)?,
                    None => self.forget_serial(method.id, report.job_id)?,
                }
                self.keep_credential(
                    now,
                    &WrittenCard {
                        method: card.method,
                        window: printed(card.window, facts.as_ref()),
                        card_number: facts.and_then(|facts| facts.serial),
                        proven,
                    },
                )?
            }
            _ => None,
        };
        if let Some(attempt) = self.attempt_of(report.job_id)? {
            let ended = match (end, written) {
                (CardEnd::Written { .. }, Some(credential)) => Ok(credential),
                (CardEnd::Written { .. }, None) => Err(AttemptError::deleted()),
                _ => Err(attempt_end(&report.outcome)
                    .err()
                    .unwrap_or_else(|| AttemptError::in_doubt("it was settled otherwise"))),
            };
            self.end_attempt(now, attempt, &ended)?;
        }
        let Some(method) = method else { return Ok(()) };
        let still_in_doubt = self.is_in_doubt_by_another(card)?;
        self.move_method(now, &method, card, end, still_in_doubt, report)?;
        if !matches!(end, CardEnd::Written { .. }) {
            return Ok(());
        }
        self.catch_up_with_stay_end(now, method.id, card.window.ends_at())?;
        let has_begun = facts(&report.outcome).is_some_and(|facts| facts.overrode == Some(true));
        match self.stay_of(method.grant)? {
            Some(key) if has_begun => {
                self.stay_begun_anew(now, report, Some(method.id), method.system, &key, &card.doors)
            }
            _ => Ok(()),
        }
    }

    /// Notes the last word on a card's job.
    fn note_card_end(&self, card: &OrderedCard, end: CardEnd) -> Result<(), StoreError> {
        let ended = match end {
            CardEnd::Written { .. } => "written",
            CardEnd::InDoubt => IN_DOUBT,
            CardEnd::NotWritten => "not_written",
        };
        self.db.execute(
            "UPDATE ordered_card SET ended = ?2 WHERE job_id = ?1",
            params![card.job.to_string(), ended],
        )?;
        Ok(())
    }

    /// Whether another card of the same method may have been written, and nothing has settled that: what came of this one
    /// says nothing about it. A card that was written makes those good that were ordered before it.
    fn is_in_doubt_by_another(&self, card: &OrderedCard) -> Result<bool, StoreError> {
        let other = self.db.one(
            "SELECT 1 FROM ordered_card w
             WHERE w.access_method_id = ?1 AND w.workspace_id = ?2 AND w.job_id <> ?3 AND w.ended = ?4
               AND NOT EXISTS (SELECT 1 FROM ordered_card v
                               WHERE v.access_method_id = ?1 AND v.workspace_id = ?2 AND v.rowid > w.rowid
                                 AND v.ended = 'written')",
            params![card.method.to_string(), self.workspace, card.job.to_string(), IN_DOUBT],
            |_| Ok(()),
        )?;
        Ok(other.is_some())
    }

    /// Brings what is observed of a method to where its job ended.
    fn move_method(
        &mut self,
        now: Timestamp,
        method: &Method,
        card: &OrderedCard,
        end: CardEnd,
        still_in_doubt: bool,
        report: &Report,
    ) -> Result<(), StoreError> {
        match end {
            CardEnd::Written { .. } => {
                let window = printed(card.window, facts(&report.outcome).as_ref());
                let grant = self.grant(&GrantName::Id(method.grant))?;
                let is_current = match &grant {
                    Some(grant) if method.deleted.is_none() => {
                        grant.window == card.window && self.has_the_doors(method, card)?
                    }
                    Some(grant) => grant.window == card.window,
                    None => true,
                };
                // What settles a doubt about an earlier card does not bring it back.
                let is_overridden = report.revision > 1 && self.is_overridden(method.id)?;
                self.observe(
                    method.id,
                    &Observed {
                        is_issued: is_current && !is_overridden && !still_in_doubt,
                        issued_at: Some(method.issued_at.unwrap_or(now)),
                        in_doubt: still_in_doubt,
                        card: CardFate::MayExist { opens_until: later(method.card, window.ends_at()) },
                    },
                )?;
                if is_overridden || still_in_doubt {
                    return Ok(());
                }
                self.forget_overridden(method.id)?;
                self.card_is_valid(method.id)?;
                if !is_current {
                    // The grant changed while the card was being written: it asks to be written again.
                    return self.note_written_for(now, method.id, card.window);
                }
                self.db.execute(
                    "DELETE FROM card_update WHERE access_method_id = ?1",
                    [method.id.to_string()],
                )?;
                if method.deleted.is_none() {
                    self.tell_issued(now, method, &card.doors)?;
                }
            }
            CardEnd::InDoubt => {
                self.forget_overridden(method.id)?;
                self.observe_doubt(method, card.window)?;
            }
            // The doubt about another of its cards stands.
            CardEnd::NotWritten if still_in_doubt => {}
            CardEnd::NotWritten => {
                // What a doubt had made possible did not happen; what was written before did.
                let card = match method.issued_at {
                    None => CardFate::Never,
                    Some(_) => method.card,
                };
                self.observe(
                    method.id,
                    &Observed {
                        is_issued: method.is_issued,
                        issued_at: method.issued_at,
                        in_doubt: false,
                        card,
                    },
                )?;
                if method.deleted.is_some() && !card.may_open(now) {
                    self.remove_method(method.id)?;
                    self.sweep(method.grant)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a card opens every door that its grant leads to by now, and none that the grant has left.
    fn has_the_doors(&self, method: &Method, card: &OrderedCard) -> Result<bool, StoreError> {
        let targets = match self.targets_of(method.grant) {
            Ok(targets) => targets,
            Err(Fault::Store(error)) => return Err(error),
            Err(Fault::Refused(_)) => return Ok(true),
        };
        let named = self.named_doors(method.grant)?;
        let opens_all = targets.doors_of(method.system).iter().all(|door| card.doors.contains(&door.id));
        Ok(opens_all && card.doors.iter().all(|door| named.iter().any(|known| known.id == *door)))
    }

    /// Ends the attempt of a job in doubt, and keeps its method from being written until the doubt is settled.
    pub(super) fn doubt(&mut self, now: Timestamp, job: JobId, why: &str) -> Result<(), StoreError> {
        if self.db.chip_unheard(now, job, why)? {
            return Ok(());
        }
        if let Some(attempt) = self.attempt_of(job)? {
            self.end_attempt(now, attempt, &Err(AttemptError::in_doubt(why)))?;
        }
        let ordered = self.db.one(
            "SELECT access_method_id, starts_at, ends_at FROM ordered_card WHERE job_id = ?1 AND workspace_id = ?2",
            params![job.to_string(), self.workspace],
            |row| Ok((id::<AccessMethodId>(row, "access_method_id")?, window(row)?)),
        )?;
        let Some((method, window)) = ordered else {
            return Ok(());
        };
        self.db.execute(
            "UPDATE ordered_card SET ended = ?2 WHERE job_id = ?1 AND revision = 0",
            params![job.to_string(), IN_DOUBT],
        )?;
        match self.method(method)? {
            Some(method) => self.observe_doubt(&method, window),
            None => Ok(()),
        }
    }

    fn observe_doubt(&mut self, method: &Method, window: Window) -> Result<(), StoreError> {
        self.observe(
            method.id,
            &Observed {
                is_issued: false,
                issued_at: method.issued_at,
                in_doubt: true,
                card: CardFate::MayExist { opens_until: later(method.card, window.ends_at()) },
            },
        )
    }

    fn observe(&self, method: AccessMethodId, observed: &Observed) -> Result<(), StoreError> {
        let (may_exist, opens_until) = match observed.card {
            CardFate::Never => (false, None),
            CardFate::MayExist { opens_until } => (true, opens_until),
        };
        self.db.execute(
            "INSERT INTO card_state VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT(access_method_id) DO UPDATE SET is_issued = excluded.is_issued,
               issued_at = excluded.issued_at, in_doubt = excluded.in_doubt, may_exist = excluded.may_exist,
               opens_until = excluded.opens_until",
            params![
                method.to_string(),
                self.workspace,
                observed.is_issued,
                observed.issued_at.map(ms),
                observed.in_doubt,
                may_exist,
                opens_until.map(ms)
            ],
        )?;
        Ok(())
    }

    fn tell_issued(
        &mut self,
        now: Timestamp,
        method: &Method,
        doors: &[AcsEntranceId],
    ) -> Result<(), StoreError> {
        let kind = match method.issued_at {
            None => "access_method.issued",
            Some(_) => "access_method.reissued",
        };
        let mut events = vec![Event::method(kind, method.id, method.grant)];
        let grant = method.grant.to_string();
        for door in doors {
            let opened = self.db.execute(
                "INSERT OR IGNORE INTO opened_entrance VALUES(?1, ?2, ?3, ?4)",
                params![self.workspace, grant, door.to_string(), ms(now)],
            )?;
            if opened > 0 {
                events.push(Event::new(
                    "access_grant.access_granted_to_door",
                    Subject::GrantAtDoor(method.grant, *door),
                ));
            }
        }
        if events.len() > 1 && self.opens_everything(method.grant)? {
            events.push(Event::grant("access_grant.access_granted_to_all_doors", method.grant));
        }
        self.tell(now, &events)
    }

    fn opens_everything(&self, grant: AccessGrantId) -> Result<bool, StoreError> {
        let opened = self.db.all(
            "SELECT device_id FROM opened_device WHERE access_grant_id = ?1",
            [grant.to_string()],
            |row| id::<DeviceId>(row, "device_id"),
        )?;
        let devices_open = self.devices_of_grant(grant)?.iter().all(|device| opened.contains(device));
        Ok(devices_open && !self.has_closed_doors(grant)?)
    }

    /// Whether a door of the grant, other than a device, was never opened by it.
    pub(super) fn has_closed_doors(&self, grant: AccessGrantId) -> Result<bool, StoreError> {
        let missing: Option<bool> = self.db.one(
            "SELECT EXISTS (
               SELECT acs_entrance_id FROM (
                 SELECT acs_entrance_id FROM grant_entrance WHERE access_grant_id = ?1
                 UNION SELECT acs_entrance_id FROM grant_space JOIN space_entrance USING(space_id)
                 WHERE access_grant_id = ?1
               ) JOIN acs_entrance USING(acs_entrance_id)
               WHERE removed_at IS NULL AND workspace_id = ?2 AND acs_entrance_id NOT IN
                 (SELECT acs_entrance_id FROM opened_entrance WHERE access_grant_id = ?1))",
            params![grant.to_string(), self.workspace],
            |row| row.get(0),
        )?;
        Ok(missing == Some(true))
    }

    /// The rooms of a reservation are free in the lock system: when all of one system's are, the cards that were
    /// left for them are no longer shown. One that opens a room which was not freed goes on being shown.
    fn rooms_freed(&mut self, system: AcsSystemId, key: &str) -> Result<(), StoreError> {
        let methods = self.db.all(
            &format!(
                "SELECT m.access_method_id, m.access_grant_id FROM access_grant g
             JOIN access_method m USING(access_grant_id)
             WHERE g.workspace_id = ?1 AND g.reservation_key = ?2 AND m.acs_system_id = ?3 AND m.mode = 'card'
               AND (g.deleted_at IS NOT NULL
                    OR EXISTS (SELECT 1 FROM method_end e WHERE e.access_method_id = m.access_method_id))
               AND NOT EXISTS (
                     SELECT 1 FROM ordered_card w
                     JOIN json_each(w.acs_entrance_ids) d JOIN acs_entrance e ON e.acs_entrance_id = d.value
                     WHERE w.access_method_id = m.access_method_id AND e.kind = 'room' AND e.removed_at IS NULL
                       AND {WAS_WRITTEN}
                       AND NOT EXISTS (SELECT 1 FROM ordered_checkout o
                                       WHERE o.workspace_id = ?1 AND o.reservation_key = ?2 AND o.freed = 1
                                         AND o.acs_entrance_id = d.value))
               AND NOT EXISTS (SELECT 1 FROM action_attempt a
                               WHERE a.access_method_id = m.access_method_id AND a.status = 'pending')
               AND NOT EXISTS (SELECT 1 FROM ordered_checkout o WHERE o.workspace_id = ?1
                                 AND o.reservation_key = ?2 AND o.acs_system_id = ?3 AND o.freed = 0)"
            ),
            params![self.workspace, key, system.to_string()],
            |row| Ok((id(row, "access_method_id")?, id(row, "access_grant_id")?)),
        )?;
        for (method, grant) in methods {
            self.remove_method(method)?;
            self.sweep(grant)?;
        }
        Ok(())
    }

    pub(super) fn attempt_of(&self, job: JobId) -> Result<Option<ActionAttemptId>, StoreError> {
        self.db.one(
            "SELECT action_attempt_id FROM action_attempt WHERE job_id = ?1 AND workspace_id = ?2",
            params![job.to_string(), self.workspace],
            |row| id(row, "action_attempt_id"),
        )
    }
}

/// What is observed of a method.
struct Observed {
    is_issued: bool,
    issued_at: Option<Timestamp>,
    in_doubt: bool,
    card: CardFate,
}

fn facts(outcome: &Outcome) -> Option<CardFacts> {
    match outcome {
        Outcome::Succeeded(success) => success.card.clone(),
        _ => None,
    }
}

/// The window as the card carries it.
fn printed(ordered: Window, facts: Option<&CardFacts>) -> Window {
    let end = facts.and_then(|facts| facts.printed_end).or(ordered.ends_at());
    let start = facts.and_then(|facts| facts.printed_start).unwrap_or(ordered.starts_at());
    Window::new(start, end).unwrap_or(ordered)
}

/// Until when a card opens that may have been written before as well: the later of both.
fn later(before: CardFate, now: Option<Timestamp>) -> Option<Timestamp> {
    match before {
        CardFate::Never => now,
        CardFate::MayExist { opens_until } => Some(opens_until?.max(now?)),
    }
}
