//! The agent under a service manager: what it says of itself, and when it says nothing.

use std::{
    io,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::site::{PATIENCE, Site};

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn new(site: &Site) -> Self {
        Self(UnixDatagram::bind(site.folder.path().join("notify")).unwrap())
    }

    /// One message, if one comes in time.
    fn hear(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 4096];
        match self.0.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything up to the first message with a line that begins so.
    fn until(&self, line: &str) -> Vec<String> {
        let give_up = Instant::now() + PATIENCE;
        let mut heard: Vec<String> = Vec::new();
        while !heard.last().is_some_and(|last| last.lines().any(|said| said.starts_with(line))) {
            assert!(Instant::now() < give_up, "waited in vain for {line}: {heard:?}");
            heard.extend(self.hear(Duration::from_secs(1)));
        }
        heard
    }

    /// Takes what is there already.
    fn drain(&self) {
        while self.hear(Duration::from_millis(1)).is_some() {}
    }
}

#[test]
fn the_service_manager_hears_ready_the_links_state_signs_of_life_and_the_stop() {
    let mut site = Site::without_agent();
    let manager = Manager::new(&site);
    let socket = site.folder.path().join("notify");
    site.cloud().kill();
    site.start_agent_with(|command| {
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID")
    });

    // Ready means that the queue is open and questions are answered, whether or not there is a cloud.
    let heard = manager.until("READY=1");
    assert_eq!(heard.len(), 1, "nothing comes before it: {heard:?}");
    assert!(site.folder.path().join("agent/queue.db").exists());
    assert_eq!(site.status()["site"], "Test House");
    manager.until("STATUS=nobody takes connections at");
    site.restart_cloud();
    manager.until("STATUS=linked to the cloud");
    site.cloud().kill();
    manager.until("STATUS=nobody takes connections at");

    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    // A process that does nothing any more gives no sign, so that the manager can tell.
    site.agent().signal(Signal::STOP);
    manager.drain();
    assert_eq!(manager.hear(Duration::from_secs(1)), None);
    site.agent().signal(Signal::CONT);
    manager.until("WATCHDOG=1");

    site.agent().signal(Signal::TERM);
    let heard = manager.until("STOPPING=1");
    assert!(heard.iter().all(|said| !said.contains("READY")), "{heard:?}");
    assert_eq!(site.agent().ended(), Some(0));
}
