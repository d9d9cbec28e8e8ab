//! The front desk: grants and cards asked for at the cloud's API or at the site itself, plastic laid on encoders, doubts
//! settled honestly.

mod doubts;
mod here;
mod loss;
mod orders;
mod rest;
mod tape;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, civil::DateTime};
use latchd::model::JobId;
use serde_json::{Value, json};

use super::{
    model::{Door, Grant, Plastic},
    simulated::api::Answer,
    site::COMMON,
    town::Town,
};
use loss::Loss;
pub(super) use orders::{Laid, Meanwhile, Road, Wish};

/// How long a person at the desk watches what was ordered.
const PATIENCE: Duration = Duration::from_secs(200);
/// The housekeeper's card, which comes to lie on an encoder now and then.
const STAFF: &str = "staff-card";
const A_MOMENT: Duration = Duration::from_secs(3);

/// A card method, as the desk knows it.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) id: String,
    /// The grant's place in the model.
    pub(super) grant: usize,
    pub(super) system: usize,
    /// What may be under way.
    pub(super) order: Option<Ordered>,
    /// How often it was ordered.
    pub(super) orders: usize,
    /// Whether the card that was ordered last begins its stay anew; none where only the lock server's tape says so.
    begins_again: Option<bool>,
    /// The card that the guest was told of last.
    pub(super) card: Option<Plastic>,
    pub(super) is_written: bool,
    pub(super) is_in_doubt: bool,
    /// Whether an order ended in doubt since a card was written last.
    was_in_doubt: bool,
    pub(super) is_deleted: bool,
}

impl Method {
    fn new(id: String, grant: usize, system: usize) -> Self {
        Self {
            id,
            grant,
            system,
            order: None,
            orders: 0,
            begins_again: Some(false),
            card: None,
            is_written: false,
            is_in_doubt: false,
            was_in_doubt: false,
            is_deleted: false,
        }
    }
}

/// Whose order is under way.
#[derive(Debug, Clone)]
pub(super) enum Ordered {
    /// The cloud's attempt.
    Attempt(String),
    /// A job of the site's own.
    Job(JobId),
}

/// What the tape of a lock server shows to be written.
#[derive(Debug, Clone)]
struct Writing {
    card: Plastic,
    method: usize,
    at: Timestamp,
    /// Who has told the guest of it, if somebody has.
    told: Option<Teller>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Teller {
    Cloud,
    /// The site's own desk, whose word the cloud repeats.
    Here,
}

pub(super) struct Desk {
    pub(super) town: Town,
    entrances: BTreeMap<Door, String>,
    systems: Vec<String>,
    encoders: BTreeMap<(usize, String), String>,
    /// The cloud's names of the grants, by their place in the model.
    grants: Vec<String>,
    pub(super) methods: Vec<Method>,
    writings: Vec<Writing>,
    /// What is known of cards that were taken back.
    loss: Loss,
    /// What stays were said to last, and what the lock servers were told of it.
    ends_told: BTreeMap<Door, DateTime>,
    /// Grants of which it is certain that they were taken back, and those of which it is not.
    gone: BTreeSet<usize>,
    unsure: BTreeSet<usize>,
    /// Grants that were made at the site.
    made_here: BTreeSet<usize>,
    /// When the lock servers freed rooms last.
    checked_out: BTreeMap<Door, Timestamp>,
    /// Printed ends that are taken: each grant has its own, by which its cards are known on the tape.
    ends: BTreeSet<DateTime>,
    plastic: u64,
}

impl Desk {
    pub(super) fn new(town: Town) -> Self {
        Self {
            town,
            entrances: BTreeMap::new(),
            systems: Vec::new(),
            encoders: BTreeMap::new(),
            grants: Vec::new(),
            methods: Vec::new(),
            writings: Vec::new(),
            loss: Loss::default(),
            ends_told: BTreeMap::new(),
            gone: BTreeSet::new(),
            unsure: BTreeSet::new(),
            made_here: BTreeSet::new(),
            checked_out: BTreeMap::new(),
            ends: BTreeSet::new(),
            plastic: 0,
        }
    }

    /// Opens the house, and learns what its doors and encoders are called.
    pub(super) async fn open(&mut self) {
        self.town.open().await;
        let doors: usize = self.town.systems.iter().map(|it| it.rooms.len() + COMMON.len()).sum();
        for _ in 0..100 {
            self.town.pass(A_MOMENT).await;
            let Some(systems) = self.list("/acs/systems/list", "acs_systems").await else { continue };
            let Some(entrances) = self.list("/acs/entrances/list", "acs_entrances").await else { continue };
            let Some(encoders) = self.list("/acs/encoders/list", "acs_encoders").await else { continue };
            if entrances.len() < doors || systems.len() < self.town.systems.len() {
                continue;
            }
            for system in &self.town.systems {
                let it = systems.iter().find(|it| it["name"] == system.name).unwrap();
                self.systems.push(text(&it["acs_system_id"]));
            }
            let place = |of: &Value| self.systems.iter().position(|id| *id == of["acs_system_id"]).unwrap();
            let named = |of: &Value, id: &str| ((place(of), text(&of["display_name"])), text(&of[id]));
            self.entrances = entrances.iter().map(|it| named(it, "acs_entrance_id")).collect();
            self.encoders = encoders.iter().map(|it| named(it, "acs_encoder_id")).collect();
            return;
        }
        self.town.wrong.push("the house never opens".into());
    }

    async fn list(&mut self, path: &'static str, key: &str) -> Option<Vec<Value>> {
        let answer = self.town.ask(path, json!({})).await?.granted()?;
        Some(answer[key].as_array()?.clone())
    }

    /// Asks until there is an answer; a few times.
    async fn insist(&mut self, path: &'static str, body: Value) -> Option<Result<Value, String>> {
        for _ in 0..4 {
            if let Some(answer) = self.town.ask(path, body.clone()).await {
                return Some(match answer.status {
                    200 => Ok(answer.body),
                    _ => Err(text(&answer.body["error"]["type"])),
                });
            }
            self.town.pass(Duration::from_secs(15)).await;
        }
        None
    }

    // Grants.

    /// An end at about this time that no other grant has.
    pub(super) fn own_end(&mut self, mut end: Timestamp) -> Timestamp {
        while !self.ends.insert(self.town.model.printed(end)) {
            end += SignedDuration::from_mins(1);
        }
        end
    }

    /// Makes a guest's grant. Its window's end must be its own.
    pub(super) async fn check_in(&mut self, grant: Grant) -> Option<usize> {
        let (from, until) = grant.windows[0];
        let doors: Vec<_> = grant.rooms.iter().chain(&grant.common).collect();
        let ids: Vec<_> = doors.iter().map(|door| &self.entrances[*door]).collect();
        let key = format!("grant-{}", self.ends.len());
        let body = json!({
            "access_grant_key": key,
            "user_identity": { "user_identity_key": grant.guest },
            "acs_entrance_ids": ids,
            "requested_access_methods": [{ "mode": "card" }],
            "reservation_key": grant.stay,
            "starts_at": from.to_string(),
            "ends_at": until.to_string(),
        });
        let what = self.words(&grant);
        let mut made = self.insist("/access_grants/create", body).await?;
        if made.as_ref().is_err_and(|refused| refused == "access_grant_key_already_exists") {
            made = self.insist("/access_grants/get", json!({ "access_grant_key": key })).await?;
        }
        let made = match made {
            Ok(made) => made["access_grant"].clone(),
            Err(refused) => {
                self.town.note(format_args!("{what}: refused, {refused}"));
                return None;
            }
        };
        self.town.note(format_args!("{what}: granted"));
        let number = self.grants.len();
        self.grants.push(text(&made["access_grant_id"]));
        self.town.model.grants.push(grant);
        self.meet_methods(number, &made).await;
        Some(number)
    }

    /// Who is granted what.
    fn words(&self, grant: &Grant) -> String {
        let names: Vec<_> = grant.rooms.iter().chain(&grant.common).map(|door| door.1.as_str()).collect();
        let (from, until) = grant.windows[0];
        let local = |at| self.town.model.local(at).strftime("%a %H:%M:%S");
        let (from, until) = (local(from), local(until));
        format!("{} of {}: {} from {from} to {until}", grant.guest, grant.stay, names.join("+"))
    }

    /// Takes note of methods of a grant that are new.
    async fn meet_methods(&mut self, grant: usize, made: &Value) {
        for id in made["access_method_ids"].as_array().into_iter().flatten().map(text) {
            if self.methods.iter().any(|method| method.id == id) {
                continue;
            }
            let asked = json!({ "access_method_id": id });
            let Some(Ok(doors)) = self.insist("/acs/entrances/list", asked).await else { continue };
            let system = &doors["acs_entrances"][0]["acs_system_id"];
            let Some(system) = self.systems.iter().position(|id| *id == *system) else { continue };
            self.methods.push(Method::new(id, grant, system));
        }
    }

    /// Changes when a grant ends, and perhaps when it begins.
    pub(super) async fn change(&mut self, grant: usize, from: Option<Timestamp>, until: Timestamp) {
        let window = (from.unwrap_or(self.town.model.grants[grant].windows.last().unwrap().0), until);
        let mut body = json!({ "access_grant_id": self.grants[grant], "ends_at": until.to_string() });
        if let Some(from) = from {
            body["starts_at"] = json!(from.to_string());
        }
        // Asked for means that a card with it may come, whatever becomes of the answer.
        self.town.model.grants[grant].windows.push(window);
        let guest = self.town.model.grants[grant].guest.clone();
        let local = self.town.model.local(until).strftime("%a %H:%M:%S");
        let said = said(self.insist("/access_grants/update", body).await);
        self.town.note(format_args!("{guest} is to stay until {local}: {said}"));
        self.look_at(grant).await;
    }

    /// A guest leaves for good.
    pub(super) async fn delete(&mut self, grant: usize) {
        self.forget(grant);
        let guest = self.town.model.grants[grant].guest.clone();
        let answer =
            self.insist("/access_grants/delete", json!({ "access_grant_id": self.grants[grant] })).await;
        let of = if matches!(answer, Some(Ok(_))) { &mut self.gone } else { &mut self.unsure };
        of.insert(grant);
        self.town.note(format_args!("the grant of {guest} is deleted: {}", said(answer)));
    }

    /// Nothing is promised to the guest of a grant any more.
    fn forget(&mut self, grant: usize) {
        self.loss.grant_goes(&self.methods, &self.town.model, grant);
        self.town.model.grants[grant].is_live = false;
        for method in self.methods.iter_mut().filter(|method| method.grant == grant) {
            method.is_deleted = true;
        }
    }

    // Cards.

    /// A new card.
    pub(super) fn new_card(&mut self) -> String {
        self.plastic += 1;
        format!("c{}", self.plastic)
    }

    /// Looks how a grant's methods stand.
    async fn look_at(&mut self, grant: usize) {
        let asked = json!({ "access_grant_id": self.grants[grant] });
        let Some(answer) = self.town.ask("/access_methods/list", asked).await.and_then(Answer::granted)
        else {
            return;
        };
        for shown in answer["access_methods"].as_array().into_iter().flatten() {
            let found = self.methods.iter().position(|method| shown["access_method_id"] == *method.id);
            let Some(number) = found.filter(|number| !self.methods[*number].is_deleted) else { continue };
            let is_written = shown["is_issued"] == true;
            if is_written && !self.methods[number].is_written {
                self.read_tapes().await;
                self.tell(number, None, Teller::Cloud).await;
            }
            let method = &mut self.methods[number];
            method.is_written = is_written;
            method.is_in_doubt = !is_written && shown["is_ready_for_encoding"] == false;
        }
    }

    /// Looks how everything stands.
    pub(super) async fn look(&mut self) {
        self.look_at_orders().await;
        self.read_tapes().await;
        let grants: BTreeSet<_> = self
            .methods
            .iter()
            .filter(|it| it.orders > 0 && !it.is_deleted && it.order.is_none())
            .map(|it| it.grant)
            .collect();
        for grant in grants {
            self.look_at(grant).await;
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn said(answer: Option<Result<Value, String>>) -> String {
    match answer {
        Some(Ok(_)) => "done".into(),
        Some(Err(refused)) => format!("refused, {refused}"),
        None => "no answer".into(),
    }
}
