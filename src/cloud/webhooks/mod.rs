//! Events delivered to webhooks: each at least once, under the same id however often it is tried, and in order for each
//! resource.
//!
//! What is owed to whom, and when it is due, is in [`super::store`]; this room carries it there. A delivery that the
//! cloud did not live to note is made again.

mod post;
mod sign;
mod target;

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

pub(crate) use post::Post;
pub(crate) use sign::new_secret;
pub use target::Reach;
pub(crate) use target::Target;

use super::{Signals, store::Db};
use crate::{
    model::WebhookId,
    seams::{self, Clock},
    store::{StoreError, WriterHandle},
};

/// How many deliveries are under way at most, and to one webhook.
const AT_ONCE: usize = 32;
const TO_ONE: usize = 4;
/// Times are by the wall clock, which may be set; so none is slept for longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// After the database refused, it is asked again this much later.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// Delivers what is owed, until `stop` turns true. What is under way then is tried again by the next start.
pub(super) async fn deliver(
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    post: Arc<Post>,
    mut stop: watch::Receiver<bool>,
) {
    let mut owed = signals.deliveries();
    let mut under_way = JoinSet::new();
    let mut busy: HashSet<(WebhookId, i64)> = HashSet::new();
    while !*stop.borrow() {
        owed.mark_unchanged();
        let now = clock.now();
        let known: Vec<_> = busy.iter().copied().collect();
        let room = AT_ONCE.saturating_sub(busy.len());
        let due = match db.run(move |db| db.deliveries_due(now, &known, room, TO_ONE)).await {
            Ok(due) => due,
            Err(StoreError::Stopped) => return,
            Err(error) => {
                trouble(&error);
                tokio::select! {
                    biased;
                    _ = stop.changed() => {}
                    () = sleep(AFTER_TROUBLE) => {}
                }
                continue;
            }
        };
        for delivery in due.deliveries {
            busy.insert((delivery.webhook, delivery.n));
            let (post, clock) = (Arc::clone(&post), clock.clone());
            under_way.spawn(seams::task(async move {
                let end = post.deliver(&clock, &delivery).await;
                (delivery.webhook, delivery.n, end)
            }));
        }
        let wake = Instant::now() + pause(now, due.next);
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                let mut ends = Vec::from_iter(ended.ok());
                while let Some(ended) = under_way.try_join_next() {
                    ends.extend(ended.ok());
                }
                let (now, over) = (clock.now(), ends.clone());
                let noted = db.run(move |db| db.delivered(now, &over)).await;
                for (webhook, n, _) in &ends {
                    busy.remove(&(*webhook, *n));
                }
                if let Err(error) = noted {
                    // They are due as before, and made again.
                    trouble(&error);
                    sleep(AFTER_TROUBLE).await;
                }
            }
            changed = owed.changed() => if changed.is_err() { return },
            () = sleep_until(wake) => {}
        }
    }
}

fn pause(now: Timestamp, next: Option<Timestamp>) -> Duration {
    let left = next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO));
    left.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
}

fn trouble(error: &StoreError) {
    tracing::error!(error = error.chain(), "the database does not tell what is owed to webhooks");
}
