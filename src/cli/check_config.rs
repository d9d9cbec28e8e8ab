//! `latchd check-config FILE…`

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::print;
use crate::config::{AgentConfig, AnyConfig, CloudConfig, ConfigErrors, SystemConfig};

/// What `latchd check-config` is told.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Whose files they are, where the content shall not decide.
    #[arg(long = "as", value_enum, value_name = "ROLE")]
    pub role: Option<Role>,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The agent's.
    Agent,
    /// The cloud's.
    Cloud,
}

pub(super) fn run(args: &CheckConfigArgs) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in &args.files {
        let read = match args.role {
            None => AnyConfig::load(file),
            Some(Role::Agent) => AgentConfig::load(file).map(|config| AnyConfig::Agent(Box::new(config))),
            Some(Role::Cloud) => CloudConfig::load(file).map(|config| AnyConfig::Cloud(Box::new(config))),
        };
        match read {
            Ok(config) => {
                let mistakes = against(&config);
                if mistakes.is_empty() {
                    print(&format!("{}: {}\n", file.display(), in_short(&config)))?;
                    continue;
                }
                code = ExitCode::FAILURE;
                for mistake in mistakes {
                    writeln!(io::stderr(), "error: {mistake}\n --> {}", file.display())?;
                }
            }
            Err(error) => {
                code = ExitCode::FAILURE;
                let text = match &error {
                    ConfigErrors::Unreadable { source, .. } => format!("error: {error}: {source}"),
                    ConfigErrors::Mistakes { .. } => error.to_string(),
                };
                writeln!(io::stderr(), "{text}")?;
            }
        }
    }
    Ok(code)
}

/// What only the drivers can tell.
fn against(config: &AnyConfig) -> Vec<String> {
    match config {
        AnyConfig::Agent(agent) => crate::agent::mistakes(agent),
        AnyConfig::Cloud(_) => Vec::new(),
    }
}

fn in_short(config: &AnyConfig) -> String {
    match config {
        AnyConfig::Agent(agent) => {
            let doors: usize = agent.systems.iter().map(SystemConfig::door_count).sum();
            let systems: Vec<_> = agent.systems.iter().map(|system| system.name.as_str()).collect();
            let systems = match systems.as_slice() {
                [] => "no access system yet".into(),
                systems => format!("{doors} doors of {}", systems.join(", ")),
            };
            format!("fine; the agent of {}, {systems}", agent.site.name)
        }
        AnyConfig::Cloud(cloud) => format!(
            "fine; the cloud of workspace {}, API at {}, bridges at {}",
            cloud.workspace.name, cloud.api.listen, cloud.bridges.listen
        ),
    }
}
