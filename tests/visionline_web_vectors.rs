//! Every published message of Visionline's Web API, against the codec.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, civil::date};
use latchd::{
    drivers::visionline::web::{
        answer::{self, Door},
        call::{Call, CardImage, PhoneKey, Standing},
        codec::{self, SessionKey},
    },
    model::Private,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vector {
    id: String,
    bytes_hex: String,
    decoded: Value,
}

/// The vectors, and which of them were looked at.
struct Vectors {
    all: BTreeMap<String, Vector>,
    used: BTreeSet<String>,
}

/// A message, taken apart by hand: its first line, its headers by lower-case names, its body.
struct Message {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Message {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self { line, headers: lines.map(header).collect(), body: bytes[end + 4..].to_vec() }
    }
}

impl Vectors {
    fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("vectors/visionline-webapi.json")).unwrap();
        let short = |vector: &Vector| vector.id.strip_prefix("visionline-webapi-").unwrap().to_owned();
        Self { all: all.into_iter().map(|vector| (short(&vector), vector)).collect(), used: BTreeSet::new() }
    }

    fn take(&mut self, id: &str) -> (Message, &Value) {
        self.used.insert(id.to_owned());
        let vector = &self.all[id];
        let hex = vector.bytes_hex.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        (Message::of(&hex.map(byte).collect::<Vec<_>>()), &vector.decoded)
    }

    /// A call that we make: exactly this line, these headers and this body.
    fn sent(&mut self, id: &str, call: &Call, key: Option<&SessionKey>) {
        let now: Timestamp = "2026-11-21T15:00:05Z".parse().unwrap();
        let (published, decoded) = self.take(id);
        let ask = codec::ask(call, now, key);
        assert_eq!(format!("{} {} HTTP/1.1", ask.method, ask.resource), published.line, "vector {id}");
        assert_eq!(
            ask.body.escape_ascii().to_string(),
            published.body.escape_ascii().to_string(),
            "vector {id}"
        );
        let mut headers: BTreeMap<_, _> =
            ask.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        // These two are the connection's.
        headers.insert("host".into(), "127.0.0.1".into());
        if !ask.body.is_empty() {
            headers.insert("content-length".into(), ask.body.len().to_string());
        }
        assert_eq!(headers, published.headers, "vector {id}");
        if let Some(text) = decoded["string_to_sign"].as_str() {
            let digest = decoded["content_md5"].as_str().unwrap_or_default();
            let date = &headers["date"];
            assert_eq!(codec::text_to_sign(&ask.method, digest, date, &ask.resource), text, "vector {id}");
            let key = Private::new(decoded["access_key"].as_str().unwrap());
            assert_eq!(
                codec::signature(&key, text),
                decoded["signature_base64"].as_str().unwrap(),
                "vector {id}"
            );
        }
    }

    /// The body of a server's answer, and what the vector says of it.
    fn answered(&mut self, id: &str) -> (Vec<u8>, Value) {
        let (message, decoded) = self.take(id);
        if let Some(status) = decoded["status"].as_u64() {
            assert_eq!(message.line.split(' ').nth(1), Some(status.to_string()).as_deref(), "vector {id}");
        }
        (message.body, decoded.clone())
    }
}

#[test]
fn every_vector_is_spelled_and_read() {
    let mut vectors = Vectors::load();
    calls(&mut vectors);
    answers(&mut vectors);

    // Vectors that no check can use, each with its reason.
    let excused: BTreeMap<String, &str> = BTreeMap::new();
    let all: BTreeSet<_> = vectors.all.keys().cloned().collect();
    let accounted: BTreeSet<_> = vectors.used.iter().chain(excused.keys()).cloned().collect();
    assert_eq!(all, accounted, "each vector is used or excused");
    assert_eq!(all.len(), 18);
}

fn calls(vectors: &mut Vectors) {
    let key =
        SessionKey { id: "5f0c2a9e-11d4".into(), access_key: Private::new("ExampleAccessKey0123456789") };
    let sign_in = Call::SignIn { user: "bridge".into(), password: Private::new("secret") };
    vectors.sent("001", &sign_in, None);
    let mut signed = |id: &str, call: Call| vectors.sent(id, &call, Some(&key));
    let phone = |standing| {
        Call::PhoneKey(PhoneKey {
            standing,
            endpoint: "guest-84711".into(),
            label: "%ROOMRANGE%:%UUID%:%CARDNUM%".into(),
            description: "Example Hotel".into(),
            doors: vec!["101".into()],
            start: None,
            end: date(2026, 11, 24).at(11, 0, 0, 0),
        })
    };
    signed("003", phone(Standing::Override));
    signed("004", phone(Standing::AutoJoin));
    signed("005", phone(Standing::Joiners(vec!["100060".into()])));
    signed("007", Call::Doors { details: false });
    signed("009", Call::CardsOfDoor { door: "101".into(), at: date(2026, 11, 21).at(15, 0, 0, 0) });
    signed("011", Call::Card { id: "100060".into() });
    signed("013", Call::CardsOfChip { serial: "04A1B2C3D4E580".into() });
    let image = |joins| {
        Call::CardImage(CardImage {
            joins,
            serial: "04A1B2C3D4E580".into(),
            holder: "101".into(),
            doors: vec!["101".into()],
            start: date(2026, 11, 21).at(15, 0, 0, 0),
            end: date(2026, 11, 24).at(11, 0, 0, 0),
        })
    };
    signed("014", image(false));
    signed("015", image(true));
    signed("017", Call::SignOut { session: "5f0c2a9e-11d4".into() });
}

fn answers(vectors: &mut Vectors) {
    let (body, decoded) = vectors.answered("002");
    let key = answer::session(&body).unwrap();
    assert_eq!(
        (key.id.as_str(), key.access_key.expose()),
        (decoded["id"].as_str().unwrap(), decoded["accessKey"].as_str().unwrap())
    );

    let (body, decoded) = vectors.answered("006");
    assert_eq!(answer::credential(&body).as_deref(), decoded["credentialId"].as_str());

    let (body, _) = vectors.answered("008");
    let door = |id: &str| Door { id: id.into(), ..Door::default() };
    assert_eq!(answer::doors(&body), Some(vec![door("101"), door("102"), door("Pool")]));

    let (body, _) = vectors.answered("010");
    assert_eq!(answer::ids(&body), Some(vec!["100060".into(), "100069".into()]));

    let (body, _) = vectors.answered("012");
    let card = answer::card(&body).unwrap();
    assert_eq!(card.id, "100060");
    assert!(card.is_live);
    assert_eq!(card.end, Some(date(2026, 11, 24).at(11, 0, 0, 0)));
    assert_eq!((card.serials, card.doors), (vec!["04a1b2c3d4e580".to_owned()], vec!["101".to_owned()]));

    let (body, decoded) = vectors.answered("016");
    let pages = answer::image(&body).unwrap();
    for (page, bytes) in (4..).zip(&pages) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(decoded["pages"][page.to_string()], hex);
    }
    assert_eq!(pages.len(), 6);

    let (body, _) = vectors.answered("018");
    assert_eq!(body, b"");
}
