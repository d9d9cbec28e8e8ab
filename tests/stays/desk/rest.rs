//! Once nothing is wrong any more and nothing is under way, the cloud, the agent and the lock servers agree.

use std::{collections::BTreeMap, time::Duration};

use jiff::civil::DateTime;
use latchd::{
    agent::admin::{GrantReport, Request, Response},
    model::{DesiredCardState, JobState},
};
use serde_json::{Value, json};

use super::{Desk, Method, text};
use crate::{
    model::{Door, Grant, Plastic},
    simulated::net::{Host, Road},
    site::Sharing,
};

/// Longer than anything may be under way.
const AT_REST: Duration = Duration::from_secs(179);
/// So often doubts are settled, and a start may be waited for.
const TIMES: usize = 4;

impl Desk {
    /// Mends all, lets everything that is under way end, and compares what is said.
    pub(crate) async fn come_to_rest(&mut self) {
        for (one, other) in [(Host::Agent, Host::Cloud), (Host::Agent, Host::Salto)] {
            self.town.network.set_road(one, other, Road::Open(Duration::from_millis(2)));
        }
        self.town.is_alone = false;
        for system in &self.town.systems {
            system.say("fault clear").await;
        }
        let mut why = String::new();
        for _ in 0..TIMES {
            self.town.pass(AT_REST).await;
            self.settle_doubts().await;
            self.look().await;
            why = match self.under_way().await {
                None if self.agree().await => return,
                None => "not everything could be compared".to_owned(),
                Some(what) => what,
            };
        }
        self.town.wrong.push(format!("the house does not come to rest: {why}"));
    }

    /// What is under way, if anything is.
    async fn under_way(&mut self) -> Option<String> {
        for state in [JobState::Received, JobState::Waiting, JobState::Sent, JobState::Unknown] {
            let asked = Request::Jobs { state: Some(state), lane: None, limit: 1 };
            match self.ask_here(asked).await {
                Some(Response::Jobs { jobs, .. }) if jobs.is_empty() => {}
                Some(Response::Jobs { jobs, .. }) => {
                    return Some(format!("a job is {state}: {:?}", jobs[0].kind));
                }
                _ => return Some("the agent does not answer".into()),
            }
        }
        let method = self.methods.iter().find(|method| method.order.is_some())?;
        Some(format!("{:?} for {}", method.order, self.town.model.grants[method.grant].guest))
    }

    /// Compares what is said of every grant. Says whether all could be asked.
    async fn agree(&mut self) -> bool {
        let asked = Request::Grants { name: None, limit: 1_000 };
        let Some(Response::Grants { grants, complete: true, .. }) = self.ask_here(asked).await else {
            return false;
        };
        let here: BTreeMap<_, _> =
            grants.into_iter().map(|grant| (grant.access_grant_id.to_string(), grant)).collect();
        let mut warnings = BTreeMap::new();
        for number in 0..self.grants.len() {
            if self.unsure.contains(&number) {
                continue;
            }
            let id = self.grants[number].clone();
            let shown = self.insist("/access_grants/get", json!({ "access_grant_id": id })).await;
            let methods = self.insist("/access_methods/list", json!({ "access_grant_id": id })).await;
            let (Some(shown), Some(methods)) = (shown, methods) else { return false };
            let shown = shown.ok().map(|shown| shown["access_grant"].clone());
            let methods = methods.ok().map(|methods| methods["access_methods"].clone());
            if let Some(shown) = &shown {
                let stay = self.town.model.grants[number].stay.clone();
                warnings.entry(stay).or_insert_with(Vec::new).push(shown["warnings"].to_string());
            }
            self.compare(number, here.get(&id), shown.as_ref(), methods.as_ref());
        }
        self.compare_stay_ends(&warnings).await;
        true
    }

    fn compare(
        &mut self,
        number: usize,
        here: Option<&GrantReport>,
        cloud: Option<&Value>,
        methods: Option<&Value>,
    ) {
        let grant = &self.town.model.grants[number];
        let (guest, until) = (grant.guest.clone(), grant.windows[grant.windows.len() - 1].1);
        let is_going =
            |shown: &Value| shown["warnings"].to_string().contains("\"warning_code\":\"being_deleted\"");
        let cloud = cloud.filter(|shown| !is_going(shown));
        self.town.tally(|tally| tally.agreed += 1);
        let mut wrong = Vec::new();
        match (here, cloud) {
            (None, Some(_)) if self.gone.contains(&number) => {
                wrong.push(format!("the grant of {guest} was taken back, and the cloud does not know"));
            }
            (Some(_), _) if self.gone.contains(&number) => {
                wrong.push(format!("the grant of {guest} was taken back, and the agent does not know"));
            }
            (None, None) | (_, _) if until <= self.town.now() || self.gone.contains(&number) => {}
            (_, None) => wrong.push(format!("the cloud does not know of the grant of {guest}")),
            (None, _) => wrong.push(format!("the agent does not know of the grant of {guest}")),
            (Some(here), Some(cloud)) => {
                let ends = (here.window.ends_at(), text(&cloud["ends_at"]).parse().ok());
                if ends.0 != ends.1 {
                    wrong.push(format!("the grant of {guest} ends at different times: {ends:?}"));
                }
                for shown in methods.and_then(Value::as_array).into_iter().flatten() {
                    wrong.extend(self.compare_card(here, shown));
                }
            }
        }
        self.town.wrong.extend(wrong);
    }

    /// What does not go together in what is said of a card.
    fn compare_card(&self, here: &GrantReport, cloud: &Value) -> Option<String> {
        let id = text(&cloud["access_method_id"]);
        let method = self.methods.iter().find(|method| method.id == id && !method.is_deleted)?;
        let guest = &self.town.model.grants[method.grant].guest;
        let Some(card) = here.cards.iter().find(|card| card.access_method_id.to_string() == id) else {
            return Some(format!("the agent does not know of a card of {guest}"));
        };
        let is_issued = cloud["is_issued"] == true;
        // What was written before is good, whatever became of one more: the site shows it, and the cloud asks for another.
        // And where the room is another stay's by now, no card can be written any more, whatever either says.
        let Grant { stay, rooms, .. } = &self.town.model.grants[method.grant];
        let is_left = |room: &&Door| self.town.model.stay_in(room) != Some(stay.as_str());
        let mut rooms = rooms.iter().filter(|room| room.0 == method.system);
        if method.was_in_doubt || rooms.any(|room| is_left(&room)) {
            return None;
        }
        // The cloud alone knows by its number that a card was laid down once more and is another guest's by now, or a further
        // one of the same guest.
        let carries = |plastic: &Plastic| self.town.model.grant_on(plastic);
        let is_anothers = |other: &Method| other.id != method.id && other.card == method.card;
        let is_written_over = method.card.as_ref().is_some_and(|plastic| {
            carries(plastic) != Some(method.grant) || self.methods.iter().any(is_anothers)
        });
        if !is_issued && is_written_over {
            return None;
        }
        if is_issued != (card.state == DesiredCardState::Issued) {
            let written = if is_issued { "written" } else { "not written" };
            return Some(format!("a card of {guest} is {written} to the cloud, and {:?} here", card.state));
        }
        let is_thrown_out = |card| self.town.model.is_thrown_out(card);
        // What throws out whoever has the card by now says nothing of whom it was before.
        if is_issued && !is_written_over && method.card.as_ref().is_some_and(is_thrown_out) {
            return Some(format!(
                "the card of {guest} is said to be written, and a later one of its stay throws it out"
            ));
        }
        None
    }

    /// A lock server that was told until when a stay is knows it, or the cloud says that it may not.
    async fn compare_stay_ends(&mut self, warnings: &BTreeMap<String, Vec<String>>) {
        for place in 0..self.town.systems.len() {
            if self.town.systems[place].sharing != Sharing::Exclusive {
                continue;
            }
            let rooms = self.town.systems[place].say("ledger").await["rooms"].clone();
            for room in self.town.systems[place].rooms.clone() {
                let door = (place, room.clone());
                let model = &self.town.model;
                let Some(stay) = model.stay_in(&door).filter(|_| self.ends_told.contains_key(&door)) else {
                    continue;
                };
                // Whoever moved on has left the room as it was.
                let lives_there = |it: &Grant| it.is_live && it.stay == stay && it.rooms.contains(&door);
                if !model.grants.iter().any(lives_there) {
                    continue;
                }
                let is_unsure = |number: &usize| model.grants[*number].stay == stay;
                let Some(end) = model.end_of(stay).filter(|end| self.town.now() < *end) else { continue };
                let is_told = |warning: &String| warning.contains("The lock system");
                let is_known_not_to = warnings.get(stay).is_some_and(|all| all.iter().any(is_told));
                if is_known_not_to || self.unsure.iter().any(is_unsure) {
                    continue;
                }
                let known: Option<DateTime> =
                    rooms[&room]["stay"]["expiry"].as_str().map(|at| at.parse().unwrap());
                let end = model.printed(end);
                if known != Some(end) {
                    let wrong = format!(
                        "the lock server takes {stay} in {room} to end at {known:?}, and it ends at {end}"
                    );
                    self.town.wrong.push(wrong);
                }
                self.town.tally(|tally| tally.agreed += 1);
            }
        }
    }
}
