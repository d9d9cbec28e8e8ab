//! One text message of the websocket.

use super::{Frame, place, signing::Packet};

/// What one websocket message holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A frame that needs no signature.
    Bare(Frame),
    /// A frame with its signature.
    Signed(Packet),
}

/// Why a websocket message is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It is not of this language. Names the place, never the content: it may be private.
    #[error("a frame that is not of this language: {0}")]
    Malformed(String),
    /// A frame of this kind has to be signed.
    #[error("a frame that must be signed is not: {0}")]
    Unsigned(&'static str),
}

impl Said {
    /// Reads a message; who said it and whether it counts is for [`Listener::hear`](super::signing::Listener::hear).
    ///
    /// # Errors
    /// When it is not of this language, or not signed and of a kind that has to be.
    pub fn read(text: &str) -> Result<Self, NotTaken> {
        #[derive(serde::Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            r#type: &'a str,
        }
        let malformed = |error: serde_json::Error| NotTaken::Malformed(place(text, &error));
        let head: Head<'_> = serde_json::from_str(text).map_err(malformed)?;
        if head.r#type == "signed" {
            return serde_json::from_str(text).map(Self::Signed).map_err(malformed);
        }
        match serde_json::from_str(text).map_err(malformed)? {
            frame @ (Frame::Ping { .. } | Frame::Pong { .. } | Frame::Refused(_)) => Ok(Self::Bare(frame)),
            frame => Err(NotTaken::Unsigned(frame.name())),
        }
    }

    /// The text that travels.
    #[must_use]
    pub fn to_text(&self) -> String {
        #[derive(serde::Serialize)]
        #[serde(tag = "type", rename = "signed")]
        struct Signed<'a> {
            #[serde(flatten)]
            packet: &'a Packet,
        }
        let text = match self {
            Self::Bare(frame) => serde_json::to_string(frame),
            Self::Signed(packet) => serde_json::to_string(&Signed { packet }),
        };
        text.expect("a frame has string keys only")
    }

    /// What was signed, if it was.
    #[must_use]
    pub fn into_body(self) -> Option<String> {
        match self {
            Self::Bare(_) => None,
            Self::Signed(packet) => Some(packet.body),
        }
    }
}
