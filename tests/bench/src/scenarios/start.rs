//! Row 10: from the exec of an agent to its welcome on loopback, with a full configuration: eight serial ports that are
//! opened, and the cloud's certificate among the roots that the machine trusts. The floor is the same program asked for
//! its version: what it takes to be there at all.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use latchd::{protocol::Position, sim::Pty};
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, runtime};
use crate::{
    Options,
    agent::{self, Process, System},
    cloud::Cloud,
    device::Devices,
    judge::{Check, Goal, Paired, Samples},
};

const PORTS: usize = 8;
/// Starts of each kind in a round.
const STARTS: usize = 15;
/// What this machine trusts.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    runtime()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Vec<Check>> {
    let program = agent::program(options.agent.as_deref())?;
    let roots = fs::read_to_string(ROOTS).with_context(|| format!("{ROOTS}: install ca-certificates"))?;
    let (mut judged, mut killed) = (Paired::default(), Samples::default());
    let (mut first, mut private) = (Samples::default(), Samples::default());
    for _ in 0..options.rounds {
        let scratch = options.scratch()?;
        let folder = scratch.path();
        let cloud = Cloud::new().await?;
        let (devices, mut seen) = Devices::new();
        // Nobody asks when; an unread channel would fill this process only.
        tokio::spawn(async move { while seen.recv().await.is_some() {} });
        let mut systems = Vec::new();
        for number in 0..PORTS {
            let port = folder.join(format!("port{number}"));
            tokio::spawn(devices.clone().serve(Pty::open(&port)?));
            systems.push(System::serial(number, &port));
        }
        let trusted = folder.join("roots.pem");
        fs::write(&trusted, format!("{roots}\n{}", cloud.ca))?;
        agent::configure(folder, &systems)?;
        let start = async || -> anyhow::Result<(Process, Duration)> {
            let mut command = agent::command(&program, folder);
            command.env("SSL_CERT_FILE", &trusted).env_remove("SSL_CERT_DIR");
            let began = Instant::now();
            let process = Process::start(folder, "agent", &mut command)?;
            // The time is told, so that the agent's reports do not grow old.
            let welcomed = cloud.welcome(Timestamp::now(), Position::default()).await;
            let took = began.elapsed();
            welcomed.with_context(|| fs::read_to_string(folder.join("agent.err")).unwrap_or_default())?;
            Ok((process, took))
        };

        cloud.take_in_vouched_for(&folder.join("agent"), None)?;
        let (process, took) = start().await?;
        first.push(took);
        stopped(process)?;
        let (mut floor, mut took) = (Samples::default(), Samples::default());
        for _ in 0..STARTS {
            floor.push(version(&program)?);
            let (process, until_welcomed) = start().await?;
            took.push(until_welcomed);
            stopped(process)?;
        }
        judged.round(floor, took.clone());
        for _ in 0..STARTS / 3 {
            start().await?.0.kill();
            let (process, until_welcomed) = start().await?;
            killed.push(until_welcomed);
            stopped(process)?;
        }
        cloud.take_in(&folder.join("agent"))?;
        for _ in 0..STARTS / 3 {
            let (process, until_welcomed) = start().await?;
            private.push(until_welcomed);
            stopped(process)?;
        }
    }
    let ms = |samples: &Samples| samples.p50() / 1000.0;
    let ratio = judged.check("10", "exec to welcome, against `latchd --version`", Goal::Told);
    let both = (ratio.floor, ratio.candidate);
    // A busy machine may take any time for it.
    let goal = if options.quick { Goal::Told } else { Goal::AtMost(30.0) };
    let took = both.1.map_or(f64::NAN, |took| took.p50_us) / 1000.0;
    let mut whole = Check::new("10", format!("exec to welcome, {PORTS} ports, roots"), took, "ms", goal);
    (whole.floor, whole.candidate) = both;
    Ok(vec![
        whole,
        ratio,
        Check::told("10", "the same with a private authority", ms(&private), "ms").of(&private),
        Check::told("10", "the same after a kill -9", ms(&killed), "ms").of(&killed),
        Check::told("10", "the very first start, which makes the database", ms(&first), "ms").of(&first),
    ])
}

/// How long the program takes to say what it is.
fn version(program: &Path) -> anyhow::Result<Duration> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    ensure!(command.status()?.success(), "latchd --version");
    Ok(began.elapsed())
}

/// Ends an agent as a service manager does.
fn stopped(mut process: Process) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(process.pid())?).context("a process id")?;
    kill_process(pid, Signal::TERM)?;
    let began = Instant::now();
    while !process.is_over()? {
        ensure!(began.elapsed() < PATIENCE, "the agent does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
