//! Harmless questions to a service: whether it lets us in, what it says of itself, and which faults it knows.

use std::sync::Arc;

use serde_json::json;

use super::{
    answer::{self, Presence},
    codec::{self, Header},
    command::Command,
    fault::meaning,
    server::Server,
    wsdl,
};
use crate::{
    config::KabaMessengerConfig,
    drivers::{
        probe::{Exchange, Probed, Tools, Verdict, masked},
        xml,
    },
    model::{Private, SystemName},
};

const GREET: &str = "greet the service (HelloWorldTest)";
const DESCRIBE: &str = "ask for its description (?wsdl)";
const FAULTS: &str = "ask for its faults (PublishFaultList)";

pub(in crate::drivers) async fn probe(
    config: &KabaMessengerConfig,
    system: SystemName,
    tools: &Tools,
) -> Probed {
    let mut probed = Probed::default();
    let server = Server::new(
        Arc::clone(&tools.net),
        config,
        system,
        tools.time_zone.clone(),
        tools.clock.clone(),
        tools.random.clone(),
    );
    if greet(&mut probed, config, &server).await {
        describe(&mut probed, &server).await;
        faults(&mut probed, &server).await;
    }
    probed
}

async fn greet(probed: &mut Probed, config: &KabaMessengerConfig, server: &Server) -> bool {
    let expected =
        format!("{} answers as Messenger's service, and lets {:?} in", config.http.url, config.user);
    let heard = match server.ask_for(&Command::HelloWorldTest).await {
        Ok(heard) => heard,
        Err((code, why)) => {
            let what = match code {
                "line_down" | "line_garbled" => "; is it an HTTP server that listens there?",
                _ => "",
            };
            return probed.step(GREET, expected, format!("{why}{what}"), Verdict::Wrong);
        }
    };
    keep(probed, server, &Command::HelloWorldTest, heard.status, &heard.body);
    let (seen, verdict) = match answer::presence(heard.status, &heard.body) {
        Presence::There => ("it does".to_owned(), Verdict::AsExpected),
        Presence::NotLetIn(why) => {
            (format!("it does not let the user in ({why}): mend `user` and `password_file`"), Verdict::Wrong)
        }
        Presence::NoService(why) => {
            (format!("whatever answers at `url` is not the service ({why})"), Verdict::Wrong)
        }
    };
    probed.step(GREET, expected, seen, verdict)
}

async fn describe(probed: &mut Probed, server: &Server) {
    let expected = format!("the {} operations that are known", wsdl::OPERATIONS.len());
    let (seen, verdict) = match server.ask(server.description()).await {
        Ok(heard) if heard.status == 200 => {
            if let Ok(description) = wsdl::spelled_anew(&heard.body) {
                keep_description(probed, description);
            }
            match wsdl::compare(&heard.body) {
                Ok(difference) if difference.is_none() => ("just these".to_owned(), Verdict::AsExpected),
                Ok(difference) => (difference.to_string(), Verdict::Odd),
                Err(error) => (format!("a description that cannot be read: {error}"), Verdict::Odd),
            }
        }
        Ok(heard) => (format!("HTTP {}", heard.status), Verdict::Odd),
        Err((_, why)) => (why, Verdict::Odd),
    };
    probed.step(DESCRIBE, expected, seen, verdict);
}

async fn faults(probed: &mut Probed, server: &Server) {
    let expected = "a list of faults that are all known";
    let heard = match server.ask_for(&Command::PublishFaultList).await {
        Ok(heard) => heard,
        Err((_, why)) => {
            probed.step(FAULTS, expected, why, Verdict::Odd);
            return;
        }
    };
    keep(probed, server, &Command::PublishFaultList, heard.status, &heard.body);
    let names = answer::fault_list(&heard.body);
    let unknown: Vec<_> = names.iter().filter(|name| meaning(name).is_none()).map(String::as_str).collect();
    let (seen, verdict) = match (names.len(), unknown.as_slice()) {
        (0, _) => ("no list".to_owned(), Verdict::Odd),
        (count, []) => (format!("{count} faults, all known"), Verdict::AsExpected),
        (count, unknown) => (
            format!("{count} faults; not known: {}", unknown[..unknown.len().min(20)].join(", ")),
            Verdict::Odd,
        ),
    };
    probed.step(FAULTS, expected, seen, verdict);
}

/// Keeps a question and its answer. The question is spelled anew in nobody's name; of the answer only tags are kept.
fn keep(probed: &mut Probed, server: &Server, command: &Command, status: u16, body: &[u8]) {
    let created = server.local_now().date().at(0, 0, 0, 0);
    let header = Header {
        from: "LATCHD",
        message_id: uuid::Uuid::nil(),
        timestamp_id: uuid::Uuid::nil(),
        token_id: uuid::Uuid::nil(),
        user: "USER",
        password: &Private::new("PASSWORD"),
        created,
        expires: created,
    };
    let name = command.name();
    probed.exchanges.push(Exchange {
        is_ours: true,
        what: name.to_owned(),
        bytes: codec::envelope(command, &header),
        decoded: json!({ "operation": name }),
    });
    probed.exchanges.push(Exchange {
        is_ours: false,
        what: format!("answer to {name}"),
        bytes: scrubbed(body),
        decoded: json!({ "operation": name, "http_status": status }),
    });
}

/// Keeps the names of the operations, and nothing else of a description: it names the server in many places.
fn keep_description(probed: &mut Probed, description: Vec<u8>) {
    let decoded = json!({ "operation": "?wsdl", "http_status": 200 });
    let kept = |is_ours, what: &str, bytes| Exchange {
        is_ours,
        what: what.to_owned(),
        bytes,
        decoded: decoded.clone(),
    };
    let answer = kept(false, "names in the answer to ?wsdl", description);
    probed.exchanges.extend([kept(true, "?wsdl", b"wsdl".into()), answer]);
}

/// An answer whose texts are hidden but for the names of reasons, with its comments and instructions, and the values of its
/// attributes but for namespaces; one that is not XML is hidden as a whole.
fn scrubbed(body: &[u8]) -> Vec<u8> {
    let is_xml = xml::read(body, xml::Limits::default()).is_ok();
    if !is_xml {
        return body.iter().copied().map(masked).collect();
    }
    let mut hidden = Vec::with_capacity(body.len());
    let mut rest = body;
    // What version of XML it is, and in which letters: without these nobody could read it again.
    if body.starts_with(b"<?xml ") {
        let length = body.iter().position(|byte| *byte == b'>').map_or(0, |at| at + 1);
        hidden.extend(&body[..length]);
        rest = &body[length..];
    }
    while let Some(&first) = rest.first() {
        let (length, is_tag) = match first {
            b'<' => piece(rest),
            _ => (rest.iter().position(|byte| *byte == b'<').unwrap_or(rest.len()), false),
        };
        let (now, later) = rest.split_at(length);
        match is_tag {
            true => tag(now, &mut hidden),
            false => words(now, &mut hidden),
        }
        rest = later;
    }
    hidden
}

/// How long what begins here with `<` is, and whether it is a tag.
fn piece(rest: &[u8]) -> (usize, bool) {
    let to = |end: &[u8]| {
        let at = rest.windows(end.len()).position(|part| part == end);
        at.map_or(rest.len(), |at| at + end.len())
    };
    match rest {
        [b'<', b'!', b'[', ..] => (to(b"]]>"), false),
        [b'<', b'!', b'-', ..] => (to(b"-->"), false),
        [b'<', b'!' | b'?', ..] => (to(b">"), false),
        _ => {
            let mut quote = None;
            let ends = |byte: &u8| {
                match (*byte, quote) {
                    (b'"' | b'\'', None) => quote = Some(*byte),
                    (byte, Some(open)) if byte == open => quote = None,
                    (b'>', None) => return true,
                    _ => {}
                }
                false
            };
            (rest.iter().position(ends).map_or(rest.len(), |at| at + 1), true)
        }
    }
}

/// A tag, with the values hidden that are no namespaces.
fn tag(tag: &[u8], hidden: &mut Vec<u8>) {
    let mut value: Option<(u8, bool)> = None;
    for (at, byte) in tag.iter().copied().enumerate() {
        match (byte, value) {
            (b'"' | b'\'', None) => value = Some((byte, is_of_a_namespace(&tag[..at]))),
            (byte, Some((open, _))) if byte == open => value = None,
            (_, Some((_, false))) => {
                hidden.push(masked(byte));
                continue;
            }
            _ => {}
        }
        hidden.push(byte);
    }
}

/// Whether what ends here is `xmlns=`, or that with a prefix.
fn is_of_a_namespace(before: &[u8]) -> bool {
    let Some(before) = before.trim_ascii_end().strip_suffix(b"=") else { return false };
    let name = before.trim_ascii_end().rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    name == b"xmlns" || name.starts_with(b"xmlns:")
}

/// Text, with every word hidden that is no name of a reason, and no mark of what is text as it stands.
fn words(text: &[u8], hidden: &mut Vec<u8>) {
    const AS_IT_STANDS: &[u8] = b"<![CDATA[";
    let text = text.strip_prefix(AS_IT_STANDS).inspect(|_| hidden.extend(AS_IT_STANDS)).unwrap_or(text);
    for word in text.chunk_by(|one, other| is_of_a_word(*one) && is_of_a_word(*other)) {
        match std::str::from_utf8(word).is_ok_and(|word| meaning(word).is_some()) {
            true => hidden.extend(word),
            false => hidden.extend(word.iter().copied().map(masked)),
        }
    }
}

fn is_of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_only_its_tags_and_the_names_of_reasons_are_kept() {
        let body = br#"<a xmlns="urn:x"><User>Ada</User><Id n="1>">04A1</Id></a>"#;
        let hidden = br#"<a xmlns="urn:x"><User>Xxx</User><Id n="0>">00X0</Id></a>"#;
        assert_eq!(scrubbed(body), hidden);
        let body =
            b"<a:b xmlns:a='urn:a' x='http://Ada'><!-- Ada > --><?a Ada?><c><![CDATA[<Ada> 4]]></c></a:b>";
        let hidden =
            b"<a:b xmlns:a='urn:a' x='xxxx://Xxx'><!-- Xxx > --><?x Xxx?><c><![CDATA[<Xxx> 0]]></c></a:b>";
        assert_eq!(scrubbed(body), hidden);
        let declared = br#"<?xml version="1.0" encoding="utf-8"?><a b="Ada">Ada</a>"#;
        let hidden = br#"<?xml version="1.0" encoding="utf-8"?><a b="Xxx">Xxx</a>"#;
        assert_eq!(scrubbed(declared).escape_ascii().to_string(), hidden.escape_ascii().to_string());
        let reasons = b"<r>RoomNumberNotFound: Ada RoomNumberNotFoundAda, EncoderMsg</r>";
        let hidden = b"<r>RoomNumberNotFound: Xxx XxxxXxxxxxXxxXxxxxXxx, EncoderMsg</r>";
        assert_eq!(scrubbed(reasons).escape_ascii().to_string(), hidden.escape_ascii().to_string());
        assert_eq!(scrubbed(b"<html>Ada<br>"), b"<xxxx>Xxx<xx>");
    }

    #[test]
    fn of_a_description_only_the_operations_are_kept() {
        let shown = br#"<d xmlns="urn:x" targetNamespace="http://tempuri.org"><portType name="Ada"><operation name="CheckOutGuest"/></portType>
            <service><address location="http://hotel-ada.lan/x"/></service></d>"#;
        let spelled = wsdl::spelled_anew(shown).unwrap();
        let text = String::from_utf8(spelled.clone()).unwrap();
        assert!(!text.contains("Ada") && !text.contains("hotel"), "{text}");
        assert_eq!(wsdl::compare(&spelled).unwrap(), wsdl::compare(shown).unwrap());
    }
}
