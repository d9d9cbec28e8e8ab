//! A peer that wants its link encrypted, and who is asked before a key is agreed on.

use dbus::Message;

use crate::{
    client::{ADAPTER, Call, Client, Heard, changed, refused, removed},
    probe::{ONE, ONE_WRITTEN, World},
};

const AGENT: &str = "/agent";

impl Client {
    fn offer_agent(&mut self) {
        let path = || dbus::Path::new(AGENT).unwrap();
        self.call("/org/bluez", "RegisterAgent", (path(), "NoInputNoOutput")).unwrap();
        self.call("/org/bluez", "RequestDefaultAgent", (path(),)).unwrap();
    }

    /// What it was asked.
    #[track_caller]
    fn is_asked(&mut self, member: &str) -> Message {
        self.until("the agent is asked", |client| !client.asked.is_empty());
        let asked = self.asked.remove(0);
        assert_eq!(&*asked.path().unwrap(), AGENT);
        assert_eq!(&*asked.interface().unwrap(), "org.bluez.Agent1");
        assert_eq!(&*asked.member().unwrap(), member);
        asked
    }

    #[track_caller]
    fn is_asked_for_one(&mut self) -> Message {
        let asked = self.is_asked("RequestAuthorization");
        assert_eq!(&*asked.read1::<dbus::Path<'_>>().unwrap(), ONE);
        asked
    }
}

/// A connected device that wants to be written to over an encrypted link.
fn demanding() -> Option<(World, Client)> {
    let (world, mut client) = World::met()?;
    world.tell("encryption one on");
    client.find();
    client.connect();
    client.heard.clear();
    Some((world, client))
}

#[track_caller]
fn is_progress(client: &mut Client, call: Call) {
    assert_eq!(client.answer(call).unwrap_err().0, "InProgress");
}

#[test]
fn without_an_agent_nothing_is_answered_the_link_goes_and_the_device_is_forgotten() {
    let Some((world, mut client)) = demanding() else { return };
    world.tell("timing silence 400");
    let write = client.write(ONE_WRITTEN, &[1]);
    let next = client.write(ONE_WRITTEN, &[2]);
    is_progress(&mut client, next);
    client
        .until("the device is forgotten", |client| client.heard.contains(&removed(ONE, "org.bluez.Device1")));
    assert!(
        client.place(&changed(ONE, "Connected", "false")) < client.place(&removed(ONE, "org.bluez.Device1"))
    );
    assert_eq!(client.call(ONE, "Connect", ()).unwrap_err().0, "org.freedesktop.DBus.Error.UnknownObject");
    assert!(!client.is_answered(write));
    assert_eq!(world.tell("lock one times"), "0");
    // A scan finds it again.
    client.heard.clear();
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
    let is_one = |heard: &Heard| matches!(heard, Heard::Added { path, .. } if path == ONE);
    client.until("it is found again", |client| client.heard.iter().any(is_one));
}

#[test]
fn an_agent_that_nobody_is_to_ask_first_is_not_asked() {
    let Some((world, mut client)) = demanding() else { return };
    world.tell("timing silence 400");
    let path = dbus::Path::new(AGENT).unwrap();
    client.call("/org/bluez", "RegisterAgent", (path, "NoInputNoOutput")).unwrap();
    client.write(ONE_WRITTEN, &[1]);
    client
        .until("the device is forgotten", |client| client.heard.contains(&removed(ONE, "org.bluez.Device1")));
    assert!(client.asked.is_empty());
}

#[test]
fn an_agent_that_is_silent_costs_the_link_and_not_the_device() {
    let Some((world, mut client)) = demanding() else { return };
    world.tell("timing silence 400");
    client.offer_agent();
    let write = client.write(ONE_WRITTEN, &[1]);
    client.is_asked_for_one();
    let next = client.write(ONE_WRITTEN, &[2]);
    is_progress(&mut client, next);
    client.until("the link is gone", |client| client.heard.contains(&changed(ONE, "Connected", "false")));
    client.is_asked("Cancel");
    assert!(!client.is_answered(write));
    assert_eq!(client.property(ONE, "org.bluez.Device1", "Paired").unwrap(), "false");
    client.connect();
    assert_eq!(world.tell("lock one times"), "0");
}

#[test]
fn an_agent_that_accepts_lets_the_write_through_and_is_asked_only_once() {
    let Some((world, mut client)) = demanding() else { return };
    client.offer_agent();
    let write = client.write(ONE_WRITTEN, &[1]);
    let asked = client.is_asked_for_one();
    assert!(!client.is_answered(write));
    assert_eq!(world.tell("lock one times"), "0");
    client.say(asked.method_return());
    client.answer(write).unwrap();
    assert!(client.place(&changed(ONE, "Paired", "true")) < client.place(&Heard::Answered(write)));
    assert_eq!(client.property(ONE, "org.bluez.Device1", "Bonded").unwrap(), "true");
    let write = client.write(ONE_WRITTEN, &[2]);
    client.answer(write).unwrap();
    // The key outlives the link and the daemon.
    client.call(ONE, "Disconnect", ()).unwrap();
    client.connect();
    let write = client.write(ONE_WRITTEN, &[3]);
    client.answer(write).unwrap();
    world.tell("crash");
    world.tell("up");
    client.connect();
    let write = client.write(ONE_WRITTEN, &[4]);
    client.answer(write).unwrap();
    assert!(client.asked.is_empty(), "there is a key");
    assert_eq!(world.tell("lock one times"), "4");
}

#[test]
fn whoever_is_removed_is_paired_no_more_and_no_agent_outlives_the_daemon() {
    let Some((world, mut client)) = demanding() else { return };
    client.offer_agent();
    let write = client.write(ONE_WRITTEN, &[1]);
    let asked = client.is_asked_for_one();
    client.say(asked.method_return());
    client.answer(write).unwrap();
    client.call(ADAPTER, "RemoveDevice", (dbus::Path::new(ONE).unwrap(),)).unwrap();
    client.heard.clear();
    client.find();
    client.connect();
    let write = client.write(ONE_WRITTEN, &[2]);
    let asked = client.is_asked_for_one();
    // It says no this time.
    client.say(asked.error(&"org.bluez.Error.Rejected".into(), c"no"));
    refused(client.answer(write), "NotPermitted", "Not paired");
    assert_eq!(world.tell("agents"), "1");
    world.tell("crash");
    world.tell("up");
    assert_eq!(world.tell("agents"), "0");
    client.offer_agent();
}

#[test]
fn an_agent_is_registered_once_and_is_gone_with_its_client() {
    let Some((world, mut client)) = demanding() else { return };
    let path = || dbus::Path::new(AGENT).unwrap();
    refused(client.call("/org/bluez", "RequestDefaultAgent", (path(),)), "DoesNotExist", "Does Not Exist");
    let mut other = world.client();
    other.offer_agent();
    let again = other.call("/org/bluez", "RegisterAgent", (path(), "NoInputNoOutput"));
    refused(again, "AlreadyExists", "Already Exists");
    let write = client.write(ONE_WRITTEN, &[1]);
    other.is_asked_for_one();
    drop(other);
    refused(client.answer(write), "NotPermitted", "Not paired");
    assert_eq!(world.tell("agents"), "0");
    client.offer_agent();
    client.call("/org/bluez", "UnregisterAgent", (path(),)).unwrap();
    assert_eq!(world.tell("agents"), "0");
}

#[test]
fn a_link_that_goes_while_the_agent_is_asked_fails_the_write_and_calls_the_question_off() {
    let Some((world, mut client)) = demanding() else { return };
    client.offer_agent();
    let write = client.write(ONE_WRITTEN, &[1]);
    let asked = client.is_asked_for_one();
    world.tell("drop one");
    refused(client.answer(write), "Failed", "Operation failed with ATT error: 0x0e");
    client.is_asked("Cancel");
    // An answer that comes too late changes nothing.
    client.say(asked.method_return());
    client.round_trip();
    assert_eq!(client.property(ONE, "org.bluez.Device1", "Paired").unwrap(), "false");
}
