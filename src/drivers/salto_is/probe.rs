//! Harmless questions to a lock server: whether it is ready, whether it serves a second client, and, where a person lays
//! one down, what a card shows.

use std::{error::Error, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    answer::{CardShown, ErrorCode},
    codec::{self, Check, Control, Decoded, ENQ, ETX, SEPARATOR, Trailer, decode},
    command::{Command, Eject},
    driver::orders::manners,
    session::{Conversation, Result as Came},
};
use crate::{
    config::{Dialect, SaltoIsConfig},
    drivers::probe::{CardToRead, Exchange, Listened, Probed, Tools, Verdict, masked, masked_text, shown},
    model::Code,
    transport::{LineError, Target, run},
};

/// What comes this soon behind a first byte belongs to it.
const TOGETHER: Duration = Duration::from_millis(300);

const OPEN: &str = "open the line";
const POLL: &str = "ask whether it is ready (05)";
const SECOND: &str = "open a second line beside it";
const READ: &str = "read the card on the encoder";

pub(in crate::drivers) async fn probe(
    config: &SaltoIsConfig,
    tools: &Tools,
    card: Option<&CardToRead>,
) -> Probed {
    let mut probed = Probed::default();
    let target = match Target::from_config(&config.line) {
        Ok(target) => target,
        Err(error) => {
            probed.step(OPEN, "it opens", with_cause(&error), Verdict::Wrong);
            return probed;
        }
    };
    let Some(mut line) = open(&mut probed, &target, tools).await else { return probed };
    let heard = poll(&mut line, config.ack_timeout).await;
    keep(&mut probed, &mut line);
    if tell_poll(&mut probed, &target, config, &heard) {
        if target.is_tcp() {
            second(&mut probed, &target, config, tools).await;
        }
        if let Some(card) = card {
            read(&mut probed, &mut line, config, card).await;
        }
    }
    target.hang_up(line.into_port()).await;
    probed
}

async fn open(probed: &mut Probed, target: &Target, tools: &Tools) -> Option<Listened> {
    let expected = format!("{target} opens");
    match target.open(&*tools.net).await {
        Ok(port) => {
            probed.step(OPEN, expected, "it opens", Verdict::AsExpected);
            Some(Listened::new(port))
        }
        Err(error) => {
            probed.step(OPEN, expected, with_cause(&error), Verdict::Wrong);
            None
        }
    }
}

fn with_cause(error: &LineError) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// What a readiness poll brought.
enum Heard {
    Ready,
    NotReady,
    Other(Vec<u8>),
    Nothing,
    Closed,
}

async fn poll(line: &mut Listened, within: Duration) -> Heard {
    let mut bytes = vec![0; 512];
    let exchange = async {
        line.write_all(&[ENQ]).await?;
        line.read(&mut bytes).await
    };
    let count = match timeout(within, exchange).await {
        Err(_elapsed) => return Heard::Nothing,
        Ok(Ok(0) | Err(_)) => return Heard::Closed,
        Ok(Ok(count)) => count,
    };
    bytes.truncate(count);
    let mut more = [0; 512];
    while bytes.len() < codec::LONGEST {
        match timeout(TOGETHER, line.read(&mut more)).await {
            Ok(Ok(count @ 1..)) => bytes.extend_from_slice(&more[..count]),
            _ => break,
        }
    }
    match bytes.as_slice() {
        [codec::ACK] => Heard::Ready,
        [codec::NAK] => Heard::NotReady,
        _ => Heard::Other(bytes),
    }
}

fn tell_poll(probed: &mut Probed, target: &Target, config: &SaltoIsConfig, heard: &Heard) -> bool {
    let expected = "06, ready; 15 where it is busy";
    let (seen, verdict) = match heard {
        Heard::Ready => ("06, ready".to_owned(), Verdict::AsExpected),
        Heard::NotReady => {
            ("15, not ready: an encoder is at work, or the PMS interface is held up".into(), Verdict::Odd)
        }
        Heard::Other(bytes) => (
            format!(
                "{}; {}",
                shown(bytes),
                if target.is_tcp() {
                    "something else listens at this port: look up the port of the PMS interface in SPACE"
                } else {
                    "check the speed and the framing, and that nothing else is on this cable"
                }
            ),
            Verdict::Wrong,
        ),
        Heard::Nothing => (
            format!(
                "nothing within {} s: check that the PMS interface runs, that it speaks the \"Industry Standard\" \
                 protocol, and the {}",
                config.ack_timeout.as_secs(),
                if target.is_tcp() { "port" } else { "cable" }
            ),
            Verdict::Wrong,
        ),
        Heard::Closed => (
            "it closed the line before a word: the lock server seems to serve one client, and another program holds \
             it (the agent does while it runs)"
                .into(),
            Verdict::Wrong,
        ),
    };
    probed.step(POLL, expected, seen, verdict)
}

/// Whether a site may have its own desk program beside us.
async fn second(probed: &mut Probed, target: &Target, config: &SaltoIsConfig, tools: &Tools) {
    let expected = "it serves a second client as well";
    let mut line = match target.open(&*tools.net).await {
        Ok(port) => Listened::new(port),
        Err(error) => {
            probed.step(SECOND, expected, with_cause(&error), Verdict::Odd);
            return;
        }
    };
    let heard = poll(&mut line, config.ack_timeout).await;
    keep(probed, &mut line);
    target.hang_up(line.into_port()).await;
    let one = "it serves one client only: no other program can be connected while latchd is";
    let (seen, verdict) = match heard {
        Heard::Ready | Heard::NotReady => ("it answers there too".to_owned(), Verdict::AsExpected),
        Heard::Closed | Heard::Nothing => (one.to_owned(), Verdict::Odd),
        Heard::Other(bytes) => (shown(&bytes), Verdict::Odd),
    };
    probed.step(SECOND, expected, seen, verdict);
}

/// Reads a card, which changes nothing on it.
async fn read(probed: &mut Probed, line: &mut Listened, config: &SaltoIsConfig, card: &CardToRead) {
    let has_eject = config.dialect.has_eject();
    let command = Command::ReadCard {
        is_amadeus: config.dialect == Dialect::AmadeusSt40,
        encoder: card.encoder.as_str().to_owned(),
        eject: if has_eject { Eject::DoNotWait } else { Eject::Empty },
    };
    let manners = manners(config, card.within);
    let mut conversation = Conversation::new(command, manners);
    let ended = run(line, &mut conversation, |_stage| ()).await;
    keep(probed, line);
    let expected = format!("a card on encoder {}, shown with {}", card.encoder, hours_or_minutes(config));
    let (seen, verdict) = match ended.result {
        Came::Done(fields) => shows(config, &fields),
        Came::Refused(refusal) if matches!(refusal.code, Code::NoCard | Code::BadCard) => {
            (refusal.to_string(), Verdict::Odd)
        }
        Came::Refused(refusal) | Came::NothingSent(refusal) | Came::Doubt(refusal) => {
            (refusal.to_string(), Verdict::Wrong)
        }
    };
    probed.step(READ, expected, seen, verdict);
}

fn hours_or_minutes(config: &SaltoIsConfig) -> &'static str {
    if config.dialect.has_hours_only() { "times in whole hours" } else { "times in minutes" }
}

fn shows(config: &SaltoIsConfig, fields: &[String]) -> (String, Verdict) {
    let wanted = if config.dialect.has_hours_only() { 8 } else { 10 };
    match CardShown::read(fields) {
        Some(CardShown::Guest(_)) => {
            let digits = fields.get(10).map_or(0, String::len);
            let form = match digits {
                8 => "times in whole hours",
                10 => "times in minutes",
                _ => "times in a form that is not known",
            };
            match digits == wanted {
                true => (format!("a guest's card, with {form}"), Verdict::AsExpected),
                false => {
                    (format!("a guest's card, with {form}: `dialect` does not fit this server"), Verdict::Odd)
                }
            }
        }
        Some(CardShown::Staff) => ("a card of the staff".into(), Verdict::AsExpected),
        Some(CardShown::Invalid) => ("a guest's card that is not valid".into(), Verdict::AsExpected),
        Some(CardShown::Other(what)) => (what, Verdict::AsExpected),
        None => ("an answer that says nothing of a card".into(), Verdict::Odd),
    }
}

/// Takes over what has passed on a line since the last time, scrubbed.
fn keep(probed: &mut Probed, line: &mut Listened) {
    for (is_ours, bytes) in std::mem::take(&mut line.heard) {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (used, exchange) = scrubbed(is_ours, rest);
            probed.exchanges.push(exchange);
            rest = &rest[used..];
        }
    }
}

/// The front of what passed, without what is a guest's, and how many bytes that was.
fn scrubbed(is_ours: bool, bytes: &[u8]) -> (usize, Exchange) {
    let exchange = |what: &str, bytes: Vec<u8>, decoded: Value| Exchange {
        is_ours,
        what: what.to_owned(),
        bytes,
        decoded,
    };
    match decode(bytes) {
        Decoded::Control(control) => {
            let name = match control {
                Control::Enq => "ENQ",
                Control::Ack => "ACK",
                Control::Nak => "NAK",
            };
            (1, exchange(name, vec![bytes[0]], json!({ "control": name })))
        }
        Decoded::Frame { fields, check, used } => {
            let fields = scrubbed_fields(&fields);
            let trailer = if check == Check::Skipped { Trailer::Unchecked } else { Trailer::Checked };
            let mut frame = codec::encode(&fields, trailer);
            if !fields.is_empty() && bytes[used - 3] != SEPARATOR {
                frame = without_closing(frame, trailer);
            }
            if let (Check::Bad, Some(last)) = (check, frame.last_mut()) {
                *last ^= 1;
            }
            let name = fields.first().cloned().unwrap_or_default();
            (used, exchange(&format!("frame {name}"), frame, json!({ "fields": fields })))
        }
        Decoded::Noise { used } => noise(is_ours, &bytes[..used]),
        Decoded::Need => noise(is_ours, bytes),
    }
}

fn noise(is_ours: bool, bytes: &[u8]) -> (usize, Exchange) {
    let hidden = bytes.iter().copied().map(masked).collect();
    let what = "no frame of this protocol".to_owned();
    (bytes.len(), Exchange { is_ours, what, bytes: hidden, decoded: Value::Null })
}

/// A frame whose last field is ended by nothing.
fn without_closing(mut frame: Vec<u8>, trailer: Trailer) -> Vec<u8> {
    frame.truncate(frame.len() - 3);
    frame.push(ETX);
    let check = frame[1..].iter().fold(0, |sum, byte| sum ^ byte);
    frame.push(if trailer == Trailer::Checked { check } else { codec::UNCHECKED });
    frame
}

/// Kept are the command, what kind of card it is, how it stands, and the form of its times.
fn scrubbed_fields(fields: &[String]) -> Vec<String> {
    let is_card = matches!(fields.get(6).map(String::as_str), Some("CI" | "CO"));
    let is_known = fields
        .first()
        .is_some_and(|it| ["LT", "LTE"].contains(&it.as_str()) || ErrorCode::from_wire(it).is_some());
    let kept = |(at, field): (usize, &String)| match (at, field.as_str()) {
        (_, "") => String::new(),
        (0, name) if is_known => name.to_owned(),
        (1, _) if is_known => "1".into(),
        (2, eject) if ["E", "R", "T", "LM", "LR", "LC", "LD", "LS"].contains(&eject) && !is_card => {
            eject.to_owned()
        }
        (2..=5, _) if is_card => format!("10{}", at - 1),
        (6..=8, sign) if is_card => sign.to_owned(),
        (9, time) if is_card && time.len() == 10 => "1500211126".into(),
        (9, time) if is_card && time.len() == 8 => "15211126".into(),
        (10, time) if is_card && time.len() == 10 => "1100241126".into(),
        (10, time) if is_card && time.len() == 8 => "11241126".into(),
        (11, _) if is_card => "OPERATOR".into(),
        (_, other) => masked_text(other),
    };
    fields.iter().enumerate().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Vec<u8> {
        let (used, exchange) = scrubbed(false, bytes);
        assert_eq!(used, bytes.len());
        exchange.bytes
    }

    /// The vectors are of nobody: a card of another guest comes out as the published one.
    #[test]
    fn a_scrubbed_frame_says_nothing_of_the_guest_and_keeps_its_shape() {
        let card =
            ["LT", "Ada's desk", "Suite 7", "", "", "", "CI", "0", "12", "0930010227", "1230050227", "ADA"];
        let shown = ["LT", "1", "101", "", "", "", "CI", "0", "12", "1500211126", "1100241126", "OPERATOR"];
        for trailer in [Trailer::Checked, Trailer::Unchecked] {
            assert_eq!(of(&codec::encode(&card, trailer)), codec::encode(&shown, trailer));
        }
        let mut damaged = codec::encode(&card, Trailer::Checked);
        *damaged.last_mut().unwrap() ^= 0x40;
        assert!(matches!(decode(&of(&damaged)), Decoded::Frame { check: Check::Bad, .. }));
        assert_eq!(of(b"\x02\xb3EN\xb37\x03\x3f"), b"\x02\xb3EN\xb31\x03\x39", "no closing separator");
        let text = codec::encode(&["EG", "1", "Ada Lovelace, 04A1"], Trailer::Checked);
        assert_eq!(of(&text), codec::encode(&["EG", "1", "Xxx Xxxxxxxx, 00X0"], Trailer::Checked));
        let stranger = codec::encode(&["ADA", "LOVELACE"], Trailer::Checked);
        assert_eq!(of(&stranger), codec::encode(&["XXX", "XXXXXXXX"], Trailer::Checked));
        assert_eq!(of(b"HTTP/1.1 Ada"), b"XXXX/0.0 Xxx");
    }
}
