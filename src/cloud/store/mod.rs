//! The cloud's database: what should be true, what was asked, what bridges reported.
//!
//! Synchronous and without threads; [`crate::store::Writer`] is the shell around it. Every row carries its
//! `workspace_id`, and what a caller may see is asked of a `Tenant`, which adds it to every query. People's names,
//! addresses, PINs and the requests that carry them are sealed.
//!
//! Desired and observed are different tables: `access_method` says what should be, `card_state` what became of it.

mod attempts;
mod bridges;
mod chips;
mod codes;
mod desired;
mod devices;
mod doors;
mod encode;
mod erasure;
mod events;
mod follow;
mod grants;
mod invalid;
mod keys;
mod local;
mod made;
mod people;
mod question;
mod reports;
mod restore;
mod retention;
mod rows;
mod scan;
mod sites;
mod spaces;
mod standing;
mod stays;
mod tenancy;
mod trust;
mod update;
mod webhooks;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row};

pub(crate) use attempts::{Attempt, AttemptState, Credential};
pub use bridges::{Cancel, JobEnd, Meeting, Standing, Taken};
pub use desired::DesiredTurn;
pub(crate) use devices::{DeviceFilter, DeviceRow, DeviceTrouble};
pub use erasure::Retention;
pub(crate) use events::{EventFilter, TimedEvent};
pub(crate) use grants::{
    CodeView, Grant, GrantChange, GrantCommand, GrantFilter, GrantName, IdentityRef, Method, MethodFilter,
    Requested,
};
pub(crate) use keys::{InstantKey, NoInstantKey};
pub(crate) use people::{Identity, IdentityFilter, IdentityName, Person, PersonChange};
pub use restore::Restored;
pub(crate) use scan::{Scan, ScanState, Scanned};
pub(crate) use sites::{Encoder, Entrance, EntranceFilter, System, SystemTrouble};
pub(crate) use spaces::{Members, NewSpace, Space, SpaceChange, SpaceFilter, SpaceName};
pub use standing::Unvouched;
pub(crate) use stays::{DeletedCard, StayEndTrouble};
pub use tenancy::{ApiKeyRow, Workspace};
pub use trust::{
    Acceptance, Admitting, Asked, Asking, BridgeKeys, BridgeRow, CloudKeyRow, Invitation, NotAdmitted,
    NotAnswered, NotInvited, NotRetired, OldKey, Paired, PairingRow, Revocation, Trust,
};
pub use webhooks::WebhookRow;
pub(crate) use webhooks::{Delivered, Delivery, Webhook};

use crate::{
    cloud::Signals,
    grants::Refused,
    model::{BridgeId, KeyTemplate, WorkspaceId},
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError},
};

/// The database's file name.
pub const FILE: &str = "cloud.db";

/// Schema steps; a released one is never edited.
const MIGRATIONS: &[&str] = &[
    concat!(include_str!("api.sql"), include_str!("bridges.sql")),
    include_str!("local.sql"),
    include_str!("job_end.sql"),
    include_str!("trust.sql"),
    include_str!("standing.sql"),
    include_str!("devices.sql"),
    include_str!("people.sql"),
    include_str!("scan.sql"),
    include_str!("codes.sql"),
    include_str!("webhooks.sql"),
    include_str!("lists.sql"),
    include_str!("erasure.sql"),
    include_str!("credentials.sql"),
    include_str!("follow.sql"),
    include_str!("stays.sql"),
    include_str!("desired.sql"),
    include_str!("facts.sql"),
    include_str!("doors.sql"),
    include_str!("invalid.sql"),
    include_str!("settled.sql"),
    include_str!("desk_codes.sql"),
    include_str!("stay_told.sql"),
    include_str!("new_memory.sql"),
    include_str!("chips.sql"),
];

/// The cloud's database.
#[derive(Debug)]
pub struct Db {
    connection: Connection,
    seal: SealKey,
    random: Random,
    /// Who is connected in this process; never in a row, so that it cannot outlive the process.
    live: BTreeMap<BridgeId, bridges::Live>,
    /// Nothing new is ordered.
    disk_is_full: bool,
    /// Orders were made that nobody has told the hub of.
    has_ordered: bool,
    /// Where mobile keys are handed out.
    key_template: Option<KeyTemplate>,
    /// Woken when webhooks are owed something.
    signals: Option<Signals>,
    /// As far as people were looked at who may have to be forgotten.
    people_looked_at: i64,
    retention: Retention,
    /// As far as codes were taken out of grants that are over: an end, and a row.
    codes_forgotten: (i64, i64),
}

impl Store for Db {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn disk_is_full(&mut self, full: bool) {
        self.disk_is_full = full;
    }

    /// What was forgotten on the way has to be forgotten again.
    fn undone(&mut self) {
        self.people_looked_at = 0;
        self.codes_forgotten = (i64::MIN, i64::MIN);
    }
}

impl Db {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// See [`crate::store::open`].
    pub fn open(storage: &Storage, seal: SealKey, random: Random) -> Result<Self, StoreError> {
        Ok(Self::around(crate::store::open(storage, FILE, MIGRATIONS)?, seal, random))
    }

    /// The key under which places in lists are hidden: the same as long as the database is sealed with the same key.
    pub(crate) fn cursor_key(&self) -> [u8; 32] {
        self.seal.blind_index("page_cursor", "")
    }

    fn around(connection: Connection, seal: SealKey, random: Random) -> Self {
        Self {
            connection,
            seal,
            random,
            live: BTreeMap::new(),
            disk_is_full: false,
            has_ordered: false,
            key_template: None,
            signals: None,
            people_looked_at: 0,
            retention: Retention::default(),
            codes_forgotten: (i64::MIN, i64::MIN),
        }
    }

    /// The database as one workspace may see it.
    pub(crate) fn tenant(&mut self, workspace: WorkspaceId) -> Tenant<'_> {
        Tenant { workspace: workspace.to_string(), id: workspace, db: self }
    }

    fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(sql, params, read)?.into_iter().next())
    }
}

/// The database as one workspace may see it.
pub(crate) struct Tenant<'a> {
    db: &'a mut Db,
    id: WorkspaceId,
    /// As rows carry it.
    workspace: String,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    /// How many at most.
    pub(crate) limit: u32,
    /// What follows this place.
    pub(crate) after: i64,
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) rows: Vec<T>,
    /// The place after which more follows.
    pub(crate) next: Option<i64>,
}

impl<T> Listed<T> {
    /// The same list of what each of its rows stands for.
    fn try_map<U, E>(self, each: impl FnMut(T) -> Result<U, E>) -> Result<Listed<U>, E> {
        let rows = self.rows.into_iter().map(each).collect::<Result<_, E>>()?;
        Ok(Listed { rows, next: self.next })
    }

    /// From rows with their places, asked for with one more than the limit.
    fn cut(mut rows: Vec<(i64, T)>, page: Page) -> Self {
        let limit = page.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self {
            next: rows.last().filter(|_| more).map(|(place, _)| *place),
            rows: rows.into_iter().map(|(_, row)| row).collect(),
        }
    }
}

/// Refused by rule, or the store failed.
enum Fault {
    Refused(Refused),
    Store(StoreError),
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A refusal writes nothing of what was asked, so it may commit: every rule is checked before the first row of it is
/// written. What had to follow an earlier change anyway may have followed.
fn split<T>(result: Result<T, Fault>) -> Result<Result<T, Refused>, StoreError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Refused(refused)) => Ok(Err(refused)),
        Err(Fault::Store(error)) => Err(error),
    }
}

/// What [`Db::end_overdue`] did and when to call it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// Whether anything that is shown has changed.
    pub changed: bool,
    /// Whether there is more to tell to bridges.
    pub concerns_bridges: bool,
    /// The next deadline.
    pub next: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
