//! The hands and eyes at a lock: commands in words, answers in JSON.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{faults, lock::AugustLock, table::When};

const HELP: &str = "\
slots                               what its table holds, PINs and all
put SLOT PIN                        a PIN that always holds, as if somebody had put it at the lock
try PIN [TIME]                      whether it would open, by the lock's clock or at this time of it
type PIN                            type it: opened or refused, and remembered
state                               bolt, door, battery, clock, how much happened that nobody asked for
done                                how often each command was done, by its number
clock set TIME | clock advance SPAN TIME: 2026-11-22T14:00:00Z
battery MILLIVOLTS
door closed | door ajar | door open
fault KIND …                        see fault help
fault show | fault clear";

const UNKNOWN: &str = "not understood; see help";

impl AugustLock {
    pub(super) fn command(&mut self, now: Timestamp, line: &str) -> Result<Value, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((verb, words)) = words.split_first() else {
            return Err(UNKNOWN.into());
        };
        let time = |text: &str| -> Result<Timestamp, String> {
            text.parse().map_err(|_| format!("{text:?} is not a time; write 2026-11-22T14:00:00Z"))
        };
        match (*verb, words) {
            ("help", []) => return Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            ("slots", []) => return Ok(json!({ "slots": self.table.show() })),
            ("put", [slot, pin]) => {
                let slot = slot.parse().map_err(|_| "usage: put SLOT PIN")?;
                if !(4..=6).contains(&pin.len()) || !pin.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err("a PIN has 4 to 6 digits".into());
                }
                self.table.put(slot, (*pin).to_owned(), When::Always);
                return Ok(json!({ "slots": self.table.show() }));
            }
            ("try", [pin, at @ ..]) => {
                let at = match at {
                    [] => self.clock(now),
                    [at] => time(at)?,
                    _ => return Err("usage: try PIN [TIME]".into()),
                };
                let slot = self.table.opens(pin, at);
                return Ok(json!({ "opens": slot.is_some(), "slot": slot }));
            }
            ("type", [pin]) => {
                let slot = self.typed(now, pin);
                return Ok(json!({ "opened": slot.is_some(), "slot": slot }));
            }
            ("done", []) => {
                let done = self.done.iter().map(|(verb, count)| (format!("{verb:02x}"), json!(count)));
                return Ok(json!({ "done": done.collect::<serde_json::Map<_, _>>() }));
            }
            ("fault", ["help"]) => return Ok(json!({ "usage": faults::USAGE })),
            ("fault", words) => {
                if *words != ["show"] {
                    self.faults.set(words).ok_or(format!("usage: {}", faults::USAGE))?;
                }
                return Ok(json!({ "faults": self.faults.show() }));
            }
            ("state", []) => {}
            ("clock", ["set", to]) => self.ahead = time(to)?.duration_since(now),
            ("clock", ["advance", span @ ..]) => {
                let span: SignedDuration =
                    span.join(" ").parse().map_err(|_| "that is not a span of time; write 2h 30m")?;
                self.ahead = self.ahead.saturating_add(span);
            }
            ("battery", [millivolts]) => {
                self.millivolts = millivolts.parse().map_err(|_| "usage: battery MILLIVOLTS")?;
            }
            ("door", [state @ ("closed" | "ajar" | "open")]) => {
                self.door = match *state {
                    "closed" => 1,
                    "ajar" => 2,
                    _ => 3,
                };
                self.log.door(self.seconds(now), self.door);
                self.has_news();
            }
            _ => return Err(UNKNOWN.into()),
        }
        Ok(json!({
            "bolt": format!("{:02x}", self.bolt(now)),
            "door": self.door,
            "millivolts": self.millivolts,
            "clock": self.clock(now),
            "untold": self.log.len(),
        }))
    }
}
