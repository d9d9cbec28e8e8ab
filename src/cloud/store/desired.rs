//! What is desired of each site, handed out to its bridge: of every grant that leads there, the picture as it is now.
//!
//! The rows only say which pictures a bridge lacks; triggers mark what changed in the transaction that changes it, and
//! whoever looks next says which bridges that concerns. So a grant that changes a hundred times while its bridge is
//! away is told once, and a bridge that connects costs as much memory as a few pictures, however many there are.

use std::collections::BTreeSet;

use rusqlite::params;

use super::{
    Db,
    bridges::number,
    grants::{DOORS_OF_GRANT, window},
    rows::{id, parsed},
};
use crate::{
    grants::Mode,
    model::{
        AccessGrantId, AccessMethodId, AcsSystemId, BridgeId, DesiredCard, DesiredCardState, DesiredCode,
        DesiredDevice, DesiredDoors, DesiredGrant, Private, ReservationKey, SystemName, WorkspaceId,
    },
    protocol::{
        DESIRED_AHEAD, Desired, Position,
        stream::{self, Resume, Sent},
    },
    store::StoreError,
};

/// Grants that are looked at for their bridges at a time.
const SETTLED_AT_ONCE: u32 = 32;
/// Grants that are gone of which a bridge is told because it spoke of them, at a time.
const GONE: u32 = 10_000;
/// Pictures of one frame. An order waits for no more than these.
const TOLD_AT_ONCE: u64 = 16;
/// A frame ends with the picture that brings it to so many bytes. In a signed text they may become twice as many.
const FRAME_SIZE: usize = 64 * 1024;
/// A picture that is larger, of some thousand doors, is not told: it could not be made into a card either.
const LARGEST_PICTURE: usize = 128 * 1024;

/// The codes of grant `?1` that should be in devices, with these: `access_method_id`, `device_id`, `place` and `member`.
const CODES_OF_GRANT: &str =
    "SELECT m.access_method_id, m.rowid AS place, j.key AS member, j.value AS device_id
    FROM access_method m JOIN code_method k USING(access_method_id)
    CROSS JOIN json_each(CASE WHEN json_valid(k.device_ids) THEN k.device_ids ELSE '[]' END) j
    WHERE m.access_grant_id = ?1 AND k.deleted_at IS NULL AND k.has_ended = 0";

/// What a connection was told of what is desired, once its bridge has said what it holds.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last change that was sent, if the bridge has opened the stream.
    sent: Option<u64>,
    /// Whether the last frame said that nothing is left.
    complete: bool,
}

/// A turn of telling.
#[derive(Debug, Default)]
pub struct DesiredTurn {
    /// What is to be sent, once it is committed.
    pub frame: Option<Desired>,
    /// Whether to look again at once. Else the bridge is up to date, or has to acknowledge first.
    pub more: bool,
    /// Whether other bridges are to look as well.
    pub concerns_others: bool,
}

/// A row of a bridge that lacks a picture.
struct Lacking {
    grant: AccessGrantId,
    workspace: WorkspaceId,
    /// Its place, where it was handed out in this epoch before.
    n: Option<u64>,
    gone: bool,
}

impl Db {
    /// The bridge holds what is desired up to here; the first such word of a connection opens the stream. False when it
    /// cannot: that was never sent.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_acknowledged(
        &mut self,
        bridge: BridgeId,
        connection: u64,
        position: Position,
    ) -> Result<bool, StoreError> {
        let Some(told) = self.told_to(bridge, connection) else { return Ok(true) };
        let is_opening = told.sent.is_none();
        let sent = self.desired_sent(bridge)?;
        if !is_opening {
            if position > sent.last {
                return Ok(false);
            }
            self.desired_held(bridge, sent, position)?;
            return Ok(true);
        }
        let after = match stream::resume(&sent, position) {
            Resume::Continue { after } => {
                self.desired_held(bridge, sent, after)?;
                after.n
            }
            Resume::NewEpoch { epoch, .. } => {
                self.execute(
                    "UPDATE bridge SET desired_epoch = ?2, desired_last = 0, desired_acknowledged = 0 WHERE id = ?1",
                    params![bridge.to_string(), epoch.cast_signed()],
                )?;
                0
            }
        };
        if let Some(told) = self.told_to(bridge, connection) {
            *told = Told { sent: Some(after), complete: false };
        }
        Ok(true)
    }

    /// Hands out the next pictures that the bridge lacks, a few at a time; nothing to a connection that no longer speaks
    /// for it, or has not opened the stream.
    ///
    /// # Errors
    /// Those of the database.
    pub fn desired_to_send(&mut self, bridge: BridgeId, connection: u64) -> Result<DesiredTurn, StoreError> {
        let concerned = self.settle_desired(SETTLED_AT_ONCE)?;
        let concerns_others = concerned.iter().any(|one| *one != bridge);
        let nothing = DesiredTurn { frame: None, more: false, concerns_others };
        let Some(&mut Told { sent: Some(after), complete: was_complete }) = self.told_to(bridge, connection)
        else {
            return Ok(nothing);
        };
        let sent = self.desired_sent(bridge)?;
        let room = DESIRED_AHEAD.saturating_sub(after.saturating_sub(sent.acknowledged)).min(TOLD_AT_ONCE);
        if room == 0 {
            return Ok(nothing);
        }
        let lacking = self.lacking(bridge, sent.last.epoch, after, room)?;
        let may_lack_more = self.has_desired_changes()?;
        if lacking.is_empty() && (was_complete || may_lack_more) {
            return Ok(DesiredTurn { more: may_lack_more, ..nothing });
        }
        let frame = self.desired_frame(bridge, sent.last, after, lacking)?;
        let is_all = self.lacking(bridge, sent.last.epoch, frame.up_to.n, 1)?.is_empty();
        let complete = is_all && !may_lack_more;
        let up_to = match complete {
            // Places behind it are of pictures that have changed since, and were told by now.
            true => frame.up_to.max(sent.last),
            false => frame.up_to,
        };
        if let Some(told) = self.told_to(bridge, connection) {
            *told = Told { sent: Some(up_to.n), complete };
        }
        let frame = Some(Desired { up_to, complete, ..frame });
        Ok(DesiredTurn { frame, more: !complete, concerns_others })
    }

    /// Says of grants that changed which bridges they concern, and marks what these lack. Gives the bridges.
    pub(super) fn settle_desired(&mut self, most: u32) -> Result<BTreeSet<BridgeId>, StoreError> {
        let changed = self.all(
            "SELECT access_grant_id FROM desired_change ORDER BY access_grant_id LIMIT ?1",
            [most],
            |row| row.get::<_, String>(0),
        )?;
        let mut concerned = BTreeSet::new();
        for grant in changed {
            concerned.extend(self.settle_desired_of(&grant)?);
        }
        Ok(concerned)
    }

    /// The same of one grant.
    pub(super) fn settle_desired_of(&self, grant: &str) -> Result<Vec<BridgeId>, StoreError> {
        self.execute("UPDATE desired SET epoch = 0, n = 0, gone = 1 WHERE access_grant_id = ?1", [grant])?;
        self.execute(
            &format!(
                "INSERT INTO desired
                 SELECT DISTINCT s.bridge_id, g.access_grant_id, g.workspace_id, 0, 0, 0
                 FROM access_grant g JOIN acs_system s ON s.acs_system_id IN (
                     SELECT e.acs_system_id FROM ({DOORS_OF_GRANT}) JOIN acs_entrance e USING(acs_entrance_id)
                     UNION ALL
                     SELECT m.acs_system_id FROM access_method m
                     WHERE m.access_grant_id = ?1 AND m.mode = 'card'
                     UNION ALL
                     SELECT d.acs_system_id FROM ({CODES_OF_GRANT}) JOIN device d USING(device_id))
                 WHERE g.access_grant_id = ?1 AND g.deleted_at IS NULL
                 ON CONFLICT(bridge_id, access_grant_id) DO UPDATE SET gone = 0"
            ),
            [grant],
        )?;
        self.execute("DELETE FROM desired_change WHERE access_grant_id = ?1", [grant])?;
        self.all("SELECT bridge_id FROM desired WHERE access_grant_id = ?1", [grant], |row| {
            id(row, "bridge_id")
        })
    }

    /// Whether a grant leads to a bridge's site.
    pub(super) fn is_desired_of(&self, bridge: BridgeId, grant: AccessGrantId) -> Result<bool, StoreError> {
        self.settle_desired_of(&grant.to_string())?;
        let leads = self.one(
            "SELECT gone FROM desired WHERE bridge_id = ?1 AND access_grant_id = ?2",
            params![bridge.to_string(), grant.to_string()],
            |row| row.get::<_, bool>("gone"),
        )?;
        Ok(leads == Some(false))
    }

    /// The bridge speaks of a grant: it is told how that is, also if there is none. Of so many that are gone it hears no more
    /// before it has taken some of them in: it may name as many as it likes.
    pub(super) fn tell_desired(
        &self,
        bridge: BridgeId,
        workspace: WorkspaceId,
        grant: AccessGrantId,
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT OR IGNORE INTO desired SELECT ?1, ?2, ?3, 0, 0, 1
             WHERE (SELECT count(*) FROM (SELECT 1 FROM desired WHERE bridge_id = ?1 AND gone = 1 LIMIT ?4)) < ?4",
            params![bridge.to_string(), grant.to_string(), workspace.to_string(), GONE],
        )?;
        self.settle_desired_of(&grant.to_string()).map(drop)
    }

    /// A door came or went: every grant that leads there may look different.
    pub(super) fn note_door_changed(&self, door: uuid::Uuid) -> Result<(), StoreError> {
        self.execute(
            "INSERT OR IGNORE INTO desired_change
             SELECT access_grant_id FROM grant_entrance WHERE acs_entrance_id = ?1
             UNION ALL
             SELECT g.access_grant_id FROM space_entrance s CROSS JOIN grant_space g USING(space_id)
             WHERE s.acs_entrance_id = ?1",
            [door.to_string()],
        )?;
        Ok(())
    }

    pub(super) fn has_desired_changes(&self) -> Result<bool, StoreError> {
        let has =
            self.one("SELECT EXISTS (SELECT 1 FROM desired_change) AS has", [], |row| row.get("has"))?;
        Ok(has.unwrap_or(false))
    }

    fn desired_sent(&self, bridge: BridgeId) -> Result<Sent, StoreError> {
        let sent = self.one(
            "SELECT desired_epoch, desired_last, desired_acknowledged FROM bridge WHERE id = ?1",
            [bridge.to_string()],
            |row| {
                let last = Position { epoch: number(row, 0)?, n: number(row, 1)? };
                Ok(Sent { last, acknowledged: number(row, 2)? })
            },
        )?;
        sent.ok_or_else(|| StoreError::corrupt("bridge", "one that is connected is not there"))
    }

    /// The bridge holds all up to a position: what is gone need not be told any more.
    fn desired_held(&self, bridge: BridgeId, sent: Sent, held: Position) -> Result<(), StoreError> {
        if held.epoch != sent.last.epoch || held.n <= sent.acknowledged {
            return Ok(());
        }
        let (epoch, before, now) =
            (held.epoch.cast_signed(), sent.acknowledged.cast_signed(), held.n.cast_signed());
        self.execute(
            "DELETE FROM desired WHERE bridge_id = ?1 AND epoch = ?2 AND n > ?3 AND n <= ?4 AND gone = 1",
            params![bridge.to_string(), epoch, before, now],
        )?;
        self.execute(
            "UPDATE bridge SET desired_acknowledged = ?2 WHERE id = ?1",
            params![bridge.to_string(), now],
        )?;
        Ok(())
    }

    /// What a bridge lacks that holds all up to `after`, in the order in which it is told: first what was handed out in this
    /// epoch, then what was not.
    fn lacking(
        &self,
        bridge: BridgeId,
        epoch: u64,
        after: u64,
        most: u64,
    ) -> Result<Vec<Lacking>, StoreError> {
        let read = |row: &rusqlite::Row<'_>| {
            let n = number(row, 2)?;
            let is_handed = number(row, 4)? == epoch;
            Ok(Lacking {
                grant: id(row, "access_grant_id")?,
                workspace: id(row, "workspace_id")?,
                n: is_handed.then_some(n),
                gone: row.get("gone")?,
            })
        };
        let mut lacking = self.all(
            "SELECT access_grant_id, workspace_id, n, gone, epoch FROM desired
             WHERE bridge_id = ?1 AND epoch = ?2 AND n > ?3 ORDER BY n LIMIT ?4",
            params![bridge.to_string(), epoch.cast_signed(), after.cast_signed(), most.cast_signed()],
            read,
        )?;
        let left = most.saturating_sub(lacking.len() as u64);
        if left > 0 {
            lacking.extend(self.all(
                "SELECT access_grant_id, workspace_id, n, gone, epoch FROM desired
                 WHERE bridge_id = ?1 AND epoch < ?2 ORDER BY epoch, n LIMIT ?3",
                params![bridge.to_string(), epoch.cast_signed(), left.cast_signed()],
                read,
            )?);
        }
        Ok(lacking)
    }

    /// Makes the pictures that a bridge lacks, as many as one frame may hold, and gives them their places.
    fn desired_frame(
        &mut self,
        bridge: BridgeId,
        last: Position,
        after: u64,
        lacking: Vec<Lacking>,
    ) -> Result<Desired, StoreError> {
        let (mut grants, mut gone, mut size) = (Vec::new(), Vec::new(), 0);
        let (mut up_to, mut handed) = (after, last.n);
        for lacks in lacking {
            if size >= FRAME_SIZE {
                break;
            }
            let picture = match lacks.gone {
                true => None,
                false => self.picture(bridge, &lacks)?,
            };
            up_to = lacks.n.unwrap_or(handed + 1);
            handed = handed.max(up_to);
            if lacks.n.is_none() {
                self.execute(
                    "UPDATE desired SET epoch = ?3, n = ?4 WHERE bridge_id = ?1 AND access_grant_id = ?2",
                    params![
                        bridge.to_string(),
                        lacks.grant.to_string(),
                        last.epoch.cast_signed(),
                        up_to.cast_signed()
                    ],
                )?;
            }
            match picture {
                Some((picture, of_size)) => {
                    size += of_size;
                    grants.push(picture);
                }
                None => gone.push(lacks.grant),
            }
        }
        if handed > last.n {
            self.execute(
                "UPDATE bridge SET desired_last = ?2 WHERE id = ?1",
                params![bridge.to_string(), handed.cast_signed()],
            )?;
        }
        let up_to = Position { n: up_to, ..last };
        Ok(Desired { up_to, grants, gone, complete: false })
    }

    /// A grant as it is now, as far as it concerns a bridge, and how many bytes that takes.
    fn picture(
        &mut self,
        bridge: BridgeId,
        of: &Lacking,
    ) -> Result<Option<(DesiredGrant, usize)>, StoreError> {
        let grant = of.grant.to_string();
        let found = self.one(
            "SELECT user_identity_id, access_grant_key, reservation_key, starts_at, ends_at FROM access_grant
             WHERE access_grant_id = ?1 AND deleted_at IS NULL",
            [&grant],
            |row| {
                let reservation: Option<String> = row.get("reservation_key")?;
                Ok((
                    id(row, "user_identity_id")?,
                    row.get("access_grant_key")?,
                    reservation.and_then(|key| ReservationKey::new(key).ok()),
                    window(row)?,
                ))
            },
        )?;
        let Some((person, access_grant_key, reservation_key, window)) = found else { return Ok(None) };
        let person = self.tenant(of.workspace).identity(person)?;
        let doors = self.desired_doors(bridge, &grant)?;
        let picture = DesiredGrant {
            access_grant_id: of.grant,
            access_grant_key,
            reservation_key,
            guest_name: person.and_then(|identity| identity.person.full_name).map(Private::new),
            window,
            cards: self.desired_cards(bridge, of, &doors)?,
            codes: self.desired_codes(bridge, &grant)?,
            doors,
        };
        let size = serde_json::to_vec(&picture).map_or(usize::MAX, |text| text.len());
        if size > LARGEST_PICTURE {
            tracing::warn!(%bridge, %grant, size, "a grant of so many doors is not told to its site");
            return Ok(None);
        }
        Ok(Some((picture, size)))
    }

    fn desired_doors(&self, bridge: BridgeId, grant: &str) -> Result<Vec<DesiredDoors>, StoreError> {
        let mut doors: Vec<DesiredDoors> = Vec::new();
        let rows = self.all(
            &format!(
                "SELECT s.name AS system, e.name AS door
                 FROM ({DOORS_OF_GRANT}) d CROSS JOIN acs_entrance e USING(acs_entrance_id)
                 CROSS JOIN acs_system s USING(acs_system_id)
                 WHERE e.removed_at IS NULL AND s.bridge_id = ?2
                 ORDER BY s.name, e.kind <> 'room', d.part, d.place, d.member"
            ),
            params![grant, bridge.to_string()],
            |row| Ok((parsed::<SystemName>(row, "system")?, parsed(row, "door")?)),
        )?;
        for (system, door) in rows {
            match doors.last_mut().filter(|last| last.system == system) {
                // A space may lead to a door that is named as well.
                Some(last) if last.doors.contains(&door) => {}
                Some(last) => last.doors.push(door),
                None => doors.push(DesiredDoors { system, doors: vec![door] }),
            }
        }
        Ok(doors)
    }

    fn desired_codes(&self, bridge: BridgeId, grant: &str) -> Result<Vec<DesiredCode>, StoreError> {
        let mut codes: Vec<DesiredCode> = Vec::new();
        let rows = self.all(
            &format!(
                "SELECT c.access_method_id, s.name AS system, d.name AS device
                 FROM ({CODES_OF_GRANT}) c JOIN device d USING(device_id)
                 JOIN acs_system s ON s.acs_system_id = d.acs_system_id
                 WHERE s.bridge_id = ?2 ORDER BY c.place, c.member"
            ),
            params![grant, bridge.to_string()],
            |row| {
                let at = DesiredDevice { system: parsed(row, "system")?, device: parsed(row, "device")? };
                Ok((id::<AccessMethodId>(row, "access_method_id")?, at))
            },
        )?;
        for (access_method_id, at) in rows {
            match codes.last_mut().filter(|last| last.access_method_id == access_method_id) {
                Some(last) => last.devices.push(at),
                None => codes.push(DesiredCode { access_method_id, devices: vec![at], pin: None }),
            }
        }
        Ok(codes)
    }

    fn desired_cards(
        &mut self,
        bridge: BridgeId,
        of: &Lacking,
        doors: &[DesiredDoors],
    ) -> Result<Vec<DesiredCard>, StoreError> {
        let rows = self.all(
            "SELECT m.access_method_id, m.acs_system_id, s.name, coalesce(c.is_issued, 0) AS is_issued,
                    coalesce(c.in_doubt, 0) AS in_doubt,
                    EXISTS (SELECT 1 FROM action_attempt a
                            WHERE a.access_method_id = m.access_method_id AND a.status = 'pending') AS is_pending
             FROM access_method m CROSS JOIN acs_system s USING(acs_system_id)
             LEFT JOIN card_state c USING(access_method_id)
             WHERE m.access_grant_id = ?1 AND m.mode = ?2 AND s.bridge_id = ?3
               AND NOT EXISTS (SELECT 1 FROM code_method k WHERE k.access_method_id = m.access_method_id)
               AND NOT EXISTS (SELECT 1 FROM method_end e WHERE e.access_method_id = m.access_method_id)
             ORDER BY m.rowid",
            params![of.grant.to_string(), Mode::Card.as_str(), bridge.to_string()],
            |row| {
                let state = match (row.get("in_doubt")?, row.get("is_issued")?, row.get("is_pending")?) {
                    (true, _, _) => DesiredCardState::InDoubt,
                    (_, true, _) => DesiredCardState::Issued,
                    (_, _, true) => DesiredCardState::BeingEncoded,
                    _ => DesiredCardState::EncodingRequired,
                };
                let card = DesiredCard {
                    access_method_id: id(row, "access_method_id")?,
                    system: parsed(row, "name")?,
                    state,
                    why: None,
                };
                Ok((card, id::<AcsSystemId>(row, "acs_system_id")?))
            },
        )?;
        let mut cards = Vec::new();
        for (mut card, system) in rows {
            if card.state == DesiredCardState::EncodingRequired {
                card.why = match self.tenant(of.workspace).lost_room(of.grant, system)? {
                    Some(room) => Some(format!(
                        "the access system no longer has room {room}: a card written now would not open it"
                    )),
                    None if !doors.iter().any(|doors| doors.system == card.system) => {
                        Some("no door of the access grant is left in its access system".into())
                    }
                    None => None,
                };
            }
            if card.why.is_some() {
                card.state = DesiredCardState::NotReady;
            }
            cards.push(card);
        }
        Ok(cards)
    }
}
