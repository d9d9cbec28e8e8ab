//! What goes wrong on demand.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::CODES;

/// How often a fault strikes; `ALWAYS` is until it is cleared.
const ALWAYS: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Faults {
    silent_enq: u32,
    silent_ack: u32,
    silent_answer: u32,
    busy: u32,
    nak: u32,
    error: u32,
    error_code: &'static str,
    error_text: String,
    demo_fail: u32,
    bad_lrc: u32,
    close_after_ack: u32,
    write_then_silent: u32,
    late_answer: Option<Duration>,
    /// Bytes that may still pass, both ways together, before the line hangs up.
    pub close_after_bytes: Option<u64>,
    /// Pause before every byte sent.
    pub slow: Option<Duration>,
    /// Bytes of noise before every frame sent.
    pub noise: usize,
}

/// A fault that strikes a number of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    SilentEnq,
    SilentAck,
    SilentAnswer,
    Busy,
    Nak,
    DemoFail,
    BadLrc,
    CloseAfterAck,
    WriteThenSilent,
}

impl Faults {
    /// Whether the fault strikes now; each strike counts.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        spend(self.counter(fault))
    }

    /// The code to answer instead of doing anything, and the text that goes with `EG`.
    pub(super) fn error(&mut self) -> Option<(&'static str, String)> {
        spend(&mut self.error).then(|| (self.error_code, self.error_text.clone()))
    }

    /// How long the next answer is to be held back.
    pub(super) fn take_late(&mut self) -> Option<Duration> {
        self.late_answer.take()
    }

    fn counter(&mut self, fault: Fault) -> &mut u32 {
        match fault {
            Fault::SilentEnq => &mut self.silent_enq,
            Fault::SilentAck => &mut self.silent_ack,
            Fault::SilentAnswer => &mut self.silent_answer,
            Fault::Busy => &mut self.busy,
            Fault::Nak => &mut self.nak,
            Fault::DemoFail => &mut self.demo_fail,
            Fault::BadLrc => &mut self.bad_lrc,
            Fault::CloseAfterAck => &mut self.close_after_ack,
            Fault::WriteThenSilent => &mut self.write_then_silent,
        }
    }

    /// Sets a fault as words ask for it.
    pub(super) fn set(&mut self, words: &[&str]) -> Result<(), FaultError> {
        let Some((name, rest)) = words.split_first() else {
            return Err(FaultError::Unknown(String::new()));
        };
        let counted = match *name {
            "clear" => {
                *self = Self::default();
                return Ok(());
            }
            "silent-enq" => Some((Fault::SilentEnq, ALWAYS)),
            "silent-ack" => Some((Fault::SilentAck, ALWAYS)),
            "silent-answer" => Some((Fault::SilentAnswer, ALWAYS)),
            "busy" => Some((Fault::Busy, ALWAYS)),
            "nak" => Some((Fault::Nak, 1)),
            "demo-fail" => Some((Fault::DemoFail, 1)),
            "bad-lrc" => Some((Fault::BadLrc, 1)),
            "close-after-ack" => Some((Fault::CloseAfterAck, 1)),
            "write-then-silent" => Some((Fault::WriteThenSilent, 1)),
            _ => None,
        };
        if let Some((fault, usual)) = counted {
            *self.counter(fault) = match rest {
                [] => usual,
                [times] => number(times)?,
                _ => return Err(FaultError::Words(name.to_string())),
            };
            return Ok(());
        }
        match (*name, rest) {
            ("error", [code, times_and_text @ ..]) => {
                let known = CODES.into_iter().find(|known| known == code);
                self.error_code = known.ok_or_else(|| FaultError::Code(code.to_string()))?;
                self.error = times_and_text.first().map_or(Ok(1), |times| number(times))?;
                self.error_text = match times_and_text {
                    [_, text @ ..] if !text.is_empty() => text.join(" "),
                    _ => "as told".into(),
                };
            }
            ("late-answer", [millis]) => {
                self.late_answer = Some(Duration::from_millis(number(millis)?.into()));
            }
            ("close-after-bytes", [bytes]) => self.close_after_bytes = Some(number(bytes)?.into()),
            ("slow", [millis]) => {
                self.slow = Some(Duration::from_millis(number(millis)?.into())).filter(|it| !it.is_zero());
            }
            ("noise", [bytes]) => self.noise = number(bytes)?.min(LOUDEST) as usize,
            ("error" | "late-answer" | "close-after-bytes" | "slow" | "noise", _) => {
                return Err(FaultError::Words(name.to_string()));
            }
            (unknown, _) => return Err(FaultError::Unknown(unknown.to_owned())),
        }
        Ok(())
    }

    /// Those that are set; -1 is "until cleared".
    pub(super) fn show(&self) -> Value {
        let times = |count: u32| match count {
            ALWAYS => -1,
            count => i64::from(count),
        };
        json!({
            "silent_enq": times(self.silent_enq),
            "silent_ack": times(self.silent_ack),
            "silent_answer": times(self.silent_answer),
            "busy": times(self.busy),
            "nak": times(self.nak),
            "error": times(self.error),
            "error_code": self.error_code,
            "demo_fail": times(self.demo_fail),
            "bad_lrc": times(self.bad_lrc),
            "close_after_ack": times(self.close_after_ack),
            "write_then_silent": times(self.write_then_silent),
            "late_answer_ms": self.late_answer.map(|it| it.as_millis() as u64),
            "close_after_bytes": self.close_after_bytes,
            "slow_ms": self.slow.map(|it| it.as_millis() as u64),
            "noise": self.noise,
        })
    }
}

/// A line cannot be louder than this between two frames.
const LOUDEST: u32 = 4096;

/// Noise that cannot be taken for a control byte.
pub(super) fn noise(bytes: usize) -> Vec<u8> {
    [0x00, 0xff, 0x7f, 0xb3, 0x0a].into_iter().cycle().take(bytes).collect()
}

/// Why words set no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FaultError {
    #[error("{0:?} is no fault; see help")]
    Unknown(String),
    #[error("fault {0:?} takes other words; see help")]
    Words(String),
    #[error("{0:?} is not a number")]
    Number(String),
    #[error("{0:?} is no code of this protocol")]
    Code(String),
}

fn spend(count: &mut u32) -> bool {
    match *count {
        0 => false,
        ALWAYS => true,
        _ => {
            *count -= 1;
            true
        }
    }
}

fn number(text: &str) -> Result<u32, FaultError> {
    text.parse().map_err(|_| FaultError::Number(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &str) -> Result<Faults, FaultError> {
        let mut faults = Faults::default();
        faults.set(&words.split(' ').collect::<Vec<_>>())?;
        Ok(faults)
    }

    #[test]
    fn a_fault_strikes_as_often_as_told_or_until_cleared() {
        let mut faults = set("nak 2").unwrap();
        let struck: Vec<bool> = (0..3).map(|_| faults.strikes(Fault::Nak)).collect();
        assert_eq!(struck, [true, true, false]);
        faults.set(&["silent-enq"]).unwrap();
        assert!((0..100).all(|_| faults.strikes(Fault::SilentEnq)));
        faults.set(&["clear"]).unwrap();
        assert!(!faults.strikes(Fault::SilentEnq));
        let mut faults = set("error TD 2").unwrap();
        let codes = [(); 3].map(|()| faults.error().map(|(code, _)| code));
        assert_eq!(codes, [Some("TD"), Some("TD"), None]);
    }

    #[test]
    fn words_that_set_nothing_say_why() {
        let check = |words: &str, expected: FaultError| assert_eq!(set(words).unwrap_err(), expected);
        check("meteor", FaultError::Unknown("meteor".into()));
        check("nak many", FaultError::Number("many".into()));
        check("error XX", FaultError::Code("XX".into()));
        check("slow", FaultError::Words("slow".into()));
        check("nak 1 2", FaultError::Words("nak".into()));
    }
}
