//! The daemon gone and back, and the bus.

use crate::{
    client::{ADAPTER, Heard, refused},
    probe::{ONE, ONE_TOLD, ONE_WRITTEN, TWO, World},
};

const UNKNOWN_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";

#[test]
fn without_the_daemon_a_call_is_refused_at_once_and_a_pending_one_gets_no_reply() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    world.tell("fault one write hang");
    let pending = client.write(ONE_WRITTEN, &[1]);
    client.round_trip();
    world.tell("crash");
    assert_eq!(client.answer(pending).unwrap_err().0, "org.freedesktop.DBus.Error.NoReply");
    let gone = "org.freedesktop.DBus.Error.ServiceUnknown";
    assert_eq!(client.call("/", "GetManagedObjects", ()).unwrap_err().0, gone);
    assert_eq!(client.call(ONE, "Connect", ()).unwrap_err().0, gone);
    world.tell("up");
    client.call("/", "GetManagedObjects", ()).unwrap();
}

#[test]
fn a_daemon_that_is_back_knows_whom_it_was_connected_to_and_nothing_else() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    client.call(ONE_TOLD, "StartNotify", ()).unwrap();
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
    world.tell("crash");
    world.tell("up");
    assert_eq!(client.property(ADAPTER, "org.bluez.Adapter1", "Discovering").unwrap(), "false");
    refused(client.call(ADAPTER, "StopDiscovery", ()), "Failed", "No discovery started");
    assert_eq!(client.property(ONE, "org.bluez.Device1", "Connected").unwrap(), "false");
    assert_eq!(client.call(TWO, "Connect", ()).unwrap_err().0, UNKNOWN_OBJECT);
    // Its table comes with the next connection, and nobody is subscribed to it.
    assert_eq!(client.read(ONE_WRITTEN).unwrap_err().0, UNKNOWN_OBJECT);
    client.connect();
    let write = client.write(ONE_WRITTEN, &[1]);
    client.answer(write).unwrap();
    client.round_trip();
    assert!(client.values().is_empty());
    client.find_again();
}

impl crate::client::Client {
    fn find_again(&mut self) {
        self.heard.clear();
        self.call(ADAPTER, "StartDiscovery", ()).unwrap();
        let is_two = |heard: &Heard| matches!(heard, Heard::Added { path, .. } if path == TWO);
        self.until("the other is found", |client| client.heard.iter().any(is_two));
    }
}

#[test]
fn a_bus_that_is_killed_takes_its_clients_with_it_and_the_daemon_comes_to_the_next_one() {
    let Some(mut world) = World::start() else { return };
    let mut client = world.client();
    client.find();
    world.bus.kill();
    assert!(dbus::channel::Channel::open_private(&world.bus.address()).is_err());
    world.bus.restart().unwrap();
    // The daemon of old may not have seen the end of its bus yet.
    let mut client = world.client();
    world.tell("crash");
    world.tell("up");
    client.find();
    client.connect();
    assert_eq!(world.tell("connected"), "one");
}

#[test]
fn how_often_something_was_called_is_counted_by_device() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    client.call(ONE, "Connect", ()).unwrap();
    client.call(TWO, "Connect", ()).unwrap();
    let counts = ["Device1.Connect", "Device1.Connect one", "Device1.Connect two", "Device1.Disconnect"];
    let counts = counts.map(|what| world.tell(&format!("count {what}")));
    assert_eq!(counts, ["3", "2", "1", "0"]);
}
