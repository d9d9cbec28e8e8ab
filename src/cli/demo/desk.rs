//! What people at the desk and at the doors do in the story, and how each claim is checked.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail, ensure};
use jiff::{ToSpan, Zoned};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::story::{Ordered, Stay, Story, line};

/// No step of the demo takes longer, whatever the machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Story<'_> {
    /// Grants access and orders the card, up to the point where the encoder waits for it or the order is refused.
    pub(super) async fn order(&self, stay: &Stay<'_>, encoder: &str) -> anyhow::Result<Ordered> {
        let ordered = self.order_only(stay, encoder).await?;
        self.waits_or_ends(encoder, &ordered.attempt).await?;
        Ok(ordered)
    }

    pub(super) async fn order_only(&self, stay: &Stay<'_>, encoder: &str) -> anyhow::Result<Ordered> {
        let reservation = format!("{}{}", stay.reservation, self.season);
        let from = self.clock.now().to_zoned(self.zone.clone());
        let to = self.checkout_in(stay.nights)?;
        line("who", stay.guest);
        line("where", &format!("{} (reservation {})", stay.doors.join(", "), reservation));
        line("when", &format!("{} to {}", from.strftime("%a %d %b %H:%M"), to.strftime("%a %d %b %H:%M")));
        line("how", "one card");
        let identity = self.person(stay.guest).await?;
        let space =
            json!({ "name": stay.doors.join(" + "), "acs_entrance_ids": self.entrances(stay.doors).await? });
        let space = self.api.get("/spaces/create", space, "space").await?;
        let grant = json!({
            "user_identity_id": identity,
            "space_ids": [space["space_id"]],
            "requested_access_methods": [{ "mode": "card" }],
            "reservation_key": reservation,
            "starts_at": from.timestamp(),
            "ends_at": to.timestamp(),
        });
        let grant = self.api.get("/access_grants/create", grant, "access_grant").await?;
        let method = grant["access_method_ids"][0].as_str().context("the grant has a card")?.to_owned();
        let grant = grant["access_grant_id"].as_str().context("an id is text")?.to_owned();
        self.encode(&Ordered { grant, method, attempt: String::new() }, encoder).await
    }

    /// Orders the card of a grant that has one: its first, or the same once more.
    pub(super) async fn encode(&self, card: &Ordered, encoder: &str) -> anyhow::Result<Ordered> {
        let encode =
            json!({ "access_method_id": card.method, "acs_encoder_id": self.encoder(encoder).await? });
        let attempt = self.api.get("/access_methods/encode", encode, "action_attempt").await?;
        let attempt = attempt["action_attempt_id"].as_str().context("an id is text")?.to_owned();
        Ok(Ordered { grant: card.grant.clone(), method: card.method.clone(), attempt })
    }

    /// The card of a grant that is not deleted.
    pub(super) async fn card_of(&self, guest: &Ordered) -> anyhow::Result<Ordered> {
        let ask = json!({ "access_grant_id": guest.grant });
        let methods = self.api.get("/access_methods/list", ask, "access_methods").await?;
        let methods = methods.as_array().cloned().unwrap_or_default();
        let live = methods.iter().find(|method| method["is_ready_for_encoding"] == true);
        let method = live.and_then(|method| method["access_method_id"].as_str());
        let method = method.context("the grant has a card to encode")?.to_owned();
        Ok(Ordered { grant: guest.grant.clone(), method, attempt: String::new() })
    }

    /// Waits until a card wants to be encoded once more.
    pub(super) async fn asks_for_its_card(&self, guest: &Ordered) -> anyhow::Result<()> {
        self.until("the card asks to be encoded again", async || {
            let ask = json!({ "access_method_id": guest.method });
            let method = self.api.get("/access_methods/get", ask, "access_method").await?;
            Ok((method["is_ready_for_encoding"] == true).then_some(()))
        })
        .await
    }

    pub(super) async fn revoke(&self, guest: &Ordered) -> anyhow::Result<()> {
        self.api.done("/access_grants/delete", json!({ "access_grant_id": guest.grant })).await
    }

    /// What the grant says of cards that open what they should not.
    pub(super) async fn what_still_opens(&self, guest: &Ordered) -> anyhow::Result<String> {
        let ask = json!({ "access_grant_id": guest.grant });
        let grant = self.api.get("/access_grants/get", ask, "access_grant").await?;
        let warnings = grant["warnings"].as_array().cloned().unwrap_or_default();
        let told = warnings.iter().find(|warning| warning["warning_code"] == "overprovisioned_access");
        let told = told.and_then(|warning| warning["message"].as_str());
        Ok(told.context("the grant says what its card still opens")?.to_owned())
    }

    /// Eleven o'clock at the property, so many nights from now.
    pub(super) fn checkout_in(&self, nights: i64) -> anyhow::Result<Zoned> {
        let today = self.clock.now().to_zoned(self.zone.clone()).date();
        Ok(today.at(11, 0, 0, 0).checked_add(nights.days())?.to_zoned(self.zone.clone())?)
    }

    /// The user identity of a guest, who may have been here before.
    async fn person(&self, guest: &str) -> anyhow::Result<Value> {
        let key = format!("{}{}", guest.to_lowercase().replace(' ', "."), self.season);
        let known = json!({ "user_identity_key": key });
        let (status, mut known) = self.api.call("/user_identities/get", &known).await?;
        let mut identity = match status {
            200 => known["user_identity"].take(),
            _ => {
                let address = format!("{key}@example.com");
                let new = json!({ "full_name": guest, "email_address": address, "user_identity_key": key });
                self.api.get("/user_identities/create", new, "user_identity").await?
            }
        };
        Ok(identity["user_identity_id"].take())
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

    pub(super) async fn lay_down(&self, card: &str, encoder: &str, ordered: &Ordered) -> anyhow::Result<()> {
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

    pub(super) async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        self.until("the attempt ends", async || {
            let ask = json!({ "action_attempt_id": id });
            let attempt = self.api.get("/action_attempts/get", ask, "action_attempt").await?;
            Ok((attempt["status"] != "pending").then_some(attempt))
        })
        .await
    }

    pub(super) async fn opens(&self, card: &str, doors: &[&str]) -> anyhow::Result<()> {
        for door in doors {
            let used = self.property.control(&format!("use {card} at {door}")).await?;
            ensure!(used["opened"] == true, "card {card} does not open {door}: {used}");
        }
        line("opens", &format!("{card}'s card: {}", doors.join(", ")));
        Ok(())
    }

    pub(super) async fn stays_shut(&self, card: &str, doors: &[&str]) -> anyhow::Result<()> {
        for door in doors {
            let used = self.property.control(&format!("use {card} at {door}")).await?;
            ensure!(used["opened"] == false, "card {card} opens {door}, and must not: {used}");
        }
        line("stays shut", &format!("{card}'s card: {}", doors.join(", ")));
        Ok(())
    }

    /// Shows which doors each card opens at this moment, and that it is no other one. Nobody tries them for it.
    pub(super) async fn now_open(&self, expected: &[(&str, &[&str])]) -> anyhow::Result<()> {
        let answer = self.property.control("ledger").await?;
        let doors = answer["doors"].as_object().cloned().unwrap_or_default();
        let mut opened: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (door, cards) in &doors {
            for card in cards.as_array().into_iter().flatten().filter_map(Value::as_str) {
                opened.entry(card).or_default().push(door);
            }
        }
        let expected: BTreeMap<&str, Vec<&str>> =
            expected.iter().map(|(card, doors)| (*card, doors.to_vec())).collect();
        ensure!(opened == expected, "the doors open for {opened:?}, and should for {expected:?}");
        let each = opened.iter().map(|(card, doors)| format!("{card}: {}", doors.join(", ")));
        line("now open", &each.collect::<Vec<_>>().join("; "));
        Ok(())
    }

    /// Looks until something is so; a step that never comes ends the demo with its name.
    pub(super) async fn until<T>(
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
