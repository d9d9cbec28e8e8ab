//! One board: what it holds, and what it answers.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, civil::DateTime};
use tokio::time::Instant;

pub(super) type Frame = [u8; 64];

const MAGIC: u32 = 0x55AA_AA55;

/// A card as it was written: bytes 8 to 27 of the request.
pub(super) type CardRecord = [u8; 20];
/// A time profile as it was written: bytes 8 to 36 of the request.
pub(super) type ProfileRecord = [u8; 29];

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Happened {
    pub index: u32,
    /// Bytes 12 to 27 of an event.
    pub record: [u8; 16],
}

#[derive(Debug)]
pub(super) struct Board {
    pub serial: u32,
    network: [u8; 12],
    listener: [u8; 7],
    clock: (DateTime, Instant),
    /// Deleted cards leave their place free; the next new card takes it.
    pub cards: Vec<Option<CardRecord>>,
    pub most_cards: usize,
    pub profiles: BTreeMap<u8, ProfileRecord>,
    /// Mode and delay.
    pub doors: [[u8; 2]; 4],
    pub codes: [[u32; 4]; 4],
    pub keypads: [u8; 4],
    pub open: [u8; 4],
    pub relays: u8,
    pub anti_passback: u8,
    pub interlock: u8,
    pub first_cards: [[u8; 13]; 4],
    pub tasks: Vec<[u8; 20]>,
    pub pc_control: bool,
    pub special_events: bool,
    pub events: VecDeque<Happened>,
    pub most_events: usize,
    last_index: u32,
    bookmark: u32,
    /// How often each function was asked and done.
    pub requests: BTreeMap<u8, u64>,
    /// How often each door was opened from afar.
    pub opened: [u64; 4],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    (0..4).fold(0, |sum, n| sum | u32::from(bytes[at + n]) << (8 * n))
}

fn two_digits(value: i64) -> u8 {
    u8::try_from((value / 10 % 10) * 16 + value % 10).unwrap_or(0)
}

fn spelled(time: DateTime) -> [u8; 7] {
    let year = i64::from(time.year());
    [
        two_digits(year / 100),
        two_digits(year % 100),
        two_digits(time.month().into()),
        two_digits(time.day().into()),
        two_digits(time.hour().into()),
        two_digits(time.minute().into()),
        two_digits(time.second().into()),
    ]
}

/// The number that digits spell, two a byte.
fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0, |sum, byte| {
        let (high, low) = (byte / 16, byte % 16);
        (high < 10 && low < 10).then(|| sum * 100 + u64::from(high * 10 + low))
    })
}

fn is_date(bytes: &[u8]) -> bool {
    digits(bytes).is_some_and(|date| {
        let part = |by, of| i8::try_from(date / by % of).unwrap_or(0);
        let year = i16::try_from(date / 10_000).unwrap_or(0);
        date != 0 && jiff::civil::Date::new(year, part(100, 100), part(1, 100)).is_ok()
    })
}

fn are_switches(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte < 2)
}

fn is_minute(bytes: &[u8]) -> bool {
    digits(bytes).is_some_and(|time| time / 100 < 24 && time % 100 < 60)
}

impl Board {
    pub(super) fn new(serial: u32, starts_at: DateTime, most_cards: usize, most_events: usize) -> Self {
        Self {
            serial,
            network: [192, 168, 1, 100, 255, 255, 255, 0, 192, 168, 1, 1],
            listener: [0; 7],
            clock: (starts_at, Instant::now()),
            cards: Vec::new(),
            most_cards,
            profiles: BTreeMap::new(),
            doors: [[3, 5]; 4],
            codes: [[0; 4]; 4],
            keypads: [0; 4],
            open: [0; 4],
            relays: 0,
            anti_passback: 0,
            interlock: 0,
            first_cards: [[0; 13]; 4],
            tasks: Vec::new(),
            pc_control: false,
            special_events: false,
            events: VecDeque::new(),
            most_events,
            last_index: 0,
            bookmark: 0,
            requests: BTreeMap::new(),
            opened: [0; 4],
        }
    }

    /// Loses all that it holds, as after a reset; its clock goes on.
    pub(super) fn forget(&mut self) {
        let fresh = Self::new(self.serial, self.now(), self.most_cards, self.most_events);
        let counted = (std::mem::take(&mut self.requests), self.opened);
        *self = fresh;
        (self.requests, self.opened) = counted;
    }

    pub(super) fn now(&self) -> DateTime {
        let (set, at) = self.clock;
        let gone = SignedDuration::try_from(at.elapsed()).unwrap_or(SignedDuration::MAX);
        set.saturating_add(gone)
    }

    pub(super) fn set_clock(&mut self, to: DateTime) {
        self.clock = (to, Instant::now());
    }

    /// Where events go, if anywhere.
    pub(super) fn listener(&self) -> Option<std::net::SocketAddr> {
        let [a, b, c, d, low, high, _] = self.listener;
        let port = u16::from(high) * 256 + u16::from(low);
        ([a, b, c, d] != [0; 4] && port != 0).then(|| ([a, b, c, d], port).into())
    }

    fn frame(&self, function: u8) -> Frame {
        let mut frame = [0; 64];
        frame[0] = 0x17;
        frame[1] = function;
        frame[4..8].copy_from_slice(&self.serial.to_le_bytes());
        frame
    }

    /// Adds an event; the oldest go by the block when there are too many.
    pub(super) fn happen(&mut self, granted: bool, door: u8, card: u32, reason: u8) {
        self.last_index += 1;
        let mut record = [0; 16];
        record[..4].copy_from_slice(&[if granted { 2 } else { 1 }, u8::from(granted), door, 1]);
        record[4..8].copy_from_slice(&card.to_le_bytes());
        record[8..15].copy_from_slice(&spelled(self.now()));
        record[15] = reason;
        self.events.push_back(Happened { index: self.last_index, record });
        if self.most_events < self.events.len() {
            let block = (self.most_events / 8).max(1);
            self.events.drain(..block);
        }
    }

    /// How it is: the answer to a question, and what an event is sent as.
    pub(super) fn status(&self) -> Frame {
        let mut frame = self.frame(0x20);
        if let Some(last) = self.events.back() {
            frame[8..12].copy_from_slice(&last.index.to_le_bytes());
            frame[12..28].copy_from_slice(&last.record);
        }
        frame[28..32].copy_from_slice(&self.open);
        let now = spelled(self.now());
        frame[37..40].copy_from_slice(&now[4..]);
        frame[49] = self.relays;
        frame[51..54].copy_from_slice(&now[1..4]);
        frame
    }

    /// The answer to a request; silence to what a board does not understand.
    pub(super) fn answer(&mut self, request: &[u8]) -> Option<Frame> {
        if request.len() != 64 || request[0] != 0x17 {
            return None;
        }
        let (function, serial) = (request[1], u32_at(request, 4));
        if serial != self.serial && !(serial == 0 && function == 0x94) {
            return None;
        }
        let answer = self.work(function, request);
        if answer.is_some() || function == 0x96 {
            *self.requests.entry(function).or_default() += 1;
        }
        answer
    }

    #[expect(clippy::too_many_lines, reason = "one arm a function")]
    fn work(&mut self, function: u8, request: &[u8]) -> Option<Frame> {
        let mut frame = self.frame(function);
        let guarded = |at| u32_at(request, at) == MAGIC;
        let door = usize::from(request[8]).wrapping_sub(1);
        let mut said = None;
        match function {
            0x94 => {
                frame[8..20].copy_from_slice(&self.network);
                frame[20..26].copy_from_slice(&[0, 0x12, 0x23, 0x34, 0x45, 0x56]);
                frame[26..32].copy_from_slice(&[0x08, 0x92, 0x20, 0x18, 0x11, 0x05]);
            }
            0x96 => {
                if guarded(20) {
                    self.network.copy_from_slice(&request[8..20]);
                }
                return None;
            }
            0x32 => frame[8..15].copy_from_slice(&spelled(self.now())),
            0x30 => {
                if !is_date(&request[8..12]) || !is_minute(&request[12..14]) {
                    return None;
                }
                let part = |at: usize| digits(&request[at..=at]).and_then(|two| i8::try_from(two).ok());
                let year = i16::try_from(digits(&request[8..10])?).ok()?;
                let to =
                    DateTime::new(year, part(10)?, part(11)?, part(12)?, part(13)?, part(14)?, 0).ok()?;
                self.set_clock(to);
                frame[8..15].copy_from_slice(&request[8..15]);
            }
            0x20 => return Some(self.status()),
            0x90 => {
                self.listener.copy_from_slice(&request[8..15]);
                said = Some(true);
            }
            0x92 => frame[8..15].copy_from_slice(&self.listener),
            0x80 => {
                if !(1..=3).contains(&request[9]) {
                    return None;
                }
                self.doors.get_mut(door)?.copy_from_slice(&request[9..11]);
                frame[8..11].copy_from_slice(&request[8..11]);
            }
            0x82 => {
                frame[8] = request[8];
                frame[9..11].copy_from_slice(self.doors.get(door)?);
            }
            0x40 => {
                if let Some(opened) = self.opened.get_mut(door) {
                    *opened += 1;
                    self.relays |= 1 << door;
                    self.happen(true, request[8], 0xE9CD_ACEA, 44);
                }
                said = Some(door < 4);
            }
            0x50 => said = Some(self.put_card(request)?),
            0x52 => {
                let number = u32_at(request, 8);
                let at = self.place(number);
                if let Some(at) = at {
                    self.cards[at] = None;
                }
                said = Some(at.is_some());
            }
            0x54 => {
                if guarded(8) {
                    self.cards.clear();
                }
                said = Some(guarded(8));
            }
            0x58 => {
                let count = u32::try_from(self.cards.iter().flatten().count()).unwrap_or(u32::MAX);
                frame[8..12].copy_from_slice(&count.to_le_bytes());
            }
            0x5A => {
                if let Some(at) = self.place(u32_at(request, 8)) {
                    frame[8..28].copy_from_slice(self.cards[at].as_ref()?);
                }
            }
            0x5C => match (u32_at(request, 8) as usize).checked_sub(1).and_then(|at| self.cards.get(at)) {
                Some(Some(card)) => frame[8..28].copy_from_slice(card),
                Some(None) => frame[8..12].fill(0xFF),
                None => {}
            },
            0x88 => said = Some(self.put_profile(request)?),
            0x98 => {
                if let Some(profile) = self.profiles.get(&request[8]) {
                    frame[8..37].copy_from_slice(profile);
                }
            }
            0x8A => {
                if guarded(8) {
                    self.profiles.clear();
                }
                said = Some(guarded(8));
            }
            0x8C => {
                if let Some(codes) = self.codes.get_mut(door) {
                    *codes = std::array::from_fn(|n| u32_at(request, 12 + 4 * n));
                }
                said = Some(door < 4);
            }
            0xA4 => {
                if !are_switches(&request[8..12]) {
                    return None;
                }
                self.keypads.copy_from_slice(&request[8..12]);
                said = Some(true);
            }
            0x84 => {
                if request[8] <= 4 {
                    self.anti_passback = request[8];
                }
                said = Some(request[8] <= 4);
            }
            0x86 => frame[8] = self.anti_passback,
            0xA2 => {
                let is_known = matches!(request[8], 0..=4 | 8);
                if is_known {
                    self.interlock = request[8];
                }
                said = Some(is_known);
            }
            0xAA => {
                let is_right = is_minute(&request[9..11]) && is_minute(&request[12..14]);
                if !is_right || !are_switches(&request[15..22]) {
                    return None;
                }
                if let Some(first) = self.first_cards.get_mut(door) {
                    first.copy_from_slice(&request[9..22]);
                }
                said = Some(door < 4);
            }
            0xA0 => {
                if request[12] > 1 {
                    return None;
                }
                if guarded(8) {
                    self.pc_control = request[12] == 1;
                }
                said = Some(guarded(8));
            }
            0x8E => {
                if request[8] > 1 {
                    return None;
                }
                self.special_events = request[8] == 1;
                said = Some(true);
            }
            0xA6 => {
                if guarded(8) {
                    self.tasks.clear();
                }
                said = Some(guarded(8));
            }
            0xA8 => {
                let is_right =
                    is_date(&request[8..12]) && is_date(&request[12..16]) && is_minute(&request[23..25]);
                if !is_right || !are_switches(&request[16..23]) {
                    return None;
                }
                let is_room = self.tasks.len() < 1000;
                if is_room {
                    self.tasks.push(std::array::from_fn(|n| request[8 + n]));
                }
                said = Some(is_room);
            }
            0xAC => said = Some(guarded(8)),
            0xB0 => self.tell_event(u32_at(request, 8), &mut frame),
            0xB2 => {
                if !guarded(12) {
                    return None;
                }
                let to = u32_at(request, 8);
                said = Some(self.bookmark != to);
                self.bookmark = to;
            }
            0xB4 => frame[8..12].copy_from_slice(&self.bookmark.to_le_bytes()),
            0xC8 => {
                if guarded(8) {
                    self.forget();
                }
                said = Some(guarded(8));
            }
            _ => return None,
        }
        if let Some(said) = said {
            frame[8] = u8::from(said);
        }
        Some(frame)
    }

    pub(super) fn place(&self, number: u32) -> Option<usize> {
        self.cards.iter().position(|card| card.is_some_and(|card| u32_at(&card, 0) == number))
    }

    fn put_card(&mut self, request: &[u8]) -> Option<bool> {
        let number = u32_at(request, 8);
        let dates = [&request[12..16], &request[16..20]];
        if dates.iter().any(|date| digits(date).is_none()) {
            return None;
        }
        if !dates.iter().all(|date| is_date(date)) || matches!(number, 0 | 0x00FF_FFFF | 0xFFFF_FFFF) {
            return Some(false);
        }
        let mut card: CardRecord = std::array::from_fn(|n| request[8 + n]);
        let pin = u32_at(&[card[16], card[17], card[18], 0], 0);
        if pin > 999_999 {
            // A real board does that without a word.
            card[16..19].copy_from_slice(&(pin % 1_000_000).to_le_bytes()[..3]);
        }
        let free = self.cards.iter().position(Option::is_none);
        match self.place(number).or(free) {
            Some(at) => self.cards[at] = Some(card),
            None if self.cards.len() < self.most_cards => self.cards.push(Some(card)),
            None => return Some(false),
        }
        Some(true)
    }

    fn put_profile(&mut self, request: &[u8]) -> Option<bool> {
        let profile: ProfileRecord = std::array::from_fn(|n| request[8 + n]);
        let hours_are_right = (0..6).all(|n| is_minute(&profile[16 + 2 * n..18 + 2 * n]));
        if !are_switches(&profile[9..16]) || !hours_are_right {
            return None;
        }
        let id = profile[0];
        let is_right = (2..=254).contains(&id) && is_date(&profile[1..5]) && is_date(&profile[5..9]);
        if is_right {
            self.profiles.insert(id, profile);
        }
        Some(is_right)
    }

    fn tell_event(&self, index: u32, frame: &mut Frame) {
        let event = match index {
            0 => self.events.front(),
            u32::MAX => self.events.back(),
            _ => self.events.iter().find(|event| event.index == index),
        };
        if let Some(event) = event {
            frame[8..12].copy_from_slice(&event.index.to_le_bytes());
            frame[12..28].copy_from_slice(&event.record);
        } else if (1..=self.last_index).contains(&index) {
            frame[8..12].copy_from_slice(&index.to_le_bytes());
            frame[12] = 0xFF;
        }
    }
}
