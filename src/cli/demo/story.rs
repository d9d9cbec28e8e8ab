//! The story: what happens at the property, told while it happens. Every claim is checked before it is printed.

use anyhow::{Context, ensure};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{house::House, http::Api, property::Property};
use crate::{model::Capabilities, seams::Clock};

/// Tells the whole story once. Where it was told before, other guests come.
pub(super) async fn tell(
    house: House,
    api: &Api,
    property: &Property,
    zone: &TimeZone,
    was_told: bool,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let started = clock.now();
    let season = if was_told { format!("-{}", started.as_second()) } else { String::new() };
    let story = Story { house, can: house.can(), api, property, zone, started, season, clock };
    story.everything_connects().await.context("everything connects")?;
    let jane = story.a_guest_arrives().await.context("a guest arrives")?;
    let john = story.a_second_guest_joins().await.context("a second guest joins the stay")?;
    story.the_stay_is_extended([&jane, &john]).await.context("the stay is extended")?;
    story.a_card_is_lost([&jane, &john]).await.context("a card is lost")?;
    let [jane_moved, john_moved] =
        story.the_room_is_changed([&jane, &john]).await.context("they move to another room")?;
    story.the_next_stay_overrides().await.context("the next stay is prepared")?;
    story.they_leave_early([&jane_moved, &john_moved]).await.context("they check out early")?;
    story.another_desk_over_tcp().await.context("at the annex, over TCP")?;
    story.the_encoder_is_unplugged_and_comes_back().await.context("somebody pulls the serial cable")?;
    story.what_the_feed_says(&jane).await.context("what the event feed says")
}

pub(super) struct Story<'a> {
    house: House,
    /// What the house's system can do, as its driver declares it.
    can: Capabilities,
    pub(super) api: &'a Api,
    pub(super) property: &'a Property,
    pub(super) zone: &'a TimeZone,
    pub(super) clock: Clock,
    started: Timestamp,
    /// What makes its guests and stays unlike those of an earlier telling.
    pub(super) season: String,
}

/// A card that was ordered: its method, and the attempt to write it.
pub(super) struct Ordered {
    pub(super) grant: String,
    pub(super) method: String,
    pub(super) attempt: String,
}

/// Who gets a card to what.
pub(super) struct Stay<'a> {
    pub(super) guest: &'a str,
    pub(super) reservation: &'a str,
    pub(super) doors: &'a [&'a str],
    pub(super) nights: i64,
}

fn stay<'a>(guest: &'a str, reservation: &'a str, doors: &'a [&'a str], nights: i64) -> Stay<'a> {
    Stay { guest, reservation, doors, nights }
}

impl Story<'_> {
    async fn everything_connects(&self) -> anyhow::Result<()> {
        heading("Everything connects");
        let systems = self
            .until("every line to the lock server opens", async || {
                let systems = self.api.get("/acs/systems/list", json!({}), "acs_systems").await?;
                let systems = systems.as_array().cloned().unwrap_or_default();
                let all_well =
                    systems.iter().all(|system| system["errors"].as_array().is_some_and(Vec::is_empty));
                Ok((systems.len() == self.house.systems() && all_well).then_some(systems))
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
        let jane = self.order(&stay("Jane Doe", "stay-1", &["101", "pool"], 3), "1").await?;
        self.lay_down("jane", "1", &jane).await?;
        self.opens("jane", &["101", "pool"]).await?;
        self.stays_shut("jane", &["102"]).await?;
        self.now_open(&[("jane", &["101", "pool"])]).await?;
        Ok(jane)
    }

    async fn a_second_guest_joins(&self) -> anyhow::Result<Ordered> {
        heading("A second guest joins the stay");
        let john = self.order(&stay("John Doe", "stay-1", &["101", "pool"], 3), "1").await?;
        self.lay_down("john", "1", &john).await?;
        self.opens("john", &["101", "pool"]).await?;
        self.now_open(&[("jane", &["101", "pool"]), ("john", &["101", "pool"])]).await?;
        Ok(john)
    }

    async fn the_stay_is_extended(&self, [jane, john]: [&Ordered; 2]) -> anyhow::Result<()> {
        heading("The stay is extended");
        let until = self.checkout_in(4)?;
        for guest in [jane, john] {
            let change = json!({ "access_grant_id": guest.grant, "ends_at": until.timestamp() });
            self.api.done("/access_grants/update", change).await?;
        }
        let time = until.strftime("%a %d %b %H:%M");
        match self.can.modify_stay {
            Some(_) => {
                self.property.control(&format!("wait count {} 1", self.house.change_of_a_stay())).await?;
                line("told", &format!("the lock system keeps the stay until {time}"));
            }
            None => self.cannot(&format!(
                "be told that the stay lasts until {time}: its interface has no command that changes a stay. Only its \
                 cards can be made anew"
            )),
        }
        for (card, guest) in [("jane", jane), ("john", john)] {
            self.asks_for_its_card(guest).await?;
            line("asks", &format!("{card}'s card keeps the end printed on it until it is encoded again"));
            let again = self.encode(guest, "1").await?;
            self.lay_down(card, "1", &again).await?;
        }
        self.now_open(&[("jane", &["101", "pool"]), ("john", &["101", "pool"])]).await
    }

    async fn a_card_is_lost(&self, [jane, john]: [&Ordered; 2]) -> anyhow::Result<()> {
        heading("Jane loses her card");
        let gone = json!({ "access_method_id": jane.method });
        self.api.done("/access_methods/delete", gone).await?;
        line("deleted", &self.what_still_opens(jane).await?);
        let more = json!({ "access_grant_id": jane.grant, "requested_access_methods": [{ "mode": "card" }] });
        self.api.done("/access_grants/request_access_methods", more).await?;
        let replacement = self.encode(&self.card_of(jane).await?, "1").await?;
        self.lay_down("jane-2", "1", &replacement).await?;
        line("begins", "this house has a card after a lost one begin the stay anew");
        self.opens("jane-2", &["101"]).await?;
        self.stays_shut("jane", &["101"]).await?;
        self.stays_shut("john", &["101"]).await?;
        self.asks_for_its_card(john).await?;
        line("asks", "john's card was shut out too, so it asks to be encoded again");
        let again = self.encode(john, "1").await?;
        self.lay_down("john", "1", &again).await?;
        self.now_open(&[("jane", &["pool"]), ("jane-2", &["101", "pool"]), ("john", &["101", "pool"])]).await
    }

    async fn the_room_is_changed(&self, before: [&Ordered; 2]) -> anyhow::Result<[Ordered; 2]> {
        heading("They move to another room");
        for guest in before {
            self.revoke(guest).await?;
        }
        match self.can.checkout {
            Some(_) => {
                self.property.control(&format!("wait count {} 1", self.house.check_out())).await?;
                line("freed", "the last grant of the stay in 101 is gone: this house has the room checked out");
            }
            None => self.cannot(
                "free 101, though the last grant of the stay there is gone: its interface has no command for that. The \
                 next stay's first card takes the room over",
            ),
        }
        let jane = self.order(&stay("Jane Doe", "stay-1", &["103", "pool"], 4), "1").await?;
        self.lay_down("jane-2", "1", &jane).await?;
        let john = self.order(&stay("John Doe", "stay-1", &["103", "pool"], 4), "1").await?;
        self.lay_down("john", "1", &john).await?;
        self.opens("jane-2", &["103"]).await?;
        self.now_open(&[("jane", &["pool"]), ("jane-2", &["103", "pool"]), ("john", &["103", "pool"])])
            .await?;
        Ok([jane, john])
    }

    async fn the_next_stay_overrides(&self) -> anyhow::Result<()> {
        heading("The next stay is prepared");
        let ada = self.order(&stay("Ada Moe", "stay-2", &["103"], 6), "1").await?;
        self.lay_down("ada", "1", &ada).await?;
        line("offline", "the lock does not know yet: until Ada's card is used there, the old ones open");
        let refused = self.order(&stay("Jim Doe", "stay-1", &["103"], 4), "1").await?;
        let attempt = self.ended(&refused.attempt).await?;
        let message = attempt["error"]["message"].as_str().unwrap_or_default();
        ensure!(attempt["status"] == "error", "a card into somebody else's room was not refused: {attempt}");
        line("refused", &format!("another card of stay-1 for 103: {message}"));
        self.revoke(&refused).await?;
        self.now_open(&[
            ("ada", &["103"]),
            ("jane", &["pool"]),
            ("jane-2", &["103", "pool"]),
            ("john", &["103", "pool"]),
        ])
        .await
    }

    async fn they_leave_early(&self, guests: [&Ordered; 2]) -> anyhow::Result<()> {
        heading("They check out early");
        for guest in guests {
            self.revoke(guest).await?;
        }
        line("deleted", &self.what_still_opens(guests[0]).await?);
        self.opens("ada", &["103"]).await?;
        self.stays_shut("jane-2", &["103"]).await?;
        self.stays_shut("john", &["103"]).await?;
        self.now_open(&[("ada", &["103"]), ("jane", &["pool"]), ("jane-2", &["pool"]), ("john", &["pool"])])
            .await
    }

    async fn another_desk_over_tcp(&self) -> anyhow::Result<()> {
        heading("At the annex, over TCP");
        if self.house.systems() == 1 {
            line("annex", "its encoder is one more of the same server: one line carries both");
        }
        let ordered = self.order(&stay("Kim Roe", "stay-3", &["201"], 1), "2").await?;
        self.lay_down("kim", "2", &ordered).await?;
        self.opens("kim", &["201"]).await?;
        self.stays_shut("kim", &["101"]).await
    }

    async fn the_encoder_is_unplugged_and_comes_back(&self) -> anyhow::Result<()> {
        heading("Somebody pulls the serial cable");
        if !self.house.has_serial_line() {
            self.cannot("be unplugged here: this house reaches it over the network, and has no serial cable");
            return Ok(());
        }
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
        let ordered = self.order_only(&stay("Max Poe", "stay-4", &["102"], 1), "1").await?;
        line("ordered", "a card for 102 waits in the queue, and is not lost");
        self.property.control("replug serial").await?;
        line("replugged", "the line opens by itself and the job goes on");
        self.property.waits_for_card("1").await?;
        self.lay_down("max", "1", &ordered).await?;
        self.opens("max", &["102"]).await?;
        self.until("the condition ends", async || Ok(errors().await?.get(0).is_none().then_some(()))).await
    }

    /// Says of a step that is left out what the system cannot do, and why.
    fn cannot(&self, what: &str) {
        line("cannot", &format!("{} cannot {what}", self.house.title()));
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
}

pub(super) fn heading(text: &str) {
    println!("\n{text}");
}

pub(super) fn line(label: &str, text: &str) {
    println!("  {label:<11} {text}");
}
