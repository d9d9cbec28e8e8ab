//! `latchd sim`

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

/// Run a pretend access system to try things out with.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Which one.
    #[command(subcommand)]
    pub system: System,
}

/// The systems that can be pretended.
#[derive(Debug, Subcommand)]
pub enum System {
    /// A SALTO SPACE server.
    SaltoIs {
        /// Publish a serial port.
        #[arg(long)]
        pty: bool,
        /// Listen for TCP clients.
        #[arg(long, value_name = "ADDR")]
        tcp: Option<SocketAddr>,
        /// Folder of the serial port and the control socket.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// Runs it until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(args: SimArgs) -> anyhow::Result<()> {
    anyhow::bail!("{args:?} is not part of this build")
}
