//! How calls are spelled and signed.
//!
//! The signature covers the request's verb, the digest and the type of its body, its date, and path and query exactly as
//! they go out. Each of them is spelled once and used twice.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp, civil::DateTime, fmt::strtime, tz::TimeZone};
use md5::{Digest as _, Md5};
use ring::hmac;

use super::call::Call;
use crate::{
    model::Private,
    transport::http::{Ask, Method},
};

/// The type of every body. Other spellings occur; the signature covers the one that is sent.
pub const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// What a session is known by, and what signs its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKey {
    /// The session's id.
    pub id: String,
    /// The text that signs; used as it is, not as the base64 that it looks like.
    pub access_key: Private,
}

/// A call as it goes out at `now`, signed with a session's key where there is one.
#[must_use]
pub fn ask(call: &Call, now: Timestamp, key: Option<&SessionKey>) -> Ask {
    let body = call.body().map(|body| in_ascii(&body).into_bytes()).unwrap_or_default();
    let resource = call.resource();
    let date = date(now);
    let digest = if body.is_empty() { String::new() } else { STANDARD.encode(Md5::digest(&body)) };
    let mut headers = Vec::new();
    if !body.is_empty() {
        headers.push(("content-type", CONTENT_TYPE.to_owned()));
        headers.push(("content-md5", digest.clone()));
    }
    headers.push(("date", date.clone()));
    if let Some(key) = key {
        let text = text_to_sign(&call.method(), &digest, &date, &resource);
        headers.push(("authorization", format!("AWS {}:{}", key.id, signature(&key.access_key, &text))));
    }
    Ask { method: call.method(), resource, headers, body }
}

/// What is signed: verb, digest, type, date, path and query, with a line feed between each.
#[must_use]
pub fn text_to_sign(method: &Method, digest: &str, date: &str, resource: &str) -> String {
    let content_type = if digest.is_empty() { "" } else { CONTENT_TYPE };
    format!("{method}\n{digest}\n{content_type}\n{date}\n{resource}")
}

/// HMAC-SHA1 of a text, as base64.
#[must_use]
pub fn signature(access_key: &Private, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, access_key.expose().as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

/// JSON in plain ASCII: what is not is escaped. The maker's example computes the digest over another character set than it
/// sends, and only for ASCII do both agree.
#[must_use]
pub fn in_ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for sign in json.chars() {
        if sign.is_ascii() {
            ascii.push(sign);
            continue;
        }
        for unit in sign.encode_utf16(&mut [0; 2]) {
            let _never_fails = write!(ascii, "\\u{unit:04x}");
        }
    }
    ascii
}

/// A time as the `Date` header has it: `Sat, 21 Nov 2026 15:00:05 GMT`.
#[must_use]
pub fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// By how much a server's clock is ahead of ours, from its own `Date` header.
#[must_use]
pub fn ahead(header: &str, now: Timestamp) -> Option<SignedDuration> {
    let parsed = strtime::parse("%a, %d %b %Y %H:%M:%S GMT", header).ok()?;
    let theirs = parsed.to_datetime().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(theirs.duration_since(now))
}

/// Local time as bodies and queries have it: `20261121T1500`.
#[must_use]
pub fn local_time(at: DateTime) -> String {
    at.strftime("%Y%m%dT%H%M").to_string()
}

/// What [`local_time`] writes.
#[must_use]
pub fn parse_local_time(text: &str) -> Option<DateTime> {
    strtime::parse("%Y%m%dT%H%M", text).ok()?.to_datetime().ok()
}

/// A text as a part of a path or a query. Letters, digits and `-._~` stay as they are.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            let _never_fails = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_not_ascii_is_escaped_and_reads_back_the_same() {
        let value = json!({ "description": "Hôtel \u{1F511} \"Å\"\n" });
        let ascii = in_ascii(&value.to_string());
        assert_eq!(ascii, r#"{"description":"H\u00f4tel \ud83d\udd11 \"\u00c5\"\n"}"#);
        assert_eq!(serde_json::from_str::<Value>(&ascii).unwrap(), value);
    }

    #[test]
    fn a_servers_clock_is_read_from_its_own_date() {
        let now: Timestamp = "2026-11-21T15:00:05Z".parse().unwrap();
        assert_eq!(date(now), "Sat, 21 Nov 2026 15:00:05 GMT");
        let check = |text, expected: Option<i64>| {
            assert_eq!(ahead(text, now).map(|span| span.as_secs()), expected, "{text}");
        };
        check("Sat, 21 Nov 2026 15:00:05 GMT", Some(0));
        check("Sat, 21 Nov 2026 17:30:05 GMT", Some(9000));
        check("Sat, 21 Nov 2026 14:59:05 GMT", Some(-60));
        check("Saturday, 21-Nov-26 15:00:05 GMT", None);
        check("Sat, 21 Nov 2026 15:00:05 +0100", None);
        check("", None);
    }

    #[test]
    fn a_local_time_reads_back_and_nothing_else_is_one() {
        let at = jiff::civil::date(2026, 11, 21).at(15, 0, 0, 0);
        assert_eq!(local_time(at), "20261121T1500");
        assert_eq!(parse_local_time("20261121T1500"), Some(at));
        for wrong in ["", "20261121", "20261321T1500", "20261121T2500", "20261121T1500Z", "2026-11-21T15:00"]
        {
            assert_eq!(parse_local_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_cannot_end_its_part_of_a_path_or_query() {
        assert_eq!(escaped("101"), "101");
        assert_eq!(escaped("A&b=c/d?#% é"), "A%26b%3Dc%2Fd%3F%23%25%20%C3%A9");
    }
}
