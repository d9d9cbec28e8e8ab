//! The chip and the cards in its field.

/// A card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// ATQA.
    pub sens_res: [u8; 2],
    /// SAK.
    pub sel_res: u8,
    /// Its number.
    pub uid: Vec<u8>,
    /// What a card of ISO 14443-4 says of itself, without the length.
    pub ats: Vec<u8>,
}

impl Card {
    /// A card of this kind. None where there is no such kind, or no number of such a length.
    pub fn new(kind: &str, uid: Vec<u8>) -> Option<Self> {
        let (sens_res, sel_res, ats): (_, _, &[u8]) = match kind {
            "classic" => ([0x00, 0x04], 0x08, &[]),
            "classic-4k" => ([0x00, 0x02], 0x18, &[]),
            "ultralight" => ([0x00, 0x44], 0x00, &[]),
            "desfire" => ([0x03, 0x44], 0x20, &[0x75, 0x77, 0x81, 0x02, 0x80]),
            _ => return None,
        };
        matches!(uid.len(), 4 | 7 | 10).then(|| Self { sens_res, sel_res, uid, ats: ats.to_vec() })
    }
}

/// What the chip says to a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Nothing at all: it sleeps, or the frame was broken.
    Nothing,
    /// That it heard, and this.
    Heard(Vec<u8>),
    /// That it heard; the answer comes when a card does.
    WhenACardComes,
}

/// The chip.
#[derive(Debug)]
pub(super) struct Chip {
    awake: bool,
    field: bool,
    /// `FF`: without end.
    calls: u8,
    selects_iso: bool,
    /// Cards that were selected and not let go.
    selected: Vec<Vec<u8>>,
    pub cards: Vec<Card>,
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            awake: false,
            field: true,
            calls: 0xFF,
            selects_iso: true,
            selected: Vec::new(),
            cards: Vec::new(),
        }
    }
}

impl Chip {
    pub(super) fn wake(&mut self) {
        self.awake = true;
    }

    pub(super) fn lose_power(&mut self) {
        let cards = std::mem::take(&mut self.cards);
        *self = Self { cards, ..Self::default() };
    }

    /// What it says to a command: direction, code and data, as they stood in a frame whose sums are right.
    pub(super) fn hear(&mut self, body: &[u8]) -> Reply {
        if !self.awake {
            return Reply::Nothing;
        }
        let said = |data: &[u8]| {
            let code = body.get(1).map_or(0, |code| code.wrapping_add(1));
            Reply::Heard([&[0xD5, code], data].concat())
        };
        match *body {
            [0xD4, 0x00, 0x00, ref text @ ..] => said(&[&[0x00], text].concat()),
            [0xD4, 0x02] => said(&[0x32, 1, 6, 7]),
            [0xD4, 0x06, ref registers @ ..] => said(&vec![0; registers.len() / 2]),
            [0xD4, 0x08, ..] => said(&[]),
            [0xD4, 0x12, flags] => {
                self.selects_iso = flags & 0x10 != 0;
                said(&[])
            }
            [0xD4, 0x14, _mode, ..] => said(&[]),
            [0xD4, 0x16, _wake_by, ..] => {
                self.awake = false;
                said(&[0])
            }
            [0xD4, 0x32, 0x01, field] => {
                self.field = field & 1 != 0;
                if !self.field {
                    self.selected.clear();
                }
                said(&[])
            }
            [0xD4, 0x32, 0x05, _, _, calls] => {
                self.calls = calls;
                said(&[])
            }
            [0xD4, 0x32, ..] => said(&[]),
            // A card that is not listed: the wrong context.
            [0xD4, 0x40, ..] if self.selected.is_empty() => said(&[0x27]),
            // The cards here answer nothing.
            [0xD4, 0x40 | 0x42, ..] => said(&[0x01]),
            [0xD4, 0x44 | 0x52, _] => {
                self.selected.clear();
                said(&[0])
            }
            [0xD4, 0x4A, most @ 1..=2, 0x00, ..] => self.list(most),
            // Nothing else is ever called by another radio.
            [0xD4, 0x4A, _, _, ..] => said(&[0]),
            _ => Reply::Heard(vec![0x7F]),
        }
    }

    /// Calls cards.
    pub(super) fn list(&mut self, most: u8) -> Reply {
        self.field = true;
        let new: Vec<_> = self.cards.iter().filter(|card| !self.selected.contains(&card.uid)).collect();
        if new.is_empty() && self.calls == 0xFF {
            return Reply::WhenACardComes;
        }
        let mut body = vec![0xD5, 0x4B, 0];
        for (number, card) in (1..=most).zip(&new) {
            body[2] = number;
            body.push(number);
            body.extend(card.sens_res);
            body.push(card.sel_res);
            body.push(u8::try_from(card.uid.len()).unwrap_or_default());
            body.extend(&card.uid);
            if !card.ats.is_empty() && self.selects_iso {
                body.push(u8::try_from(card.ats.len() + 1).unwrap_or_default());
                body.extend(&card.ats);
            }
        }
        let named: Vec<_> = new.iter().take(usize::from(most)).map(|card| card.uid.clone()).collect();
        self.selected.extend(named);
        Reply::Heard(body)
    }
}
