//! Finding out what became of cards: by reading them, and by a person who says what is so.

use std::time::Duration;

use latchd::{
    agent::admin::{Request, Response},
    model::{JobId, JobState, Order, Verdict},
    queue::{JobFilter, Queue},
};
use serde_json::json;

use super::{A_MOMENT, Desk, PATIENCE, Writing, text};
use crate::{model::Plastic, simulated::net::Host};

impl Desk {
    /// Has a card read on an encoder.
    pub(crate) async fn read(&mut self, card: &Plastic, encoder: usize) {
        let system = card.0;
        let encoder = self.town.systems[system].encoders[encoder].clone();
        self.town.systems[system].say(&format!("remove {encoder}")).await;
        self.town.systems[system].say(&format!("place {} on {encoder}", card.1)).await;
        let body = json!({ "acs_encoder_id": self.encoders[&(system, encoder.clone())] });
        let answer = self.insist("/acs/encoders/scan_credential", body).await;
        let attempt = answer.and_then(Result::ok).map(|it| text(&it["action_attempt"]["action_attempt_id"]));
        let mut said = "no answer".to_owned();
        let mut waited = Duration::ZERO;
        while let Some(attempt) = attempt.as_ref().filter(|_| waited < PATIENCE) {
            self.town.pass(A_MOMENT).await;
            waited += A_MOMENT;
            let asked = json!({ "action_attempt_id": attempt });
            let Some(answer) = self.town.ask("/action_attempts/get", asked).await else { continue };
            let status = text(&answer.body["action_attempt"]["status"]);
            if status != "pending" {
                said = status;
                break;
            }
        }
        self.town.note(format_args!("{} is read at encoder {encoder}: {said}", card.1));
        self.town.systems[system].say(&format!("remove {encoder}")).await;
        self.look().await;
    }

    /// Whether nothing that was ordered can still come to a lock server.
    pub(crate) async fn is_quiet(&self, system: usize) -> bool {
        let ledger = self.town.systems[system].say("ledger").await;
        let waits = ledger["orders"].as_array().unwrap().iter().any(|order| order["result"] == "waiting");
        !waits && self.town.network.is_quiet(Host::Agent, Host::Salto)
    }

    /// A person finds out what became of jobs in doubt, and says so.
    pub(crate) async fn settle_doubts(&mut self) {
        let Some(queue) = self.town.agent.life.as_ref().map(|life| life.queue.clone()) else { return };
        let filter = JobFilter { state: Some(JobState::Unknown), lane: None, limit: 50 };
        let doubts = queue.run(move |queue: &mut Queue| queue.jobs(filter));
        let Ok(doubts) = self.town.during(doubts).await else { return };
        for doubt in doubts {
            let job_id = doubt.job_id;
            let detail = queue.run(move |queue: &mut Queue| queue.job(job_id));
            let Ok(Some(detail)) = self.town.during(detail).await else { return };
            let Some(job) = detail.job else { continue };
            let Some(system) = self.town.systems.iter().position(|it| *it.name == *job.system.as_str())
            else {
                continue;
            };
            if !self.is_quiet(system).await {
                return;
            }
            self.read_tapes().await;
            let (is_done, what) = match &job.order {
                Order::CardEncode(card) => {
                    let method = card.access_method_id.to_string();
                    let Some(method) = self.methods.iter().position(|it| it.id == method) else { continue };
                    let grant = self.methods[method].grant;
                    let sent_at = doubt.sent_at.unwrap_or(doubt.received_at);
                    let is_it = |it: &Writing| it.method == method && sent_at <= it.at;
                    let guest = &self.town.model.grants[grant].guest;
                    (self.writings.iter().any(is_it), format!("the card of {guest}"))
                }
                Order::StayCheckout { room, .. } => {
                    let room = (system, room.as_str().to_owned());
                    let done_at = self.checked_out.get(&room);
                    let is_done = done_at.is_some_and(|at| job.created_at <= *at);
                    (is_done, format!("the check-out of {}", room.1))
                }
                Order::StayModify(stay) => {
                    let room = (system, stay.room.as_str().to_owned());
                    let end = self.town.model.printed(stay.ends_at);
                    let is_done = self.ends_told.get(&room) == Some(&end);
                    (is_done, format!("the end of the stay in {}", room.1))
                }
                _ => continue,
            };
            let verdict = if is_done { Verdict::Done } else { Verdict::NotDone };
            self.resolve(job_id, verdict, &what).await;
        }
        self.town.pass(A_MOMENT).await;
        self.look().await;
    }

    async fn resolve(&mut self, job_id: JobId, verdict: Verdict, what: &str) {
        let answer = self.ask_here(Request::Resolve { job_id, verdict, by: "night porter".into() }).await;
        let is_settled = matches!(answer, Some(Response::Resolved { .. }));
        self.town.note(format_args!("{what} in doubt is said to be {verdict:?}: {is_settled}"));
    }
}
