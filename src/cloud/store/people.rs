//! People. What tells a person from another is sealed; a keyed digest finds it again.

use jiff::Timestamp;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::{
    grants::{Refused, Resource},
    model::UserIdentityId,
    store::StoreError,
};

use super::{
    Fault, Tenant,
    rows::{id, ms, time},
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
}

impl Person {
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
    ) -> Result<Result<Identity, Refused>, StoreError> {
        split(self.check_person(person).and_then(|()| Ok(self.add_person(now, person)?)))
    }

    /// Whether such a person may be added.
    pub(super) fn check_person(&self, person: &Person) -> Result<(), Fault> {
        let unique = person.unique();
        if person.full_name.is_none() && unique.iter().all(|(_, _, value)| value.is_none()) {
            return Err(Refused::IdentityNameless.into());
        }
        for (column, parameter, value) in unique {
            let Some(value) = value else { continue };
            let holder = self.db.one(
                &format!(
                    "SELECT user_identity_id FROM user_identity WHERE workspace_id = ?1 AND {column} = ?2"
                ),
                params![self.workspace, self.digest(column, &value)],
                |row| id::<UserIdentityId>(row, "user_identity_id"),
            )?;
            if let Some(holder) = holder {
                return Err(Fault::Refused(Refused::Taken {
                    resource: Resource::UserIdentity,
                    message: format!("This {parameter} belongs to user identity {holder}"),
                }));
            }
        }
        Ok(())
    }

    pub(super) fn add_person(&mut self, now: Timestamp, person: &Person) -> Result<Identity, StoreError> {
        let own = UserIdentityId(self.db.random.uuid());
        let plain =
            serde_json::to_vec(person).map_err(|error| StoreError::corrupt("user_identity.person", error))?;
        let sealed = self.db.seal.seal(&place(own), &plain);
        let [key, email, phone] =
            person.unique().map(|(column, _, value)| value.map(|value| self.digest(column, &value)));
        self.db.execute(
            "INSERT INTO user_identity VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![own.to_string(), self.workspace, sealed, key, email, phone, ms(now)],
        )?;
        Ok(Identity { id: own, created_at: now, person: person.clone() })
    }

    pub(super) fn identity(&self, wanted: UserIdentityId) -> Result<Option<Identity>, StoreError> {
        let row = self.db.one(
            "SELECT person, created_at FROM user_identity WHERE user_identity_id = ?1 AND workspace_id = ?2",
            params![wanted.to_string(), self.workspace],
            |row| Ok((row.get::<_, Vec<u8>>("person")?, time(row, "created_at")?)),
        )?;
        let Some((sealed, created_at)) = row else {
            return Ok(None);
        };
        let plain = self.db.seal.open(&place(wanted), &sealed)?;
        Ok(Some(Identity {
            id: wanted,
            created_at,
            person: serde_json::from_slice(&plain)
                .map_err(|error| StoreError::corrupt(place(wanted), error))?,
        }))
    }

    /// Digests differ between workspaces, so that nothing is learnt across them.
    fn digest(&self, column: &str, value: &str) -> [u8; 32] {
        self.db.seal.blind_index(&format!("user_identity.{column}/{}", self.workspace), value)
    }
}

pub(super) fn place(id: UserIdentityId) -> String {
    format!("user_identity.person/{id}")
}
