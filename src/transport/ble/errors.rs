//! What BlueZ's errors mean. They are told apart by their names; the texts differ from version to version.

use bluez_async::BluetoothError;

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The peer, or the daemon for it, refused: the same again would be refused again.
    Refused,
    /// The link is gone, or came to nothing; another try may do better.
    Again,
    /// This connection to the bus is of no use any more.
    Recycle,
}

/// The name that an error has on the bus.
fn name(error: &btleplug::Error) -> Option<String> {
    let btleplug::Error::Other(inner) = error else {
        return None;
    };
    match inner.downcast_ref::<BluetoothError>()? {
        BluetoothError::DbusError(error) => Some(error.name()?.to_owned()),
        _ => None,
    }
}

pub(super) fn class(error: &btleplug::Error) -> Class {
    match error {
        btleplug::Error::NotSupported(_) | btleplug::Error::PermissionDenied => return Class::Refused,
        btleplug::Error::Other(_) => {}
        _ => return Class::Again,
    }
    let name = name(error).unwrap_or_default();
    let text = error.to_string();
    let word = name.rsplit('.').next().unwrap_or_default();
    match word {
        "LimitsExceeded" | "Disconnected" => Class::Recycle,
        _ if text.contains("Failed to send message") => Class::Recycle,
        "NotPermitted" | "NotAuthorized" | "NotSupported" | "InvalidArguments" => Class::Refused,
        // The peer's own answer, but for the one that a lost link is told by as well.
        "Failed" if text.contains("ATT error: 0x") && !text.contains("0x0e") => Class::Refused,
        _ => Class::Again,
    }
}

/// Whether a peer's answer to a write may also mean that the link was lost.
pub(super) fn is_unlikely_error(error: &btleplug::Error) -> bool {
    error.to_string().contains("ATT error: 0x0e")
}

/// Whether somebody else, or this side itself, still has a call of the same kind under way.
pub(super) fn is_in_progress(error: &btleplug::Error) -> bool {
    name(error).is_some_and(|name| name.ends_with(".InProgress"))
}
