//! Every published message of the Messenger PMS web service, against the codec, and every published reason.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{DateTime, date};
use latchd::{
    drivers::kaba_messenger::{
        answer::{self, Answer},
        codec::{CONTENT_TYPE, Header, action, envelope},
        command::{Command, Key, Stay},
        fault::{Meaning, meaning},
        wsdl,
    },
    model::{Code, Private},
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

impl Vectors {
    fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("vectors/kaba-messenger.json")).unwrap();
        let short = |vector: &Vector| vector.id.strip_prefix("kaba-messenger-soap-").unwrap().to_owned();
        Self { all: all.into_iter().map(|vector| (short(&vector), vector)).collect(), used: BTreeSet::new() }
    }

    /// The lines of the head, the body, and what the vector says of itself.
    fn take(&mut self, id: &str) -> (Vec<String>, String, Value) {
        self.used.insert(id.to_owned());
        let vector = &self.all[id];
        let hex = vector.bytes_hex.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let text = String::from_utf8(hex.map(byte).collect()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().map(str::to_owned).collect(), body.to_owned(), vector.decoded.clone())
    }

    /// A command that we send: exactly this body, and these headers.
    fn sent(&mut self, id: &str, command: &Command) {
        let (head, body, decoded) = self.take(id);
        assert_eq!(decoded["op"], command.name(), "vector {id}");
        let spelled = String::from_utf8(envelope(command, &header(&Private::new("secret")))).unwrap();
        assert_eq!(spelled, body, "vector {id}");
        for line in [
            format!("Content-Type: {CONTENT_TYPE}"),
            format!("SOAPAction: {}", action(command)),
            format!("Content-Length: {}", spelled.len()),
        ] {
            assert!(head.contains(&line), "vector {id}: {line} is not in {head:?}");
        }
    }
}

fn header(password: &Private) -> Header<'_> {
    let id = |last: u8| format!("6f1c9a52-2c1e-4a52-9d1a-0c6a3f2a00{last:02}").parse().unwrap();
    Header {
        from: "BRIDGE",
        message_id: id(1),
        timestamp_id: id(2),
        token_id: id(3),
        user: "pmsuser",
        password,
        created: date(2026, 11, 21).at(15, 0, 5, 0),
        expires: date(2026, 11, 21).at(15, 5, 5, 0),
    }
}

fn stay(reservation: &str) -> Stay {
    Stay { reservation: reservation.into(), site: "MAIN".into(), terminal: "1".into() }
}

fn leaving() -> DateTime {
    date(2026, 11, 24).at(11, 0, 0, 0)
}

fn key() -> Key {
    Key {
        encoder: "1".into(),
        check_in: date(2026, 11, 21).at(15, 0, 0, 0),
        check_out: leaving(),
        guest: Some(Private::new("Doe Jane")),
        room: "101".into(),
        more_rooms: Vec::new(),
        common: vec![1],
    }
}

fn duplicate() -> Command {
    Command::MakeDuplicateKey {
        stay: stay("84711"),
        encoder: "1".into(),
        guest: Some(Private::new("Doe Jane")),
    }
}

#[test]
fn every_vector_is_spelled_and_read() {
    let mut vectors = Vectors::load();
    let booking = Command::CreateNewBooking { stay: stay("84711"), key: key() };
    vectors.sent("001", &booking);
    vectors.sent("002", &Command::AddSharedGuest { stay: stay("84712"), key: key() });
    vectors.sent("003", &duplicate());
    vectors.sent("004", &Command::CheckOutGuest { stay: stay("84711") });

    let (_, success, decoded) = vectors.take("005");
    assert_eq!(decoded["ok"], true);
    assert_eq!(answer::read(&booking, 200, success.as_bytes()), Answer::Done);
    let (_, fault, decoded) = vectors.take("006");
    let Answer::Refused(refusal) = answer::read(&booking, 200, fault.as_bytes()) else {
        panic!("vector 006")
    };
    assert_eq!((refusal.code, refusal.vendor_code.as_deref()), (Code::NoCard, decoded["detail"].as_str()));

    // Vectors that no check can use, each with its reason.
    let excused: BTreeMap<String, &str> = BTreeMap::new();
    let all: BTreeSet<_> = vectors.all.keys().cloned().collect();
    let accounted: BTreeSet<_> = vectors.used.iter().chain(excused.keys()).cloned().collect();
    assert_eq!(all, accounted, "each vector is used or excused");
    assert_eq!(all.len(), 6);
}

/// The elements of a command's body in their order, each with its namespace's last word.
fn fields(command: &Command) -> Vec<String> {
    let bytes = envelope(command, &header(&Private::new("secret")));
    let root = latchd::drivers::xml::read(&bytes, latchd::drivers::xml::Limits::default()).unwrap();
    let body = root.child("Body").unwrap().child(command.name()).unwrap();
    let of = |it: &latchd::drivers::xml::Element| {
        let prefix = if it.namespace == "http://tempuri.org" { "t" } else { "u" };
        format!("{prefix}:{}={}", it.name, it.text)
    };
    body.all().skip(1).map(of).collect()
}

#[test]
fn commands_without_a_vector_have_their_fields_in_the_order_of_the_description() {
    let in_short = |command: &Command| fields(command).join(" ");
    let wide = Key { more_rooms: vec!["102".into()], common: vec![1, 7], ..key() };
    assert_eq!(
        in_short(&Command::ChangeKeyAccess { stay: stay("84711"), key: wide }),
        "t:ReservationID=84711 t:SiteName=MAIN t:PMSTerminalID=1 t:EncoderID=1 t:CheckIn=2026-11-21T15:00:00 \
         t:CheckOut=2026-11-24T11:00:00 u:GuestName=Doe Jane t:VariableRoomList= t:string=102 t:CommonAreaList= \
         t:CCommonAreas= t:PassLevelNo=1 t:eMode=GrantAccess t:CCommonAreas= t:PassLevelNo=7 t:eMode=GrantAccess \
         t:KeyCount=1 t:KeySize=1"
    );
    assert_eq!(
        in_short(&Command::ExtendCheckOut { stay: stay("84711"), check_out: leaving() }),
        "t:ReservationID=84711 t:SiteName=MAIN t:PMSTerminalID=1 t:CheckOut=2026-11-24T11:00:00"
    );
    let one_shot = Command::CreateOneShotKey {
        site: "MAIN".into(),
        terminal: "1".into(),
        encoder: "2".into(),
        room: "101".into(),
        check_in: key().check_in,
        check_out: leaving(),
    };
    assert_eq!(
        in_short(&one_shot),
        "t:SiteName=MAIN t:PMSTerminalID=1 t:EncoderID=2 t:MainRoomNo=101 t:CheckIn=2026-11-21T15:00:00 \
         t:CheckOut=2026-11-24T11:00:00 t:KeySize=1"
    );
    let cancel =
        Command::CancelGuestsAccessToRoom { site: "MAIN".into(), room: "101".into(), terminal: "90".into() };
    assert_eq!(in_short(&cancel), "t:SiteName=MAIN t:MainRoomNo=101 t:PMSTerminalID=90");
    assert!(cancel.writes() && !cancel.makes_card());
    assert_eq!(in_short(&Command::HelloWorldTest), "t:s1=latchd t:i1=1");
    assert_eq!(in_short(&Command::PublishFaultList), "");
    // Nothing that a guest or a password holds ends an element early.
    let hostile = Key { guest: Some(Private::new("</t:x>&<\u{0}\u{7}é]]>")), ..key() };
    let spelled = fields(&Command::CreateNewBooking { stay: stay("a"), key: hostile });
    assert!(spelled.contains(&"u:GuestName=</t:x>&<  é]]>".to_owned()), "{spelled:?}");
}

#[derive(Deserialize)]
struct Reasons {
    main: Vec<String>,
    detail: Vec<String>,
    normal: BTreeMap<String, Vec<String>>,
    /// Reasons that are held for a doubt although the list has them for a refusal.
    doubted: BTreeSet<String>,
}

#[test]
fn every_reason_means_something_and_what_the_list_says_unless_it_proves_nothing() {
    let reasons: Reasons = serde_json::from_str(include_str!("vectors/kaba-messenger-reasons.json")).unwrap();
    assert_eq!((reasons.main.len(), reasons.detail.len()), (53, 162));
    let normal = |name: &String| {
        let found = reasons.normal.iter().find(|(_, names)| names.contains(name));
        found.map_or("rejected", |(normal, _)| normal.as_str())
    };
    for name in reasons.main.iter().chain(&reasons.detail) {
        let means = match meaning(name) {
            Some(Meaning::Fine | Meaning::NothingToDo) => "ok",
            Some(Meaning::Elsewhere) => "rejected",
            Some(Meaning::Refused(code)) => code.as_str(),
            Some(Meaning::Doubt) if reasons.doubted.contains(name) => normal(name),
            Some(Meaning::Doubt) => "outcome_unknown",
            None => "nothing",
        };
        assert_eq!(means, normal(name), "{name}");
        assert!(!reasons.doubted.contains(name) || meaning(name) == Some(Meaning::Doubt), "{name}");
    }
    assert_eq!(meaning("Geheimnis"), None);
}

#[derive(Debug, PartialEq)]
enum Means {
    Done,
    Refused(Code),
    Doubt,
}

fn read(command: &Command, status: u16, body: &str) -> Means {
    match answer::read(command, status, body.as_bytes()) {
        Answer::Done => Means::Done,
        Answer::Refused(refusal) => Means::Refused(refusal.code),
        Answer::Doubt(_) => Means::Doubt,
    }
}

fn in_body(inside: &str) -> String {
    format!("<e:Envelope xmlns:e='x'><e:Body><R><Whatever>{inside}</Whatever></R></e:Body></e:Envelope>")
}

#[test]
fn success_is_read_and_not_taken_from_its_element_being_there() {
    let check =
        |inside: &str, wanted| assert_eq!(read(&duplicate(), 200, &in_body(inside)), wanted, "{inside}");
    check("<bSuccess>true</bSuccess>", Means::Done);
    check("<bSuccess> 1 </bSuccess><ResponseMessage>Success</ResponseMessage>", Means::Done);
    check("<bSuccess>false</bSuccess>", Means::Doubt);
    check("<bSuccess>false</bSuccess><ResponseMessage>Success</ResponseMessage>", Means::Doubt);
    check("<bSuccess>true</bSuccess><ResponseMessage>NoActionRequired</ResponseMessage>", Means::Doubt);
    check(
        "<bSuccess>false</bSuccess><ResponseMessage>EncoderBusy</ResponseMessage>",
        Means::Refused(Code::EncoderBusy),
    );
    check(
        "<bSuccess>false</bSuccess><ResponseMessage>RequestTimeoutNoResponse</ResponseMessage>",
        Means::Doubt,
    );
    check("<bSuccess/>", Means::Doubt);
    check("<bSuccess>yes</bSuccess>", Means::Doubt);
    check("<bSuccess>true</bSuccess><bSuccess>false</bSuccess>", Means::Doubt);
    check("<bSuccess>true</bSuccess><ResponseMessage>RoomNumberNotFound</ResponseMessage>", Means::Doubt);
    check("<bSuccess>true</bSuccess><faultcode>EncoderMsg</faultcode>", Means::Doubt);
    check("<Success>true</Success>", Means::Doubt);
}

#[test]
fn a_fault_means_what_its_reasons_mean_whichever_string_has_them_and_whatever_the_status() {
    let check = |inside: &str, wanted: Code| {
        for status in [200, 500] {
            assert_eq!(read(&duplicate(), status, &in_body(inside)), Means::Refused(wanted), "{inside}");
        }
    };
    check("<faultcode>RoomNumberNotFound</faultcode>", Code::RoomUnknown);
    check("<faultcode>s:Server</faultcode><faultstring>EncoderMsg: KeyJammed.</faultstring>", Code::BadCard);
    check("<Fault><detailInfo><a>ReservationNotFound</a></detailInfo></Fault>", Code::NoStayToJoin);
    check("<faultcode>EncoderMsg</faultcode><detailInfo>ConfirmKeyCancel</detailInfo>", Code::Rejected);
    check("<faultcode>UserCredentialsNotProvided</faultcode>", Code::Auth);
    let soap = |code: &str, text: &str| {
        format!(
            "<e:Envelope xmlns:e='x'><e:Body><Fault><faultcode>{code}</faultcode>\
             <faultstring>{text}</faultstring></Fault></e:Body></e:Envelope>"
        )
    };
    // A fault is no card, whatever words are in it.
    assert_eq!(read(&duplicate(), 500, &soap("soap:Server", "Success flag not found")), Means::Doubt);
    assert_eq!(read(&duplicate(), 200, &soap("NoFault", "VIP_Success")), Means::Doubt);
    assert_eq!(read(&duplicate(), 200, &soap("soap:Client", "no such action")), Means::Doubt);
    // What the framework threw away was not begun; what broke on the way may have been done.
    assert_eq!(
        read(&duplicate(), 500, &soap("soap:Client", "no such action")),
        Means::Refused(Code::ProtocolViolation)
    );
    assert_eq!(read(&duplicate(), 500, &soap("soap:Server", "object reference")), Means::Doubt);
    // An operation that failed tells more, and may have written before.
    let told = soap("soap:Client", "no").replace("</Fault>", "<detail><a>SomeNewReason</a></detail></Fault>");
    assert_eq!(read(&duplicate(), 500, &told), Means::Doubt);
    let told = told.replace("SomeNewReason", " ");
    assert_eq!(read(&duplicate(), 500, &told), Means::Refused(Code::ProtocolViolation));
    assert_eq!(read(&duplicate(), 200, &soap("EncoderMsg", "")), Means::Doubt);
    assert_eq!(read(&duplicate(), 200, &soap("MessengerPMSServiceNoResponse", "")), Means::Doubt);
    assert_eq!(
        read(&Command::HelloWorldTest, 200, &soap("EncoderMsg", "")),
        Means::Refused(Code::ProtocolViolation)
    );
    // A card is not there because nothing had to be done; a stay has ended then.
    let nothing = soap("NoActionRequired", "");
    let check_out = Command::CheckOutGuest { stay: stay("84711") };
    assert_eq!(read(&check_out, 200, &soap("NoActionRequired", "and more")), Means::Doubt);
    assert_eq!(read(&duplicate(), 200, &nothing), Means::Doubt);
    assert_eq!(read(&check_out, 200, &nothing), Means::Done);
}

#[test]
fn what_is_no_answer_of_the_service_is_a_doubt_unless_the_web_server_kept_the_request() {
    for (status, body) in [
        (200, ""),
        (200, "<html><body>hello</body></html>"),
        (200, "<e:Envelope xmlns:e='x'/>"),
        (200, "<?xml version='1.0' encoding='iso-8859-1'?><Envelope/>"),
        (200, "<!DOCTYPE a><Envelope/>"),
        (302, "<html/>"),
        (500, "oops"),
        (502, ""),
        (503, ""),
    ] {
        assert_eq!(read(&duplicate(), status, body), Means::Doubt, "{status} {body}");
    }
    for (status, code) in [(401, Code::Auth), (403, Code::Auth), (404, Code::Rejected), (415, Code::Rejected)]
    {
        assert_eq!(read(&duplicate(), status, "<html/>"), Means::Refused(code), "{status}");
    }
}

#[test]
fn an_answer_cut_at_any_byte_is_a_doubt() {
    let mut vectors = Vectors::load();
    for id in ["005", "006"] {
        let (_, whole, _) = vectors.take(id);
        for cut in 0..whole.len() {
            assert_eq!(read(&duplicate(), 200, &whole[..cut]), Means::Doubt, "vector {id} cut at {cut}");
        }
    }
}

#[test]
fn a_description_is_compared_by_its_operations_and_its_namespace() {
    let description = |namespace: &str, names: &[&str]| {
        let operations: String = names.iter().map(|name| format!("<operation name='{name}'/>")).collect();
        format!(
            "<w:definitions xmlns:w='w' targetNamespace='{namespace}'><w:portType name='p'>{operations}</w:portType>\
             <w:binding><operation name='Bound'/></w:binding></w:definitions>"
        )
    };
    let same = description("http://tempuri.org", &wsdl::OPERATIONS);
    assert!(wsdl::compare(same.as_bytes()).unwrap().is_none());
    let mut names = wsdl::OPERATIONS.to_vec();
    names.retain(|name| *name != "ExtendCheckOut");
    names.push("OpenTheGates");
    let other = wsdl::compare(description("http://tempuri.org/", &names).as_bytes()).unwrap();
    assert_eq!((other.missing, other.further), (vec!["ExtendCheckOut".into()], vec!["OpenTheGates".into()]));
    assert_eq!(other.namespace.as_deref(), Some("http://tempuri.org/"));
    assert!(wsdl::compare(b"<html>").is_err());
}

#[test]
fn the_list_of_faults_holds_names_and_never_what_a_header_sends_back() {
    let header = "<Header><AuthHeader><Username>PmsUser1</Username><Password>Geheim_12</Password></AuthHeader></Header>";
    let many = "<string>NewReason_1 a Guest-4711</string>".repeat(1_000);
    let body = format!("<Envelope>{header}<Body><R><string>EncoderBusy</string>{many}</R></Body></Envelope>");
    let names = answer::fault_list(body.as_bytes());
    assert_eq!((names.len(), names[0].as_str(), names[1].as_str()), (300, "EncoderBusy", "NewReason_1"));
    assert!(names.iter().all(|name| name == "EncoderBusy" || name == "NewReason_1"), "{names:?}");
}

#[test]
fn what_a_service_says_of_guests_is_in_no_message() {
    let body =
        in_body("<faultcode>EncoderMsg</faultcode><detailInfo>RoomNumberNotFound for Doe Jane</detailInfo>");
    let Answer::Refused(refusal) = answer::read(&duplicate(), 200, body.as_bytes()) else {
        panic!("refused")
    };
    assert!(
        refusal.message.contains("RoomNumberNotFound") && !refusal.message.contains("Doe"),
        "{refusal:?}"
    );
}
