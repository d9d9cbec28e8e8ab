//! Cards are ordered, laid down, and handed out.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{A_MOMENT, Desk, Method, Ordered, PATIENCE, STAFF, Teller, Writing, text};
use crate::town::Later;

/// What lies on the encoder when a card is to be written.
#[derive(Debug, Clone)]
pub(crate) enum Laid {
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
pub(crate) struct Wish {
    pub(crate) method: usize,
    pub(crate) road: Road,
    /// Which of its system's encoders.
    pub(crate) encoder: usize,
    pub(crate) laid: Laid,
}

/// Where a card is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// At the cloud's API.
    Cloud,
    /// At the site, as `latchd encode` does it.
    Here,
    /// There as well, to begin the stay anew.
    HereAnew,
}

/// What somebody wants while cards are being written.
pub(crate) enum Meanwhile {
    /// This grant is deleted.
    Leaves(usize),
    /// It is to end then.
    StaysUntil(usize, Timestamp),
}

impl Desk {
    /// Has cards written, at the same time, and waits for what comes of it. Meanwhile somebody may change their mind.
    pub(crate) async fn encode(&mut self, wishes: Vec<Wish>, mut meanwhile: Option<Meanwhile>) {
        let mut encoders = Vec::new();
        let alone = wishes.len() == 1;
        for wish in wishes {
            let Method { grant, system, .. } = self.methods[wish.method].clone();
            let encoder = self.town.systems[system].encoders[wish.encoder].clone();
            let guest = self.town.model.grants[grant].guest.clone();
            let what = format!("{guest} is to have a card at encoder {encoder}, {:?}", wish.road);
            let taken = match wish.road {
                Road::Cloud => self.order(wish.method, &encoder, alone).await,
                Road::Here | Road::HereAnew => self.order_here(wish.method, &encoder, wish.road).await,
            };
            match taken {
                Ok(true) => self.town.note(format_args!("{what}; {}", wish.laid)),
                Ok(false) => self.town.note(format_args!("{what}: no answer")),
                Err(refused) => {
                    self.town.note(format_args!("{what}: refused, {refused}"));
                    continue;
                }
            }
            self.lay(system, &encoder, &wish.laid).await;
            encoders.push((system, encoder));
        }
        let mut waited = Duration::ZERO;
        while waited < PATIENCE && self.methods.iter().any(|method| method.order.is_some()) {
            self.town.pass(A_MOMENT).await;
            waited += A_MOMENT;
            match meanwhile.take() {
                Some(Meanwhile::Leaves(grant)) => self.delete(grant).await,
                Some(Meanwhile::StaysUntil(grant, until)) => self.change(grant, None, until).await,
                None => {}
            }
            self.look_at_orders().await;
        }
        for (system, encoder) in encoders {
            self.town.systems[system].say(&format!("remove {encoder}")).await;
        }
        self.look().await;
    }

    /// Orders a card at the cloud. Says whether there was an answer: without one, it may be ordered all the same.
    async fn order(&mut self, method: usize, encoder: &str, alone: bool) -> Result<bool, String> {
        let Method { id, system, .. } = self.methods[method].clone();
        let encoder = &self.encoders[&(system, encoder.to_owned())];
        let body = json!({ "access_method_id": id, "acs_encoder_id": encoder });
        let begins_again = self.loss.ordered(&self.methods, &self.town, method, alone);
        let answer = self.town.ask("/access_methods/encode", body).await;
        if let Some(refused) = answer.as_ref().filter(|answer| answer.status != 200) {
            return Err(text(&refused.body["error"]["type"]));
        }
        let it = &mut self.methods[method];
        (it.orders, it.begins_again) = (it.orders + 1, begins_again);
        let Some(answer) = answer else { return Ok(false) };
        it.order = Some(Ordered::Attempt(text(&answer.body["action_attempt"]["action_attempt_id"])));
        Ok(true)
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

    /// Looks what became of what is under way.
    pub(super) async fn look_at_orders(&mut self) {
        for number in 0..self.methods.len() {
            match self.methods[number].order.clone() {
                Some(Ordered::Attempt(attempt)) => self.look_at_attempt(number, attempt).await,
                Some(Ordered::Job(job_id)) => self.look_at_job(number, job_id).await,
                None => {}
            }
        }
    }

    async fn look_at_attempt(&mut self, number: usize, attempt: String) {
        let asked = json!({ "action_attempt_id": attempt });
        let Some(answer) = self.town.ask("/action_attempts/get", asked).await else { return };
        let attempt = &answer.body["action_attempt"];
        match attempt["status"].as_str() {
            Some("success") => {
                self.methods[number].order = None;
                let serial = attempt["result"]["card_number"].as_str().map(str::to_owned);
                self.read_tapes().await;
                self.tell(number, serial, Teller::Cloud).await;
            }
            Some("error") => {
                let (error, message) = (text(&attempt["error"]["type"]), text(&attempt["error"]["message"]));
                let is_in_doubt = error == "encoding_interrupted";
                self.tell_not(number, &format!("{error} ({message})"), is_in_doubt);
            }
            _ => {}
        }
    }

    /// A guest is told that no card is written, or that nobody knows.
    pub(super) fn tell_not(&mut self, method: usize, why: &str, is_in_doubt: bool) {
        let it = &mut self.methods[method];
        it.order = None;
        it.is_in_doubt |= is_in_doubt;
        // A card that was another guest's by the time it was heard of was written all the same.
        it.was_in_doubt |= is_in_doubt && (it.card.is_some() || it.is_written);
        let guest = &self.town.model.grants[it.grant].guest;
        self.town.note(format_args!("{} is told: {why}", guest.clone()));
    }

    /// A guest is told that a card is written: this one, or the last that was.
    pub(super) async fn tell(&mut self, method: usize, serial: Option<String>, teller: Teller) {
        let is_late = serial.is_none();
        let newest = self.writings.iter().rev().find(|it| it.method == method);
        if is_late && newest.is_some_and(|it| it.told == Some(Teller::Here)) {
            // The cloud has heard of it.
            self.methods[method].is_written = true;
            return;
        }
        let Method { grant, system, .. } = self.methods[method];
        let guest = self.town.model.grants[grant].guest.clone();
        let card = match serial {
            Some(serial) => {
                let cards = self.town.systems[system].say("cards").await["cards"].clone();
                let found = cards.as_object().unwrap().iter().find(|(_, card)| card["serial"] == *serial);
                found.map(|(name, _)| (system, name.clone()))
            }
            None => {
                let unclaimed = |it: &&Writing| it.method == method && it.told.is_none();
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
            writing.told = Some(teller);
        }
        if let Err(wrong) = self.town.model.told(&card, grant) {
            self.town.wrong.push(wrong);
        }
        let method = &mut self.methods[method];
        (method.card, method.is_written, method.is_in_doubt) = (Some(card), true, false);
        // What settles a doubt leaves the cloud asking for another card where one was written before.
        method.was_in_doubt &= is_late;
    }
}
