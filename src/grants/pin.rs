//! PINs: which ones a lock takes, which ones nobody should be given, and how one is drawn.

use std::collections::BTreeSet;

use jiff::civil::Date;

use crate::{
    model::{PinConstraint, PinRules, Private},
    seams::Random,
};

/// How often a length is tried before another one is.
const DRAWS: u32 = 400;
/// As many digits as people still type without a mistake; a million PINs.
const USUAL_LENGTH: u8 = 6;

/// Stands for a PIN where only equality counts. Equal PINs have equal marks; a mark tells nothing of its PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinMark(pub [u8; 32]);

/// Whether a lock takes a PIN.
#[must_use]
pub fn suits(rules: &PinRules, pin: &str) -> bool {
    let digits = digits(pin);
    digits.len() == pin.len()
        && u8::try_from(pin.len()).is_ok_and(|length| rules.lengths.contains(&length))
        && rules.constraints.iter().all(|constraint| obeys(*constraint, &digits))
}

fn obeys(constraint: PinConstraint, pin: &[u8]) -> bool {
    let has = |any: &[u8]| pin.iter().any(|digit| any.contains(digit));
    match constraint {
        PinConstraint::NoZeros => !has(&[0]),
        PinConstraint::CannotStartWith12 => !pin.starts_with(&[1, 2]),
        PinConstraint::NoTripleConsecutiveInts => longest_run(pin) <= 3,
        PinConstraint::NoAscendingOrDescendingSequence => !is_sequence(pin),
        PinConstraint::AtLeastThreeUniqueDigits => different(pin) >= 3,
        PinConstraint::NoAllSameDigits => different(pin) > 1,
        PinConstraint::UniqueFirstFourDigits => pin.get(..4).is_none_or(|first| different(first) == 4),
        PinConstraint::CannotContain089 => !has(&[0, 8, 9]),
        PinConstraint::CannotContain0789 => !has(&[0, 7, 8, 9]),
        PinConstraint::CannotSpecifyPinCode => false,
        // The lock will say.
        PinConstraint::ComputedByMaker | PinConstraint::Other => true,
    }
}

/// Whether a lock can be given a PIN at all: it does not make its own, and takes a length that people type.
#[must_use]
pub fn can_be_given(rules: &PinRules) -> bool {
    !rules.constraints.contains(&PinConstraint::CannotSpecifyPinCode) && !lengths(&[rules]).is_empty()
}

/// Whether somebody who knows nothing would try this PIN early: runs, repetitions, few digits, dates, years.
#[must_use]
pub fn is_guessable(pin: &str) -> bool {
    let digits = digits(pin);
    longest_run(&digits) >= 3
        || different(&digits) < 3
        || is_repetition(&digits)
        || ["2580", "0852"].contains(&pin)
        || is_date(pin)
}

/// Draws a PIN that suits all these locks, is not taken, and is not guessable; `None` where there is
/// none, or one of the locks takes only what its maker computed.
pub fn draw(rules: &[&PinRules], is_taken: impl Fn(&str) -> bool, random: &Random) -> Option<Private> {
    if rules.iter().any(|rules| rules.are_computed()) {
        return None;
    }
    for length in lengths(rules) {
        for _ in 0..DRAWS {
            let pin: String = (0..length).map(|_| char::from(b'0' + digit(random))).collect();
            if rules.iter().all(|rules| suits(rules, &pin)) && !is_guessable(&pin) && !is_taken(&pin) {
                return Some(Private::new(pin));
            }
        }
    }
    None
}

fn digit(random: &Random) -> u8 {
    u8::try_from(random.below(10)).unwrap_or(0)
}

/// The lengths that all these locks take, the best one first.
#[must_use]
pub fn lengths(rules: &[&PinRules]) -> Vec<u8> {
    let mut common: BTreeSet<u8> = (4..=9).collect();
    for rules in rules {
        common.retain(|length| rules.lengths.contains(length));
    }
    let mut lengths: Vec<_> = common.into_iter().collect();
    lengths.sort_by_key(|length| (*length > USUAL_LENGTH, length.abs_diff(USUAL_LENGTH)));
    lengths
}

fn digits(pin: &str) -> Vec<u8> {
    pin.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect()
}

fn different(pin: &[u8]) -> usize {
    pin.iter().collect::<BTreeSet<_>>().len()
}

/// The longest stretch of digits that are equal, or that count up or down by one.
fn longest_run(pin: &[u8]) -> usize {
    let step = |pair: &[u8]| i16::from(pair[1]) - i16::from(pair[0]);
    let steps: Vec<_> = pin.windows(2).map(step).collect();
    let mut longest = usize::from(!pin.is_empty());
    let (mut run, mut last) = (1, None);
    for step in steps {
        run = match step {
            -1..=1 if last == Some(step) => run + 1,
            -1..=1 => 2,
            _ => 1,
        };
        last = Some(step);
        longest = longest.max(run);
    }
    longest
}

fn is_sequence(pin: &[u8]) -> bool {
    let all = |step: i16| pin.windows(2).all(|pair| i16::from(pair[1]) - i16::from(pair[0]) == step);
    pin.len() > 1 && (all(1) || all(-1))
}

/// One part again and again: 4747, 123123.
fn is_repetition(pin: &[u8]) -> bool {
    (1..=pin.len() / 2)
        .filter(|part| pin.len().is_multiple_of(*part))
        .any(|part| pin.chunks(part).all(|chunk| *chunk == pin[..part]))
}

/// A day or a year as people write them.
fn is_date(pin: &str) -> bool {
    let number = |from: usize, to: usize| pin[from..to].parse::<i16>().unwrap_or(0);
    let is_day = |year: i16, month: i16, day: i16| {
        let (month, day) = (i8::try_from(month).unwrap_or(0), i8::try_from(day).unwrap_or(0));
        Date::new(year, month, day).is_ok()
    };
    let is_year = |year: i16| (1900..2100).contains(&year);
    match pin.len() {
        // 2000 was a leap year.
        4 => {
            is_day(2000, number(0, 2), number(2, 4))
                || is_day(2000, number(2, 4), number(0, 2))
                || is_year(number(0, 4))
        }
        6 => {
            let in_either =
                |of: i16, month, day| is_day(1900 + of, month, day) || is_day(2000 + of, month, day);
            let (a, b, c) = (number(0, 2), number(2, 4), number(4, 6));
            in_either(c, b, a) || in_either(c, a, b) || in_either(a, b, c)
        }
        8 => {
            let (first, last) = (number(0, 4), number(4, 8));
            let (a, b, c, d) = (number(0, 2), number(2, 4), number(4, 6), number(6, 8));
            (is_year(first) && is_day(first, c, d))
                || (is_year(last) && (is_day(last, a, b) || is_day(last, b, a)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lengths: &[u8], constraints: &[PinConstraint]) -> PinRules {
        PinRules { lengths: lengths.to_vec(), constraints: constraints.to_vec() }
    }

    #[test]
    fn the_worked_set_of_constraints_is_judged_as_it_is_written() {
        let rules = rules(&[6], &[PinConstraint::NoZeros, PinConstraint::CannotStartWith12]);
        for refused in ["123456", "120000", "105999", "34567", "3456711", "34567a", ""] {
            assert!(!suits(&rules, refused), "{refused}");
        }
        assert!(suits(&rules, "345671"));
    }

    #[test]
    fn each_constraint_refuses_what_it_says_and_nothing_else() {
        use PinConstraint::*;
        for (constraint, refused, taken) in [
            (NoZeros, "1023", "1123"),
            (CannotStartWith12, "1234", "2123"),
            (NoTripleConsecutiveInts, "91111", "91113"),
            (NoTripleConsecutiveInts, "91234", "91239"),
            (NoTripleConsecutiveInts, "94321", "94329"),
            (NoAscendingOrDescendingSequence, "1234", "1235"),
            (NoAscendingOrDescendingSequence, "9876", "9875"),
            (AtLeastThreeUniqueDigits, "1122", "1123"),
            (NoAllSameDigits, "5555", "5556"),
            (UniqueFirstFourDigits, "12315", "12341"),
            (CannotContain089, "1283", "1273"),
            (CannotContain0789, "1273", "1263"),
            (CannotSpecifyPinCode, "4711", ""),
        ] {
            let rules = rules(&[4, 5], &[constraint]);
            assert!(!suits(&rules, refused), "{constraint:?} {refused}");
            assert!(taken.is_empty() || suits(&rules, taken), "{constraint:?} {taken}");
        }
    }

    #[test]
    fn what_people_try_first_is_guessable() {
        for pin in [
            "1234", "4321", "7890", "1111", "1212", "1122", "9994", "4567", "2580", "3112", "1231", "1987",
            "2026", "0229", "123123", "241287", "871224", "12241987", "24121987", "19871224", "47474747",
        ] {
            assert!(is_guessable(pin), "{pin}");
        }
        for pin in ["4829", "7305", "83527", "749925", "4829173", "48291735"] {
            assert!(!is_guessable(pin), "{pin}");
        }
    }

    #[test]
    fn a_drawn_pin_suits_every_lock_is_free_and_has_the_best_common_length() {
        let random = Random::seeded(3);
        let one = rules(&[4, 5, 6, 7], &[PinConstraint::CannotContain089]);
        let other = rules(&[5, 6, 8], &[PinConstraint::UniqueFirstFourDigits]);
        let mut seen = BTreeSet::new();
        for _ in 0..300 {
            let pin = draw(&[&one, &other], |pin| seen.contains(pin), &random).unwrap();
            let pin = pin.expose();
            assert!(pin.len() == 6 && suits(&one, pin) && suits(&other, pin) && !is_guessable(pin), "{pin}");
            assert!(seen.insert(pin.to_owned()));
        }
        assert_eq!(lengths(&[&one, &other]), [6, 5]);
        assert_eq!(lengths(&[&rules(&[4, 8, 9], &[])]), [4, 8, 9]);
    }

    #[test]
    fn where_no_pin_is_left_none_is_drawn() {
        let random = Random::seeded(3);
        let lock = rules(&[4], &[]);
        assert_eq!(draw(&[&lock], |_| true, &random), None);
        assert_eq!(draw(&[&lock, &rules(&[5], &[])], |_| false, &random), None);
        // Another length is found when the best one is used up.
        let pin = draw(&[&rules(&[5, 6], &[])], |pin| pin.len() == 6, &random).unwrap();
        assert_eq!(pin.expose().len(), 5);
    }
}
