//! A private message bus.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Why there is no bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It is not installed.
    #[error("dbus-daemon is not installed; on Debian and Ubuntu it is in the package dbus-daemon")]
    Missing,
    /// It did not start.
    #[error("start dbus-daemon")]
    Io(#[from] std::io::Error),
    /// It started and told no address.
    #[error("dbus-daemon told no address")]
    Silent,
}

/// A running bus; it ends when this is dropped.
#[derive(Debug)]
pub struct Bus {
    folder: TempDir,
    daemon: Option<Child>,
}

impl Bus {
    /// Starts one. `match_rules` is how many each connection may register, the system bus's own number without it.
    ///
    /// # Errors
    /// When there is no `dbus-daemon`, or it does not start.
    pub fn start(match_rules: Option<u32>) -> Result<Self, BusError> {
        let folder = tempfile::Builder::new().prefix("latchd-bus").tempdir()?;
        let limit = match match_rules {
            Some(rules) => format!("<limit name=\"max_match_rules_per_connection\">{rules}</limit>"),
            None => String::new(),
        };
        let socket = folder.path().join("bus");
        let configuration = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
             <busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\n\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\" \
             eavesdrop=\"false\"/><allow receive_sender=\"*\"/></policy>{limit}</busconfig>\n",
            socket.display()
        );
        std::fs::write(folder.path().join("bus.conf"), configuration)?;
        let mut bus = Self { folder, daemon: None };
        bus.restart()?;
        Ok(bus)
    }

    /// The address for `DBUS_SYSTEM_BUS_ADDRESS`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("bus").display())
    }

    /// A folder that lasts as long as the bus.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it, with every connection to it.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = std::fs::remove_file(self.folder.path().join("bus"));
    }

    /// Starts it again at the same address.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn restart(&mut self) -> Result<(), BusError> {
        self.kill();
        let configuration = self.folder.path().join("bus.conf");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", configuration.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => BusError::Missing,
                _ => BusError::Io(error),
            })?;
        let mut told = String::new();
        let output = daemon.stdout.take().ok_or(BusError::Silent)?;
        self.daemon = Some(daemon);
        BufReader::new(output).read_line(&mut told)?;
        if told.trim().is_empty() {
            return Err(BusError::Silent);
        }
        Ok(())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.kill();
    }
}
