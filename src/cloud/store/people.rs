//! People. What tells a person from another is sealed; a keyed digest finds it again.

use jiff::Timestamp;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::{
    grants::{Refused, Resource},
    model::{AccessGrantId, AcsEntranceId, AcsSystemId, DeviceId, UserIdentityId, WorkspaceId},
    store::StoreError,
};

use super::{
    Db, Fault, Listed, Page, Tenant,
    question::Question,
    rows::{id, id_list, ms, time},
    split,
};

/// What is known of a person. Stored sealed, never printed.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) full_name: Option<String>,
    pub(crate) email_address: Option<String>,
    pub(crate) phone_number: Option<String>,
    pub(crate) user_identity_key: Option<String>,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[private]")
    }
}

/// A person with an id.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: UserIdentityId,
    pub(crate) created_at: Timestamp,
    pub(crate) person: Person,
    /// Who turned out to be this person: id and key.
    pub(crate) merged: Vec<(UserIdentityId, Option<String>)>,
}

/// By what a person is asked for.
#[derive(Debug, Clone)]
pub(crate) enum IdentityName {
    Id(UserIdentityId),
    Key(String),
}

impl std::fmt::Display for IdentityName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Key(key) => key.fmt(f),
        }
    }
}

/// Which people.
#[derive(Debug, Default)]
pub(crate) struct IdentityFilter {
    pub(crate) ids: Option<Vec<UserIdentityId>>,
    /// What one of the person's fields contains, in letters of either case.
    pub(crate) search: Option<String>,
    pub(crate) created_before: Option<Timestamp>,
    pub(crate) customer: Option<String>,
}

/// What becomes of a person's fields: `None` leaves one as it is, `Some(None)` empties it.
#[derive(Default)]
pub(crate) struct PersonChange {
    pub(crate) full_name: Option<Option<String>>,
    pub(crate) email_address: Option<Option<String>>,
    pub(crate) phone_number: Option<Option<String>>,
    pub(crate) user_identity_key: Option<Option<String>>,
}

/// How many sealed rows one question looks through for words: some tens of milliseconds. The rest is the next page's.
const LOOKED_THROUGH: u32 = 5_000;
/// People that are looked at, and erased, at once.
const SLICE: u32 = 200;

impl Person {
    fn contains(&self, words: &str) -> bool {
        let fields = [&self.full_name, &self.email_address, &self.phone_number, &self.user_identity_key];
        fields.into_iter().flatten().any(|field| field.to_lowercase().contains(words))
    }

    /// What must be unique: column, parameter, and the value by which two are the same.
    fn unique(&self) -> [(&'static str, &'static str, Option<String>); 3] {
        let lower = |text: &String| text.trim().to_lowercase();
        let digits = |text: &String| text.chars().filter(|c| !" -().".contains(*c)).collect();
        [
            ("key_index", "user_identity_key", self.user_identity_key.clone()),
            ("email_index", "email_address", self.email_address.as_ref().map(lower)),
            ("phone_index", "phone_number", self.phone_number.as_ref().map(digits)),
        ]
    }
}

impl Tenant<'_> {
    pub(crate) fn create_identity(
        &mut self,
        now: Timestamp,
        person: &Person,
        customer: Option<&str>,
        systems: &[AcsSystemId],
    ) -> Result<Result<Identity, Refused>, StoreError> {
        split(self.try_create_identity(now, person, customer, systems))
    }

    fn try_create_identity(
        &mut self,
        now: Timestamp,
        person: &Person,
        customer: Option<&str>,
        systems: &[AcsSystemId],
    ) -> Result<Identity, Fault> {
        self.check_person(person)?;
        for system in systems {
            self.system(*system)?.ok_or_else(|| Refused::not_found(Resource::AcsSystem, system))?;
        }
        let identity = self.add_person(now, person)?;
        if customer.is_some() {
            self.db.execute(
                "UPDATE user_identity SET customer_key = ?2 WHERE user_identity_id = ?1",
                params![identity.id.to_string(), customer],
            )?;
        }
        Ok(identity)
    }

    /// Whether such a person may be added.
    pub(super) fn check_person(&self, person: &Person) -> Result<(), Fault> {
        self.check_person_beside(person, None)
    }

    /// Whether a person may be as said: told from others, and not taken for one.
    fn check_person_beside(&self, person: &Person, own: Option<UserIdentityId>) -> Result<(), Fault> {
        let unique = person.unique();
        if person.full_name.is_none() && unique.iter().all(|(_, _, value)| value.is_none()) {
            return Err(Refused::IdentityNameless.into());
        }
        for (column, parameter, value) in unique {
            let Some(value) = value else { continue };
            let digest = self.digest(column, &value);
            let mut holder = self.db.one(
                &format!(
                    "SELECT user_identity_id FROM user_identity WHERE workspace_id = ?1 AND {column} = ?2"
                ),
                params![self.workspace, digest],
                |row| id::<UserIdentityId>(row, "user_identity_id"),
            )?;
            if holder.is_none() && column == "key_index" {
                holder = self.merged_by_key(&digest)?;
            }
            if let Some(holder) = holder.filter(|holder| Some(*holder) != own) {
                return Err(Fault::Refused(Refused::Taken {
                    resource: Resource::UserIdentity,
                    message: format!("This {parameter} belongs to user identity {holder}"),
                }));
            }
        }
        Ok(())
    }

    pub(super) fn add_person(&mut self, now: Timestamp, person: &Person) -> Result<Identity, StoreError> {
        let own = UserIdentityId(self.db.random.uuid_at(now));
        self.db.execute(
            "INSERT INTO user_identity(user_identity_id, workspace_id, person, created_at)
             VALUES(?1, ?2, x'', ?3)",
            params![own.to_string(), self.workspace, ms(now)],
        )?;
        self.write_person(own, person)?;
        Ok(Identity { id: own, created_at: now, person: person.clone(), merged: Vec::new() })
    }

    fn write_person(&self, own: UserIdentityId, person: &Person) -> Result<(), StoreError> {
        let plain =
            serde_json::to_vec(person).map_err(|error| StoreError::corrupt("user_identity.person", error))?;
        let sealed = self.db.seal.seal(&place(own), &plain);
        let [key, email, phone] =
            person.unique().map(|(column, _, value)| value.map(|value| self.digest(column, &value)));
        self.db.execute(
            "UPDATE user_identity SET person = ?3, key_index = ?4, email_index = ?5, phone_index = ?6
             WHERE user_identity_id = ?1 AND workspace_id = ?2",
            params![own.to_string(), self.workspace, sealed, key, email, phone],
        )?;
        Ok(())
    }

    /// The person with an id, also with one of somebody who turned out to be this person.
    pub(crate) fn identity(&self, wanted: UserIdentityId) -> Result<Option<Identity>, StoreError> {
        let row = self.db.one(
            "SELECT * FROM user_identity
             WHERE workspace_id = ?2 AND erased_at IS NULL AND user_identity_id =
               coalesce((SELECT user_identity_id FROM merged_identity WHERE merged_id = ?1), ?1)",
            params![wanted.to_string(), self.workspace],
            sealed,
        )?;
        row.map(|row| self.open(row)).transpose()
    }

    pub(crate) fn identity_named(&self, name: &IdentityName) -> Result<Option<Identity>, StoreError> {
        let key = match name {
            IdentityName::Id(id) => return self.identity(*id),
            IdentityName::Key(key) => key,
        };
        let digest = self.digest("key_index", key);
        let known = self.db.one(
            "SELECT user_identity_id FROM user_identity WHERE workspace_id = ?1 AND key_index = ?2",
            params![self.workspace, digest],
            |row| id(row, "user_identity_id"),
        )?;
        match known.map_or_else(|| self.merged_by_key(&digest), |known| Ok(Some(known)))? {
            Some(known) => self.identity(known),
            None => Ok(None),
        }
    }

    fn the_identity(&self, name: &IdentityName) -> Result<Identity, Fault> {
        let known = self.identity_named(name)?;
        known.ok_or_else(|| Fault::Refused(Refused::not_found(Resource::UserIdentity, name)))
    }

    fn merged_by_key(&self, digest: &[u8; 32]) -> Result<Option<UserIdentityId>, StoreError> {
        self.db.one(
            "SELECT user_identity_id FROM merged_identity WHERE workspace_id = ?1 AND key_index = ?2",
            params![self.workspace, digest],
            |row| id(row, "user_identity_id"),
        )
    }

    fn open(&self, row: Sealed) -> Result<Identity, StoreError> {
        let plain = self.db.seal.open(&place(row.id), &row.person)?;
        let merged = self.db.all(
            "SELECT merged_id, identity_key FROM merged_identity WHERE user_identity_id = ?1 ORDER BY rowid",
            [row.id.to_string()],
            |row| {
                Ok((id::<UserIdentityId>(row, "merged_id")?, row.get::<_, Option<Vec<u8>>>("identity_key")?))
            },
        )?;
        let merged = merged.into_iter().map(|(merged, key)| {
            let key = key.map(|sealed| self.db.seal.open(&key_place(merged), &sealed)).transpose()?;
            Ok((merged, key.map(|key| String::from_utf8_lossy(&key).into_owned())))
        });
        Ok(Identity {
            id: row.id,
            created_at: row.created_at,
            person: serde_json::from_slice(&plain)
                .map_err(|error| StoreError::corrupt(place(row.id), error))?,
            merged: merged.collect::<Result<_, StoreError>>()?,
        })
    }

    /// People in the order of their making. A search looks through so many of them and no more: a page may be short of
    /// its limit, or empty, and still not be the last.
    pub(crate) fn identities(
        &mut self,
        filter: &IdentityFilter,
        page: Page,
    ) -> Result<Listed<Identity>, StoreError> {
        let words = filter.search.as_ref().map(|words| words.to_lowercase());
        let most = if words.is_some() { LOOKED_THROUGH } else { page.limit + 1 };
        let question = Question::of("SELECT u.rowid AS place, u.* FROM user_identity u", "u")
            .among("u.user_identity_id IN (SELECT value FROM json_each(?#))", id_list(filter.ids.as_deref()))
            .among("u.customer_key = ?#", filter.customer.clone())
            .and("u.created_at < ?#", filter.created_before.map(ms))
            .and("u.rowid > ?#", Some(page.after))
            .only("u.erased_at IS NULL");
        let (sql, values) = question.in_order(&self.workspace, "u.rowid", most);
        let rows = self.db.all(&sql, rusqlite::params_from_iter(values), |row| {
            Ok((row.get::<_, i64>("place")?, sealed(row)?))
        })?;
        let is_all = rows.len() < most as usize;
        let last = rows.last().map(|(place, _)| *place);
        let mut found = Vec::new();
        for (place, row) in rows {
            let identity = self.open(row)?;
            if words.as_ref().is_none_or(|words| identity.person.contains(words)) {
                found.push((place, identity));
            }
            if found.len() > page.limit as usize {
                break;
            }
        }
        let mut listed = Listed::cut(found, page);
        if listed.next.is_none() && !is_all {
            listed.next = last;
        }
        Ok(listed)
    }

    pub(crate) fn change_identity(
        &mut self,
        wanted: UserIdentityId,
        change: PersonChange,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_change_identity(wanted, change))
    }

    fn try_change_identity(&mut self, wanted: UserIdentityId, change: PersonChange) -> Result<(), Fault> {
        let identity = self.the_identity(&IdentityName::Id(wanted))?;
        let before = identity.person;
        let person = Person {
            full_name: change.full_name.unwrap_or(before.full_name),
            email_address: change.email_address.unwrap_or(before.email_address),
            phone_number: change.phone_number.unwrap_or(before.phone_number),
            user_identity_key: change.user_identity_key.unwrap_or(before.user_identity_key),
        };
        self.check_person_beside(&person, Some(identity.id))?;
        Ok(self.write_person(identity.id, &person)?)
    }

    /// Erases a person who has no access any more.
    pub(crate) fn delete_identity(
        &mut self,
        now: Timestamp,
        wanted: UserIdentityId,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_delete_identity(now, wanted))
    }

    fn try_delete_identity(&mut self, now: Timestamp, wanted: UserIdentityId) -> Result<(), Fault> {
        let identity = self.the_identity(&IdentityName::Id(wanted))?;
        let live = self.db.one(
            "SELECT access_grant_id FROM access_grant
             WHERE user_identity_id = ?1 AND workspace_id = ?2 AND deleted_at IS NULL
               AND (ends_at IS NULL OR ends_at > ?3) LIMIT 1",
            params![identity.id.to_string(), self.workspace, ms(now)],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        if let Some(grant) = live {
            return Err(Fault::Refused(Refused::StillNeeded {
                resource: Resource::UserIdentity,
                message: format!("This user identity still has access grant {grant}: delete it first"),
            }));
        }
        Ok(self.erase_identity(now, identity.id)?)
    }

    /// Folds people into one: grants and cards become that person's, and so do the address and the number that were
    /// missing. The others' ids and keys lead to that person from then on. Saying it again changes nothing.
    pub(crate) fn merge_identities(
        &mut self,
        now: Timestamp,
        kept: &IdentityName,
        others: &[IdentityName],
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_merge_identities(now, kept, others))
    }

    fn try_merge_identities(
        &mut self,
        now: Timestamp,
        kept: &IdentityName,
        others: &[IdentityName],
    ) -> Result<(), Fault> {
        let kept = self.the_identity(kept)?;
        let mut person = kept.person;
        let mut folded: Vec<Identity> = Vec::new();
        for other in others {
            let other = self.the_identity(other)?;
            if other.id != kept.id && folded.iter().all(|known| known.id != other.id) {
                folded.push(other);
            }
        }
        for other in folded {
            person.email_address = person.email_address.or(other.person.email_address.clone());
            person.phone_number = person.phone_number.or(other.person.phone_number.clone());
            self.fold(now, kept.id, &other)?;
        }
        Ok(self.write_person(kept.id, &person)?)
    }

    fn fold(&mut self, now: Timestamp, kept: UserIdentityId, other: &Identity) -> Result<(), StoreError> {
        let (kept, gone) = (kept.to_string(), other.id.to_string());
        for table in ["access_grant", "past_grant", "acs_credential", "merged_identity"] {
            self.db.execute(
                &format!(
                    "UPDATE {table} SET user_identity_id = ?1 WHERE user_identity_id = ?2 AND workspace_id = ?3"
                ),
                params![kept, gone, self.workspace],
            )?;
        }
        let key = other.person.user_identity_key.as_ref();
        let sealed = key.map(|key| self.db.seal.seal(&key_place(other.id), key.as_bytes()));
        let digest = key.map(|key| self.digest("key_index", key));
        self.erase_identity(now, other.id)?;
        self.db.execute(
            "INSERT INTO merged_identity VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![gone, self.workspace, kept, sealed, digest, ms(now)],
        )?;
        Ok(())
    }

    /// The doors that a person's live grants lead to, those of spaces included.
    pub(crate) fn entrances_of_identity(
        &mut self,
        now: Timestamp,
        wanted: UserIdentityId,
    ) -> Result<Result<Vec<AcsEntranceId>, Refused>, StoreError> {
        let Some(identity) = self.identity(wanted)? else {
            return Ok(Err(Refused::not_found(Resource::UserIdentity, wanted)));
        };
        let doors = self.db.all(
            "WITH live AS (
               SELECT access_grant_id FROM access_grant
               WHERE user_identity_id = ?1 AND workspace_id = ?2 AND deleted_at IS NULL
                 AND (ends_at IS NULL OR ends_at > ?3))
             SELECT e.acs_entrance_id FROM acs_entrance e
             WHERE e.workspace_id = ?2 AND e.removed_at IS NULL AND e.acs_entrance_id IN (
               SELECT acs_entrance_id FROM live JOIN grant_entrance USING(access_grant_id)
               UNION ALL SELECT acs_entrance_id FROM live JOIN grant_space USING(access_grant_id)
               JOIN space_entrance USING(space_id))
             ORDER BY e.rowid",
            params![identity.id.to_string(), self.workspace, ms(now)],
            |row| id(row, "acs_entrance_id"),
        )?;
        Ok(Ok(doors))
    }

    /// The devices that a person's live grants lead to, those of spaces included.
    pub(crate) fn devices_of_identity(
        &mut self,
        now: Timestamp,
        wanted: UserIdentityId,
    ) -> Result<Result<Vec<DeviceId>, Refused>, StoreError> {
        let Some(identity) = self.identity(wanted)? else {
            return Ok(Err(Refused::not_found(Resource::UserIdentity, wanted)));
        };
        let devices = self.db.all(
            "WITH live AS (
               SELECT access_grant_id FROM access_grant
               WHERE user_identity_id = ?1 AND workspace_id = ?2 AND deleted_at IS NULL
                 AND (ends_at IS NULL OR ends_at > ?3))
             SELECT d.device_id FROM device d
             WHERE d.workspace_id = ?2 AND d.removed_at IS NULL AND d.device_id IN (
               SELECT device_id FROM live JOIN grant_device USING(access_grant_id)
               UNION ALL SELECT device_id FROM live JOIN grant_space USING(access_grant_id)
               JOIN space_device USING(space_id))
             ORDER BY d.rowid",
            params![identity.id.to_string(), self.workspace, ms(now)],
            |row| id(row, "device_id"),
        )?;
        Ok(Ok(devices))
    }

    /// Digests differ between workspaces, so that nothing is learnt across them.
    fn digest(&self, column: &str, value: &str) -> [u8; 32] {
        self.db.seal.blind_index(&format!("user_identity.{column}/{}", self.workspace), value)
    }
}

impl Db {
    /// Erases some of the people who have had no access since before an instant, where there is one, and forgets ids
    /// that nothing speaks of any more. Says whether more may be left.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_people(&mut self, now: Timestamp, before: Option<Timestamp>) -> Result<bool, StoreError> {
        let looked_at = match before {
            None => 0,
            Some(before) => self.erase_idle_people(now, before)?,
        };
        let forgotten = self.execute(
            "DELETE FROM user_identity WHERE user_identity_id IN (
               SELECT user_identity_id FROM user_identity u WHERE erased_at IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM access_grant g WHERE g.user_identity_id = u.user_identity_id)
                 AND NOT EXISTS (SELECT 1 FROM acs_credential c WHERE c.user_identity_id = u.user_identity_id)
               LIMIT ?1)",
            [SLICE],
        )?;
        Ok(looked_at.max(forgotten) == SLICE as usize)
    }

    /// Looks at the next people in the order of their making, from the first again after the last. Says at how many.
    fn erase_idle_people(&mut self, now: Timestamp, before: Timestamp) -> Result<usize, StoreError> {
        let next = self.all(
            "SELECT u.rowid AS place, workspace_id, user_identity_id,
               erased_at IS NULL AND created_at < ?1
               AND NOT EXISTS (SELECT 1 FROM access_grant g WHERE g.user_identity_id = u.user_identity_id
                 AND (CASE WHEN deleted_at IS NULL THEN ends_at ELSE deleted_at END IS NULL
                   OR CASE WHEN deleted_at IS NULL THEN ends_at ELSE deleted_at END >= ?1))
               AND NOT EXISTS (SELECT 1 FROM acs_credential c WHERE c.user_identity_id = u.user_identity_id
                 AND (c.issued_at >= ?1 OR c.ends_at >= ?1)) AS is_idle
             FROM user_identity u WHERE u.rowid > ?2 ORDER BY u.rowid LIMIT ?3",
            params![ms(before), self.people_looked_at, SLICE],
            |row| {
                let person = (id::<WorkspaceId>(row, "workspace_id")?, id(row, "user_identity_id")?);
                Ok((row.get::<_, i64>("place")?, person, row.get::<_, bool>("is_idle")?))
            },
        )?;
        self.people_looked_at = match next.last() {
            Some((place, ..)) if next.len() == SLICE as usize => *place,
            _ => 0,
        };
        for (_, (workspace, identity), _) in next.iter().filter(|(.., is_idle)| *is_idle) {
            self.tenant(*workspace).erase_identity(now, *identity)?;
        }
        Ok(next.len())
    }
}

/// A person's row.
struct Sealed {
    id: UserIdentityId,
    person: Vec<u8>,
    created_at: Timestamp,
}

fn sealed(row: &Row<'_>) -> rusqlite::Result<Sealed> {
    Ok(Sealed {
        id: id(row, "user_identity_id")?,
        person: row.get("person")?,
        created_at: time(row, "created_at")?,
    })
}

pub(super) fn place(id: UserIdentityId) -> String {
    format!("user_identity.person/{id}")
}

fn key_place(id: UserIdentityId) -> String {
    format!("merged_identity.identity_key/{id}")
}
