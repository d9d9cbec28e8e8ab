//! Harmless questions to a server: whether it lets this machine in, and, where a person lays one down, what a card shows.
//! The interface has no question that needs no card.

use std::{error::Error, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    codec::{self, Decoded, Framing, Text, decode, decode_rest, encode},
    command::Command,
    session::{Conversation, Manners, Result as Came},
    web,
};
use crate::{
    config::VisionlineConfig,
    drivers::probe::{CardToRead, Exchange, Listened, Probed, Tools, Verdict, masked, masked_text, shown},
    model::{Code, SystemName},
    transport::{LineError, Target, run},
};

const OPEN: &str = "open the line";
const WAIT: &str = "listen without a word";
const READ: &str = "read the card on the encoder";
/// A server that does not know this machine's address closes by then.
const LISTENED: Duration = Duration::from_secs(1);

pub(in crate::drivers) async fn probe(
    config: &VisionlineConfig,
    system: &SystemName,
    tools: &Tools,
    card: Option<&CardToRead>,
) -> Probed {
    let mut probed = text_interface(config, tools, card).await;
    if let Some(web) = &config.web {
        web::probe::probe(&mut probed, config, web, system, tools).await;
    }
    probed
}

async fn text_interface(config: &VisionlineConfig, tools: &Tools, card: Option<&CardToRead>) -> Probed {
    let mut probed = Probed::default();
    let opened = match Target::from_config(&config.line) {
        Ok(target) => target.open(&*tools.net).await.map(|port| (target, port)),
        Err(error) => Err(error),
    };
    let expected = format!("{} opens", config.line);
    let (target, port) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            probed.step(OPEN, expected, with_cause(&error), Verdict::Wrong);
            return probed;
        }
    };
    probed.step(OPEN, expected, "it opens", Verdict::AsExpected);
    let mut line = Listened::new(port);
    let mut bytes = [0; 512];
    let (seen, verdict) = match timeout(LISTENED, line.read(&mut bytes)).await {
        Err(_elapsed) => ("nothing".to_owned(), Verdict::AsExpected),
        Ok(Ok(0) | Err(_)) => (
            "it closed the line: enter this machine's address in Visionline's PMS settings, which serve only the \
             addresses that stand there"
                .into(),
            Verdict::Wrong,
        ),
        Ok(Ok(count)) => {
            (format!("{}; something else speaks there", shown(&bytes[..count])), Verdict::Wrong)
        }
    };
    keep(&mut probed, &mut line);
    if probed.step(WAIT, "nothing: the server speaks when it is asked", seen, verdict) {
        match card {
            Some(card) => read(&mut probed, &mut line, &target, config, card).await,
            None => {
                probed.step(
                    READ,
                    "a card that can be read",
                    "not asked: name an encoder with --encoder, and lay a card down",
                    Verdict::Odd,
                );
            }
        }
    }
    target.hang_up(line.into_port()).await;
    probed
}

fn with_cause(error: &LineError) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Reads a card, which changes nothing on it.
async fn read(
    probed: &mut Probed,
    line: &mut Listened,
    target: &Target,
    config: &VisionlineConfig,
    card: &CardToRead,
) {
    let command = Command::ReadCard { encoder: card.encoder.as_str().to_owned() };
    let manners = Manners {
        framing: if target.is_tcp() { Framing::Line } else { Framing::Block },
        ack_timeout: config.ack_timeout,
        answer_timeout: card.within + config.answer_margin,
    };
    let mut conversation = Conversation::new(command, manners);
    let ended = run(line, &mut conversation, |_stage| ()).await;
    keep(probed, line);
    let expected = format!("a card on encoder {} that can be read", card.encoder);
    let (seen, verdict) = match ended.result {
        Came::Read(shown) if shown.is_valid => ("a valid card".to_owned(), Verdict::AsExpected),
        Came::Read(_) => ("a card that is not valid".into(), Verdict::AsExpected),
        Came::Refused(refusal) if matches!(refusal.code, Code::NoCard | Code::BadCard) => {
            (refusal.to_string(), Verdict::Odd)
        }
        Came::Refused(refusal) | Came::NothingSent(refusal) | Came::Doubt(refusal) => {
            let nothing =
                if ended.heard { "" } else { "; it said nothing at all: is this Visionline's port?" };
            (format!("{refusal}{nothing}"), Verdict::Wrong)
        }
        Came::Made { .. } => ("an answer as if a card had been written".into(), Verdict::Wrong),
    };
    probed.step(READ, expected, seen, verdict);
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
    let decoded = match decode(bytes) {
        Decoded::Need => match decode_rest(bytes) {
            Some(text) => Decoded::Text { text, used: bytes.len() },
            None => Decoded::Noise { used: bytes.len() },
        },
        decoded => decoded,
    };
    match decoded {
        Decoded::Ack => (1, exchange("ACK", vec![codec::ACK], json!({ "control": "ACK" }))),
        Decoded::Nak => (1, exchange("NAK", vec![codec::NAK], json!({ "control": "NAK" }))),
        Decoded::Text { text: Text { items, .. }, used } => {
            let items: Vec<_> = items.iter().map(|item| scrubbed_item(item)).collect();
            let name = items.first().cloned().unwrap_or_default();
            let (used, text) = match bytes[0] {
                codec::STX => (used, encode(&items, Framing::Block)),
                _ => line(&items, bytes, used),
            };
            (used, exchange(&name, text, json!({ "items": items })))
        }
        Decoded::Noise { used } => {
            let hidden = bytes[..used].iter().copied().map(masked).collect();
            (used, exchange("no text of this interface", hidden, Value::Null))
        }
        Decoded::Need => unreachable!("it was taken for noise"),
    }
}

/// A line of these items, ended as the one that passed; with how much of what passed it was.
fn line(items: &[String], bytes: &[u8], used: usize) -> (usize, Vec<u8>) {
    let used = used + usize::from(bytes.get(used) == Some(&b'\n'));
    let ends = bytes[..used].iter().rposition(|byte| *byte == codec::SEPARATOR).map_or(used, |at| at + 1);
    let mut text: Vec<u8> = items.iter().flat_map(|item| format!("{item};").into_bytes()).collect();
    text.extend(bytes[ends..used].iter().copied().map(masked));
    (used, text)
}

/// Kept are commands, result codes, the mode of answering that we ask for, and the names of all other items.
fn scrubbed_item(item: &str) -> String {
    match item.get(..2) {
        Some("CC" | "RC") => item.to_owned(),
        Some("AM") if item == "AM1" => item.to_owned(),
        Some(name) => format!("{name}{}", masked_text(&item[2..])),
        None => masked_text(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scrubbed_keeps_its_shape_and_says_nothing_of_the_guest() {
        let check = |bytes: &[u8], expected: &[u8]| {
            let (used, exchange) = scrubbed(false, bytes);
            assert_eq!(used, bytes.len());
            assert_eq!(exchange.bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
        };
        check(
            b"CCB;EA7;RC0;GR1207;CO202611241130;GNLovelace, Ada;SR04A1;\r\n",
            b"CCB;EA0;RC0;GR0000;CO000000000000;GNXxxxxxxx, Xxx;SR00X0;\r\n",
        );
        check(b"CCB;AM1;EA7;SR?;\r\n", b"CCB;AM1;EA0;SR?;\r\n");
        check(b"CCB;EA7;RC0;GNAda;", b"CCB;EA0;RC0;GNXxx;");
        check(b"SSH-2.0-Ada", b"XXX-0.0-Xxx");
    }
}
