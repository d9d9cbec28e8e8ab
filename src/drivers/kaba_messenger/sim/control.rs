//! The hands and eyes at the simulator: commands in words, answers in JSON.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::DateTime};
use serde_json::{Value, json};

use super::{
    server::{Faults, Simulator, State},
    world::Denial,
};
use crate::sim::Direction;

const HELP: &str = "\
place CARD [KIND] on ENCODER        lay a card down; a new name is a blank card; KIND: blank, foreign, damaged
remove ENCODER                      take away what lies there
use CARD at DOOR                    hold a card to a lock (taking it from an encoder first)
ledger                              stays, cards, which of them open each door now, encoders, commands
foreign-card-made ROOM              the hotel's own desk program makes a card, overriding the stay
unplug encoder ENCODER | replug encoder ENCODER       the server reaches it no more, or again
wire [since N]                      what went over the wire, with passwords and names in it
wait orders N | wait card-wait ENCODER | wait count KIND N      each at most ten seconds
clock show | clock set TIME | clock advance SPAN      TIME: 2026-11-22T15:00 (local) or with Z; SPAN: 2h 30m
set card-wait MILLIS | set password TEXT | set wsdl-without OPERATION
fault silent|write-then-silent|denied|soap-fault|garbled      once
fault error MAIN [DETAIL] | fault http STATUS | fault late MILLIS | fault close-after N      once
fault slow MILLIS | fault clear
agent-config PASSWORD-FILE          the [[system]] section for an agent's configuration
quit";

/// How long a `wait` lasts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

type Answer = Result<Value, String>;

impl Simulator {
    /// Carries out one command of the control socket. `help` lists them.
    ///
    /// # Errors
    /// What went wrong, in words for a person.
    pub async fn command(&self, line: &str) -> Answer {
        let (verb, text) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let text = text.trim();
        match verb {
            "help" => Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            "place" => self.place(text),
            "remove" => Ok(json!({ "removed": self.change(|state, _| state.world.remove(text))? })),
            "use" => self.hold(text),
            "unplug" | "replug" => {
                let encoder = text.strip_prefix("encoder ").ok_or("usage: unplug encoder ENCODER")?.trim();
                self.change(|state, _| state.world.set_away(encoder, verb == "unplug"))?;
                Ok(json!({}))
            }
            "ledger" => Ok(self.ledger()),
            "foreign-card-made" => {
                let local = self.local_now();
                Ok(json!({ "card": self.change(|state, _| state.world.desk_card(text, local))? }))
            }
            "wire" => {
                let since = text.strip_prefix("since ").map_or(Ok(0), number)?;
                Ok(self.look(|state| json!({ "wire": state.tape.since(since).collect::<Vec<_>>() })))
            }
            "wait" => self.wait(text).await,
            "clock" => self.clock(text),
            "set" => self.set(text),
            "fault" => self.fault(text),
            "agent-config" => self.look(|state| {
                let address = state.address.ok_or("this simulator does not listen")?.to_string();
                Ok(json!({ "config": state.property.agent_section("messenger", &address, text) }))
            }),
            "quit" => {
                self.change(|state, _| state.quit = true);
                Ok(json!({}))
            }
            _ => Err("not understood; see help".into()),
        }
    }

    /// Waits until somebody says `quit`.
    pub async fn told_to_quit(&self) {
        self.until(|state| state.quit.then_some(())).await;
    }

    fn place(&self, text: &str) -> Answer {
        let (what, encoder) = text.split_once(" on ").ok_or("usage: place CARD [KIND] on ENCODER")?;
        let (card, kind) = match what.trim().split_once(' ') {
            Some((card, kind)) => (card, Some(kind.trim())),
            None => (what.trim(), None),
        };
        self.change(|state, _| state.world.place(card, kind, encoder.trim()))?;
        Ok(json!({ "card": card, "lies_on": encoder.trim() }))
    }

    fn hold(&self, text: &str) -> Answer {
        let (card, door) = text.split_once(" at ").ok_or("usage: use CARD at DOOR")?;
        let local = self.local_now();
        let shut = self.change(|state, _| state.world.hold(card.trim(), door.trim(), local))?;
        Ok(json!({ "card": card.trim(), "door": door.trim(), "opened": shut.is_none(), "code": shut }))
    }

    fn ledger(&self) -> Value {
        let (now, local) = (self.now(), self.local_now());
        let mut all = self.look(|state| {
            let mut all = state.world.show(local);
            all.insert("orders".into(), json!(state.orders));
            all.insert("connections".into(), json!(state.open));
            all
        });
        all.insert("now".into(), json!(now));
        all.insert("local".into(), json!(local));
        all.into()
    }

    async fn wait(&self, text: &str) -> Answer {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["orders", count] => {
                let count = number(count)? as usize;
                self.see(|state| state.orders.len() >= count).await
            }
            ["card-wait", encoder] => {
                self.see(|state| state.world.encoders.get(encoder).is_some_and(|it| it.busy)).await
            }
            ["count", kind, count] => {
                let count = number(count)?;
                let seen = |state: &State, way| state.tape.count(way, kind);
                self.see(|state| {
                    seen(state, Direction::Received)
                        + seen(state, Direction::Sent)
                        + seen(state, Direction::Event)
                        >= count
                })
                .await
            }
            _ => Err("usage: wait orders N | wait card-wait ENCODER | wait count KIND N".into()),
        }
    }

    async fn see(&self, so: impl Fn(&State) -> bool) -> Answer {
        let seen = self.until(|state| so(state).then_some(()));
        match tokio::time::timeout(LONGEST_WAIT, seen).await {
            Ok(()) => Ok(json!({})),
            Err(_elapsed) => Err(format!("did not happen within {LONGEST_WAIT:?}")),
        }
    }

    fn clock(&self, text: &str) -> Answer {
        let (verb, time) = text.split_once(' ').unwrap_or((text, ""));
        let far = |_| "the clock does not reach that far".to_owned();
        match verb {
            "show" => {}
            "set" => self.set_clock(self.instant(time.trim())?),
            "advance" => {
                let span: SignedDuration =
                    time.trim().parse().map_err(|_| format!("{time:?} is no span of time"))?;
                self.set_clock(self.now().checked_add(span).map_err(far)?);
            }
            _ => return Err("usage: clock show | clock set TIME | clock advance SPAN".into()),
        }
        Ok(json!({ "now": self.now(), "local": self.local_now() }))
    }

    fn instant(&self, text: &str) -> Result<Timestamp, String> {
        if let Ok(instant) = text.parse() {
            return Ok(instant);
        }
        let wrong = || format!("{text:?} is not a time; write 2026-11-22T15:00 or 2026-11-22T14:00Z");
        let local: DateTime = text.parse().map_err(|_| wrong())?;
        Ok(local.to_zoned(self.zone().clone()).map_err(|_| wrong())?.timestamp())
    }

    fn set(&self, text: &str) -> Answer {
        match text.split_once(' ') {
            Some(("card-wait", millis)) => {
                let wait = Duration::from_millis(number(millis)?);
                self.change(|state, _| state.card_wait = wait);
            }
            Some(("password", text)) => self.change(|state, _| state.property.password = text.to_owned()),
            Some(("wsdl-without", operation)) => {
                self.change(|state, _| state.wsdl_without = Some(operation.to_owned()));
            }
            _ => {
                return Err(
                    "usage: set card-wait MILLIS | set password TEXT | set wsdl-without OPERATION".into()
                );
            }
        }
        Ok(json!({}))
    }

    fn fault(&self, text: &str) -> Answer {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let span = || Ok::<_, String>(Some(Duration::from_millis(number(rest)?)));
        let mut set = Faults::default();
        match name {
            "clear" => {}
            "silent" => set.silent = true,
            "write-then-silent" => set.write_then_silent = true,
            "denied" => set.denied = true,
            "soap-fault" => set.soap_fault = true,
            "garbled" => set.garbled = true,
            "http" => set.http = Some(u16::try_from(number(rest)?).map_err(|_| "no such status".to_owned())?),
            "late" => set.late = span()?,
            "slow" => set.slow = span()?,
            "close-after" => set.close_after = Some(number(rest)? as usize),
            "error" => {
                let (main, detail) = rest.split_once(' ').unwrap_or((rest, "NotApplicable"));
                set.error = Some(Denial(main.to_owned(), detail.to_owned()));
            }
            _ => return Err("no such fault; see help".into()),
        }
        // One at a time: a new one takes the place of what was left of the last.
        self.change(|state, _| state.faults = set);
        Ok(json!({}))
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a number"))
}
