//! Who a board lets in.

use jiff::civil::DateTime;

use super::board::{Board, ProfileRecord};

/// What a person does at a reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swipe {
    pub card: u32,
    /// 0 to 3.
    pub door: usize,
    pub pin: u32,
}

const GRANTED: u8 = 1;
const BY_HOST: u8 = 5;
const NO_RIGHT: u8 = 6;
const WRONG_PIN: u8 = 7;
const HELD_SHUT: u8 = 11;
const NOT_NOW: u8 = 15;
const UNKNOWN: u8 = 18;
const DOOR_CODE: u8 = 25;

fn date_of(time: DateTime) -> [u8; 4] {
    let text = time.strftime("%Y%m%d").to_string();
    packed(&text)
}

fn minute_of(time: DateTime) -> [u8; 2] {
    packed(&time.strftime("%H%M").to_string())
}

/// Digits, two a byte: they compare as the numbers that they spell.
fn packed<const N: usize>(text: &str) -> [u8; N] {
    let digits = text.as_bytes();
    std::array::from_fn(|n| (digits[2 * n] - b'0') * 16 + (digits[2 * n + 1] - b'0'))
}

impl Board {
    /// Holds a card to a reader; what it is let in or refused by goes to the log.
    pub(super) fn swipe(&mut self, swipe: Swipe) -> (bool, u8) {
        let reason = self.judge(swipe);
        let is_let_in = reason == GRANTED;
        if is_let_in {
            self.relays |= 1 << swipe.door;
        }
        self.happen(is_let_in, door_number(swipe.door), swipe.card, reason);
        (is_let_in, reason)
    }

    fn judge(&self, swipe: Swipe) -> u8 {
        let Some(card) = self.place(swipe.card).and_then(|at| self.cards[at]) else { return UNKNOWN };
        if self.pc_control {
            return BY_HOST;
        }
        match self.doors[swipe.door][0] {
            1 => return GRANTED,
            2 => return HELD_SHUT,
            _ => {}
        }
        let now = self.now();
        let today = date_of(now);
        if today[..] < card[4..8] || card[8..12] < today[..] {
            return NO_RIGHT;
        }
        match card[12 + swipe.door] {
            0 | 255 => return NO_RIGHT,
            1 => {}
            profile => {
                if !self.is_time(profile, now) {
                    return NOT_NOW;
                }
            }
        }
        let pin = u32::from_le_bytes([card[16], card[17], card[18], 0]);
        if pin != 0 && self.keypads[swipe.door] == 1 && pin != swipe.pin {
            return WRONG_PIN;
        }
        GRANTED
    }

    /// Whether this profile, or one that it leads to, is good now. One that is not there is.
    fn is_time(&self, first: u8, now: DateTime) -> bool {
        let mut id = first;
        // Chains may run in circles.
        for _ in 0..=u8::MAX {
            let Some(profile) = self.profiles.get(&id) else { return id == first };
            if is_good(profile, now) {
                return true;
            }
            id = profile[28];
            if id == 0 {
                return false;
            }
        }
        false
    }

    /// Types a door's code.
    pub(super) fn type_code(&mut self, door: usize, code: u32) -> bool {
        let is_right = code != 0 && self.codes[door].contains(&code) && self.doors[door][0] != 2;
        if is_right {
            self.relays |= 1 << door;
        }
        self.happen(is_right, door_number(door), 10, if is_right { DOOR_CODE } else { UNKNOWN });
        is_right
    }

    /// Opens or shuts a door by hand; an event only if the board was told to make such.
    pub(super) fn move_door(&mut self, door: usize, open: bool) -> bool {
        self.open[door] = u8::from(open);
        if !open {
            self.relays &= !(1 << door);
        }
        if self.special_events {
            let (card, reason) = if open { (8, 23) } else { (9, 24) };
            self.happen(true, door_number(door), card, reason);
        }
        self.special_events
    }
}

fn door_number(door: usize) -> u8 {
    u8::try_from(door + 1).unwrap_or(0)
}

fn is_good(profile: &ProfileRecord, now: DateTime) -> bool {
    let (today, minute) = (date_of(now), minute_of(now));
    let weekday = usize::try_from(now.weekday().to_monday_zero_offset()).unwrap_or(0);
    let is_day = profile[1..5] <= today[..] && today[..] <= profile[5..9] && profile[9 + weekday] == 1;
    let is_hour = |n: usize| {
        let segment = &profile[16 + 4 * n..20 + 4 * n];
        segment != [0; 4] && segment[..2] <= minute[..] && minute[..] <= segment[2..]
    };
    is_day && (0..3).any(is_hour)
}
