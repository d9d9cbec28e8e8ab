//! What is thrown at what strangers can reach, and what must hold whatever is thrown. Shared by the fuzzer and by the
//! ordinary tests, which replay the corpora.

#[path = "boards.rs"]
pub(crate) mod boards;
#[path = "radio.rs"]
pub(crate) mod radio;
#[path = "readers.rs"]
pub(crate) mod readers;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use latchd::{
    cloud::{enrol::requested_key, tls::public_key_hash},
    drivers::{
        kaba_messenger::{
            answer::{Answer as MessengerAnswer, Presence, fault_list, presence, read as read_answer},
            command::{Command as MessengerCommand, Stay},
            wsdl,
        },
        salto_is, sim_lock as lock,
        visionline::{
            codec::Framing,
            command::{Command, MakeCard},
            session::{Conversation, Manners, Result as Came},
            web::{
                call::{Call, PhoneKey, Standing},
                visit::{Errand, MOST_CARDS, Result as CameOfVisit, Visit},
            },
        },
        xml,
    },
    link::{Proxy, Trouble, ask_proxy},
    model::{BridgeId, Code, Private, SlotContent},
    protocol::{
        Envelope, Message, Said, Session, SigningKey, Stage,
        enrol::{Admission, Answer, CloudCard, Keys, NotBelieved, PairRequest, RenewRequest, Waiting},
        signing::{Distrust, Listener, Packet, Party},
    },
    transport::{self, Input, Output, http},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What takes any bytes, and panics where something does not hold.
pub(crate) type Target = fn(&[u8]);

/// The targets by their names, which are also the names of their corpora.
pub(crate) const TARGETS: [(&str, Target); 18] = [
    ("august_yale", radio::august_yale),
    ("certificate", certificate),
    ("certificate_request", certificate_request),
    ("enrolment_answer", enrolment_answer),
    ("enrolment_request", enrolment_request),
    ("message", message),
    ("messenger", messenger),
    ("pn532", readers::pn532),
    ("proxy_answer", proxy_answer),
    ("salto_is", salto_is),
    ("sim_lock", sim_lock),
    ("statement", statement),
    ("ttlock", radio::ttlock),
    ("uhppote", boards::uhppote),
    ("visionline", visionline),
    ("visionline_web", visionline_web),
    ("websocket", websocket),
    ("xml", xml),
];

fn cloud() -> SigningKey {
    SigningKey::from_seed(&[2; 32])
}

fn next() -> SigningKey {
    SigningKey::from_seed(&[3; 32])
}

fn keys() -> Keys {
    Keys { csr: "MIIBAAEC".into(), signing_key: next().public() }
}

fn listener() -> Listener {
    let bridge: BridgeId = "0192f0c1-2f4e-7a31-9c55-3d1f6a7b0001".parse().expect("a UUID");
    let session = Session::read("dErorsHDWEm1Af4F1vTskA==").expect("a session");
    Listener::new(Party::Cloud, [cloud().public()], bridge, session)
}

/// What is read and written again is the same.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("what was read can be written");
    assert_eq!(&serde_json::from_str::<T>(&text).expect("what was written can be read"), value);
}

/// A text message of the websocket, before and after somebody says who may speak.
pub(crate) fn websocket(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(said) = Said::read(text) else { return };
    assert_eq!(Said::read(&said.to_text()).as_ref(), Ok(&said));
    if let Said::Signed(packet) = said {
        let mut listener = listener();
        if listener.hear(&packet, Timestamp::MIN).is_ok() {
            assert!(matches!(
                listener.hear(&packet, Timestamp::MIN),
                Err(Distrust::Repeated { expected: 2, found: 1 })
            ));
        }
    }
}

/// What one who has the cloud's key may sign.
pub(crate) fn statement(bytes: &[u8]) {
    let Ok(body) = std::str::from_utf8(bytes) else { return };
    let signature = STANDARD.encode(cloud().sign(b"latchd v1 cloud to bridge\0", bytes));
    let packet = Packet { key_id: cloud().public().id(), signature, body: body.into() };
    match listener().hear(&packet, Timestamp::MIN) {
        Ok(frame) => comes_back(&frame),
        Err(distrust) => assert!(!matches!(distrust, Distrust::KeyUnknown(_) | Distrust::Altered)),
    }
}

/// What an envelope may hold.
pub(crate) fn message(bytes: &[u8]) {
    let Ok(body) = std::str::from_utf8(bytes) else { return };
    let envelope = Envelope { position: None, body: body.into() };
    let Ok(message) = envelope.message() else { return };
    let again: Message = Envelope::loose(&message).message().expect("what was written can be read");
    assert_eq!(again, message);
}

/// What anybody may send to a cloud before they are known.
pub(crate) fn enrolment_request(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<PairRequest>(bytes) {
        comes_back(&request);
        let _ = (request.keys.fingerprint(), request.keys.digest(), request.keys.is_proven(&request.proof));
    }
    if let Ok(request) = serde_json::from_slice::<RenewRequest>(bytes) {
        comes_back(&request);
        let _ = request.keys.is_wanted(&next().public(), &request.old_proof);
    }
}

/// What anybody on the way may answer in a cloud's place, and what only a cloud can.
pub(crate) fn enrolment_answer(bytes: &[u8]) {
    if let Ok(card) = serde_json::from_slice::<CloudCard>(bytes) {
        comes_back(&card);
        assert_eq!(card.fingerprint().len(), 19);
    }
    if let Ok(waiting) = serde_json::from_slice::<Waiting>(bytes) {
        comes_back(&waiting);
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(bytes) {
        comes_back(&answer);
        assert_ne!(answer.open(&[next().public()], &keys()).err(), None);
        let _ = answer.open(&[cloud().public()], &keys());
    }
    let Ok(body) = std::str::from_utf8(bytes) else { return };
    let signature = STANDARD.encode(cloud().sign(b"latchd v1 admission\0", bytes));
    let answer = Answer { key_id: cloud().public().id(), signature, body: body.into() };
    match answer.open(&[cloud().public()], &keys()) {
        Ok(admission) => {
            comes_back::<Admission>(&admission);
            assert_eq!(admission.keys, keys().digest());
        }
        Err(why) => assert!(matches!(why, NotBelieved::Malformed | NotBelieved::OtherKeys)),
    }
}

/// A request for a certificate, bare or as a bridge sends it.
pub(crate) fn certificate_request(bytes: &[u8]) {
    let csr = STANDARD.encode(bytes);
    let asked = requested_key(&csr);
    assert_eq!(requested_key(&csr), asked);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = requested_key(text);
    }
}

/// A certificate, bare or in PEM.
pub(crate) fn certificate(bytes: &[u8]) {
    let bare = CertificateDer::from(bytes);
    if let Ok(hash) = public_key_hash(&bare) {
        assert_eq!(public_key_hash(&bare).ok(), Some(hash));
    }
    for certificate in CertificateDer::pem_slice_iter(bytes).flatten() {
        let _ = public_key_hash(&certificate);
    }
}

/// What a proxy, or whatever stands where one was due, answers to CONNECT.
pub(crate) fn proxy_answer(bytes: &[u8]) {
    let proxy = Proxy::new("proxy", 3128);
    if let Err(trouble) = asked(&proxy, bytes, usize::MAX) {
        // It stands in a log, and before a person.
        assert!(!trouble.message.chars().any(char::is_control), "{trouble:?}");
        assert!(trouble.message.chars().count() < 4096, "{trouble:?}");
    }
    // In whatever parts it comes, as long as nothing comes behind it, and it is not too long by its last part.
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let head = &bytes[..end.min(16 * 1024)];
    // What came along with the head would be lost to TLS.
    assert!(end == bytes.len() || bytes.len() > 1024 || asked(&proxy, bytes, usize::MAX).is_err());
    let code = |at_a_time| asked(&proxy, head, at_a_time).map_err(|trouble| trouble.code);
    assert_eq!(code(usize::MAX), code(1));
}

fn asked(proxy: &Proxy, answer: &[u8], at_a_time: usize) -> Result<(), Trouble> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let mut peer = Peer { answer, at_a_time };
    let asked = ask_proxy(&mut peer, proxy, "cloud.example:443", Timestamp::MIN);
    RUNTIME.with(|runtime| runtime.block_on(asked))
}

/// Takes whatever is said to it, answers a few bytes at a time, and hangs up.
struct Peer<'a> {
    answer: &'a [u8],
    at_a_time: usize,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.answer.len().min(self.at_a_time).min(buffer.remaining());
        let (now, later) = self.answer.split_at(most);
        buffer.put_slice(now);
        self.answer = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What stands where Visionline's PMS interface is expected, over TCP and over a serial line, in whatever parts it comes.
pub(crate) fn visionline(bytes: &[u8]) {
    for framing in [Framing::Line, Framing::Block] {
        let whole = conversed(framing, bytes, usize::MAX);
        assert_eq!(whole, conversed(framing, bytes, 1), "{framing:?}");
        // Something left, so nobody may say that nothing did.
        assert!(!whole.contains("NothingSent"), "{whole}");
    }
}

/// How a conversation about a card ends when a server says this, some bytes at a time, and then nothing more.
fn conversed(framing: Framing, bytes: &[u8], at_a_time: usize) -> String {
    let manners =
        Manners { framing, ack_timeout: Duration::from_secs(3), answer_timeout: Duration::from_secs(75) };
    let card = MakeCard {
        joins: false,
        encoder: "1".into(),
        room: "101".into(),
        start: None,
        end: jiff::civil::date(2026, 11, 24).at(11, 0, 0, 0),
        common: Vec::new(),
        user_group: None,
        operator: None,
        guest: None,
        card_type: None,
        serial: true,
    };
    let rehearsal = rehearsed(Conversation::new(Command::MakeCard(card), manners), bytes, at_a_time);
    assert!(rehearsal.written.len() <= 3, "{} copies left", rehearsal.written.len());
    match rehearsal.ending.result {
        Came::Doubt(why) | Came::Refused(why) => why.code.as_str().to_owned(),
        other => format!("{other:?}"),
    }
}

/// A conversation, played to its end.
struct Rehearsal<S: transport::Session> {
    written: Vec<Vec<u8>>,
    notes: Vec<S::Note>,
    ending: S::Done,
}

/// Plays a conversation in which the other side says this, some bytes at a time, and then nothing more.
fn rehearsed<S: transport::Session>(mut conversation: S, bytes: &[u8], at_a_time: usize) -> Rehearsal<S> {
    let mut now = Instant::now();
    let mut parts = bytes.chunks(at_a_time.min(bytes.len().max(1)));
    let (mut written, mut notes) = (Vec::new(), Vec::new());
    loop {
        match conversation.poll(now) {
            Output::Write(bytes) => written.push(bytes),
            Output::Note(note) => notes.push(note),
            Output::Wait { until } => match parts.next() {
                Some(part) => conversation.handle(now, Input::Bytes(part)),
                None => {
                    now = until.max(now);
                    conversation.handle(now, Input::Timeout);
                }
            },
            Output::Done(ending) => return Rehearsal { written, notes, ending },
        }
    }
}

/// What stands where a SALTO server is expected.
pub(crate) fn salto_is(bytes: &[u8]) {
    use salto_is::{
        codec::{Check, Decoded, Trailer, decode, encode},
        command::Command,
        session::{Conversation, Manners, Result},
    };

    let mut rest = bytes;
    while !rest.is_empty() {
        let used = match decode(rest) {
            Decoded::Need => break,
            Decoded::Noise { used } => used,
            Decoded::Control(_) => 1,
            Decoded::Frame { fields, used, check } => {
                assert!(fields.iter().map(String::len).sum::<usize>() <= 2 * used, "{fields:?}");
                let again = encode(&fields, Trailer::Checked);
                // What a field cannot hold may have stood there.
                let is_plain = check == Check::Good && !fields.concat().contains(char::is_control);
                let spelt = [&[0x02, 0xB3][..], &[0xB3, 0x03]];
                if is_plain && rest.starts_with(spelt[0]) && rest[..used - 1].ends_with(spelt[1]) {
                    assert_eq!(again, rest[..used]);
                }
                used
            }
        };
        assert!(0 < used && used <= rest.len());
        rest = &rest[used..];
    }
    for (takes_0f_for_nak, ack_final) in [(false, true), (true, false)] {
        for at_a_time in [usize::MAX, 1] {
            let manners = Manners {
                ack_timeout: Duration::from_secs(3),
                answer_timeout: Duration::from_secs(60),
                ack_final,
                trailer: Trailer::Checked,
                takes_0f_for_nak,
            };
            let command = Command::CheckOut { room: "101".into(), has_encoder_field: true };
            let played = rehearsed(Conversation::new(command, manners), bytes, at_a_time);
            let copies = played.written.iter().filter(|bytes| bytes[0] == 0x02).count();
            assert!(copies <= 3, "{copies} copies left");
            assert_eq!(played.notes.contains(&Stage::Sent), copies > 0, "told before it leaves");
            let is_unsent = matches!(played.ending.result, Result::NothingSent(_));
            assert_eq!(is_unsent, copies == 0, "{:?}", played.ending);
        }
    }
}

/// What stands where the pretend keypad lock is expected.
pub(crate) fn sim_lock(bytes: &[u8]) {
    use lock::{
        message::Entry,
        session::{Came, Command, Conversation, Manners, Note, Task},
    };

    let job = "0192f0c1-2f4e-7a31-9c55-3d1f6a7b0001".parse().expect("a UUID");
    let entry = Entry {
        key: "stay-1".into(),
        content: SlotContent::Pin(Private::new("4711")),
        starts_at: jiff::civil::date(2026, 11, 21).at(15, 0, 0, 0),
        ends_at: Some(jiff::civil::date(2026, 11, 24).at(11, 0, 0, 0)),
        generation: 1,
    };
    let put = Command::Put { job, entry };
    let open = Command::Unlock { job };
    let tasks = [
        Task::Read,
        Task::Do(put.clone()),
        Task::Prove(put),
        Task::Do(open.clone()),
        Task::Prove(open),
        Task::Watch { after: 3 },
    ];
    for task in tasks {
        // All at once it is an answer to nothing; by the byte it follows what was asked.
        for at_a_time in [usize::MAX, 1] {
            let manners = Manners {
                answer_timeout: Duration::from_secs(5),
                now: "2026-11-21T12:00:00Z".parse().expect("a time"),
                zone: jiff::tz::TimeZone::UTC,
            };
            let played = rehearsed(Conversation::new(task.clone(), manners), bytes, at_a_time);
            let is_command =
                |bytes: &&Vec<u8>| bytes.windows(5).any(|part| part == b" PUT " || part == b"OPEN ");
            let commands = played.written.iter().filter(is_command).count();
            let is_done = matches!(&task, Task::Do(_));
            assert!(commands <= usize::from(is_done), "{commands} commands left");
            let told = played.notes.iter().filter(|note| **note == Note::Leaves).count();
            assert_eq!(told, commands, "told before it leaves");
            match &played.ending {
                // Only the lock's own word takes a command back.
                Came::NothingSent(why) if commands > 0 => assert_eq!(why.code, Code::DeviceBusy),
                Came::Done if is_done => assert_eq!(commands, 1),
                _ => {}
            }
        }
    }
}

/// What stands where a Messenger server is expected: its answers to a card, to a greeting and to a question, and its
/// description.
pub(crate) fn messenger(bytes: &[u8]) {
    let stay = Stay { reservation: "R1".into(), site: "1".into(), terminal: "T1".into() };
    let card = MessengerCommand::MakeDuplicateKey { stay, encoder: "1".into(), guest: None };
    let is_fit = |text: &str| {
        // It stands in a log, and before a person.
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.chars().count() < 4096, "{} characters", text.chars().count());
    };
    let holds = |word: &[u8]| bytes.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    for status in [200, 401, 404, 500] {
        match read_answer(&card, status, bytes) {
            MessengerAnswer::Done => assert!(holds(b"bSuccess") && holds(b"true"), "{status}"),
            MessengerAnswer::Refused(why) | MessengerAnswer::Doubt(why) => {
                is_fit(&why.message);
                why.vendor_code.as_deref().into_iter().for_each(is_fit);
            }
        }
        if let Presence::NotLetIn(words) | Presence::NoService(words) = presence(status, bytes) {
            is_fit(&words);
        }
    }
    for name in fault_list(bytes) {
        is_fit(&name);
    }
    if let Ok(difference) = wsdl::compare(bytes) {
        is_fit(&difference.to_string());
    }
}

const STATUSES: [u16; 10] = [200, 201, 204, 302, 400, 401, 403, 404, 409, 500];

/// What stands where Visionline's Web API is expected: its answers, one after the other, to a visit. The first byte says what
/// it is for; each answer is a byte for its status and a body up to the next zero.
pub(crate) fn visionline_web(bytes: &[u8]) {
    let Some((errand, rest)) = bytes.split_first() else { return };
    let at = jiff::civil::date(2026, 11, 21).at(15, 0, 0, 0);
    let errand = match errand % 4 {
        0 => Errand::Greet,
        1 => Errand::Doors,
        2 => Errand::Cards(Call::CardsOfDoor { door: "101".into(), at }),
        _ => Errand::PhoneKey(PhoneKey {
            standing: Standing::Override,
            endpoint: "guest".into(),
            label: "label".into(),
            description: "description".into(),
            doors: vec!["101".into()],
            start: None,
            end: at,
        }),
    };
    let makes_a_key = matches!(errand, Errand::PhoneKey(_));
    let mut visit = Visit::new("bridge", Private::new("secret"), errand);
    let (mut keys, mut calls) = (0, 0);
    for answer in rest.split(|byte| *byte == 0) {
        let Some((call, _)) = visit.next() else { break };
        keys += usize::from(call.makes_a_key());
        calls += 1;
        assert!(call.resource().bytes().all(|byte| byte.is_ascii_graphic()), "{}", call.resource());
        let (status, body) = answer.split_first().unwrap_or((&0, &[]));
        let status = STATUSES[usize::from(*status) % STATUSES.len()];
        visit.heard(&Ok(http::Answer { status, content_type: None, date: None, body: body.to_vec() }));
    }
    // Two sessions, a list, its cards, and the end.
    assert!(calls <= MOST_CARDS * 2 + 6, "{calls} calls");
    assert!(keys <= 2, "only a call that was not let in is made again");
    match visit.result() {
        Some(CameOfVisit::Refused(why) | CameOfVisit::Doubt(why)) => {
            assert!(!why.message.contains(char::is_control) && why.message.chars().count() < 1024);
        }
        Some(CameOfVisit::Made(_)) => assert!(makes_a_key && keys > 0),
        Some(CameOfVisit::Cards(cards)) => assert!(cards.len() <= MOST_CARDS),
        Some(CameOfVisit::LetIn | CameOfVisit::Doors(_) | CameOfVisit::Image(_)) | None => {}
    }
}

/// What a server on the property may send where XML is awaited: a tree that is no larger than what was sent.
pub(crate) fn xml(bytes: &[u8]) {
    let limits = xml::Limits { bytes: 64 * 1024, depth: 8, elements: 500 };
    let Ok(root) = xml::read(bytes, limits) else { return };
    let (mut elements, mut size) = (0, 0);
    for element in root.all() {
        elements += 1;
        let attributes: usize = element.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        size += element.name.len() + element.text.len() + attributes;
    }
    assert!(elements <= limits.elements && size <= bytes.len());
    let mut depth = 0;
    let mut level: Vec<_> = [&root].into();
    while !level.is_empty() {
        depth += 1;
        level = level.into_iter().flat_map(|element| &element.children).collect();
    }
    assert!(depth <= limits.depth);
}
