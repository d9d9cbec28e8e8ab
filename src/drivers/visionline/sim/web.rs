//! The Web API of the pretend server: it recomputes every digest and signature by itself, and refuses what does not agree.
//!
//! # What is inference, not source
//! - Every refusal's status and words: 401 for a session, a date or a signature that is not good, 400 for a digest, a type
//!   or a body that is not as published, 404 for a door or card that nobody knows, 409 for a key that cannot join.
//! - A session ends after ten minutes; a date may be off by five. A list of a door's cards has those that are overridden
//!   too, and of the chip's all that it ever held.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp, civil::DateTime};
use md5::{Digest as _, Md5};
use ring::hmac;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::{
    server::{HungUp, Simulator, State},
    world::{Phone, Stands},
};
use crate::{
    seams::{Listener, Stream},
    sim::Direction,
};

/// Most bytes of a request.
const LONGEST: usize = 64 * 1024;
const TYPE: &str = "application/json; charset=utf-8";
/// How long a session lasts.
const SESSION: SignedDuration = SignedDuration::from_mins(10);
/// By how much the date of a call may be off.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// What the Web API knows beside the cards.
#[derive(Debug, Default)]
pub(super) struct Web {
    sessions: BTreeMap<String, Session>,
    opened: u64,
    /// The status of the next answer to a signed call, once.
    pub status: Option<u16>,
    /// The next signed call is done, and not answered.
    pub silent: bool,
    /// Bytes that may still pass, both ways together, before a connection ends; once.
    pub close_after: Option<usize>,
}

#[derive(Debug)]
struct Session {
    key: String,
    until: Timestamp,
}

/// A request as it came.
#[derive(Debug, Default)]
struct Heard {
    method: String,
    resource: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

type Said = (u16, Value);

fn refused(status: u16, why: &str) -> Said {
    (status, json!({ "message": why }))
}

impl Web {
    /// Every session ends now.
    pub(super) fn expire(&mut self) {
        self.sessions.clear();
    }

    /// How many sessions are open.
    pub(super) fn open(&self) -> usize {
        self.sessions.len()
    }
}

impl Simulator {
    /// Serves clients of the Web API until dropped.
    pub async fn accept_web(&self, mut listener: Box<dyn Listener>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = clients.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _from)) => {
                        let simulator = self.clone();
                        clients.spawn(async move { simulator.serve_web(stream).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "client not accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    /// One request, one answer.
    async fn serve_web(&self, mut stream: Box<dyn Stream>) {
        let _either_way = self.converse_web(&mut stream).await;
    }

    async fn converse_web(&self, stream: &mut Box<dyn Stream>) -> Result<(), HungUp> {
        let heard = self.hear_request(stream).await?;
        // What it is about: sessions, doors or cards.
        let kind = heard.resource.split(['/', '?']).nth(3).unwrap_or_default().to_owned();
        let local = self.local_now();
        let (said, silent) = self.change(|state, now| {
            state.tape.record(now, "web", Direction::Received, &kind, &heard.body);
            let said = state.web_call(&heard, now, local);
            let is_signed = heard.headers.contains_key("authorization");
            (said, is_signed && std::mem::take(&mut state.web.silent))
        });
        let (status, body) = said;
        let mut more = [0; 64];
        if silent {
            let _until_the_client_has_enough = stream.read(&mut more).await;
            return Err(HungUp);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let date = self.now().strftime("%a, %d %b %Y %H:%M:%S GMT");
        let answer = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: {TYPE}\r\nDate: {date}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let passed = self.pass_web(answer.len());
        self.change(|state, now| {
            let bytes = &answer.as_bytes()[..passed];
            state.tape.record(now, "web", Direction::Sent, &status.to_string(), bytes);
        });
        stream.write_all(&answer.as_bytes()[..passed]).await.map_err(|_| HungUp)?;
        if passed < answer.len() {
            return Err(HungUp);
        }
        let _closed_by_the_client = stream.read(&mut more).await;
        Ok(())
    }

    async fn hear_request(&self, stream: &mut Box<dyn Stream>) -> Result<Heard, HungUp> {
        let mut bytes = Vec::new();
        let mut whole: Option<(usize, usize)> = None;
        loop {
            if let Some((head, length)) = whole
                && bytes.len() >= head + length
            {
                return Heard::of(&bytes, head, length).ok_or(HungUp);
            }
            let mut part = [0; 1024];
            let count = stream.read(&mut part).await.map_err(|_| HungUp)?;
            if count == 0 || self.pass_web(count) < count || bytes.len() + count > LONGEST {
                return Err(HungUp);
            }
            bytes.extend_from_slice(&part[..count]);
            if whole.is_none()
                && let Some(at) = bytes.windows(4).position(|it| it == b"\r\n\r\n")
            {
                let heard = Heard::of(&bytes, at + 4, 0).ok_or(HungUp)?;
                let length = heard.headers.get("content-length").map_or(Ok(0), |text| text.parse());
                whole = Some((at + 4, length.map_err(|_| HungUp)?));
            }
        }
    }

    /// How many of `count` bytes pass before the connection ends.
    fn pass_web(&self, count: usize) -> usize {
        self.change(|state, _| {
            let Some(left) = &mut state.web.close_after else { return count };
            let passed = count.min(*left);
            *left -= passed;
            if passed < count {
                state.web.close_after = None;
            }
            passed
        })
    }
}

impl Heard {
    /// A request, with so many bytes of a body behind its head.
    fn of(bytes: &[u8], head: usize, length: usize) -> Option<Self> {
        let body = bytes.get(head..head + length)?.to_vec();
        let text = std::str::from_utf8(&bytes[..head]).ok()?;
        let mut lines = text.lines();
        let mut first = lines.next()?.split(' ');
        let (method, resource) = (first.next()?.to_owned(), first.next()?.to_owned());
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some(Self { method, resource, headers: lines.filter_map(header).collect(), body })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.resource.split_once('?')?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| unescaped(value));
        values.next().flatten()
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                bytes.push((high * 16 + low) as u8);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn time(text: &str) -> Option<DateTime> {
    DateTime::strptime("%Y%m%dT%H%M", text).ok()
}

impl State {
    fn web_call(&mut self, heard: &Heard, now: Timestamp, local: DateTime) -> Said {
        if let Err(said) = digest(heard) {
            return said;
        }
        let path = heard.resource.split('?').next().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "api", "v1", rest @ ..] = parts.as_slice() else { return refused(404, "no such path") };
        if (heard.method.as_str(), rest) == ("POST", &["sessions"]) {
            return self.sign_in(heard, now);
        }
        if let Err(said) = self.signed(heard, now) {
            return said;
        }
        if let Some(status) = self.web.status.take() {
            return refused(status, "as you like it");
        }
        match (heard.method.as_str(), rest) {
            ("DELETE", ["sessions", id]) => match self.web.sessions.remove(*id) {
                Some(_) => (201, Value::Null),
                None => refused(404, "no such session"),
            },
            ("GET", ["doors"]) => (200, self.world.doors(heard.query("details").as_deref() == Some("true"))),
            ("GET", ["cards"]) => self.list_cards(heard),
            ("GET", ["cards", id]) => match self.world.record(id, local) {
                Some(card) => (200, card),
                None => refused(404, "no such card"),
            },
            ("POST", ["cards"]) => self.make_key(heard, local),
            _ => refused(404, "no such path"),
        }
    }

    fn sign_in(&mut self, heard: &Heard, now: Timestamp) -> Said {
        let Ok(asked) = serde_json::from_slice::<Value>(&heard.body) else {
            return refused(400, "the body is no JSON");
        };
        if asked != json!({ "username": self.property.web_user, "password": self.property.web_password }) {
            return refused(401, "wrong user or password");
        }
        self.web.opened += 1;
        let id = format!("5f0c2a9e-{:04x}", self.web.opened);
        let key = format!("key-of-{id}");
        self.web.sessions.insert(id.clone(), Session { key: key.clone(), until: now + SESSION });
        (201, json!({ "id": id, "accessKey": key }))
    }

    /// Whether a call is signed as it must be.
    fn signed(&self, heard: &Heard, now: Timestamp) -> Result<(), Said> {
        let authorization = heard.header("authorization");
        let (id, signature) = authorization
            .strip_prefix("AWS ")
            .and_then(|rest| rest.split_once(':'))
            .ok_or(refused(401, "not signed"))?;
        let session = self.web.sessions.get(id).filter(|session| now < session.until);
        let session = session.ok_or(refused(401, "no such session"))?;
        let date = jiff::fmt::rfc2822::parse(heard.header("date")).map_err(|_| refused(400, "no date"))?;
        if date.timestamp().duration_since(now).abs() > WINDOW {
            return Err(refused(401, "the date is too far off"));
        }
        let text = [
            heard.method.as_str(),
            heard.header("content-md5"),
            heard.header("content-type"),
            heard.header("date"),
            heard.resource.as_str(),
        ]
        .join("\n");
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, session.key.as_bytes());
        match STANDARD.encode(hmac::sign(&key, text.as_bytes())) == signature {
            true => Ok(()),
            false => Err(refused(401, "the signature does not agree")),
        }
    }

    fn list_cards(&self, heard: &Heard) -> Said {
        let ids = match (heard.query("guestDoor"), heard.query("serialNumber")) {
            (Some(door), None) => {
                let at = heard.query("validTime").and_then(|text| time(&text));
                match (self.world.has_room(&door), at) {
                    (true, Some(at)) => self.world.cards_of_door(&door, at),
                    (false, _) => return refused(404, "no such door"),
                    (true, None) => return refused(400, "no validTime"),
                }
            }
            (None, Some(serial)) => self.world.cards_of_chip(&serial),
            _ => return refused(400, "neither guestDoor nor serialNumber"),
        };
        (200, ids.into_iter().map(|id| json!({ "id": id })).collect())
    }

    /// A telephone's key. How a card is ordered on an encoder is not published.
    fn make_key(&mut self, heard: &Heard, now: DateTime) -> Said {
        if heard.query("action").as_deref() != Some("mobileAccess") {
            return refused(400, "only keys for telephones are made here");
        }
        let Ok(asked) = serde_json::from_slice::<Value>(&heard.body) else {
            return refused(400, "the body is no JSON");
        };
        let text = |name: &str| asked[name].as_str().filter(|text| !text.is_empty());
        let [operation] = asked["doorOperations"].as_array().map_or(&[][..], Vec::as_slice) else {
            return refused(400, "doorOperations is not one operation");
        };
        let door = match operation["doors"].as_array().map_or(&[][..], Vec::as_slice) {
            [door] if operation["operation"] == "guest" => door.as_str(),
            _ => None,
        };
        let (Some(door), Some(endpoint), Some(end), Some("rfid48")) =
            (door, text("endPointID"), text("expireTime").and_then(time), text("format"))
        else {
            return refused(400, "doorOperations, endPointID, expireTime or format is not as published");
        };
        let joiners = asked["joiners"].as_array();
        let is = |name: &str| heard.query(name).as_deref() == Some("true");
        let stands = match (is("override"), is("autoJoin"), joiners) {
            (true, false, None) => Stands::Override,
            (false, true, None) => Stands::Join,
            (false, false, Some(ids)) => {
                Stands::With(ids.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => return refused(400, "override, autoJoin and joiners do not go together"),
        };
        let start = text("startTime").and_then(time);
        let phone = Phone { door: door.into(), endpoint: endpoint.into(), start, end, stands };
        match self.world.phone_key(&phone, now) {
            Ok(credential) => (201, json!({ "credentialId": credential })),
            Err((status, why)) => refused(status, why),
        }
    }
}

/// Whether a body is as its digest and its type say.
fn digest(heard: &Heard) -> Result<(), Said> {
    if heard.body.is_empty() {
        return Ok(());
    }
    if heard.header("content-type") != TYPE {
        return Err(refused(400, "another content type"));
    }
    match STANDARD.encode(Md5::digest(&heard.body)) == heard.header("content-md5") {
        true => Ok(()),
        false => Err(refused(400, "the digest does not agree")),
    }
}
