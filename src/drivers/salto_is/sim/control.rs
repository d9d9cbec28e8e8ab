//! The hands and eyes at the simulator: commands in words, answers in JSON.

use std::{future::Future, time::Duration};

use jiff::{SignedDuration, Timestamp, civil::DateTime};
use serde_json::{Value, json};

use super::{
    cards::{Kind, Shut},
    command::Dialect,
    faults::FaultError,
    property::AgentLine,
    server::{Line, Simulator},
    state::State,
    world::HandError,
};
use crate::sim::Direction;

const HELP: &str = "\
place CARD on ENCODER               lay a card down; a new name is a blank card
place CARD KIND on ENCODER          KIND: blank, staff, spare, diagnostic, foreign, damaged
remove ENCODER                      take away what lies there
use CARD at DOOR                    hold a card to a lock (taking it from an encoder first)
cards | doors | ledger              all cards; which cards open each door now; everything
foreign-card-made ROOM [one-shot]   the hotel's own desk program makes a card, overriding the stay (one-shot joins)
foreign-check-out ROOM              the hotel's own desk program frees the room
room ROOM out-of-service|in-service
wire [since N]                      what went over the wire
wire count [KIND] | wire count sent KIND
wait frames N | wait count KIND N | wait orders N     each with an optional: within MILLIS (default 10000)
wait card-wait ENCODER | wait idle ENCODER | wait conversations N
clock show | clock set TIME | clock advance SPAN      TIME: 2026-11-22T15:00 (local) or with Z; SPAN: 2h 30m
set card-wait MILLIS | set closing-separator on|off | set check true|0d
unplug [serial|tcp] | replug [serial|tcp]
unplug encoder ENCODER | replug encoder ENCODER       the lock server reaches it no more, or again
fault silent-enq|silent-ack|silent-answer|busy [TIMES]   without TIMES until cleared
fault nak|bad-lrc|close-after-ack|write-then-silent|demo-fail [TIMES]   without TIMES once
fault error CODE [TIMES [TEXT]] | fault late-answer MILLIS | fault close-after-bytes N
fault slow MILLIS | fault noise N   until cleared: pause before each byte, noise before each answer
fault show | fault clear
agent-config [serial|tcp]           the [[system]] section for an agent's configuration
quit";

/// How long a `wait` lasts that does not say it.
const USUAL_WAIT: Duration = Duration::from_secs(10);
/// Longest `wait`.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("not understood; see help")]
    Unknown,
    #[error("usage: {0}")]
    Usage(&'static str),
    #[error(transparent)]
    Hand(#[from] HandError),
    #[error(transparent)]
    Fault(#[from] FaultError),
    #[error("did not happen within {0:?}")]
    Late(Duration),
    #[error("{0:?} is not a time; write 2026-11-22T15:00 or 2026-11-22T14:00Z")]
    Time(String),
    #[error("{0:?} is not a span of time; write 2h 30m")]
    Span(String),
    #[error("the clock does not reach that far")]
    Reach,
    #[error("this simulator has no {0} line of its own")]
    NoLine(Line),
}

type Answer = Result<Value, CommandError>;

impl Simulator {
    /// Carries out one command of the control socket. `help` lists them.
    ///
    /// # Errors
    /// What went wrong, in words for a person.
    pub async fn command(&self, line: &str) -> Result<Value, String> {
        self.obey(line).await.map_err(|error| error.to_string())
    }

    async fn obey(&self, line: &str) -> Answer {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((verb, words)) = words.split_first() else {
            return Err(CommandError::Unknown);
        };
        // Encoders and doors may have blanks in their names, so these are cut from the text, not from the words.
        let text = line.trim()[verb.len()..].trim();
        match *verb {
            "help" => Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            "place" => self.place(text),
            "remove" => {
                let removed = self.change(|state, _| state.world.remove(text))?;
                Ok(json!({ "removed": removed }))
            }
            "use" => self.hold(text),
            "cards" => Ok(json!({ "cards": self.look(|state| state.world.cards()) })),
            "doors" => {
                let local = self.local_now();
                Ok(json!({ "doors": self.look(|state| state.world.doors(local)) }))
            }
            "ledger" => Ok(self.ledger()),
            "foreign-card-made" => self.desk_card(text),
            "foreign-check-out" => self.desk_check_out(text),
            "room" => self.room(text),
            "wire" => self.wire(words),
            "wait" => self.wait(text).await,
            "clock" => self.clock(text),
            "set" => self.set(words),
            "unplug" | "replug" if words.first() == Some(&"encoder") => {
                let encoder = text["encoder".len()..].trim();
                self.change(|state, _| state.world.set_away(encoder, *verb == "unplug"))?;
                Ok(json!({}))
            }
            "unplug" => self.unplug(line_of(words)?).await,
            "replug" => self.replug(line_of(words)?).await,
            "fault" => {
                if *words != ["show"] {
                    self.change(|state, _| state.faults.set(words))?;
                }
                Ok(json!({ "faults": self.look(|state| state.faults.show()) }))
            }
            "agent-config" => self.agent_config(line_of(words)?),
            "quit" => {
                self.change(|state, _| state.quit = true);
                Ok(json!({}))
            }
            _ => Err(CommandError::Unknown),
        }
    }

    /// Waits until somebody says `quit`.
    pub async fn told_to_quit(&self) {
        self.until(|state| state.quit.then_some(())).await;
    }

    fn place(&self, text: &str) -> Answer {
        const USAGE: CommandError = CommandError::Usage("place CARD [KIND] on ENCODER");
        let (what, encoder) = text.split_once(" on ").ok_or(USAGE)?;
        let what: Vec<&str> = what.split_whitespace().collect();
        let (card, kind) = match what[..] {
            [card] => (card, None),
            [card, kind] => {
                let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
                (card, Some(known.ok_or(USAGE)?))
            }
            _ => return Err(USAGE),
        };
        let encoder = encoder.trim();
        self.change(|state, _| state.world.place(card, kind, encoder))?;
        Ok(json!({ "card": card, "lies_on": encoder }))
    }

    fn hold(&self, text: &str) -> Answer {
        let usage = CommandError::Usage("use CARD at DOOR");
        let (card, door) = text.split_once(" at ").ok_or(usage)?;
        let (card, door, local) = (card.trim(), door.trim(), self.local_now());
        let held = self.change(|state, _| state.world.hold(card, door, local))?;
        let shut = held.verdict.err();
        tracing::info!(
            card,
            door,
            opened = shut.is_none(),
            why = shut.map(Shut::code),
            "card held to a lock"
        );
        Ok(json!({
            "card": card,
            "door": door,
            "opened": shut.is_none(),
            "code": shut.map(Shut::code),
            "why": shut.map(|shut| shut.to_string()),
            "first_of_a_newer_stay": held.newer,
            "taken_from": held.taken_from,
        }))
    }

    fn ledger(&self) -> Value {
        let now = self.now();
        let local = self.local_now();
        self.look(|state| {
            json!({
                "now": now,
                "local": local,
                "rooms": state.world.rooms(),
                "cards": state.world.cards(),
                "doors": state.world.doors(local),
                "encoders": state.world.encoders(),
                "orders": state.orders,
                "conversations": state.open,
                "faults": state.faults.show(),
            })
        })
    }

    fn desk_card(&self, text: &str) -> Answer {
        let (room, one_shot) = match text.strip_suffix(" one-shot") {
            Some(room) => (room.trim(), true),
            None => (text, false),
        };
        let local = self.local_now();
        let made = self.change(|state, _| state.world.desk_card(room, local, one_shot))?;
        Ok(json!({ "card": made.card, "serial": made.serial, "room": room }))
    }

    fn desk_check_out(&self, text: &str) -> Answer {
        let freed = self.change(|state, _| state.world.check_out("0", text.trim()));
        freed.map_err(|_| HandError::Missing { what: "room", name: text.trim().to_owned() })?;
        Ok(json!({ "room": text.trim() }))
    }

    fn room(&self, text: &str) -> Answer {
        let usage = CommandError::Usage("room ROOM out-of-service|in-service");
        let (room, state) = text.rsplit_once(' ').ok_or(usage)?;
        let out = match state {
            "out-of-service" => true,
            "in-service" => false,
            _ => return Err(CommandError::Usage("room ROOM out-of-service|in-service")),
        };
        self.change(|state, _| state.world.set_out_of_service(room.trim(), out))?;
        Ok(json!({ "room": room.trim(), "out_of_service": out }))
    }

    fn wire(&self, words: &[&str]) -> Answer {
        let entries =
            |since| self.look(|state| json!({ "wire": state.tape.since(since).collect::<Vec<_>>() }));
        let count = |direction, kind: &str| {
            let count = self.look(|state| state.tape.count(direction, kind));
            json!({ "kind": kind, "count": count })
        };
        match words {
            [] => Ok(entries(0)),
            ["since", n] => Ok(entries(number(n, "wire since N")?)),
            ["count"] => Ok(json!({ "frames": self.look(frames) })),
            ["count", "sent", kind] => Ok(count(Direction::Sent, kind)),
            ["count", kind] => Ok(count(Direction::Received, kind)),
            _ => Err(CommandError::Usage("wire [since N] | wire count [[sent] KIND]")),
        }
    }

    async fn wait(&self, text: &str) -> Answer {
        const USAGE: &str = "wait frames N | count KIND N | orders N | card-wait ENCODER | idle ENCODER \
                             | conversations N [within MILLIS]";
        let (what, within) = match text.rsplit_once(" within ") {
            Some((what, millis)) => (what, Duration::from_millis(number(millis.trim(), USAGE)?)),
            None => (text, USUAL_WAIT),
        };
        let (what, object) = what.trim().split_once(' ').ok_or(CommandError::Usage(USAGE))?;
        let object = object.trim();
        let within = within.min(LONGEST_WAIT);
        match what {
            "frames" => {
                let wanted = number(object, USAGE)?;
                self.see(within, |state| frames(state) >= wanted).await
            }
            "count" => {
                let (kind, wanted) = object.rsplit_once(' ').ok_or(CommandError::Usage(USAGE))?;
                let wanted = number(wanted, USAGE)?;
                let (direction, kind) = match kind.trim().strip_prefix("sent ") {
                    Some(kind) => (Direction::Sent, kind),
                    None => (Direction::Received, kind.trim()),
                };
                self.see(within, |state| state.tape.count(direction, kind) >= wanted).await
            }
            "orders" => {
                let wanted: u64 = number(object, USAGE)?;
                self.see(within, |state| state.orders_ended() >= wanted).await
            }
            "conversations" => {
                let wanted: u64 = number(object, USAGE)?;
                self.see(within, |state| state.open.len() as u64 == wanted).await
            }
            "card-wait" | "idle" => {
                self.look(|state| state.world.knows_encoder(object))?;
                let waiting = what == "card-wait";
                self.see(within, |state| state.world.is_busy(object) == waiting).await
            }
            _ => Err(CommandError::Usage(USAGE)),
        }
    }

    async fn see(&self, within: Duration, so: impl Fn(&State) -> bool + Send) -> Answer {
        self.bounded(within, self.until(|state| so(state).then_some(()))).await
    }

    async fn bounded(&self, within: Duration, happens: impl Future<Output = ()>) -> Answer {
        match tokio::time::timeout(within, happens).await {
            Ok(()) => Ok(json!({})),
            Err(_elapsed) => Err(CommandError::Late(within)),
        }
    }

    fn clock(&self, text: &str) -> Answer {
        let (verb, time) = text.split_once(' ').unwrap_or((text, ""));
        let time = time.trim();
        match verb {
            "show" => {}
            "set" => self.set_clock(self.instant(time)?),
            "advance" => {
                let span: SignedDuration = time.parse().map_err(|_| CommandError::Span(time.to_owned()))?;
                let to = self.now().checked_add(span).map_err(|_| CommandError::Reach)?;
                self.set_clock(to);
            }
            _ => {
                return Err(CommandError::Usage("clock show | clock set TIME | clock advance SPAN"));
            }
        }
        Ok(json!({ "now": self.now(), "local": self.local_now() }))
    }

    fn instant(&self, text: &str) -> Result<Timestamp, CommandError> {
        if let Ok(instant) = text.parse() {
            return Ok(instant);
        }
        let local: DateTime = text.parse().map_err(|_| CommandError::Time(text.to_owned()))?;
        let zoned = local.to_zoned(self.zone().clone()).map_err(|_| CommandError::Reach)?;
        Ok(zoned.timestamp())
    }

    fn set(&self, words: &[&str]) -> Answer {
        const USAGE: &str = "set card-wait MILLIS | set closing-separator on|off | set check true|0d";
        match words {
            ["card-wait", millis] => {
                let wait = Duration::from_millis(number(millis, USAGE)?);
                self.change(|state, _| state.card_wait = wait);
            }
            ["closing-separator", on @ ("on" | "off")] => {
                self.change(|state, _| state.style.closing_separator = *on == "on");
            }
            ["check", check @ ("true" | "0d")] => {
                self.change(|state, _| state.style.true_check = *check == "true");
            }
            _ => return Err(CommandError::Usage(USAGE)),
        }
        Ok(self.look(|state| {
            json!({
                "card_wait_ms": state.card_wait.as_millis() as u64,
                "closing_separator": state.style.closing_separator,
                "check": if state.style.true_check { "true" } else { "0d" },
            })
        }))
    }

    async fn unplug(&self, line: Line) -> Answer {
        self.change(|state, _| state.plug_mut(line).pull());
        let prefix = line.to_string();
        let gone = self.until(|state| {
            let talking = state.open.iter().any(|label| label.starts_with(&prefix));
            (!talking && state.plug(line).published != Some(true)).then_some(())
        });
        self.bounded(USUAL_WAIT, gone).await
    }

    async fn replug(&self, line: Line) -> Answer {
        self.change(|state, _| state.plug_mut(line).up = true);
        let back = self.until(|state| (state.plug(line).published != Some(false)).then_some(()));
        self.bounded(USUAL_WAIT, back).await
    }

    fn agent_config(&self, line: Line) -> Answer {
        self.look(|state| {
            let at = match line {
                Line::Serial => state.tty.as_deref().map(AgentLine::Serial),
                Line::Tcp => state.address.map(AgentLine::Tcp),
            };
            let at = at.ok_or(CommandError::NoLine(line))?;
            let section = state.property.agent_section("salto", at);
            let dialect = match state.dialect {
                Dialect::Salto => "",
                Dialect::Onity => "dialect = \"onity\"\n",
                Dialect::AmadeusSt40 => "dialect = \"amadeus_st40\"\n",
            };
            Ok(json!({ "toml": format!("{section}{dialect}") }))
        })
    }
}

fn line_of(words: &[&str]) -> Result<Line, CommandError> {
    match words {
        [] | ["serial"] => Ok(Line::Serial),
        ["tcp"] => Ok(Line::Tcp),
        _ => Err(CommandError::Usage("serial or tcp")),
    }
}

/// Whole, good frames received.
fn frames(state: &State) -> u64 {
    let is_frame = |kind: &str| !matches!(kind, "ENQ" | "ACK" | "NAK" | "noise" | "bad_frame");
    state.tape.count_where(Direction::Received, is_frame)
}

fn number(text: &str, usage: &'static str) -> Result<u64, CommandError> {
    text.parse().map_err(|_| CommandError::Usage(usage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::salto_is::sim::Settings;

    fn simulator() -> Simulator {
        let starts_at = Some("2026-11-22T14:00:00Z".parse().unwrap());
        Simulator::new(Settings { starts_at, ..Settings::default() }).unwrap()
    }

    #[tokio::test]
    async fn cards_are_laid_down_used_and_taken_away_in_words() {
        let simulator = simulator();
        let say = async |line: &str| simulator.command(line).await.unwrap();
        assert_eq!(say("place anna on Online Encoder 1").await["lies_on"], "Online Encoder 1");
        assert_eq!(say("cards").await["cards"]["anna"]["kind"], "blank");
        assert_eq!(say("remove Online Encoder 1").await["removed"], "anna");
        assert_eq!(say("foreign-card-made 101").await["card"], "desk-1");
        assert_eq!(say("doors").await["doors"]["101"], json!(["desk-1"]));
        assert_eq!(say("use desk-1 at 101").await["first_of_a_newer_stay"], true);
        let refused = say("use anna at 101").await;
        assert_eq!(refused["opened"], false);
        assert_eq!(refused["why"], "the lock cannot read this card");
        assert_eq!(say("ledger").await["rooms"]["101"]["lock_has_seen"], 1);
    }

    #[tokio::test]
    async fn what_is_not_understood_is_refused_with_the_reason() {
        let simulator = simulator();
        let refused = async |line: &str| simulator.command(line).await.unwrap_err();
        assert_eq!(refused("dance").await, "not understood; see help");
        assert_eq!(refused("place anna").await, "usage: place CARD [KIND] on ENCODER");
        assert_eq!(refused("place anna on 9").await, r#"there is no encoder "9""#);
        assert_eq!(refused("use anna at 101").await, r#"there is no card "anna""#);
        assert_eq!(refused("wait frames 1 within 5").await, "did not happen within 5ms");
        assert_eq!(refused("agent-config tcp").await, "this simulator has no tcp line of its own");
        assert_eq!(
            refused("clock set noon").await,
            "\"noon\" is not a time; write 2026-11-22T15:00 or 2026-11-22T14:00Z"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_set_in_local_time_and_moves() {
        let simulator = simulator();
        let say = async |line: &str| simulator.command(line).await.unwrap();
        assert_eq!(say("clock show").await["local"], "2026-11-22T15:00:00");
        assert_eq!(say("clock advance 2h 30m").await["local"], "2026-11-22T17:30:00");
        assert_eq!(say("clock set 2026-07-01T12:00").await["now"], "2026-07-01T10:00:00Z");
        assert_eq!(say("clock set 2026-07-01T12:00Z").await["local"], "2026-07-01T14:00:00");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(say("clock show").await["local"], "2026-07-01T14:01:00");
    }

    #[tokio::test]
    async fn help_names_every_command() {
        let simulator = simulator();
        for line in HELP.lines() {
            let verb = line.split_whitespace().next().unwrap();
            let answer = simulator.command(verb).await;
            assert_ne!(answer.err().as_deref(), Some("not understood; see help"), "{verb}");
        }
    }
}
