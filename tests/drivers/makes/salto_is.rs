//! SALTO SPACE by its "Industry Standard" PMS interface, and those who speak it with hours only.

use std::sync::Arc;

use jiff::Timestamp;
use latchd::{
    config::{DriverConfig, SystemConfig},
    drivers::{
        Driver,
        salto_is::{
            SaltoIs,
            sim::{CommonDoor, Dates, Dialect, Line, Property, Settings, Simulator},
        },
    },
    seams::{self, BoxFuture, Listener},
};
use serde_json::Value;

use super::{Fault, Layout, Ledger, Make, Site, StartDriver, Written, doors, minutes};

struct Server {
    simulator: Simulator,
    /// As the settings call it.
    dialect: &'static str,
}

pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
    server(layout, now, "salto", Dialect::Salto, Dates::Minutes)
}

pub(crate) mod hours {
    use super::*;

    pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
        server(layout, now, "salto_hours", Dialect::Salto, Dates::Hours)
    }
}

pub(crate) mod onity {
    use super::*;

    pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
        server(layout, now, "onity", Dialect::Onity, Dates::Hours)
    }
}

pub(crate) mod amadeus_st40 {
    use super::*;

    pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
        server(layout, now, "amadeus_st40", Dialect::AmadeusSt40, Dates::Hours)
    }
}

fn server(
    layout: &Layout,
    now: Timestamp,
    name: &'static str,
    dialect: Dialect,
    dates: Dates,
) -> Box<dyn Make> {
    let common = layout.common.iter().zip(1..);
    let property = Property {
        time_zone: layout.zone.into(),
        rooms: layout.rooms.clone(),
        common: common.map(|(name, n)| CommonDoor { name: name.clone(), authorisation: n }).collect(),
        encoders: layout.encoders.clone(),
    };
    let settings = Settings { property, dialect, dates, starts_at: Some(now), ..Settings::default() };
    Box::new(Server { simulator: Simulator::new(settings).unwrap(), dialect: name })
}

impl Make for Server {
    fn serve(&self, mut listener: Box<dyn Listener>) -> BoxFuture<'static, ()> {
        let server = self.simulator.clone();
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
        format!(
            "{}dialect = \"{}\"\ncommon = [{}]\n",
            layout.shared("salto_is", address),
            self.dialect,
            common.join(", ")
        )
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
        Box::pin(self.simulator.command(words))
    }

    fn ledger(&self, shown: &Value) -> Ledger {
        let written = |order: &Value| {
            let field = |n: usize| order["fields"][n].as_str().unwrap_or_default().to_owned();
            (order["result"] == "written").then(|| Written {
                card: order["card"].as_str().unwrap().into(),
                rooms: (3..=6).map(field).filter(|room| !room.is_empty()).collect(),
                joins: field(0).starts_with("CC"),
                end: minutes("%H%M%d%m%y", &self.with_minutes(&field(10))),
            })
        };
        let orders = shown["orders"].as_array().unwrap();
        Ledger { written: orders.iter().filter_map(written).collect(), doors: doors(shown) }
    }

    fn ordered(&self, said: &[u8]) -> usize {
        said.windows(4).filter(|it| it.starts_with(b"\x02\xb3C") && matches!(it[3], b'N' | b'C')).count()
    }

    fn has_hours_only(&self) -> bool {
        self.dialect != "salto"
    }

    fn fault(&self, fault: Fault) -> String {
        match fault {
            Fault::Busy => "fault error OV".into(),
            Fault::WritesInSilence => "fault write-then-silent".into(),
            Fault::Late(span) => format!("fault late-answer {}", span.as_millis()),
        }
    }
}

impl Server {
    /// A date as it would be with minutes.
    fn with_minutes(&self, date: &str) -> String {
        match self.has_hours_only() {
            true => format!("{}00{}", &date[..2], &date[2..]),
            false => date.to_owned(),
        }
    }
}
