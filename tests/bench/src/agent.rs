//! The agent as it is shipped, as a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::SystemTime,
};

use anyhow::{Context, ensure};

use crate::{cloud::Cloud, jobs, preload::Preload};

/// Finds the program that was built beside this one, or where it was named.
pub fn program(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let ours = std::env::current_exe()?;
    let beside = ours.with_file_name("latchd");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let in_tree = root.join("target/release/latchd");
    let path = match named {
        Some(named) => named.to_owned(),
        None => [beside, in_tree].into_iter().find(|path| path.exists()).context(
            "there is no latchd to measure: run `cargo build --release` in the repository's folder, or name one with \
             --agent",
        )?,
    };
    let built = fs::metadata(&path).with_context(|| path.display().to_string())?.modified()?;
    if named.is_none() {
        let changed = newest(&root.join("src"))?;
        ensure!(
            changed <= built,
            "{} is older than its sources: run `cargo build --release` in the repository's folder",
            path.display()
        );
    }
    Ok(path)
}

fn newest(folder: &Path) -> anyhow::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let at = match entry.file_type()?.is_dir() {
            true => self::newest(&entry.path())?,
            false => entry.metadata()?.modified()?,
        };
        newest = newest.max(at);
    }
    Ok(newest)
}

/// A child; killed with its handle.
pub struct Process(Child);

impl Process {
    /// Starts a program whose words go to a file, never to our own output.
    pub fn start(folder: &Path, name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let log = |end: &str| fs::File::create(folder.join(format!("{name}.{end}")));
        let child = command
            .stdin(Stdio::null())
            .stdout(log("out")?)
            .stderr(log("err")?)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self(child))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// `kill -9`, and wait until it is gone.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One system of the agent's configuration: its name, and its line as the configuration spells it.
pub struct System {
    pub name: String,
    pub line: String,
    /// How many rooms it has.
    pub rooms: u64,
}

impl System {
    pub fn tcp(number: usize, address: &str) -> Self {
        Self { name: format!("s{number}"), line: format!("tcp = \"{address}\""), rooms: jobs::ROOMS }
    }

    pub fn serial(number: usize, port: &Path) -> Self {
        let port = port.display();
        Self {
            name: format!("s{number}"),
            line: format!("serial = \"{port}\", baud = 115200, hardware_handshake = false"),
            rooms: jobs::ROOMS,
        }
    }
}

/// Writes a configuration and starts an agent in a folder.
pub fn start(
    program: &Path,
    folder: &Path,
    cloud: &Cloud,
    systems: &[System],
    preload: Option<&Preload>,
) -> anyhow::Result<Process> {
    cloud.take_in(&folder.join("agent"))?;
    configure(folder, systems)?;
    let mut command = command(program, folder);
    if let Some(preload) = preload {
        preload.under(&mut command);
    }
    Process::start(folder, "agent", &mut command)
}

/// Writes a configuration.
pub fn configure(folder: &Path, systems: &[System]) -> anyhow::Result<()> {
    configure_with(folder, systems, "")
}

/// The same with more behind it.
pub fn configure_with(folder: &Path, systems: &[System], more: &str) -> anyhow::Result<()> {
    let mut text = r#"
        [site]
        name = "Bench"
        time_zone = "Europe/Oslo"
        [storage]
        folder = "agent"
        [admin]
        socket = "agent.sock"
        [limits]
        cards_per_hour = 100000
        waiting_jobs = 1000000
        "#
    .to_owned();
    for system in systems {
        let rooms: Vec<String> = (0..system.rooms).map(jobs::room).collect();
        text += &format!(
            r#"
            [[system]]
            name = "{name}"
            kind = "salto_is"
            exclusive = true
            line = {{ {line} }}
            encoders = ["1"]
            rooms = {rooms:?}
            "#,
            name = system.name,
            line = system.line,
        );
    }
    fs::write(folder.join("agent.toml"), text + more)?;
    Ok(())
}

/// Runs what was configured.
pub fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(folder.join("agent.toml"));
    command
}
