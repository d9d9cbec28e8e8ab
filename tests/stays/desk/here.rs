//! What `latchd grant` and `latchd encode` ask of the agent at the site, with the cloud or without it.

use std::time::Duration;

use latchd::{
    agent::admin::{GrantReport, Request, Response},
    model::{EncoderName, JobId, JobState, Outcome, Private, ReservationKey},
    queue::{DeskCard, DeskGrant},
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Desk, Method, Ordered, Road, Teller};
use crate::model::Grant;

/// Who stands at the desk.
const BY: &str = "night porter";
/// How long a card may take to be laid down, in seconds.
const CARD_WAIT: u16 = 60;

impl Desk {
    /// Asks the agent; nothing where it does not answer.
    pub(super) async fn ask_here(&mut self, request: Request) -> Option<Response> {
        let questions = self.town.agent.life.as_ref().map(|life| life.questions.clone())?;
        let (answer, told) = oneshot::channel();
        questions.try_send((request, answer)).ok()?;
        self.town.during(told).await.ok()
    }

    /// Asks until there is an answer; a few times.
    async fn insist_here(&mut self, request: Request) -> Option<Response> {
        for _ in 0..8 {
            if let Some(answer) = self.ask_here(request.clone()).await {
                return Some(answer);
            }
            self.town.pass(Duration::from_secs(15)).await;
        }
        None
    }

    /// Makes a guest's grant at the site. Its window's end must be its own.
    pub(crate) async fn check_in_here(&mut self, grant: Grant) {
        let (from, until) = grant.windows[0];
        let name = |door: &(usize, String)| format!("{}/{}", self.town.systems[door.0].name, door.1);
        let key = format!("grant-{}", self.ends.len());
        let wish = DeskGrant {
            access_grant_key: Some(key.clone()),
            reservation_key: Some(ReservationKey::new(grant.stay.as_str()).unwrap()),
            guest_name: Private::new(grant.guest.as_str()),
            starts_at: Some(from),
            ends_at: Some(until),
            doors: grant.rooms.iter().chain(&grant.common).map(name).collect(),
            card: true,
            code: None,
        };
        let what = format!("{}, at the site", self.words(&grant));
        let request = Request::MakeGrant { grant: Box::new(wish), by: BY.into() };
        let made = match self.insist_here(request).await {
            Some(Response::Grant(made)) => Some(*made),
            // Made before there was an answer.
            Some(Response::Refused { code, .. }) if code == "access_grant_key_already_exists" => {
                let asked = Request::Grants { name: Some(key), limit: 1 };
                match self.insist_here(asked).await {
                    Some(Response::Grants { mut grants, .. }) => grants.pop(),
                    _ => None,
                }
            }
            Some(Response::Refused { code, .. }) => {
                return self.town.note(format_args!("{what}: refused, {code}"));
            }
            _ => None,
        };
        let Some(made) = made else { return self.town.note(format_args!("{what}: no answer")) };
        self.town.note(format_args!("{what}: granted"));
        self.made_here.insert(self.grants.len());
        self.grants.push(made.access_grant_id.to_string());
        self.town.model.grants.push(grant);
        self.town.tally(|tally| tally.made_here += 1);
        self.meet_cards(&made);
    }

    fn meet_cards(&mut self, made: &GrantReport) {
        let grant = self.grants.len() - 1;
        for card in &made.cards {
            let mut systems = self.town.systems.iter();
            let system = systems.position(|system| *system.name == *card.system.as_str()).unwrap();
            self.methods.push(Method::new(card.access_method_id.to_string(), grant, system));
        }
    }

    /// A guest leaves for good, and the site hears of it first.
    pub(crate) async fn delete_here(&mut self, grant: usize) {
        let guest = self.town.model.grants[grant].guest.clone();
        let request = Request::RevokeGrant { name: self.grants[grant].clone(), by: BY.into() };
        let said = match self.insist_here(request).await {
            // A card of it is being written, or the cloud has not told of it.
            Some(Response::Refused { code, .. }) => {
                if code == "no_such_grant" {
                    self.unsure.insert(grant);
                    self.forget(grant);
                }
                format!("refused, {code}")
            }
            Some(Response::Grant(_)) => {
                self.gone.insert(grant);
                self.forget(grant);
                self.town.tally(|tally| tally.revoked_here += 1);
                "done".into()
            }
            _ => {
                self.unsure.insert(grant);
                self.forget(grant);
                "no answer".into()
            }
        };
        self.town.note(format_args!("the grant of {guest} is taken back at the site: {said}"));
    }

    /// Orders a card at the site. Says whether there was an answer: without one, it may be ordered all the same.
    pub(super) async fn order_here(
        &mut self,
        method: usize,
        encoder: &str,
        road: Road,
    ) -> Result<bool, String> {
        let job_id = JobId(Uuid::from_u128(u128::from(self.town.random.below(u64::MAX)) + 1));
        let begins_again = road == Road::HereAnew;
        let wish = DeskCard {
            access_method_id: self.methods[method].id.parse().unwrap(),
            encoder: EncoderName::new(encoder).unwrap(),
            again: begins_again,
            begin_again: begins_again,
            job_id,
            card_wait_seconds: CARD_WAIT,
        };
        let answer = self.ask_here(Request::Encode { card: Box::new(wish), by: BY.into() }).await;
        if let Some(Response::Refused { code, .. }) = answer {
            return Err(code);
        }
        let it = &mut self.methods[method];
        (it.orders, it.begins_again) = (it.orders + 1, Some(begins_again));
        it.order = Some(Ordered::Job(job_id));
        Ok(answer.is_some())
    }

    pub(super) async fn look_at_job(&mut self, number: usize, job_id: JobId) {
        let job = match self.ask_here(Request::Job { job_id }).await {
            Some(Response::Job(job)) => job,
            Some(_) => return self.tell_not(number, "nothing was ordered", false),
            None => return,
        };
        let outcome = job.reports.last().map(|report| &report.outcome);
        match (job.job.state, outcome) {
            (JobState::Received | JobState::Waiting | JobState::Sent, _) => {}
            (JobState::Succeeded, Some(Outcome::Succeeded(success))) => {
                self.methods[number].order = None;
                let serial = success.card.as_ref().and_then(|card| card.serial.clone());
                self.read_tapes().await;
                self.town.tally(|tally| tally.written_here += 1);
                self.tell(number, serial, Teller::Here).await;
            }
            (state, outcome) => {
                let why = outcome.and_then(Outcome::reason).map(|why| why.code.as_str());
                let is_in_doubt = state == JobState::Unknown;
                self.tell_not(number, &format!("{state}, {}", why.unwrap_or_default()), is_in_doubt);
            }
        }
    }
}
