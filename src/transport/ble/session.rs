//! One connection: made, held for whoever wanted it, and ended.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use btleplug::{
    api::{Central as _, Peripheral as _, WriteType},
    platform::{Adapter, Peripheral, PeripheralId},
};
use futures_util::{Stream, StreamExt};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    errors::{self, Class},
    gatt::WriteKind,
    link::{Ask, Broken, Link},
    radio::{RadioSettings, Told, Unreachable, Wanted},
};

/// For calls that ask the daemon and no peripheral.
pub(super) const CALL: Duration = Duration::from_secs(5);
/// For the daemon to end a link; it takes two seconds by itself.
pub(super) const HANG_UP: Duration = Duration::from_secs(5);
/// For the daemon to tell a peripheral's table once it is connected.
const DISCOVER: Duration = Duration::from_secs(10);
/// How long a table may stay empty that was said to be there.
const RESOLVED: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long a link may seem lost that is being made: it may be the notice of the one before that was late.
const SEEMS_LOST: Duration = Duration::from_secs(1);
/// Tries of one connection, where an error says that another one may do better.
const TRIES: u32 = 3;
/// Values that nobody has taken yet; a peripheral that sends more than this loses the link.
const VALUES: usize = 256;

/// What a session is made of.
pub(super) struct Session {
    asks: mpsc::Receiver<Ask>,
    values: mpsc::Sender<(Uuid, Vec<u8>)>,
    notified: Pin<Box<dyn Stream<Item = btleplug::api::ValueNotification> + Send>>,
    /// Hears when the link is gone.
    gone: mpsc::Receiver<()>,
}

/// Waits for a call, and no longer than this.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = btleplug::Result<T>>,
) -> Result<T, btleplug::Error> {
    timeout(limit, call).await.unwrap_or(Err(btleplug::Error::TimedOut(limit)))
}

/// Makes a connection; tries again where that may do better.
pub(super) async fn connect(
    adapter: Adapter,
    id: PeripheralId,
    wanted: Wanted,
    settings: RadioSettings,
    signal: Option<i16>,
    mut gone: mpsc::Receiver<()>,
) -> Told {
    let mut last = (Unreachable::NotConnected("it was not tried".into()), Class::Again);
    for _ in 0..TRIES {
        // What was told of the try before.
        while gone.try_recv().is_ok() {}
        let mut is_wanted = true;
        let peripheral = match within(CALL, adapter.peripheral(&id)).await {
            Ok(peripheral) => peripheral,
            Err(error) => {
                last = (Unreachable::NotConnected(error.to_string()), errors::class(&error));
                break;
            }
        };
        let attempt = async {
            if matches!(within(CALL, peripheral.is_connected()).await, Ok(true)) {
                // Nobody knows how far whoever left it had come.
                within(HANG_UP, peripheral.disconnect()).await?;
            }
            within(settings.connect, peripheral.connect()).await?;
            let until = Instant::now() + RESOLVED;
            loop {
                within(DISCOVER, peripheral.discover_services()).await?;
                if peripheral.services().iter().any(|service| service.uuid == wanted.service) {
                    return Ok(true);
                }
                // The table may be told to be there before it is.
                if until <= Instant::now() {
                    return Ok(false);
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let result = tokio::select! {
            result = attempt => result,
            // btleplug would wait for a table that no longer comes.
            is_lost = is_lost(&peripheral, &mut gone, SEEMS_LOST) => {
                is_wanted = is_lost;
                Err(btleplug::Error::NotConnected)
            }
        };
        let result = match result {
            Ok(true) => within(CALL, peripheral.notifications()).await.map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let error = match result {
            Ok(Some(notified)) => {
                let (asks, taken) = mpsc::channel(1);
                let (values, told) = mpsc::channel(VALUES);
                let session = Session { asks: taken, values, notified, gone };
                return Told::Connected { peripheral, link: Link::new(asks, told, signal), session };
            }
            Ok(None) => {
                let _ = within(HANG_UP, peripheral.disconnect()).await;
                return Told::Failed { why: Unreachable::OtherDevice(wanted.service), class: Class::Refused };
            }
            Err(error) => error,
        };
        tracing::debug!(peripheral = %id, %error, "no connection");
        // Also what was given up goes on at the daemon until it is called off.
        let _ = within(HANG_UP, peripheral.disconnect()).await;
        let class = errors::class(&error);
        let is_late = matches!(error, btleplug::Error::TimedOut(_));
        last = (Unreachable::NotConnected(error.to_string()), class);
        if !is_wanted || class != Class::Again || is_late && !errors::is_in_progress(&error) {
            break;
        }
    }
    Told::Failed { why: last.0, class: last.1 }
}

/// Waits until a link is lost, or nobody wants it any more. Tells which. A notice of the link before may come late, among
/// much else that was heard: it is believed once there has been no link for so long.
async fn is_lost(peripheral: &Peripheral, gone: &mut mpsc::Receiver<()>, seems: Duration) -> bool {
    while gone.recv().await.is_some() {
        let until = Instant::now() + seems;
        while !matches!(within(CALL, peripheral.is_connected()).await, Ok(true)) {
            if until <= Instant::now() {
                return true;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
    false
}

/// Holds a connection until its holder drops the link, or the link is gone.
pub(super) async fn hold(
    peripheral: Peripheral,
    id: PeripheralId,
    session: Session,
    write: Duration,
) -> Told {
    let Session { mut asks, values, mut notified, mut gone } = session;
    let mut is_over = pin!(is_lost(&peripheral, &mut gone, Duration::ZERO));
    let characteristics = peripheral.characteristics();
    let find = |uuid: Uuid| characteristics.iter().find(|characteristic| characteristic.uuid == uuid);
    let mut worst = None;
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some(ask) = ask else { break };
                let (Ask::Subscribe { to, .. } | Ask::Write { to, .. }) = &ask;
                let result = match (find(*to), &ask) {
                    (None, _) => Err(btleplug::Error::NoSuchCharacteristic),
                    (Some(characteristic), Ask::Subscribe { .. }) => {
                        within(CALL, peripheral.subscribe(characteristic)).await
                    }
                    (Some(characteristic), Ask::Write { value, kind, .. }) => {
                        let kind = match kind {
                            WriteKind::Request => WriteType::WithResponse,
                            WriteKind::Command => WriteType::WithoutResponse,
                        };
                        within(write, peripheral.write(characteristic, value, kind)).await
                    }
                };
                let result = match result {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        let class = errors::class(&error);
                        tracing::debug!(peripheral = %id, %error, ?class, "a call did not go through");
                        worst = Some(class);
                        // Told by the same error: the peer's own refusal, and a link that was lost.
                        let is_there = errors::is_unlikely_error(&error)
                            && matches!(within(CALL, peripheral.is_connected()).await, Ok(true));
                        Err(if class == Class::Refused || is_there { Broken::Refused } else { Broken::Lost })
                    }
                };
                let is_lost = result == Err(Broken::Lost);
                let (Ask::Subscribe { answer, .. } | Ask::Write { answer, .. }) = ask;
                let _ = answer.send(result);
                if is_lost {
                    break;
                }
            }
            value = notified.next() => {
                let Some(value) = value else { break };
                // Whoever does not listen to what it asked for is not to fill the memory with it.
                if values.try_send((value.uuid, value.value)).is_err() {
                    break;
                }
            }
            _ = &mut is_over => break,
        }
    }
    drop((values, asks, notified));
    if let Err(error) = within(HANG_UP, peripheral.disconnect()).await {
        tracing::debug!(peripheral = %id, %error, "the link was not ended in time");
        worst = worst.or(Some(errors::class(&error)));
    }
    Told::Over { id, class: worst }
}
