//! The ledger of a bridge that this one takes the place of, as its cloud remembers it.

use jiff::Timestamp;

use super::{
    Queue,
    ledger::{PRINTED_ENDS, Room},
};
use crate::{model::JobId, protocol::enrol::LedgerCopy, store::StoreError};

/// What came of a ledger's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Rooms whose state was taken over.
    pub rooms: u64,
    /// Those of them whose state is not certain.
    pub uncertain: u64,
    /// Rooms that this queue knew already: its own memory counts.
    pub kept: u64,
}

impl Queue {
    /// Takes over what a cloud remembers of rooms that this queue knows nothing of. A room is certain only if the cloud's
    /// word about it was, and somebody vouches that the old bridge did nothing since. The same copy twice is the same
    /// as once.
    ///
    /// # Errors
    /// Those of the database.
    pub fn import_ledger(&mut self, now: Timestamp, copy: &LedgerCopy) -> Result<Imported, StoreError> {
        let mut imported = Imported::default();
        for state in &copy.rooms {
            if self.room(&state.system, &state.room)?.is_some() {
                imported.kept += 1;
                continue;
            }
            let room = Room {
                holder: state.reservation_key.clone(),
                certain: copy.is_current && state.certain,
                cards: state.cards,
                // The latest, if there are more than are kept.
                printed_ends: state.printed_ends[state.printed_ends.len().saturating_sub(PRINTED_ENDS)..]
                    .to_vec(),
                ..Room::unseen(state.since)
            };
            self.put_room(&state.system, &state.room, &room)?;
            if let Some(key) = &state.reservation_key {
                // No job of ours began it.
                let begun_by = JobId(self.random.uuid());
                self.put_stay(&state.system, &state.room, key, begun_by)?;
            }
            imported.rooms += 1;
            imported.uncertain += u64::from(!room.certain);
        }
        let Imported { rooms, uncertain, kept } = imported;
        let detail = format!(
            "the state of {rooms} rooms was taken over from the cloud's copy, {uncertain} of them uncertain; {kept} \
             rooms were known here already and stay as they are"
        );
        self.audit_line(now, "ledger_imported", None, &detail)?;
        Ok(imported)
    }
}
