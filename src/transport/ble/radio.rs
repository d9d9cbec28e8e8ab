//! The thread that holds everything of btleplug, with a runtime of its own that can be dropped and built anew: only so is a
//! dead connection to the bus ever closed, and what was left registered there freed.
//!
//! Somebody who wants a peripheral is served when it has been heard: one scan is shared by all who wait, stopped while a
//! connection is made, and never running while nobody waits. What somebody waits is counted only while it runs. An adapter
//! that a person switched off stays off.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use btleplug::{
    api::{Central, CentralEvent, CentralState, Manager as _, Peripheral as _, ScanFilter},
    platform::{Adapter, Manager, Peripheral, PeripheralId},
};
use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    agent::{Agent, Meant},
    errors::Class,
    link::Link,
    session::{self, CALL, HANG_UP, Session, within},
    watch::{News, Watch},
};
use crate::model::Whom;

/// Sessions at a time; adapters hold five to seven links.
const SESSIONS: usize = 4;
/// How often a living bus is asked for a sign of it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// Connections after which everything is built anew: some of them leave a registration behind at the bus, which allows only
/// so many. Sooner where nobody waits, and at last where somebody does.
const CONNECTIONS: (u64, u64) = (50, 300);
/// Pause before everything is built anew, at first and at most.
const REBUILD: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How the radio is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadioSettings {
    /// Which adapter, by its name (`hci1`); the first one without.
    pub adapter: Option<String>,
    /// How long a peripheral is listened for.
    pub listen: Duration,
    /// How long one try of a connection may take.
    pub connect: Duration,
    /// How long the acknowledgement of one write may take.
    pub write: Duration,
}

impl Default for RadioSettings {
    fn default() -> Self {
        Self {
            adapter: None,
            listen: Duration::from_secs(20),
            connect: Duration::from_secs(20),
            write: Duration::from_secs(5),
        }
    }
}

/// A peripheral that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub whom: Whom,
    /// The service that it must have.
    pub service: Uuid,
}

/// How the radio stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RadioState {
    /// Being opened.
    Opening,
    /// Ready.
    Ready,
    /// Not to be used, and why; it is tried again by itself.
    Down(String),
}

/// Why there is no link. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It was not heard.
    #[error(
        "it was not heard for {0:?}: it is out of range, or its batteries are empty, or a phone is connected to it"
    )]
    NotHeard(Duration),
    /// It was heard, and no connection came about.
    #[error("it was heard, and no connection came about: {0}")]
    NotConnected(String),
    /// It has not what it should have.
    #[error("it is connected, and does not have the service {0}: it is another device than expected")]
    OtherDevice(Uuid),
    /// The radio cannot be used.
    #[error("the radio cannot be used: {0}")]
    Down(String),
}

/// What happened so far, by cause.
#[derive(Debug, Default)]
pub(super) struct Counts {
    connected: AtomicU64,
    not_heard: AtomicU64,
    not_connected: AtomicU64,
    rebuilt: AtomicU64,
}

/// A handle to the thread. The thread ends with the last handle.
#[derive(Debug, Clone)]
pub struct Radio {
    wishes: mpsc::Sender<Wish>,
    state: watch::Receiver<RadioState>,
    counts: Arc<Counts>,
}

/// A handle that does not keep the thread.
#[derive(Debug, Clone)]
pub struct WeakRadio {
    wishes: mpsc::WeakSender<Wish>,
    state: watch::Receiver<RadioState>,
    counts: Arc<Counts>,
}

impl WeakRadio {
    /// Waits until the thread has ended.
    pub async fn closed(mut self) {
        while self.state.changed().await.is_ok() {}
    }

    /// The thread, if anybody still keeps it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Radio> {
        let wishes = self.wishes.upgrade()?;
        Some(Radio { wishes, state: self.state.clone(), counts: self.counts.clone() })
    }
}

/// Somebody who waits.
#[derive(Debug)]
struct Wish {
    wanted: Wanted,
    until: Instant,
    /// Until when it is known whether anything could be heard.
    counted: Instant,
    listened: Duration,
    answer: oneshot::Sender<Result<Link, Unreachable>>,
}

/// Why everything is built anew.
#[derive(Debug)]
enum Rebuild {
    /// Nobody holds a handle any more.
    Over,
    /// As a matter of routine.
    Routine,
    /// The radio cannot be used.
    Down(String),
}

impl Radio {
    /// Starts the thread. Nothing is connected yet.
    #[must_use]
    pub fn start(settings: RadioSettings) -> Self {
        let (wishes, taken) = mpsc::channel(64);
        let (told, state) = watch::channel(RadioState::Opening);
        let counts = Arc::new(Counts::default());
        let (of_thread, of_failure) = (counts.clone(), told.clone());
        let thread = std::thread::Builder::new().name("ble".into());
        if let Err(error) = thread.spawn(move || keep_up(&settings, taken, &told, &of_thread)) {
            of_failure.send_replace(RadioState::Down(format!("no thread: {error}")));
        }
        Self { wishes, state, counts }
    }

    /// The same thread without keeping it.
    #[must_use]
    pub fn downgrade(&self) -> WeakRadio {
        WeakRadio { wishes: self.wishes.downgrade(), state: self.state.clone(), counts: self.counts.clone() }
    }

    /// Waits until the thread has ended its links and itself. It does so once every other handle is gone.
    pub async fn close(self) {
        let weak = self.downgrade();
        drop(self);
        weak.closed().await;
    }

    /// How the radio stands.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RadioState> {
        self.state.clone()
    }

    /// Connections made, peripherals not heard, connections that came to nothing, and how often all was built anew.
    #[must_use]
    pub fn counts(&self) -> [u64; 4] {
        let counts = &self.counts;
        [&counts.connected, &counts.not_heard, &counts.not_connected, &counts.rebuilt]
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Waits until a peripheral is heard and connects to it. Whoever drops the future wants it no more.
    ///
    /// # Errors
    /// When it is not there in time. Nothing was written then.
    pub async fn connect(&self, wanted: Wanted, listen: Duration) -> Result<Link, Unreachable> {
        let gone = || Unreachable::Down("its thread has ended".into());
        let (answer, answered) = oneshot::channel();
        let now = Instant::now();
        let wish = Wish { wanted, until: now + listen, counted: now, listened: listen, answer };
        self.wishes.send(wish).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// The thread: builds everything, serves until that is of no use, and builds it anew.
fn keep_up(
    settings: &RadioSettings,
    mut wishes: mpsc::Receiver<Wish>,
    state: &watch::Sender<RadioState>,
    counts: &Arc<Counts>,
) {
    let mut waiting = Vec::new();
    let mut pause = REBUILD.0;
    loop {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                state.send_replace(RadioState::Down(format!("no runtime: {error}")));
                return;
            }
        };
        let why = runtime.block_on(async {
            // btleplug connects in the thread itself: the limit holds for what comes behind that.
            let why = serve(settings, &mut wishes, &mut waiting, state, counts).await;
            if *state.borrow() == RadioState::Ready {
                pause = REBUILD.0;
            }
            match &why {
                Rebuild::Over | Rebuild::Routine => {}
                Rebuild::Down(why) => {
                    state.send_replace(RadioState::Down(why.clone()));
                    for wish in waiting.drain(..) {
                        wish.answer(Err(Unreachable::Down(why.clone())));
                    }
                    tracing::debug!(why, "the radio is given up and taken up again");
                    let until = Instant::now() + pause;
                    // Whoever comes meanwhile is told at once.
                    while let Ok(wish) = tokio::time::timeout_at(until, wishes.recv()).await {
                        let Some(wish) = wish else { return Rebuild::Over };
                        wish.answer(Err(Unreachable::Down(why.clone())));
                    }
                    pause = (pause * 2).min(REBUILD.1);
                }
            }
            why
        });
        // Closes the connection to the bus, and frees what is registered there.
        drop(runtime);
        counts.rebuilt.fetch_add(1, Ordering::Relaxed);
        if matches!(why, Rebuild::Over) {
            return;
        }
    }
}

impl Wish {
    /// Whoever does not wait any more drops the link, which ends its session.
    fn answer(self, result: Result<Link, Unreachable>) {
        drop(self.answer.send(result));
    }

    fn is_for(&self, id: &PeripheralId, name: Option<&str>) -> bool {
        match &self.wanted.whom {
            Whom::Address(address) => address_of(id) == Some(*address),
            Whom::Name(wanted) => name == Some(wanted),
        }
    }
}

/// The address in a peripheral's id, which is `hci0/dev_C0_FF_EE_00_00_01`.
fn address_of(id: &PeripheralId) -> Option<[u8; 6]> {
    let text = id.to_string();
    let (_, text) = text.rsplit_once("dev_")?;
    let mut address = [0; 6];
    let mut parts = text.split('_');
    for byte in &mut address {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(address)
}

fn down(what: &str) -> impl Fn(btleplug::Error) -> Rebuild {
    move |error| Rebuild::Down(format!("{what}: {error}"))
}

/// What a connecting task or a session tells.
pub(super) enum Told {
    Connected {
        peripheral: Peripheral,
        link: Link,
        session: Session,
    },
    Failed {
        why: Unreachable,
        class: Class,
    },
    Over {
        id: PeripheralId,
        class: Option<Class>,
    },
    Named {
        id: PeripheralId,
        name: Option<String>,
    },
    /// It is connected already, and not by a session.
    LeftOver(PeripheralId),
    /// None is.
    Nothing,
}

/// A peripheral that is being connected, or is.
struct Hold {
    /// Tells that the link is gone.
    gone: mpsc::Sender<()>,
    /// Whether it was told that there is a link.
    is_up: bool,
    _meant: Meant,
}

async fn serve(
    settings: &RadioSettings,
    wishes: &mut mpsc::Receiver<Wish>,
    waiting: &mut Vec<Wish>,
    state: &watch::Sender<RadioState>,
    counts: &Counts,
) -> Rebuild {
    match serve_or_fail(settings, wishes, waiting, state, counts).await {
        Ok(why) | Err(why) => why,
    }
}

async fn serve_or_fail(
    settings: &RadioSettings,
    wishes: &mut mpsc::Receiver<Wish>,
    waiting: &mut Vec<Wish>,
    state: &watch::Sender<RadioState>,
    counts: &Counts,
) -> Result<Rebuild, Rebuild> {
    let no_bus = |error: dbus::Error| {
        let why = error.message().unwrap_or("it says not why").to_owned();
        Rebuild::Down(format!("there is no message bus: {why}"))
    };
    let mut watch = match timeout(CALL, Watch::start()).await {
        Ok(result) => result.map_err(no_bus)?,
        Err(_elapsed) => return Err(Rebuild::Down("the message bus does not answer".into())),
    };
    let manager = within(CALL, Manager::new()).await.map_err(down("there is no message bus"))?;
    let adapter = find_adapter(&manager, settings).await?;
    let mut events = within(CALL, adapter.events()).await.map_err(down("the adapter tells nothing"))?;
    let agent = match Agent::register(watch.connection()).await {
        Ok(agent) => Some(agent),
        Err(error) => {
            tracing::warn!(%error, "no key can be agreed on: a lock that wants its link encrypted is out of reach");
            None
        }
    };
    state.send_replace(RadioState::Ready);

    let mut held: HashMap<PeripheralId, Hold> = HashMap::new();
    let mut names: HashMap<PeripheralId, Option<String>> = HashMap::new();
    let mut heard: Vec<PeripheralId> = Vec::new();
    let mut tasks: JoinSet<Told> = JoinSet::new();
    let mut connecting: Option<(Wish, PeripheralId)> = None;
    let (mut scanning, mut connections) = (false, 0_u64);
    let mut next_sign = Instant::now() + SIGN_OF_LIFE;
    loop {
        waiting.retain(|wish| !wish.answer.is_closed());
        let now = Instant::now();
        for wish in &mut *waiting {
            let since = std::mem::replace(&mut wish.counted, now);
            if !scanning {
                // Nothing could be heard meanwhile, and that is nobody's absence.
                wish.until += now - since;
            }
        }
        let is_worn = match waiting.is_empty() {
            true => CONNECTIONS.0 <= connections,
            false => CONNECTIONS.1 <= connections,
        };
        let has_room = connecting.is_none() && held.len() < SESSIONS && !is_worn;
        // Whoever waits for something that was heard is served, one at a time.
        if has_room {
            let served = heard.iter().enumerate().find_map(|(at, id)| {
                let name = names.get(id).and_then(Option::as_deref);
                let wish = waiting.iter().position(|wish| wish.is_for(id, name))?;
                (!held.contains_key(id)).then_some((at, wish))
            });
            if let Some((at, wish)) = served {
                let (id, wish) = (heard.swap_remove(at), waiting.swap_remove(wish));
                // The daemon forgets it with the scan.
                let signal = signal_of(&adapter, &id).await;
                if scanning {
                    within(CALL, adapter.stop_scan()).await.map_err(down("the scan does not stop"))?;
                    scanning = false;
                }
                let (gone, is_gone) = mpsc::channel(1);
                held.insert(id.clone(), Hold { gone, is_up: false, _meant: Meant::new(&id) });
                connections += 1;
                tasks.spawn(session::connect(
                    adapter.clone(),
                    id.clone(),
                    wish.wanted.clone(),
                    settings.clone(),
                    signal,
                    is_gone,
                ));
                connecting = Some((wish, id));
            }
        }
        let listens = !waiting.is_empty() && has_room && connecting.is_none();
        if listens && !scanning {
            if within(CALL, adapter.adapter_state()).await.map_err(down("the adapter is gone"))?
                != CentralState::PoweredOn
            {
                return Err(Rebuild::Down("the adapter is switched off, or gone: switch it on".into()));
            }
            heard.clear();
            // A link that somebody left behind keeps a peripheral from being heard.
            for wish in &*waiting {
                tasks.spawn(left_over(adapter.clone(), wish.wanted.whom.clone()));
            }
            within(CALL, adapter.start_scan(ScanFilter::default())).await.map_err(down("no scan begins"))?;
            scanning = true;
        } else if !listens && scanning {
            within(CALL, adapter.stop_scan()).await.map_err(down("the scan does not stop"))?;
            scanning = false;
        }
        if is_worn && held.is_empty() && connecting.is_none() {
            leave(agent).await;
            return Ok(Rebuild::Routine);
        }
        let next_end = waiting.iter().map(|wish| wish.until).min();
        tokio::select! {
            wish = wishes.recv() => match wish {
                Some(wish) => {
                    if scanning {
                        tasks.spawn(left_over(adapter.clone(), wish.wanted.whom.clone()));
                    }
                    waiting.push(wish);
                }
                None => {
                    if scanning {
                        let _ = within(CALL, adapter.stop_scan()).await;
                    }
                    hang_up(held, tasks).await;
                    leave(agent).await;
                    return Ok(Rebuild::Over);
                }
            },
            event = events.next() => {
                let Some(event) = event else {
                    return Err(Rebuild::Down("the adapter tells nothing any more".into()));
                };
                if let CentralEvent::DeviceConnected(id) = &event
                    && let Some(hold) = held.get_mut(id)
                {
                    hold.is_up = true;
                }
                match event {
                    CentralEvent::DeviceDisconnected(id) => {
                        // What is not connected yet was so before: the notice is late. One is as good as several.
                        let hold = held.get(&id).filter(|hold| hold.is_up);
                        let _ = hold.map(|hold| hold.gone.try_send(()));
                    }
                    CentralEvent::StateUpdate(CentralState::PoweredOff) => {
                        return Err(Rebuild::Down("the adapter was switched off: switch it on".into()));
                    }
                    CentralEvent::DeviceDiscovered(id)
                    | CentralEvent::DeviceUpdated(id)
                    | CentralEvent::DeviceConnected(id)
                    | CentralEvent::ManufacturerDataAdvertisement { id, .. }
                    | CentralEvent::ServiceDataAdvertisement { id, .. }
                    | CentralEvent::ServicesAdvertisement { id, .. }
                    | CentralEvent::RssiUpdate { id, .. } => {
                        let is_by_name = waiting.iter().any(|wish| matches!(wish.wanted.whom, Whom::Name(_)));
                        // A name may come later than everything else: it is asked for until there is one.
                        if is_by_name && names.len() < 4096 && !matches!(names.get(&id), Some(Some(_))) {
                            names.insert(id.clone(), None);
                            tasks.spawn(name_of(adapter.clone(), id.clone()));
                        }
                        if waiting.iter().any(|wish| wish.is_for(&id, names.get(&id).and_then(Option::as_deref)))
                            && !heard.contains(&id)
                        {
                            heard.push(id);
                        }
                    }
                    _ => {}
                }
            }
            Some(told) = tasks.join_next(), if !tasks.is_empty() => match told {
                Ok(Told::Connected { peripheral, link, session }) => {
                    let Some((wish, id)) = connecting.take() else { continue };
                    counts.connected.fetch_add(1, Ordering::Relaxed);
                    if let Some(hold) = held.get_mut(&id) {
                        hold.is_up = true;
                    }
                    let write = settings.write;
                    tasks.spawn(session::hold(peripheral, id, session, write));
                    wish.answer(Ok(link));
                }
                Ok(Told::Failed { why, class }) => {
                    let Some((wish, id)) = connecting.take() else { continue };
                    held.remove(&id);
                    counts.not_connected.fetch_add(1, Ordering::Relaxed);
                    wish.answer(Err(why));
                    if class == Class::Recycle {
                        hang_up(held, tasks).await;
                        return Err(Rebuild::Down("the message bus takes no more of this connection".into()));
                    }
                }
                Ok(Told::Over { id, class }) => {
                    held.remove(&id);
                    if class == Some(Class::Recycle) {
                        hang_up(held, tasks).await;
                        return Err(Rebuild::Down("the message bus takes no more of this connection".into()));
                    }
                }
                Ok(Told::Named { id, name }) => {
                    if let Some(name) = &name
                        && waiting.iter().any(|wish| wish.wanted.whom == Whom::Name(name.clone()))
                        && !heard.contains(&id)
                    {
                        heard.push(id.clone());
                    }
                    names.insert(id, name);
                }
                Ok(Told::Nothing) => {}
                Ok(Told::LeftOver(id)) => {
                    if !heard.contains(&id) && !held.contains_key(&id) {
                        heard.push(id);
                    }
                }
                // A panic in a task of ours or of the library's takes down nothing else.
                Err(error) => {
                    tracing::error!(%error, "a task of the radio broke");
                    return Err(Rebuild::Down("a part of it broke".into()));
                }
            },
            news = watch.next() => match news {
                News::DaemonGone => return Err(Rebuild::Down("the Bluetooth service has gone: start bluetoothd".into())),
                News::BusGone => return Err(Rebuild::Down("the message bus has gone".into())),
                News::DaemonBack => return Err(Rebuild::Down("the Bluetooth service has started anew".into())),
            },
            () = sleep_until(next_end.unwrap_or_else(Instant::now)), if scanning && next_end.is_some() => {
                let now = Instant::now();
                for wish in waiting.extract_if(.., |wish| wish.until <= now) {
                    counts.not_heard.fetch_add(1, Ordering::Relaxed);
                    let listened = wish.listened;
                    wish.answer(Err(Unreachable::NotHeard(listened)));
                }
            }
            () = sleep_until(next_sign) => {
                next_sign = Instant::now() + SIGN_OF_LIFE;
                let adapters = within(CALL, manager.adapters()).await;
                adapters.map_err(down("the Bluetooth service does not answer"))?;
            }
        }
    }
}

async fn find_adapter(manager: &Manager, settings: &RadioSettings) -> Result<Adapter, Rebuild> {
    let adapters =
        within(CALL, manager.adapters()).await.map_err(down("the Bluetooth service does not answer"))?;
    let mut first = None;
    for adapter in adapters {
        let info = within(CALL, adapter.adapter_info()).await.map_err(down("an adapter does not answer"))?;
        // `hci0 (usb:v1D6Bp0246d0542)`
        let name = info.split_whitespace().next().unwrap_or_default();
        match &settings.adapter {
            Some(wanted) if wanted == name => return Ok(adapter),
            Some(_) => {}
            None => drop(first.get_or_insert(adapter)),
        }
    }
    first.ok_or_else(|| {
        Rebuild::Down(match &settings.adapter {
            Some(name) => format!("there is no adapter {name}: plug it in, or name another"),
            None => "there is no adapter: plug one in".into(),
        })
    })
}

async fn leave(agent: Option<Agent>) {
    if let Some(agent) = agent {
        agent.unregister().await;
    }
}

/// Ends every session, and whatever is being connected, so that no peripheral stays connected to nobody.
async fn hang_up(held: HashMap<PeripheralId, Hold>, mut tasks: JoinSet<Told>) {
    // Sessions end by that, and nothing is tried again.
    drop(held);
    let all = async {
        while let Some(told) = tasks.join_next().await {
            if let Ok(Told::Connected { peripheral, .. }) = told {
                let _ = within(HANG_UP, peripheral.disconnect()).await;
            }
        }
    };
    let _ = timeout(HANG_UP, all).await;
}

/// A peripheral that is connected although nobody here holds it: whoever did is gone, and the daemon keeps the link.
async fn left_over(adapter: Adapter, whom: Whom) -> Told {
    let Ok(peripherals) = within(CALL, adapter.peripherals()).await else { return Told::Nothing };
    for peripheral in peripherals {
        let id = peripheral.id();
        let is_it = match &whom {
            Whom::Address(address) => address_of(&id) == Some(*address),
            Whom::Name(name) => match within(CALL, peripheral.properties()).await {
                Ok(properties) => properties.and_then(|known| known.local_name).as_ref() == Some(name),
                Err(_) => false,
            },
        };
        if is_it && matches!(within(CALL, peripheral.is_connected()).await, Ok(true)) {
            return Told::LeftOver(id);
        }
    }
    Told::Nothing
}

async fn name_of(adapter: Adapter, id: PeripheralId) -> Told {
    let name = async {
        let peripheral = within(CALL, adapter.peripheral(&id)).await.ok()?;
        within(CALL, peripheral.properties()).await.ok()??.local_name
    };
    let name = name.await;
    Told::Named { id, name }
}

/// How strong a peripheral is heard, in dBm.
async fn signal_of(adapter: &Adapter, id: &PeripheralId) -> Option<i16> {
    let peripheral = within(CALL, adapter.peripheral(id)).await.ok()?;
    within(CALL, peripheral.properties()).await.ok()??.rssi
}
