use uuid::Uuid;

use super::*;
use crate::{
    cloud::store::BridgeKeys,
    model::{Order, Outcome, Priority, SystemName},
    protocol::SigningKey,
    seal::SealKey,
    seams::{Random, Storage},
};

struct Cloud {
    db: Db,
    bridge: BridgeId,
    connection: u64,
    folder: tempfile::TempDir,
}

impl Cloud {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(folder.path());
        let bridge = db.the_bridge(at(0), WorkspaceId(Uuid::from_u128(1))).unwrap();
        Self { db, bridge, connection: 0, folder }
    }

    fn meet(&mut self, orders_received: Position, orders_limit: u64) -> Meeting {
        self.meet_with(&memory(orders_received, orders_limit))
    }

    fn meet_with(&mut self, memory: &Memory) -> Meeting {
        self.connection += 1;
        self.db.meet(at(1), self.bridge, self.connection, memory).unwrap()
    }

    fn order(&mut self, number: u128) {
        self.db.enqueue_job(at(1), self.bridge, &job(number)).unwrap();
    }

    fn cancel(&mut self, number: u128) -> Cancel {
        self.db.enqueue_cancel(at(1), self.bridge, id(number)).unwrap()
    }

    /// Position and job of what is sent; a cancel shows as a negative number.
    fn sent(&mut self, after: u64) -> Vec<((u64, u64), i128)> {
        let orders = self.db.orders_to_send(self.bridge, self.connection, after, 100).unwrap().unwrap();
        orders
            .iter()
            .map(|envelope| {
                let position = envelope.position.unwrap();
                let what = match envelope.message().unwrap() {
                    Message::Job(job) => i128::try_from(job.job_id.0.as_u128()).unwrap(),
                    Message::Cancel { job_id, .. } => -i128::try_from(job_id.0.as_u128()).unwrap(),
                    other => panic!("{other:?}"),
                };
                ((position.epoch, position.n), what)
            })
            .collect()
    }

    fn acknowledge(&mut self, epoch: u64, n: u64) -> bool {
        self.db.orders_acknowledged(self.bridge, self.connection, Position { epoch, n }).unwrap()
    }

    fn report(&mut self, epoch: u64, n: u64, number: u128) -> Taken {
        let report = Report {
            job_id: id(number),
            revision: 1,
            at: at(2),
            outcome: Outcome::Cancelled,
            resolution: None,
            rooms: Vec::new(),
            local: None,
        };
        self.db.take_report(at(2), self.bridge, self.connection, Position { epoch, n }, &report).unwrap()
    }

    fn standing(&mut self, number: u128) -> Option<Standing> {
        self.db.standing(id(number)).unwrap()
    }
}

fn open(folder: &std::path::Path) -> Db {
    let seal = SealKey::new([7; 32], Random::seeded(1));
    Db::open(&Storage::folder(folder), seal, Random::seeded(2)).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn id(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

fn job(number: u128) -> Job {
    Job {
        job_id: id(number),
        system: SystemName::new("salto").unwrap(),
        priority: Priority::Desk,
        created_at: at(1),
        expires_at: at(600),
        order: Order::InventoryRefresh,
    }
}

fn memory(orders_received: Position, orders_limit: u64) -> Memory {
    Memory {
        orders_received,
        reports_sent: Position::default(),
        reports_acknowledged: Position::default(),
        orders_limit,
    }
}

fn position(epoch: u64, n: u64) -> Position {
    Position { epoch, n }
}

#[test]
fn a_workspace_has_one_bridge_and_whoever_has_its_keys_is_it() {
    let mut cloud = Cloud::new();
    let workspace = WorkspaceId(Uuid::from_u128(1));
    assert_eq!(cloud.db.the_bridge(at(9), workspace).unwrap(), cloud.bridge);
    assert!(cloud.db.bridge_by_certificate(at(9), [1; 32]).unwrap().is_none());
    let keys = |tls, signing| BridgeKeys {
        tls: [tls; 32],
        signing: SigningKey::from_seed(&[signing; 32]).public(),
        expires_at: at(99),
    };
    cloud.db.admit(at(9), cloud.bridge, &keys(1, 1)).unwrap();
    let paired = cloud.db.bridge_by_certificate(at(9), [1; 32]).unwrap().unwrap();
    assert_eq!((paired.bridge, paired.workspace), (cloud.bridge, workspace));
    assert_eq!(paired.key, SigningKey::from_seed(&[1; 32]).public());
    cloud.db.admit(at(9), cloud.bridge, &keys(2, 2)).unwrap();
    for tls in [1, 2] {
        let paired = cloud.db.bridge_by_certificate(at(9), [tls; 32]).unwrap().unwrap();
        assert_eq!(
            paired.key,
            SigningKey::from_seed(&[tls; 32]).public(),
            "each certificate with its own key"
        );
    }
    assert!(cloud.db.admit(at(9), cloud.bridge, &keys(1, 3)).is_err(), "a key is one bridge's");
}

#[test]
fn an_order_made_while_connected_is_handed_out_in_the_same_commit() {
    let mut cloud = Cloud::new();
    cloud.order(1);
    assert_eq!(cloud.standing(1), Some(Standing::Waiting));
    assert!(!cloud.db.was_handed(id(1)).unwrap());
    cloud.meet(Position::default(), 100);
    assert_eq!(cloud.sent(0), [((1, 1), 1)]);
    assert!(cloud.db.was_handed(id(1)).unwrap());
    cloud.order(2);
    assert!(cloud.db.was_handed(id(2)).unwrap());
    assert_eq!(cloud.sent(1), [((1, 2), 2)]);
    assert!(cloud.acknowledge(1, 2));
    assert_eq!(cloud.standing(2), Some(Standing::Acknowledged));
    assert!(!cloud.acknowledge(1, 3), "never sent");
}

#[test]
fn the_same_job_is_ordered_once() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    cloud.order(1);
    cloud.order(1);
    assert_eq!(cloud.sent(0), [((1, 1), 1)]);
}

#[test]
fn orders_wait_for_the_limit_of_the_bridge() {
    let mut cloud = Cloud::new();
    for number in 1..=5 {
        cloud.order(number);
    }
    cloud.meet(Position::default(), 2);
    assert_eq!(cloud.sent(0), [((1, 1), 1), ((1, 2), 2)]);
    cloud.order(6);
    assert_eq!(cloud.standing(6), Some(Standing::Waiting));
    cloud.db.limit_orders(cloud.bridge, cloud.connection, 4);
    cloud.db.limit_orders(cloud.bridge, cloud.connection, 3);
    assert_eq!(cloud.sent(2), [((1, 3), 3), ((1, 4), 4)]);
    // A bridge that comes back with less room gets less, even of what was handed out before.
    cloud.meet(position(1, 2), 3);
    assert_eq!(cloud.sent(2), [((1, 3), 3)]);
}

#[test]
fn what_was_not_received_is_sent_again_and_what_was_is_not() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    for number in 1..=3 {
        cloud.order(number);
    }
    let meeting = cloud.meet(position(1, 2), 100);
    assert_eq!(meeting.orders_resume_after, position(1, 2));
    assert_eq!(cloud.sent(2), [((1, 3), 3)]);
    assert_eq!(cloud.standing(2), Some(Standing::Acknowledged));
}

#[test]
fn a_cancel_withdraws_what_nobody_knows_of_and_follows_what_somebody_may() {
    let mut cloud = Cloud::new();
    cloud.order(1);
    assert_eq!(cloud.cancel(1), Cancel::Withdrawn);
    assert_eq!(cloud.standing(1), Some(Standing::Over));
    cloud.meet(Position::default(), 100);
    cloud.order(2);
    assert_eq!(cloud.cancel(2), Cancel::Ordered);
    assert_eq!(cloud.sent(0), [((1, 1), 2), ((1, 2), -2)]);
    assert_eq!(cloud.report(1, 1, 2), Taken::Applied);
    assert_eq!(cloud.cancel(2), Cancel::TooLate);
    assert_eq!(cloud.cancel(9), Cancel::TooLate);
}

#[test]
fn a_cancel_overtakes_a_job_that_the_bridge_does_not_hold_yet() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    for number in 1..=3 {
        cloud.order(number);
    }
    assert_eq!(cloud.cancel(1), Cancel::Ordered);
    assert_eq!(cloud.cancel(2), Cancel::Ordered);
    cloud.db.part(at(2), cloud.bridge, cloud.connection).unwrap();
    assert_eq!(cloud.cancel(3), Cancel::Ordered);
    // It held the first job when the line broke.
    cloud.meet(position(1, 1), 100);
    assert_eq!(cloud.sent(1), [((1, 2), -2), ((1, 3), -3), ((1, 4), -1), ((1, 5), 2), ((1, 6), 3)]);
    cloud.meet(position(1, 1), 100);
    assert_eq!(cloud.sent(1), [((1, 2), -2), ((1, 3), -3), ((1, 4), -1), ((1, 5), 2), ((1, 6), 3)]);
    // A new epoch keeps that order.
    cloud.meet(position(1, 9), 100);
    assert_eq!(
        cloud.sent(0),
        [((2, 1), -1), ((2, 2), -2), ((2, 3), -3), ((2, 4), 1), ((2, 5), 2), ((2, 6), 3)]
    );
}

#[test]
fn a_job_whose_end_is_known_is_not_ordered_again_of_a_bridge_that_was_set_back() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    cloud.order(1);
    cloud.order(2);
    cloud.acknowledge(1, 1);
    cloud.report(1, 1, 2);
    cloud.meet(position(1, 1), 100);
    assert_eq!(cloud.sent(1), [((1, 2), -2)]);
}

#[test]
fn a_bridge_that_lost_its_memory_gets_nothing_twice() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 3);
    for number in 1..=4 {
        cloud.order(number);
    }
    cloud.sent(0);
    cloud.acknowledge(1, 2);
    cloud.report(1, 1, 1);
    let meeting = cloud.meet(Position::default(), 100);
    assert_eq!(meeting.orders_epoch_reason, Some(EpochReason::ReceiverBehind));
    assert_eq!(meeting.orders_resume_after, position(2, 0));
    // 1 was over; 2 had been acknowledged, 3 only handed out; 4 had never left.
    assert_eq!(meeting.lost, [id(2), id(3)]);
    assert_eq!(cloud.sent(0), [((2, 1), 4)]);
    assert_eq!(cloud.standing(3), Some(Standing::Over));
    // The new epoch holds even if nothing of it arrives before the next meeting.
    let again = cloud.meet(Position::default(), 100);
    assert_eq!((again.orders_epoch_reason, again.lost), (None, Vec::new()));
    assert_eq!(cloud.sent(0), [((2, 1), 4)]);
}

#[test]
fn a_cloud_that_lost_its_memory_sends_what_is_unfinished_again_under_a_new_epoch() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    for number in 1..=3 {
        cloud.order(number);
    }
    cloud.acknowledge(1, 3);
    cloud.report(1, 1, 2);
    // The bridge holds an order that this cloud does not remember.
    let meeting = cloud.meet(position(1, 7), 100);
    assert_eq!(meeting.orders_epoch_reason, Some(EpochReason::SenderBehind));
    assert_eq!(meeting.lost, []);
    assert_eq!(cloud.sent(0), [((2, 1), 1), ((2, 2), 3)]);
    assert!(cloud.db.was_handed(id(1)).unwrap());
}

#[test]
fn an_epoch_that_has_handed_out_nothing_yet_still_knows_what_an_earlier_one_did() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    cloud.order(1);
    cloud.acknowledge(1, 1);
    assert_eq!(cloud.meet(position(1, 7), 100).orders_epoch_reason, Some(EpochReason::SenderBehind));
    // Before anything of it arrives somebody empties the site's memory, and tells nobody.
    let meeting = cloud.meet(Position::default(), 100);
    assert_eq!(meeting.orders_epoch_reason, Some(EpochReason::ReceiverBehind));
    assert_eq!(meeting.lost, [id(1)]);
    assert_eq!(cloud.sent(0), []);
}

#[test]
fn a_cloud_that_forgot_outcomes_asks_for_them_again_though_the_orders_agree() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    cloud.order(1);
    cloud.order(2);
    cloud.report(1, 1, 1);
    // The bridge had been told that its second report is held here, of job 2.
    let mut memory = memory(position(1, 2), 100);
    memory.reports_acknowledged = position(1, 2);
    let meeting = cloud.meet_with(&memory);
    assert_eq!(meeting.orders_epoch_reason, Some(EpochReason::SenderBehind));
    assert_eq!(cloud.sent(0), [((2, 1), 2)]);
    memory.reports_acknowledged = position(1, 1);
    memory.orders_received = position(2, 1);
    assert_eq!(cloud.meet_with(&memory).orders_epoch_reason, None);
}

#[test]
fn reports_are_taken_in_order_once_and_a_gap_is_named() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    assert_eq!(cloud.report(1, 1, 1), Taken::Applied);
    assert_eq!(cloud.report(1, 1, 1), Taken::Held);
    assert_eq!(cloud.report(1, 3, 3), Taken::Gap { expected: position(1, 2) });
    assert_eq!(cloud.report(2, 1, 3), Taken::Applied);
    assert_eq!(cloud.meet(Position::default(), 100).reports_received, position(2, 1));
}

#[test]
fn a_bridge_ends_no_order_of_another_bridge() {
    let mut cloud = Cloud::new();
    cloud.order(1);
    let other = cloud.db.the_bridge(at(1), WorkspaceId(Uuid::from_u128(2))).unwrap();
    let first = std::mem::replace(&mut cloud.bridge, other);
    assert_ne!(first, other);
    cloud.meet(Position::default(), 100);
    assert_eq!(cloud.sent(0), []);
    cloud.report(1, 1, 1);
    assert_eq!(cloud.standing(1), Some(Standing::Waiting));
}

#[test]
fn an_older_connection_changes_nothing_any_more() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 0);
    let older = cloud.connection;
    cloud.order(1);
    cloud.meet(Position::default(), 0);
    cloud.db.limit_orders(cloud.bridge, older, 100);
    assert_eq!(cloud.db.orders_to_send(cloud.bridge, older, 0, 10).unwrap(), None);
    assert_eq!(cloud.standing(1), Some(Standing::Waiting));
    cloud.db.part(at(3), cloud.bridge, older).unwrap();
    let newer = std::mem::replace(&mut cloud.connection, older);
    assert_eq!(cloud.report(1, 1, 1), Taken::Fenced);
    cloud.connection = newer;
    cloud.db.limit_orders(cloud.bridge, newer, 100);
    assert_eq!(cloud.sent(0), [((1, 1), 1)]);
    cloud.connection = older;
    assert!(cloud.acknowledge(1, 1));
    assert_eq!(cloud.standing(1), Some(Standing::Handed));
}

#[test]
fn a_cloud_that_was_started_again_hands_nothing_to_connections_of_its_former_life() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    cloud.order(1);
    cloud.db = open(cloud.folder.path());
    cloud.order(2);
    assert_eq!(cloud.standing(1), Some(Standing::Handed));
    assert_eq!(cloud.standing(2), Some(Standing::Waiting));
    cloud.meet(Position::default(), 100);
    assert_eq!(cloud.sent(0), [((1, 1), 1), ((1, 2), 2)]);
}

#[test]
fn orders_are_forgotten_a_week_after_their_end_but_never_before_they_were_acknowledged() {
    let mut cloud = Cloud::new();
    cloud.meet(Position::default(), 100);
    cloud.order(1);
    cloud.order(2);
    cloud.acknowledge(1, 1);
    cloud.report(1, 1, 1);
    cloud.report(1, 2, 2);
    let week = 7 * 24 * 3600;
    cloud.db.forget(at(week)).unwrap();
    assert_eq!(cloud.standing(1), Some(Standing::Over));
    cloud.db.forget(at(week + 3)).unwrap();
    assert_eq!(cloud.standing(1), None);
    assert_eq!(cloud.standing(2), Some(Standing::Over));
    assert_eq!(cloud.sent(1).first(), Some(&((1, 2), -2)));
}

#[test]
fn the_body_of_an_order_is_sealed() {
    let mut cloud = Cloud::new();
    let mut secret = job(1);
    secret.order = Order::DeviceUnlock { device: crate::model::DeviceName::new("Marlowe").unwrap() };
    cloud.db.enqueue_job(at(1), cloud.bridge, &secret).unwrap();
    let body: Vec<u8> =
        cloud.db.connection.query_row("SELECT body FROM bridge_order", [], |row| row.get(0)).unwrap();
    assert!(!body.windows(7).any(|part| part == b"Marlowe"));
}

#[test]
fn a_bridge_that_says_it_was_set_back_is_sent_nothing_again_though_it_acknowledged_nothing() {
    let mut cloud = Cloud::new();
    cloud.meet(position(0, 0), 1);
    cloud.order(1);
    cloud.order(2);
    assert_eq!(cloud.sent(0), [((1, 1), 1)]);
    let meeting = cloud.meet(Position::LOST, 10);
    assert_eq!(meeting.lost, [id(1)]);
    assert_eq!(meeting.orders_epoch_reason, Some(EpochReason::ReceiverBehind));
    assert_eq!(cloud.sent(0), [((2, 1), 2)]);
}

#[test]
fn a_database_that_was_set_back_orders_again_what_a_bridge_knows_by_its_id() {
    let mut cloud = Cloud::new();
    cloud.meet(position(0, 0), 2);
    for number in 1..=3 {
        cloud.order(number);
    }
    cloud.acknowledge(1, 2);
    cloud.report(1, 1, 1);
    assert_eq!(cloud.db.restored().unwrap(), 2);
    // The third may have been handed over since.
    assert_eq!(cloud.standing(3), Some(Standing::Handed));
    let meeting = cloud.meet(position(1, 7), 10);
    assert_eq!(meeting.orders_epoch_reason, Some(EpochReason::SenderBehind));
    assert_eq!((meeting.orders_resume_after, meeting.lost), (position(2, 0), Vec::new()));
    assert_eq!(cloud.sent(0), [((2, 1), 2), ((2, 2), 3)]);
}

#[test]
fn where_both_sides_were_set_back_every_unfinished_order_ends_in_doubt() {
    let mut cloud = Cloud::new();
    cloud.meet(position(0, 0), 1);
    for number in 1..=2 {
        cloud.order(number);
    }
    assert_eq!(cloud.db.restored().unwrap(), 2);
    assert_eq!(cloud.meet(Position::LOST, 10).lost, [id(1), id(2)]);
    assert_eq!(cloud.sent(0), []);
}

#[test]
fn a_full_disk_takes_no_new_order_and_still_takes_reports_and_cancels() {
    use crate::store::Store;
    let mut cloud = Cloud::new();
    cloud.meet(position(0, 0), 10);
    cloud.order(1);
    cloud.order(2);
    cloud.db.disk_is_full(true);
    let refused = cloud.db.enqueue_job(at(1), cloud.bridge, &job(3));
    assert!(matches!(refused, Err(StoreError::DiskFull)));
    assert_eq!(cloud.cancel(2), Cancel::Ordered);
    assert_eq!(cloud.report(1, 1, 1), Taken::Applied);
    cloud.db.disk_is_full(false);
    cloud.order(3);
}
