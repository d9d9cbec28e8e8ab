//! Why something asked of a grant is refused.

use crate::model::SystemName;

/// A refusal, named and worded for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something that was named is not there.
    #[error("There is no {} {id}", resource.words())]
    NotFound {
        /// What kind of thing.
        resource: Resource,
        /// Its id or key, as given.
        id: String,
    },
    /// A key that something else has already.
    #[error("{message}")]
    Taken {
        /// What kind of thing.
        resource: Resource,
        /// Which key, and who has it.
        message: String,
    },
    /// Something live speaks of it, so it cannot go.
    #[error("{message}")]
    StillNeeded {
        /// What kind of thing.
        resource: Resource,
        /// By what, and what to do.
        message: String,
    },
    /// Neither form of the identity was given, or both.
    #[error("Give exactly one of user_identity_id and user_identity")]
    IdentityUnclear,
    /// An identity without anything to tell it by.
    #[error("Give at least one of full_name, user_identity_key, email_address and phone_number")]
    IdentityNameless,
    /// No door, device or space at all.
    #[error("Name at least one acs_entrance, device or space")]
    NothingTargeted,
    /// The end lies at or before the start.
    #[error("ends_at must be after starts_at")]
    EndsBeforeStart,
    /// The end has passed.
    #[error("ends_at must be in the future")]
    EndsInPast,
    /// The system prints an end on every card.
    #[error("The access system {system} needs an end on every card: give ends_at")]
    EndRequired {
        /// Which system.
        system: SystemName,
    },
    /// More doors than a card of the system carries.
    #[error("A card of the access system {system} carries at most {most} {what}; {asked} are asked for")]
    TooManyDoors {
        /// Which system.
        system: SystemName,
        /// Rooms or common doors.
        what: &'static str,
        /// How many are asked for.
        asked: usize,
        /// How many there may be.
        most: u16,
    },
    /// A guest card for a room, without a reservation.
    #[error("reservation_key required for guest cards.")]
    ReservationKeyRequired,
    /// A reservation without any door that follows reservations.
    #[error(
        "reservation_key not supported. No targeted entrance supports reservations: remove the key, or add one"
    )]
    ReservationKeyNotSupported,
    /// The reservation lives in other rooms.
    #[error("Reservation entrance change requires cleanup. Delete the reservation's existing grants first")]
    ReservationElsewhere,
    /// The reservation has some of these rooms, but not all.
    #[error("Reservation joiner entrance set conflict. Use the reservation's rooms, or some of them")]
    ReservationRoomsConflict,
    /// The reservation's other grants are for another time.
    #[error("Reservation time frames must overlap.")]
    ReservationTimesApart,
    /// A space would lie within itself.
    #[error("The parent of a space must not lie within it")]
    ParentInside,
    /// Only cards are encoded.
    #[error("This access method is a {mode}; only cards can be encoded")]
    NotACard {
        /// What it is.
        mode: &'static str,
    },
    /// Only cloud keys open doors from afar.
    #[error("This access method is a {mode}; only a cloud_key opens a door from afar")]
    NotACloudKey {
        /// What it is.
        mode: &'static str,
    },
    /// A key that opens nothing now.
    #[error("{why}")]
    KeyNotValid {
        /// Why not.
        why: String,
    },
    /// No system here assigns cards that exist.
    #[error("No access system here can be given a card by its number: encode the card on an encoder")]
    AssignmentNotSupported,
    /// Nothing that the grant leads to supports a means asked for.
    #[error("{why}")]
    CannotCreate {
        /// Which, and why not.
        why: String,
    },
    /// A card that cannot be written now.
    #[error("{why}")]
    NotReady {
        /// Why not, and what to do.
        why: String,
    },
    /// A system whose cards cannot be read.
    #[error("The access system {system} does not tell what is on a card")]
    CannotRead {
        /// Which system.
        system: SystemName,
    },
    /// An encoder of another system.
    #[error("This encoder belongs to another access system than the card")]
    EncoderElsewhere,
    /// A card that devices know by its number, on an encoder that does not tell it.
    #[error(
        "This encoder does not tell the number of a card's chip, by which the devices of this access grant know cards: use one of \
         a system that reads them"
    )]
    EncoderReadsNoNumbers,
    /// More webhooks than a workspace may have.
    #[error("A workspace has at most {most} webhooks: delete one that is not needed")]
    TooManyWebhooks {
        /// How many it may have.
        most: u32,
    },
    /// The card is being written on another encoder.
    #[error("This card is being encoded on another encoder; wait for that attempt to end")]
    AlreadyEncoding,
}

/// Which kind of refusal: it decides the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request cannot be right.
    Invalid,
    /// Something that was named is not there.
    NotFound,
    /// The request is right, but not beside what is there.
    Conflict,
}

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A person.
    UserIdentity,
    /// A group of doors.
    Space,
    /// A grant.
    AccessGrant,
    /// A method.
    AccessMethod,
    /// An attempt.
    ActionAttempt,
    /// A system.
    AcsSystem,
    /// A door.
    AcsEntrance,
    /// An encoder.
    AcsEncoder,
    /// A device.
    Device,
    /// An address that events are delivered to.
    Webhook,
}

impl Resource {
    fn words(self) -> &'static str {
        match self {
            Self::UserIdentity => "user identity",
            Self::Space => "space",
            Self::AccessGrant => "access grant",
            Self::AccessMethod => "access method",
            Self::ActionAttempt => "action attempt",
            Self::AcsSystem => "access system",
            Self::AcsEntrance => "entrance",
            Self::AcsEncoder => "encoder",
            Self::Device => "device",
            Self::Webhook => "webhook",
        }
    }
}

impl Refused {
    /// Something that was named is not there.
    pub fn not_found(resource: Resource, id: impl ToString) -> Self {
        Self::NotFound { resource, id: id.to_string() }
    }

    /// Its stable name.
    ///
    /// Names of ours, where no public ones exist: `access_method_already_encoding`, `access_method_not_a_card`,
    /// `access_method_not_a_cloud_key`, `access_method_not_ready_for_encoding`, `access_method_not_valid`,
    /// `acs_encoder_of_another_system`, `card_assignment_not_supported`, `too_many_webhooks`, and what ends in `_has_access_grants`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFound { resource, .. } => match resource {
                Resource::UserIdentity => "user_identity_not_found",
                Resource::Space => "space_not_found",
                Resource::AccessGrant => "access_grant_not_found",
                Resource::AccessMethod => "access_method_not_found",
                Resource::ActionAttempt => "action_attempt_not_found",
                Resource::AcsSystem => "acs_system_not_found",
                Resource::AcsEntrance => "acs_entrance_not_found",
                Resource::AcsEncoder => "acs_encoder_not_found",
                Resource::Device => "device_not_found",
                Resource::Webhook => "webhook_not_found",
            },
            Self::Taken { resource, .. } => match resource {
                Resource::UserIdentity => "user_identity_already_exists",
                Resource::Space => "space_key_already_exists",
                _ => "access_grant_key_already_exists",
            },
            Self::StillNeeded { resource, .. } => match resource {
                Resource::UserIdentity => "user_identity_has_access_grants",
                _ => "space_has_access_grants",
            },
            Self::IdentityUnclear
            | Self::IdentityNameless
            | Self::NothingTargeted
            | Self::EndsBeforeStart
            | Self::EndsInPast
            | Self::EndRequired { .. }
            | Self::ParentInside
            | Self::TooManyDoors { .. } => "invalid_input",
            Self::ReservationKeyRequired => "reservation_key_required",
            Self::ReservationKeyNotSupported => "reservation_key_not_supported",
            Self::ReservationElsewhere => "reservation_entrance_change_requires_cleanup",
            Self::ReservationRoomsConflict => "reservation_joiner_entrance_set_conflict",
            Self::ReservationTimesApart => "reservation_time_frames_must_overlap",
            Self::NotACard { .. } => "access_method_not_a_card",
            Self::NotACloudKey { .. } => "access_method_not_a_cloud_key",
            Self::KeyNotValid { .. } => "access_method_not_valid",
            Self::AssignmentNotSupported => "card_assignment_not_supported",
            Self::CannotCreate { .. } => "cannot_create_requested_access_methods",
            Self::NotReady { .. } => "access_method_not_ready_for_encoding",
            Self::CannotRead { .. } => "scan_credential_not_supported",
            Self::EncoderElsewhere => "acs_encoder_of_another_system",
            Self::EncoderReadsNoNumbers => "acs_encoder_reads_no_card_numbers",
            Self::AlreadyEncoding => "access_method_already_encoding",
            Self::TooManyWebhooks { .. } => "too_many_webhooks",
        }
    }

    /// The parameter to blame, for what is `invalid_input`.
    #[must_use]
    pub fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::IdentityUnclear => Some("user_identity_id"),
            Self::IdentityNameless => Some("user_identity_key"),
            Self::NothingTargeted | Self::TooManyDoors { .. } => Some("acs_entrance_ids"),
            Self::ParentInside => Some("parent_space_id"),
            Self::EndsBeforeStart | Self::EndsInPast | Self::EndRequired { .. } => Some("ends_at"),
            _ => None,
        }
    }

    /// Which kind of refusal it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::NotFound,
            Self::Taken { .. }
            | Self::StillNeeded { .. }
            | Self::ReservationElsewhere
            | Self::ReservationRoomsConflict
            | Self::ReservationTimesApart
            | Self::AlreadyEncoding
            | Self::TooManyWebhooks { .. } => Class::Conflict,
            _ => Class::Invalid,
        }
    }
}
