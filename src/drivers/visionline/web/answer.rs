//! What stands in answers.
//!
//! Which status an error has and how it is spelled is not published. What is not a success is taken to the safe side: for
//! a call that makes a key, trouble within the server is a doubt.

use jiff::civil::DateTime;
use serde::Deserialize;
use serde_json::Value;

use super::{
    call::Call,
    codec::{SessionKey, parse_local_time},
};
use crate::{
    model::{Code, Private, Refusal},
    transport::http,
};

/// Most cards or doors of a list that are taken.
pub const MOST: usize = 10_000;
/// Longest id, name or key that is taken, in bytes.
const LONGEST: usize = 256;
/// Most that is repeated of what a server says, in characters.
const SAID: usize = 200;

/// What an answer means, before its body is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// As asked.
    Good,
    /// The session is not, or no longer, good: nothing was done.
    NotSignedIn(Refusal),
    /// Not done.
    Refused(Refusal),
    /// It may have been done.
    Doubt(Refusal),
}

/// A door as the server knows it. What it did not say is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Door {
    /// By which it is named in calls: a room's name.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its category, in the server's word.
    pub category: String,
}

/// A card as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its id.
    pub id: String,
    /// Whether nothing has replaced or ended it, as far as the server says. A card of which it does not say whether it was
    /// overridden counts as one that was.
    pub is_live: bool,
    /// Until when it opens, in local time.
    pub end: Option<DateTime>,
    /// Its chips, in hexadecimal, without the padding.
    pub serials: Vec<String>,
    /// The guest doors on it.
    pub doors: Vec<String>,
}

/// What the status of an answer to `call` means.
#[must_use]
pub fn status(call: &Call, heard: &http::Answer) -> Status {
    let refusal = |code, what: &str| {
        let said = said(&heard.body);
        let said = said.map(|said| format!(" ({said:?})")).unwrap_or_default();
        Refusal::by_device(
            code,
            format!("HTTP {}", heard.status),
            format!("Visionline's Web API {what}{said}"),
        )
    };
    match heard.status {
        200..=299 => Status::Good,
        401 => Status::NotSignedIn(refusal(Code::Auth, "does not let this user in, or not any more")),
        403 => Status::Refused(refusal(Code::Auth, "does not let this user do that")),
        404 => Status::Refused(refusal(Code::RoomUnknown, "knows no such door or card")),
        400..=499 => Status::Refused(refusal(Code::Rejected, "refuses that")),
        _ if call.makes_a_key() => {
            Status::Doubt(refusal(Code::NoAnswer, "had a trouble of its own; the key may have been made"))
        }
        _ => Status::Refused(refusal(Code::SystemOffline, "had a trouble of its own")),
    }
}

/// The key of a session that was opened.
#[must_use]
pub fn session(body: &[u8]) -> Option<SessionKey> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Opened {
        id: String,
        access_key: Private,
    }
    let opened: Opened = serde_json::from_slice(body).ok()?;
    // It will stand in a header.
    let sayable = |text: &str| {
        !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let is_key = !opened.access_key.expose().is_empty() && opened.access_key.expose().len() <= LONGEST;
    (sayable(&opened.id) && is_key).then_some(SessionKey { id: opened.id, access_key: opened.access_key })
}

/// The doors of a list, with or without details.
#[must_use]
pub fn doors(body: &[u8]) -> Option<Vec<Door>> {
    list(body)?
        .iter()
        .map(|door| {
            let id = text(door, "doorID").or_else(|| text(door, "id"))?;
            Some(Door {
                id: id.to_owned(),
                name: text(door, "doorName").unwrap_or_default().to_owned(),
                category: text(door, "doorCategory").unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// The ids of a list.
#[must_use]
pub fn ids(body: &[u8]) -> Option<Vec<String>> {
    list(body)?.iter().map(|card| text(card, "id").map(str::to_owned)).collect()
}

/// One card.
#[must_use]
pub fn card(body: &[u8]) -> Option<Card> {
    let card: Value = serde_json::from_slice(body).ok()?;
    let is = |name: &str| card.get(name).and_then(Value::as_bool);
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        all.filter(|text| text.len() <= LONGEST).map(str::to_owned).collect()
    };
    let operations = card.get("doorOperations").and_then(Value::as_array).into_iter().flatten();
    let guest = operations.filter(|operation| text(operation, "operation") == Some("guest"));
    Some(Card {
        id: text(&card, "id")?.to_owned(),
        is_live: is("overridden") == Some(false)
            && ["overwritten", "cancelled", "discarded", "expired"].iter().all(|name| is(name) != Some(true)),
        end: text(&card, "expireTime").and_then(parse_local_time),
        serials: card
            .get("serialNumbers")
            .map(texts)
            .unwrap_or_default()
            .iter()
            .map(|serial| without_padding(serial))
            .collect(),
        doors: guest.filter_map(|operation| operation.get("doors").map(texts)).flatten().collect(),
    })
}

/// The id of a telephone's key that was made.
#[must_use]
pub fn credential(body: &[u8]) -> Option<String> {
    let made: Value = serde_json::from_slice(body).ok()?;
    text(&made, "credentialId").map(str::to_owned)
}

/// What goes into a chip's pages from page 4 on, four bytes each, up to page 15.
#[must_use]
pub fn image(body: &[u8]) -> Option<Vec<[u8; 4]>> {
    let made: Value = serde_json::from_slice(body).ok()?;
    let digits = text(&made, "encryptedImage")?.as_bytes();
    if digits.is_empty() || digits.len() % 8 != 0 || digits.len() > 12 * 8 {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    digits
        .chunks_exact(8)
        .map(|page| {
            let bytes: Option<Vec<u8>> = page.chunks_exact(2).map(byte).collect();
            bytes?.try_into().ok()
        })
        .collect()
}

/// A chip's number without what fills it up behind: the server writes `ff` after seven bytes.
#[must_use]
pub fn without_padding(serial: &str) -> String {
    let serial = serial.to_ascii_lowercase();
    match serial.strip_suffix("ff") {
        Some(rest) if rest.len() == 14 => rest.to_owned(),
        _ => serial,
    }
}

fn list(body: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(all) if all.len() <= MOST => Some(all),
        _ => None,
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty() && text.len() <= LONGEST)
}

/// What a server says of an error, if it says it in one of the usual ways.
fn said(body: &[u8]) -> Option<String> {
    let error: Value = serde_json::from_slice(body).ok()?;
    let said: Vec<String> = ["message", "error", "errorCode", "code"]
        .iter()
        .filter_map(|name| match error.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
        .collect();
    let plain = |sign: char| if sign.is_control() { ' ' } else { sign };
    let said: String = said.join(", ").chars().map(plain).take(SAID).collect();
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(status: u16, body: &str) -> http::Answer {
        http::Answer { status, content_type: None, date: None, body: body.into() }
    }

    fn key() -> Call {
        Call::CardImage(super::super::call::CardImage {
            joins: false,
            serial: "04A1B2C3D4E580".into(),
            holder: "101".into(),
            doors: vec!["101".into()],
            start: jiff::civil::date(2026, 11, 21).at(15, 0, 0, 0),
            end: jiff::civil::date(2026, 11, 24).at(11, 0, 0, 0),
        })
    }

    #[test]
    fn trouble_within_the_server_is_a_doubt_for_what_makes_a_key_and_a_refusal_is_none() {
        for (code, doubt) in [(500, true), (503, true), (302, true), (400, false), (404, false), (409, false)]
        {
            let status = status(&key(), &heard(code, ""));
            assert_eq!(matches!(status, Status::Doubt(_)), doubt, "{code}: {status:?}");
        }
        let read = Call::Doors { details: true };
        assert!(matches!(status(&read, &heard(500, "")), Status::Refused(_)));
        assert!(matches!(status(&read, &heard(401, "")), Status::NotSignedIn(_)));
    }

    #[test]
    fn what_a_server_says_is_repeated_without_control_signs_and_not_endlessly() {
        let body = format!(r#"{{"message":"no\u001b[31m {}","code":42}}"#, "x".repeat(1000));
        let Status::Refused(refusal) = status(&Call::Doors { details: false }, &heard(400, &body)) else {
            panic!()
        };
        assert!(refusal.message.len() < 300, "{}", refusal.message);
        assert!(!refusal.message.contains('\u{1b}'));
        assert_eq!(refusal.vendor_code.as_deref(), Some("HTTP 400"));
    }

    #[test]
    fn a_card_is_live_only_where_the_server_says_that_nothing_replaced_it() {
        let live = |flags: &str| card(format!(r#"{{"id":"1"{flags}}}"#).as_bytes()).unwrap().is_live;
        assert!(live(r#","overridden":false"#));
        assert!(live(r#","overridden":false,"overwritten":false,"cancelled":false,"discarded":false"#));
        assert!(!live(""), "it does not say");
        assert!(!live(r#","overridden":"false""#));
        for other in ["overwritten", "cancelled", "discarded", "expired"] {
            assert!(!live(&format!(r#","overridden":false,"{other}":true"#)), "{other}");
        }
    }

    #[test]
    fn a_session_that_could_not_stand_in_a_header_is_none() {
        assert!(session(br#"{"id":"5f0c","accessKey":"k"}"#).is_some());
        for wrong in [
            r#"{"id":"a b","accessKey":"k"}"#,
            r#"{"id":"a\r\nX: y","accessKey":"k"}"#,
            r#"{"id":"","accessKey":"k"}"#,
            r#"{"id":"a","accessKey":""}"#,
            r#"{"id":"a"}"#,
            "[]",
            "",
        ] {
            assert_eq!(session(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn an_image_is_whole_pages_that_a_chip_has() {
        let of = |digits: &str| image(format!(r#"{{"encryptedImage":"{digits}"}}"#).as_bytes());
        assert_eq!(of("0011223344556677"), Some(vec![[0, 0x11, 0x22, 0x33], [0x44, 0x55, 0x66, 0x77]]));
        assert_eq!(of(&"ab".repeat(48)).map(|pages| pages.len()), Some(12));
        for wrong in ["", "001122", "0011223z", &"ab".repeat(52)] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_chips_padding_is_taken_off_and_nothing_else() {
        assert_eq!(without_padding("04A1B2C3D4E580FF"), "04a1b2c3d4e580");
        assert_eq!(without_padding("04a1b2c3d4e5ff"), "04a1b2c3d4e5ff", "seven bytes that end so");
        assert_eq!(without_padding("ff"), "ff");
    }
}
