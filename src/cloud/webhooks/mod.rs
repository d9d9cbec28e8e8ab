//! Events delivered to webhooks: each at least once, under the same id however often it is tried, and in order for each
//! resource.
//!
//! What is owed to whom, and when it is due, is in [`super::store`]; this room carries it there. A delivery that the
//! cloud did not live to note is made again.

mod post;
mod sign;
mod target;

use std::{collections::HashMap, iter, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};

pub(crate) use post::Post;
pub(crate) use sign::new_secret;
pub use target::Reach;
pub(crate) use target::Target;

use super::{
    Signals,
    store::{Db, Delivered},
};
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
    let mut busy: HashMap<task::Id, (WebhookId, i64)> = HashMap::new();
    while !*stop.borrow() {
        owed.mark_unchanged();
        let now = clock.now();
        let known: Vec<_> = busy.values().copied().collect();
        let room = AT_ONCE.saturating_sub(busy.len());
        let due = match db.run(move |db| db.deliveries_due(now, &known, room, TO_ONE)).await {
            Ok(due) => due,
            Err(StoreError::Stopped) => return,
            Err(error) => {
                recover(&error, &mut stop).await;
                continue;
            }
        };
        for delivery in due.deliveries {
            let place = (delivery.webhook, delivery.n);
            let (post, clock) = (Arc::clone(&post), clock.clone());
            let delivered = seams::task(async move { post.deliver(&clock, &delivery).await });
            busy.insert(under_way.spawn(delivered).id(), place);
        }
        let wake = Instant::now() + pause(now, due.next);
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            Some(ended) = under_way.join_next_with_id(), if !under_way.is_empty() => {
                let mut all = vec![ended];
                all.extend(iter::from_fn(|| under_way.try_join_next_with_id()));
                let ends: Vec<_> = all.into_iter().filter_map(|ended| end_of(ended, &mut busy)).collect();
                let now = clock.now();
                if let Err(error) = db.run(move |db| db.delivered(now, &ends)).await {
                    // They are due as before, and made again.
                    recover(&error, &mut stop).await;
                }
            }
            changed = owed.changed() => if changed.is_err() { return },
            () = sleep_until(wake) => {}
        }
    }
}

/// How a delivery ended, and which one it was. One that panicked has failed, and is tried again like any other.
fn end_of(
    ended: Result<(task::Id, Delivered), JoinError>,
    busy: &mut HashMap<task::Id, (WebhookId, i64)>,
) -> Option<(WebhookId, i64, Delivered)> {
    let (id, end) = ended.unwrap_or_else(|error| {
        let why = "the delivery broke off in the cloud itself".to_owned();
        (error.id(), Delivered::Failed { why, whatever_it_was: false })
    });
    let (webhook, n) = busy.remove(&id)?;
    Some((webhook, n, end))
}

fn pause(now: Timestamp, next: Option<Timestamp>) -> Duration {
    let left = next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO));
    left.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
}

/// The database refused; it is asked again when it had some time.
async fn recover(error: &StoreError, stop: &mut watch::Receiver<bool>) {
    tracing::error!(error = error.chain(), "the database does not tell what is owed to webhooks");
    tokio::select! {
        biased;
        _ = stop.changed() => {}
        () = sleep(AFTER_TROUBLE) => {}
    }
}

#[cfg(test)]
mod tests;
