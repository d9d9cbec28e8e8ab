//! The lock on its connections: any byte stream, one at a time.

use std::{
    fmt,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use super::{
    faults::Fault,
    lock::{Lock, SettingsError},
    wire::{Asked, Reader, frame},
};
use crate::seams::{Clock, Listener};

/// How a lock is from the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, at the control socket and in the agent's configuration.
    pub name: String,
    /// Its serial number.
    pub serial: String,
    /// The IANA zone of its local time.
    pub time_zone: String,
    /// How many slots it has.
    pub slots: u16,
    /// How many entries its ledger keeps.
    pub ledger: usize,
    /// What its clock shows first; otherwise the right time.
    pub starts_at: Option<Timestamp>,
    /// For how long it has kept its memory already.
    pub age: Duration,
    /// The file that its memory survives a restart in.
    pub journal: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "lock-1".into(),
            serial: "SL-0001".into(),
            time_zone: "Europe/Oslo".into(),
            slots: 100,
            ledger: 10_000,
            starts_at: None,
            age: Duration::from_secs(30 * 24 * 3600),
            journal: None,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client hung up, its line broke, or it was silent for too long.
    ByClient,
    /// A fault closed it.
    ByFault,
    /// A newer connection took its place.
    TakenOver,
    /// The lock was unplugged.
    Unplugged,
}

/// One pretend lock. Cheap to clone; all clones are one lock.
#[derive(Clone)]
pub struct Simulator(Arc<Shared>);

struct Shared {
    name: String,
    lock: Mutex<Lock>,
    /// Who holds it has the lock's one hand: requests are done one after the other, whichever connection they came by.
    hand: tokio::sync::Mutex<()>,
    /// Wakes whoever waits in the order in which they wait: a simulation has to go the same way every time.
    changes: Notify,
}

/// A connection that is silent for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// A client must take an answer in this time.
const WRITE: Duration = Duration::from_secs(10);
/// No frame, and longer than one.
const GARBAGE: &[u8] = b"\x00\xff:00ZZ\x7fnot a frame\r\n:0003abc";

enum Reply {
    Say(Vec<u8>),
    Nothing,
    HangUp,
}

impl Simulator {
    /// A lock with an empty table, or with what its journal holds. `clock` is the right time. Needs a running tokio
    /// runtime, whose clock moves the lock's.
    ///
    /// # Errors
    /// When the zone is none, or the journal cannot be used.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, SettingsError> {
        Ok(Self(Arc::new(Shared {
            name: settings.name.clone(),
            lock: Mutex::new(Lock::new(settings, clock)?),
            hand: tokio::sync::Mutex::new(()),
            changes: Notify::new(),
        })))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Serves one connection until the client, a fault, a newer connection or an unplugging ends it. A request at work
    /// is finished whatever happens to its connection.
    pub async fn serve<S>(&self, mut stream: S) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let open = Open::new(self);
        let mut reader = Reader::default();
        let (mut received, mut sent) = (0_u64, 0_u64);
        let mut buffer = [0; 512];
        loop {
            let read = tokio::select! {
                biased;
                ended = self.until(|lock| open.ended(lock)) => return ended,
                read = timeout(IDLE, stream.read(&mut buffer)) => read,
            };
            let Ok(Ok(count @ 1..)) = read else {
                return Ended::ByClient;
            };
            let cut = self.look(|lock| lock.faults.cut_received);
            let left = cut.map_or(u64::MAX, |cut| cut.saturating_sub(received));
            let heard = usize::try_from(left).unwrap_or(usize::MAX).min(count);
            received += heard as u64;
            let is_cut = cut.is_some_and(|cut| cut <= received);
            for asked in reader.feed(&buffer[..heard]) {
                let hand = self.0.hand.lock().await;
                if let Some(ended) = self.look(|lock| open.ended(lock)) {
                    return ended;
                }
                let reply = self.reply(&asked).await;
                drop(hand);
                let answer = match reply {
                    Reply::Say(answer) if !is_cut => answer,
                    Reply::Say(_) | Reply::Nothing => continue,
                    Reply::HangUp => return Ended::ByFault,
                };
                let cut = self.look(|lock| lock.faults.cut_sent);
                let left = cut.map_or(u64::MAX, |cut| cut.saturating_sub(sent));
                let said = usize::try_from(left).unwrap_or(usize::MAX).min(answer.len());
                if !matches!(timeout(WRITE, stream.write_all(&answer[..said])).await, Ok(Ok(()))) {
                    return Ended::ByClient;
                }
                sent += said as u64;
                if cut.is_some_and(|cut| cut <= sent) {
                    self.change(|lock| lock.faults.cut_sent = None);
                    return Ended::ByFault;
                }
            }
            if is_cut {
                self.change(|lock| lock.faults.cut_received = None);
                return Ended::ByFault;
            }
        }
    }

    /// Accepts connections until dropped, or until a network in memory is gone.
    pub async fn accept(&self, mut listener: Box<dyn Listener>) {
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                Some(_) = clients.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                // Whoever comes while it is unplugged is hung up on at once.
                Ok((stream, _from)) if self.look(|lock| lock.up) => {
                    let simulator = self.clone();
                    clients.spawn(async move { simulator.serve(stream).await });
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn reply(&self, asked: &Asked) -> Reply {
        let number = &asked.number;
        let say = |body: &str| Reply::Say(frame(&format!("{number} {body}")));
        let Some(verb) = asked.verb else {
            return say("NO BAD");
        };
        let fault = self.change(|lock| {
            *lock.requests.entry(verb.name()).or_default() += 1;
            lock.faults.take(verb)
        });
        match fault {
            Some(Fault::Deaf) => return Reply::Nothing,
            Some(Fault::CutBefore) => return Reply::HangUp,
            Some(Fault::Busy) => return say("NO BUSY"),
            Some(Fault::Full) => return say("NO FULL"),
            Some(Fault::Lie) => return say("OK 1"),
            Some(Fault::Slow(length)) => tokio::time::sleep(length).await,
            _ => {}
        }
        let answer = self.change(|lock| lock.obey(verb, asked));
        tracing::debug!(lock = self.0.name, verb = verb.name(), job = asked.job, ?fault, "request");
        match fault {
            Some(Fault::Silent) => Reply::Nothing,
            Some(Fault::CutAfter) => Reply::HangUp,
            Some(Fault::Garbage) => Reply::Say(GARBAGE.into()),
            Some(Fault::Damaged) => {
                let mut damaged = frame(&format!("{number} {answer}"));
                // A letter of the answer, so that only the check can tell.
                damaged[7] ^= 1;
                Reply::Say(damaged)
            }
            Some(Fault::WrongNumber) => Reply::Say(frame(&format!("{number}0 {answer}"))),
            _ => say(&answer),
        }
    }

    /// Waits until something is so. The caller bounds it.
    pub(super) async fn until<T>(&self, mut seen: impl FnMut(&Lock) -> Option<T>) -> T {
        loop {
            let mut change = pin!(self.0.changes.notified());
            // Before looking, so that no change falls in between.
            change.as_mut().enable();
            if let Some(found) = self.look(&mut seen) {
                return found;
            }
            change.await;
        }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Lock) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Lock) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.changes.notify_waiters();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Lock> {
        self.0.lock.lock().expect("no panic while the lock is held")
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Simulator").field(&self.0.name).finish()
    }
}

/// A connection's place in the books; dropping it closes them.
struct Open<'a> {
    simulator: &'a Simulator,
    number: u64,
}

impl<'a> Open<'a> {
    fn new(simulator: &'a Simulator) -> Self {
        let number = simulator.change(|lock| {
            lock.connection += 1;
            lock.open += 1;
            lock.connection
        });
        Self { simulator, number }
    }

    fn ended(&self, lock: &Lock) -> Option<Ended> {
        match () {
            () if !lock.up => Some(Ended::Unplugged),
            () if lock.connection != self.number => Some(Ended::TakenOver),
            () => None,
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.simulator.change(|lock| lock.open -= 1);
    }
}
