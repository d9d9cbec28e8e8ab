//! The Web API's server: visits to it, one at a time, and what is odd about its doors.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    answer::{Card, Door, without_padding},
    call::Call,
    codec,
    visit::{Errand, Result as Came, Visit},
};
use crate::{
    config::VisionlineWebConfig,
    drivers::{Trouble, password, wall::Wall},
    model::{Code, DoorName, Refusal, StayCards, SystemName},
    seams::{Clock, Net},
    transport::http::{Answer, Client, HttpError, Limits},
};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// How long a visit may take in all, from when it has its turn.
const VISIT: Duration = Duration::from_secs(30);
/// How often the doors are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How soon again where that did not work.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Most rooms that a remark names.
const NAMED: usize = 5;

/// The server.
pub(in crate::drivers::visionline) struct Web {
    system: SystemName,
    config: VisionlineWebConfig,
    /// The rooms that the configuration names.
    rooms: Vec<DoorName>,
    net: Arc<dyn Net>,
    /// Made when what it needs can be read.
    client: OnceLock<Client>,
    wall: Wall,
    clock: Clock,
    /// By how much its clock is ahead of ours, as it said last.
    ahead: Mutex<SignedDuration>,
    /// How many sessions there may be is not published.
    turn: tokio::sync::Mutex<()>,
    remark: Mutex<Option<Trouble>>,
}

impl Web {
    pub(in crate::drivers::visionline) fn new(
        net: Arc<dyn Net>,
        config: &VisionlineWebConfig,
        system: SystemName,
        rooms: Vec<DoorName>,
        wall: Wall,
        clock: Clock,
    ) -> Self {
        Self {
            system,
            config: config.clone(),
            rooms,
            net,
            client: OnceLock::new(),
            wall,
            clock,
            ahead: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            remark: Mutex::default(),
        }
    }

    /// What is odd about it.
    pub(in crate::drivers::visionline) fn remark(&self) -> Option<Trouble> {
        self.remark.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the doors now and then until the driver is gone, and tells when what is odd has changed.
    pub(in crate::drivers::visionline) async fn keep(
        self: Arc<Self>,
        mut stopping: watch::Receiver<bool>,
        tell: impl Fn() + Send,
    ) {
        let gone = async { while stopping.changed().await.is_ok() {} };
        let looking = async {
            loop {
                let remark = self.look().await;
                let pause = match &remark {
                    Some((DOWN, _)) => LOOK_AGAIN,
                    _ => LOOK_EVERY,
                };
                if self.note(remark) {
                    tell();
                }
                sleep(pause).await;
            }
        };
        select! {
            biased;
            () = gone => {}
            () = looking => {}
        }
    }

    /// What is odd about its doors, or that they cannot be looked at.
    async fn look(&self) -> Option<(&'static str, String)> {
        let url = &self.config.http.url;
        let doors = match self.visit(Errand::Doors).await {
            Came::Doors(doors) => doors,
            Came::Refused(refusal) | Came::Doubt(refusal) => {
                return Some((DOWN, format!("{url}: {}", refusal.message)));
            }
            other => unreachable!("a visit for doors does not end with {other:?}"),
        };
        let unknown = unknown_rooms(&self.rooms, &doors);
        let names: Vec<_> = unknown.iter().take(NAMED).map(|room| room.as_str()).collect();
        let more = if unknown.len() > NAMED { " and others" } else { "" };
        (!unknown.is_empty()).then(|| {
            let count = unknown.len();
            let names = names.join(", ");
            (
                "rooms_unknown",
                format!("{url} knows no door by the name of {count} of `rooms`: {names}{more}; cards for them will fail"),
            )
        })
    }

    /// Whether it changed.
    fn note(&self, remark: Option<(&'static str, String)>) -> bool {
        let mut noted = self.remark.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = match (&*noted, &remark) {
            (None, None) => true,
            (Some(old), Some((code, message))) => old.code == *code && old.message == *message,
            _ => false,
        };
        if is_same {
            return false;
        }
        if let Some((code, what)) = &remark {
            tracing::warn!(system = %self.system, code, what, "the Web API is not as expected");
        }
        *noted = remark.map(|(code, message)| Trouble { code, message, since: self.clock.now() });
        true
    }

    /// Whether the server lists a card of this stay for a room that is good when one that opens from `starts_at` on is
    /// used first.
    ///
    /// # Errors
    /// When it could not be asked.
    pub(in crate::drivers::visionline) async fn has_live_card(
        &self,
        room: &DoorName,
        starts_at: Timestamp,
        cards: &StayCards,
    ) -> std::result::Result<bool, Refusal> {
        let at = self.wall.now(self.clock.now().max(starts_at));
        let listed = self.visit(Errand::Cards(Call::CardsOfDoor { door: room.as_str().into(), at })).await;
        match listed {
            Came::Cards(listed) => Ok(listed.iter().any(|card| self.is_one_of(card, room, cards))),
            Came::Refused(refusal) | Came::Doubt(refusal) => Err(refusal),
            other => unreachable!("a visit for cards does not end with {other:?}"),
        }
    }

    fn is_one_of(&self, card: &Card, room: &DoorName, cards: &StayCards) -> bool {
        let ours = |serial: &String| cards.chips.iter().any(|chip| without_padding(chip) == *serial);
        let end = card.end.and_then(|end| self.wall.end_of(end));
        card.is_live
            && card.doors.iter().any(|door| door == room.as_str())
            && card.serials.iter().any(ours)
            && end.is_some_and(|end| cards.printed_ends.contains(&end))
    }

    /// One visit, from its session to its end.
    pub(in crate::drivers::visionline) async fn visit(&self, errand: Errand) -> Came {
        self.visit_telling(errand, |_, _| ()).await
    }

    /// [`Self::visit`], with each call and its answer told.
    pub(super) async fn visit_telling(
        &self,
        errand: Errand,
        mut tell: impl FnMut(&Call, &Answer) + Send,
    ) -> Came {
        let _turn = self.turn.lock().await;
        let refused = |code, why: String| Came::Refused(Refusal::new(code, why));
        let password = match password::read(&self.config.password_file) {
            Ok(password) => password,
            Err(why) => return refused(Code::Auth, why),
        };
        let client = match self.client() {
            Ok(client) => client,
            Err(why) => return refused(Code::SystemOffline, why),
        };
        let mut visit = Visit::new(&self.config.user, password, errand);
        let give_up = Instant::now() + VISIT;
        while let Some((call, key)) = visit.next() {
            let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.clock.now();
            let ask = codec::ask(&call, now.saturating_add(ahead).unwrap_or(now), key);
            let within = CALL.min(give_up.saturating_duration_since(Instant::now()));
            let came = match client.connect().await {
                Ok(connection) => connection.ask(ask, within).await,
                Err(error) => Err(error),
            };
            self.set_by(&came);
            if let Ok(answer) = &came {
                tell(&call, answer);
            }
            visit.heard(&came);
        }
        visit.result().unwrap_or_else(|| refused(Code::SystemOffline, "nothing came of it".into()))
    }

    /// Learns how the server's clock goes: it judges the date of a call by it.
    fn set_by(&self, came: &std::result::Result<Answer, HttpError>) {
        let header = came.as_ref().ok().and_then(|answer| answer.date.as_deref());
        if let Some(ahead) = header.and_then(|date| codec::ahead(date, self.clock.now())) {
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
        }
    }

    fn client(&self) -> std::result::Result<&Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let limits = Limits { connections: 1, ..Limits::default() };
        let client = Client::new(Arc::clone(&self.net), &self.config.http, limits)
            .map_err(|error| error.to_string())?;
        Ok(self.client.get_or_init(|| client))
    }
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").field("system", &self.system).finish_non_exhaustive()
    }
}

/// It cannot be asked.
const DOWN: &str = "web_api_down";

/// Rooms of the configuration that the server knows no door for.
pub(super) fn unknown_rooms<'a>(rooms: &'a [DoorName], doors: &[Door]) -> Vec<&'a DoorName> {
    let is_known = |room: &DoorName| doors.iter().any(|door| door.id == room.as_str());
    rooms.iter().filter(|room| !is_known(room)).collect()
}
