//! The places of those who have not yet shown who they are.
//!
//! While there are free ones, everybody gets one. When all are taken, whoever comes from an address that has fewer of them
//! than another takes one of that other's, its oldest: so no address can keep the others out, and many bridges behind
//! one address still come in one after another.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

/// The places.
#[derive(Debug)]
pub(super) struct Strangers {
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    count: usize,
    /// By address, oldest first. Dropping a sender tells its stranger to go.
    places: BTreeMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>>,
}

/// A place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Arc<Strangers>,
    address: IpAddr,
    number: u64,
}

/// Resolves when somebody else needs the place more.
pub(super) type MustGo = oneshot::Receiver<()>;

impl Strangers {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default(), freed: Notify::new() })
    }

    /// Waits for a place for a stranger from this address.
    pub(super) async fn place(self: &Arc<Self>, address: IpAddr) -> (Place, MustGo) {
        let address = address.to_canonical();
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.take(address) {
                return place;
            }
            freed.await;
        }
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Option<(Place, MustGo)> {
        let taken = &mut *self.taken();
        if taken.count >= self.most {
            let own = taken.places.get(&address).map_or(0, BTreeMap::len);
            let (_, fullest) = taken.places.iter_mut().max_by_key(|(_, places)| places.len())?;
            if fullest.len() <= own + 1 {
                return None;
            }
            fullest.pop_first();
            taken.count -= 1;
        }
        taken.last += 1;
        taken.count += 1;
        let (place, must_go) = oneshot::channel();
        taken.places.entry(address).or_default().insert(taken.last, place);
        Some((Place { strangers: Arc::clone(self), address, number: taken.last }, must_go))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = &mut *self.strangers.taken();
        let Some(places) = taken.places.get_mut(&self.address) else { return };
        if places.remove(&self.number).is_some() {
            taken.count -= 1;
        }
        if places.is_empty() {
            taken.places.remove(&self.address);
        }
        self.strangers.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn an_address_that_has_most_places_loses_its_oldest_to_one_that_has_fewer() {
        let strangers = Strangers::new(4);
        let mut crowd: Vec<_> = (0..4).map(|_| strangers.take(address(1)).unwrap()).collect();
        assert!(strangers.take(address(1)).is_none(), "its own newcomers wait");
        let (_one, _) = strangers.take(address(2)).unwrap();
        let told = crowd.iter_mut().map(|(_, must_go)| must_go.try_recv() != Err(TryRecvError::Empty));
        assert_eq!(told.collect::<Vec<_>>(), [true, false, false, false]);
        let (_other, _) = strangers.take(address(3)).unwrap();
        assert!(strangers.take(address(2)).is_none(), "two of one address and one of each other are fair");
    }

    #[test]
    fn a_place_that_was_lost_is_not_freed_twice() {
        let strangers = Strangers::new(2);
        let lost = strangers.take(address(1)).unwrap();
        let _kept = strangers.take(address(1)).unwrap();
        let _newcomer = strangers.take(address(2)).unwrap();
        drop(lost);
        assert!(strangers.take(address(2)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_the_next_free_place() {
        let strangers = Strangers::new(1);
        let (first, _) = strangers.place(address(1)).await;
        let waiting = strangers.place(address(1));
        tokio::pin!(waiting);
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(
                waiting.as_mut().poll(context).is_pending()
            ))
            .await
        );
        drop(first);
        waiting.await;
    }
}
