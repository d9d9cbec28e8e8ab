//! Grants and their methods.

mod create;
mod delete;
mod list;
mod targets;

use jiff::Timestamp;
use rusqlite::{Row, params};

use crate::{
    grants::{
        CardFate, Mode, TargetSystem,
        codes::{CodeMethod, Lack, Trouble},
    },
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, DeviceId, Private, ReservationKey,
        SpaceId, UserIdentityId, Window,
    },
    store::StoreError,
};

use super::{
    DeletedCard, Person, StayEndTrouble, Tenant,
    keys::KeyView,
    rows::{id, json, maybe_time, parsed, time},
    stays::WAS_WRITTEN,
};

/// A grant as it is asked for.
#[derive(Debug)]
pub(crate) struct GrantCommand {
    pub(crate) identity: IdentityRef,
    pub(crate) key: Option<String>,
    pub(crate) reservation_key: Option<ReservationKey>,
    pub(crate) name: Option<Private>,
    pub(crate) starts_at: Option<Timestamp>,
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) entrances: Vec<AcsEntranceId>,
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) spaces: Vec<SpaceId>,
    pub(crate) space_keys: Vec<String>,
    pub(crate) requested: Vec<Requested>,
}

/// Whose grant.
#[derive(Debug)]
pub(crate) enum IdentityRef {
    Known(UserIdentityId),
    New(Person),
}

/// A means asked for.
#[derive(Debug)]
pub(crate) struct Requested {
    pub(crate) mode: Mode,
    pub(crate) code: Option<Private>,
}

/// By what a grant is asked for.
#[derive(Debug)]
pub(crate) enum GrantName {
    Id(AccessGrantId),
    Key(String),
}

/// A grant as it stands.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) id: AccessGrantId,
    pub(crate) user_identity: UserIdentityId,
    pub(crate) key: Option<String>,
    pub(crate) reservation_key: Option<ReservationKey>,
    pub(crate) name: Option<Private>,
    pub(crate) window: Window,
    pub(crate) created_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) spaces: Vec<SpaceId>,
    /// The devices it leads to, as they are now; of those, the ones that take codes.
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) coded: Vec<DeviceId>,
    /// Modes asked for, each with the code that was wished, and when.
    pub(crate) requested: Vec<(Mode, Option<Private>, Timestamp)>,
    pub(crate) methods: Vec<Method>,
    pub(crate) errors: Vec<(String, String, Timestamp)>,
    /// What cannot be had of the codes that are asked for.
    pub(crate) lacks: Vec<Lack>,
    /// Deleted cards of its stay that may still open, those of other grants among them.
    pub(crate) deleted_cards: Vec<DeletedCard>,
    /// Rooms whose lock system was not told until when the stay is.
    pub(crate) stay_end_troubles: Vec<StayEndTrouble>,
}

/// A method as it stands, desired and observed.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    pub(crate) id: AccessMethodId,
    pub(crate) grant: AccessGrantId,
    pub(crate) place: u32,
    pub(crate) system: AcsSystemId,
    pub(crate) mode: Mode,
    pub(crate) created_at: Timestamp,
    /// Its grant is deleted; it is shown because a card still opens or is being written.
    pub(crate) deleted: Option<Timestamp>,
    pub(crate) is_issued: bool,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) in_doubt: bool,
    pub(crate) card: CardFate,
    /// The window that a card was written with, where its grant has another one since.
    pub(crate) written_for: Option<(Window, Timestamp)>,
    /// Doors that the card in the guest's pocket opens, and its grant leads to no more.
    pub(crate) left_doors: Vec<String>,
    /// When its grant holds.
    pub(crate) window: Option<Window>,
    pub(crate) code: Option<Box<CodeView>>,
    pub(crate) key: Option<KeyView>,
}

/// What is shown of a code.
#[derive(Debug, Clone)]
pub(crate) struct CodeView {
    pub(crate) code: CodeMethod,
    /// Devices that it is not read back from yet.
    pub(crate) coming: Vec<DeviceId>,
    /// Devices that it should be gone from and may still be in, each with since when it was there.
    pub(crate) leaving: Vec<(DeviceId, Option<Timestamp>)>,
    /// What a device said that refused it.
    pub(crate) trouble: Option<Trouble>,
}

/// Which grants.
#[derive(Debug, Default)]
pub(crate) struct GrantFilter {
    pub(crate) ids: Option<Vec<AccessGrantId>>,
    /// With this key; with none at all where it is `Some(None)`.
    pub(crate) key: Option<Option<String>>,
    pub(crate) identity: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) entrance: Option<String>,
    pub(crate) system: Option<String>,
    pub(crate) space: Option<String>,
    pub(crate) reservation_key: Option<String>,
    pub(crate) customer: Option<String>,
}

/// Which methods.
#[derive(Debug, Default)]
pub(crate) struct MethodFilter {
    pub(crate) grant: Option<AccessGrantId>,
    pub(crate) entrance: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) space: Option<String>,
}

/// What is to change about a grant; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct GrantChange {
    pub(crate) starts_at: Option<Timestamp>,
    /// `Some(None)` opens the end.
    pub(crate) ends_at: Option<Option<Timestamp>>,
    /// `Some(None)` takes the name away.
    pub(crate) name: Option<Option<Private>>,
    pub(crate) entrances: Option<Vec<AcsEntranceId>>,
    pub(crate) devices: Option<Vec<DeviceId>>,
    pub(crate) spaces: Option<Vec<SpaceId>>,
}

impl Tenant<'_> {
    pub(crate) fn grant(&mut self, name: &GrantName) -> Result<Option<Grant>, StoreError> {
        let (column, value) = match name {
            GrantName::Id(id) => ("access_grant_id", id.to_string()),
            GrantName::Key(key) => ("access_grant_key", key.clone()),
        };
        let found = self.db.one(
            &format!("SELECT * FROM access_grant WHERE workspace_id = ?1 AND {column} = ?2"),
            params![self.workspace, value],
            |row| {
                let grant = Grant {
                    id: id(row, "access_grant_id")?,
                    user_identity: id(row, "user_identity_id")?,
                    key: row.get("access_grant_key")?,
                    reservation_key: row
                        .get::<_, Option<String>>("reservation_key")?
                        .and_then(|key| ReservationKey::new(key).ok()),
                    name: None,
                    window: window(row)?,
                    created_at: time(row, "created_at")?,
                    deleted_at: maybe_time(row, "deleted_at")?,
                    spaces: Vec::new(),
                    devices: Vec::new(),
                    coded: Vec::new(),
                    requested: Vec::new(),
                    methods: Vec::new(),
                    errors: Vec::new(),
                    lacks: Vec::new(),
                    deleted_cards: Vec::new(),
                    stay_end_troubles: Vec::new(),
                };
                Ok((grant, row.get::<_, Option<Vec<u8>>>("name")?))
            },
        )?;
        let Some((mut grant, name)) = found else {
            return Ok(None);
        };
        let own = grant.id.to_string();
        grant.name = self.unseal(&format!("access_grant.name/{own}"), name)?;
        grant.spaces = self.db.all(
            "SELECT space_id FROM grant_space WHERE access_grant_id = ?1 ORDER BY place",
            [&own],
            |row| id(row, "space_id"),
        )?;
        let requested = self.db.all(
            "SELECT place, mode, code, created_at FROM requested_method WHERE access_grant_id = ?1 ORDER BY place",
            [&own],
            |row| {
                let code: Option<Vec<u8>> = row.get("code")?;
                Ok((row.get::<_, i64>("place")?, mode(row)?, code, time(row, "created_at")?))
            },
        )?;
        for (place, mode, code, at) in requested {
            let code = self.unseal(&format!("requested_method.code/{own}/{place}"), code)?;
            grant.requested.push((mode, code, at));
        }
        grant.devices = self.devices_of_grant(grant.id)?;
        for device in &grant.devices {
            if self.takes_codes(*device)? {
                grant.coded.push(*device);
            }
        }
        grant.methods = self.methods_of(grant.id)?;
        grant.errors = self.db.all(
            "SELECT code, message, created_at FROM grant_error WHERE access_grant_id = ?1 ORDER BY rowid",
            [&own],
            |row| Ok((row.get("code")?, row.get("message")?, time(row, "created_at")?)),
        )?;
        grant.lacks = self.lacks(grant.id)?;
        if let Some(key) = &grant.reservation_key {
            grant.deleted_cards = self.deleted_cards(key)?;
            match grant.deleted_at {
                None => grant.stay_end_troubles = self.stay_end_troubles(key)?,
                // Nobody looks after a stay there any more.
                Some(_) => grant.deleted_cards.retain(|card| card.grant == grant.id),
            }
        }
        Ok(Some(grant))
    }

    pub(super) fn unseal(&self, place: &str, sealed: Option<Vec<u8>>) -> Result<Option<Private>, StoreError> {
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let plain = self.db.seal.open(place, &sealed)?;
        let text =
            String::from_utf8(plain).map_err(|error| StoreError::corrupt(place, error.utf8_error()))?;
        Ok(Some(Private::new(text)))
    }

    pub(crate) fn methods_of(&self, grant: AccessGrantId) -> Result<Vec<Method>, StoreError> {
        let mut methods = self.db.all(
            &format!("{METHODS} AND m.access_grant_id = ?2 ORDER BY m.rowid"),
            params![self.workspace, grant.to_string()],
            method,
        )?;
        methods.iter_mut().try_for_each(|method| self.fill(method))?;
        Ok(methods)
    }

    /// Adds what is sealed, and what is known of slots.
    fn fill(&self, method: &mut Method) -> Result<(), StoreError> {
        match method.mode {
            Mode::Card => {
                method.code = self.code_view(method.grant, method.id)?.map(Box::new);
                if method.written_for.is_some() && !method.is_issued {
                    method.left_doors = self.left_doors(method)?;
                }
            }
            Mode::Code => method.code = self.code_view(method.grant, method.id)?.map(Box::new),
            Mode::MobileKey | Mode::CloudKey => method.key = self.key_view(method.id)?,
        }
        Ok(())
    }

    /// The doors that the last card of a method was written for, and to which its grant leads no more; without rooms
    /// that were freed since.
    fn left_doors(&self, method: &Method) -> Result<Vec<String>, StoreError> {
        let doors = self.doors_of_grant(method.grant)?;
        let written = self.db.all(
            &format!(
                "SELECT e.acs_entrance_id, coalesce(e.display_name, e.name) AS shown
             FROM ordered_card o JOIN json_each(o.acs_entrance_ids) d JOIN acs_entrance e ON e.acs_entrance_id = d.value
             WHERE o.rowid = (SELECT max(w.rowid) FROM ordered_card w
                              WHERE w.access_method_id = ?1 AND w.workspace_id = ?2 AND {WAS_WRITTEN})
               AND NOT EXISTS (SELECT 1 FROM ordered_checkout c JOIN access_grant g USING(reservation_key)
                               WHERE g.access_grant_id = ?3 AND c.workspace_id = ?2 AND c.freed = 1
                                 AND c.acs_entrance_id = e.acs_entrance_id)
             ORDER BY d.key"
            ),
            params![method.id.to_string(), self.workspace, method.grant.to_string()],
            |row| Ok((id::<AcsEntranceId>(row, "acs_entrance_id")?, row.get::<_, String>("shown")?)),
        )?;
        Ok(written.into_iter().filter(|(door, _)| !doors.contains(door)).map(|(_, shown)| shown).collect())
    }

    pub(crate) fn method(&mut self, wanted: AccessMethodId) -> Result<Option<Method>, StoreError> {
        let mut found = self.db.one(
            &format!("{METHODS} AND m.access_method_id = ?2"),
            params![self.workspace, wanted.to_string()],
            method,
        )?;
        found.iter_mut().try_for_each(|method| self.fill(method))?;
        Ok(found)
    }
}

/// Every door that a grant names, and those of its spaces, in its order.
pub(super) const DOORS_OF_GRANT: &str = "
    SELECT 0 AS part, place, 0 AS member, acs_entrance_id FROM grant_entrance WHERE access_grant_id = ?1
    UNION ALL
    SELECT 1, place, s.rowid, s.acs_entrance_id FROM grant_space JOIN space_entrance s USING(space_id)
    WHERE access_grant_id = ?1";

const METHODS: &str = "
    SELECT m.access_method_id, m.access_grant_id, m.place, m.acs_system_id, m.mode, m.created_at,
           coalesce(g.deleted_at, e.deleted_at, k.deleted_at) AS deleted_at,
           coalesce(c.is_issued, k.is_issued, y.is_issued, 0) AS is_issued,
           coalesce(c.issued_at, k.issued_at, y.issued_at) AS issued_at, coalesce(c.in_doubt, 0) AS in_doubt,
           coalesce(c.may_exist, 0) AS may_exist, c.opens_until,
           u.starts_at, u.ends_at, u.since AS changed_since,
           g.starts_at AS grant_starts_at, g.ends_at AS grant_ends_at
    FROM access_method m JOIN access_grant g USING(access_grant_id) LEFT JOIN card_state c USING(access_method_id)
    LEFT JOIN code_method k USING(access_method_id) LEFT JOIN key_method y USING(access_method_id)
    LEFT JOIN method_end e USING(access_method_id) LEFT JOIN card_update u USING(access_method_id)
    WHERE m.workspace_id = ?1";

fn method(row: &Row<'_>) -> rusqlite::Result<Method> {
    let opens_until = maybe_time(row, "opens_until")?;
    let written_for = match maybe_time(row, "changed_since")? {
        Some(since) => Some((self::window(row)?, since)),
        None => None,
    };
    let window = Window::new(time(row, "grant_starts_at")?, maybe_time(row, "grant_ends_at")?).ok();
    Ok(Method {
        written_for,
        left_doors: Vec::new(),
        window,
        code: None,
        key: None,
        id: id(row, "access_method_id")?,
        grant: id(row, "access_grant_id")?,
        place: row.get("place")?,
        system: id(row, "acs_system_id")?,
        mode: mode(row)?,
        created_at: time(row, "created_at")?,
        deleted: maybe_time(row, "deleted_at")?,
        is_issued: row.get("is_issued")?,
        issued_at: maybe_time(row, "issued_at")?,
        in_doubt: row.get("in_doubt")?,
        card: if row.get("may_exist")? { CardFate::MayExist { opens_until } } else { CardFate::Never },
    })
}

fn mode(row: &Row<'_>) -> rusqlite::Result<Mode> {
    let name: String = row.get("mode")?;
    Mode::from_name(&name).ok_or(rusqlite::Error::InvalidQuery)
}

pub(super) fn window(row: &Row<'_>) -> rusqlite::Result<Window> {
    Window::new(time(row, "starts_at")?, maybe_time(row, "ends_at")?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Integer, Box::new(error))
    })
}

pub(super) fn target_system(row: &Row<'_>) -> rusqlite::Result<TargetSystem> {
    Ok(TargetSystem {
        id: id(row, "acs_system_id")?,
        name: parsed(row, "name")?,
        capabilities: json(row, "capabilities")?,
        checkout_on_last_grant: row.get("checkout_on_last_grant")?,
        override_after_deleted_card: row.get("override_after_deleted_card")?,
    })
}
