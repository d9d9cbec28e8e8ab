//! The command line: the only room that prints.

mod audit;
mod backup;
mod bridges;
mod check_config;
pub mod cloud;
pub mod demo;
mod devices;
mod doctor;
mod encode;
mod grant;
mod jobs;
mod keys;
mod lanes;
mod logging;
mod order;
mod pair;
mod probe;
mod run;
mod schema;
mod setup;
pub mod sim;
pub mod sim_ble;
mod slots;
mod status;
mod systems;
mod table;
mod watch;
mod webhooks;

use std::{
    future::Future,
    io::{self, Write},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::{
    agent::admin::{self, Request, Response},
    config::{Admin, AgentConfig, CloudConfig, ConfigErrors},
};
use logging::LogFormat;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it went wrong, and the last lines on standard error say how
  2  the command line itself is wrong
  3  `latchd status`: the agent answers, and something needs a person;
     `latchd jobs watch JOB_ID`: the job ended in doubt
  `latchd doctor` and `latchd probe` end with 0 if all is well, 1 if something is
  worth a look, 2 if something does not work

Environment:
  LATCHD_LOG   what is logged, e.g. info, debug, or info,latchd::link=debug;
               `wire=trace` adds the bytes on the lines to the lock systems
";

const EXAMPLES: &str = "\
Examples:
  latchd demo --once                          see the whole road on this machine
  latchd check-config latchd.toml             find the mistakes in a configuration
  latchd pair https://cloud.example --code ABCD-EFGH
                                              take a property into its cloud
  latchd run --config latchd.toml             bring a property to its cloud
  latchd status                               what works, what does not, since when
  latchd doctor                               what is missing, and the next step
  latchd jobs list --state unknown            what a person must look at
  latchd jobs watch                           every step of every job, live
  latchd grant show booking-7                 where a guest may go, and the cards
  latchd encode booking-7 --encoder 1         write them, with or without the cloud
";

/// Brings a property's access systems to the cloud: hotel locks, card encoders.
///
/// One program in several roles. On the property, `latchd run` dials out to the cloud, takes jobs ("make a card for
/// room 101 until noon") and does each of them once with the lock system at hand, or says honestly that it does not
/// know. `latchd cloud` is the other end: the HTTP API that your software talks to.
#[derive(Debug, Parser)]
#[command(name = "latchd", version, propagate_version = true, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines look on standard error.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: bring this property to its cloud.
    ///
    /// Dials out to the cloud, takes jobs, and does each once. SIGTERM or ctrl-c takes no new work, finishes what runs
    /// within `stop_deadline`, and leaves; a second signal leaves at once. SIGHUP reads the configuration again: a wrong
    /// one changes nothing and is told by `latchd status`. Where the cloud was out of reach, it is dialled at once.
    Run(run::RunArgs),
    /// Take this property into a cloud.
    ///
    /// Makes keys that never leave this machine, shows two fingerprints to compare, and sends the cloud's pairing code
    /// with a request for a certificate. What comes back lies in one file of mode 0600 beside the queue. Can be repeated
    /// when it was interrupted; a pairing that is there is replaced only with --replace, and only by an answer.
    Pair(pair::PairArgs),
    /// Run the cloud: the HTTP API, and the place where bridges dial in.
    ///
    /// First start makes API key and certificate authorities as files of mode 0600 and prints where they are. A bridge
    /// comes in with a code: see `latchd cloud bridges pair`.
    Cloud(run::CloudArgs),
    /// Run a pretend access system to try things out with.
    ///
    /// Doors, cards and encoders in memory, behind a real serial port or TCP port. Cards are laid down and used, and
    /// things go wrong, at its control socket.
    Sim(sim::SimArgs),
    /// See the whole road on this machine: cloud, agent and a pretend property.
    ///
    /// Three processes, joined by TLS, a serial line and TCP, make cards for two guests and the stay after them, and
    /// tell what happens. Then they stay up, with a command line to try the API, unless --once is given.
    Demo(demo::DemoArgs),
    /// Find the mistakes in configuration files.
    ///
    /// Shows every mistake with its line and a way out, and opens nothing but the files themselves: neither ports nor
    /// secrets. Whether a file is the agent's or the cloud's is told by its content.
    CheckConfig(check_config::CheckConfigArgs),
    /// Bring an access system's rooms, common doors and encoders in from a spreadsheet.
    ///
    /// Shows what would change, and writes it with --apply: all of it or, where anything is wrong, nothing. The rest of
    /// the configuration stays as you wrote it. Done a second time, it changes nothing.
    Setup(setup::SetupArgs),
    /// Ask the running agent how everything is.
    ///
    /// To whom the property is enrolled, the link to the cloud, each access system, each lane, and what needs a person.
    /// Ends with code 3 where something does, so that a monitor can ask too.
    Status(status::StatusArgs),
    /// Look at everything the agent needs, and say what is missing.
    ///
    /// Configuration, secrets and their permissions, disk, database, clock, the way to the cloud and to each access
    /// system, and what a running agent has on its mind; each with the next step. Changes nothing and tells no secret.
    /// Ends with 0 if all is well, 1 if something is worth a look, 2 if something does not work.
    Doctor(doctor::DoctorArgs),
    /// Ask an access system harmless questions, and show what it says.
    ///
    /// Opens the line as the agent would and asks what changes nothing: each question with what was expected and what
    /// was seen. Stop the agent first where the system serves one client only. With --record what passed is kept, without
    /// names, passwords and card numbers. Ends with 0 if all is as expected, 1 if something is worth a look, 2 if the
    /// system cannot be worked with.
    Probe(probe::ProbeArgs),
    /// Look at the running agent's jobs, and act on them.
    ///
    /// What was ordered, where it stands, and why; live, too. A job that is `unknown` may have been done: read the card,
    /// or look, before anything is ordered again.
    Jobs(jobs::JobsArgs),
    /// Look at the grants that lead to this property's doors, and make some, with or without the cloud.
    ///
    /// The cloud tells them while it is there; the agent keeps them, sealed, so that the desk can go on without it. What is
    /// shown of a card is what this site knows of it. What is made or taken back here is told to the cloud as a fact.
    Grant(grant::GrantArgs),
    /// Write the cards of a grant at the desk, with or without the cloud.
    ///
    /// One card after the other, each when you say so: whatever lies on the encoder is written. The property's limits and
    /// its door ledger hold as for any other card, and the cloud is told when it is there again. A card that is written,
    /// or that may be, is refused. Ctrl-c takes back what was not sent. Ends with 0 if all were written, 3 if one is in
    /// doubt, else 1.
    Encode(encode::EncodeArgs),
    /// Copy the agent's queue to a file, while it works or not.
    ///
    /// The copy is of one moment, whole, and readable by its owner alone. It does not hold the seal key, without which
    /// nobody can use it: keep a copy of that elsewhere too, and the configuration and the pairing with it.
    Backup(backup::BackupArgs),
    /// Put a copy back in the place of the agent's queue; the agent must not run.
    ///
    /// The copy is judged before anything is touched, and the present queue is kept under another name. What was under
    /// way at the time of the copy is in doubt afterwards and is not done again: see `latchd jobs list --state unknown`.
    Restore(backup::RestoreArgs),
    /// Look at the running agent's lanes, and pause them.
    ///
    /// A lane is one encoder, lock or shared line: one job is at work there at a time. A paused lane begins nothing new
    /// until it is resumed, also after a restart; its jobs wait, and expire at their deadlines.
    Lanes(lanes::LanesArgs),
    /// Give the agent what it needs to speak to locks by Bluetooth.
    ///
    /// Pairs a TTLock that belongs to nobody, or takes over the keys that a lock's maker gave. They are kept sealed with
    /// the site's own key, each for its lock alone.
    Devices(devices::DevicesArgs),
    /// List what each make of access system can do, and how well each thing is proven.
    ///
    /// It is what the drivers declare. What a driver does not declare is refused before anything is sent.
    Systems(systems::SystemsArgs),
    /// List what the property refused, and who decided what there.
    ///
    /// Newest first: refusals by the property's limits and its door ledger, doubts that were settled, cards that were
    /// confirmed or declined, lanes that were paused, grants that were made or taken back; with the name that was given.
    Audit(audit::AuditArgs),
    /// List the slots of locks that the running agent looks after.
    ///
    /// Which slot of which device, what is known of it, and when it will be emptied. Never the code in it.
    Slots(slots::SlotsArgs),
    /// Print the language between bridge and cloud as a JSON Schema.
    ///
    /// Draft 2020-12, of the newest version: every message of the websocket, what is signed inside, and the requests and answers
    /// of enrolment, for whoever writes another cloud or another agent. With --openapi, the HTTP API of the cloud as an
    /// OpenAPI document. The same program always prints the same bytes.
    Schema(schema::SchemaArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        // `latchd jobs list | head` is no mistake.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = io::stderr().lock();
            let _ = match error.downcast_ref() {
                Some(mistakes @ ConfigErrors::Mistakes { .. }) => writeln!(stderr, "{mistakes}"),
                _ => writeln!(stderr, "latchd: {error:#}"),
            };
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let format = cli.log_format;
    match cli.command {
        Command::Run(args) => {
            let config = AgentConfig::load(&args.config)?;
            logging::start(format, "info")?;
            in_runtime(as_task(async move { crate::agent::run(&args.config, config).await }))?;
        }
        Command::Pair(args) => in_runtime(pair::run(&args))?,
        Command::Cloud(run::CloudArgs { what: Some(what), config }) => match what {
            run::CloudCommand::Copies(what) => backup::cloud(&what, &config)?,
            run::CloudCommand::Bridges { what } => return in_runtime(bridges::run(&what, &config)),
            run::CloudCommand::Keys { what } => in_runtime(keys::api_keys(&what, &config))?,
            run::CloudCommand::Workspaces { what } => in_runtime(keys::workspaces(&what, &config))?,
            run::CloudCommand::Webhooks { what } => in_runtime(webhooks::run(&what, &config))?,
            run::CloudCommand::SigningKeys { what } => in_runtime(bridges::keys(&what, &config))?,
        },
        Command::Cloud(args) => {
            let config = CloudConfig::load(&args.config)?;
            logging::start(format, "info")?;
            in_runtime(cloud::run(config))?;
        }
        Command::Sim(args) => {
            logging::start(format, "info")?;
            in_runtime(sim::run(args))?;
        }
        Command::Demo(args) => {
            logging::start(format, "warn")?;
            in_runtime(demo::run(args))?;
        }
        Command::CheckConfig(args) => return check_config::run(&args),
        Command::Status(args) => return in_runtime(status::run(&args)),
        Command::Doctor(args) => return in_runtime(doctor::run(&args)),
        Command::Probe(args) => return in_runtime(probe::run(&args)),
        Command::Jobs(args) => return in_runtime(jobs::run(&args)),
        Command::Grant(args) => in_runtime(grant::run(&args))?,
        Command::Encode(args) => return in_runtime(encode::run(&args)),
        Command::Lanes(args) => in_runtime(lanes::run(&args))?,
        Command::Devices(args) => in_runtime(devices::run(&args))?,
        Command::Audit(args) => in_runtime(audit::run(&args))?,
        Command::Slots(args) => in_runtime(slots::run(&args))?,
        Command::Schema(args) => schema::run(&args)?,
        Command::Setup(args) => in_runtime(setup::run(&args))?,
        Command::Systems(args) => systems::run(&args)?,
        Command::Backup(args) => backup::back_up(&args)?,
        Command::Restore(args) => backup::restore(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn in_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let done = runtime.block_on(work);
    // A name lookup that hangs must not keep a process that is done.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Does the work in a task. What a runtime waits for itself is woken by a system call, and a task by its place in a queue,
/// which an order's way through the agent does several times.
async fn as_task<T: Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => Err(error.into()),
        },
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().any(|cause| io_error(cause) == Some(io::ErrorKind::BrokenPipe))
        && error.downcast_ref::<admin::AdminError>().is_none()
        && error.downcast_ref::<crate::cloud::admin::AdminError>().is_none()
}

/// Which agent to ask.
#[derive(Debug, Args)]
pub struct AgentAddress {
    /// The agent's socket [default: /run/latchd/latchd.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The agent's configuration, which names its socket.
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
}

impl AgentAddress {
    fn socket(&self) -> Result<PathBuf, ConfigErrors> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(config)) => Ok(AgentConfig::load(config)?.admin.socket),
            (None, None) => Ok(Admin::default().socket),
        }
    }

    async fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        let socket: &Path = &self.socket()?;
        Ok(admin::ask(socket, request).await?)
    }
}

/// Who wants something changed.
#[derive(Debug, Args)]
pub struct Person {
    /// Who wants it, for the audit [default: the user who runs this].
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

impl Person {
    fn name(&self) -> anyhow::Result<String> {
        let user = || ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok());
        self.by.clone().or_else(user).context("say with --by who wants it")
    }
}

fn other_answer<T>() -> anyhow::Result<T> {
    anyhow::bail!("the agent answered another question")
}

/// Writes to standard output what people or scripts asked for.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("write JSON")?;
    text.push('\n');
    Ok(print(&text)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_and_argument_is_explained() {
        let mut root = Cli::command();
        root.build();
        root.clone().debug_assert();
        let mut commands = vec![&root];
        while let Some(command) = commands.pop() {
            let name = command.get_name();
            assert!(command.get_about().is_some() || name == "help", "{name} is not explained");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} {} is not explained", argument.get_id());
            }
            commands.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help"));
        }
    }

    #[test]
    fn help_of_a_command_says_more_than_its_line_in_the_list() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_long_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        let mut root = Cli::command().term_width(80);
        root.build();
        for mut command in [vec![root.clone()], root.get_subcommands().cloned().collect()].concat() {
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{line:?} of\n{help}");
            }
        }
    }
}
