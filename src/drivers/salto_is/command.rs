//! What a frame to the lock server asks: commands to fields.
//!
//! Field positions are those of the protocol's version 1.16; the older, hour-only form of Onity differs in
//! [`DateForm`] and in what callers leave empty.

use jiff::civil;

use super::codec::{Trailer, encode};

/// The most rooms that one card carries.
pub const MAX_ROOMS: usize = 4;
/// The most characters of what a phone's owner reads.
pub const TEXT_LENGTH: usize = 256;
/// The most characters of an operator's name.
pub const OPERATOR_LENGTH: usize = 24;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `CN`, `CC`: write a guest card.
    WriteCard(WriteCard),
    /// `CNM`, `CCM`: send a key to a phone.
    SendPhoneKey(SendPhoneKey),
    /// `MC`: change a stay's end or room.
    ModifyStay {
        /// The room the stay holds.
        room: String,
        /// The room it moves to; empty if it stays.
        to_room: String,
        /// The new end.
        expiry: civil::DateTime,
        /// How it is written.
        dates: DateForm,
        /// The code that the site's phone keys ask for; often empty.
        auth_code: String,
    },
    /// `CO`: free a room.
    CheckOut {
        /// The room.
        room: String,
        /// Whether a field for an encoder, `0`, stands before it; Amadeus has none.
        has_encoder_field: bool,
    },
    /// `LT`, for Amadeus `LTE`: read a guest card.
    ReadCard {
        /// Whether it is Amadeus's form.
        is_amadeus: bool,
        /// On which encoder.
        encoder: String,
        /// Whether to wait until it is taken away.
        eject: Eject,
    },
    /// `L1` to `L3`: read a magnetic track.
    ReadTrack {
        /// Which track.
        track: Track,
        /// On which encoder.
        encoder: String,
        /// Whether to wait until it is taken away.
        eject: Eject,
    },
    /// `P1` to `P3`: write a magnetic track.
    WriteTrack {
        /// Which track.
        track: Track,
        /// On which encoder.
        encoder: String,
        /// Whether to wait until it is taken away.
        eject: Eject,
        /// What to write.
        text: String,
    },
    /// `WF`, `WN`: one record of a door's audit trail.
    Audit {
        /// Which record.
        record: Record,
        /// Of which door.
        door: String,
    },
}

/// A guest card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteCard {
    /// What it does to the stay in its rooms.
    pub stay: Stay,
    /// The count behind the command's name. One public client writes `CN1` for one card, another `CN`.
    pub count: Option<u8>,
    /// On which encoder, by its name in the lock system.
    pub encoder: String,
    /// Whether to wait until it is taken away.
    pub eject: Eject,
    /// Up to [`MAX_ROOMS`]; the first is the main one.
    pub rooms: Vec<String>,
    /// Common doors to open, as the signs of [`symbol`].
    pub granted: String,
    /// Common doors not to open, as the signs of [`symbol`].
    pub denied: String,
    /// Since when; none is now.
    pub start: Option<civil::DateTime>,
    /// Until when.
    pub expiry: Option<civil::DateTime>,
    /// How times are written.
    pub dates: DateForm,
    /// For the lock system's audit trail; at most [`OPERATOR_LENGTH`] characters.
    pub operator: String,
    /// For a card printer, at most three; a stripe encoder of Onity takes tracks 1 and 2 from the first two.
    pub print_lines: Vec<String>,
    /// Which chip numbers the answer shall name.
    pub serials: Option<Serials>,
}

/// A key for a phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendPhoneKey {
    /// What it does to the stay in its rooms.
    pub stay: Stay,
    /// The number, with `+` and country.
    pub phone: String,
    /// Up to [`MAX_ROOMS`]; the first is the main one.
    pub rooms: Vec<String>,
    /// Common doors to open, as the signs of [`symbol`].
    pub granted: String,
    /// Common doors not to open, as the signs of [`symbol`].
    pub denied: String,
    /// Since when; none is now.
    pub start: Option<civil::DateTime>,
    /// Until when.
    pub expiry: Option<civil::DateTime>,
    /// For the lock system's audit trail.
    pub operator: String,
    /// What the guest reads; at most [`TEXT_LENGTH`].
    pub text: String,
    /// Often empty; at most 64 characters.
    pub auth_code: String,
}

/// What a card does to the stay in its rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Check in: older cards of the rooms die on its first use.
    Begin,
    /// Copy: it joins the stay that the room has.
    Join,
}

/// Whether the encoder waits until the card is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eject {
    /// `E`: yes.
    Wait,
    /// `R`: no.
    DoNotWait,
    /// Nothing: encoders without the notion.
    Empty,
}

/// Which chip numbers the answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serials {
    /// None.
    None,
    /// The last card's.
    Last,
    /// All cards'.
    All,
}

/// A magnetic track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they have no other names")]
pub enum Track {
    One,
    Two,
    Three,
}

/// A record of an audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// The first.
    First,
    /// The one after the last one given.
    Next,
}

/// How times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateForm {
    /// `hhmmDDMMYY`.
    Minutes,
    /// `hhDDMMYY`: the older form. Its writer rounds to the hour first.
    Hours,
}

impl Command {
    /// The command's name, without a count.
    #[must_use]
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Self::WriteCard(card) => match card.stay {
                Stay::Begin => "CN",
                Stay::Join => "CC",
            },
            Self::SendPhoneKey(key) => match key.stay {
                Stay::Begin => "CNM",
                Stay::Join => "CCM",
            },
            Self::ModifyStay { .. } => "MC",
            Self::CheckOut { .. } => "CO",
            Self::ReadCard { is_amadeus: false, .. } => "LT",
            Self::ReadCard { is_amadeus: true, .. } => "LTE",
            Self::ReadTrack { track, .. } => ["L1", "L2", "L3"][*track as usize],
            Self::WriteTrack { track, .. } => ["P1", "P2", "P3"][*track as usize],
            Self::Audit { record, .. } => match record {
                Record::First => "WF",
                Record::Next => "WN",
            },
        }
    }

    /// The encoder that it is done on, if it needs one.
    #[must_use]
    pub fn encoder(&self) -> Option<&str> {
        match self {
            Self::WriteCard(WriteCard { encoder, .. })
            | Self::ReadCard { encoder, .. }
            | Self::ReadTrack { encoder, .. }
            | Self::WriteTrack { encoder, .. } => Some(encoder),
            Self::SendPhoneKey(_) | Self::ModifyStay { .. } | Self::CheckOut { .. } | Self::Audit { .. } => {
                None
            }
        }
    }

    /// What its answer repeats behind the command's name, where that is known.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::WriteCard(card) => Some(&card.encoder),
            Self::SendPhoneKey(key) => Some(&key.phone),
            Self::ReadCard { encoder, .. }
            | Self::ReadTrack { encoder, .. }
            | Self::WriteTrack { encoder, .. } => Some(encoder),
            Self::ModifyStay { .. } | Self::CheckOut { .. } | Self::Audit { .. } => None,
        }
    }

    /// Whether it changes a card or the lock system, so that it must not be sent twice without proof.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Self::WriteCard(_)
            | Self::SendPhoneKey(_)
            | Self::ModifyStay { .. }
            | Self::CheckOut { .. }
            | Self::WriteTrack { .. } => true,
            // The next record of an audit trail moves on when it is asked for, but nothing is lost by asking again
            // from the first.
            Self::ReadCard { .. } | Self::ReadTrack { .. } | Self::Audit { .. } => false,
        }
    }

    /// Whether a person lays a card down for it.
    #[must_use]
    pub fn takes_a_card(&self) -> bool {
        match self {
            Self::WriteCard(_) | Self::ReadCard { .. } | Self::ReadTrack { .. } | Self::WriteTrack { .. } => {
                true
            }
            Self::SendPhoneKey(_) | Self::ModifyStay { .. } | Self::CheckOut { .. } | Self::Audit { .. } => {
                false
            }
        }
    }

    /// Its frame.
    #[must_use]
    pub fn frame(&self, trailer: Trailer) -> Vec<u8> {
        encode(&self.fields(), trailer)
    }

    /// Its fields.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        let mut fields = vec![self.mnemonic().to_owned()];
        match self {
            Self::WriteCard(card) => card.append_to(&mut fields),
            Self::SendPhoneKey(key) => key.append_to(&mut fields),
            Self::ModifyStay { room, to_room, expiry, dates, auth_code } => {
                let expiry = date(Some(*expiry), *dates);
                fields.extend([room.clone(), to_room.clone(), expiry, auth_code.clone()]);
                drop_empty_tail(&mut fields);
            }
            Self::CheckOut { room, has_encoder_field } => {
                fields.extend(has_encoder_field.then(|| "0".to_owned()));
                fields.push(room.clone());
            }
            Self::ReadCard { encoder, eject, .. } | Self::ReadTrack { encoder, eject, .. } => {
                fields.extend([encoder.clone(), eject.letter()]);
            }
            Self::WriteTrack { encoder, eject, text, .. } => {
                fields.extend([encoder.clone(), eject.letter(), text.clone()]);
            }
            Self::Audit { door, .. } => fields.push(door.clone()),
        }
        fields
    }
}

/// An operator's name as far as a command carries it.
fn shortened(operator: &str) -> String {
    operator.chars().take(OPERATOR_LENGTH).collect()
}

/// Whether an answer's operator is this one. Nobody says that a server keeps padding and case as they were sent.
pub(super) fn is_name(told: &str, operator: &str) -> bool {
    told.trim().to_uppercase() == shortened(operator).trim().to_uppercase()
}

impl WriteCard {
    fn append_to(&self, fields: &mut Vec<String>) {
        if let Some(count) = self.count {
            fields[0].push_str(&count.to_string());
        }
        fields.extend([self.encoder.clone(), self.eject.letter()]);
        append_rooms(&self.rooms, fields);
        fields.extend([
            self.granted.clone(),
            self.denied.clone(),
            date(self.start, self.dates),
            date(self.expiry, self.dates),
            shortened(&self.operator),
        ]);
        fields.extend(self.print_lines.iter().take(3).cloned());
        match self.serials {
            Some(serials) => {
                fields.resize(15, String::new());
                fields.push(
                    match serials {
                        Serials::None => "0",
                        Serials::Last => "1",
                        Serials::All => "2",
                    }
                    .to_owned(),
                );
            }
            None if self.print_lines.is_empty() => drop_empty_tail(fields),
            None => {}
        }
    }
}

impl SendPhoneKey {
    fn append_to(&self, fields: &mut Vec<String>) {
        fields.push(self.phone.clone());
        append_rooms(&self.rooms, fields);
        fields.extend([
            self.granted.clone(),
            self.denied.clone(),
            date(self.start, DateForm::Minutes),
            date(self.expiry, DateForm::Minutes),
            shortened(&self.operator),
            // Three positions without a known meaning.
            String::new(),
            String::new(),
            String::new(),
            self.text.chars().take(TEXT_LENGTH).collect(),
            self.auth_code.clone(),
        ]);
        drop_empty_tail(fields);
    }
}

impl Eject {
    fn letter(self) -> String {
        match self {
            Self::Wait => "E",
            Self::DoNotWait => "R",
            Self::Empty => "",
        }
        .to_owned()
    }
}

fn append_rooms(rooms: &[String], fields: &mut Vec<String>) {
    let wanted = fields.len() + MAX_ROOMS;
    fields.extend(rooms.iter().take(MAX_ROOMS).cloned());
    fields.resize(wanted, String::new());
}

fn drop_empty_tail(fields: &mut Vec<String>) {
    while fields.last().is_some_and(String::is_empty) {
        fields.pop();
    }
}

/// The signs of the common doors 1 to 62 on the "PMS Authorizations" screen; quotes, backtick and bar are not used.
const SYMBOLS: &[u8; 62] = b"123456789abcdefghijklmnopqrstuvwxyz!#$%&()*+,-./:;<=>?@[\\]^_{}";

/// The sign of a common door; none where the number is not 1 to 62.
#[must_use]
pub fn symbol(authorisation: u8) -> Option<char> {
    let at = usize::from(authorisation).checked_sub(1)?;
    SYMBOLS.get(at).copied().map(char::from)
}

/// The common doors that a field names, in its order; signs of no door are passed over.
#[must_use]
pub fn authorisations(field: &str) -> Vec<u8> {
    field
        .chars()
        .filter_map(|sign| SYMBOLS.iter().position(|known| char::from(*known) == sign))
        .filter_map(|at| u8::try_from(at + 1).ok())
        .collect()
}

/// Writes a local time; empty for none.
#[must_use]
pub fn date(time: Option<civil::DateTime>, form: DateForm) -> String {
    let Some(time) = time else { return String::new() };
    let minutes = match form {
        DateForm::Minutes => format!("{:02}", time.minute()),
        DateForm::Hours => String::new(),
    };
    let (day, month, year) = (time.day(), time.month(), time.year().rem_euclid(100));
    format!("{:02}{minutes}{day:02}{month:02}{year:02}", time.hour())
}

/// Reads a local time of either form, told apart by its length; none where it is no time. Years are 2000 to 2099.
#[must_use]
pub fn read_date(text: &str) -> Option<civil::DateTime> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let two = |at: usize| text.get(at..at + 2)?.parse::<i8>().ok();
    let (minute, day) = match text.len() {
        8 => (0, 2),
        10 => (two(2)?, 4),
        _ => return None,
    };
    let year = 2000 + i16::from(two(day + 4)?);
    civil::DateTime::new(year, two(day + 2)?, two(day)?, two(0)?, minute, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_62_common_doors_has_a_sign_of_its_own() {
        let all: String = (1..=62).filter_map(symbol).collect();
        assert_eq!(authorisations(&all), (1..=62).collect::<Vec<u8>>());
        assert_eq!([1, 10, 36].map(symbol), [Some('1'), Some('a'), Some('!')]);
        assert_eq!((symbol(0), symbol(63)), (None, None));
        for unused in ['0', '"', '\'', '`', '|', '~', 'A'] {
            assert!(authorisations(&unused.to_string()).is_empty(), "{unused}");
        }
    }

    #[test]
    fn times_are_written_in_both_forms_and_told_apart_by_their_length() {
        let time = civil::date(2026, 11, 24).at(11, 5, 0, 0);
        assert_eq!(date(Some(time), DateForm::Minutes), "1105241126");
        assert_eq!(date(Some(time), DateForm::Hours), "11241126");
        assert_eq!(date(None, DateForm::Minutes), "");
        assert_eq!(read_date("1105241126"), Some(time));
        assert_eq!(read_date("11241126"), Some(civil::date(2026, 11, 24).at(11, 0, 0, 0)));
        for odd in
            ["", "1105", "2405241126", "1160241126", "1105320126", "11052411+6", "ä1241126", "110524112026"]
        {
            assert_eq!(read_date(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn rooms_beyond_the_fourth_and_letters_beyond_the_limit_never_shift_a_field() {
        let card = WriteCard {
            stay: Stay::Begin,
            count: Some(1),
            encoder: "1".into(),
            eject: Eject::Wait,
            rooms: ["1", "2", "3", "4", "5"].map(String::from).into(),
            granted: "12".into(),
            denied: String::new(),
            start: None,
            expiry: None,
            dates: DateForm::Minutes,
            operator: "x".repeat(40),
            print_lines: vec!["a".into(); 5],
            serials: Some(Serials::Last),
        };
        let fields = Command::WriteCard(card).fields();
        assert_eq!(fields.len(), 16);
        assert_eq!((fields[6].as_str(), fields[7].as_str(), fields[15].as_str()), ("4", "12", "1"));
        assert_eq!(fields[11].len(), OPERATOR_LENGTH);
    }

    #[test]
    fn tracks_are_asked_for_and_written_by_their_number() {
        let (encoder, eject) = ("1".to_owned(), Eject::Wait);
        for (track, read, write) in
            [(Track::One, "L1", "P1"), (Track::Two, "L2", "P2"), (Track::Three, "L3", "P3")]
        {
            let asked = Command::ReadTrack { track, encoder: encoder.clone(), eject };
            assert_eq!(asked.fields(), [read, "1", "E"]);
            let text = "A text".to_owned();
            let written = Command::WriteTrack { track, encoder: encoder.clone(), eject, text };
            assert_eq!(written.fields(), [write, "1", "E", "A text"]);
            assert!(!asked.writes() && written.writes());
        }
    }

    #[test]
    fn a_phone_key_has_its_text_behind_three_empty_fields_and_no_longer_than_fits() {
        let mut key = SendPhoneKey {
            stay: Stay::Join,
            phone: "+15555550100".into(),
            rooms: vec!["101".into()],
            granted: String::new(),
            denied: String::new(),
            start: None,
            expiry: None,
            operator: String::new(),
            text: "x".repeat(300),
            auth_code: "7".into(),
        };
        let fields = Command::SendPhoneKey(key.clone()).fields();
        assert_eq!((fields[0].as_str(), fields.len()), ("CCM", 16));
        assert_eq!((fields[14].len(), fields[15].as_str()), (TEXT_LENGTH, "7"));
        (key.text, key.auth_code) = (String::new(), String::new());
        assert_eq!(Command::SendPhoneKey(key).fields(), ["CCM", "+15555550100", "101"]);
    }
}
