//! What the agent still has to say to the cloud: pure, bounded, in the order of importance.

use std::collections::VecDeque;

use crate::{
    model::{Inventory, JobId},
    protocol::{Envelope, Frame, Limit, Message, Position, Progress, Stage, Status, StreamName},
};

/// How many orders the cloud may have on the way to us.
pub(super) const ORDERS_WINDOW: u64 = 256;
/// How many reports are taken from the outbox at once.
pub(super) const REPORTS_BATCH: usize = 64;
/// How many stages for screens are kept; the oldest go first.
const PROGRESS_KEPT: usize = 64;

/// The agent's side of the conversation, while there is one.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    connection: Option<u64>,
    refusal: Option<Frame>,
    inventory: Option<Inventory>,
    status: Option<Status>,
    /// The last order held; acknowledged when it is newer than what was.
    held: Option<Position>,
    acknowledged: Option<Position>,
    orders_announced: u64,
    /// The last report handed to the connection, and how far the cloud lets us go.
    cursor: Position,
    reports_limit: u64,
    reports: VecDeque<(Position, Message)>,
    reading: Option<Reading>,
    progress: VecDeque<Progress>,
}

/// The outbox is being read.
#[derive(Debug)]
struct Reading {
    after: Position,
    /// Something happened meanwhile that the answer may not know of.
    outdated: bool,
}

impl Uplink {
    /// A connection stands; reports go on after `cursor`.
    pub(super) fn up(
        &mut self,
        connection: u64,
        cursor: Position,
        reports_limit: u64,
        orders_announced: u64,
    ) {
        self.connection = Some(connection);
        self.refusal = None;
        self.cursor = cursor;
        self.reports_limit = reports_limit;
        self.orders_announced = orders_announced;
        self.acknowledged = None;
        self.reports.clear();
    }

    /// The connection is gone; what was durable stays so.
    pub(super) fn down(&mut self) {
        self.connection = None;
        self.reports.clear();
        self.progress.clear();
    }

    /// Which connection stands.
    pub(super) fn connection(&self) -> Option<u64> {
        self.connection
    }

    /// Orders up to here are durable.
    pub(super) fn held(&mut self, position: Position) {
        self.held = self.held.max(Some(position));
    }

    /// The cloud lets us send reports up to this number.
    pub(super) fn allow_reports(&mut self, up_to: u64) {
        self.reports_limit = self.reports_limit.max(up_to);
    }

    /// The site's picture, to be sent once per connection and change.
    pub(super) fn inventory(&mut self, inventory: Inventory) {
        self.inventory = Some(inventory);
    }

    /// The health's picture, likewise.
    pub(super) fn status(&mut self, status: Status) {
        self.status = Some(status);
    }

    /// Where a job stands.
    pub(super) fn progress(&mut self, job_id: JobId, stage: Stage) {
        if self.connection.is_none() {
            return;
        }
        if self.progress.len() == PROGRESS_KEPT {
            self.progress.pop_front();
        }
        self.progress.push_back(Progress { job_id, stage });
    }

    /// The conversation has to begin again.
    pub(super) fn refuse(&mut self, frame: Frame) {
        self.refusal = Some(frame);
    }

    /// There may be more in the outbox: after which report it is to be read now, if it is.
    pub(super) fn read_reports(&mut self) -> Option<Position> {
        if let Some(reading) = &mut self.reading {
            reading.outdated = true;
            return None;
        }
        let may = self.connection.is_some() && self.reports.is_empty() && self.cursor.n < self.reports_limit;
        let after = may.then_some(self.cursor)?;
        self.reading = Some(Reading { after, outdated: false });
        Some(after)
    }

    /// Whether the outbox is being read.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// What the outbox gave. Says whether there may be more in it by now.
    #[must_use]
    pub(super) fn reports(&mut self, reports: Vec<(Position, Message)>) -> bool {
        let Some(Reading { after, outdated }) = self.reading.take() else {
            return false;
        };
        if after != self.cursor {
            // Read for a connection that is gone: a gap could lie before it.
            return true;
        }
        for (position, message) in reports {
            let follows = position.epoch == self.cursor.epoch
                && position.n > self.reports.back().map_or(self.cursor.n, |(last, _)| last.n);
            if follows && position.n <= self.reports_limit {
                self.reports.push_back((position, message));
            }
        }
        outdated
    }

    /// The outbox could not be read.
    pub(super) fn reading_failed(&mut self) {
        self.reading = None;
    }

    /// Whether there is something to say and somebody to say it to.
    pub(super) fn has_next(&self) -> bool {
        self.connection.is_some()
            && (self.refusal.is_some()
                || self.inventory.is_some()
                || self.acknowledgement_due().is_some()
                || !self.reports.is_empty()
                || self.limit_due().is_some()
                || self.status.is_some()
                || !self.progress.is_empty())
    }

    /// The next frame, with the connection it is meant for.
    pub(super) fn next(&mut self) -> Option<(u64, Frame)> {
        let connection = self.connection?;
        let frame = self.next_frame()?;
        Some((connection, frame))
    }

    fn next_frame(&mut self) -> Option<Frame> {
        if let Some(refusal) = self.refusal.take() {
            return Some(refusal);
        }
        if let Some(inventory) = self.inventory.take() {
            return Some(Frame::Inventory(inventory));
        }
        if let Some(position) = self.acknowledgement_due() {
            self.acknowledged = Some(position);
            let message = Message::Acknowledgement { stream: StreamName::Orders, position };
            return Some(Frame::Envelope(Envelope::loose(&message)));
        }
        if let Some((position, message)) = self.reports.pop_front() {
            self.cursor = position;
            return Some(Frame::Envelope(Envelope::at(position, &message)));
        }
        if let Some(up_to) = self.limit_due() {
            self.orders_announced = up_to;
            return Some(Frame::Limit(Limit { stream: StreamName::Orders, up_to }));
        }
        if let Some(status) = self.status.take() {
            return Some(Frame::Status(status));
        }
        self.progress.pop_front().map(Frame::Progress)
    }

    fn acknowledgement_due(&self) -> Option<Position> {
        self.held.filter(|held| Some(*held) > self.acknowledged)
    }

    fn limit_due(&self) -> Option<u64> {
        let up_to = self.held?.n + ORDERS_WINDOW;
        (up_to >= self.orders_announced + ORDERS_WINDOW / 2).then_some(up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Position {
        Position { epoch: 1, n }
    }

    fn report(n: u64) -> (Position, Message) {
        (at(n), Message::Cancel { job_id: JobId(uuid::Uuid::from_u128(u128::from(n))) })
    }

    fn up() -> Uplink {
        let mut uplink = Uplink::default();
        uplink.up(1, at(0), 10, ORDERS_WINDOW);
        uplink
    }

    fn positions(uplink: &mut Uplink) -> Vec<u64> {
        std::iter::from_fn(|| uplink.next())
            .filter_map(|(_, frame)| match frame {
                Frame::Envelope(Envelope { position: Some(position), .. }) => Some(position.n),
                _ => None,
            })
            .collect()
    }

    /// Reads the outbox, which gives this; says whether it has to be read once more.
    fn read(uplink: &mut Uplink, reports: Vec<(Position, Message)>) -> bool {
        uplink.read_reports().expect("it may be read");
        uplink.reports(reports)
    }

    #[test]
    fn a_report_read_twice_is_sent_once() {
        let mut uplink = up();
        assert!(!read(&mut uplink, vec![report(1), report(2), report(1), report(2), report(3)]));
        assert_eq!(positions(&mut uplink), [1, 2, 3]);
        assert_eq!(uplink.read_reports(), Some(at(3)));
    }

    #[test]
    fn a_report_stored_while_the_outbox_is_read_is_read_next() {
        let mut uplink = up();
        assert_eq!(uplink.read_reports(), Some(at(0)));
        // A card was refused at once: its outcome is stored behind the reading that is under way.
        assert_eq!(uplink.read_reports(), None);
        assert!(uplink.reports(Vec::new()));
        assert!(!read(&mut uplink, vec![report(1)]));
        assert_eq!(positions(&mut uplink), [1]);
    }

    #[test]
    fn what_was_read_for_an_earlier_connection_is_read_anew() {
        let mut uplink = Uplink::default();
        uplink.up(1, at(5), 10, ORDERS_WINDOW);
        assert_eq!(uplink.read_reports(), Some(at(5)));
        uplink.down();
        uplink.up(2, at(3), 10, ORDERS_WINDOW);
        assert_eq!(uplink.read_reports(), None);
        assert!(uplink.reports(vec![report(6)]));
        assert!(!read(&mut uplink, vec![report(4), report(5), report(6)]));
        assert_eq!(positions(&mut uplink), [4, 5, 6]);
    }

    #[test]
    fn no_report_goes_beyond_the_clouds_limit_until_it_grows() {
        let mut uplink = up();
        assert!(!read(&mut uplink, (1..=12).map(report).collect()));
        assert_eq!(positions(&mut uplink), (1..=10).collect::<Vec<_>>());
        assert_eq!(uplink.read_reports(), None);
        uplink.allow_reports(12);
        assert!(!read(&mut uplink, (11..=12).map(report).collect()));
        assert_eq!(positions(&mut uplink), [11, 12]);
    }

    #[test]
    fn only_the_newest_acknowledgement_is_sent_and_again_on_a_new_connection() {
        let mut uplink = up();
        uplink.held(at(4));
        uplink.held(at(9));
        uplink.held(at(7));
        let acknowledgements = |uplink: &mut Uplink| {
            std::iter::from_fn(|| uplink.next())
                .filter_map(|(_, frame)| match frame {
                    Frame::Envelope(envelope) => envelope.message().ok(),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        let nine = Message::Acknowledgement { stream: StreamName::Orders, position: at(9) };
        assert_eq!(acknowledgements(&mut uplink), std::slice::from_ref(&nine));
        assert!(!uplink.has_next());
        uplink.up(2, at(0), 10, ORDERS_WINDOW);
        assert_eq!(acknowledgements(&mut uplink), [nine]);
    }

    #[test]
    fn the_orders_limit_moves_in_half_windows() {
        let mut uplink = up();
        uplink.held(at(10));
        let limits = |uplink: &mut Uplink| {
            std::iter::from_fn(|| uplink.next())
                .filter_map(|(_, frame)| match frame {
                    Frame::Limit(limit) => Some(limit.up_to),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(limits(&mut uplink), [] as [u64; 0]);
        uplink.held(at(ORDERS_WINDOW / 2));
        assert_eq!(limits(&mut uplink), [ORDERS_WINDOW + ORDERS_WINDOW / 2]);
    }

    #[test]
    fn without_a_connection_nothing_is_said_and_screens_miss_it() {
        let mut uplink = Uplink::default();
        uplink.progress(JobId(uuid::Uuid::nil()), Stage::Sent);
        uplink.held(at(1));
        assert!(!uplink.has_next());
        assert!(uplink.next().is_none());
    }
}
