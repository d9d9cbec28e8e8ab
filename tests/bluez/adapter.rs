//! Power, scans, and what is known of whom.

use crate::{
    client::{ADAPTER, Heard, changed, invalidated, refused, removed},
    probe::{ONE, TWO, World},
};

#[test]
fn nothing_scans_while_the_adapter_is_off() {
    let Some((_world, mut client)) = World::met() else { return };
    client.power(false);
    for member in ["StartDiscovery", "StopDiscovery"] {
        refused(client.call(ADAPTER, member, ()), "NotReady", "Resource Not Ready");
    }
    let filter = (dbus::arg::PropMap::new(),);
    refused(client.call(ADAPTER, "SetDiscoveryFilter", filter), "NotReady", "Resource Not Ready");
    client.power(true);
    let filter = (dbus::arg::PropMap::new(),);
    client.call(ADAPTER, "SetDiscoveryFilter", filter).unwrap();
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
}

#[test]
fn each_client_has_a_scan_of_its_own_and_only_one() {
    let Some((world, mut client)) = World::met() else { return };
    let mut other = world.client();
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
    refused(client.call(ADAPTER, "StartDiscovery", ()), "InProgress", "Operation already in progress");
    refused(other.call(ADAPTER, "StopDiscovery", ()), "Failed", "No discovery started");
    other.call(ADAPTER, "StartDiscovery", ()).unwrap();
    client.call(ADAPTER, "StopDiscovery", ()).unwrap();
    refused(client.call(ADAPTER, "StopDiscovery", ()), "Failed", "No discovery started");
    assert_eq!(client.property(ADAPTER, "org.bluez.Adapter1", "Discovering").unwrap(), "true");
    // The scan of a client that goes ends with it.
    drop(other);
    client.until("the scan ends", |client| client.heard.contains(&changed(ADAPTER, "Discovering", "false")));
}

#[test]
fn a_device_that_nobody_knows_cannot_be_removed_and_one_that_is_removed_is_gone() {
    let Some((world, mut client)) = World::met() else { return };
    let path = || (dbus::Path::new(ONE).unwrap(),);
    refused(client.call(ADAPTER, "RemoveDevice", path()), "DoesNotExist", "Does Not Exist");
    client.find();
    client.connect();
    client.heard.clear();
    client.call(ADAPTER, "RemoveDevice", path()).unwrap();
    let order = [
        client.place(&changed(ONE, "ServicesResolved", "false")),
        client.place(&changed(ONE, "Connected", "false")),
        client.place(&removed(crate::probe::ONE_WRITTEN, "org.bluez.GattCharacteristic1")),
        client.place(&removed(ONE, "org.bluez.Device1")),
    ];
    assert!(order.is_sorted(), "{order:?} {:#?}", client.heard);
    assert_eq!(world.tell("connected"), "");
    refused(client.call(ADAPTER, "RemoveDevice", path()), "DoesNotExist", "Does Not Exist");
}

#[test]
fn what_is_not_there_is_an_unknown_object() {
    let Some((_world, mut client)) = World::met() else { return };
    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
    let nowhere = "/org/bluez/hci0/dev_00_00_00_00_00_00";
    let inside = format!("{ONE}/service0100/char0999");
    for (path, member) in
        [(nowhere, "Connect"), (nowhere, "GetAll"), (nowhere, "Introspect"), (inside.as_str(), "StartNotify")]
    {
        assert_eq!(
            client.call(path, member, ("org.bluez.Device1",)).unwrap_err().0,
            unknown,
            "{path} {member}"
        );
    }
    client.find();
    client.connect();
    for member in ["ReadValue", "WriteValue", "StartNotify", "StopNotify"] {
        assert_eq!(client.call(&inside, member, ()).unwrap_err().0, unknown, "{member}");
    }
}

#[test]
fn the_strength_of_a_signal_is_known_while_somebody_scans_and_no_longer() {
    let Some((_world, mut client)) = World::met() else { return };
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
    let is_strength = |heard: &Heard| matches!(heard, Heard::Changed { path, property, .. } if path == ONE && property == "RSSI");
    client.until("a signal is told", |client| client.heard.iter().any(is_strength));
    let strength = client.property(ONE, "org.bluez.Device1", "RSSI").unwrap();
    assert!(["-60", "-61"].contains(&strength.as_str()), "{strength}");
    client.call(ADAPTER, "StopDiscovery", ()).unwrap();
    let ended = client.place(&changed(ADAPTER, "Discovering", "false"));
    assert!(ended < client.place(&invalidated(ONE, "RSSI")));
    assert!(!client.heard[ended..].iter().any(is_strength), "nobody listens any more");
    let gone = client.property(ONE, "org.bluez.Device1", "RSSI").unwrap_err();
    assert_eq!(gone.0, "org.freedesktop.DBus.Error.InvalidArgs");
}

#[test]
fn a_device_that_was_never_connected_is_forgotten_a_while_after_the_scan_and_another_is_not() {
    let Some((world, mut client)) = World::met() else { return };
    world.tell("timing forget 300");
    // Somebody's scan goes on: nothing is forgotten meanwhile.
    client.find();
    client.connect();
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
    client.round_trip();
    client.call(ADAPTER, "StopDiscovery", ()).unwrap();
    client.heard.clear();
    client.until("it is forgotten", |client| client.heard.contains(&removed(TWO, "org.bluez.Device1")));
    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
    assert_eq!(client.call(TWO, "Connect", ()).unwrap_err().0, unknown);
    // The other one was connected once.
    client.call(ONE, "Disconnect", ()).unwrap();
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
    client.call(ADAPTER, "StopDiscovery", ()).unwrap();
    client.find();
    let before = client.heard.len();
    let is_gone = removed(TWO, "org.bluez.Device1");
    client.until("the second is forgotten again", |client| client.heard[before..].contains(&is_gone));
    assert!(!client.heard.contains(&removed(ONE, "org.bluez.Device1")));
    client.call(ONE, "Connect", ()).unwrap();
}

#[test]
fn a_device_to_which_no_connection_came_about_is_forgotten_all_the_same() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    world.tell("timing forget 300");
    world.tell("fault two connect error Failed le-connection-timeout");
    refused(client.call(TWO, "Connect", ()), "Failed", "le-connection-timeout");
    client.until("it is forgotten", |client| client.heard.contains(&removed(TWO, "org.bluez.Device1")));
}

#[test]
fn switching_the_adapter_off_tells_of_the_links_then_of_the_scan_then_of_the_power() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    world.tell("range two off");
    let waiting = client.start(TWO, "Connect", ());
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
    client.heard.clear();
    client.power(false);
    let order = [
        client.place(&changed(ONE, "ServicesResolved", "false")),
        client.place(&changed(ONE, "Connected", "false")),
        client.place(&changed(ADAPTER, "Discovering", "false")),
        client.place(&changed(ADAPTER, "Powered", "false")),
    ];
    assert!(order.is_sorted(), "{order:?} {:#?}", client.heard);
    // Whoever waited for a connection is told.
    assert_eq!(client.answer(waiting).unwrap_err().0, "Failed");
    let refusal = client.call(ONE, "Connect", ()).unwrap_err();
    assert_eq!(refusal, ("Failed".into(), "Resource Not Ready".into()));
    // The scan is over for good.
    client.power(true);
    client.round_trip();
    assert_eq!(client.property(ADAPTER, "org.bluez.Adapter1", "Discovering").unwrap(), "false");
    client.call(ADAPTER, "StartDiscovery", ()).unwrap();
}

#[test]
fn an_adapter_that_is_pulled_out_is_gone_with_all_that_was_below_it() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    client.heard.clear();
    world.tell("adapter unplug");
    client.until("it is gone", |client| client.heard.contains(&removed(ADAPTER, "org.bluez.Adapter1")));
    let order = [
        client.place(&removed(ONE, "org.bluez.Device1")),
        client.place(&removed(ADAPTER, "org.bluez.Adapter1")),
    ];
    assert!(order.is_sorted(), "{:#?}", client.heard);
    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
    assert_eq!(client.call(ADAPTER, "StartDiscovery", ()).unwrap_err().0, unknown);
    assert_eq!(client.call(ONE, "Connect", ()).unwrap_err().0, unknown);
    client.heard.clear();
    world.tell("adapter plug");
    client.until("what was connected once is back", |client| {
        client.heard.iter().any(|heard| matches!(heard, Heard::Added { path, .. } if path == ONE))
    });
    assert!(!client.heard.iter().any(|heard| matches!(heard, Heard::Added { path, .. } if path == TWO)));
}
