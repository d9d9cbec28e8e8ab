//! Locks by Bluetooth, over the real Bluetooth library and the pretend BlueZ of the same program: an agent that knows fifty of
//! them and has nothing to do, and how long a job holds the lock's one link. There is no floor: the pretend locks answer at
//! once, so what remains is the library, the message bus, and the pauses that the makers' protocols ask for.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use latchd::{model::Outcome, protocol::Position};
use serde_json::Value;

use super::{
    idle::{cpu, switches, switches_since},
    runtime, soon,
};
use crate::{
    Options,
    agent::{self, Process},
    cloud::{Cloud, Heard},
    jobs,
    judge::{Check, Samples},
};

/// Locks of each make.
const LOCKS: usize = 25;
const WATCHED: Duration = Duration::from_secs(30);

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    runtime()?.block_on(measure(options))
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
async fn measure(options: &Options) -> anyhow::Result<Vec<Check>> {
    let scratch = options.scratch()?;
    let folder = scratch.path();
    let program = agent::program(options.agent.as_deref())?;
    let locks = LOCKS.to_string();
    let mut sim = Command::new(&program);
    sim.args(["sim", "ble", "--ttlock", &locks, "--august", &locks, "--neighbours", "20", "--dir"])
        .arg(folder.join("ble"));
    let _sim = Process::start(folder, "ble", &mut sim)?;
    let said = soon("the simulator", async {
        loop {
            let line = fs::read_to_string(folder.join("ble.out")).ok();
            if let Some(line) = line.filter(|line| line.ends_with('\n')) {
                return serde_json::from_str::<Value>(&line).ok();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await?;
    let of_kind = |kind: &str| {
        let locks = said["locks"].as_array().into_iter().flatten().filter(|lock| lock["kind"] == kind);
        let text = |lock: &Value| {
            let (name, address, keys) = (&lock["name"], &lock["address"], &lock["keys_file"]);
            format!("{{ name = {name}, address = {address}, keys_file = {keys} }}")
        };
        locks.map(text).collect::<Vec<_>>().join(", ")
    };
    let more = format!(
        "\n[[system]]\nname = \"doors\"\nkind = \"ttlock\"\nlocks = [{}]\n\
         [[system]]\nname = \"flats\"\nkind = \"august_yale\"\nlocks = [{}]\n",
        of_kind("ttlock"),
        of_kind("august_yale")
    );
    let cloud = Cloud::new().await?;
    cloud.take_in(&folder.join("agent"))?;
    agent::configure_with(folder, &[], &more)?;
    let mut command = agent::command(&program, folder);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", said["bus"].as_str().context("the bus")?);
    let agent = Process::start(folder, "agent", &mut command)?;
    let (mut bridge, _) = cloud.welcome(Timestamp::now(), Position::default()).await?;

    let mut number = 0;
    let mut measured = Vec::new();
    for (system, lock) in [("doors", "ttlock-1"), ("flats", "august-1")] {
        let (mut reach, mut put, mut remove) = (Samples::default(), Samples::default(), Samples::default());
        for round in 0..2 * options.rounds {
            number += 1;
            let now = Timestamp::now();
            let is_put = round % 2 == 0;
            let job = match is_put {
                true => jobs::put(system, lock, &format!("{}", 510_000 + number), number, now),
                false => jobs::remove(system, lock, number, now),
            };
            bridge.order(job).await?;
            loop {
                let heard = soon("an outcome", async { Some(bridge.next().await) }).await??;
                // The agent removes by itself what ends.
                let Heard::Outcome { report, .. } = heard else { continue };
                if report.job_id != jobs::job_id(number) {
                    continue;
                }
                ensure!(matches!(report.outcome, Outcome::Succeeded(_)), "{system}: {report:?}");
                break;
            }
            let signs = signs(&program, folder, system)?;
            let millis = |key: &str| {
                Ok::<_, anyhow::Error>(Duration::from_millis(signs[key].as_u64().context("how long")?))
            };
            reach.push(millis("connect_ms")?);
            if is_put { &mut put } else { &mut remove }.push(millis("session_ms")?);
        }
        let told = |what: &str, samples: &Samples| {
            Check::told("ble", format!("{what}, {system}"), samples.p50() / 1000.0, "ms")
        };
        measured.extend([
            told("until a lock is connected", &reach),
            told("its link, a PIN put and read back", &put),
            told("its link, a PIN removed and read back", &remove),
        ]);
    }

    // The log is folded back after three seconds; from then on there is nothing to do.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, cpu_before) = (switches(agent.pid())?, cpu(agent.pid())?);
    tokio::time::sleep(WATCHED).await;
    let seconds = WATCHED.as_secs_f64();
    let wakes = switches_since(&before, agent.pid())? as f64 / seconds;
    let busy = (cpu(agent.pid())? - cpu_before) / seconds * 100.0;
    measured.push(Check::told("ble", format!("wake-ups, {} locks known, idle", 2 * LOCKS), wakes, "/s"));
    measured.push(Check::told("ble", "of one core meanwhile", busy, "%"));
    Ok(measured)
}

/// What the agent says of a system's first lock that was reached.
fn signs(program: &Path, folder: &Path, system: &str) -> anyhow::Result<Value> {
    let output = Command::new(program)
        .args(["status", "--json", "--config"])
        .arg(folder.join("agent.toml"))
        .output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    let mut systems = status["systems"].as_array().into_iter().flatten();
    let of = systems.find(|one| one["name"] == system).context("the system")?;
    Ok(of["signs"][0].clone())
}
