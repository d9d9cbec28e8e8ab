//! Lanes that a person has paused. It holds until somebody takes it back, restarts included.

use jiff::Timestamp;
use rusqlite::params;

use super::{Queue, store::instant};
use crate::{model::LaneName, store::StoreError};

/// A lane that gets no work because a person said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanePause {
    /// Which.
    pub lane: LaneName,
    /// Since when.
    pub since: Timestamp,
    /// Who said so.
    pub by: String,
}

impl Queue {
    /// Gives a lane no more work. One that is paused stays so, with its first date and name. Says whether it is new.
    ///
    /// # Errors
    /// Those of the database.
    pub fn pause_lane(&mut self, now: Timestamp, lane: &LaneName, by: &str) -> Result<bool, StoreError> {
        let sealed = self.sealed(&place(lane), &by);
        let rows = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO lane_pause(lane, since, by) VALUES (?1, ?2, ?3)")?
            .execute(params![lane.as_str(), now.as_millisecond(), sealed])?;
        if rows > 0 {
            self.audit_line(now, "lane_paused", None, &format!("{lane} by {by}"))?;
        }
        Ok(rows > 0)
    }

    /// Lets a lane work again. Says whether it was paused.
    ///
    /// # Errors
    /// Those of the database.
    pub fn resume_lane(&mut self, now: Timestamp, lane: &LaneName, by: &str) -> Result<bool, StoreError> {
        let rows = self
            .connection
            .prepare_cached("DELETE FROM lane_pause WHERE lane = ?1")?
            .execute([lane.as_str()])?;
        if rows > 0 {
            self.audit_line(now, "lane_resumed", None, &format!("{lane} by {by}"))?;
        }
        Ok(rows > 0)
    }

    /// The lanes that are paused, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn paused_lanes(&self) -> Result<Vec<LanePause>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT lane, since, by FROM lane_pause ORDER BY lane")?;
        let mut rows = statement.query([])?;
        let mut pauses = Vec::new();
        while let Some(row) = rows.next()? {
            let lane = LaneName::new(row.get::<_, String>(0)?)
                .map_err(|error| StoreError::corrupt("lane_pause", error))?;
            let sealed: Vec<u8> = row.get(2)?;
            let by = self.unseal(&place(&lane), &sealed)?;
            let since = instant(row.get(1)?).ok_or_else(|| StoreError::corrupt(place(&lane), "its time"))?;
            pauses.push(LanePause { lane, since, by });
        }
        Ok(pauses)
    }
}

fn place(lane: &LaneName) -> String {
    format!("lane_pause.by/{lane}")
}
