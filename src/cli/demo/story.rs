//! The story: what happens at the property, told while it happens. Every claim is checked before it is printed.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{http::Api, property::Property};
use crate::seams::Clock;

/// No step of the demo takes longer, whatever the machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Tells the whole story once. Where it was told before, other guests come.
pub(super) async fn tell(
    api: &Api,
    property: &Property,
    zone: &TimeZone,
    was_told: bool,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let started = clock.now();
    let season = if was_told { format!("-{}", started.as_second()) } else { String::new() };
    let story = Story { api, property, zone, started, season, clock };
    story.everything_connects().await.context("everything connects")?;
    let first = story.a_guest_arrives().await.context("a guest arrives")?;
    story.a_second_guest_joins().await.context("a second guest joins the stay")?;
    story.the_next_stay_overrides().await.context("the next stay overrides")?;
    story.another_desk_over_tcp().await.context("at the annex, over TCP")?;
    story.the_encoder_is_unplugged_and_comes_back().await.context("somebody pulls the serial cable")?;
    story.what_the_feed_says(&first).await.context("what the event feed says")
}

struct Story<'a> {
    api: &'a Api,
    property: &'a Property,
    zone: &'a TimeZone,
    clock: Clock,
    started: Timestamp,
    /// What makes its guests and stays unlike those of an earlier telling.
    season: String,
}

/// A card that was ordered: its method, and the attempt to write it.
struct Ordered {
    grant: String,
    method: String,
    attempt: String,
}

/// Who gets a card to what.
struct Stay<'a> {
    guest: &'a str,
    reservation: &'a str,
    doors: &'a [&'a str],
    nights: i64,
}

impl Story<'_> {
    async fn everything_connects(&self) -> anyhow::Result<()> {
        heading("Everything connects");
        let systems = self
            .until("both lines to the lock server open", async || {
                let systems = self.api.get("/acs/systems/list", json!({}), "acs_systems").await?;
                let systems = systems.as_array().cloned().unwrap_or_default();
                let all_well =
                    systems.iter().all(|system| system["errors"].as_array().is_some_and(Vec::is_empty));
                Ok((systems.len() == 2 && all_well).then_some(systems))
            })
            .await?;
        for system in &systems {
            line("system", system["name"].as_str().unwrap_or_default());
        }
        let encoders = self.api.get("/acs/encoders/list", json!({}), "acs_encoders").await?;
        let entrances = self.api.get("/acs/entrances/list", json!({}), "acs_entrances").await?;
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        line("listed", &format!("{} entrances, {} encoders", count(&entrances), count(&encoders)));
        Ok(())
    }

    async fn a_guest_arrives(&self) -> anyhow::Result<Ordered> {
        heading("A guest arrives");
        let stay = Stay { guest: "Jane Doe", reservation: "stay-1", doors: &["101", "pool"], nights: 3 };
        let ordered = self.order(&stay, "1").await?;
        self.lay_down("jane", "1", &ordered).await?;
        self.opens("jane", &["101", "pool"]).await?;
        self.stays_shut("jane", &["102"]).await?;
        Ok(ordered)
    }

    async fn a_second_guest_joins(&self) -> anyhow::Result<()> {
        heading("A second guest joins the stay");
        let stay = Stay { guest: "John Doe", reservation: "stay-1", doors: &["101", "pool"], nights: 3 };
        let ordered = self.order(&stay, "1").await?;
        self.lay_down("john", "1", &ordered).await?;
        self.opens("john", &["101", "pool"]).await?;
        self.opens("jane", &["101"]).await
    }

    async fn the_next_stay_overrides(&self) -> anyhow::Result<()> {
        heading("The next stay overrides");
        let stay = Stay { guest: "Ada Moe", reservation: "stay-2", doors: &["101"], nights: 2 };
        let ordered = self.order(&stay, "1").await?;
        self.lay_down("ada", "1", &ordered).await?;
        line("offline", "the lock does not know yet: until Ada's card is used there, the old ones open");
        self.opens("jane", &["101"]).await?;
        self.opens("ada", &["101"]).await?;
        self.stays_shut("jane", &["101"]).await?;
        self.stays_shut("john", &["101"]).await?;
        let late = Stay { guest: "Jim Doe", reservation: "stay-1", doors: &["101"], nights: 3 };
        let refused = self.order(&late, "1").await?;
        let attempt = self.ended(&refused.attempt).await?;
        let message = attempt["error"]["message"].as_str().unwrap_or_default();
        ensure!(attempt["status"] == "error", "a card into somebody else's room was not refused: {attempt}");
        line("refused", &format!("another card of stay-1 for 101: {message}"));
        Ok(())
    }

    async fn another_desk_over_tcp(&self) -> anyhow::Result<()> {
        heading("At the annex, over TCP");
        let stay = Stay { guest: "Kim Roe", reservation: "stay-3", doors: &["201"], nights: 1 };
        let ordered = self.order(&stay, "2").await?;
        self.lay_down("kim", "2", &ordered).await?;
        self.opens("kim", &["201"]).await?;
        self.stays_shut("kim", &["101"]).await
    }

    async fn the_encoder_is_unplugged_and_comes_back(&self) -> anyhow::Result<()> {
        heading("Somebody pulls the serial cable");
        self.property.control("unplug serial").await?;
        let errors = async || {
            let systems = self.api.get("/acs/systems/list", json!({}), "acs_systems").await?;
            let house =
                systems.as_array().and_then(|list| list.iter().find(|system| system["name"] == "house"));
            anyhow::Ok(house.map_or(Value::Null, |house| house["errors"].clone()))
        };
        let seen = self
            .until("the cloud shows the broken line", async || {
                let errors = errors().await?;
                Ok(errors.get(0).cloned())
            })
            .await?;
        line("condition", seen["message"].as_str().unwrap_or_default());
        let stay = Stay { guest: "Max Poe", reservation: "stay-4", doors: &["102"], nights: 1 };
        let ordered = self.order_only(&stay, "1").await?;
        line("ordered", "a card for 102 waits in the queue, and is not lost");
        self.property.control("replug serial").await?;
        line("replugged", "the line opens by itself and the job goes on");
        self.property.waits_for_card("1").await?;
        self.lay_down("max", "1", &ordered).await?;
        self.opens("max", &["102"]).await?;
        self.until("the condition ends", async || Ok(errors().await?.get(0).is_none().then_some(()))).await
    }

    async fn what_the_feed_says(&self, first: &Ordered) -> anyhow::Result<()> {
        heading("What the event feed says of the first grant");
        let ask = json!({ "since": self.started, "access_grant_id": first.grant });
        let grant_events = self.api.get("/events/list", ask, "events").await?;
        let ask = json!({ "since": self.started, "access_method_id": first.method });
        let method_events = self.api.get("/events/list", ask, "events").await?;
        let kinds = |events: &Value| -> Vec<String> {
            let events = events.as_array().cloned().unwrap_or_default();
            events.iter().filter_map(|event| event["event_type"].as_str().map(str::to_owned)).collect()
        };
        let mut all = kinds(&grant_events);
        all.extend(kinds(&method_events));
        all.dedup();
        for kind in
            ["access_grant.created", "access_method.issued", "access_grant.access_granted_to_all_doors"]
        {
            ensure!(all.iter().any(|seen| seen == kind), "the feed lacks {kind}: {all:?}");
        }
        for kind in &all {
            line("event", kind);
        }
        Ok(())
    }

    /// Grants access and orders the card, up to the point where the encoder waits for it or the order is refused.
    async fn order(&self, stay: &Stay<'_>, encoder: &str) -> anyhow::Result<Ordered> {
        let ordered = self.order_only(stay, encoder).await?;
        self.waits_or_ends(encoder, &ordered.attempt).await?;
        Ok(ordered)
    }

    async fn order_only(&self, stay: &Stay<'_>, encoder: &str) -> anyhow::Result<Ordered> {
        let reservation = format!("{}{}", stay.reservation, self.season);
        let name = stay.guest.to_lowercase().replace(' ', ".");
        let address = format!("{name}{}@example.com", self.season);
        let identity = json!({ "full_name": stay.guest, "email_address": address });
        let from = self.clock.now().to_zoned(self.zone.clone());
        let to = from.date().at(11, 0, 0, 0).checked_add(stay.nights.days())?.to_zoned(self.zone.clone())?;
        line("who", stay.guest);
        line("where", &format!("{} (reservation {})", stay.doors.join(", "), reservation));
        line("when", &format!("{} to {}", from.strftime("%a %d %b %H:%M"), to.strftime("%a %d %b %H:%M")));
        line("how", "one card");
        let identity = self.api.get("/user_identities/create", identity, "user_identity").await?;
        let space =
            json!({ "name": stay.doors.join(" + "), "acs_entrance_ids": self.entrances(stay.doors).await? });
        let space = self.api.get("/spaces/create", space, "space").await?;
        let grant = json!({
            "user_identity_id": identity["user_identity_id"],
            "space_ids": [space["space_id"]],
            "requested_access_methods": [{ "mode": "card" }],
            "reservation_key": reservation,
            "starts_at": from.timestamp(),
            "ends_at": to.timestamp(),
        });
        let grant = self.api.get("/access_grants/create", grant, "access_grant").await?;
        let method = grant["access_method_ids"][0].as_str().context("the grant has a card")?.to_owned();
        let encode = json!({ "access_method_id": method, "acs_encoder_id": self.encoder(encoder).await? });
        let attempt = self.api.get("/access_methods/encode", encode, "action_attempt").await?;
        let id = |value: &Value| value.as_str().map(str::to_owned).context("an id is text");
        Ok(Ordered {
            grant: id(&grant["access_grant_id"])?,
            method,
            attempt: id(&attempt["action_attempt_id"])?,
        })
    }

    async fn entrances(&self, doors: &[&str]) -> anyhow::Result<Vec<Value>> {
        let list = self.api.get("/acs/entrances/list", json!({}), "acs_entrances").await?;
        let list = list.as_array().cloned().unwrap_or_default();
        let find = |door: &&str| {
            let entrance = list.iter().find(|entrance| entrance["display_name"] == *door);
            entrance
                .map(|entrance| entrance["acs_entrance_id"].clone())
                .with_context(|| format!("no entrance {door}"))
        };
        doors.iter().map(find).collect()
    }

    async fn encoder(&self, name: &str) -> anyhow::Result<Value> {
        let list = self.api.get("/acs/encoders/list", json!({}), "acs_encoders").await?;
        let list = list.as_array().cloned().unwrap_or_default();
        let encoder = list.iter().find(|encoder| encoder["display_name"] == name);
        encoder.map(|encoder| encoder["acs_encoder_id"].clone()).with_context(|| format!("no encoder {name}"))
    }

    async fn waits_or_ends(&self, encoder: &str, attempt: &str) -> anyhow::Result<()> {
        tokio::select! {
            waits = self.property.waits_for_card(encoder) => waits,
            ended = self.ended(attempt) => ended.map(drop),
        }
    }

    async fn lay_down(&self, card: &str, encoder: &str, ordered: &Ordered) -> anyhow::Result<()> {
        self.until("the cloud hears that a card is waited for", async || {
            let ask = json!({ "action_attempt_id": ordered.attempt, "stage": "sent" });
            let attempt = self.api.get("/action_attempts/get", ask, "action_attempt").await?;
            let asked = attempt["stage"] == "waiting_for_card";
            Ok((asked || attempt["status"] != "pending").then_some(()))
        })
        .await?;
        line(
            "waiting",
            &format!("encoder {encoder} waits for a card, and the cloud says so; somebody lays one down"),
        );
        self.property.control(&format!("place {card} on {encoder}")).await?;
        let attempt = self.ended(&ordered.attempt).await?;
        ensure!(
            attempt["status"] == "success",
            "the card was not written: {}",
            attempt["error"]["message"].as_str().unwrap_or("no message")
        );
        self.property.control(&format!("remove {encoder}")).await?;
        let ask = json!({ "access_method_id": ordered.method });
        let method = self.api.get("/access_methods/get", ask, "access_method").await?;
        ensure!(method["is_issued"] == true, "the method does not say that it is issued: {method}");
        let serial = attempt["result"]["card_number"].as_str().unwrap_or("not told");
        line("written", &format!("card {card}, chip {serial}"));
        Ok(())
    }

    async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        self.until("the attempt ends", async || {
            let ask = json!({ "action_attempt_id": id });
            let attempt = self.api.get("/action_attempts/get", ask, "action_attempt").await?;
            Ok((attempt["status"] != "pending").then_some(attempt))
        })
        .await
    }

    async fn opens(&self, card: &str, doors: &[&str]) -> anyhow::Result<()> {
        for door in doors {
            let used = self.property.control(&format!("use {card} at {door}")).await?;
            ensure!(used["opened"] == true, "card {card} does not open {door}: {used}");
        }
        line("opens", &format!("{card}'s card: {}", doors.join(", ")));
        Ok(())
    }

    async fn stays_shut(&self, card: &str, doors: &[&str]) -> anyhow::Result<()> {
        for door in doors {
            let used = self.property.control(&format!("use {card} at {door}")).await?;
            ensure!(used["opened"] == false, "card {card} opens {door}, and must not: {used}");
        }
        line("stays shut", &format!("{card}'s card: {}", doors.join(", ")));
        Ok(())
    }

    /// Looks until something is so; a step that never comes ends the demo with its name.
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
            if Instant::now() > give_up {
                bail!("waited {PATIENCE:?} in vain until {what}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn line(label: &str, text: &str) {
    println!("  {label:<11} {text}");
}
