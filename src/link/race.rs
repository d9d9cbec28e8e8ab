//! Connects to whichever of a host's addresses answers first, as RFC 8305 has it.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use crate::seams::{Net, Stream};

/// The next address gets its chance when those before it have been silent for this long (RFC 8305, 8).
const STAGGER: Duration = Duration::from_millis(250);
/// A name server may answer with any number of addresses; more than these are not tried.
const MOST: usize = 16;

/// Connects to the first address that takes it; the attempts at all others are dropped.
///
/// # Errors
/// Of all failures the one that says most.
pub(super) async fn race(
    net: &dyn Net,
    host: &str,
    addresses: Vec<SocketAddr>,
) -> io::Result<Box<dyn Stream>> {
    let mut waiting = interleaved(addresses);
    let mut running = FuturesUnordered::new();
    let mut failure = None;
    loop {
        match waiting.pop_front() {
            Some(address) => running.push(net.connect_to(host, address)),
            None if running.is_empty() => {
                return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
            None => {}
        }
        tokio::select! {
            biased;
            Some(result) = running.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(telling(failure, error)),
            },
            () = sleep(STAGGER), if !waiting.is_empty() => {}
        }
    }
}

/// One address of each family in turn, beginning with the family that the resolver put first.
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = VecDeque::new();
    loop {
        let before = order.len();
        order.extend(first.next());
        order.extend(second.next());
        if order.len() == before {
            order.truncate(MOST);
            return order;
        }
    }
}

/// Somebody who refuses says more than a network that leads nowhere, and that more than silence.
fn telling(known: Option<io::Error>, new: io::Error) -> io::Error {
    let rank = |error: &io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => 2,
        io::ErrorKind::TimedOut => 0,
        _ => 1,
    };
    match known {
        Some(known) if rank(&known) >= rank(&new) => known,
        _ => new,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;
    use crate::seams::{BoxFuture, Listener};

    /// Addresses that answer after a while: the last part is after how many milliseconds, an odd one refuses.
    struct Slow {
        began: Instant,
        tried: Mutex<Vec<(String, u128)>>,
        given_up: std::sync::Arc<Mutex<u32>>,
    }

    struct Dropped(std::sync::Arc<Mutex<u32>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }

    impl Net for Slow {
        fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
            unreachable!("addresses are connected to")
        }

        fn connect_to<'a>(
            &'a self,
            _: &'a str,
            address: SocketAddr,
        ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
            let tried = (address.ip().to_string(), self.began.elapsed().as_millis());
            self.tried.lock().unwrap().push(tried);
            let mark = Dropped(self.given_up.clone());
            Box::pin(async move {
                sleep(Duration::from_millis(u64::from(address.port()))).await;
                match address.port() % 2 {
                    0 => {
                        std::mem::forget(mark);
                        Ok(Box::new(tokio::io::duplex(1).0) as Box<dyn Stream>)
                    }
                    _ => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            })
        }

        fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            unreachable!("nobody listens")
        }
    }

    /// Races; gives the order and times of the attempts, when it ended, and how many attempts came to nothing.
    async fn run(addresses: &[&str]) -> (bool, Vec<(String, u128)>, u128, u32) {
        let net = Slow { began: Instant::now(), tried: Mutex::default(), given_up: Default::default() };
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let won = race(&net, "host", addresses).await.is_ok();
        let ended = net.began.elapsed().as_millis();
        let given_up = *net.given_up.lock().unwrap();
        (won, net.tried.into_inner().unwrap(), ended, given_up)
    }

    fn at(tried: &[(&str, u128)]) -> Vec<(String, u128)> {
        tried.iter().map(|(address, at)| ((*address).to_owned(), *at)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn families_take_turns_a_quarter_second_apart_and_losers_are_dropped() {
        let (won, tried, ended, given_up) =
            run(&["[::1]:60000", "[::2]:60000", "1.1.1.1:60000", "2.2.2.2:100"]).await;
        assert!(won);
        assert_eq!(tried, at(&[("::1", 0), ("1.1.1.1", 250), ("::2", 500), ("2.2.2.2", 750)]));
        assert_eq!((ended, given_up), (850, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_hands_on_at_once_and_an_early_attempt_may_win_late() {
        let (won, tried, ended, _) = run(&["1.1.1.1:400", "2.2.2.2:11", "3.3.3.3:60000"]).await;
        assert!(won);
        assert_eq!(tried, at(&[("1.1.1.1", 0), ("2.2.2.2", 250), ("3.3.3.3", 261)]));
        assert_eq!(ended, 400);
        let (won, tried, ended, _) = run(&["1.1.1.1:5", "2.2.2.2:9"]).await;
        assert!(!won);
        assert_eq!((tried, ended), (at(&[("1.1.1.1", 0), ("2.2.2.2", 5)]), 14));
        assert!(!run(&[]).await.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_with_a_thousand_addresses_costs_no_more_than_sixteen_attempts() {
        let many: Vec<_> = (0..1000).map(|n| format!("10.0.{}.{}:1", n / 250, n % 250)).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(run(&many).await.1.len(), MOST);
    }
}
