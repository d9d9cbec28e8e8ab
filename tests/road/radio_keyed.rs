//! Locks that want their link encrypted: a key is agreed on with them, and with nobody else.

use std::time::Duration;

use dbus::{
    Message,
    arg::{AppendAll, PropMap, RefArg, Variant},
    channel::Channel,
};
use rustix::process::Signal;

use crate::{radio_house::House, site::until};

const AUGUST: &str = "/org/bluez/hci0/dev_D0_FF_EE_00_00_01";
const SECOND: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_02";

/// Somebody else on the bus.
struct Other(Channel);

impl Other {
    fn on(house: &House) -> Self {
        let mut channel = Channel::open_private(&house.bus).unwrap();
        channel.register().unwrap();
        Self(channel)
    }

    fn ask(
        &self,
        path: &str,
        interface: &str,
        member: &str,
        with: impl AppendAll,
    ) -> Result<Message, dbus::Error> {
        let mut call = Message::new_method_call("org.bluez", path, interface, member).unwrap();
        call.append_all(with);
        self.0.send_with_reply_and_block(call, Duration::from_secs(20))
    }

    fn is_paired(&self, device: &str) -> bool {
        let asked =
            self.ask(device, "org.freedesktop.DBus.Properties", "Get", ("org.bluez.Device1", "Paired"));
        asked.unwrap().read1::<Variant<bool>>().unwrap().0
    }

    /// The first characteristic of a device.
    fn characteristic(&self, device: &str) -> Option<String> {
        let asked = self.ask("/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", ()).unwrap();
        let objects: std::collections::HashMap<dbus::Path<'_>, std::collections::HashMap<String, PropMap>> =
            asked.read1().unwrap();
        let mut places = objects.into_keys().map(|path| path.to_string());
        places.find(|path| path.starts_with(device) && path.contains("/char"))
    }
}

fn is_asked(house: &House) {
    until("the agent may be asked", || (house.sim("agents")["answer"] == "1").then_some(()));
}

#[test]
fn a_lock_that_wants_its_link_encrypted_is_programmed_and_a_strangers_wish_for_a_key_is_refused() {
    let Some(mut house) = House::start(&[]) else { return };
    let other = Other::on(&house);
    is_asked(&house);
    house.sim("encryption august-1 on");
    house.reaches(&house.put("flats", "201", "stay-1", "471108", (-60, 3600)), "succeeded");
    assert!(house.opens("august-1", "471108"));
    assert!(other.is_paired(AUGUST));

    // A device of the configuration, to which not the agent connects.
    house.sim("encryption ttlock-2 on");
    house.sim("burst ttlock-2 1");
    other.ask(SECOND, "org.bluez.Device1", "Connect", ()).unwrap();
    let place = until("its table is there", || other.characteristic(SECOND));
    let how =
        PropMap::from([("type".to_owned(), Variant(Box::new("request".to_owned()) as Box<dyn RefArg>))]);
    let written = other.ask(&place, "org.bluez.GattCharacteristic1", "WriteValue", (vec![1_u8], how));
    let refused = written.unwrap_err();
    assert_eq!(refused.name(), Some("org.bluez.Error.NotPermitted"), "{refused}");
    assert!(!other.is_paired(SECOND));
    other.ask(SECOND, "org.bluez.Device1", "Disconnect", ()).unwrap();

    // A daemon that started anew knows no agent, and this one has forgotten the key as well.
    house.sim("crash");
    house.sim("up");
    is_asked(&house);
    house.sim("forget august-1");
    house.reaches(&house.put("flats", "201", "stay-1", "250912", (-60, 3600)), "succeeded");
    assert!(house.opens("august-1", "250912") && !house.opens("august-1", "471108"));
    assert!(other.is_paired(AUGUST));
    house.is_discreet(&["471108", "250912"]);

    let before = house.count("AgentManager1.UnregisterAgent");
    house.site.agent().signal(Signal::TERM);
    house.site.agent().ended();
    assert_eq!(house.count("AgentManager1.UnregisterAgent"), before + 1);
    assert_eq!(house.sim("agents")["answer"], "0");
}
