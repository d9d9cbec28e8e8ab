//! What one door's access does to a board's memory: the row of a card, and the time profiles that bound it. Pure.
//!
//! A board has one row for each card: a first and a last day, and for each of four doors no, always, or by a time profile.
//! Hours, and the days of a door that differ from those of the row, are a chain of profiles:
//! ```text
//! 21 November 15:00 to 24 November 11:00, of a row from the 20th to the 30th
//!   40: the 21st, 15:00 to 23:59, and also 41
//!   41: the 22nd and 23rd, all day, and also 42
//!   42: the 24th, 00:00 to 11:00
//! ```
//! The pool of profile numbers is kept by the board itself: a number is free that no card of its list leads to. Chains that
//! say the same are shared. Where the pool is spent a door is bounded by days alone, and by whoever removes it in time.
//!
//! The last minute of a segment counts whole, as the reference's peers have it; so a window that ends at 11:00 opens until
//! the minute of 11:00 is over, if nobody removes it before.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use jiff::{
    ToSpan,
    civil::{Date, DateTime, Time, date, time},
};

use super::values::{Card, CardNumber, Pin, TimeProfile};

/// The last day of what has no end.
const NO_END: Date = date(2099, 12, 31);
/// The last minute of a day.
const LAST_MINUTE: Time = time(23, 59, 0, 0);

/// When a door is open to a card, by the board's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// From this minute on.
    pub from: DateTime,
    /// Up to this minute; none is for ever.
    pub until: Option<DateTime>,
}

/// What is to be written for a door to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Profiles that have to be there before, the first of each chain before those it leads to.
    pub profiles: Vec<TimeProfile>,
    /// The row.
    pub card: Card,
    /// The pool was spent: the board keeps days, where it should keep hours or other days.
    pub is_coarse: bool,
}

/// What is to be written for a door to open no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// Nothing: it does not open.
    Nothing,
    /// The row without that door.
    Put(Card),
    /// No row: it opened nothing else.
    Delete(CardNumber),
}

/// What a board holds, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Every card.
    pub cards: BTreeMap<CardNumber, Card>,
    /// The profiles of the pool that are defined.
    pub profiles: BTreeMap<u8, TimeProfile>,
}

impl Hours {
    fn days(self) -> (Date, Date) {
        let last = match self.until {
            None => NO_END,
            // Midnight belongs to the day before.
            Some(until) if until.time() == Time::midnight() => until.date().saturating_sub(1.day()),
            Some(until) => until.date(),
        };
        (self.from.date(), last.max(self.from.date()))
    }

    fn is_of_whole_days(self) -> bool {
        let is_midnight = |at: DateTime| at.time() == Time::midnight();
        is_midnight(self.from) && self.until.is_none_or(is_midnight)
    }

    /// Days with the hours of each, in their order.
    fn parts(self) -> Vec<(Date, Date, Time, Time)> {
        let (mut first, mut last) = self.days();
        let from = self.from.time();
        let until = match self.until {
            Some(until) if until.time() != Time::midnight() => until.time(),
            _ => LAST_MINUTE,
        };
        if first == last {
            return vec![(first, last, from, until)];
        }
        let mut parts = Vec::new();
        if from != Time::midnight() {
            parts.push((first, first, from, LAST_MINUTE));
            first = first.saturating_add(1.day());
        }
        let end = (until != LAST_MINUTE).then_some((last, last, Time::midnight(), until));
        if end.is_some() {
            last = last.saturating_sub(1.day());
        }
        if first <= last {
            parts.push((first, last, Time::midnight(), LAST_MINUTE));
        }
        parts.extend(end);
        parts
    }
}

/// Whether a door's byte opens it.
fn opens(byte: u8) -> bool {
    !matches!(byte, 0 | 255)
}

impl Memory {
    /// Whether a card opens a door at any time. Doors count from 1.
    #[must_use]
    pub fn opens(&self, card: CardNumber, door: u8) -> bool {
        self.cards.get(&card).is_some_and(|card| opens(card.doors[place(door)]))
    }

    /// What lets a card open a door in these hours, and every other door as before.
    #[must_use]
    pub fn put(&self, number: CardNumber, door: u8, hours: Hours, pool: RangeInclusive<u8>) -> Plan {
        let (first, last) = hours.days();
        let row = self.cards.get(&number);
        let mut doors = row.map_or([0; 4], |row| row.doors);
        doors[place(door)] = 0;
        let others = row.filter(|_| doors.into_iter().any(opens));
        let (from, to) = others.map_or((first, last), |row| (row.from.min(first), row.to.max(last)));
        let mut draft =
            Draft { memory: self, pool, used: self.used(), profiles: Vec::new(), is_coarse: false };
        if let Some(row) = others.filter(|row| (row.from, row.to) != (from, to)) {
            // What was bounded by the row's days alone keeps them.
            let days = Hours { from: row.from.into(), until: Some(row.to.saturating_add(1.day()).into()) };
            for byte in doors.iter_mut().filter(|byte| **byte == 1) {
                *byte = draft.chain(days);
            }
        }
        let is_bounded = hours.is_of_whole_days() && (first, last) == (from, to);
        doors[place(door)] = if is_bounded { 1 } else { draft.chain(hours) };
        let pin = row.map_or(Pin::NONE, |row| row.pin.clone());
        let first_card = row.map_or(0, |row| row.first_card);
        let card = Card { number, from, to, doors, pin, first_card };
        Plan { profiles: draft.profiles, card, is_coarse: draft.is_coarse }
    }

    /// What lets a card open a door no more, and every other door as before.
    #[must_use]
    pub fn remove(&self, number: CardNumber, door: u8) -> Removal {
        let Some(row) = self.cards.get(&number).filter(|row| opens(row.doors[place(door)])) else {
            return Removal::Nothing;
        };
        let mut row = row.clone();
        row.doors[place(door)] = 0;
        match row.doors.into_iter().any(opens) {
            true => Removal::Put(row),
            false => Removal::Delete(number),
        }
    }

    /// The chain behind a profile, that one first; a circle is followed once.
    #[must_use]
    pub fn chain(&self, first: u8) -> Vec<&TimeProfile> {
        let (mut chain, mut seen, mut id) = (Vec::new(), BTreeSet::new(), first);
        while let Some(profile) = self.profiles.get(&id).filter(|_| seen.insert(id)) {
            chain.push(profile);
            id = profile.linked;
        }
        chain
    }

    /// The profiles that cards lead to.
    fn used(&self) -> BTreeSet<u8> {
        let bytes = self.cards.values().flat_map(|card| card.doors);
        bytes.flat_map(|byte| self.chain(byte).into_iter().map(|profile| profile.id).chain([byte])).collect()
    }
}

/// Doors count from 1, bytes from 0.
fn place(door: u8) -> usize {
    usize::from(door.clamp(1, 4) - 1)
}

/// A plan in the making.
struct Draft<'m> {
    memory: &'m Memory,
    pool: RangeInclusive<u8>,
    used: BTreeSet<u8>,
    profiles: Vec<TimeProfile>,
    is_coarse: bool,
}

impl Draft<'_> {
    /// The first profile of a chain for these hours; always, where the pool is spent.
    fn chain(&mut self, hours: Hours) -> u8 {
        let (used, mut linked, mut chain) = (self.used.clone(), 0, Vec::new());
        for (from, to, start, end) in hours.parts().into_iter().rev() {
            let none = (Time::midnight(), Time::midnight());
            let wanted = TimeProfile {
                id: 0,
                from,
                to,
                days: [true; 7],
                segments: [(start, end), none, none],
                linked,
            };
            let Some(id) = self.id_of(&wanted) else {
                self.used = used;
                self.is_coarse = true;
                return 1;
            };
            self.used.insert(id);
            chain.insert(0, TimeProfile { id, ..wanted });
            linked = id;
        }
        self.profiles.extend(chain);
        linked
    }

    /// The number of a profile that says this already, else one that is free.
    fn id_of(&self, wanted: &TimeProfile) -> Option<u8> {
        let is_same = |id: &u8, there: &TimeProfile| TimeProfile { id: *id, ..wanted.clone() } == *there;
        let planned = self.profiles.iter().map(|profile| (&profile.id, profile));
        let mut there = self.memory.profiles.iter().filter(|(id, _)| self.pool.contains(id)).chain(planned);
        let same = there.find(|(id, profile)| is_same(id, profile)).map(|(id, _)| *id);
        same.or_else(|| self.pool.clone().find(|id| !self.used.contains(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: RangeInclusive<u8> = 40..=49;

    fn number(number: u32) -> CardNumber {
        CardNumber::new(number)
    }

    fn hours(from: &str, until: &str) -> Hours {
        let at = |text: &str| text.parse::<DateTime>().unwrap();
        Hours { from: at(from), until: Some(at(until)) }
    }

    /// Carries a plan out, as a board does.
    fn carry_out(memory: &mut Memory, plan: &Plan) {
        for profile in &plan.profiles {
            assert!(POOL.contains(&profile.id));
            memory.profiles.insert(profile.id, profile.clone());
        }
        memory.cards.insert(plan.card.number, plan.card.clone());
    }

    /// Whether the board would open, by its own rules, written here once more.
    fn lets_in(memory: &Memory, card: u32, door: u8, at: &str) -> bool {
        let at: DateTime = at.parse().unwrap();
        let Some(row) = memory.cards.get(&number(card)) else { return false };
        let is_day = row.from <= at.date() && at.date() <= row.to;
        let byte = row.doors[usize::from(door) - 1];
        is_day
            && (byte == 1
                || memory.chain(byte).into_iter().any(|profile| {
                    let (start, end) = profile.segments[0];
                    let minute = time(at.hour(), at.minute(), 0, 0);
                    profile.from <= at.date() && at.date() <= profile.to && start <= minute && minute <= end
                }))
    }

    #[test]
    fn a_stay_is_a_chain_of_three_days_two_or_one() {
        let check = |from: &str, until: &str, expected: &[(&str, &str, &str, &str)]| {
            let plan = Memory::default().put(number(7), 2, hours(from, until), POOL);
            let said = |profile: &TimeProfile| {
                let (start, end) = profile.segments[0];
                [profile.from.to_string(), profile.to.to_string(), start.to_string(), end.to_string()]
            };
            let parts: Vec<_> = plan.profiles.iter().map(said).collect();
            let wanted: Vec<_> = expected
                .iter()
                .map(|(a, b, c, d)| [(*a).to_owned(), (*b).to_owned(), format!("{c}:00"), format!("{d}:00")])
                .collect();
            assert_eq!(parts, wanted, "{from} {until}");
            let links: Vec<_> = plan.profiles.iter().map(|profile| profile.linked).collect();
            let next: Vec<_> = plan.profiles.iter().skip(1).map(|profile| profile.id).chain([0]).collect();
            if !parts.is_empty() {
                assert_eq!(links, next);
            }
            plan.card
        };
        let card = check(
            "2026-11-21T15:00",
            "2026-11-24T11:00",
            &[
                ("2026-11-21", "2026-11-21", "15:00", "23:59"),
                ("2026-11-22", "2026-11-23", "00:00", "23:59"),
                ("2026-11-24", "2026-11-24", "00:00", "11:00"),
            ],
        );
        assert_eq!((card.from, card.to), (date(2026, 11, 21), date(2026, 11, 24)));
        assert_eq!(card.doors[0], 0);
        check(
            "2026-11-21T15:00",
            "2026-11-22T11:00",
            &[("2026-11-21", "2026-11-21", "15:00", "23:59"), ("2026-11-22", "2026-11-22", "00:00", "11:00")],
        );
        check("2026-11-21T15:00", "2026-11-21T16:30", &[("2026-11-21", "2026-11-21", "15:00", "16:30")]);
        check(
            "2026-11-21T00:00",
            "2026-11-22T11:00",
            &[("2026-11-21", "2026-11-21", "00:00", "23:59"), ("2026-11-22", "2026-11-22", "00:00", "11:00")],
        );
        let card = check(
            "2026-11-21T15:00",
            "2026-11-23T00:00",
            &[("2026-11-21", "2026-11-21", "15:00", "23:59"), ("2026-11-22", "2026-11-22", "00:00", "23:59")],
        );
        assert_eq!(card.to, date(2026, 11, 22));
        let card = check("2026-11-21T00:00", "2026-11-23T00:00", &[]);
        assert_eq!(card.doors, [0, 1, 0, 0]);
    }

    #[test]
    fn doors_of_one_card_keep_each_its_own_days() {
        let mut memory = Memory::default();
        let plan = memory.put(number(7), 1, hours("2026-11-21T00:00", "2026-11-23T00:00"), POOL);
        carry_out(&mut memory, &plan);
        let plan = memory.put(number(7), 3, hours("2026-11-22T15:00", "2026-11-28T11:00"), POOL);
        carry_out(&mut memory, &plan);
        assert_eq!((plan.card.from, plan.card.to), (date(2026, 11, 21), date(2026, 11, 28)));
        assert!(lets_in(&memory, 7, 1, "2026-11-22T23:59") && !lets_in(&memory, 7, 1, "2026-11-23T00:00"));
        assert!(!lets_in(&memory, 7, 3, "2026-11-22T14:59") && lets_in(&memory, 7, 3, "2026-11-22T15:00"));
        assert!(lets_in(&memory, 7, 3, "2026-11-28T11:00") && !lets_in(&memory, 7, 3, "2026-11-28T11:01"));
        // One door gone, the other as before.
        let Removal::Put(row) = memory.remove(number(7), 3) else { panic!("door 1 is left") };
        memory.cards.insert(number(7), row);
        assert!(lets_in(&memory, 7, 1, "2026-11-22T12:00") && !lets_in(&memory, 7, 1, "2026-11-24T12:00"));
        assert_eq!(memory.remove(number(7), 3), Removal::Nothing);
        assert_eq!(memory.remove(number(7), 1), Removal::Delete(number(7)));
        assert_eq!(memory.remove(number(8), 1), Removal::Nothing);
    }

    #[test]
    fn chains_that_say_the_same_are_shared_and_those_of_nobody_are_taken_again() {
        let mut memory = Memory::default();
        let stay = hours("2026-11-21T15:00", "2026-11-24T11:00");
        for card in 1..=20 {
            let plan = memory.put(number(card), 1, stay, POOL);
            assert!(!plan.is_coarse);
            carry_out(&mut memory, &plan);
        }
        assert_eq!(memory.profiles.len(), 3);
        // Three more stays fill a pool of ten but one, and a fourth finds none.
        let stays = ["2026-12-01", "2026-12-05"];
        for (card, day) in (21..).zip(stays) {
            let first: Date = day.parse().unwrap();
            let stay = Hours {
                from: first.at(15, 0, 0, 0),
                until: Some(first.saturating_add(3.days()).at(10, 0, 0, 0)),
            };
            let plan = memory.put(number(card), 1, stay, POOL);
            assert!(!plan.is_coarse);
            carry_out(&mut memory, &plan);
        }
        assert_eq!(memory.profiles.len(), 9);
        let late = hours("2026-12-10T15:00", "2026-12-13T11:00");
        let plan = memory.put(number(30), 1, late, POOL);
        assert!(plan.is_coarse && plan.profiles.is_empty(), "{plan:?}");
        assert_eq!((plan.card.doors, plan.card.to), ([1, 0, 0, 0], date(2026, 12, 13)));
        // A guest leaves: the numbers are free, without anybody having said so.
        memory.cards.remove(&number(21));
        let plan = memory.put(number(30), 1, late, POOL);
        assert!(!plan.is_coarse);
        carry_out(&mut memory, &plan);
        assert!(lets_in(&memory, 30, 1, "2026-12-10T15:00") && !lets_in(&memory, 30, 1, "2026-12-13T11:01"));
        assert!(lets_in(&memory, 5, 1, "2026-11-24T11:00") && !lets_in(&memory, 5, 1, "2026-11-21T14:59"));
        assert!(lets_in(&memory, 22, 1, "2026-12-05T15:00") && !lets_in(&memory, 22, 1, "2026-12-08T10:01"));
    }

    #[test]
    fn numbers_outside_the_pool_are_somebody_elses() {
        let none = (Time::midnight(), Time::midnight());
        let mut memory = Memory::default();
        let foreign = TimeProfile {
            id: 2,
            from: date(2026, 11, 21),
            to: date(2026, 11, 21),
            days: [true; 7],
            segments: [(time(15, 0, 0, 0), time(16, 30, 0, 0)), none, none],
            linked: 0,
        };
        memory.profiles.insert(2, foreign);
        let plan = memory.put(number(7), 1, hours("2026-11-21T15:00", "2026-11-21T16:30"), POOL);
        assert_eq!(plan.card.doors[0], 40);
    }

    #[test]
    fn links_in_a_circle_end() {
        let mut memory = Memory::default();
        let plan = memory.put(number(7), 1, hours("2026-11-21T15:00", "2026-11-24T11:00"), POOL);
        carry_out(&mut memory, &plan);
        let first = plan.card.doors[0];
        for profile in memory.profiles.values_mut().filter(|profile| profile.linked == 0) {
            profile.linked = first;
        }
        assert_eq!(memory.chain(first).len(), 3);
        let plan = memory.put(number(8), 1, hours("2026-11-25T15:00", "2026-11-25T16:00"), POOL);
        assert!(!plan.is_coarse);
    }
}
