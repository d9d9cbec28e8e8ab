//! What is asked of a server, and the items that say it.
//!
//! Items are `XXvalue`, two letters and the value. Their order is the one that a PMS which works with these servers uses;
//! nobody publishes whether another one would do.

use jiff::civil::DateTime;

use super::codec::{Framing, encode};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a line has one of them at a time")]
pub enum Command {
    /// `CCA`: make one guest card.
    MakeCard(MakeCard),
    /// `CCB`: read the card on an encoder.
    ReadCard {
        /// The encoder's PMS address.
        encoder: String,
    },
}

/// One guest card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeCard {
    /// Whether it joins the stay in the room (`JR1`); otherwise it begins one, and kills the room's older cards once it is
    /// used.
    pub joins: bool,
    /// The encoder's PMS address.
    pub encoder: String,
    /// The room, as the server names it.
    pub room: String,
    /// From when it opens, in the property's local time; none is "at once".
    pub start: Option<DateTime>,
    /// Until when, in the property's local time.
    pub end: DateTime,
    /// The numbers of its common rooms.
    pub common: Vec<u16>,
    /// The user group, where the site uses one.
    pub user_group: Option<String>,
    /// Who makes it, for the server's own lists.
    pub operator: Option<String>,
    /// Whose it is, likewise.
    pub guest: Option<Guest>,
    /// The card type, where the site uses one.
    pub card_type: Option<u16>,
    /// Whether the chip's serial number is wanted.
    pub serial: bool,
}

/// Whose card it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The PMS's own name for the guest or the stay.
    pub id: String,
    /// First name.
    pub first_name: String,
    /// Family name.
    pub surname: String,
}

impl Command {
    /// The name that begins it, and its answer.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::MakeCard(_) => "CCA",
            Self::ReadCard { .. } => "CCB",
        }
    }

    /// The PMS address of the encoder that it is for.
    #[must_use]
    pub fn encoder(&self) -> &str {
        match self {
            Self::MakeCard(card) => &card.encoder,
            Self::ReadCard { encoder } => encoder,
        }
    }

    /// Whether it changes anything, so that it must not be done twice.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Self::MakeCard(_) => true,
            Self::ReadCard { .. } => false,
        }
    }

    /// Its items.
    #[must_use]
    pub fn items(&self) -> Vec<String> {
        match self {
            Self::MakeCard(card) => card.items(),
            Self::ReadCard { encoder } => {
                ["CCB".into(), "AM1".into(), format!("EA{encoder}"), "SR?".into()].into()
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self, framing: Framing) -> Vec<u8> {
        encode(&self.items(), framing)
    }
}

impl MakeCard {
    fn items(&self) -> Vec<String> {
        let mut items = vec!["CCA".to_owned()];
        let mut item =
            |name: &str, value: Option<String>| items.extend(value.map(|value| format!("{name}{value}")));
        item("JR", self.joins.then(|| "1".into()));
        item("AM", Some("1".into()));
        item("EA", Some(self.encoder.clone()));
        item("GR", Some(self.room.clone()));
        item("CI", self.start.map(minutes));
        item("CO", Some(minutes(self.end)));
        item("NC", Some("01".into()));
        let common: Vec<_> = self.common.iter().map(ToString::to_string).collect();
        item("CR", (!common.is_empty()).then(|| common.join(",")));
        item("UG", self.user_group.clone());
        item("IO", self.operator.clone());
        if let Some(guest) = &self.guest {
            item("UI", Some(guest.id.clone()));
            item("UF", Some(guest.first_name.clone()));
            item("US", Some(guest.surname.clone()));
        }
        item("CT", self.card_type.map(|number| number.to_string()));
        item("SR", self.serial.then(|| "?".into()));
        items
    }
}

fn minutes(at: DateTime) -> String {
    at.strftime("%Y%m%d%H%M").to_string()
}
