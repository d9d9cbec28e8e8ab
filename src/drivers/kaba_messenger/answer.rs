//! What the service answers, and what that means.
//!
//! An answer holds one element in a wrapper whose name is not published: either `bSuccess` with a code and a message, or
//! a fault, which comes with status 200 as well as with 500. Names are looked for, wrappers and namespaces are not.
//!
//! Success is success only where `bSuccess` says so and nothing beside it speaks of a fault. A `bSuccess` of false and a fault
//! mean what their reasons mean; without a known reason they are a doubt for a command that changes something.

use super::{
    command::Command,
    fault::{Meaning, meaning, wants_confirmation},
};
use crate::{
    drivers::xml::{self, Element, XmlError},
    model::{Code, Refusal},
};

/// What an answer means for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// Not done.
    Refused(Refusal),
    /// It may have been done.
    Doubt(Refusal),
}

/// Reads an answer of a status and a body.
#[must_use]
pub fn read(command: &Command, status: u16, body: &[u8]) -> Answer {
    match said(status, body) {
        // Whoever asks for a card and hears that there was nothing to do has none.
        Said::Success { nothing_to_do: true } if command.makes_card() => {
            doubt(command, None, "the service speaks of success, and that there was nothing to do")
        }
        Said::Success { .. } => Answer::Done,
        Said::Reasons { words, denied } => judge(command, &words, denied),
        Said::NotUnderstood(words) => Answer::Refused(Refusal::by_device(
            Code::ProtocolViolation,
            "Client",
            format!("the service does not understand the request: {}", published(&words)),
        )),
        Said::Contradiction => doubt(command, None, "the service speaks of success and of a fault at once"),
        Said::Refused(code, why) => Answer::Refused(Refusal::by_device(code, format!("HTTP {status}"), why)),
        Said::Nothing(why) => doubt(command, Some(format!("HTTP {status}")), &why),
    }
}

/// Whether the service is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    There,
    /// It, or the web server, refuses our credentials; its words.
    NotLetIn(String),
    /// Whatever answers there is not the service; what it said.
    NoService(String),
}

/// Reads an answer to [`Command::HelloWorldTest`], whose shape is not published: any word of the service will do.
#[must_use]
pub fn presence(status: u16, body: &[u8]) -> Presence {
    match said(status, body) {
        Said::Success { .. } | Said::Contradiction => Presence::There,
        Said::Reasons { words, .. } => {
            let means = |wanted| words.iter().find(|word| meaning(word) == Some(wanted));
            match (means(Meaning::Refused(Code::Auth)), means(Meaning::Doubt)) {
                (Some(word), _) => Presence::NotLetIn(word.clone()),
                // What stands behind the web server does not answer it.
                (None, Some(word)) => Presence::NoService(word.clone()),
                (None, None) => Presence::There,
            }
        }
        Said::Refused(Code::Auth, why) => Presence::NotLetIn(why),
        Said::NotUnderstood(words) => Presence::NoService(published(&words)),
        Said::Nothing(_) if status == 200 && greets(body) => Presence::There,
        Said::Refused(_, why) | Said::Nothing(why) => Presence::NoService(why),
    }
}

fn greets(body: &[u8]) -> bool {
    let root = xml::read(body, xml::Limits::default()).unwrap_or_default();
    let answer = root.child("Body").and_then(|body| body.child("HelloWorldTestResponse"));
    root.name == "Envelope" && answer.is_some()
}

/// The names that an answer to [`Command::PublishFaultList`] holds, of those that look like reasons. Never anything of its
/// header: a service may send ours back there, password and all.
#[must_use]
pub fn fault_list(body: &[u8]) -> Vec<String> {
    let Ok(root) = xml::read(body, xml::Limits::default()) else { return Vec::new() };
    let Some(body) = root.child("Body") else { return Vec::new() };
    let leaves = body.all().filter(|element| element.children.is_empty());
    leaves
        .flat_map(|leaf| words(&leaf.text))
        .filter(|word| is_name(word))
        .take(NAMES)
        .map(str::to_owned)
        .collect()
}

/// Whether a word is spelled like the names of reasons are.
fn is_name(word: &str) -> bool {
    (6..=LONGEST).contains(&word.len())
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// There are 215 names of reasons; the longest has 52 letters.
const NAMES: usize = 300;
const LONGEST: usize = 64;

/// What an answer says, whatever was asked.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Success {
        nothing_to_do: bool,
    },
    /// A fault, or a `bSuccess` that is false: then it is denied in so many words.
    Reasons {
        words: Vec<String>,
        denied: bool,
    },
    /// The request was thrown away before anybody looked at what it asks for.
    NotUnderstood(Vec<String>),
    Contradiction,
    /// The server did not hand the request on.
    Refused(Code, String),
    /// Nothing that could be understood.
    Nothing(String),
}

fn said(status: u16, body: &[u8]) -> Said {
    match status {
        200 | 500 => {}
        401 | 403 => return Said::Refused(Code::Auth, "the web server does not let us in".into()),
        404 | 410 => {
            return Said::Refused(Code::Rejected, "the web server has no such service: mend `url`".into());
        }
        400..=499 => return Said::Refused(Code::Rejected, "the web server does not take the request".into()),
        _ => return Said::Nothing("the web server answers without the service's word".into()),
    }
    let root = match xml::read(body, xml::Limits::default()) {
        Ok(root) if root.name == "Envelope" => root,
        Ok(root) => {
            return Said::Nothing(format!("the answer is no envelope but {:?}", shortened(&[root.name])));
        }
        // Its words may repeat what stands there, which may be about a guest.
        Err(XmlError::Malformed(_)) => return Said::Nothing("the answer is not XML".into()),
        Err(error) => return Said::Nothing(error.to_string()),
    };
    in_envelope(&root, status)
}

fn in_envelope(root: &Element, status: u16) -> Said {
    let Some(body) = root.child("Body") else { return Said::Nothing("the envelope has no body".into()) };
    let successes: Vec<_> = body.all().filter(|it| it.name == "bSuccess").map(|it| it.text.trim()).collect();
    let is_fault = body.all().any(|it| FAULT.contains(&it.name.as_str()));
    let found = reasons(body, is_fault);
    let succeeded = match successes[..] {
        [] => None,
        [value] => match value {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => return Said::Nothing("the answer's bSuccess is neither true nor false".into()),
        },
        _ => return Said::Contradiction,
    };
    let fine = |word: &String| !matches!(meaning(word), Some(Meaning::Refused(_) | Meaning::Doubt));
    let nothing_to_do = found.iter().any(|word| meaning(word) == Some(Meaning::NothingToDo));
    match (succeeded, is_fault) {
        (Some(true), false) if status == 200 && found.iter().all(fine) => Said::Success { nothing_to_do },
        (Some(true), _) => Said::Contradiction,
        (Some(false), _) => Said::Reasons { words: found, denied: true },
        (None, true)
            if status == 500
                && is_not_understood(body)
                && found.iter().all(|word| meaning(word).is_none()) =>
        {
            Said::NotUnderstood(found)
        }
        (None, true) => Said::Reasons { words: found, denied: false },
        (None, false) => Said::Nothing("the answer says neither success nor fault".into()),
    }
}

/// What only a fault has.
const FAULT: [&str; 4] = ["Fault", "faultcode", "faultstring", "detailInfo"];

/// The words of an answer's reasons, the narrowest first.
fn reasons(body: &Element, is_fault: bool) -> Vec<String> {
    let places: &[&str] = match is_fault {
        true => &[
            "detailInfo",
            "detail",
            "Detail",
            "ResponseMessage",
            "faultstring",
            "Reason",
            "faultcode",
            "Value",
        ],
        false => &["ResponseMessage", "ResponseCode"],
    };
    let at = |name: &&str| body.all().filter(move |it| it.name == *name).collect::<Vec<_>>();
    let texts = places.iter().flat_map(at).flat_map(Element::all).map(|it| it.text.as_str());
    texts.flat_map(words).filter(|word| word.len() <= LONGEST).take(NAMES).map(str::to_owned).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether the framework of the server says that the request itself is at fault, so that no operation was begun. An
/// operation that fails may come as the client's fault too, but tells more in its detail.
fn is_not_understood(body: &Element) -> bool {
    let Some(fault) = body.child("Fault") else { return false };
    let mut details = ["detail", "Detail"].into_iter().filter_map(|name| fault.child(name));
    if details.any(|detail| detail.all().any(|it| !it.text.trim().is_empty())) {
        return false;
    }
    let code = fault.text_of("faultcode").or_else(|| fault.text_of("Value")).unwrap_or_default();
    let code = code.rsplit(':').next().unwrap_or(code);
    ["Client", "Sender", "VersionMismatch", "MustUnderstand"].contains(&code)
}

fn judge(command: &Command, words: &[String], denied: bool) -> Answer {
    let known: Vec<_> = words.iter().filter_map(|word| Some((word, meaning(word)?))).collect();
    if let Some((name, _)) = known.iter().find(|(_, it)| *it == Meaning::Doubt) {
        return doubt(command, Some((*name).clone()), "the service reports trouble on the way");
    }
    let refused = known.iter().find_map(|(name, it)| match it {
        Meaning::Refused(code) => Some((*name, *code)),
        Meaning::Fine | Meaning::NothingToDo | Meaning::Elsewhere | Meaning::Doubt => None,
    });
    if let Some((name, code)) = refused {
        let message = match wants_confirmation(name) {
            true => "the lock system wants a person's confirmation: do it at its own desk program".to_owned(),
            false => format!("the lock system refuses it: {}", published(words)),
        };
        return Answer::Refused(Refusal::by_device(code, name, message));
    }
    let is_all_known = known.len() == words.len() && !known.is_empty();
    // A fault is never a card, whatever else it says; that a stay was there already, or gone, is no fault.
    let is_as_wanted = |(_, it): &(_, Meaning)| matches!(it, Meaning::Fine | Meaning::NothingToDo);
    if !denied && !command.makes_card() && is_all_known && known.iter().any(is_as_wanted) {
        return Answer::Done;
    }
    let what = match denied {
        true => "the service says no, without a known reason",
        false => "the service reports a fault without a known reason",
    };
    doubt(command, None, what)
}

/// A doubt for a command that changes something; any other was simply not done.
fn doubt(command: &Command, vendor_code: Option<String>, why: &str) -> Answer {
    let refusal = |code| Refusal { code, message: why.to_owned(), vendor_code: vendor_code.clone() };
    match command.writes() {
        true => Answer::Doubt(refusal(Code::NoAnswer)),
        false => Answer::Refused(refusal(Code::ProtocolViolation)),
    }
}

/// The reasons of a text. What else stands in it may be about a guest, and is told to nobody.
fn published(words: &[String]) -> String {
    let known: Vec<_> = words.iter().filter(|word| meaning(word).is_some()).cloned().collect();
    match known.is_empty() {
        true => "for a reason that is not published".into(),
        false => shortened(&known),
    }
}

/// Words for a person, few enough for a line.
fn shortened(words: &[String]) -> String {
    words.join(" ").chars().filter(|c| !c.is_control()).take(160).collect()
}
