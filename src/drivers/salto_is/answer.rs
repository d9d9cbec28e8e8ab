//! What the lock server answers: fields to meaning.

use jiff::civil;

use super::command::{Command, authorisations, read_date};
use crate::model::{Code, Refusal};

/// What a frame from the lock server says to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done; the frame's fields.
    Done(Vec<String>),
    /// Not done.
    Refused(ErrorCode, Refusal),
    /// It is the answer to something else.
    Foreign,
    /// It is for this encoder, but of no kind that is known.
    Strange {
        /// Its first field.
        what: String,
    },
}

/// Reads a frame as the answer to `command`.
#[must_use]
pub fn read(fields: &[String], command: &Command) -> Answer {
    let Some(head) = fields.first() else {
        return Answer::Strange { what: String::new() };
    };
    let address = fields.get(1).filter(|field| !field.is_empty());
    if let (Some(ours), Some(theirs)) = (command.address(), address)
        && ours != theirs
    {
        return Answer::Foreign;
    }
    if let Some(code) = ErrorCode::from_wire(head) {
        let text = match code {
            ErrorCode::Eg => fields.iter().skip(2).next_back(),
            _ => None,
        };
        return Answer::Refused(code, code.refusal(text.map(String::as_str)));
    }
    // The count behind CN and CC is repeated by some servers and not by others.
    let name = head.trim_end_matches(|sign: char| sign.is_ascii_digit());
    let counted = matches!(command, Command::WriteCard(_));
    match command.mnemonic() {
        // What answers Amadeus's form of the reading is not published: its own name, or that of all others.
        "LTE" if head == "LT" => Answer::Done(fields.to_vec()),
        ours if head == ours || (counted && name == ours) => Answer::Done(fields.to_vec()),
        _ if COMMANDS.contains(&head.as_str()) || COUNTED.contains(&name) => Answer::Foreign,
        _ => Answer::Strange { what: head.clone() },
    }
}

const COMMANDS: [&str; 14] =
    ["CNM", "CCM", "MC", "CO", "LT", "LTE", "L1", "L2", "L3", "P1", "P2", "P3", "WF", "WN"];
const COUNTED: [&str; 2] = ["CN", "CC"];

macro_rules! error_codes {
    ($($variant:ident $wire:literal $code:ident $message:literal;)*) => {
        /// The lock server's error codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the message of each says what it means")]
        pub enum ErrorCode {
            $($variant,)*
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code as the lock server writes it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $wire,)*
                }
            }

            fn meaning(self) -> (Code, &'static str) {
                match self {
                    $(Self::$variant => (Code::$code, $message),)*
                }
            }
        }
    };
}

error_codes! {
    Es "ES" Rejected "the lock server did not understand the command; this is a fault of latchd or of the configured dialect";
    Nc "NC" EncoderOffline "the encoder does not answer the lock server; check its network and power";
    Nf "NF" Rejected "the lock server's database file is missing or damaged, or the card's memory is full";
    Ov "OV" EncoderBusy "the encoder is still busy";
    Ep "EP" NoCard "no card was found on the encoder, or it lay badly";
    Ef "EF" BadCard "the card belongs to another system or is damaged; take another one";
    Td "TD" RoomUnknown "the lock server has no room of this name; leading zeros count";
    Ed "ED" NoCard "the encoder waited too long for a card";
    Ea "EA" NoStayToJoin "the lock server holds the room for checked out: it has no stay to join or to change";
    Os "OS" RoomBlocked "the lock server holds the room for out of service";
    Eo "EO" EncoderBusy "this guest's card is being made at another station";
    En "EN" BadCard "the card's magnetic stripe is too weak; take another one";
    Ev "EV" Rejected "the lock server refused with EV, whose meaning is not documented";
    Eg "EG" Rejected "the lock server refused";
    We "WE" Rejected "the door's audit trail could not be read";
}

/// The longest free text that is passed on.
const LONGEST_TEXT: usize = 200;

impl ErrorCode {
    /// The code of a frame's first field.
    #[must_use]
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// It in our words; `text` is the server's own, where it sent one.
    #[must_use]
    pub fn refusal(self, text: Option<&str>) -> Refusal {
        let (code, message) = self.meaning();
        let text: String = text
            .unwrap_or_default()
            .chars()
            .filter(|letter| !letter.is_control())
            .take(LONGEST_TEXT)
            .collect();
        let message = match text.as_str() {
            "" => message.to_owned(),
            text => format!("{message}: {text}"),
        };
        Refusal::by_device(code, self.as_str(), message)
    }
}

/// The chip's number in the answer to a written card, where it was asked for and given.
#[must_use]
pub fn serial(fields: &[String]) -> Option<&str> {
    fields.get(2).map(String::as_str).filter(|serial| !serial.is_empty())
}

/// What the answer to `LT` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardShown {
    /// A guest card.
    Guest(GuestCard),
    /// `LM`: a card of the staff.
    Staff,
    /// `LC`: a guest card that is not valid.
    Invalid,
    /// Another kind, in the lock system's word and ours.
    Other(String),
}

/// What a guest card shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestCard {
    /// Its rooms, the main one first.
    pub rooms: Vec<String>,
    /// Whether it is valid in its main room.
    pub valid: bool,
    /// Which copy it is.
    pub copy: CopyNumber,
    /// Its common doors.
    pub authorisations: Vec<u8>,
    /// Since when, local time.
    pub start: Option<civil::DateTime>,
    /// Until when, local time.
    pub expiry: Option<civil::DateTime>,
    /// Who made it.
    pub operator: String,
}

/// Which of a stay's cards a card is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyNumber {
    /// The first.
    Original,
    /// The first copy.
    First,
    /// The second copy.
    Second,
    /// A later copy.
    Later,
    /// It opens once.
    OneShot,
    /// A sign that is not known.
    Unknown,
}

impl CardShown {
    /// Reads the fields of an answer to `LT`; none where they say nothing of a card.
    #[must_use]
    pub fn read(fields: &[String]) -> Option<Self> {
        let field = |at: usize| fields.get(at).map_or("", String::as_str);
        let in_main_room = match field(6) {
            "CI" => Some(true),
            "CO" => Some(false),
            _ => None,
        };
        // A room may be called LM; a card that is told valid or not in a main room is a guest's.
        if in_main_room.is_none() {
            let other = |what: &str| Some(Self::Other(what.to_owned()));
            return match field(2) {
                "LM" => Some(Self::Staff),
                "LC" => Some(Self::Invalid),
                "LR" => other("LR, a spare guest card"),
                "LD" => other("LD, not identified"),
                "LS" => other("LS, a diagnostic card"),
                _ => None,
            };
        }
        let rooms: Vec<String> =
            (2..6).map(field).filter(|room| !room.is_empty()).map(String::from).collect();
        Some(Self::Guest(GuestCard {
            rooms,
            valid: in_main_room == Some(true),
            copy: match field(7) {
                "0" => CopyNumber::Original,
                "1" => CopyNumber::First,
                "2" => CopyNumber::Second,
                "I" => CopyNumber::Later,
                "A" => CopyNumber::OneShot,
                _ => CopyNumber::Unknown,
            },
            authorisations: authorisations(field(8)),
            start: read_date(field(9)),
            expiry: read_date(field(10)),
            operator: field(11).to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::salto_is::command::Eject;

    fn fields(text: &str) -> Vec<String> {
        text.split('|').map(String::from).collect()
    }

    fn read_card() -> Command {
        Command::ReadCard { is_amadeus: false, encoder: "1".into(), eject: Eject::Wait }
    }

    fn check_out() -> Command {
        Command::CheckOut { room: "101".into(), has_encoder_field: true }
    }

    #[test]
    fn every_error_code_has_its_meaning() {
        let expected = [
            ("ES", Code::Rejected),
            ("NC", Code::EncoderOffline),
            ("NF", Code::Rejected),
            ("OV", Code::EncoderBusy),
            ("EP", Code::NoCard),
            ("EF", Code::BadCard),
            ("TD", Code::RoomUnknown),
            ("ED", Code::NoCard),
            ("EA", Code::NoStayToJoin),
            ("OS", Code::RoomBlocked),
            ("EO", Code::EncoderBusy),
            ("EN", Code::BadCard),
            ("EV", Code::Rejected),
            ("EG", Code::Rejected),
            ("WE", Code::Rejected),
        ];
        assert_eq!(expected.len(), ErrorCode::ALL.len());
        for (wire, code) in expected {
            let Answer::Refused(_, refusal) = read(&fields(&format!("{wire}|1")), &read_card()) else {
                panic!("{wire} is a refusal");
            };
            assert_eq!((refusal.code, refusal.vendor_code.as_deref()), (code, Some(wire)));
        }
    }

    #[test]
    fn the_free_text_of_a_general_error_is_passed_on_bounded_and_clean() {
        let Answer::Refused(_, refusal) = read(&fields("EG|1|Encoder\u{7} too old"), &read_card()) else {
            panic!("a refusal");
        };
        assert!(refusal.message.ends_with(": Encoder too old"), "{}", refusal.message);
        let long = ErrorCode::Eg.refusal(Some(&"x".repeat(4000)));
        assert!(long.message.len() < 300);
    }

    #[test]
    fn an_answer_of_another_encoder_or_command_is_foreign() {
        let check = |text: &str, command: &Command, expected: &Answer| {
            assert_eq!(&read(&fields(text), command), expected, "{text}");
        };
        check("LT|2|LM", &read_card(), &Answer::Foreign);
        check("ED|2", &read_card(), &Answer::Foreign);
        check("CN1|1|04A1", &read_card(), &Answer::Foreign);
        check("CO|0", &read_card(), &Answer::Foreign);
        check("LT|1|LM", &check_out(), &Answer::Foreign);
        check("CO|0", &check_out(), &Answer::Done(fields("CO|0")));
        check("LT|1|LM", &read_card(), &Answer::Done(fields("LT|1|LM")));
        check("XX|1", &read_card(), &Answer::Strange { what: "XX".into() });
    }

    #[test]
    fn what_a_read_card_shows_is_understood_with_dates_of_either_form() {
        let Some(CardShown::Guest(card)) =
            CardShown::read(&fields("LT|1|LM|102|||CO|I|1a|1500211126|11241126|BRIDGE"))
        else {
            panic!("a guest card, though its room is called LM");
        };
        assert_eq!(card.rooms, ["LM", "102"]);
        assert!(!card.valid);
        assert_eq!(card.copy, CopyNumber::Later);
        assert_eq!(card.authorisations, [1, 10]);
        assert_eq!(card.start.unwrap().to_string(), "2026-11-21T15:00:00");
        assert_eq!(card.expiry.unwrap().to_string(), "2026-11-24T11:00:00");
        assert_eq!(CardShown::read(&fields("LT|1|LM")), Some(CardShown::Staff));
        assert_eq!(CardShown::read(&fields("LT|1|LC")), Some(CardShown::Invalid));
        assert!(matches!(CardShown::read(&fields("LT|1|LD")), Some(CardShown::Other(_))));
        assert_eq!(CardShown::read(&fields("LT|1")), None);
        assert_eq!(CardShown::read(&fields("LT|1|101")), None);
    }
}
