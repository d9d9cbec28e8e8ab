//! SALTO SPACE by its "Industry Standard" PMS interface.

use std::sync::Arc;

use jiff::Timestamp;
use latchd::{
    config::{DriverConfig, SystemConfig},
    drivers::{
        Driver,
        salto_is::{
            SaltoIs,
            sim::{CommonDoor, Line, Property, Settings, Simulator},
        },
    },
    seams::{self, BoxFuture, Listener},
};
use serde_json::Value;

use super::{Fault, Layout, Ledger, Make, Site, StartDriver, Written, doors, minutes};

struct Server(Simulator);

pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
    let common = layout.common.iter().zip(1..);
    let property = Property {
        time_zone: layout.zone.into(),
        rooms: layout.rooms.clone(),
        common: common.map(|(name, n)| CommonDoor { name: name.clone(), authorisation: n }).collect(),
        encoders: layout.encoders.clone(),
    };
    let settings = Settings { property, starts_at: Some(now), ..Settings::default() };
    Box::new(Server(Simulator::new(settings).unwrap()))
}

impl Make for Server {
    fn serve(&self, mut listener: Box<dyn Listener>) -> BoxFuture<'static, ()> {
        let server = self.0.clone();
        Box::pin(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                seams::spawn(async move { server.serve(stream, Line::Tcp).await });
            }
        })
    }

    fn section(&self, layout: &Layout, address: &str) -> String {
        let common = layout.common.iter().zip(1..);
        let common: Vec<_> =
            common.map(|(name, n)| format!("{{ name = \"{name}\", authorisation = {n} }}")).collect();
        format!("{}common = [{}]\n", layout.shared("salto_is", address), common.join(", "))
    }

    fn starter(&self) -> StartDriver {
        |system: &SystemConfig, site: Site| {
            let DriverConfig::SaltoIs(config) = &system.driver else { panic!("another make") };
            let Site { net, zone, past, clock, random } = site;
            let name = system.name.clone();
            Arc::new(SaltoIs::start_over(net, config, name, zone, past, clock, random)) as Arc<dyn Driver>
        }
    }

    fn say<'a>(&'a self, words: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(self.0.command(words))
    }

    fn ledger(&self, shown: &Value) -> Ledger {
        let written = |order: &Value| {
            let field = |n: usize| order["fields"][n].as_str().unwrap_or_default().to_owned();
            (order["result"] == "written").then(|| Written {
                card: order["card"].as_str().unwrap().into(),
                rooms: (3..=6).map(field).filter(|room| !room.is_empty()).collect(),
                joins: field(0).starts_with("CC"),
                end: minutes("%H%M%d%m%y", &field(10)),
            })
        };
        let orders = shown["orders"].as_array().unwrap();
        Ledger { written: orders.iter().filter_map(written).collect(), doors: doors(shown) }
    }

    fn ordered(&self, said: &[u8]) -> usize {
        said.windows(4).filter(|it| it.starts_with(b"\x02\xb3C") && matches!(it[3], b'N' | b'C')).count()
    }

    fn fault(&self, fault: Fault) -> String {
        match fault {
            Fault::Busy => "fault error OV".into(),
            Fault::WritesInSilence => "fault write-then-silent".into(),
            Fault::Late(span) => format!("fault late-answer {}", span.as_millis()),
        }
    }
}
