//! `latchd demo`: cloud, agent and a simulated property as three real processes on this machine, and a story.
#![expect(clippy::print_stdout, reason = "the story is told on the terminal")]

mod http;
mod property;
mod story;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use self::{http::Api, property::Property};

/// How long a process may take until it says that it is up.
const START: Duration = Duration::from_secs(30);
/// The simulated property lies in Oslo.
const ZONE: &str = "Europe/Oslo";

/// See the whole road on this machine: cloud, agent and a pretend property.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
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

/// Runs the demo.
///
/// # Errors
/// When a process does not start, or a step of the story does not hold.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("make a folder for the demo")?;
    let folder = match &args.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            folder.canonicalize()?
        }
        None => scratch.path().to_owned(),
    };
    println!("latchd demo: a property, its agent and its cloud, three processes on this machine");
    let (mut sim, property) = start_property(&folder).await?;
    let (mut cloud, said) = start_cloud(&folder).await?;
    let mut agent = start_agent(&folder, &said, &property)?;
    println!("  property    SALTO SPACE, simulated: serial {} and TCP {}", property.tty, property.tcp);
    println!("  cloud       {} (its own certificate authority)", said.api);
    println!("  agent       dials {} by itself", said.bridges);
    println!("  files       {}", folder.display());
    if let Some(line) = &args.fault {
        property.control(line).await?;
        println!("  told        the simulator: {line}");
    }
    let key = std::fs::read_to_string(&said.api_key_file).context("read the API key")?.trim().to_owned();
    let api = Api::new(&said.api, &said.ca_file, key)?;
    let zone = TimeZone::get(ZONE)?;
    let told = tokio::select! {
        told = story::tell(&api, &property, &zone) => told,
        status = agent.wait() => Err(anyhow::anyhow!("the agent ended early: {}", status?)),
        status = cloud.wait() => Err(anyhow::anyhow!("the cloud ended early: {}", status?)),
        status = sim.wait() => Err(anyhow::anyhow!("the property ended early: {}", status?)),
    };
    if let Err(error) = told {
        println!("\n  FAILED      {error:#}");
        for name in ["agent", "cloud", "property"] {
            last_words(&folder, name);
        }
        bail!("a step of the demo did not hold");
    }
    println!("\nEvery step held.");
    if !args.once {
        stay(&said).await?;
    }
    Ok(())
}

/// What the cloud says when it is up.
struct CloudSaid {
    api: String,
    bridges: String,
    ca_file: PathBuf,
    api_key_file: PathBuf,
    bridge_token_file: PathBuf,
}

async fn start_property(folder: &Path) -> anyhow::Result<(Child, Property)> {
    let place = folder.join("property");
    std::fs::create_dir_all(&place)?;
    let mut command = latchd()?;
    command.args(["sim", "salto-is", "--pty", "--tcp", "127.0.0.1:0", "--dir"]).arg(&place);
    let (child, said) = start(folder, "property", command).await?;
    let text = |key: &str| {
        said[key].as_str().map(str::to_owned).with_context(|| format!("the simulator says no {key}"))
    };
    let property = Property { tty: text("tty")?, tcp: text("tcp")?, control: text("control")?.into() };
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
        bridge_token_file: text("bridge_token_file")?.into(),
    };
    Ok((child, said))
}

fn start_agent(folder: &Path, said: &CloudSaid, property: &Property) -> anyhow::Result<Child> {
    let config = folder.join("latchd.toml");
    let rooms =
        |first: u32| (first..first + 10).map(|room| format!("\"{room}\"")).collect::<Vec<_>>().join(", ");
    let system = |name: &str, line: String, encoder: &str, rooms: String, common: &str| {
        format!(
            "\n[[system]]\nname = \"{name}\"\nkind = \"salto_is\"\nexclusive = true\nline = {{ {line} }}\n\
             encoders = [\"{encoder}\"]\nrooms = [{rooms}]\n{common}"
        )
    };
    let text = format!(
        "stop_deadline = \"2s\"\n\n[site]\nname = \"Demo House\"\ntime_zone = \"{ZONE}\"\n\n\
         [cloud]\nurl = \"{}\"\ntoken_file = \"{}\"\nca_file = \"{}\"\n\n\
         [storage]\nfolder = \"agent\"\n\n[admin]\nsocket = \"agent.sock\"\n{}{}",
        said.bridges,
        said.bridge_token_file.display(),
        said.ca_file.display(),
        system(
            "house",
            format!("serial = \"{}\"", property.tty),
            "1",
            rooms(101),
            "common = [{ name = \"pool\", authorisation = 1 }]\n"
        ),
        system("annex", format!("tcp = \"{}\"", property.tcp), "2", rooms(201), ""),
    );
    std::fs::write(&config, text)?;
    let mut command = latchd()?;
    command.arg("run").arg("--config").arg(&config);
    command.stdout(log(folder, "agent")?).stderr(log(folder, "agent")?);
    command.spawn().context("start the agent")
}

fn latchd() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.stdin(Stdio::null()).kill_on_drop(true).env_remove("NOTIFY_SOCKET");
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

async fn stay(said: &CloudSaid) -> anyhow::Result<()> {
    println!("\nIt stays up until you press Ctrl-C. Try it:\n");
    println!("  URL  {}", said.api);
    println!("  key  {}  (its file; the key itself: `cat` it)", said.api_key_file.display());
    println!(
        "\n  curl --cacert {} -H \"authorization: Bearer $(cat {})\" -X POST {}/acs/entrances/list\n",
        said.ca_file.display(),
        said.api_key_file.display(),
        said.api
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
