//! Where boards tell what happens, as it happens.
//!
//! A datagram may be lost, come twice or be anybody's: it is no event, but a reason to read the board's log at once.

use std::{io, net::SocketAddrV4, sync::Weak, time::Duration};

use tokio::sync::watch;

use super::{driver::Uhppote, reply::Pushed};
use crate::{drivers::Trouble, seams::Datagrams};

/// Where nobody can listen, it is tried again after this long.
const AGAIN: Duration = Duration::from_secs(60);
/// A longer datagram is no event, and is seen to be longer.
const LONGEST: usize = 128;

/// Listens for as long as the driver lives.
pub(super) async fn listen(boards: Weak<Uhppote>, at: SocketAddrV4, mut stopping: watch::Receiver<bool>) {
    loop {
        let Some(net) = boards.upgrade().map(|driver| driver.net.clone()) else { return };
        let heard = async {
            let socket = net.datagrams(at).await?;
            if let Some(driver) = boards.upgrade() {
                driver.listens(None);
            }
            hear(&boards, &*socket).await
        };
        let ended = tokio::select! {
            // The sender goes with the driver.
            stopped = stopping.wait_for(|stop| *stop) => return drop(stopped),
            heard = heard => heard,
        };
        let Err(error) = ended else { return };
        if let Some(driver) = boards.upgrade() {
            driver.listens(Some(driver.deaf(at, &error)));
        }
        tokio::select! {
            stopped = stopping.wait_for(|stop| *stop) => return drop(stopped),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn hear(boards: &Weak<Uhppote>, socket: &dyn Datagrams) -> io::Result<()> {
    let mut buffer = [0; LONGEST];
    loop {
        let (count, from) = socket.receive(&mut buffer).await?;
        let Some(driver) = boards.upgrade() else { return Ok(()) };
        match Pushed::decode(&buffer[..count]) {
            Ok(pushed) if driver.is_ours(pushed.serial, from) => driver.stirred(),
            Ok(pushed) => {
                tracing::debug!(%from, board = pushed.serial, "an event of a board that is not ours there");
            }
            Err(error) => tracing::debug!(%from, %error, "a datagram that is no event"),
        }
    }
}

impl Uhppote {
    /// Why nobody listens.
    fn deaf(&self, at: SocketAddrV4, error: &io::Error) -> Trouble {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port: end it, or name a free one (`listener`)"
            }
            io::ErrorKind::AddrNotAvailable => "it is no address of this machine: name its own (`listener`)",
            _ => "it is tried again",
        };
        Trouble {
            code: "listener_deaf",
            message: format!(
                "events of boards cannot be heard at {at} ({error}); their logs are read every {:?} instead. {fix}",
                self.config.read_events_every
            ),
            since: self.clock.now(),
        }
    }
}
