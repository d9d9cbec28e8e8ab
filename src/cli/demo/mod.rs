//! `latchd demo`: cloud, agent and a simulated property as three real processes on this machine, and a story.
#![expect(clippy::print_stdout, reason = "the story is told on the terminal")]

mod desk;
mod house;
mod http;
mod locks;
mod property;
mod story;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use jiff::tz::TimeZone;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    signal::{
        self,
        unix::{SignalKind, signal},
    },
    time::timeout,
};

pub use self::house::House;
use self::{http::Api, property::Property};
use crate::agent::pairing;

/// How long a process may take until it says that it is up.
const START: Duration = Duration::from_secs(30);
/// How long one may take to end by itself; above the agent's `stop_deadline`.
const END: Duration = Duration::from_secs(5);
/// The simulated property lies in Oslo.
const ZONE: &str = "Europe/Oslo";

/// See the whole road on this machine: cloud, agent and a pretend property.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Which access system the property has.
    #[arg(long, value_enum, default_value_t = House::Salto)]
    pub system: House,
    /// Leave after the story; the exit code says whether every step held.
    #[arg(long)]
    pub once: bool,
    /// Keep databases, logs and keys in this folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Send this line to the simulator's control socket before the story, e.g. "fault error EG 1".
    #[arg(long, value_name = "LINE")]
    pub fault: Option<String>,
}

/// Runs the demo. However it ends, by itself or by a signal, its processes end with it, and its folder goes unless it
/// was to be kept.
///
/// # Errors
/// When a process does not start, a step of the story does not hold, or a signal comes before the end of the story.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let scratch = tempfile::tempdir().context("make a folder for the demo")?;
    let folder = match &args.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            folder.canonicalize()?
        }
        None => scratch.path().to_owned(),
    };
    let mut processes = Vec::new();
    let shown = tokio::select! {
        biased;
        () = signals.any() => Err(anyhow::anyhow!("told to stop before the end of the story")),
        shown = show(&args, &folder, &mut processes) => shown,
    };
    let ended = match shown {
        Ok(said) if !args.once => stay(&said, &mut signals, &mut processes).await,
        shown => shown.map(drop),
    };
    end(processes).await;
    ended
}

/// Starts the three processes and tells the story.
async fn show(args: &DemoArgs, folder: &Path, processes: &mut Vec<Process>) -> anyhow::Result<CloudSaid> {
    println!("latchd demo: a property, its agent and its cloud, three processes on this machine");
    if args.system == House::Ble && args.keep.is_some() {
        bail!("the pretended locks forget everything when they end: --keep does not go with --system ble");
    }
    args.system.claim(folder)?;
    let (sim, property) = start_property(folder, args.system).await?;
    processes.push(Process { name: "property", child: sim });
    let (cloud, said) = start_cloud(folder).await?;
    processes.push(Process { name: "cloud", child: cloud });
    let config = write_agent_config(folder, &said, &args.system.sections(folder, &property)?)?;
    let was_kept = folder.join("agent").join(pairing::FILE).exists();
    let paired = match was_kept {
        true => "as it was when this folder was kept".to_owned(),
        false => {
            format!("by a code that counts once; the cloud's fingerprint is {}", pair(folder, &config).await?)
        }
    };
    let serial = property.tty.as_ref().map_or_else(String::new, |tty| format!("serial {tty} and "));
    match args.system {
        House::Ble => println!("  property    {}, simulated: BlueZ on {}", args.system.title(), property.bus),
        _ => println!("  property    {}, simulated: {serial}TCP {}", args.system.title(), property.tcp),
    }
    println!("  cloud       {} (its own certificate authority)", said.api);
    println!("  agent       dials {} by itself", said.bridges);
    println!("  paired      {paired}");
    println!("  files       {}", folder.display());
    if args.system == House::Ble {
        locks::hand_over_keys(folder, &config, &property).await?;
    }
    let agent = start_agent(folder, &config, &property)?;
    processes.push(Process { name: "agent", child: agent });
    if let Some(line) = &args.fault {
        property.control(line).await?;
        println!("  told        the simulator: {line}");
    }
    let key = std::fs::read_to_string(&said.api_key_file).context("read the API key")?.trim().to_owned();
    let api = Api::new(&said.api, &said.ca_file, key)?;
    let zone = TimeZone::get(ZONE)?;
    let told = tokio::select! {
        told = async {
            match args.system {
                House::Ble => locks::tell(&api, &property).await,
                _ => story::tell(args.system, &api, &property, &zone, was_kept).await,
            }
        } => told,
        early = one_ends(processes) => Err(early),
    };
    if let Err(error) = told {
        println!("\n  FAILED      {error:#}");
        for name in ["agent", "cloud", "property"] {
            last_words(folder, name);
        }
        bail!("a step of the demo did not hold");
    }
    println!("\nEvery step held.");
    Ok(said)
}

/// A process of the demo.
struct Process {
    name: &'static str,
    child: Child,
}

/// Waits until a process ends that should not.
async fn one_ends(processes: &mut [Process]) -> anyhow::Error {
    let ends = processes.iter_mut().map(|Process { name, child }| {
        Box::pin(async move {
            match child.wait().await {
                Ok(status) => anyhow::anyhow!("the {name} ended early: {status}"),
                Err(error) => anyhow::Error::from(error).context(format!("wait for the {name}")),
            }
        })
    });
    futures_util::future::select_all(ends).await.0
}

/// Ends the processes, the last one first, and waits until each is gone.
async fn end(mut processes: Vec<Process>) {
    while let Some(Process { name, mut child }) = processes.pop() {
        // None once it was waited for: its number may be somebody else's by now.
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if asked && timeout(END, child.wait()).await.is_ok() {
            continue;
        }
        if let Err(error) = child.kill().await {
            tracing::debug!(name, %error, "a process of the demo could not be ended");
        }
    }
}

/// What a person, a service manager or a closing terminal sends.
struct Signals {
    interrupt: signal::unix::Signal,
    terminate: signal::unix::Signal,
    hangup: signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// What the cloud says when it is up.
struct CloudSaid {
    api: String,
    bridges: String,
    ca_file: PathBuf,
    api_key_file: PathBuf,
}

async fn start_property(folder: &Path, house: House) -> anyhow::Result<(Child, Property)> {
    let place = folder.join("property");
    std::fs::create_dir_all(&place)?;
    let mut command = latchd()?;
    command.arg("sim").args(house.simulator());
    if house != House::Ble {
        command.args(["--tcp", "127.0.0.1:0"]);
    }
    command.arg("--dir").arg(&place);
    let (child, said) = start(folder, "property", command).await?;
    let text = |key: &str| {
        said[key].as_str().map(str::to_owned).with_context(|| format!("the simulator says no {key}"))
    };
    let tty = house.has_serial_line().then(|| text("tty")).transpose()?;
    let property = match house {
        House::Ble => Property {
            tty,
            tcp: String::new(),
            bus: text("bus")?,
            control: text("control")?.into(),
            locks: said["locks"].clone(),
        },
        _ => Property {
            tty,
            tcp: text("tcp")?,
            bus: String::new(),
            control: text("control")?.into(),
            locks: Value::Null,
        },
    };
    Ok((child, property))
}

async fn start_cloud(folder: &Path) -> anyhow::Result<(Child, CloudSaid)> {
    let config = folder.join("cloud.toml");
    let text = "[storage]\nfolder = \"cloud\"\n\n[workspace]\nname = \"Demo\"\n\n[api]\nlisten = \"127.0.0.1:0\"\n\n\
                [bridges]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&config, text)?;
    let mut command = latchd()?;
    command.arg("cloud").arg("--config").arg(&config);
    let (child, said) = start(folder, "cloud", command).await?;
    let text =
        |key: &str| said[key].as_str().map(str::to_owned).with_context(|| format!("the cloud says no {key}"));
    let said = CloudSaid {
        api: text("api")?,
        bridges: text("bridges")?,
        ca_file: text("ca_file")?.into(),
        api_key_file: text("api_key_file")?.into(),
    };
    Ok((child, said))
}

fn write_agent_config(folder: &Path, said: &CloudSaid, systems: &str) -> anyhow::Result<PathBuf> {
    let config = folder.join("latchd.toml");
    let text = format!(
        "stop_deadline = \"2s\"\n\n[site]\nname = \"Demo House\"\ntime_zone = \"{ZONE}\"\n\n\
         [cloud]\nurl = \"{}\"\n\n\
         [storage]\nfolder = \"agent\"\n\n[admin]\nsocket = \"agent.sock\"\n{systems}",
        said.bridges,
    );
    std::fs::write(&config, text)?;
    Ok(config)
}

/// Takes the site into the cloud, by the commands that a person types at each end. Gives the cloud's fingerprint.
async fn pair(folder: &Path, config: &Path) -> anyhow::Result<String> {
    let mut invite = latchd()?;
    invite.args(["cloud", "bridges", "pair", "--name", "Demo House", "--accept", "--json", "--by", "demo"]);
    invite.arg("--config").arg(folder.join("cloud.toml"));
    let (mut invite, said) = start(folder, "invitation", invite).await?;
    let text = |key: &str| said[key].as_str().with_context(|| format!("the invitation says no {key}"));
    let fingerprint = text("cloud_fingerprint")?;
    let mut pair = latchd()?;
    pair.args(["pair", text("url")?, "--code", text("code")?, "--fingerprint", fingerprint]);
    pair.arg("--config").arg(config);
    pair.stdout(log(folder, "pairing")?).stderr(log(folder, "pairing")?);
    let paired = timeout(START, pair.status()).await;
    let paired = paired.with_context(|| format!("the site was not paired within {START:?}"))??;
    if !paired.success() {
        last_words(folder, "pairing");
        bail!("the site could not be paired");
    }
    let taken_in = timeout(START, invite.wait()).await.context("the invitation did not end")??;
    ensure!(taken_in.success(), "the cloud did not take the site in");
    Ok(fingerprint.to_owned())
}

fn start_agent(folder: &Path, config: &Path, property: &Property) -> anyhow::Result<Child> {
    let mut command = latchd()?;
    if !property.bus.is_empty() {
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &property.bus);
    }
    command.arg("run").arg("--config").arg(config);
    command.stdout(log(folder, "agent")?).stderr(log(folder, "agent")?);
    command.spawn().context("start the agent")
}

fn latchd() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    // In a group of its own: what a terminal sends reaches the demo alone, which then ends the others in order.
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0).env_remove("NOTIFY_SOCKET");
    Ok(command)
}

/// Starts a process and reads the one JSON line that it prints when it is up.
async fn start(folder: &Path, name: &str, mut command: Command) -> anyhow::Result<(Child, Value)> {
    command.stdout(Stdio::piped()).stderr(log(folder, name)?);
    let mut child = command.spawn().with_context(|| format!("start the {name}"))?;
    let stdout = child.stdout.take().expect("it was asked for");
    let mut lines = BufReader::new(stdout).lines();
    let said = timeout(START, async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with('{') {
                return anyhow::Ok(serde_json::from_str(&line)?);
            }
        }
        last_words(folder, name);
        bail!("the {name} ended before it was up")
    });
    let said = said.await.with_context(|| format!("the {name} did not come up within {START:?}"))??;
    // Whatever else it prints is nobody's concern, but its pipe must not fill or break.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, said))
}

fn log(folder: &Path, name: &str) -> anyhow::Result<std::fs::File> {
    let path = folder.join(format!("{name}.log"));
    std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))
}

fn last_words(folder: &Path, name: &str) {
    let path = folder.join(format!("{name}.log"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    println!("\n  the {name}'s last lines:");
    let lines: Vec<_> = text.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(12)) {
        println!("    {line}");
    }
}

async fn stay(said: &CloudSaid, signals: &mut Signals, processes: &mut [Process]) -> anyhow::Result<()> {
    println!("\nIt stays up until you press Ctrl-C. Try it:\n");
    println!("  URL  {}", said.api);
    // The key itself only for a person's eyes, never into a log.
    match std::io::stdout().is_terminal() {
        true => println!("  key  {}", std::fs::read_to_string(&said.api_key_file)?.trim()),
        false => println!("  key  {}", said.api_key_file.display()),
    }
    println!(
        "\n  curl --cacert {} -H \"authorization: Bearer $(cat {})\" -X POST {}/acs/entrances/list\n",
        said.ca_file.display(),
        said.api_key_file.display(),
        said.api
    );
    tokio::select! {
        biased;
        () = signals.any() => Ok(()),
        early = one_ends(processes) => Err(early),
    }
}
