//! The front desk: grants and cards asked for at the cloud's API, plastic laid on encoders, doubts settled honestly.

mod doubts;
mod tape;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, civil::DateTime};
use serde_json::{Value, json};

use super::{
    model::{Door, Grant, Plastic},
    simulated::api::Answer,
    site::COMMON,
    town::{Later, Town},
};

/// How long a person at the desk watches an attempt.
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
    /// The attempt that may be under way.
    pub(super) attempt: Option<String>,
    /// How many attempts there were.
    pub(super) attempts: usize,
    /// The card that the guest was told of last.
    pub(super) card: Option<Plastic>,
    pub(super) is_written: bool,
    pub(super) is_in_doubt: bool,
    pub(super) is_deleted: bool,
}

/// What the tape of a lock server shows to be written.
#[derive(Debug, Clone)]
struct Writing {
    card: Plastic,
    method: usize,
    /// Which of the method's attempts was the last then.
    attempt: usize,
    is_claimed: bool,
}

/// What lies on the encoder when a card is to be written.
#[derive(Debug, Clone)]
pub(super) enum Laid {
    Card(String),
    Staff,
    /// Taken away so many milliseconds later.
    TakenAway(String, u64),
    Nothing,
}

impl std::fmt::Display for Laid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Card(card) => write!(f, "{card} is to be laid there"),
            Self::Staff => write!(f, "but {STAFF} is to be laid there"),
            Self::TakenAway(card, millis) => write!(f, "{card} is to be laid there for {millis} ms only"),
            Self::Nothing => f.write_str("but no card is laid there"),
        }
    }
}

/// A card that is to be written.
pub(super) struct Wish {
    pub(super) method: usize,
    /// Which of its system's encoders.
    pub(super) encoder: usize,
    pub(super) laid: Laid,
}

/// What somebody wants while cards are being written.
pub(super) enum Meanwhile {
    /// This grant is deleted.
    Leaves(usize),
    /// It is to end then.
    StaysUntil(usize, Timestamp),
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
        let names: Vec<_> = doors.iter().map(|door| door.1.as_str()).collect();
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
        let (from, until) = (self.town.model.local(from), self.town.model.local(until));
        let what = format!(
            "{} of {}: {} from {} to {}",
            grant.guest,
            grant.stay,
            names.join("+"),
            from.strftime("%a %H:%M:%S"),
            until.strftime("%a %H:%M:%S")
        );
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
            self.methods.push(Method {
                id,
                grant,
                system,
                attempt: None,
                attempts: 0,
                card: None,
                is_written: false,
                is_in_doubt: false,
                is_deleted: false,
            });
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
        self.town.model.grants[grant].is_live = false;
        for method in self.methods.iter_mut().filter(|method| method.grant == grant) {
            method.is_deleted = true;
        }
        let guest = self.town.model.grants[grant].guest.clone();
        let body = json!({ "access_grant_id": self.grants[grant] });
        let said = said(self.insist("/access_grants/delete", body).await);
        self.town.note(format_args!("the grant of {guest} is deleted: {said}"));
    }

    /// A card is lost: its method is deleted, and another one asked for.
    pub(super) async fn lose(&mut self, method: usize) {
        let Method { id, grant, card, .. } = self.methods[method].clone();
        if let Some(card) = card {
            self.town.note(format_args!("{} is lost", card.1));
            self.town.model.lost(&card);
        }
        self.methods[method].is_deleted = true;
        let said = said(self.insist("/access_methods/delete", json!({ "access_method_id": id })).await);
        let guest = self.town.model.grants[grant].guest.clone();
        self.town.note(format_args!("the card of {guest} is deleted: {said}"));
        let body = json!({
            "access_grant_id": self.grants[grant],
            "requested_access_methods": [{ "mode": "card" }],
        });
        if let Some(Ok(made)) = self.insist("/access_grants/request_access_methods", body).await {
            self.meet_methods(grant, &made["access_grant"]).await;
        }
    }

    // Cards.

    /// A new card.
    pub(super) fn new_card(&mut self) -> String {
        self.plastic += 1;
        format!("c{}", self.plastic)
    }

    /// Has cards written, at the same time, and waits for what comes of it. Meanwhile somebody may change their mind.
    pub(super) async fn encode(&mut self, wishes: Vec<Wish>, mut meanwhile: Option<Meanwhile>) {
        let mut encoders = Vec::new();
        for Wish { method, encoder, laid } in wishes {
            let Method { id, grant, system, .. } = self.methods[method].clone();
            let encoder = self.town.systems[system].encoders[encoder].clone();
            let body = json!({
                "access_method_id": id,
                "acs_encoder_id": self.encoders[&(system, encoder.clone())],
            });
            let guest = self.town.model.grants[grant].guest.clone();
            // Where no answer comes, the attempt may be under way all the same.
            self.methods[method].attempts += 1;
            let answer = self.town.ask("/access_methods/encode", body).await;
            let what = format!("{guest} is to have a card at encoder {encoder}");
            match answer.map(|answer| (answer.status, answer.body)) {
                None => self.town.note(format_args!("{what}: no answer")),
                Some((200, body)) => {
                    self.town.note(format_args!("{what}; {laid}"));
                    self.methods[method].attempt = Some(text(&body["action_attempt"]["action_attempt_id"]));
                }
                Some((_, body)) => {
                    self.methods[method].attempts -= 1;
                    self.town.note(format_args!("{what}: refused, {}", body["error"]["type"]));
                    continue;
                }
            }
            self.lay(system, &encoder, &laid).await;
            encoders.push((system, encoder));
        }
        let mut waited = Duration::ZERO;
        while waited < PATIENCE && self.methods.iter().any(|method| method.attempt.is_some()) {
            self.town.pass(A_MOMENT).await;
            waited += A_MOMENT;
            match meanwhile.take() {
                Some(Meanwhile::Leaves(grant)) => self.delete(grant).await,
                Some(Meanwhile::StaysUntil(grant, until)) => self.change(grant, None, until).await,
                None => {}
            }
            self.look_at_attempts().await;
        }
        for (system, encoder) in encoders {
            self.town.systems[system].say(&format!("remove {encoder}")).await;
        }
        self.look().await;
    }

    async fn lay(&mut self, system: usize, encoder: &str, laid: &Laid) {
        let place = |card: &str| Later::Lay { system, encoder: encoder.to_owned(), card: card.to_owned() };
        let away = Later::TakeAway { system, encoder: encoder.to_owned() };
        let soon = Duration::from_millis(self.town.random.below(9_000));
        match laid {
            Laid::Card(card) => self.town.after(soon, place(card)),
            Laid::Staff => self.town.after(soon, place(&format!("{STAFF} staff"))),
            Laid::TakenAway(card, millis) => {
                self.town.after(soon, place(card));
                self.town.after(soon + Duration::from_millis(*millis), away);
            }
            Laid::Nothing => {}
        }
    }

    /// Looks what became of the attempts under way.
    async fn look_at_attempts(&mut self) {
        for number in 0..self.methods.len() {
            let Some(attempt) = self.methods[number].attempt.clone() else { continue };
            let asked = json!({ "action_attempt_id": attempt });
            let Some(answer) = self.town.ask("/action_attempts/get", asked).await else { continue };
            let attempt = &answer.body["action_attempt"];
            let guest = self.town.model.grants[self.methods[number].grant].guest.clone();
            match attempt["status"].as_str() {
                Some("success") => {
                    self.methods[number].attempt = None;
                    let serial = attempt["result"]["card_number"].as_str().map(str::to_owned);
                    self.read_tapes().await;
                    self.tell(number, serial).await;
                }
                Some("error") => {
                    self.methods[number].attempt = None;
                    let error = text(&attempt["error"]["type"]);
                    self.methods[number].is_in_doubt |= error == "encoding_interrupted";
                    let message = text(&attempt["error"]["message"]);
                    self.town.note(format_args!("{guest} is told: {error} ({message})"));
                }
                _ => {}
            }
        }
    }

    /// A guest is told that a card is written: this one, or the last that was.
    async fn tell(&mut self, method: usize, serial: Option<String>) {
        let is_late = serial.is_none();
        let Method { grant, system, .. } = self.methods[method];
        let guest = self.town.model.grants[grant].guest.clone();
        let card = match serial {
            Some(serial) => {
                let cards = self.town.systems[system].say("cards").await["cards"].clone();
                let found = cards.as_object().unwrap().iter().find(|(_, card)| card["serial"] == *serial);
                found.map(|(name, _)| (system, name.clone()))
            }
            None => {
                let unclaimed = |it: &&Writing| it.method == method && !it.is_claimed;
                self.writings.iter().rev().find(unclaimed).map(|writing| writing.card.clone())
            }
        };
        let Some(card) = card else {
            self.town.wrong.push(format!("{guest} is told that a card is written, and none was"));
            return;
        };
        if self.methods[method].is_deleted {
            return self.town.note(format_args!("{guest}, who has no use for it any more, is told: written"));
        }
        // Whoever hears of it only now may find that the card was given to somebody else meanwhile.
        if is_late && self.town.model.grant_on(&card) != Some(grant) {
            self.town
                .note(format_args!("{guest} is told: written, and {} is somebody else's by now", card.1));
            self.methods[method].is_written = true;
            return;
        }
        self.town.note(format_args!("{guest} is told: written, and takes {}", card.1));
        for writing in self.writings.iter_mut().filter(|it| it.method == method && it.card == card) {
            writing.is_claimed = true;
        }
        if let Err(wrong) = self.town.model.told(&card, grant) {
            self.town.wrong.push(wrong);
        }
        let method = &mut self.methods[method];
        (method.card, method.is_written, method.is_in_doubt) = (Some(card), true, false);
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
                self.tell(number, None).await;
            }
            let method = &mut self.methods[number];
            method.is_written = is_written;
            method.is_in_doubt = !is_written && shown["is_ready_for_encoding"] == false;
        }
    }

    /// Looks how everything stands.
    pub(super) async fn look(&mut self) {
        self.look_at_attempts().await;
        self.read_tapes().await;
        let grants: BTreeSet<_> = self
            .methods
            .iter()
            .filter(|it| it.attempts > 0 && !it.is_deleted && it.attempt.is_none())
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
