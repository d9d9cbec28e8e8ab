//! The lock itself, behind its radio.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    faults::{Answered, Faults, Written},
    table::{Log, Table, When, digits, packed},
    wire::{self, Chains, WHOLE},
};
use crate::sim::ble::peripheral::{Act, Advertisement, AttError, Characteristic, Peripheral, Service};

/// How long a command takes that turns nothing.
const WORK: Duration = Duration::from_millis(30);
/// How long the bolt takes from one end to the other.
const TURN: Duration = Duration::from_millis(1500);

const fn own(number: u128) -> Uuid {
    Uuid::from_u128(0xbd4a_c610_0b45_11e3_8ffd_0800_200c_9a66 | number << 96)
}

const fn standard(number: u128) -> Uuid {
    Uuid::from_u128(0x0000_0000_0000_1000_8000_0080_5f9b_34fb | number << 96)
}

const COMMANDS: Uuid = own(1);
const RESULTS: Uuid = own(2);
const SECURE_IN: Uuid = own(3);
const SECURE_OUT: Uuid = own(4);
const MAKER: Uuid = standard(0x2a29);
/// The company under whose number the lock shows that it has news.
const COMPANY: u16 = 465;

const INVALID_LENGTH: AttError = AttError(0x0d);
const UNLIKELY: AttError = AttError(0x0e);
const NOT_PERMITTED: AttError = AttError(0x03);

/// What a lock is.
#[derive(Clone)]
pub struct Settings {
    /// At least 7 characters.
    pub serial: String,
    /// Its key.
    pub key: [u8; 16],
    /// The number under which it keeps the key.
    pub key_slot: u8,
    /// How many PINs its table takes.
    pub slots: usize,
    /// The nonce of its first connection; each later one is one more.
    pub nonce: [u8; 8],
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// A lock with a keypad.
pub struct AugustLock {
    pub(super) settings: Settings,
    /// What its clock shows, less what is right.
    pub(super) ahead: SignedDuration,
    pub(super) table: Table,
    pub(super) log: Log,
    pub(super) faults: Faults,
    pub(super) millivolts: u16,
    /// Closed 1, ajar 2, open 3.
    pub(super) door: u8,
    bolt: u8,
    /// When the bolt arrives, and how it is then.
    turning: Option<(Timestamp, u8)>,
    /// Relock after so many seconds, as somebody set it.
    relock: [u8; 4],
    news: bool,
    /// How often each command was done, by its number.
    pub(super) done: BTreeMap<u8, u64>,
    link: Option<Link>,
}

impl fmt::Debug for AugustLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AugustLock").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// One connection.
struct Link {
    key: [u8; 16],
    nonce: [u8; 8],
    greeted: Greeted,
    chains: Option<Chains>,
    pin: Option<String>,
    when: Option<When>,
    /// No answer goes out before this one: they leave in the order in which they were enciphered.
    last: Timestamp,
    dead: bool,
}

#[derive(PartialEq)]
enum Greeted {
    Not,
    Half,
    Whole,
}

/// What became of a command: how long it takes, its result's bytes, and its code.
type Result12 = (Duration, [u8; 12]);

fn code(code: u8) -> Result12 {
    let mut rest = [0; 12];
    rest[11] = code;
    (WORK, rest)
}

impl AugustLock {
    /// A lock that is locked, closed and empty, and whose clock is right.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ahead: SignedDuration::ZERO,
            table: Table::default(),
            log: Log::default(),
            faults: Faults::default(),
            millivolts: 5960,
            door: 1,
            bolt: 0x05,
            turning: None,
            relock: [0; 4],
            news: false,
            done: BTreeMap::new(),
            link: None,
        }
    }

    /// What its own clock shows.
    pub(super) fn clock(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.ahead).unwrap_or(now)
    }

    pub(super) fn seconds(&self, now: Timestamp) -> u32 {
        u32::try_from(self.clock(now).as_second()).unwrap_or(0)
    }

    /// How the bolt is by now.
    pub(super) fn bolt(&mut self, now: Timestamp) -> u8 {
        if let Some((_, arrived)) = self.turning.take_if(|(arrives, _)| *arrives <= now) {
            self.bolt = arrived;
        }
        self.bolt
    }

    /// Something happened that whoever listens may want to know.
    pub(super) fn has_news(&mut self) {
        self.news = !self.news;
    }

    /// Somebody types a PIN.
    pub(super) fn typed(&mut self, now: Timestamp, pin: &str) -> Option<u16> {
        let slot = self.table.opens(pin, self.clock(now)).filter(|_| !self.faults.no_keypad)?;
        self.log.keypad(self.seconds(now), slot);
        (self.bolt, self.turning) = (0x03, None);
        self.has_news();
        Some(slot)
    }

    /// Queues an answer, or what goes wrong with it.
    fn tell(&mut self, now: Timestamp, acts: &mut Vec<Act>, from: Uuid, value: [u8; WHOLE], after: Duration) {
        let Some(link) = &mut self.link else {
            return;
        };
        if link.dead {
            return;
        }
        let at = now.saturating_add(after).unwrap_or(now).max(link.last);
        link.last = at;
        let after = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let notify = |value: [u8; WHOLE]| Act::Notify { from, value: value.to_vec(), after };
        match self.faults.answered() {
            Answered::Fine => acts.push(notify(value)),
            Answered::Lost => {}
            Answered::Damaged => {
                let mut value = value;
                value[7] ^= 0x10;
                acts.push(notify(value));
            }
            Answered::Twice => acts.extend([notify(value), notify(value)]),
            Answered::Cut => {
                link.dead = true;
                acts.push(Act::HangUp { after });
            }
        }
    }

    fn heard_secure(
        &mut self,
        now: Timestamp,
        value: &[u8; WHOLE],
        acts: &mut Vec<Act>,
    ) -> Result<(), AttError> {
        let link = self.link.as_mut().ok_or(UNLIKELY)?;
        let (verb, data, [kind, slot]) = wire::secure_request(&link.key, value).ok_or(UNLIKELY)?;
        let answer = match verb {
            0x01 if kind == 0x0f && slot == self.settings.key_slot && link.greeted == Greeted::Not => {
                let answer = wire::secure_answer(&link.key, 0x02, link.nonce);
                link.key[..8].copy_from_slice(&data);
                link.key[8..].copy_from_slice(&link.nonce);
                link.greeted = Greeted::Half;
                answer
            }
            0x03 if kind == 0x0f && slot == self.settings.key_slot && link.greeted == Greeted::Half => {
                link.greeted = Greeted::Whole;
                link.chains = Some(Chains::begin(link.key));
                wire::secure_answer(&link.key, 0x04, data)
            }
            0x05 if kind == 0x0f && slot == 0 && link.greeted == Greeted::Whole => {
                wire::secure_answer(&link.key, 0x8b, [0; 8])
            }
            _ => return Err(UNLIKELY),
        };
        self.tell(now, acts, SECURE_OUT, answer, Duration::ZERO);
        Ok(())
    }

    fn heard_command(
        &mut self,
        now: Timestamp,
        value: &[u8; WHOLE],
        acts: &mut Vec<Act>,
    ) -> Result<(), AttError> {
        let link = self.link.as_mut().ok_or(UNLIKELY)?;
        let chains = link.chains.as_mut().ok_or(UNLIKELY)?;
        // A lock says nothing to what it cannot read.
        let Some((verb, rest)) = chains.request(value) else {
            return Ok(());
        };
        let received = chains.answer(0xaa, verb, rest);
        let refused = self.faults.refused();
        self.tell(now, acts, RESULTS, received, Duration::ZERO);
        let (takes, result) = match refused {
            Some(refused) => code(refused),
            None => self.perform(now, verb, &rest),
        };
        let is_mute = self.faults.no_battery && verb == 0x02 && rest[0] == 0x0f;
        if !is_mute && let Some(chains) = self.link.as_mut().and_then(|link| link.chains.as_mut()) {
            let result = chains.answer(0xbb, verb, result);
            self.tell(now, acts, RESULTS, result, takes);
        }
        Ok(())
    }

    /// Does a command.
    fn perform(&mut self, now: Timestamp, verb: u8, rest: &[u8; 12]) -> Result12 {
        let is_keypads = matches!(verb, 0x27..=0x29 | 0x2b | 0x2c | 0x39);
        if self.faults.no_keypad && is_keypads {
            return code(0x04);
        }
        if self.faults.busy && (matches!(verb, 0x0a | 0x0b) || is_keypads && verb != 0x39) {
            return code(0x3e);
        }
        let done = match verb {
            0x02 => self.status(now, rest[0]),
            0x03 if rest[0] == 0x28 => {
                self.relock.copy_from_slice(&rest[4..8]);
                code(0)
            }
            0x04 if rest[0] == 0x28 => {
                let mut answer = [0; 12];
                answer[0] = 0x28;
                answer[4..8].copy_from_slice(&self.relock);
                (WORK, answer)
            }
            0x0a => self.turn(now, if rest[0] == 0x0a { (0x09, 0x0a) } else { (0x02, 0x03) }),
            0x0b => self.turn(now, if rest[0] == 0x04 { (0x04, 0x0c) } else { (0x04, 0x05) }),
            0x10 => {
                let to = i64::from(u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]));
                self.ahead = SignedDuration::from_secs(to) - now.as_duration();
                code(0)
            }
            0x27 => self.prepare(rest),
            0x28 => self.clear(rest),
            0x29 => {
                self.table.empty_all();
                code(0)
            }
            0x2b => self.prepare_when(rest),
            0x2c => self.commit(rest),
            0x2d => (WORK, self.log.pop()),
            0x39 => {
                let slot = u16::from_le_bytes([rest[0], rest[1]]);
                let mut answer = [0; 12];
                answer[..2].copy_from_slice(&rest[..2]);
                answer[2..9].copy_from_slice(&packed(self.table.pin(slot).unwrap_or("")));
                (WORK, answer)
            }
            _ => code(0x37),
        };
        *self.done.entry(verb).or_default() += 1;
        done
    }

    fn status(&mut self, now: Timestamp, what: u8) -> Result12 {
        let mut answer = [0; 12];
        answer[0] = what;
        match what {
            0x02 => answer[4] = self.bolt(now),
            0x2e => answer[4] = self.door,
            0x2f => (answer[4], answer[5]) = (self.bolt(now), self.door),
            0x0f => answer[4..6].copy_from_slice(&self.millivolts.to_le_bytes()),
            _ => return code(0x3a),
        }
        (WORK, answer)
    }

    fn turn(&mut self, now: Timestamp, (on_the_way, at_the_end): (u8, u8)) -> Result12 {
        if self.faults.jam {
            (self.bolt, self.turning) = (0x07, None);
            self.log.bolt(self.seconds(now), 0x07);
            let (_, rest) = code(0x1e);
            return (TURN, rest);
        }
        self.bolt = on_the_way;
        self.turning = Some((now.saturating_add(TURN).unwrap_or(now), at_the_end));
        self.log.bolt(self.seconds(now), at_the_end);
        (TURN, [0; 12])
    }

    fn prepare(&mut self, rest: &[u8; 12]) -> Result12 {
        let Some(link) = &mut self.link else {
            return code(0x37);
        };
        let pin = digits(&rest[..7]).filter(|pin| (4..=6).contains(&pin.len()));
        link.when = None;
        link.pin = pin.filter(|_| rest[8] == 0);
        code(if link.pin.is_some() { 0 } else { 0x3a })
    }

    fn prepare_when(&mut self, rest: &[u8; 12]) -> Result12 {
        let Some(link) = &mut self.link else {
            return code(0x37);
        };
        if link.pin.is_none() {
            return code(0x37);
        }
        let when = When::read(rest);
        link.when = when.filter(|when| !self.faults.no_windows || *when == When::Always);
        code(if link.when.is_some() && rest[9] == 0 { 0 } else { 0x05 })
    }

    fn commit(&mut self, rest: &[u8; 12]) -> Result12 {
        let Some(link) = &mut self.link else {
            return code(0x37);
        };
        // What is held ready is spent, whatever comes of it.
        let (Some(pin), Some(when)) = (link.pin.take(), link.when.take()) else {
            return code(0x37);
        };
        let slot = u16::from_le_bytes([rest[7], rest[9]]);
        if slot == 0xffee || rest[8] != 0 || digits(&rest[..7]).as_ref() != Some(&pin) {
            return code(0x3a);
        }
        match self.table.slot_of(&pin) {
            Some(held) if held != slot => return code(0x06),
            _ if self.table.pin(slot).is_some() => return code(0x45),
            _ if self.faults.full || self.table.len() >= self.settings.slots => return code(0x07),
            _ => self.table.put(slot, pin, when),
        }
        code(0)
    }

    fn clear(&mut self, rest: &[u8; 12]) -> Result12 {
        let slot = u16::from_le_bytes([rest[7], rest[9]]);
        let Some(asked) = digits(&rest[..7]) else {
            return code(0x3a);
        };
        match self.table.pin(slot) {
            Some(pin) if asked.is_empty() || asked == pin => {
                self.table.empty(slot);
                code(0)
            }
            // So clients begin that put a PIN into a fresh slot.
            None if asked.is_empty() => code(0),
            _ => code(0x3f),
        }
    }
}

impl Peripheral for AugustLock {
    fn advertisement(&self) -> Advertisement {
        let serial: Vec<char> = self.settings.serial.chars().collect();
        let name = serial.iter().take(2).chain(serial.iter().skip(serial.len().saturating_sub(5)));
        Advertisement {
            name: name.collect(),
            services: vec![standard(0xfe24)],
            manufacturer_data: BTreeMap::from([(COMPANY, vec![u8::from(self.news)])]),
        }
    }

    fn services(&self) -> Vec<Service> {
        let one = |uuid, flag| Characteristic { uuid, flags: vec![flag] };
        vec![
            Service {
                uuid: standard(0xfe24),
                characteristics: vec![
                    one(COMMANDS, "write"),
                    one(RESULTS, "notify"),
                    one(SECURE_IN, "write"),
                    one(SECURE_OUT, "notify"),
                ],
            },
            Service {
                uuid: standard(0x180a),
                characteristics: [0x2a24, 0x2a25, 0x2a26, 0x2a29]
                    .map(|number| one(standard(number), "read"))
                    .to_vec(),
            },
        ]
    }

    fn connected(&mut self, now: Timestamp) {
        self.link = Some(Link {
            key: self.settings.key,
            nonce: self.settings.nonce,
            greeted: Greeted::Not,
            chains: None,
            pin: None,
            when: None,
            last: now,
            dead: false,
        });
        let next = u64::from_le_bytes(self.settings.nonce).wrapping_add(1);
        self.settings.nonce = next.to_le_bytes();
    }

    fn disconnected(&mut self, _now: Timestamp) {
        self.link = None;
    }

    fn write(&mut self, now: Timestamp, to: Uuid, value: &[u8]) -> Result<Vec<Act>, AttError> {
        let link = self.link.as_mut().ok_or(UNLIKELY)?;
        let hang_up = || vec![Act::HangUp { after: Duration::ZERO }];
        if link.dead {
            return Ok(hang_up());
        }
        let fault = self.faults.written();
        if fault == Written::CutBefore {
            link.dead = true;
            return Ok(hang_up());
        }
        let value: &[u8; WHOLE] = value.try_into().map_err(|_| INVALID_LENGTH)?;
        let mut acts = Vec::new();
        match to {
            SECURE_IN => self.heard_secure(now, value, &mut acts)?,
            COMMANDS => self.heard_command(now, value, &mut acts)?,
            _ => return Err(NOT_PERMITTED),
        }
        if fault == Written::CutAfter {
            if let Some(link) = &mut self.link {
                link.dead = true;
            }
            return Ok(hang_up());
        }
        Ok(acts)
    }

    fn read(&mut self, _now: Timestamp, from: Uuid) -> Result<Vec<u8>, AttError> {
        if from == MAKER {
            // Some controllers cannot read what comes then, and the link dies of it.
            if let Some(link) = &mut self.link {
                link.dead = true;
            }
            return Err(UNLIKELY);
        }
        let texts = [(0x2a24, "ASL-03"), (0x2a25, self.settings.serial.as_str()), (0x2a26, "2.3.0")];
        let text = texts.iter().find(|(number, _)| standard(*number) == from);
        text.map(|(_, text)| text.as_bytes().to_vec()).ok_or(NOT_PERMITTED)
    }

    fn control(&mut self, now: Timestamp, command: &str) -> Result<String, String> {
        self.command(now, command).map(|answer| answer.to_string())
    }
}
