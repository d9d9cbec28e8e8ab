//! When a peer says to come again: `Retry-After` and the close codes of websockets. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::machine::Again;

/// The peer's wish as `Retry-After` carries it: seconds, or a date. A date is taken against the date of the same
/// answer where it has one, because this machine's clock may be wrong.
pub(super) fn retry_after(value: &str, answered: Option<&str>, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds mean a long time too.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = date(value)?;
    let from = answered.and_then(date).unwrap_or(now);
    Some(Duration::try_from(until.duration_since(from)).unwrap_or_default())
}

fn date(text: &str) -> Option<Timestamp> {
    Some(jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp())
}

/// What the close code of a websocket means for a link.
pub(super) struct Closing {
    /// Stable name.
    pub(super) code: &'static str,
    /// For a person.
    pub(super) meaning: &'static str,
    /// When to come again.
    pub(super) again: Again,
    /// Whether coming again can help at all.
    pub(super) is_curable: bool,
}

/// The meaning of a close code (RFC 6455, 7.4, and the registry of IANA).
pub(super) fn closing(number: u16) -> Closing {
    let soon = |code, meaning| Closing { code, meaning, again: Again::Soon, is_curable: true };
    let never = |code, meaning| Closing { code, meaning, again: Again::Soon, is_curable: false };
    let later = |code, meaning, after, spread| {
        let again =
            Again::NotBefore { after: Duration::from_secs(after), spread: Duration::from_secs(spread) };
        Closing { code, meaning, again, is_curable: true }
    };
    match number {
        1000 => soon("link_closed", "it has nothing more to say"),
        1001 => soon("link_closed", "it goes away, or restarts"),
        // The websocket library also turns codes it does not know into this one, 1014 (a gateway's) among them.
        1002 => soon(
            "link_closed_protocol",
            "it found our words against the websocket protocol, or broke it itself",
        ),
        1003 => never("link_closed_protocol", "it cannot take the kind of message we sent"),
        1007 => never("link_closed_protocol", "it found a text of ours that is none"),
        1008 => never("link_closed_policy", "it refuses this bridge: ask who runs the cloud"),
        1009 => soon("link_closed_too_large", "a message of ours is larger than it takes"),
        1010 => never("link_closed_protocol", "it misses an extension: update the older side"),
        1011 => soon("link_cloud_failed", "it met an error of its own"),
        // A restart brings every bridge at once: the registry asks for 5 to 30 seconds, at random.
        1012 => later("link_cloud_restarting", "it restarts", 5, 25),
        1013 => later("link_cloud_busy", "it has too much to do", 30, 30),
        3000 => never("link_token_refused", "it does not know who we are"),
        3003 => never("link_forbidden", "it knows who we are, and will not have us"),
        3008 => soon("link_closed", "we took too long"),
        // The private ones.
        _ => soon("link_closed", "it gave a reason that is not known here"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[track_caller]
    fn check(value: &str, answered: Option<&str>, seconds: Option<u64>) {
        assert_eq!(retry_after(value, answered, now()), seconds.map(Duration::from_secs), "{value}");
    }

    #[test]
    fn a_wish_is_seconds_or_a_date() {
        check("120", None, Some(120));
        check(" 0 ", None, Some(0));
        check("99999999999999999999999", None, Some(u64::MAX));
        check("Sun, 22 Nov 2026 12:02:00 GMT", None, Some(120));
        check("Sun, 22 Nov 2026 11:00:00 GMT", None, Some(0));
        // The clock here is a year off: the answer's own date is what counts.
        check("Mon, 22 Nov 2027 12:00:30 GMT", Some("Mon, 22 Nov 2027 12:00:00 GMT"), Some(30));
        check("Sun, 22 Nov 2026 12:02:00 GMT", Some("yesterday"), Some(120));
        for nothing in ["", "soon", "-5", "1.5", "Sun, 99 Nov 2026 12:02:00 GMT"] {
            check(nothing, None, None);
        }
    }

    proptest! {
        #[test]
        fn no_wish_panics(value: String, answered: Option<String>) {
            let _ = retry_after(&value, answered.as_deref(), now());
        }
    }

    #[test]
    fn every_close_code_means_something() {
        for number in 0..=u16::MAX {
            let closing = closing(number);
            assert!(closing.code.starts_with("link_") && !closing.meaning.is_empty());
        }
    }
}
