//! The hands and eyes at a lock: commands in words, answers in JSON.

use std::{future::Future, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{faults, server::Simulator, wire::Verb};

pub(super) const HELP: &str = "\
at LOCK COMMAND                     the command is for this lock; without it, for the first one
locks                               their names
use CONTENT                         type a PIN or hold a card: opened or refused
turn locked | turn unlocked         turn the knob inside
table | ledger                      what it holds, contents and all; what was done
requests                            how often each verb was asked
wait requests VERB N | wait count WHAT N | wait slot KEY | wait no-slot KEY | wait idle | wait connections N
                                    each with an optional: within MILLIS (default 10000)
clock show | clock set TIME | clock advance SPAN | clock drift PPM | clock zone ZONE      TIME: 2026-11-22T14:00:00Z
battery PERCENT
clear                               lose the memory, as after a reset
unplug | replug
fault KIND [on VERB] [TIMES]        without TIMES once, 0 until cleared; KIND: silent, deaf, slow MILLIS, garbage,
                                    damaged, wrong-number, cut-before, cut-after, busy, full, lie
fault cut-received N | fault cut-sent N      close the next connection that has received or sent so many bytes
fault show | fault clear
agent-config                        the [[system]] section for an agent's configuration
quit";

/// How long a `wait` lasts that does not say it.
const USUAL_WAIT: Duration = Duration::from_secs(10);
/// Longest `wait`.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

const UNKNOWN: &str = "not understood; see help";

type Answer = Result<Value, String>;

impl Simulator {
    /// Carries out one command of the control socket for this lock. `help` lists them.
    ///
    /// # Errors
    /// What went wrong, in words for a person.
    pub async fn command(&self, line: &str) -> Answer {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((verb, words)) = words.split_first() else {
            return Err(UNKNOWN.into());
        };
        match (*verb, words) {
            ("help", []) => Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            ("use", [content]) => {
                let key = self.change(|lock| lock.used(content));
                Ok(json!({ "opened": key.is_some(), "key": key }))
            }
            ("turn", [word @ ("locked" | "unlocked")]) => {
                self.change(|lock| lock.turned(*word == "locked"));
                Ok(json!({}))
            }
            ("table", []) => Ok(json!({ "table": self.look(super::lock::Lock::show_table) })),
            ("ledger", []) => Ok(json!({ "ledger": self.look(super::lock::Lock::show_ledger) })),
            ("requests", []) => Ok(json!({ "requests": self.look(|lock| lock.requests.clone()) })),
            ("wait", words) => self.wait(words).await,
            ("clock", words) => self.clock(words),
            ("battery", [percent]) => {
                let percent = percent.parse().map_err(|_| "usage: battery PERCENT")?;
                self.change(|lock| lock.battery = percent);
                Ok(json!({ "battery": percent }))
            }
            ("clear", []) => {
                self.change(super::lock::Lock::clear);
                Ok(json!({}))
            }
            ("unplug", []) => {
                self.change(|lock| lock.up = false);
                self.wait(&["connections", "0"]).await
            }
            ("replug", []) => {
                self.change(|lock| lock.up = true);
                Ok(json!({}))
            }
            ("fault", words) => {
                if *words != ["show"] {
                    self.change(|lock| lock.faults.set(words)).ok_or(format!("usage: {}", faults::USAGE))?;
                }
                Ok(json!({ "faults": self.look(|lock| lock.faults.show()) }))
            }
            _ => Err(UNKNOWN.into()),
        }
    }

    async fn wait(&self, words: &[&str]) -> Answer {
        let (words, within) = match words {
            [words @ .., "within", millis] => {
                let millis = millis.parse().map_err(|_| "within: write milliseconds")?;
                (words, Duration::from_millis(millis).min(LONGEST_WAIT))
            }
            words => (words, USUAL_WAIT),
        };
        let usage = || "usage: see wait in help".to_owned();
        let number = |word: &str| word.parse::<u64>().map_err(|_| usage());
        match words {
            ["requests", verb, count] => {
                let (verb, count) = (Verb::named(verb).ok_or_else(usage)?.name(), number(count)?);
                self.within(within, async {
                    self.until(|lock| {
                        (lock.requests.get(verb).is_some_and(|seen| *seen >= count)).then_some(())
                    })
                    .await;
                })
                .await
            }
            ["count", what, count] => {
                let count = number(count)?;
                self.within(within, async {
                    self.until(|lock| (lock.count(what, None) as u64 >= count).then_some(())).await;
                })
                .await
            }
            ["slot", key] => self.within(within, self.until(|lock| lock.has(key).then_some(()))).await,
            ["no-slot", key] => self.within(within, self.until(|lock| (!lock.has(key)).then_some(()))).await,
            ["idle"] => self.within(within, self.until(|lock| (lock.open == 0).then_some(()))).await,
            ["connections", count] => {
                let count = number(count)?;
                self.within(within, self.until(|lock| (lock.open == count).then_some(()))).await
            }
            _ => Err(usage()),
        }
    }

    async fn within(&self, within: Duration, so: impl Future<Output = ()>) -> Answer {
        match tokio::time::timeout(within, so).await {
            Ok(()) => Ok(json!({})),
            Err(_elapsed) => Err(format!("did not happen within {within:?}")),
        }
    }

    fn clock(&self, words: &[&str]) -> Answer {
        match words {
            ["show"] => {}
            ["set", time] => {
                let to: Timestamp = time
                    .parse()
                    .map_err(|_| format!("{time:?} is not a time; write 2026-11-22T14:00:00Z"))?;
                self.change(|lock| lock.jump(to));
            }
            ["advance", span @ ..] => {
                let span: SignedDuration =
                    span.join(" ").parse().map_err(|_| "that is not a span of time; write 2h 30m")?;
                self.change(|lock| {
                    let to = lock.now().saturating_add(span).unwrap_or(Timestamp::MAX);
                    lock.jump(to);
                });
            }
            ["drift", ppm] => {
                let ppm = ppm.parse().map_err(|_| "usage: clock drift PPM")?;
                self.change(|lock| lock.drift(ppm));
            }
            ["zone", name] => {
                let zone = TimeZone::get(name).map_err(|_| format!("there is no time zone {name:?}"))?;
                self.change(|lock| lock.set_zone(zone));
            }
            _ => return Err("usage: see clock in help".into()),
        }
        Ok(self.look(|lock| {
            json!({ "now": lock.now(), "local": lock.zone().to_datetime(lock.now()), "zone": lock.zone().iana_name() })
        }))
    }

    /// How often something stands in the ledger: `put`, `removed`, `unlocked`, `opened`, `refused`, `clock_set`; for
    /// one job, or for all.
    #[must_use]
    pub fn done(&self, what: &str, job: Option<&str>) -> usize {
        self.look(|lock| lock.count(what, job))
    }
}
