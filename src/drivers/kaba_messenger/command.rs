//! What is asked of the service, and in which fields.
//!
//! The service reads its fields in one order and no other, and a few of them live in another namespace than their
//! neighbours: a guest's name in all commands but [`Command::MakeDuplicateKey`].

use jiff::civil::DateTime;

use super::codec::Fields;
use crate::model::Private;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A card that begins a stay: the room's earlier keys lose their access.
    CreateNewBooking {
        /// The stay.
        stay: Stay,
        /// What the card opens.
        key: Key,
    },
    /// A card that joins whoever stays in the room, as a stay of its own with its own dates.
    AddSharedGuest {
        /// The new stay, of a name of its own.
        stay: Stay,
        /// What the card opens.
        key: Key,
    },
    /// A further card of a stay, just like its first one.
    MakeDuplicateKey {
        /// The stay.
        stay: Stay,
        /// Where the card will lie.
        encoder: String,
        /// Whose it is.
        guest: Option<Private>,
    },
    /// A new card of a stay with other rights; the cards that there are stay as they are.
    ChangeKeyAccess {
        /// The stay.
        stay: Stay,
        /// What the card opens; its main room is the stay's and is not said.
        key: Key,
    },
    /// A card for few uses, which changes nothing for others.
    CreateOneShotKey {
        /// The site, as the service knows it.
        site: String,
        /// The terminal.
        terminal: String,
        /// Where the card will lie.
        encoder: String,
        /// The room.
        room: String,
        /// From when it opens, in the property's local time.
        check_in: DateTime,
        /// Until when.
        check_out: DateTime,
    },
    /// Another end of a stay, told to its online locks.
    ExtendCheckOut {
        /// The stay.
        stay: Stay,
        /// The new end, in the property's local time.
        check_out: DateTime,
    },
    /// The end of a stay.
    CheckOutGuest {
        /// The stay.
        stay: Stay,
    },
    /// The end of every stay in a room, whoever's it is.
    CancelGuestsAccessToRoom {
        /// The site, as the service knows it.
        site: String,
        /// The room.
        room: String,
        /// The terminal.
        terminal: String,
    },
    /// Whether the service is there, and takes our credentials. Changes nothing.
    HelloWorldTest,
    /// The names of what may go wrong. Changes nothing.
    PublishFaultList,
}

/// What begins most commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// The service's name for the stay.
    pub reservation: String,
    /// The site, as the service knows it.
    pub site: String,
    /// The terminal: each has one command open at a time.
    pub terminal: String,
}

/// What a card opens, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it will lie.
    pub encoder: String,
    /// From when it opens, in the property's local time.
    pub check_in: DateTime,
    /// Until when.
    pub check_out: DateTime,
    /// Whose it is.
    pub guest: Option<Private>,
    /// The room.
    pub room: String,
    /// Further rooms, for card technologies that can carry them.
    pub more_rooms: Vec<String>,
    /// The pass levels of its common areas.
    pub common: Vec<u16>,
}

impl Command {
    /// The operation's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateNewBooking { .. } => "CreateNewBooking",
            Self::AddSharedGuest { .. } => "AddSharedGuest",
            Self::MakeDuplicateKey { .. } => "MakeDuplicateKey",
            Self::ChangeKeyAccess { .. } => "ChangeKeyAccess",
            Self::CreateOneShotKey { .. } => "CreateOneShotKey",
            Self::ExtendCheckOut { .. } => "ExtendCheckOut",
            Self::CheckOutGuest { .. } => "CheckOutGuest",
            Self::CancelGuestsAccessToRoom { .. } => "CancelGuestsAccessToRoom",
            Self::HelloWorldTest => "HelloWorldTest",
            Self::PublishFaultList => "PublishFaultList",
        }
    }

    /// Whether it changes anything, so that it must not be done twice.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Self::CreateNewBooking { .. }
            | Self::AddSharedGuest { .. }
            | Self::MakeDuplicateKey { .. }
            | Self::ChangeKeyAccess { .. }
            | Self::CreateOneShotKey { .. }
            | Self::ExtendCheckOut { .. }
            | Self::CheckOutGuest { .. }
            | Self::CancelGuestsAccessToRoom { .. } => true,
            Self::HelloWorldTest | Self::PublishFaultList => false,
        }
    }

    /// The terminal that it is about; none for what only asks.
    #[must_use]
    pub fn terminal(&self) -> &str {
        match self {
            Self::CreateNewBooking { stay, .. }
            | Self::AddSharedGuest { stay, .. }
            | Self::MakeDuplicateKey { stay, .. }
            | Self::ChangeKeyAccess { stay, .. }
            | Self::ExtendCheckOut { stay, .. }
            | Self::CheckOutGuest { stay, .. } => &stay.terminal,
            Self::CreateOneShotKey { terminal, .. } | Self::CancelGuestsAccessToRoom { terminal, .. } => {
                terminal
            }
            Self::HelloWorldTest | Self::PublishFaultList => "",
        }
    }

    /// Whether a card is written.
    #[must_use]
    pub fn makes_card(&self) -> bool {
        match self {
            Self::CreateNewBooking { .. }
            | Self::AddSharedGuest { .. }
            | Self::MakeDuplicateKey { .. }
            | Self::ChangeKeyAccess { .. }
            | Self::CreateOneShotKey { .. } => true,
            Self::ExtendCheckOut { .. }
            | Self::CheckOutGuest { .. }
            | Self::CancelGuestsAccessToRoom { .. }
            | Self::HelloWorldTest
            | Self::PublishFaultList => false,
        }
    }

    /// Its fields, in their order.
    pub(super) fn spell(&self, fields: &mut Fields) {
        match self {
            Self::CreateNewBooking { stay, key } => {
                stay.spell(fields);
                key.spell_beginning(fields);
                fields.service("MainRoomNo", &key.room);
                fields.service("bGrantAccessPredefinedSuiteDoors", "false");
                key.spell_rights(fields);
                one_key(fields);
            }
            Self::AddSharedGuest { stay, key } => {
                stay.spell(fields);
                key.spell_beginning(fields);
                fields.service("MainRoomNo", &key.room);
                key.spell_rights(fields);
                one_key(fields);
            }
            Self::MakeDuplicateKey { stay, encoder, guest } => {
                stay.spell(fields);
                fields.service("EncoderID", encoder);
                one_key(fields);
                fields.service("GuestName", name_of(guest.as_ref()));
            }
            Self::ChangeKeyAccess { stay, key } => {
                stay.spell(fields);
                key.spell_beginning(fields);
                key.spell_rights(fields);
                one_key(fields);
            }
            Self::CreateOneShotKey { site, terminal, encoder, room, check_in, check_out } => {
                fields.service("SiteName", site);
                fields.service("PMSTerminalID", terminal);
                fields.service("EncoderID", encoder);
                fields.service("MainRoomNo", room);
                fields.service("CheckIn", &local(*check_in));
                fields.service("CheckOut", &local(*check_out));
                fields.service("KeySize", KEY_SIZE);
            }
            Self::ExtendCheckOut { stay, check_out } => {
                stay.spell(fields);
                fields.service("CheckOut", &local(*check_out));
            }
            Self::CheckOutGuest { stay } => stay.spell(fields),
            Self::CancelGuestsAccessToRoom { site, room, terminal } => {
                fields.service("SiteName", site);
                fields.service("MainRoomNo", room);
                fields.service("PMSTerminalID", terminal);
            }
            Self::HelloWorldTest => {
                fields.service("s1", "latchd");
                fields.service("i1", "1");
            }
            Self::PublishFaultList => {}
        }
    }
}

/// What a client that works with cards sends. Nobody publishes what it means.
const KEY_SIZE: &str = "1";

fn one_key(fields: &mut Fields) {
    fields.service("KeyCount", "1");
    fields.service("KeySize", KEY_SIZE);
}

fn name_of(guest: Option<&Private>) -> &str {
    guest.map_or("Guest", Private::expose)
}

/// How the service writes a time: local, without a zone.
pub(super) fn local(at: DateTime) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

impl Stay {
    fn spell(&self, fields: &mut Fields) {
        fields.service("ReservationID", &self.reservation);
        fields.service("SiteName", &self.site);
        fields.service("PMSTerminalID", &self.terminal);
    }
}

impl Key {
    fn spell_beginning(&self, fields: &mut Fields) {
        fields.service("EncoderID", &self.encoder);
        fields.service("CheckIn", &local(self.check_in));
        fields.service("CheckOut", &local(self.check_out));
        fields.security("GuestName", name_of(self.guest.as_ref()));
    }

    fn spell_rights(&self, fields: &mut Fields) {
        if !self.more_rooms.is_empty() {
            fields.group("VariableRoomList", |fields| {
                for room in &self.more_rooms {
                    fields.service("string", room);
                }
            });
        }
        if !self.common.is_empty() {
            fields.group("CommonAreaList", |fields| {
                for level in &self.common {
                    fields.group("CCommonAreas", |fields| {
                        fields.service("PassLevelNo", &level.to_string());
                        fields.service("eMode", "GrantAccess");
                    });
                }
            });
        }
    }
}
