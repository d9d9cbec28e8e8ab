//! What is typed or laid on a reader, as the number that a board knows it by. Pure.

use super::values::CardNumber;
use crate::{
    config::{BoardDoor, CardNumbers},
    model::{Code, Refusal, SlotContent},
};

/// A reader of the older kind tells a facility and a number, which a board shows as one: so many times the first.
const FACILITY: u32 = 100_000;

/// The number for a content at a door.
///
/// # Errors
/// When the door's reader cannot say it, or no board may be told it.
pub(super) fn of(
    content: &SlotContent,
    door: &BoardDoor,
    numbers: CardNumbers,
) -> Result<CardNumber, Refusal> {
    let number = match content {
        SlotContent::Pin(pin) => typed(pin.expose(), door)?,
        SlotContent::CardNumber(card) => laid_on(card.expose(), numbers)?,
    };
    let number = CardNumber::new(number);
    match number.is_usable() {
        true => Ok(number),
        false => Err(unsupported("`content`: this number means something else to a board".into())),
    }
}

/// A PIN is typed in place of a card.
fn typed(pin: &str, door: &BoardDoor) -> Result<u32, Refusal> {
    if !door.keypad {
        return Err(unsupported(format!(
            "`pin`: door {} has no keys; say `keypad = true` of it if numbers can be typed there",
            door.name
        )));
    }
    let fits = door.pin_lengths.iter().any(|length| usize::from(*length) == pin.len());
    let number = pin.parse().ok().filter(|_| fits && !pin.starts_with('0') && pin.len() <= 8);
    number.filter(|_| pin.bytes().all(|digit| digit.is_ascii_digit())).ok_or_else(|| {
        let lengths: Vec<_> = door.pin_lengths.iter().map(ToString::to_string).collect();
        unsupported(format!("`pin`: this door takes {} digits, the first not 0", lengths.join(", ")))
    })
}

/// A chip's number, in hexadecimal digits, as a reader tells it.
fn laid_on(digits: &str, numbers: CardNumbers) -> Result<u32, Refusal> {
    let wrong =
        || unsupported("`card_number`: 4 to 10 bytes of a chip's number, in hexadecimal digits".into());
    if !digits.is_ascii() || !(8..=20).contains(&digits.len()) || !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong());
    for at in 4..digits.len() / 2 {
        byte(at)?;
    }
    let four = [byte(0)?, byte(1)?, byte(2)?, byte(3)?];
    let three = |[facility, high, low]: [u8; 3]| {
        u32::from(facility) * FACILITY + u32::from(u16::from_be_bytes([high, low]))
    };
    Ok(match numbers {
        CardNumbers::Wiegand34 => u32::from_be_bytes(four),
        CardNumbers::Wiegand34Reversed => u32::from_le_bytes(four),
        CardNumbers::Wiegand26 => three([four[0], four[1], four[2]]),
        CardNumbers::Wiegand26Reversed => three([four[2], four[1], four[0]]),
    })
}

fn unsupported(message: String) -> Refusal {
    Refusal::new(Code::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceName, Private};

    fn door(keypad: bool) -> BoardDoor {
        let name = DeviceName::new("front").unwrap();
        BoardDoor { name, display_name: None, door: 1, keypad, pin_lengths: vec![6, 8] }
    }

    #[test]
    fn a_chips_number_is_what_the_reader_makes_of_it() {
        let check = |digits: &str, numbers, expected: Option<u32>| {
            let card = SlotContent::CardNumber(Private::new(digits));
            let number = of(&card, &door(false), numbers).ok().map(CardNumber::expose);
            assert_eq!(number, expected, "{digits} {numbers:?}");
        };
        check("04A1B2C3", CardNumbers::Wiegand34, Some(0x04A1_B2C3));
        check("04a1b2c3", CardNumbers::Wiegand34Reversed, Some(0xC3B2_A104));
        check("04A1B2C3D4E5F6", CardNumbers::Wiegand34, Some(0x04A1_B2C3));
        // Facility 100, number 58400: 10058400 as the board shows it.
        check("64E42000", CardNumbers::Wiegand26, Some(10_058_400));
        check("20E46400", CardNumbers::Wiegand26Reversed, Some(10_058_400));
        for wrong in
            ["", "04A1B2", "04A1B2C", "04A1B2CG", "04A1B2C3D", "04A1B2C3ZZ", "FFFFFFFF", "00000000", "äöüä"]
        {
            check(wrong, CardNumbers::Wiegand34, None);
        }
    }

    #[test]
    fn a_pin_is_a_number_where_the_reader_has_keys() {
        let check = |pin: &str, keypad, expected: Option<u32>| {
            let pin = SlotContent::Pin(Private::new(pin));
            let number = of(&pin, &door(keypad), CardNumbers::Wiegand34).ok().map(CardNumber::expose);
            assert_eq!(number, expected);
        };
        check("471108", true, Some(471_108));
        check("47110815", true, Some(47_110_815));
        for wrong in ["071108", "4711081", "47110a", "+47110", ""] {
            check(wrong, true, None);
        }
        check("471108", false, None);
    }
}
