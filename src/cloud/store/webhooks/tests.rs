use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    grants::{Event, Subject},
    model::AccessGrantId,
    seal::SealKey,
    seams::{Random, Storage},
};

/// A workspace whose events nobody but these tests brings about.
struct Feed {
    db: Db,
    workspace: WorkspaceId,
    now: Timestamp,
    random: Random,
    _folder: tempfile::TempDir,
}

fn failed(whatever_it_was: bool) -> Delivered {
    Delivered::Failed { why: "it answered 500".into(), whatever_it_was }
}

impl Feed {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = Random::seeded(seed);
        let seal = SealKey::new([7; 32], random.clone());
        let mut db = Db::open(&Storage::folder(folder.path()), seal, random.clone()).unwrap();
        // These tests lose no power.
        db.connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let workspace = db.found(now, "Home", [1; 32]).unwrap();
        Self { db, workspace, now, random, _folder: folder }
    }

    fn webhook(&mut self, kinds: &[&str]) -> WebhookId {
        let kinds: Vec<_> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let url = Private::new("https://example.com/events?token=secret");
        let mut tenant = self.db.tenant(self.workspace);
        tenant.create_webhook(self.now, &url, &kinds).unwrap().unwrap().id
    }

    fn tell(&mut self, kind: &'static str, grant: AccessGrantId) {
        let event = Event {
            kind,
            subject: Subject::Grant(grant),
            message: None,
            code: None,
            missing_devices: Vec::new(),
        };
        let now = self.now;
        self.db.tenant(self.workspace).tell(now, &[event]).unwrap();
    }

    fn grant(&self) -> AccessGrantId {
        AccessGrantId(self.random.uuid())
    }

    fn due(&mut self) -> Due {
        self.db.deliveries_due(self.now, &[], 32, 4).unwrap()
    }

    fn end(&mut self, delivery: &Delivery, end: Delivered) {
        self.db.delivered(self.now, &[(delivery.webhook, delivery.n, end)]).unwrap();
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}

fn kinds(due: &Due) -> Vec<&str> {
    due.deliveries.iter().map(|delivery| delivery.event.kind.as_str()).collect()
}

#[test]
fn an_event_is_owed_to_those_who_want_its_type_and_to_nobody_else() {
    let mut feed = Feed::new(1);
    let (all, some) = (feed.webhook(&["*"]), feed.webhook(&["access_grant.deleted"]));
    let other = feed.db.add_workspace(feed.now, "Elsewhere").unwrap();
    let foreign = {
        let url = Private::new("https://example.com/");
        feed.db.tenant(other).create_webhook(feed.now, &url, &["*".into()]).unwrap().unwrap().id
    };
    let grant = feed.grant();
    feed.tell("access_grant.created", grant);
    let due = feed.due();
    assert_eq!(due.deliveries.iter().map(|delivery| delivery.webhook).collect::<Vec<_>>(), [all]);
    assert_eq!(due.deliveries[0].event.fields["access_grant_id"], serde_json::json!(grant));
    feed.tell("access_grant.deleted", feed.grant());
    let told: Vec<_> = feed.due().deliveries.iter().map(|delivery| delivery.webhook).collect();
    assert_eq!(told, [all, all, some]);
    assert!(!told.contains(&foreign));
}

#[test]
fn the_events_of_a_grant_are_due_one_after_the_other_and_those_of_others_meanwhile() {
    let mut feed = Feed::new(2);
    feed.webhook(&["*"]);
    let (first, second) = (feed.grant(), feed.grant());
    feed.tell("access_grant.created", first);
    feed.tell("access_grant.access_times_changed", first);
    feed.tell("access_grant.deleted", first);
    feed.tell("access_grant.created", second);
    let due = feed.due();
    assert_eq!(kinds(&due), ["access_grant.created", "access_grant.created"]);
    let busy: Vec<_> = due.deliveries.iter().map(|delivery| (delivery.webhook, delivery.n)).collect();
    assert!(feed.db.deliveries_due(feed.now, &busy, 32, 4).unwrap().deliveries.is_empty());
    // The receiver refuses the first one's events; the second one's go on.
    feed.end(&due.deliveries[0], failed(false));
    feed.end(&due.deliveries[1], Delivered::Taken);
    assert!(feed.due().deliveries.is_empty());
    feed.tell("access_grant.deleted", second);
    let due = feed.due();
    assert_eq!(kinds(&due), ["access_grant.deleted"]);
    feed.end(&due.deliveries[0], Delivered::Taken);
    feed.pass(5);
    for kind in ["access_grant.created", "access_grant.access_times_changed", "access_grant.deleted"] {
        let due = feed.due();
        assert_eq!(kinds(&due), [kind]);
        feed.end(&due.deliveries[0], Delivered::Taken);
    }
    assert_eq!(feed.db.every_webhook().unwrap()[0].owed, 0);
}

#[test]
fn a_receiver_that_is_down_is_tried_with_one_event_and_ever_less_often_until_it_is_disabled() {
    let mut feed = Feed::new(3);
    let webhook = feed.webhook(&["*"]);
    for _ in 0..10 {
        feed.tell("access_grant.created", feed.grant());
    }
    let due = feed.due();
    assert_eq!(due.deliveries.len(), 4);
    for delivery in &due.deliveries {
        feed.end(delivery, failed(true));
    }
    let mut waits = Vec::new();
    let begun = feed.now;
    loop {
        let due = feed.due();
        let Some(delivery) = due.deliveries.first() else {
            let Some(next) = due.next else { break };
            waits.push(next.duration_since(feed.now).as_secs());
            feed.now = next;
            continue;
        };
        assert_eq!(due.deliveries.len(), 1);
        feed.end(delivery, failed(true));
    }
    assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 36_000]);
    let row = &feed.db.every_webhook().unwrap()[0];
    assert_eq!((row.disabled_at, row.failing_since), (Some(feed.now), Some(begun)));
    assert_eq!((row.owed, row.trouble.as_deref()), (10, Some("it answered 500")));
    assert_eq!(row.origin, "https://example.com");
    // What happens meanwhile is owed too.
    feed.pass(86_400);
    feed.tell("access_grant.created", feed.grant());
    assert!(feed.due().deliveries.is_empty());
    assert!(feed.db.enable_webhook(feed.now, webhook).unwrap());
    let mut taken = 0;
    while let Some(delivery) = feed.due().deliveries.first() {
        feed.end(delivery, Delivered::Taken);
        taken += 1;
    }
    assert_eq!(taken, 11);
}

#[test]
fn one_event_at_which_the_receiver_breaks_neither_stops_the_others_nor_disables_it() {
    let mut feed = Feed::new(8);
    feed.webhook(&["*"]);
    let poison = feed.grant();
    feed.tell("access_grant.created", poison);
    let mut taken = 0;
    for _ in 0..60 {
        feed.tell("access_grant.created", feed.grant());
        feed.pass(3600);
        loop {
            let due = feed.due();
            let Some(delivery) = due.deliveries.first() else {
                match due.next.filter(|next| next.duration_since(feed.now) < SignedDuration::from_secs(60)) {
                    Some(next) => feed.now = next,
                    None => break,
                }
                continue;
            };
            let is_poison = delivery.event.fields["access_grant_id"] == serde_json::json!(poison);
            feed.end(delivery, if is_poison { failed(true) } else { Delivered::Taken });
            taken += u32::from(!is_poison);
        }
    }
    assert_eq!(taken, 60);
    let row = &feed.db.every_webhook().unwrap()[0];
    assert_eq!((row.owed, row.disabled_at), (1, None));
}

/// Receivers of one workspace that never answer leave places for those of another.
#[test]
fn a_workspace_takes_only_so_many_places() {
    let mut feed = Feed::new(9);
    for _ in 0..8 {
        feed.webhook(&["*"]);
    }
    let other = feed.db.add_workspace(feed.now, "Elsewhere").unwrap();
    let (now, url) = (feed.now, Private::new("https://example.com/"));
    let theirs = feed.db.tenant(other).create_webhook(now, &url, &["*".into()]).unwrap().unwrap().id;
    for _ in 0..8 {
        feed.tell("access_grant.created", feed.grant());
    }
    let grant = feed.grant();
    feed.db.tenant(other).tell(now, &[Event::grant("access_grant.created", grant)]).unwrap();
    let due = feed.due();
    assert_eq!(due.deliveries.len(), OF_ONE_WORKSPACE + 1);
    assert_eq!(due.deliveries.last().unwrap().webhook, theirs);
    let busy: Vec<_> = due.deliveries.iter().map(|one| (one.webhook, one.n)).collect();
    assert!(feed.db.deliveries_due(feed.now, &busy, 32, 4).unwrap().deliveries.is_empty());
}

#[test]
fn a_clock_that_is_put_back_delays_nothing() {
    let mut feed = Feed::new(4);
    feed.webhook(&["*"]);
    feed.tell("access_grant.created", feed.grant());
    let due = feed.due();
    feed.end(&due.deliveries[0], failed(true));
    feed.pass(-365 * 86_400);
    assert_eq!(feed.due().deliveries.len(), 1);
}

#[test]
fn a_webhook_that_is_deleted_is_owed_nothing_and_a_late_end_changes_nothing() {
    let mut feed = Feed::new(5);
    let webhook = feed.webhook(&["*"]);
    feed.tell("access_grant.created", feed.grant());
    let due = feed.due();
    let now = feed.now;
    let mut tenant = feed.db.tenant(feed.workspace);
    assert_eq!(tenant.delete_webhook(now, webhook).unwrap(), Ok(()));
    assert!(tenant.webhook(webhook).unwrap().is_err());
    feed.end(&due.deliveries[0], failed(true));
    feed.end(&due.deliveries[0], Delivered::Taken);
    let due = feed.due();
    assert!(due.deliveries.is_empty() && due.next.is_none());
}

#[test]
fn a_long_backlog_of_a_deleted_webhook_goes_a_slice_at_a_time_and_nothing_of_it_is_seen() {
    let mut feed = Feed::new(10);
    let (gone, kept) = (feed.webhook(&["*"]), feed.webhook(&["access_grant.created"]));
    let most = DROPPED_AT_ONCE;
    for _ in 0..2 * most {
        feed.tell("access_grant.deleted", feed.grant());
    }
    feed.tell("access_grant.created", feed.grant());
    let owed = |feed: &Feed| {
        let sql = "SELECT count(*) FROM webhook_delivery";
        usize::try_from(feed.db.one(sql, [], |row| row.get::<_, i64>(0)).unwrap().unwrap()).unwrap()
    };
    assert_eq!(owed(&feed), 2 * most + 2);
    let now = feed.now;
    assert_eq!(feed.db.tenant(feed.workspace).delete_webhook(now, gone).unwrap(), Ok(()));
    assert_eq!(owed(&feed), most + 2, "one slice is gone");

    let mut tenant = feed.db.tenant(feed.workspace);
    assert!(tenant.webhook(gone).unwrap().is_err());
    assert!(tenant.update_webhook(gone, &["*".into()]).unwrap().is_err());
    assert!(tenant.delete_webhook(now, gone).unwrap().is_err());
    assert_eq!(tenant.webhooks().unwrap().iter().map(|webhook| webhook.id).collect::<Vec<_>>(), [kept]);
    assert!(!feed.db.enable_webhook(now, gone).unwrap() && !feed.db.disable_webhook(now, gone).unwrap());
    assert_eq!(feed.db.every_webhook().unwrap().len(), 1);
    feed.tell("access_grant.deleted", feed.grant());
    let told: Vec<_> = feed.due().deliveries.iter().map(|delivery| delivery.webhook).collect();
    assert_eq!(told, [kept]);

    // The clock does the rest, also after a crash.
    while feed.db.end_overdue(now).unwrap().next.is_some_and(|next| next <= now) {}
    assert_eq!(owed(&feed), 1);
    let rows = feed.db.one("SELECT count(*) FROM webhook", [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(rows, Some(1), "and then the webhook itself");
}

#[test]
fn a_backlog_is_counted_so_far_and_no_further() {
    let mut feed = Feed::new(11);
    let webhook = feed.webhook(&["*"]);
    let owe = |feed: &Feed, many: u64| {
        let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
                   INSERT INTO event(event_id, workspace_id, event_type, occurred_at, fields)
                   SELECT hex(randomblob(16)), ?2, 'a.one', 0, x'' FROM n";
        feed.db.execute(sql, params![i64::try_from(many).unwrap(), feed.workspace.to_string()]).unwrap();
        let sql = "INSERT INTO webhook_delivery(webhook_id, resource, event_n, due_at)
                   SELECT ?1, n, n, 0 FROM event WHERE true ON CONFLICT DO NOTHING";
        feed.db.execute(sql, [webhook.to_string()]).unwrap();
    };
    owe(&feed, WebhookRow::MOST_COUNTED - 1);
    assert_eq!(feed.db.every_webhook().unwrap()[0].owed, WebhookRow::MOST_COUNTED - 1);
    owe(&feed, 2);
    assert_eq!(feed.db.every_webhook().unwrap()[0].owed, WebhookRow::MOST_COUNTED);
}

#[test]
fn a_workspace_has_no_endless_webhooks() {
    let mut feed = Feed::new(6);
    for _ in 0..MOST {
        feed.webhook(&["*"]);
    }
    let (now, url) = (feed.now, Private::new("https://example.com/"));
    let more = feed.db.tenant(feed.workspace).create_webhook(now, &url, &["*".into()]).unwrap();
    assert_eq!(more.unwrap_err(), Refused::TooManyWebhooks { most: MOST });
}

#[test]
fn events_that_are_forgotten_are_owed_no_more_and_hold_up_nothing() {
    let mut feed = Feed::new(7);
    let webhook = feed.webhook(&["*"]);
    feed.db.disable_webhook(feed.now, webhook).unwrap();
    let grant = feed.grant();
    feed.tell("access_grant.created", grant);
    feed.pass(89 * 86_400);
    feed.tell("access_grant.deleted", grant);
    feed.pass(2 * 86_400);
    while feed.db.forget(feed.now).unwrap() {}
    assert_eq!(feed.db.every_webhook().unwrap()[0].owed, 1);
    feed.db.enable_webhook(feed.now, webhook).unwrap();
    assert_eq!(kinds(&feed.due()), ["access_grant.deleted"]);
}

/// Events of a few grants for three webhooks, receivers that fail as they please, a process that dies with deliveries
/// under way, a clock that moves: whatever happens, each receiver gets what it wants, each grant's events in order.
#[test]
fn whatever_fails_each_event_arrives_and_in_order_for_its_grant() {
    for seed in 0..50 {
        let mut feed = Feed::new(1000 + seed);
        let random = Random::seeded(seed);
        let wants: [&[&str]; 3] = [&["*"], &["a.one", "a.two"], &["a.two"]];
        let webhooks: Vec<_> = wants.iter().map(|kinds| feed.webhook(kinds)).collect();
        let grants: Vec<_> = (0..4).map(|_| feed.grant()).collect();
        let mut told: BTreeMap<(WebhookId, AccessGrantId), Vec<EventId>> = BTreeMap::new();
        let mut taken: BTreeMap<(WebhookId, AccessGrantId), Vec<EventId>> = BTreeMap::new();
        let mut under_way: Vec<Delivery> = Vec::new();
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: it does not come to an end");
            let is_quiet = steps > 150;
            match random.below(if is_quiet { 6 } else { 10 }) {
                // Somebody looks what is due.
                0 | 1 => {
                    let busy: Vec<_> = under_way.iter().map(|one| (one.webhook, one.n)).collect();
                    let due = feed.db.deliveries_due(feed.now, &busy, 8, 3).unwrap();
                    assert!(due.deliveries.iter().all(|one| !busy.contains(&(one.webhook, one.n))));
                    let idle = due.deliveries.is_empty() && under_way.is_empty();
                    under_way.extend(due.deliveries);
                    let owed: u64 = feed.db.every_webhook().unwrap().iter().map(|row| row.owed).sum();
                    if is_quiet && owed == 0 {
                        break;
                    }
                    if idle && let Some(next) = due.next {
                        feed.now = next;
                    }
                }
                // A delivery ends.
                2..=4 if !under_way.is_empty() => {
                    let which = random.below(under_way.len() as u64);
                    let delivery = under_way.swap_remove(usize::try_from(which).unwrap());
                    let is_taken = is_quiet || random.below(3) > 0;
                    let is_noted = is_quiet || random.below(4) > 0;
                    let grant: AccessGrantId =
                        delivery.event.fields["access_grant_id"].as_str().unwrap().parse().unwrap();
                    if is_taken {
                        taken.entry((delivery.webhook, grant)).or_default().push(delivery.event.id);
                    }
                    // Not noted: the process died, and everything else under way with it.
                    match is_noted {
                        true => {
                            let end = if is_taken { Delivered::Taken } else { failed(random.below(2) == 0) };
                            feed.end(&delivery, end);
                        }
                        false => under_way.clear(),
                    }
                }
                5 => feed.pass(i64::try_from(random.below(600)).unwrap()),
                6 => feed.pass(-i64::try_from(random.below(90_000)).unwrap()),
                7 => {
                    let which = usize::try_from(random.below(3)).unwrap();
                    feed.db.disable_webhook(feed.now, webhooks[which]).unwrap();
                }
                8 | 9 => {
                    let grant = grants[usize::try_from(random.below(4)).unwrap()];
                    let kind = ["a.one", "a.two", "a.three"][usize::try_from(random.below(3)).unwrap()];
                    feed.tell(kind, grant);
                    let (id, n) = feed
                        .db
                        .one("SELECT event_id, n FROM event ORDER BY n DESC LIMIT 1", [], |row| {
                            Ok((id::<EventId>(row, "event_id")?, row.get::<_, i64>("n")?))
                        })
                        .unwrap()
                        .unwrap();
                    assert!(n > 0);
                    for (webhook, kinds) in webhooks.iter().zip(wants) {
                        if kinds.contains(&kind) || kinds == ["*"] {
                            told.entry((*webhook, grant)).or_default().push(id);
                        }
                    }
                }
                _ => {}
            }
            if is_quiet {
                for webhook in &webhooks {
                    let is_disabled = feed
                        .db
                        .every_webhook()
                        .unwrap()
                        .iter()
                        .any(|row| row.id == *webhook && row.disabled_at.is_some());
                    if is_disabled {
                        feed.db.enable_webhook(feed.now, *webhook).unwrap();
                    }
                }
            }
        }
        for (which, events) in &told {
            // Repetitions may follow an event at once, and never come after a later one was taken first.
            let mut seen: Vec<EventId> = Vec::new();
            for id in &taken[which] {
                if !seen.contains(id) {
                    seen.push(*id);
                } else {
                    assert_eq!(seen.last(), Some(id), "seed {seed}: an old event again after a newer one");
                }
            }
            assert_eq!(&seen, events, "seed {seed}");
        }
    }
}
