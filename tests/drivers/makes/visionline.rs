//! Visionline by its PMS text interface.

use std::sync::Arc;

use jiff::Timestamp;
use latchd::{
    config::{DriverConfig, SystemConfig},
    drivers::{
        Driver,
        visionline::{
            Visionline,
            sim::{CommonRoom, Property, Settings, Simulator},
        },
    },
    seams::{BoxFuture, Listener},
};
use serde_json::Value;

use super::{Fault, Layout, Ledger, Make, Site, StartDriver, Written, doors, minutes};

pub(crate) struct Server(pub(crate) Simulator);

pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
    Box::new(server(layout, now))
}

pub(crate) fn server(layout: &Layout, now: Timestamp) -> Server {
    let common = layout.common.iter().zip(1..);
    let property = Property {
        time_zone: layout.zone.into(),
        rooms: layout.rooms.clone(),
        common: common.map(|(name, number)| CommonRoom { name: name.clone(), number }).collect(),
        encoders: layout.encoders.clone(),
        ..Property::default()
    };
    let settings = Settings { property, starts_at: Some(now), ..Settings::default() };
    Server(Simulator::new(settings).unwrap())
}

impl Make for Server {
    fn serve(&self, listener: Box<dyn Listener>) -> BoxFuture<'static, ()> {
        let server = self.0.clone();
        Box::pin(async move { server.accept(listener).await })
    }

    fn section(&self, layout: &Layout, address: &str) -> String {
        let common = layout.common.iter().zip(1..);
        let common: Vec<_> =
            common.map(|(name, number)| format!("{{ name = \"{name}\", number = {number} }}")).collect();
        format!("{}common = [{}]\n", layout.shared("visionline", address), common.join(", "))
    }

    fn starter(&self) -> StartDriver {
        |system: &SystemConfig, site: Site| {
            let DriverConfig::Visionline(config) = &system.driver else { panic!("another make") };
            let Site { net, zone, past, clock, random } = site;
            let name = system.name.clone();
            Arc::new(Visionline::start_over(net, config, name, zone, past, clock, random)) as Arc<dyn Driver>
        }
    }

    fn say<'a>(&'a self, words: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(self.0.command(words))
    }

    fn ledger(&self, shown: &Value) -> Ledger {
        let written = |order: &Value| {
            let said = order["said"].as_str()?;
            let item = |name: &str| said.split(';').find_map(|item| item.strip_prefix(name));
            (said.starts_with("CCA") && order["code"] == 0).then(|| Written {
                card: order["card"].as_str().unwrap().into(),
                rooms: vec![item("GR").unwrap().into()],
                joins: item("JR") == Some("1"),
                end: minutes("%Y%m%d%H%M", item("CO").unwrap()),
            })
        };
        let orders = shown["orders"].as_array().unwrap();
        Ledger { written: orders.iter().filter_map(written).collect(), doors: doors(shown) }
    }

    fn ordered(&self, said: &[u8]) -> usize {
        said.windows(4).filter(|it| it == b"CCA;").count()
    }

    fn fault(&self, fault: Fault) -> String {
        match fault {
            Fault::Busy => "fault error 4".into(),
            Fault::WritesInSilence => "fault write-then-silent".into(),
            Fault::Late(span) => format!("fault late {}", span.as_millis()),
        }
    }
}
