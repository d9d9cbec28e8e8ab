//! Typed UUIDs: one type per kind of thing, so that a grant's id cannot be passed where a method's is meant.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )*};
}

ids! {
    /// One job, as the cloud named it; the idempotency key of everything done for it.
    JobId,
    /// A tenant of the cloud; in every row of its store.
    WorkspaceId,
    /// One site's agent, as the cloud knows it.
    BridgeId,
    /// An access system, e.g. one SALTO SPACE server.
    AcsSystemId,
    /// A door of an access system.
    AcsEntranceId,
    /// A card encoder of an access system.
    AcsEncoderId,
    /// A card as the access system knows it; the result of an encode.
    AcsCredentialId,
    /// The account through which a system or device was connected; one per system here.
    ConnectedAccountId,
    /// A standalone device, e.g. a lock.
    DeviceId,
    /// A person to whom access is granted.
    UserIdentityId,
    /// A named group of entrances and devices.
    SpaceId,
    /// Who, where, when and how.
    AccessGrantId,
    /// One credential of a grant: a card, a code, a mobile key.
    AccessMethodId,
    /// One attempt to do something at a device, e.g. to encode a card.
    ActionAttemptId,
    /// One event of the feed.
    EventId,
    /// One address that events are delivered to.
    WebhookId,
}
