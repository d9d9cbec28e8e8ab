//! What the service manager is told: ready, alive, stopping.
//!
//! Without a service manager (`NOTIFY_SOCKET` is not set) everything here does nothing.

use std::{future::pending, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The way to the service manager.
#[derive(Debug)]
pub struct ServiceManager {
    watchdog: Option<Interval>,
}

impl ServiceManager {
    /// What the environment says. Needs a running tokio runtime.
    #[must_use]
    pub fn from_environment() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|within| {
            // Half of what is allowed, as systemd asks for.
            let mut beats = interval((within / 2).max(Duration::from_millis(1)));
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beats
        });
        Self { watchdog }
    }

    /// The agent works.
    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// The agent reads its configuration again; [`ServiceManager::reloaded`] follows.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(error = %error, "no monotonic time for the service manager"),
        }
    }

    /// It is done with that, whatever came of it.
    pub fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The agent stops.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Gives the next sign of life when it is due; never ends where no watchdog waits for one. Cancel-safe.
    ///
    /// It belongs into the loop of the agent's core as one of its arms, not into a task of its own: then a core that
    /// hangs gives no sign and is started anew.
    pub async fn beat(&mut self) {
        let Some(beats) = &mut self.watchdog else {
            return pending().await;
        };
        beats.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "service manager cannot be told");
    }
}

/// A line break would begin another variable of the notification.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        os::unix::net::UnixDatagram,
        process::{Command, Stdio},
    };

    use super::*;

    /// Set in the child that plays the service.
    const CHILD: &str = "LATCHD_TEST_SERVICE";

    #[test]
    fn ready_signs_of_life_and_stopping_reach_the_notify_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "agent::notify::tests::the_service"])
            .env(CHILD, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "40000")
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 512];
        while heard.last().is_none_or(|last: &String| !last.contains("STOPPING")) {
            let length = socket.recv(&mut buffer).unwrap();
            heard.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_string());
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(
            heard,
            [
                "READY=1\nSTATUS=serving Hotel Fjord READY=0",
                "WATCHDOG=1",
                "WATCHDOG=1",
                "WATCHDOG=1",
                "STATUS=link up",
                "STOPPING=1"
            ]
        );
    }

    /// The service of the test above; by itself it does nothing.
    #[test]
    fn the_service() {
        if env::var_os(CHILD).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut manager = ServiceManager::from_environment();
            manager.ready("serving Hotel Fjord\nREADY=0");
            for _ in 0..3 {
                manager.beat().await;
            }
            manager.status("link up");
            manager.stopping();
        });
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_no_sign_of_life_is_ever_due() {
        let mut manager = ServiceManager { watchdog: None };
        let due = tokio::time::timeout(Duration::from_secs(3600), manager.beat()).await;
        assert!(due.is_err());
    }
}
