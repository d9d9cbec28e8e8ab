//! The hands at the reader: commands in words, answers in JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    chip::Card,
    server::{Armed, Fault, Reader},
};

const HELP: &str = "\
place NUMBER [KIND]        lay a card down; NUMBER: 4, 7 or 10 bytes in hexadecimal; KIND: classic, classic-4k, ultralight,
                           desfire; without it as its length suggests
lift [NUMBER]              take a card away, or all of them
cards                      what lies there
requests                   how often each command was heard, by its code
wait requests CODE N       at most ten seconds
fault KIND [on CODE] [TIMES]   without TIMES once, 0 until cleared; KIND: deaf, silent, noise, bad-sum, torn, foreign, syntax
fault clear
unplug | plug              the serial port
power-cut                  the chip forgets how it was set up
quit";

const LONGEST_WAIT: Duration = Duration::from_secs(10);
const UNKNOWN: &str = "not understood; see help";

type Answer = Result<Value, String>;

impl Reader {
    /// Carries out one command of the control socket. `help` lists them.
    ///
    /// # Errors
    /// What went wrong, in words for a person.
    pub async fn command(&self, line: &str) -> Answer {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["help"] => Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            ["quit"] => {
                self.change(|state| state.quit = true);
                Ok(json!({}))
            }
            ["place", number] => self.place(number, None),
            ["place", number, kind] => self.place(number, Some(kind)),
            ["lift"] => {
                self.change(|state| state.chip.cards.clear());
                Ok(json!({}))
            }
            ["lift", number] => {
                let uid = bytes(number)?;
                self.change(|state| state.chip.cards.retain(|card| card.uid != uid));
                Ok(json!({}))
            }
            ["cards"] => Ok(self.look(|state| {
                let numbers = state.chip.cards.iter().map(|card| hex(&card.uid)).collect::<Vec<_>>();
                json!({ "cards": numbers })
            })),
            ["requests"] => Ok(self.look(|state| {
                let heard = state.heard.iter().map(|(code, count)| (format!("{code:02X}"), json!(count)));
                json!({ "requests": heard.collect::<serde_json::Map<_, _>>() })
            })),
            ["wait", "requests", code, count] => {
                let (code, count) = (byte(code)?, count.parse::<u64>().map_err(|_| UNKNOWN)?);
                let seen = self.until(|state| {
                    (count <= state.heard.get(&code).copied().unwrap_or_default()).then_some(())
                });
                match tokio::time::timeout(LONGEST_WAIT, seen).await {
                    Ok(()) => Ok(json!({})),
                    Err(_elapsed) => Err(format!("command {code:02X} was not heard {count} times")),
                }
            }
            ["fault", "clear"] => {
                self.change(|state| state.faults.clear());
                Ok(json!({}))
            }
            ["fault", kind, ref more @ ..] => self.fault(kind, more),
            ["unplug"] => {
                self.change(|state| {
                    state.plugged = false;
                    state.chip.lose_power();
                });
                Ok(json!({}))
            }
            ["plug"] => {
                self.change(|state| state.plugged = true);
                Ok(json!({}))
            }
            ["power-cut"] => {
                self.change(|state| state.chip.lose_power());
                Ok(json!({}))
            }
            _ => Err(UNKNOWN.into()),
        }
    }

    fn place(&self, number: &str, kind: Option<&str>) -> Answer {
        let uid = bytes(number)?;
        let kind = kind.unwrap_or(if uid.len() == 4 { "classic" } else { "ultralight" });
        let card = Card::new(kind, uid).ok_or("a number has 4, 7 or 10 bytes; KIND: see help")?;
        self.change(|state| {
            state.chip.cards.retain(|other| other.uid != card.uid);
            state.chip.cards.push(card);
        });
        Ok(json!({}))
    }

    fn fault(&self, kind: &str, more: &[&str]) -> Answer {
        let fault = match kind {
            "deaf" => Fault::Deaf,
            "silent" => Fault::Silent,
            "noise" => Fault::Noise,
            "bad-sum" => Fault::BadSum,
            "torn" => Fault::Torn,
            "foreign" => Fault::Foreign,
            "syntax" => Fault::Syntax,
            _ => return Err(UNKNOWN.into()),
        };
        let (on, more) = match more {
            ["on", code, more @ ..] => (Some(byte(code)?), more),
            more => (None, more),
        };
        let times = match more {
            [] => Some(1),
            [times] => Some(times.parse().map_err(|_| UNKNOWN)?).filter(|times| *times != 0),
            _ => return Err(UNKNOWN.into()),
        };
        self.change(|state| state.faults.push(Armed { fault, on, times }));
        Ok(json!({}))
    }

    pub(super) async fn told_to_quit(&self) {
        self.until(|state| state.quit.then_some(())).await;
    }
}

fn byte(text: &str) -> Result<u8, String> {
    u8::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no byte in hexadecimal"))
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{text:?} is no number in hexadecimal"))?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
