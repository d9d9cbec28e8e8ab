//! How a lock misbehaves when it is told to.

use serde_json::{Value, json};

pub(super) const USAGE: &str = "fault busy|full|no-keypad|no-windows|no-battery|jam, fault refuse N CODE, \
fault cut-before N|cut-after N|cut-answer N|lose N|damage N|duplicate N, fault show, fault clear; N counts from now, \
requests of the command channel for refuse, written values for the first two, answers for the others";

/// What is going wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// What would change anything is refused as busy.
    pub busy: bool,
    /// Its table takes no more.
    pub full: bool,
    /// It has no keypad.
    pub no_keypad: bool,
    /// It knows no windows.
    pub no_windows: bool,
    /// It never tells its battery's voltage.
    pub no_battery: bool,
    /// Its bolt sticks.
    pub jam: bool,
    refuse: Option<(u32, u8)>,
    cut_before: Option<u32>,
    cut_after: Option<u32>,
    cut_answer: Option<u32>,
    lose: Option<u32>,
    damage: Option<u32>,
    duplicate: Option<u32>,
}

/// What happens to a written value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Fine,
    CutBefore,
    CutAfter,
}

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Fine,
    Cut,
    Lost,
    Damaged,
    Twice,
}

/// Whether it was the last one of the count.
fn strikes(count: &mut Option<u32>) -> bool {
    match count {
        None => false,
        Some(1) => {
            *count = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

impl Faults {
    pub(super) fn written(&mut self) -> Written {
        let (before, after) = (strikes(&mut self.cut_before), strikes(&mut self.cut_after));
        match (before, after) {
            (true, _) => Written::CutBefore,
            (_, true) => Written::CutAfter,
            _ => Written::Fine,
        }
    }

    pub(super) fn answered(&mut self) -> Answered {
        let counts = [
            (&mut self.cut_answer, Answered::Cut),
            (&mut self.lose, Answered::Lost),
            (&mut self.damage, Answered::Damaged),
            (&mut self.duplicate, Answered::Twice),
        ];
        let mut answered = Answered::Fine;
        for (count, fault) in counts {
            if strikes(count) && answered == Answered::Fine {
                answered = fault;
            }
        }
        answered
    }

    /// The result with which this request is refused.
    pub(super) fn refused(&mut self) -> Option<u8> {
        let (count, code) = self.refuse?;
        let mut left = Some(count);
        let now = strikes(&mut left);
        self.refuse = left.map(|left| (left, code));
        now.then_some(code)
    }

    /// Arms or clears, as told in words.
    pub(super) fn set(&mut self, words: &[&str]) -> Option<()> {
        let count = |word: &str| word.parse().ok().filter(|count: &u32| *count > 0);
        match words {
            ["clear"] => *self = Self::default(),
            ["busy"] => self.busy = true,
            ["full"] => self.full = true,
            ["no-keypad"] => self.no_keypad = true,
            ["no-windows"] => self.no_windows = true,
            ["no-battery"] => self.no_battery = true,
            ["jam"] => self.jam = true,
            ["refuse", at, code] => self.refuse = Some((count(at)?, u8::from_str_radix(code, 16).ok()?)),
            ["cut-before", at] => self.cut_before = Some(count(at)?),
            ["cut-after", at] => self.cut_after = Some(count(at)?),
            ["cut-answer", at] => self.cut_answer = Some(count(at)?),
            ["lose", at] => self.lose = Some(count(at)?),
            ["damage", at] => self.damage = Some(count(at)?),
            ["duplicate", at] => self.duplicate = Some(count(at)?),
            _ => return None,
        }
        Some(())
    }

    pub(super) fn show(&self) -> Value {
        json!({
            "busy": self.busy,
            "full": self.full,
            "no_keypad": self.no_keypad,
            "no_windows": self.no_windows,
            "no_battery": self.no_battery,
            "jam": self.jam,
            "refuse": self.refuse.map(|(count, code)| json!({ "in": count, "code": format!("{code:02x}") })),
            "cut_before": self.cut_before,
            "cut_after": self.cut_after,
            "cut_answer": self.cut_answer,
            "lose": self.lose,
            "damage": self.damage,
            "duplicate": self.duplicate,
        })
    }
}
