//! A record of `latchd probe`, played back: a peer that says byte for byte what was recorded, and refuses what was not.
//!
//! Over a plain line the record is one story. A connection that is made while no other is open begins it, and a further
//! one goes on where it stands; each of our recorded texts has to come exactly as it was, and brings what was answered.
//! Anything else ends the connection, and stands in the ledger with what would have been right.
//!
//! Over HTTP each request is answered by itself, in any order: its tags have to be those of a recorded one, since its
//! texts are another's each time. What was not recorded is answered with HTTP 404.
//!
//! # What it does not imitate
//! Pauses between answers, serial lines, Visionline's Web API, and a peer that hung up: none of these is in a record. Names and times are those of
//! nobody, as the record has them; whoever asks has to use its names.

mod player;

use serde::Deserialize;
use serde_json::Value;

pub use player::{Front, FrontError, Options, Places};

/// Why a record cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It is no list of vectors.
    #[error("the record is no JSON list as `latchd probe --record` writes it")]
    Json(#[from] serde_json::Error),
    /// Nothing was recorded.
    #[error("the record is empty: record a system that answers")]
    Empty,
    /// An entry says what nobody knows.
    #[error("{field} of entry {id} is {value:?}; {fix}")]
    Entry {
        /// Which.
        id: String,
        /// Which of its fields.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What could.
        fix: &'static str,
    },
}

#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    protocol: String,
    direction: String,
    bytes_hex: String,
    #[serde(default)]
    decoded: Value,
}

/// The protocol of lines that are left out.
const NOT_PLAYED: &str = "visionline_web";

/// What was recorded of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    protocol: String,
    is_http: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    is_ours: bool,
    bytes: Vec<u8>,
    /// Of an answer over HTTP.
    status: u16,
}

/// What a line brings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Turn {
    /// What is answered.
    say: Vec<u8>,
    /// Why the line ends then.
    refused: Option<String>,
}

impl Script {
    /// Reads a record.
    ///
    /// # Errors
    /// When it is none, or is empty.
    pub fn read(text: &str) -> Result<Self, ScriptError> {
        let mut lines: Vec<Line> = serde_json::from_str(text)?;
        // What Visionline's Web API said stands there to be read, and is not played.
        lines.retain(|line| line.protocol != NOT_PLAYED);
        let protocol = lines.first().ok_or(ScriptError::Empty)?.protocol.clone();
        let is_http = protocol == "kaba_messenger";
        let steps = lines.into_iter().map(|line| step(&protocol, line)).collect::<Result<_, _>>()?;
        Ok(Self { protocol, is_http, steps })
    }

    /// Which make was recorded, as a configuration's `kind` names it.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Goes on at a step with what was heard and not yet taken, over a plain line.
    fn go_on(&self, at: &mut usize, heard: &mut Vec<u8>) -> Turn {
        let mut turn = Turn::default();
        loop {
            match self.steps.get(*at) {
                Some(step) if !step.is_ours => turn.say.extend_from_slice(&step.bytes),
                _ if heard.is_empty() => return turn,
                None => {
                    turn.refused = Some(format!("nothing more was recorded, heard {}", shown(heard)));
                    return turn;
                }
                Some(step) if heard.starts_with(&step.bytes) => drop(heard.drain(..step.bytes.len())),
                Some(step) if step.bytes.starts_with(heard) => return turn,
                Some(step) => {
                    turn.refused =
                        Some(format!("recorded is {}, heard {}", shown(&step.bytes), shown(heard)));
                    return turn;
                }
            }
            *at += 1;
        }
    }

    /// The recorded answer to a request over HTTP: to its query where it has no body.
    fn answer(&self, query: &str, body: &[u8]) -> Option<(u16, &[u8])> {
        let is_asked = |step: &Step| match body.is_empty() {
            true => step.bytes == query.as_bytes(),
            false => tags(&step.bytes) == tags(body),
        };
        let at = self.steps.iter().position(|step| step.is_ours && is_asked(step))?;
        let answer = self.steps.get(at + 1).filter(|step| !step.is_ours)?;
        Some((answer.status, &answer.bytes))
    }
}

fn step(protocol: &str, line: Line) -> Result<Step, ScriptError> {
    let Line { id, protocol: own, direction, bytes_hex, decoded } = line;
    let wrong = |id: String, field, value, fix| Err(ScriptError::Entry { id, field, value, fix });
    if own != protocol {
        return wrong(id, "protocol", own, "a record is of one system: split it");
    }
    if !["salto_is", "visionline", "kaba_messenger"].contains(&own.as_str()) {
        return wrong(
            id,
            "protocol",
            own,
            "\"salto_is\", \"visionline\" and \"kaba_messenger\" can be played",
        );
    }
    let is_ours = match direction.as_str() {
        "bridge->server" => true,
        "server->bridge" => false,
        _ => return wrong(id, "direction", direction, "write \"bridge->server\" or \"server->bridge\""),
    };
    let Some(bytes) = unhex(&bytes_hex).filter(|bytes| !bytes.is_empty()) else {
        return wrong(
            id,
            "bytes_hex",
            bytes_hex,
            "write at least one byte, each with two hexadecimal digits",
        );
    };
    let status = decoded["http_status"].as_u64().and_then(|status| u16::try_from(status).ok());
    Ok(Step { is_ours, bytes, status: status.unwrap_or(200) })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? * 16 + digit(*pair.get(1)?)?)).collect()
}

/// Everything between `<` and `>`, in its order.
fn tags(text: &[u8]) -> Vec<&[u8]> {
    let after = text.split(|byte| *byte == b'<').skip(1);
    after.filter_map(|rest| rest.split(|byte| *byte == b'>').next()).collect()
}

/// The front of some bytes, for a person.
fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let front = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    format!("\"{front}{}\"", if SHOWN < bytes.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(protocol: &str, direction: &str, bytes: &[u8], status: u16) -> Value {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::json!({
            "id": "site-1", "protocol": protocol, "direction": direction, "bytes_hex": hex,
            "decoded": { "http_status": status },
        })
    }

    fn story() -> Script {
        let said = |direction, bytes: &[u8]| entry("salto_is", direction, bytes, 200);
        let all = [
            said("bridge->server", b"\x05"),
            said("server->bridge", b"\x06"),
            said("bridge->server", b"ask"),
            said("server->bridge", b"\x06"),
            said("server->bridge", b"answer"),
            said("bridge->server", b"\x06"),
        ];
        Script::read(&serde_json::to_string(&all).unwrap()).unwrap()
    }

    fn turn(say: &[u8]) -> Turn {
        Turn { say: say.into(), refused: None }
    }

    #[test]
    fn a_story_goes_on_by_each_byte_that_was_recorded() {
        let (script, mut at, mut heard) = (story(), 0, Vec::new());
        for (byte, said) in [(5, &b"\x06"[..]), (b'a', b""), (b's', b""), (b'k', b"\x06answer"), (6, b"")] {
            heard.push(byte);
            assert_eq!(script.go_on(&mut at, &mut heard), turn(said), "{byte}");
        }
        assert!(heard.is_empty());
        heard.push(5);
        let refused = script.go_on(&mut at, &mut heard).refused.unwrap();
        assert!(refused.contains("nothing more"), "{refused}");
    }

    #[test]
    fn a_text_that_was_not_recorded_is_refused_with_what_was() {
        let (script, mut at, mut heard) = (story(), 0, b"\x05axe".to_vec());
        let Turn { say, refused } = script.go_on(&mut at, &mut heard);
        assert_eq!((say.as_slice(), at), (&b"\x06"[..], 2));
        let refused = refused.unwrap();
        assert!(refused.contains("\"ask\"") && refused.contains("\"axe\""), "{refused}");
    }

    #[test]
    fn a_request_is_known_by_its_tags_and_a_query_by_its_text() {
        let said = |direction, bytes: &[u8], status| entry("kaba_messenger", direction, bytes, status);
        let all = [
            said("bridge->server", b"<a><b>USER</b></a>", 200),
            said("server->bridge", b"<ok/>", 500),
            said("bridge->server", b"wsdl", 200),
            said("server->bridge", b"<w/>", 200),
        ];
        let script = Script::read(&serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(script.answer("", b"<a><b>pms</b></a>"), Some((500, &b"<ok/>"[..])));
        assert_eq!(script.answer("", b"<a><c>pms</c></a>"), None);
        assert_eq!(script.answer("wsdl", b""), Some((200, &b"<w/>"[..])));
        assert_eq!(script.answer("disco", b""), None);
    }

    #[test]
    fn a_record_that_is_none_is_refused_by_its_entry() {
        let refused = |text: &str| Script::read(text).unwrap_err().to_string();
        assert!(refused("[]").contains("empty"));
        assert!(refused("{}").contains("--record"));
        let with = |field: &str, value: &str| {
            let mut one = entry("salto_is", "bridge->server", b"\x05", 200);
            one[field] = value.into();
            refused(&serde_json::to_string(&[one]).unwrap())
        };
        assert!(with("direction", "up").contains("direction of entry site-1 is \"up\""));
        assert!(with("bytes_hex", "0").contains("bytes_hex of entry site-1"));
        assert!(with("bytes_hex", "").contains("at least one byte"));
        assert!(with("protocol", "osdp").contains("can be played"));
        let two = [
            entry("salto_is", "bridge->server", b"\x05", 200),
            entry("visionline", "bridge->server", b"C", 200),
        ];
        assert!(refused(&serde_json::to_string(&two).unwrap()).contains("of one system"));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_peer_panic_or_are_kept(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (script, mut at, mut heard) = (story(), 0, Vec::new());
            for byte in bytes {
                heard.push(byte);
                if script.go_on(&mut at, &mut heard).refused.is_some() {
                    break;
                }
                prop_assert!(heard.len() < 4);
            }
        }
    }
}
