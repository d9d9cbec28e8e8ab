//! Grants that a desk made, or took back, while it could not hear this cloud. What was done there is a fact: it is taken
//! over and never undone, and where it does not fit beside what is here, the grant says so.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::params;

use super::{Db, Fault, GrantCommand, GrantName, IdentityRef, Person, Requested, Tenant};
use crate::{
    grants::{
        Created, Event, GrantProblem, GrantRequest, Means, Mode, NewMethod, Targets, codes::GivenOut,
        plan_create,
    },
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, BridgeId, DesiredDevice, DesiredGrant,
        DeviceId, GrantMade, GrantRevoked, LocalCard, Report, ReservationKey, SystemName,
    },
    store::StoreError,
};

use super::rows::{id, ms};

/// The name under which a grant shows that it does not fit.
const PROBLEM: &str = "made_at_site";

impl Db {
    /// Takes over a grant that a desk made. One that was taken over before stays as it is by now.
    pub(super) fn adopt_made(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        made: &GrantMade,
    ) -> Result<(), StoreError> {
        let Some(workspace) = self.workspace_of(bridge)? else { return Ok(()) };
        if self.was_adopted(&made.grant)? {
            // One that was set back may hold on to what is long gone.
            return self.tell_desired(bridge, workspace, made.grant.access_grant_id);
        }
        self.tenant(workspace).adopt(now, bridge, made)
    }

    /// A desk took a grant back.
    pub(super) fn adopt_revoked(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        revoked: &GrantRevoked,
    ) -> Result<(), StoreError> {
        let grant = revoked.access_grant_id;
        let Some(workspace) = self.workspace_of(bridge)? else { return Ok(()) };
        if !self.is_desired_of(bridge, grant)? {
            return self.tell_desired(bridge, workspace, grant);
        }
        match self.tenant(workspace).delete_grant(now, grant)? {
            Ok(()) => Ok(()),
            // One that is not there any more was taken back here as well; the site hears how it is.
            Err(_) => self.tell_desired(bridge, workspace, grant),
        }
    }

    fn was_adopted(&self, grant: &DesiredGrant) -> Result<bool, StoreError> {
        let own = grant.access_grant_id.to_string();
        let known = self.one(
            "SELECT EXISTS (SELECT 1 FROM access_grant WHERE access_grant_id = ?1)
                 OR EXISTS (SELECT 1 FROM past_grant WHERE access_grant_id = ?1) AS known",
            [own],
            |row| row.get("known"),
        )?;
        Ok(known.unwrap_or(false))
    }
}

impl Tenant<'_> {
    fn adopt(&mut self, now: Timestamp, bridge: BridgeId, made: &GrantMade) -> Result<(), StoreError> {
        let DesiredGrant { access_grant_id, window, ref cards, .. } = made.grant;
        let mut whys = Vec::new();
        let mut problem = |why: String| whys.push(why);
        let doors = self.doors_named(bridge, &made.grant, &mut problem)?;
        let targets = match self.targets(&doors) {
            Ok(targets) => targets,
            Err(Fault::Store(error)) => return Err(error),
            Err(Fault::Refused(refused)) => {
                problem(refused.to_string());
                Targets::default()
            }
        };
        let key = made.grant.access_grant_key.clone();
        let is_taken = match &key {
            Some(key) => self.live_grant_by_key(key)?.is_some(),
            None => false,
        };
        if is_taken {
            problem("another access grant has its access_grant_key, so it has none".into());
        }
        let reservation_key = made.grant.reservation_key.clone();
        let stay = self.reservation(reservation_key.as_ref(), None)?;
        let codes = self.codes_named(bridge, &made.grant, &mut problem)?;
        let requested = requested(&made.grant);
        let request = GrantRequest {
            reservation_key: reservation_key.clone(),
            starts_at: Some(window.starts_at()),
            ends_at: window.ends_at(),
            modes: requested.iter().map(|requested| requested.mode).collect(),
            means: Means { devices: !codes.is_empty(), ..Means::default() },
        };
        // Judged as of its making: by now it may be over.
        let random = self.db.random.clone();
        let reservation_rooms = match plan_create(&request, &targets, &stay, made.at, &random) {
            Ok(plan) => plan.reservation_rooms,
            Err(refused) => {
                problem(refused.to_string());
                Vec::new()
            }
        };
        let mut methods = Vec::new();
        for card in cards {
            let Some(system) = self.system_named(bridge, &card.system)? else { continue };
            let is_new = methods.iter().all(|known: &NewMethod| known.id != card.access_method_id);
            if !is_new || self.is_method(card.access_method_id)? {
                problem("the id of one of its cards belongs to another".into());
                continue;
            }
            methods.push(NewMethod { id: card.access_method_id, place: 0, mode: Mode::Card, system });
        }
        let mut events = vec![Event::grant("access_grant.created", access_grant_id)];
        for method in &methods {
            events.push(Event::method("access_method.created", method.id, access_grant_id));
            let required = "access_method.card_encoding_required";
            events.push(Event::method(required, method.id, access_grant_id));
        }
        let told = |why: &String| Event::could_not_create(access_grant_id, made_apart(why));
        events.extend(whys.iter().map(told));
        let problems = problem_of(&whys);
        let full_name = made.grant.guest_name.as_ref().map(|name| name.expose().to_owned());
        let person = Person { full_name, ..Person::default() };
        let identity = self.add_person(now, &person)?.id;
        let command = GrantCommand {
            identity: IdentityRef::Known(identity),
            key: key.filter(|_| !is_taken),
            reservation_key,
            name: None,
            starts_at: None,
            ends_at: None,
            entrances: doors,
            devices: Vec::new(),
            spaces: Vec::new(),
            space_keys: Vec::new(),
            requested,
        };
        let plan = Created { id: access_grant_id, window, methods, reservation_rooms, problems, events };
        self.write_grant(now, &command, identity, &[], &plan)?;
        let devices: BTreeSet<_> = codes.iter().flat_map(|code| code.devices.iter().copied()).collect();
        self.write_devices(access_grant_id, devices)?;
        if let Some(key) = &command.reservation_key {
            self.goes_on_with_another_grant(now, key)?;
        }
        self.tell(now, &plan.events)?;
        let clashes = self.adopt_codes(now, made, codes)?;
        if !clashes.is_empty() {
            self.tell(now, &clashes.iter().map(told).collect::<Vec<_>>())?;
            whys.extend(clashes);
            self.write_problems(now, access_grant_id, &problem_of(&whys))?;
        }
        // From here on its bridge hears of its end, however soon that comes; at once, where it leads nowhere that is known.
        self.db.tell_desired(bridge, self.id, access_grant_id)?;
        let adopted = self.grant(&GrantName::Id(access_grant_id))?;
        adopted.map(drop).ok_or_else(|| StoreError::corrupt("access_grant", "gone while it was taken over"))
    }

    /// Takes over the codes of a grant that a desk made. Gives what does not fit of them.
    fn adopt_codes(
        &mut self,
        now: Timestamp,
        made: &GrantMade,
        codes: Vec<GivenOut>,
    ) -> Result<Vec<String>, StoreError> {
        let grant = made.grant.access_grant_id;
        let Some(place) = requested(&made.grant).iter().position(|it| it.mode == Mode::Code) else {
            return Ok(Vec::new());
        };
        let place = u32::try_from(place).unwrap_or(0);
        let clashing = self.with_book(now, grant, |book, at| book.adopt(at, grant, place, made.at, codes))?;
        let mut whys = Vec::new();
        for device in clashing.into_iter().flatten() {
            let name =
                self.db.one("SELECT name FROM device WHERE device_id = ?1", [device.to_string()], |row| {
                    row.get::<_, String>("name")
                })?;
            whys.push(format!(
                "its PIN is promised to another at {} as well, or the device's rules forbid it; whom the device refuses \
                 it gets another one",
                name.unwrap_or_default()
            ));
        }
        Ok(whys)
    }

    /// The codes of a grant with the devices that the desk named; one that the site does not have any more is a problem.
    fn codes_named(
        &self,
        bridge: BridgeId,
        grant: &DesiredGrant,
        problem: &mut impl FnMut(String),
    ) -> Result<Vec<GivenOut>, StoreError> {
        let mut codes: Vec<GivenOut> = Vec::new();
        for code in &grant.codes {
            let method = code.access_method_id;
            let is_card = grant.cards.iter().any(|card| card.access_method_id == method);
            if is_card || codes.iter().any(|known| known.method == method) || self.is_method(method)? {
                problem("the id of one of its codes belongs to another".into());
                continue;
            }
            let Some(pin) = code.pin.clone() else { continue };
            let mut devices = Vec::new();
            for DesiredDevice { system, device } in &code.devices {
                let found = self.db.one(
                    "SELECT device_id, d.removed_at IS NOT NULL AS is_gone
                     FROM device d JOIN acs_system s USING(acs_system_id)
                     WHERE s.workspace_id = ?1 AND s.bridge_id = ?2 AND s.name = ?3 AND d.name = ?4",
                    params![self.workspace, bridge.to_string(), system.as_str(), device.as_str()],
                    |row| Ok((id::<DeviceId>(row, "device_id")?, row.get::<_, bool>("is_gone")?)),
                )?;
                if found.is_none_or(|(_, is_gone)| is_gone) {
                    problem(format!("the access system {system} has no device {device}"));
                }
                // One that is gone may come back, and what it may hold is looked after then.
                devices.extend(found.map(|(found, _)| found));
            }
            if !devices.is_empty() {
                codes.push(GivenOut { method, pin, devices });
            }
        }
        Ok(codes)
    }

    /// A desk wrote the card of a method, or may have, that was taken back here meanwhile. It opens all the same, so the method
    /// and, if that is gone too, its grant are there again, deleted as they were, until the card opens no longer.
    pub(super) fn bring_back_deleted(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
        system: &SystemName,
        card: &LocalCard,
    ) -> Result<(), StoreError> {
        let method = card.access_method_id;
        let Some(system) = self.system_named(bridge, system)? else { return Ok(()) };
        if self.is_method(method)? {
            return Ok(());
        }
        let grant = self.db.one(
            "SELECT access_grant_id FROM past_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        let Some(grant) = grant else { return Ok(()) };
        let stay = report.rooms.iter().find_map(|room| room.reservation_key.as_ref());
        self.db.execute(
            "INSERT OR IGNORE INTO access_grant(access_grant_id, workspace_id, user_identity_id, reservation_key,
                                                starts_at, ends_at, created_at, deleted_at)
             SELECT p.access_grant_id, p.workspace_id, user_identity_id, ?3, ?4, ?5, told_at, told_at
             FROM past_grant p JOIN user_identity USING(user_identity_id)
             WHERE p.access_grant_id = ?1 AND p.workspace_id = ?2",
            params![
                grant.to_string(),
                self.workspace,
                stay.map(ReservationKey::as_str),
                ms(card.window.starts_at()),
                card.window.ends_at().map(ms)
            ],
        )?;
        let is_back = self.db.execute(
            "INSERT INTO access_method
             SELECT ?1, workspace_id, access_grant_id, 0, ?4, 'card', ?5 FROM access_grant
             WHERE access_grant_id = ?2 AND workspace_id = ?3",
            params![method.to_string(), grant.to_string(), self.workspace, system.to_string(), ms(now)],
        )?;
        if is_back > 0 {
            self.db.execute(
                "INSERT INTO method_end VALUES(?1, ?2, ?3)",
                params![method.to_string(), self.workspace, ms(now)],
            )?;
        }
        Ok(())
    }

    /// The doors of a grant as the desk named them; one that the site does not have any more is a problem.
    fn doors_named(
        &self,
        bridge: BridgeId,
        grant: &DesiredGrant,
        problem: &mut impl FnMut(String),
    ) -> Result<Vec<AcsEntranceId>, StoreError> {
        let mut doors = Vec::new();
        for of_system in &grant.doors {
            for door in &of_system.doors {
                let found = self.db.one(
                    "SELECT e.acs_entrance_id FROM acs_system s CROSS JOIN acs_entrance e USING(acs_system_id)
                     WHERE s.workspace_id = ?1 AND s.bridge_id = ?2 AND s.name = ?3 AND e.name = ?4
                       AND e.removed_at IS NULL",
                    params![self.workspace, bridge.to_string(), of_system.system.as_str(), door.as_str()],
                    |row| id(row, "acs_entrance_id"),
                )?;
                match found {
                    Some(found) => doors.push(found),
                    None => problem(format!("the access system {} has no door {door}", of_system.system)),
                }
            }
        }
        Ok(doors)
    }

    /// Whether there is a method with this id, whoever has it.
    fn is_method(&self, method: AccessMethodId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM access_method WHERE access_method_id = ?1) AS known";
        let known = self.db.one(sql, [method.to_string()], |row| row.get("known"))?;
        Ok(known.unwrap_or(false))
    }

    fn system_named(&self, bridge: BridgeId, name: &SystemName) -> Result<Option<AcsSystemId>, StoreError> {
        self.db.one(
            "SELECT acs_system_id FROM acs_system WHERE workspace_id = ?1 AND bridge_id = ?2 AND name = ?3",
            params![self.workspace, bridge.to_string(), name.as_str()],
            |row| id(row, "acs_system_id"),
        )
    }
}

/// What a desk asked for: the PIN of a code counts as asked for, as its guest knows it.
fn requested(grant: &DesiredGrant) -> Vec<Requested> {
    let card = (!grant.cards.is_empty() || grant.codes.is_empty())
        .then_some(Requested { mode: Mode::Card, code: None });
    let code = grant.codes.first().map(|code| Requested { mode: Mode::Code, code: code.pin.clone() });
    card.into_iter().chain(code).collect()
}

/// What does not fit beside what is here, in one: a grant has one problem of a name.
fn problem_of(whys: &[String]) -> Vec<GrantProblem> {
    let all =
        (!whys.is_empty()).then(|| GrantProblem { code: PROBLEM, message: made_apart(&whys.join("; ")) });
    all.into_iter().collect()
}

fn made_apart(why: &str) -> String {
    format!("Made at the property while it could not reach this cloud: {why}")
}
