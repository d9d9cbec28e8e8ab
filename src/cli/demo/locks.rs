//! The story of a property whose locks are spoken to by Bluetooth: codes at keypads instead of cards.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    http::Api,
    latchd, log,
    property::Property,
    story::{heading, line},
};
use crate::seams::Clock;

/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The locks by their names at the simulator and in the configuration.
const LOCKS: [(&str, &str, &str); 3] = [
    ("fresh-1", "cabins/back", "TTLock, fresh from its box"),
    ("ttlock-1", "cabins/front", "TTLock, in its maker's app"),
    ("august-1", "flats/attic", "August, in its maker's app"),
];

/// The sections of the agent's configuration.
pub(super) fn sections(property: &Property) -> anyhow::Result<String> {
    let lock = |at: usize| {
        let (label, name, _) = LOCKS[at];
        let known = property.locks.as_array().into_iter().flatten().find(|lock| lock["name"] == label);
        let address =
            known.and_then(|lock| lock["address"].as_str()).context("the simulator names no address")?;
        let (_, name) = name.split_once('/').expect("a lock's name has its system's before it");
        anyhow::Ok(format!("{{ name = \"{name}\", address = \"{address}\" }}"))
    };
    let quick = "listen = \"4s\"\nconnect_timeout = \"4s\"";
    Ok(format!(
        "\n[[system]]\nname = \"cabins\"\nkind = \"ttlock\"\nlocks = [{}, {}]\n{quick}\n\n[[system]]\nname = \"flats\"\n\
         kind = \"august_yale\"\nlocks = [{}]\n{quick}\n",
        lock(0)?,
        lock(1)?,
        lock(2)?,
    ))
}

/// What gives rights at the locks comes to the agent, by the commands that a person types.
pub(super) async fn hand_over_keys(folder: &Path, config: &Path, property: &Property) -> anyhow::Result<()> {
    heading("The locks get to know the house");
    for (label, name, make) in LOCKS {
        let keys = property.locks.as_array().into_iter().flatten().find(|lock| lock["name"] == label);
        let keys = keys.and_then(|lock| lock["keys_file"].as_str());
        let mut command = latchd()?;
        command.arg("devices");
        match keys {
            None => command.args(["pair", name]),
            Some(file) => command.args(["import", name, file]),
        };
        command.arg("--config").arg(config).env("DBUS_SYSTEM_BUS_ADDRESS", &property.bus);
        command.stdout(log(folder, "devices")?).stderr(log(folder, "devices")?);
        ensure!(command.status().await?.success(), "the keys of {name} were not taken over");
        let how = if keys.is_some() { "its keys are imported" } else { "paired, without any cloud" };
        line(name, &format!("{make}: {how}; sealed"));
    }
    Ok(())
}

/// Tells the whole story once.
pub(super) async fn tell(api: &Api, property: &Property) -> anyhow::Result<()> {
    let story = Story { api, property, clock: Clock::system() };
    let ids = story.everything_connects().await.context("everything connects")?;
    let (grant, pin) = story.a_guest_gets_a_code(&ids).await.context("a guest gets a code")?;
    story.a_lock_is_out_of_range(&grant, &pin).await.context("a lock is out of range")
}

struct Story<'a> {
    api: &'a Api,
    property: &'a Property,
    clock: Clock,
}

impl Story<'_> {
    async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look().await? {
                return Ok(seen);
            }
            if give_up < Instant::now() {
                bail!("waited {PATIENCE:?} in vain until {what}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether a keypad would open, by the lock itself.
    async fn opens(&self, label: &str, pin: &str) -> anyhow::Result<bool> {
        let tried = self.property.control(&format!("lock {label} try {pin}")).await?;
        Ok(tried["answer"] == "opens" || tried["opens"] == true)
    }

    async fn everything_connects(&self) -> anyhow::Result<Vec<Value>> {
        heading("Everything connects");
        let devices = self.until("every lock is there", async || {
            let devices = self.api.get("/devices/list", json!({}), "devices").await?;
            let devices = devices.as_array().cloned().unwrap_or_default();
            let online = devices.iter().filter(|device| device["properties"]["online"] == true).count();
            Ok((online == LOCKS.len()).then_some(devices))
        });
        let devices = devices.await?;
        for device in &devices {
            let name = device["display_name"].as_str().or(device["nickname"].as_str()).unwrap_or_default();
            line("device", &format!("{name} ({})", device["device_type"].as_str().unwrap_or_default()));
        }
        Ok(devices.into_iter().map(|device| device["device_id"].clone()).collect())
    }

    async fn a_guest_gets_a_code(&self, ids: &[Value]) -> anyhow::Result<(Value, String)> {
        heading("A guest gets one code for three locks");
        let now = self.clock.now();
        let body = json!({
            "user_identity": { "full_name": "Jane Doe" }, "device_ids": ids,
            "requested_access_methods": [{ "mode": "code" }],
            "starts_at": now - SignedDuration::from_mins(1), "ends_at": now + SignedDuration::from_hours(48),
        });
        let grant = self.api.get("/access_grants/create", body, "access_grant").await?;
        let id = &grant["requested_access_methods"][0]["created_access_method_ids"][0];
        let method = self.until("the code is issued", async || {
            let get = json!({ "access_method_id": id });
            let method = self.api.get("/access_methods/get", get, "access_method").await?;
            Ok((method["is_issued"] == true).then_some(method))
        });
        let method = method.await?;
        let pin = method["code"].as_str().context("an issued code is told")?.to_owned();
        line("issued", &format!("{pin}, once all three locks had shown it in their own tables"));
        for (label, name, _) in LOCKS {
            ensure!(self.opens(label, &pin).await?, "{name} does not open with the code");
            ensure!(!self.opens(label, "0000").await?, "{name} opens with any code");
        }
        line("opens", &LOCKS.map(|(_, name, _)| name).join(", "));
        Ok((grant["access_grant_id"].clone(), pin))
    }

    async fn a_lock_is_out_of_range(&self, grant: &Value, pin: &str) -> anyhow::Result<()> {
        heading("The grant ends while a lock is out of range");
        let ((away, name, _), here) = (LOCKS[1], [LOCKS[0], LOCKS[2]]);
        self.property.control(&format!("range {away} off")).await?;
        line("away", name);
        self.api.done("/access_grants/delete", json!({ "access_grant_id": grant })).await?;
        for (label, name, _) in here {
            let gone = async || Ok((!self.opens(label, pin).await?).then_some(()));
            self.until("the code is removed", gone).await?;
            line("removed", &format!("{pin} opens {name} no more"));
        }
        ensure!(self.opens(away, pin).await?, "nobody can have removed it from {name}");
        line("still", &format!("{pin} opens {name}: the agent waits for it and says so"));
        self.property.control(&format!("range {away} on")).await?;
        let gone = async || Ok((!self.opens(away, pin).await?).then_some(()));
        self.until("the code is removed from the last lock", gone).await?;
        line("removed", &format!("{name} is back, and {pin} opens nothing any more"));
        Ok(())
    }
}
