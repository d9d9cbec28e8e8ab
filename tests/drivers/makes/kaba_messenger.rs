//! dormakaba's hotel systems by the Messenger PMS web service.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use jiff::Timestamp;
use latchd::{
    config::{DriverConfig, SystemConfig},
    drivers::{
        Driver,
        kaba_messenger::{
            KabaMessenger,
            sim::{CommonArea, Property, Settings, Simulator},
        },
    },
    seams::{BoxFuture, Listener},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{Fault, Layout, Ledger, Make, NO_ROOM, Site, StartDriver, Written, doors};

struct Server {
    simulator: Simulator,
    /// With the password.
    folder: TempDir,
}

pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
    let common = layout.common.iter().zip(1..);
    let property = Property {
        time_zone: layout.zone.into(),
        rooms: layout.rooms.clone(),
        common: common.map(|(name, level)| CommonArea { name: name.clone(), pass_level: level }).collect(),
        encoders: layout.encoders.clone(),
        ..Property::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, &property.password).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = Settings { property, starts_at: Some(now), ..Settings::default() };
    Box::new(Server { simulator: Simulator::new(settings).unwrap(), folder })
}

impl Make for Server {
    fn serve(&self, listener: Box<dyn Listener>) -> BoxFuture<'static, ()> {
        let server = self.simulator.clone();
        Box::pin(async move { server.accept(listener).await })
    }

    fn section(&self, layout: &Layout, address: &str) -> String {
        let names =
            |names: &[String]| names.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
        let common = layout.common.iter().zip(1..);
        let common: Vec<_> =
            common.map(|(name, level)| format!("{{ name = \"{name}\", pass_level = {level} }}")).collect();
        format!(
            "kind = \"kaba_messenger\"\nproduct = \"ambiance\"\n\
             url = \"http://{address}/lenspmswebservice/MessengerPMSService.asmx\"\n\
             user = \"pms\"\npassword_file = \"{}/password\"\nanswer_margin = \"15s\"\n\
             encoders = [{}]\nrooms = [{}, \"{NO_ROOM}\"]\ncommon = [{}]\n",
            self.folder.path().display(),
            names(&layout.encoders),
            names(&layout.rooms),
            common.join(", "),
        )
    }

    fn starter(&self) -> StartDriver {
        |system: &SystemConfig, site: Site| {
            let DriverConfig::KabaMessenger(config) = &system.driver else { panic!("another make") };
            let Site { net, zone, past, clock, random } = site;
            let name = system.name.clone();
            Arc::new(KabaMessenger::start_over(net, config, name, zone, past, clock, random))
                as Arc<dyn Driver>
        }
    }

    fn say<'a>(&'a self, words: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(self.simulator.command(words))
    }

    fn ledger(&self, shown: &Value) -> Ledger {
        let written = |order: &Value| {
            let rights = order["written"].get("rights")?;
            Some(Written {
                card: order["card"].as_str().unwrap().into(),
                rooms: vec![rights["room"].as_str().unwrap().into()],
                joins: order["operation"] != "CreateNewBooking",
                end: rights["end"].as_str().unwrap().parse().unwrap(),
            })
        };
        let orders = shown["orders"].as_array().unwrap();
        Ledger { written: orders.iter().filter_map(written).collect(), doors: doors(shown) }
    }

    fn ordered(&self, said: &[u8]) -> usize {
        // What stands in the head; the body names the operation too.
        let head = String::from_utf8_lossy(said).to_lowercase();
        let head = head.split("\r\n\r\n").next().unwrap_or_default();
        let asks = |name: &&str| head.contains(&format!("soapaction: \"http://tempuri.org/{name}"));
        ["createnewbooking", "addsharedguest", "makeduplicatekey"].iter().filter(|name| asks(name)).count()
    }

    fn exchange(&self) -> usize {
        4000
    }

    fn fault(&self, fault: Fault) -> String {
        match fault {
            Fault::Busy => "fault error EncoderMsg EncoderBusy".into(),
            Fault::WritesInSilence => "fault write-then-silent".into(),
            Fault::Late(span) => format!("fault late {}", span.as_millis()),
        }
    }
}
