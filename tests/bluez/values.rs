//! Values: written, read, notified; and each refusal by its name.

use crate::{
    client::{Heard, changed, refused},
    probe::{ONE, ONE_OTHER, ONE_TOLD, ONE_WRITTEN, World},
};

const LINK_LOST: &str = "Operation failed with ATT error: 0x0e";

#[test]
fn nothing_is_read_or_written_without_a_link() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    client.call(ONE, "Disconnect", ()).unwrap();
    refused(client.read(ONE_WRITTEN), "Failed", "Not connected");
    let write = client.write(ONE_WRITTEN, &[1]);
    refused(client.answer(write), "Failed", "Not connected");
    let command = client.command(ONE_WRITTEN, &[1]);
    refused(client.answer(command), "Failed", "Not connected");
    assert_eq!(world.tell("lock one times"), "0");
}

#[test]
fn a_write_waits_for_the_one_before_it_at_the_same_characteristic_alone() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    world.tell("fault one write delay 300");
    let first = client.write(ONE_WRITTEN, &[1]);
    let second = client.write(ONE_WRITTEN, &[2]);
    let other = client.write(ONE_OTHER, &[3]);
    assert_eq!(client.answer(second).unwrap_err().0, "InProgress");
    client.answer(other).unwrap();
    assert!(!client.is_answered(first));
    client.answer(first).unwrap();
    let third = client.write(ONE_WRITTEN, &[4]);
    client.answer(third).unwrap();
    assert_eq!(world.tell("lock one times"), "3");
}

#[test]
fn each_error_of_a_peer_has_its_name() {
    let Some((world, mut client)) = World::met() else { return };
    world.tell("adapter pairs off");
    client.find();
    client.connect();
    let told = |code: u8| format!("Operation failed with ATT error: 0x{code:02x}");
    let named: &[(u8, &str, &str)] = &[
        (0x02, "NotPermitted", "Read not permitted"),
        (0x03, "NotPermitted", "Write not permitted"),
        (0x05, "NotPermitted", "Not paired"),
        (0x0C, "NotPermitted", "Not paired"),
        (0x0F, "NotPermitted", "Not paired"),
        (0x06, "NotSupported", "Operation is not supported"),
        (0x07, "InvalidArguments", "Invalid offset"),
        (0x08, "NotAuthorized", "Operation Not Authorized"),
        (0x0D, "InvalidArguments", "Invalid Length"),
    ];
    for (code, name, text) in named {
        let write = client.write(ONE_WRITTEN, &[0xEE, *code]);
        refused(client.answer(write), name, text);
    }
    for code in [0x01, 0x04, 0x0E, 0x11, 0x80, 0xFF] {
        let write = client.write(ONE_WRITTEN, &[0xEE, code]);
        refused(client.answer(write), "Failed", &told(code));
    }
    // Of a read, but for the lengths, which are of writes.
    for (code, name, text) in named {
        let write = client.write(ONE_WRITTEN, &[0xEF, *code]);
        client.answer(write).unwrap();
        match *code {
            0x0D => refused(client.read(ONE_WRITTEN), "Failed", &told(0x0D)),
            _ => refused(client.read(ONE_WRITTEN), name, text),
        }
    }
    // Nobody is told of what came of a command.
    let command = client.command(ONE_WRITTEN, &[0xEE, 0x80]);
    client.answer(command).unwrap();
}

#[test]
fn a_link_that_is_lost_fails_the_writes_that_are_under_way_before_it_is_told() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    world.tell("fault one write delay 60000");
    world.tell("fault one write hang");
    let writes = [client.write(ONE_WRITTEN, &[1]), client.write(ONE_OTHER, &[2])];
    client.round_trip();
    client.heard.clear();
    world.tell("drop one");
    for write in writes {
        refused(client.answer(write), "Failed", LINK_LOST);
        let gone = changed(ONE, "ServicesResolved", "false");
        client.until("the link is gone", |client| client.heard.contains(&gone));
        assert!(client.place(&Heard::Answered(write)) < client.place(&gone));
    }
    // One that loses the link by itself.
    client.connect();
    world.tell("fault one write drop");
    let write = client.write(ONE_WRITTEN, &[1]);
    refused(client.answer(write), "Failed", LINK_LOST);
    assert_eq!(world.tell("connected"), "");
}

#[test]
fn a_peer_that_never_answers_a_write_costs_the_link_after_a_while() {
    let Some((world, mut client)) = World::met() else { return };
    world.tell("timing silence 300");
    client.find();
    client.connect();
    world.tell("fault one write hang");
    client.heard.clear();
    let write = client.write(ONE_WRITTEN, &[1]);
    client.round_trip();
    assert!(!client.is_answered(write));
    client.until("the link is gone", |client| client.heard.contains(&changed(ONE, "Connected", "false")));
    assert_eq!(world.tell("lock one times"), "0", "it was not done");
    client.connect();
    world.tell("fault one write mute");
    let before = client.heard.len();
    client.write(ONE_WRITTEN, &[1]);
    let gone = changed(ONE, "Connected", "false");
    client.until("the link is gone", |client| client.heard[before..].contains(&gone));
    assert_eq!(world.tell("lock one times"), "1", "it was done");
}

#[test]
fn a_command_is_no_longer_than_what_a_link_carries() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    let fits = client.command(ONE_WRITTEN, &[7; 244]);
    client.answer(fits).unwrap();
    let command = client.command(ONE_WRITTEN, &[7; 245]);
    refused(client.answer(command), "Failed", "Failed to initiate write");
    // A request is cut into parts by the daemon.
    let request = client.write(ONE_WRITTEN, &[7; 245]);
    client.answer(request).unwrap();
    assert_eq!(world.tell("lock one times"), "2");
}

#[test]
fn a_subscription_outlives_its_link_and_cannot_be_asked_for_again_without_one() {
    let Some((_world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    refused(client.call(ONE_TOLD, "StopNotify", ()), "Failed", "No notify session started");
    client.call(ONE_TOLD, "StartNotify", ()).unwrap();
    client.call(ONE_TOLD, "StartNotify", ()).unwrap();
    let write = client.write(ONE_WRITTEN, &[1]);
    client.answer(write).unwrap();
    client.until("it tells", |client| client.values() == ["[1]"]);
    client.call(ONE, "Disconnect", ()).unwrap();
    refused(client.call(ONE_TOLD, "StartNotify", ()), "InProgress", "Operation already in progress");
    client.connect();
    let write = client.write(ONE_WRITTEN, &[2]);
    client.answer(write).unwrap();
    client.until("it tells again", |client| client.values() == ["[1]", "[2]"]);
    client.call(ONE_TOLD, "StopNotify", ()).unwrap();
    let write = client.write(ONE_WRITTEN, &[3]);
    client.answer(write).unwrap();
    client.round_trip();
    assert_eq!(client.values(), ["[1]", "[2]"]);
    refused(client.call(ONE_TOLD, "StopNotify", ()), "Failed", "No notify session started");
}

#[test]
fn a_subscription_may_be_begun_without_a_link_and_ends_with_its_client() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    client.call(ONE, "Disconnect", ()).unwrap();
    let mut other = world.client();
    other.call(ONE_TOLD, "StartNotify", ()).unwrap();
    client.connect();
    let write = client.write(ONE_WRITTEN, &[1]);
    client.answer(write).unwrap();
    client.until("it tells", |client| client.values() == ["[1]"]);
    let flag = |client: &mut crate::client::Client| {
        client.property(ONE_TOLD, "org.bluez.GattCharacteristic1", "Notifying").unwrap()
    };
    assert_eq!(flag(&mut client), "true");
    drop(other);
    while flag(&mut client) == "true" {
        client.listen();
    }
    let write = client.write(ONE_WRITTEN, &[2]);
    client.answer(write).unwrap();
    client.round_trip();
    assert_eq!(client.values(), ["[1]"]);
}

#[test]
fn what_is_read_is_told_as_if_it_had_been_notified() {
    let Some((_world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    let write = client.write(ONE_WRITTEN, &[4, 2]);
    client.answer(write).unwrap();
    client.heard.clear();
    assert_eq!(client.read(ONE_WRITTEN).unwrap(), [4, 2]);
    assert_eq!(client.heard[0], changed(ONE_WRITTEN, "Value", "[4, 2]"));
    assert_eq!(client.heard.len(), 2, "and then the answer");
}

#[test]
fn a_value_is_lost_doubled_or_cut_as_ordered() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    client.call(ONE_TOLD, "StartNotify", ()).unwrap();
    for fault in ["mute", "double", "truncate", "pass"] {
        world.tell(&format!("fault one value {fault}"));
    }
    for value in [1, 2, 3, 4] {
        let write = client.write(ONE_WRITTEN, &[value, value]);
        client.answer(write).unwrap();
    }
    client.until("all is told", |client| client.values().len() == 4);
    assert_eq!(client.values(), ["[2, 2]", "[2, 2]", "[3]", "[4, 4]"]);
}
