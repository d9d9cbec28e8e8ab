//! What the agent still has to say to the cloud: pure, bounded, in the order of importance.

use std::collections::VecDeque;

use crate::{
    model::{Inventory, JobId},
    protocol::{
        DESIRED_SINCE, Envelope, Frame, Limit, Message, Position, Progress, Stage, Status, StreamName,
    },
};

/// How many orders the cloud may have on the way to us, if so many have room to wait.
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
    /// What is held of what the cloud desires, where it is one to tell it; acknowledged likewise.
    desired: Option<Position>,
    desired_acknowledged: Option<Position>,
    /// How far the cloud knows that it may send orders, and how far it may.
    orders_announced: u64,
    orders_limit: u64,
    /// The last report handed to the connection, and how far the cloud lets us go.
    cursor: Position,
    reports_limit: u64,
    reports: VecDeque<(Position, Message)>,
    progress: VecDeque<Progress>,
}

impl Uplink {
    /// The cloud is told what we hold of its orders, and how far it may send them.
    pub(super) fn greets(&mut self, held: Position, orders_limit: u64) {
        if 0 < held.n {
            self.held(held);
        }
        self.orders_announced = orders_limit;
        self.orders_limit = orders_limit;
    }

    /// A connection stands; reports go on after `cursor`.
    pub(super) fn up(&mut self, connection: u64, cursor: Position, reports_limit: u64) {
        self.connection = Some(connection);
        self.refusal = None;
        self.cursor = cursor;
        self.reports_limit = reports_limit;
        self.acknowledged = None;
        (self.desired, self.desired_acknowledged) = (None, None);
        self.reports.clear();
    }

    /// This cloud tells what it desires: up to here that is durable.
    pub(super) fn desired_held(&mut self, position: Position) {
        self.desired = self.desired.max(Some(position));
    }

    /// A connection stands on which nothing can be said but why it has to begin again.
    pub(super) fn up_in_vain(&mut self, connection: u64, refusal: Frame) {
        self.up(connection, self.cursor, 0);
        self.refusal = Some(refusal);
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

    /// Whether a cloud is there that can read what is new in version 2.
    pub(super) fn speaks_second(&self) -> bool {
        self.connection.is_some() && self.desired.is_some()
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

    /// After which report the outbox should be read, if more may be sent now.
    pub(super) fn wants_reports_after(&self) -> Option<Position> {
        let may = self.connection.is_some() && self.reports.is_empty() && self.cursor.n < self.reports_limit;
        may.then_some(self.cursor)
    }

    /// Reports that the outbox gave after a position. Says whether they were of use: not if the conversation has
    /// moved on since it was asked.
    pub(super) fn reports(&mut self, after: Position, reports: Vec<(Position, Message)>) -> bool {
        if self.wants_reports_after() != Some(after) {
            return false;
        }
        let allowed = |(position, message): &(Position, Message)| {
            // What a cloud of an older version cannot read waits for a newer one, and so does all behind it.
            let is_understood = message.since() < DESIRED_SINCE || self.desired.is_some();
            position.epoch == after.epoch && position.n <= self.reports_limit && is_understood
        };
        self.reports = reports.into_iter().take_while(allowed).collect();
        true
    }

    /// Whether the cloud may soon need to know that it may send more orders.
    pub(super) fn wants_orders_limit(&self) -> bool {
        self.connection.is_some() && self.orders_left() <= ORDERS_WINDOW / 2
    }

    /// The cloud may send orders up to this number.
    pub(super) fn orders_limit(&mut self, up_to: u64) {
        self.orders_limit = self.orders_limit.max(up_to);
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
                || self.desired_due().is_some()
                || !self.progress.is_empty())
    }

    /// The next frame, with the connection it is meant for.
    pub(super) fn next(&mut self) -> Option<(u64, Frame)> {
        let connection = self.connection?;
        if let Some(refusal) = self.refusal.take() {
            // The last word.
            self.down();
            return Some((connection, refusal));
        }
        let frame = self.next_frame()?;
        Some((connection, frame))
    }

    fn next_frame(&mut self) -> Option<Frame> {
        if let Some(mut inventory) = self.inventory.take() {
            if self.desired.is_none() {
                // A cloud of version 1 would understand nothing of the list if it held a make that it does not know.
                inventory.systems.retain(|system| system.kind.is_of_version_1());
            }
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
        if let Some(position) = self.desired_due() {
            self.desired_acknowledged = Some(position);
            let message = Message::Acknowledgement { stream: StreamName::Desired, position };
            return Some(Frame::Envelope(Envelope::loose(&message)));
        }
        self.progress.pop_front().map(Frame::Progress)
    }

    fn acknowledgement_due(&self) -> Option<Position> {
        self.held.filter(|held| Some(*held) > self.acknowledged)
    }

    fn desired_due(&self) -> Option<Position> {
        self.desired.filter(|held| Some(*held) > self.desired_acknowledged)
    }

    /// In large steps while there is room, and in any step when the cloud is about to wait for it.
    fn limit_due(&self) -> Option<u64> {
        let more = self.orders_limit.checked_sub(self.orders_announced).filter(|more| 0 < *more)?;
        let is_due = ORDERS_WINDOW / 2 <= more || self.orders_left() <= ORDERS_WINDOW / 4;
        is_due.then_some(self.orders_limit)
    }

    /// How many orders the cloud may still send, as far as it knows.
    fn orders_left(&self) -> u64 {
        self.orders_announced.saturating_sub(self.held.map_or(0, |held| held.n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccessGrantId, GrantRevoked, SystemInventory, SystemKind, SystemName};

    fn at(n: u64) -> Position {
        Position { epoch: 1, n }
    }

    fn report(n: u64) -> (Position, Message) {
        (at(n), Message::Cancel { job_id: JobId(uuid::Uuid::from_u128(u128::from(n))), ordered: None })
    }

    fn up() -> Uplink {
        let mut uplink = Uplink::default();
        uplink.greets(at(0), ORDERS_WINDOW);
        uplink.up(1, at(0), 10);
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

    fn acknowledged(uplink: &mut Uplink) -> Vec<Position> {
        std::iter::from_fn(|| uplink.next())
            .filter_map(|(_, frame)| match frame {
                Frame::Envelope(envelope) => envelope.message().ok(),
                _ => None,
            })
            .filter_map(|message| match message {
                Message::Acknowledgement { stream: StreamName::Orders, position } => Some(position),
                _ => None,
            })
            .collect()
    }

    fn limits(uplink: &mut Uplink) -> Vec<u64> {
        std::iter::from_fn(|| uplink.next())
            .filter_map(|(_, frame)| match frame {
                Frame::Limit(limit) => Some(limit.up_to),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_cloud_of_version_1_hears_of_no_make_that_it_does_not_know() {
        let told = |of_version_2: bool| {
            let mut uplink = up();
            if of_version_2 {
                uplink.desired_held(at(0));
            }
            uplink.inventory(Inventory {
                systems: [SystemKind::SaltoIs, SystemKind::Visionline].map(system).into(),
            });
            let Some((_, Frame::Inventory(inventory))) = uplink.next() else { panic!("no inventory") };
            inventory.systems.iter().map(|system| system.kind).collect::<Vec<_>>()
        };
        assert_eq!(told(true), [SystemKind::SaltoIs, SystemKind::Visionline]);
        assert_eq!(told(false), [SystemKind::SaltoIs]);
    }

    fn system(kind: SystemKind) -> SystemInventory {
        SystemInventory {
            name: SystemName::new(kind.as_str()).unwrap(),
            kind,
            time_zone: "Europe/Oslo".into(),
            capabilities: crate::drivers::salto_is::SaltoIs::capabilities(crate::config::Dialect::Salto),
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: Vec::new(),
        }
    }

    #[test]
    fn a_report_read_twice_is_sent_once() {
        let mut uplink = up();
        assert!(uplink.reports(at(0), vec![report(1), report(2)]));
        assert!(!uplink.reports(at(0), vec![report(1), report(2), report(3)]));
        assert_eq!(positions(&mut uplink), [1, 2]);
        assert!(!uplink.reports(at(0), vec![report(1), report(2), report(3)]));
        assert!(uplink.reports(at(2), vec![report(3)]));
        assert_eq!(positions(&mut uplink), [3]);
        assert_eq!(uplink.wants_reports_after(), Some(at(3)));
    }

    #[test]
    fn reports_asked_for_on_an_older_connection_leave_no_gap_on_the_newer_one() {
        let mut uplink = up();
        assert!(uplink.reports(at(0), vec![report(1), report(2)]));
        assert_eq!(positions(&mut uplink), [1, 2]);
        uplink.down();
        uplink.up(2, at(1), 10);
        assert!(!uplink.reports(at(2), vec![report(3)]));
        assert!(uplink.reports(at(1), vec![report(2), report(3)]));
        assert_eq!(positions(&mut uplink), [2, 3]);
    }

    #[test]
    fn no_report_goes_beyond_the_clouds_limit_until_it_grows() {
        let mut uplink = up();
        assert!(uplink.reports(at(0), (1..=12).map(report).collect()));
        assert_eq!(positions(&mut uplink), (1..=10).collect::<Vec<_>>());
        assert_eq!(uplink.wants_reports_after(), None);
        uplink.allow_reports(12);
        assert!(uplink.reports(at(10), (11..=12).map(report).collect()));
        assert_eq!(positions(&mut uplink), [11, 12]);
    }

    #[test]
    fn what_an_older_cloud_cannot_read_waits_for_a_newer_one_with_all_behind_it() {
        let made = Message::GrantRevoked(GrantRevoked {
            at: jiff::Timestamp::UNIX_EPOCH,
            by: "Kari".into(),
            access_grant_id: AccessGrantId(uuid::Uuid::nil()),
        });
        let reports = || vec![report(1), (at(2), made.clone()), report(3)];
        let mut uplink = up();
        assert!(uplink.reports(at(0), reports()));
        assert_eq!(positions(&mut uplink), [1]);
        assert!(uplink.reports(at(1), reports().split_off(1)));
        assert_eq!(positions(&mut uplink), [] as [u64; 0]);
        uplink.up(2, at(1), 10);
        uplink.desired_held(at(0));
        assert!(uplink.reports(at(1), reports().split_off(1)));
        assert_eq!(positions(&mut uplink), [2, 3]);
    }

    #[test]
    fn only_the_newest_acknowledgement_is_sent_and_again_on_a_new_connection() {
        let mut uplink = up();
        uplink.held(at(4));
        uplink.held(at(9));
        uplink.held(at(7));
        assert_eq!(acknowledged(&mut uplink), [at(9)]);
        assert!(!uplink.has_next());
        uplink.up(2, at(0), 10);
        assert_eq!(acknowledged(&mut uplink), [at(9)]);
    }

    #[test]
    fn what_is_held_of_what_is_desired_is_said_once_on_each_connection_that_speaks_of_it() {
        let of_desired = |uplink: &mut Uplink| {
            let frames = std::iter::from_fn(|| uplink.next()).filter_map(|(_, frame)| match frame {
                Frame::Envelope(envelope) => envelope.message().ok(),
                _ => None,
            });
            let positions = frames.filter_map(|message| match message {
                Message::Acknowledgement { stream: StreamName::Desired, position } => Some(position),
                _ => None,
            });
            positions.collect::<Vec<_>>()
        };
        let mut uplink = up();
        assert_eq!(of_desired(&mut uplink), []);
        uplink.desired_held(at(0));
        assert_eq!(of_desired(&mut uplink), [at(0)]);
        uplink.desired_held(at(16));
        uplink.desired_held(at(32));
        assert_eq!(of_desired(&mut uplink), [at(32)]);
        uplink.up(2, at(0), 10);
        assert!(!uplink.has_next(), "a cloud of an older version");
        uplink.desired_held(at(32));
        assert_eq!(of_desired(&mut uplink), [at(32)]);
    }

    #[test]
    fn the_orders_limit_moves_in_half_windows() {
        let mut uplink = up();
        uplink.held(at(ORDERS_WINDOW / 4));
        assert!(!uplink.wants_orders_limit());
        uplink.orders_limit(ORDERS_WINDOW + ORDERS_WINDOW / 4);
        assert_eq!(limits(&mut uplink), [] as [u64; 0]);
        uplink.held(at(ORDERS_WINDOW / 2));
        assert!(uplink.wants_orders_limit());
        uplink.orders_limit(ORDERS_WINDOW + ORDERS_WINDOW / 2);
        assert_eq!(limits(&mut uplink), [ORDERS_WINDOW + ORDERS_WINDOW / 2]);
    }

    #[test]
    fn where_few_orders_have_room_each_that_goes_lets_the_cloud_send_another() {
        let mut uplink = Uplink::default();
        uplink.greets(at(7), 9);
        uplink.up(1, at(0), 10);
        uplink.held(at(9));
        assert!(uplink.wants_orders_limit());
        uplink.orders_limit(9);
        assert_eq!(limits(&mut uplink), [] as [u64; 0]);
        uplink.orders_limit(10);
        assert_eq!(limits(&mut uplink), [10]);
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
