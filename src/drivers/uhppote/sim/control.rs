//! The hands and eyes at the boards: commands in words, answers in JSON.

use std::time::Duration;

use jiff::{SignedDuration, civil::DateTime};
use serde_json::{Value, json};

use super::{
    board::Board,
    door::Swipe,
    server::{Armed, Fault, House},
};

const HELP: &str = "\
at SERIAL COMMAND                   the command is for this board; without it, for the first one
boards                              their serial numbers
swipe CARD DOOR [PIN]               hold a card to a door's reader: granted or refused, and the board's reason
code CODE DOOR                      type a door's code
open DOOR | shut DOOR               move the door by hand
cards | profiles | events | doors   what it holds
requests                            how often each function was asked, by its code
wait requests FUNCTION N            at most ten seconds
clock show | clock set TIME | clock advance SPAN      TIME: 2026-11-22T15:00:00, the board's own
room N                              only so many cards
forget                              lose all of it, as after a reset
fault KIND [on FUNCTION] [TIMES]    without TIMES once, 0 until cleared; KIND: deaf, silent, delay MILLIS, double, foreign,
                                    noise; FUNCTION: 50
fault clear
quit";

const LONGEST_WAIT: Duration = Duration::from_secs(10);
const UNKNOWN: &str = "not understood; see help";

type Answer = Result<Value, String>;

impl House {
    /// Carries out one command of the control socket. `help` lists them.
    ///
    /// # Errors
    /// What went wrong, in words for a person.
    pub async fn command(&self, line: &str) -> Answer {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (at, words) = match words[..] {
            ["at", serial, ref words @ ..] => {
                let at = self.serials().iter().position(|it| it.to_string() == serial);
                (at.ok_or_else(|| format!("there is no board {serial:?}"))?, words)
            }
            ref words => (0, words),
        };
        match words {
            ["help"] => Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            ["boards"] => Ok(self.boards()),
            ["quit"] => {
                self.change(|state| state.quit = true);
                Ok(json!({}))
            }
            ["fault", words @ ..] => self.fault(words),
            ["wait", "requests", function, count] => {
                let (function, count) = (code(function)?, number(count)?);
                let seen = self.until(|state| {
                    let asked = state.boards[at].requests.get(&function);
                    asked.copied().unwrap_or_default() >= u64::from(count)
                });
                match tokio::time::timeout(LONGEST_WAIT, seen).await {
                    Ok(()) => Ok(json!({})),
                    Err(_elapsed) => Err(format!("did not happen within {LONGEST_WAIT:?}")),
                }
            }
            words => {
                let (answer, has_happened) = self.change(|state| act(&mut state.boards[at], words))?;
                if has_happened {
                    self.tell(at).await;
                }
                Ok(answer)
            }
        }
    }

    /// Waits until somebody says `quit`.
    pub async fn told_to_quit(&self) {
        self.until(|state| state.quit).await;
    }

    fn fault(&self, words: &[&str]) -> Answer {
        let usage = || "usage: see fault in help".to_owned();
        let (fault, rest) = match words {
            ["clear"] => {
                self.change(|state| state.faults.clear());
                return Ok(json!({}));
            }
            ["deaf", rest @ ..] => (Fault::Deaf, rest),
            ["silent", rest @ ..] => (Fault::Silent, rest),
            ["delay", millis, rest @ ..] => {
                (Fault::Delay(Duration::from_millis(number(millis)?.into())), rest)
            }
            ["double", rest @ ..] => (Fault::Double, rest),
            ["foreign", rest @ ..] => (Fault::Foreign, rest),
            ["noise", rest @ ..] => (Fault::Noise, rest),
            _ => return Err(usage()),
        };
        let (on, rest) = match rest {
            ["on", function, rest @ ..] => (Some(code(function)?), rest),
            rest => (None, rest),
        };
        let times = match rest {
            [] => Some(1),
            ["0"] => None,
            [times] => Some(number(times)?),
            _ => return Err(usage()),
        };
        self.change(|state| state.faults.push(Armed { fault, on, times }));
        Ok(json!({}))
    }
}

/// What is done at one board, and whether something happened there.
fn act(board: &mut Board, words: &[&str]) -> Result<(Value, bool), String> {
    let still = |value| Ok((value, false));
    match words {
        ["swipe", card, at, pin @ ..] => {
            let pin = match pin {
                [] => 0,
                [pin] => number(pin)?,
                _ => return Err("usage: swipe CARD DOOR [PIN]".into()),
            };
            let (granted, reason) = board.swipe(Swipe { card: number(card)?, door: door(at)?, pin });
            Ok((json!({ "granted": granted, "reason": reason }), true))
        }
        ["code", typed, at] => Ok((json!({ "granted": board.type_code(door(at)?, number(typed)?) }), true)),
        ["open", at] => Ok((json!({}), board.move_door(door(at)?, true))),
        ["shut", at] => Ok((json!({}), board.move_door(door(at)?, false))),
        ["cards"] => {
            let card = |card: &[u8; 20]| {
                json!({
                    "card": u32::from_le_bytes([card[0], card[1], card[2], card[3]]),
                    "from": hex(&card[4..8]),
                    "to": hex(&card[8..12]),
                    "doors": card[12..16],
                    "pin": u32::from_le_bytes([card[16], card[17], card[18], 0]),
                    "first_card": card[19],
                })
            };
            still(json!({ "cards": board.cards.iter().flatten().map(card).collect::<Vec<_>>() }))
        }
        ["profiles"] => {
            let profile = |profile: &[u8; 29]| {
                let segments = profile[16..28].chunks(4).map(hex).collect::<Vec<_>>();
                json!({
                    "profile": profile[0], "from": hex(&profile[1..5]), "to": hex(&profile[5..9]),
                    "days": profile[9..16], "segments": segments, "linked": profile[28],
                })
            };
            still(json!({ "profiles": board.profiles.values().map(profile).collect::<Vec<_>>() }))
        }
        ["events"] => {
            let event = |event: &super::board::Happened| {
                let of = event.record;
                json!({
                    "index": event.index, "granted": of[1] == 1, "door": of[2],
                    "card": u32::from_le_bytes([of[4], of[5], of[6], of[7]]),
                    "at": hex(&of[8..15]), "reason": of[15],
                })
            };
            still(json!({ "events": board.events.iter().map(event).collect::<Vec<_>>() }))
        }
        ["doors"] => still(json!({
            "control": board.doors, "open": board.open, "unlocked": board.relays, "opened": board.opened,
            "keypads": board.keypads, "codes": board.codes, "anti_passback": board.anti_passback,
            "interlock": board.interlock, "first_cards": board.first_cards.map(|first| hex(&first)),
            "tasks": board.tasks.iter().map(|task| hex(task)).collect::<Vec<_>>(),
            "host_decides": board.pc_control, "special_events": board.special_events,
        })),
        ["requests"] => {
            let counts = board.requests.iter().map(|(code, count)| (format!("{code:02x}"), json!(count)));
            still(json!({ "requests": counts.collect::<serde_json::Map<_, _>>() }))
        }
        ["clock", words @ ..] => {
            match words {
                ["show"] => {}
                ["set", time] => {
                    let to: DateTime = time.parse().map_err(|_| format!("{time:?} is no local time"))?;
                    board.set_clock(to);
                }
                ["advance", span @ ..] => {
                    let span: SignedDuration =
                        span.join(" ").parse().map_err(|_| "that is not a span of time; write 2h 30m")?;
                    board.set_clock(board.now().saturating_add(span));
                }
                _ => return Err("usage: see clock in help".into()),
            }
            still(json!({ "local": board.now() }))
        }
        ["room", cards] => {
            board.most_cards = number(cards)? as usize;
            still(json!({}))
        }
        ["forget"] => {
            board.forget();
            still(json!({}))
        }
        _ => Err(UNKNOWN.into()),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn code(text: &str) -> Result<u8, String> {
    u8::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no function; write it as 50"))
}

fn door(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(door @ 1..=4) => Ok(door - 1),
        _ => Err(format!("{text:?} is no door; there are 1 to 4")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
