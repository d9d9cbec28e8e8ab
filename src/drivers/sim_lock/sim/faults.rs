//! How a lock misbehaves when it is told to.

use std::time::Duration;

use serde_json::{Value, json};

use super::wire::Verb;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is done and not answered.
    Silent,
    /// It is not done and not answered.
    Deaf,
    /// It is done after a while.
    Slow(Duration),
    /// It is done, and the answer is no frame.
    Garbage,
    /// It is done, and the answer's check is wrong.
    Damaged,
    /// It is done, and the answer names another request.
    WrongNumber,
    /// The connection is closed before it is done.
    CutBefore,
    /// The connection is closed after it was done, without an answer.
    CutAfter,
    /// It is refused.
    Busy,
    /// It is refused.
    Full,
    /// It is answered as if it had been done.
    Lie,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    verb: Option<Verb>,
    /// How often it still happens; without a number, until cleared.
    times: Option<u32>,
}

/// What is going wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    /// Close the connection that has received so many bytes.
    pub cut_received: Option<u64>,
    /// Close the connection after so many bytes were sent.
    pub cut_sent: Option<u64>,
}

pub(super) const USAGE: &str = "fault silent|deaf|slow MILLIS|garbage|damaged|wrong-number|cut-before|cut-after|busy|full|lie \
[on VERB] [TIMES], fault cut-received N, fault cut-sent N, fault show, fault clear";

impl Faults {
    /// What happens to this request; each armed fault that fits is used up by one.
    pub(super) fn take(&mut self, verb: Verb) -> Option<Fault> {
        let at = self.armed.iter().position(|armed| armed.verb.is_none_or(|only| only == verb))?;
        let armed = &mut self.armed[at];
        let fault = armed.fault;
        if let Some(times) = &mut armed.times {
            *times -= 1;
            if *times == 0 {
                self.armed.remove(at);
            }
        }
        Some(fault)
    }

    /// Arms or clears, as told in words. A fault without a number of times happens once; 0 means until cleared.
    pub(super) fn set(&mut self, words: &[&str]) -> Option<()> {
        let (kind, mut rest) = words.split_first()?;
        let number = |rest: &mut &[&str]| -> Option<u64> {
            let (first, more) = rest.split_first()?;
            *rest = more;
            first.parse().ok()
        };
        let fault = match *kind {
            "clear" => {
                *self = Self::default();
                return Some(());
            }
            "cut-received" => {
                self.cut_received = Some(number(&mut rest)?);
                return Some(());
            }
            "cut-sent" => {
                self.cut_sent = Some(number(&mut rest)?);
                return Some(());
            }
            "silent" => Fault::Silent,
            "deaf" => Fault::Deaf,
            "slow" => Fault::Slow(Duration::from_millis(number(&mut rest)?)),
            "garbage" => Fault::Garbage,
            "damaged" => Fault::Damaged,
            "wrong-number" => Fault::WrongNumber,
            "cut-before" => Fault::CutBefore,
            "cut-after" => Fault::CutAfter,
            "busy" => Fault::Busy,
            "full" => Fault::Full,
            "lie" => Fault::Lie,
            _ => return None,
        };
        let verb = match rest {
            ["on", verb, more @ ..] => {
                rest = more;
                Some(Verb::named(verb)?)
            }
            _ => None,
        };
        let times = match rest {
            [] => Some(1),
            ["0"] => None,
            [times] => Some(times.parse().ok()?),
            _ => return None,
        };
        self.armed.push(Armed { fault, verb, times });
        Some(())
    }

    pub(super) fn show(&self) -> Value {
        let armed = self.armed.iter().map(|armed| {
            json!({
                "fault": format!("{:?}", armed.fault),
                "on": armed.verb.map(Verb::name),
                "times": armed.times,
            })
        });
        json!({
            "armed": armed.collect::<Vec<_>>(),
            "cut_received": self.cut_received,
            "cut_sent": self.cut_sent,
        })
    }
}
