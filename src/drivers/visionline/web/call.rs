//! What can be asked.

use jiff::civil::DateTime;
use serde::Serialize;

use super::codec::{escaped, local_time};
use crate::{model::Private, transport::http::Method};

/// Where everything is.
const BASE: &str = "/api/v1";

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Opens a session. The only call without a signature.
    SignIn {
        /// The API user.
        user: String,
        /// Its password.
        password: Private,
    },
    /// Ends a session.
    SignOut {
        /// Which.
        session: String,
    },
    /// All doors.
    Doors {
        /// With names, categories and groups.
        details: bool,
    },
    /// The ids of the cards that are good for a guest's door at a time.
    CardsOfDoor {
        /// The door.
        door: String,
        /// Local time.
        at: DateTime,
    },
    /// The ids of the cards on a chip.
    CardsOfChip {
        /// The chip's number in hexadecimal, without the padding.
        serial: String,
    },
    /// One card.
    Card {
        /// Its id.
        id: String,
    },
    /// A key for a telephone.
    PhoneKey(PhoneKey),
    /// What a card has to hold that a reader of ours writes.
    CardImage(CardImage),
}

/// How a key stands to the ones before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It begins a stay: earlier ones end with its first use.
    Override,
    /// It joins the stay; the server looks for its cards.
    AutoJoin,
    /// It joins the stay of these cards, by their ids. That no other query goes with them is inference.
    Joiners(Vec<String>),
}

/// A key for a telephone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneKey {
    /// How it stands to the ones before.
    pub standing: Standing,
    /// The telephone, as its app is registered.
    pub endpoint: String,
    /// What the app shows; `%ROOMRANGE%` and the like are filled in by the server.
    pub label: String,
    /// What the app shows below it.
    pub description: String,
    /// The guest doors.
    pub doors: Vec<String>,
    /// From when, local time; none for now.
    pub start: Option<DateTime>,
    /// Until when, local time.
    pub end: DateTime,
}

/// A card for a chip that a reader of ours holds. Known from one program, and experimental.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardImage {
    /// Whether it begins a stay or joins one.
    pub joins: bool,
    /// Its chip's number in hexadecimal.
    pub serial: String,
    /// What the server calls its holder.
    pub holder: String,
    /// The guest doors.
    pub doors: Vec<String>,
    /// From when, local time.
    pub start: DateTime,
    /// Until when, local time.
    pub end: DateTime,
}

impl Call {
    /// Its method.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::SignIn { .. } | Self::PhoneKey(_) | Self::CardImage(_) => Method::POST,
            Self::SignOut { .. } => Method::DELETE,
            Self::Doors { .. } | Self::CardsOfDoor { .. } | Self::CardsOfChip { .. } | Self::Card { .. } => {
                Method::GET
            }
        }
    }

    /// Whether it makes something that would be made twice if it was made again.
    #[must_use]
    pub fn makes_a_key(&self) -> bool {
        matches!(self, Self::PhoneKey(_) | Self::CardImage(_))
    }

    /// Path and query.
    #[must_use]
    pub fn resource(&self) -> String {
        let rest = match self {
            Self::SignIn { .. } => "sessions".to_owned(),
            Self::SignOut { session } => format!("sessions/{}", escaped(session)),
            Self::Doors { details: false } => "doors".to_owned(),
            Self::Doors { details: true } => "doors?details=true".to_owned(),
            Self::CardsOfDoor { door, at } => {
                format!("cards?guestDoor={}&validTime={}", escaped(door), local_time(*at))
            }
            Self::CardsOfChip { serial } => format!("cards?serialNumber={}ff", escaped(serial)),
            Self::Card { id } => format!("cards/{}", escaped(id)),
            Self::PhoneKey(key) => match key.standing {
                Standing::Override => "cards?action=mobileAccess&override=true".to_owned(),
                Standing::AutoJoin => "cards?action=mobileAccess&autoJoin=true".to_owned(),
                Standing::Joiners(_) => "cards?action=mobileAccess".to_owned(),
            },
            Self::CardImage(CardImage { joins: false, .. }) => {
                "cards?override=true&pendingImage=true&sendOnline=false".to_owned()
            }
            Self::CardImage(CardImage { joins: true, .. }) => {
                "cards?autoJoin=true&override=false&pendingImage=true&sendOnline=false".to_owned()
            }
        };
        format!("{BASE}/{rest}")
    }

    /// Its body as JSON, its members in the order in which other programs have them; none where it has none.
    #[must_use]
    pub fn body(&self) -> Option<String> {
        let body = match self {
            Self::SignIn { user, password } => Body::SignIn { username: user, password: password.expose() },
            Self::PhoneKey(key) => key.body(),
            Self::CardImage(image) => image.body(),
            Self::SignOut { .. }
            | Self::Doors { .. }
            | Self::CardsOfDoor { .. }
            | Self::CardsOfChip { .. }
            | Self::Card { .. } => return None,
        };
        Some(serde_json::to_string(&body).expect("texts and lists of texts are JSON"))
    }
}

/// A body, member by member.
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Body<'a> {
    SignIn {
        username: &'a str,
        password: &'a str,
    },
    PhoneKey {
        #[serde(skip_serializing_if = "Option::is_none")]
        start_time: Option<String>,
        expire_time: String,
        format: &'static str,
        #[serde(rename = "endPointID")]
        endpoint: &'a str,
        label: &'a str,
        description: &'a str,
        door_operations: [PhoneDoors<'a>; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        joiners: Option<&'a [String]>,
    },
    CardImage {
        card_holder: &'a str,
        door_operations: [CardDoors<'a>; 1],
        start_time: String,
        expire_time: String,
        serial_numbers: [&'a str; 1],
        format: &'static str,
    },
}

#[derive(Serialize)]
struct PhoneDoors<'a> {
    operation: &'static str,
    doors: &'a [String],
}

#[derive(Serialize)]
struct CardDoors<'a> {
    doors: &'a [String],
    operation: &'static str,
}

/// What is done at guest doors. What common doors need is not published.
const GUEST: &str = "guest";
/// The form of keys and cards.
const FORMAT: &str = "rfid48";

impl PhoneKey {
    fn body(&self) -> Body<'_> {
        Body::PhoneKey {
            start_time: self.start.map(local_time),
            expire_time: local_time(self.end),
            format: FORMAT,
            endpoint: &self.endpoint,
            label: &self.label,
            description: &self.description,
            door_operations: [PhoneDoors { operation: GUEST, doors: &self.doors }],
            joiners: match &self.standing {
                Standing::Joiners(ids) => Some(ids),
                Standing::Override | Standing::AutoJoin => None,
            },
        }
    }
}

impl CardImage {
    fn body(&self) -> Body<'_> {
        Body::CardImage {
            card_holder: &self.holder,
            door_operations: [CardDoors { doors: &self.doors, operation: GUEST }],
            start_time: local_time(self.start),
            expire_time: local_time(self.end),
            serial_numbers: [&self.serial],
            format: FORMAT,
        }
    }
}
