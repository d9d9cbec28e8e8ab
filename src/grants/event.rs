//! What the feed tells.

use crate::model::{
    AccessGrantId, AccessMethodId, AcsCredentialId, AcsEncoderId, AcsEntranceId, AcsSystemId, DeviceId,
    Private,
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type, as clients know it.
    pub kind: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// For a person, where the type carries a message.
    pub message: Option<String>,
    /// The PIN, where the type carries one.
    pub code: Option<Private>,
    /// The devices that have nothing, where the type names them.
    pub missing_devices: Vec<DeviceId>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A grant.
    Grant(AccessGrantId),
    /// A grant at one of its doors.
    GrantAtDoor(AccessGrantId, AcsEntranceId),
    /// A method of a grant.
    Method(AccessMethodId, AccessGrantId),
    /// An access system.
    System(AcsSystemId),
    /// A door of an access system.
    Entrance(AcsEntranceId, AcsSystemId),
    /// An encoder of an access system.
    Encoder(AcsEncoderId, AcsSystemId),
    /// A card of an access system.
    Credential(AcsCredentialId, AcsSystemId),
    /// A device of an access system.
    Device(DeviceId, AcsSystemId),
}

impl Event {
    /// An event without a message.
    #[must_use]
    pub fn new(kind: &'static str, subject: Subject) -> Self {
        Self { kind, subject, message: None, code: None, missing_devices: Vec::new() }
    }

    /// An event of a grant.
    #[must_use]
    pub fn grant(kind: &'static str, grant: AccessGrantId) -> Self {
        Self::new(kind, Subject::Grant(grant))
    }

    /// An event of a method.
    #[must_use]
    pub fn method(kind: &'static str, method: AccessMethodId, grant: AccessGrantId) -> Self {
        Self::new(kind, Subject::Method(method, grant))
    }

    /// The event for what [`super::GrantProblem`] says.
    #[must_use]
    pub fn could_not_create(grant: AccessGrantId, message: String) -> Self {
        let kind = "access_grant.could_not_create_requested_access_methods";
        Self { message: Some(message), ..Self::new(kind, Subject::Grant(grant)) }
    }

    /// The same, naming devices that have nothing.
    #[must_use]
    pub fn for_devices(self, missing_devices: Vec<DeviceId>) -> Self {
        Self { missing_devices, ..self }
    }

    /// The same with a PIN.
    #[must_use]
    pub fn with_code(self, code: Private) -> Self {
        Self { code: Some(code), ..self }
    }
}
