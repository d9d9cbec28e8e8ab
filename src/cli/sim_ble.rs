//! `latchd sim ble`: pretend locks with a radio, on a message bus of their own.

#![expect(clippy::print_stdout, reason = "scripts read where the bus is from its standard output")]

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    drivers::{august_yale::sim as august, ttlock::sim as ttlock},
    seams::{Clock, Random},
    sim::{
        ble::{Bluez, Bus, Place, Timing, peripheral::Peripheral},
        control,
    },
};

/// Pretend locks with a radio.
#[derive(Debug, Args)]
pub struct BleArgs {
    /// How many TTLock locks: ttlock-1, ttlock-2 and so on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub ttlock: u8,
    /// How many TTLock locks that belong to nobody, to be paired: fresh-1, fresh-2 and so on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub fresh: u8,
    /// How many August locks: august-1, august-2 and so on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub august: u8,
    /// Devices of others that only advertise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub neighbours: u8,
    /// Folder of the control socket and of the locks' keys. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// How many match rules the bus allows each connection; the system bus's own number without it.
    #[arg(long, value_name = "N")]
    pub match_rules: Option<u32>,
    /// How long the end of a link takes; with a real adapter about two seconds.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub hang_up_ms: u64,
}

/// A device that only advertises.
struct Neighbour(String);

impl Peripheral for Neighbour {
    fn advertisement(&self) -> crate::sim::ble::peripheral::Advertisement {
        crate::sim::ble::peripheral::Advertisement {
            name: self.0.clone(),
            manufacturer_data: [(0x004C, vec![0x10, 5, 1])].into(),
            ..Default::default()
        }
    }

    fn services(&self) -> Vec<crate::sim::ble::peripheral::Service> {
        Vec::new()
    }

    fn connected(&mut self, _now: Timestamp) {}

    fn disconnected(&mut self, _now: Timestamp) {}

    fn write(
        &mut self,
        _now: Timestamp,
        _to: uuid::Uuid,
        _value: &[u8],
    ) -> Result<Vec<crate::sim::ble::peripheral::Act>, crate::sim::ble::peripheral::AttError> {
        Err(crate::sim::ble::peripheral::AttError(0x03))
    }

    fn read(
        &mut self,
        _now: Timestamp,
        _from: uuid::Uuid,
    ) -> Result<Vec<u8>, crate::sim::ble::peripheral::AttError> {
        Err(crate::sim::ble::peripheral::AttError(0x02))
    }

    fn control(&mut self, _now: Timestamp, _command: &str) -> Result<String, String> {
        Err("it does nothing".into())
    }
}

/// A lock's file of keys, as the driver reads it.
fn write_keys(path: &PathBuf, keys: &Value) -> anyhow::Result<()> {
    let wrong = || format!("write {}", path.display());
    let _ = fs::remove_file(path);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(wrong)?;
    file.write_all(keys.to_string().as_bytes()).with_context(wrong)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs them until it is told to stop.
pub(super) async fn run(args: BleArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = super::sim::folder(args.dir.as_deref())?;
    fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let (random, now) = (Random::system(), Clock::system().now());
    let (mut places, mut told) = (Vec::new(), Vec::new());
    for number in 1..=args.ttlock {
        let label = format!("ttlock-{number}");
        let address = [0xC0, 0xFF, 0xEE, 0, 0, number];
        let pairing = ttlock::Pairing {
            key: random.bytes(),
            admin: u32::from_be_bytes(random.bytes()),
            unlock: u32::from_be_bytes(random.bytes()),
            flag_position: 0,
        };
        let keys = folder.join(format!("{label}.json"));
        let aes_key = hex(&pairing.key);
        write_keys(&keys, &json!({ "aes_key": aes_key, "admin": pairing.admin, "unlock": pairing.unlock }))?;
        let address_text = format!("C0:FF:EE:00:00:{number:02X}");
        told.push(json!({ "name": label, "kind": "ttlock", "address": address_text, "keys_file": keys }));
        let peripheral = Box::new(ttlock::TtLock::paired(&label, address, pairing, now));
        places.push(Place { label, address: address_text, peripheral });
    }
    for number in 1..=args.fresh {
        let label = format!("fresh-{number}");
        let address = [0xC0, 0xFF, 0xEE, 0, 1, number];
        let address_text = format!("C0:FF:EE:00:01:{number:02X}");
        told.push(json!({ "name": label, "kind": "ttlock", "address": address_text }));
        let peripheral = Box::new(ttlock::TtLock::new(&label, address, random.bytes(), now));
        places.push(Place { label, address: address_text, peripheral });
    }
    for number in 1..=args.august {
        let label = format!("august-{number}");
        let settings = august::Settings {
            serial: format!("M1{number:05}"),
            key: random.bytes(),
            key_slot: 3,
            slots: 100,
            nonce: random.bytes(),
        };
        let keys = folder.join(format!("{label}.json"));
        write_keys(&keys, &json!({ "offline_key": hex(&settings.key), "slot": settings.key_slot }))?;
        let address_text = format!("D0:FF:EE:00:00:{number:02X}");
        told.push(
            json!({ "name": label, "kind": "august_yale", "address": address_text, "keys_file": keys }),
        );
        let peripheral = Box::new(august::AugustLock::new(settings));
        places.push(Place { label, address: address_text, peripheral });
    }
    for number in 0..args.neighbours {
        let label = format!("neighbour-{number}");
        let peripheral = Box::new(Neighbour(label.clone()));
        places.push(Place { label, address: format!("E0:FF:EE:00:00:{number:02X}"), peripheral });
    }
    let mut bus = Bus::start(args.match_rules)?;
    let timing = Timing { disconnect: Duration::from_millis(args.hang_up_ms), ..Timing::default() };
    let bluez = Bluez::start(&bus.address(), timing, Clock::system(), places).map_err(anyhow::Error::msg)?;
    let path = folder.join("ble.ctl");
    let listener = control::listen(&path)?;
    println!("{}", json!({ "bus": bus.address(), "control": path, "locks": told }));
    std::io::stdout().flush()?;

    let (quit, mut told_to_quit) = tokio::sync::mpsc::channel(1);
    let (ask_bus, mut asked_bus) = tokio::sync::mpsc::channel::<(bool, tokio::sync::oneshot::Sender<_>)>(1);
    let bluez = Arc::new(Mutex::new(bluez));
    let handle = move |command: String| {
        let (bluez, quit, ask_bus) = (bluez.clone(), quit.clone(), ask_bus.clone());
        async move {
            match command.as_str() {
                "quit" => {
                    let _ = quit.send(()).await;
                    return Ok(json!({}));
                }
                "bus kill" | "bus restart" => {
                    let (answer, answered) = tokio::sync::oneshot::channel();
                    let _ = ask_bus.send((command == "bus restart", answer)).await;
                    return answered
                        .await
                        .unwrap_or_else(|_| Err("the bus is gone".into()))
                        .map(|()| json!({}));
                }
                _ => {}
            }
            let asked = tokio::task::spawn_blocking(move || {
                bluez.lock().unwrap_or_else(PoisonError::into_inner).command(&command)
            });
            let answer = asked.await.unwrap_or_else(|error| Err(error.to_string()))?;
            // A lock that answers in JSON is passed on as it is.
            Ok(serde_json::from_str::<HashMap<String, Value>>(&answer)
                .map_or_else(|_| json!({ "answer": answer }), |fields| json!(fields)))
        }
    };
    let serving = crate::seams::spawn(control::serve(listener, handle));
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = told_to_quit.recv() => break,
            Some((restart, answer)) = asked_bus.recv() => {
                let done = match restart {
                    true => bus.restart().map_err(|error| error.to_string()),
                    false => {
                        bus.kill();
                        Ok(())
                    }
                };
                let _ = answer.send(done);
            }
        }
    }
    serving.abort();
    let _ = fs::remove_file(&path);
    Ok(())
}
