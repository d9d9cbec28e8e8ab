//! The driver of Messenger's service against servers played byte by byte, in memory under a paused clock. The server here
//! knows no protocol: it says what a test tells it to say.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    config::{AgentConfig, DriverConfig, KabaMessengerConfig},
    drivers::{
        Driver, Line, Past, Performed, Proof, Work,
        kaba_messenger::{KabaMessenger, REST, wsdl},
    },
    model::{
        AccessMethodId, CardEncode, CardRead, Code, DoorName, EncoderName, JobId, Order, Outcome, Private,
        ProofLevel, ReservationKey, StayModify, Success, SystemName, Treatment, Window, Written,
    },
    protocol::Stage,
    seams::{Clock, Listener, MemoryNet, Net, Random, Stream},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// No wait of a test is longer than this.
const PATIENCE: Duration = Duration::from_secs(600);

const SUCCESS: &str = "<R><X><bSuccess>true</bSuccess><ResponseCode>0</ResponseCode>\
                       <ResponseMessage>Success</ResponseMessage></X></R>";

#[tokio::test(start_paused = true)]
async fn the_first_card_of_a_stay_is_a_new_booking_of_the_stay_in_its_room() {
    let mut site = Site::open().await;
    let (performed, asked) = site.perform(first(card()), SUCCESS).await;
    let success = success(performed);
    assert_eq!(success.written, Some(Written::Proven));
    let facts = success.card.unwrap();
    assert_eq!((facts.serial, facts.overrode), (None, Some(true)));
    assert_eq!(facts.printed_start, Some(at("2026-11-21T14:00:00Z")));
    assert_eq!(facts.printed_end, Some(at("2026-11-24T10:00:00Z")));

    assert!(asked.starts_with("POST /lens/MessengerPMSService.asmx HTTP/1.1\r\n"), "{asked}");
    let action = "soapaction: \"http://tempuri.org/createnewbooking\"";
    assert!(asked.to_lowercase().contains(action), "{asked}");
    for part in [
        "<u:Username>pms</u:Username><u:Password>geheim&amp;1</u:Password><u:Created>2026-11-20T09:00:",
        "<t:ReservationID>L-84711/101</t:ReservationID><t:SiteName>MAIN</t:SiteName><t:PMSTerminalID>71</t:PMSTerminalID>\
         <t:EncoderID>1</t:EncoderID><t:CheckIn>2026-11-21T15:00:00</t:CheckIn><t:CheckOut>2026-11-24T11:00:00</t:CheckOut>",
        "xsd\">Doe Jane</u:GuestName><t:MainRoomNo>101</t:MainRoomNo>",
        "<t:PassLevelNo>1</t:PassLevelNo><t:eMode>GrantAccess</t:eMode></t:CCommonAreas><t:CCommonAreas><t:PassLevelNo>7<",
    ] {
        assert!(asked.contains(part), "{part} is missing in {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_card_just_like_the_first_is_a_duplicate_and_any_other_a_stay_of_its_own() {
    let mut site = Site::open().await;
    let now = CardEncode {
        window: Window::new(at("2026-11-20T07:00:00Z"), card().window.ends_at()).unwrap(),
        ..card()
    };
    // Nothing is remembered of the stay: the further card says its own dates and doors.
    let (performed, asked) = site.perform(further(now.clone()), SUCCESS).await;
    let facts = success(performed).card.unwrap();
    assert_eq!((facts.overrode, facts.printed_start), (Some(false), None), "it opens at once");
    assert!(
        asked.contains("<t:AddSharedGuest ") && asked.contains("ID>L-84711/101/0000002a</t:R"),
        "{asked}"
    );

    site.perform(first(now.clone()), SUCCESS).await;
    let (_, asked) = site.perform(further(now.clone()), SUCCESS).await;
    assert!(asked.contains("<t:MakeDuplicateKey ") && asked.contains("ID>L-84711/101</t:R"), "{asked}");
    assert!(asked.contains("<t:GuestName>Doe Jane</t:GuestName>"), "{asked}");

    let later = Window::new(at("2026-11-20T07:00:00Z"), Some(at("2026-11-25T10:00:00Z"))).unwrap();
    for other in [
        CardEncode { doors: vec![door("101")], ..now.clone() },
        CardEncode { window: later, ..now.clone() },
        card(),
    ] {
        let (_, asked) = site.perform(further(other), SUCCESS).await;
        assert!(asked.contains("<t:AddSharedGuest "), "{asked}");
    }
    // Another stay in the same room, and the same stay after its end was changed.
    let stranger = CardEncode { reservation_key: Some(ReservationKey::new("2").unwrap()), ..now.clone() };
    let (_, asked) = site.perform(further(stranger), SUCCESS).await;
    assert!(asked.contains("<t:AddSharedGuest "), "{asked}");
    site.perform(extend(), SUCCESS).await;
    let (_, asked) = site.perform(further(now), SUCCESS).await;
    assert!(asked.contains("<t:AddSharedGuest "), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_stay_is_extended_by_its_name_and_a_move_is_refused() {
    let mut site = Site::open().await;
    let (performed, asked) = site.perform(extend(), SUCCESS).await;
    assert_eq!(success(performed).written, Some(Written::Proven));
    assert!(asked.contains("ID>L-84711/101</t:R") && asked.contains("<t:PMSTerminalID>90<"), "{asked}");
    assert!(asked.contains("<t:CheckOut>2026-11-25T11:01:00</t:CheckOut>"), "rounded up: {asked}");

    let Order::StayModify(stay) = extend().order else { panic!("another order") };
    let moved = Order::StayModify(StayModify { to_room: Some(door("102")), ..stay });
    assert_eq!(site.driver.admit(&moved).unwrap_err().code, Code::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_check_out_ends_the_first_stay_by_its_name_and_then_whoever_is_in_the_room() {
    let fault = |main: &str| {
        format!("<Fault><faultcode>{main}</faultcode><detailInfo>NotApplicable</detailInfo></Fault>")
    };
    // Only whoever was told that the first guest is out asks for the room, and whatever is said then but success is no
    // failure: half of it is done.
    for (answers, ends, asked_for) in [
        (vec![SUCCESS.to_owned(), SUCCESS.to_owned()], "succeeded", 2),
        (vec![SUCCESS.to_owned(), fault("NoActionRequired")], "succeeded", 2),
        (vec![SUCCESS.to_owned(), fault("RoomNumberNotFound")], "unknown room_unknown", 2),
        (vec![SUCCESS.to_owned(), fault("UndefinedFault")], "unknown no_answer", 2),
        (vec![fault("KeyInstanceNotFound")], "failed no_stay_to_join", 1),
        (vec![fault("RequestTimeoutNoResponse")], "unknown no_answer", 1),
    ] {
        let mut site = Site::open().await;
        let (performed, asked) = site.perform_all(check_out(), &answers).await;
        assert_eq!((end(&performed).as_str(), asked.len()), (ends, asked_for), "{answers:?}");
        assert!(asked[0].contains("<t:CheckOutGuest ") && asked[0].contains("ID>L-84711/101</t:R"));
        for room in &asked[1..] {
            let fields = "<t:SiteName>MAIN</t:SiteName><t:MainRoomNo>101</t:MainRoomNo>\
                          <t:PMSTerminalID>90</t:PMSTerminalID></t:CancelGuestsAccessToRoom>";
            assert!(room.contains(fields), "{room}");
        }
    }
    let mut site = Site::open_and("checkout_of = 'first_guest'").await;
    let (performed, asked) = site.perform_all(check_out(), &[SUCCESS.to_owned()]).await;
    assert_eq!((end(&performed).as_str(), asked.len()), ("succeeded", 1));
}

#[tokio::test(start_paused = true)]
async fn a_check_out_whose_second_half_finds_nobody_is_a_doubt_that_says_what_to_do() {
    let mut site = Site::open().await;
    let script = async {
        let (mut server, _) = site.listener.take().await;
        server.write_all(reply(SUCCESS).as_bytes()).await.unwrap();
        let (_gone, asked) = site.listener.take().await;
        assert!(asked.contains("<t:CancelGuestsAccessToRoom "), "{asked}");
    };
    let performed = perform(&site.driver, check_out(), script).await;
    assert_eq!(end(&performed), "unknown line_lost");
    let Performed::Ended(Outcome::Unknown(why)) = performed else { panic!("{performed:?}") };
    assert!(why.message.contains("check room 101 out at the lock system's own desk program"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn every_refusal_has_its_name_and_a_doubt_is_never_a_failure() {
    let fault = |name: &str| {
        format!("<Fault><faultcode>EncoderMsg</faultcode><detailInfo>{name}</detailInfo></Fault>")
    };
    for (answer, ends) in [
        (fault("TimeoutWaitingKey"), "failed no_card"),
        (fault("EncoderBusy"), "failed encoder_busy"),
        (fault("EncoderNotOnlineOrNotExist"), "failed encoder_offline"),
        (fault("RoomNumberNotFound"), "failed room_unknown"),
        (fault("CheckoutDateLessThanSystemDate"), "failed bad_dates"),
        (fault("ConfirmKeyCancel"), "failed rejected"),
        (fault("RequestTimeoutNoResponse"), "unknown no_answer"),
        (fault("VIP_WRITE_TIMEOUT"), "unknown no_answer"),
        (fault("SomethingNew"), "unknown no_answer"),
        ("<bSuccess>false</bSuccess>".into(), "unknown no_answer"),
        ("<hello/>".into(), "unknown no_answer"),
    ] {
        // An encoder without an answer would rest.
        let mut site = Site::open().await;
        let (performed, _) = site.perform(first(card()), &answer).await;
        assert_eq!(end(&performed), ends, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_cut_at_any_byte_is_a_doubt() {
    let whole = reply(SUCCESS);
    for cut in 0..whole.len() {
        let mut site = Site::open().await;
        let script = async {
            let (mut server, _) = site.listener.take().await;
            server.write_all(&whole.as_bytes()[..cut]).await.unwrap();
        };
        let performed = perform(&site.driver, first(card()), script).await;
        assert!(matches!(performed, Performed::Ended(Outcome::Unknown(_))), "cut at {cut}: {performed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_cut_at_any_byte_is_a_doubt() {
    let mut site = Site::open().await;
    let (_, whole) = site.perform(first(card()), SUCCESS).await;
    for cut in 1..whole.len() {
        let mut site = Site::open().await;
        let script = async {
            let mut server = site.listener.0.accept().await.unwrap().0;
            server.read_exact(&mut vec![0; cut]).await.unwrap();
        };
        let performed = perform(&site.driver, first(card()), script).await;
        assert_eq!(end(&performed), "unknown line_lost", "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_doubt_after_the_wait_and_its_margin_and_a_late_answer_finds_nobody() {
    let mut site = Site::open().await;
    let begun = Instant::now();
    let script = async {
        let (mut server, _) = site.listener.take().await;
        sleep(Duration::from_secs(89)).await;
        assert!(server.write_all(b"HTTP/1.1 200 OK\r\n").await.is_ok());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "nobody listens any more");
    };
    let performed = perform(&site.driver, first(card()), script).await;
    assert_eq!((end(&performed).as_str(), begun.elapsed().as_secs() / 2), ("unknown no_answer", 45));
    assert!(matches!(*site.driver.line().borrow(), Line::Down(ref trouble) if trouble.code == "line_down"));
    // Nothing can be read back.
    assert_eq!(site.driver.prove(&first(card())).await, Proof::None);
    // The service may still wait for a card, and the next guest's is not to be laid down for it.
    site.ready().await;
    let at_once = perform(&site.driver, first(card()), async {}).await;
    assert_eq!(end(&at_once), "nothing_sent encoder_busy");
    sleep(REST).await;
    site.ready().await;
    assert_eq!(end(&site.perform(first(card()), SUCCESS).await.0), "succeeded");
}

#[tokio::test(start_paused = true)]
async fn encoders_work_side_by_side_and_each_has_its_terminal() {
    let mut site = Site::open().await;
    let second = CardEncode { encoder: EncoderName::new("2").unwrap(), doors: vec![door("102")], ..card() };
    let script = async {
        let (mut one, asked_one) = site.listener.take().await;
        let (mut two, asked_two) = site.listener.take().await;
        assert!(asked_one.contains("ID>71<") && asked_two.contains("ID>2</t:PMSTerminalID>"));
        two.write_all(reply(SUCCESS).as_bytes()).await.unwrap();
        one.write_all(reply(SUCCESS).as_bytes()).await.unwrap();
    };
    let sink = |_| {};
    let all = async {
        tokio::join!(
            site.driver.perform(first(card()), &sink),
            site.driver.perform(first(second.clone()), &sink),
            script
        )
    };
    let (one, two, ()) = timeout(PATIENCE, all).await.unwrap();
    assert_eq!((end(&one).as_str(), end(&two).as_str()), ("succeeded", "succeeded"));
    let lane =
        |card: CardEncode| site.driver.admit(&Order::CardEncode(card)).unwrap().lane.as_str().to_owned();
    assert_eq!((lane(card()).as_str(), lane(second).as_str()), ("front/1", "front/2"));
    assert_eq!(site.driver.admit(&check_out().order).unwrap().lane.as_str(), "front");
    let capabilities = site.driver.inventory().capabilities;
    assert_eq!((capabilities.read_card, capabilities.r#override), (None, Some(ProofLevel::Vector)));
}

#[tokio::test(start_paused = true)]
async fn what_the_service_cannot_do_or_say_is_refused_before_a_byte() {
    let site = Site::open().await;
    let card_for = |doors: &[&str]| CardEncode { doors: doors.iter().copied().map(door).collect(), ..card() };
    for (order, code) in [
        (Order::CardEncode(card_for(&["101", "102"])), Code::TooManyDoors),
        (Order::CardEncode(card_for(&["pool"])), Code::Unsupported),
        (Order::CardEncode(card_for(&["999"])), Code::EntranceUnknown),
        (Order::CardEncode(card_for(&["1/2"])), Code::Unsupported),
        (Order::CardEncode(card_for(&[" 103"])), Code::Unsupported),
        (
            Order::CardEncode(CardEncode { encoder: EncoderName::new("9").unwrap(), ..card() }),
            Code::EncoderUnknown,
        ),
        (
            Order::CardEncode(CardEncode {
                window: Window::new(at("2026-11-21T14:00:00Z"), None).unwrap(),
                ..card()
            }),
            Code::OpenEndUnsupported,
        ),
        (
            Order::CardRead(CardRead { encoder: EncoderName::new("1").unwrap(), card_wait_seconds: 60 }),
            Code::Unsupported,
        ),
        (Order::StayCheckout { room: door("pool"), reservation_key: key() }, Code::Unsupported),
    ] {
        assert_eq!(site.driver.admit(&order).unwrap_err().code, code, "{order:?}");
    }
    let mistakes = KabaMessenger::mistakes(&config(site.folder.path(), "saflok", ""));
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
}

#[tokio::test(start_paused = true)]
async fn as_long_as_nobody_answers_nothing_has_left_and_a_stop_sends_nothing() {
    let folder = folder();
    let net = MemoryNet::default();
    let driver = start(Arc::new(net), &config(folder.path(), "saflok", ""));
    line_is(&driver, "tcp_unreachable").await;
    let performed = perform(&driver, first(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    driver.stop();
    let performed = perform(&driver, first(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");

    fs::set_permissions(folder.path().join("password"), fs::Permissions::from_mode(0o644)).unwrap();
    let driver = start(Arc::new(MemoryNet::default()), &config(folder.path(), "saflok", ""));
    line_is(&driver, "password_file").await;
    let performed = perform(&driver, first(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent auth");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_let_us_in_or_is_another_one_is_named() {
    let cases: [(&str, &str); 4] = [
        ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "auth_refused"),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "not_messenger"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>", "not_messenger"),
        (&reply("<Fault><faultcode>UserCredentialsNotProvided</faultcode></Fault>"), "auth_refused"),
    ];
    for (answer, code) in cases {
        let (folder, net) = (folder(), MemoryNet::default());
        let mut listener = net.listen("127.0.0.1:80".parse().unwrap()).await.unwrap();
        let driver = start(Arc::new(net), &config(folder.path(), "ambiance", ""));
        let serving = async {
            let mut server = listener.accept().await.unwrap().0;
            hear(&mut server).await;
            server.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! { () = line_is(&driver, code) => {}, () = serving => unreachable!("it never ends") }
        let Line::Down(trouble) = driver.line().borrow().clone() else { panic!("{code}") };
        assert!(!trouble.message.contains("geheim"), "{}", trouble.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_description_that_differs_or_is_not_shown_is_a_remark() {
    assert_eq!(Site::open().await.driver.remark(), None);
    let mut site = Site::open_with("ambiance", Some(description(&wsdl::OPERATIONS[1..]))).await;
    let remark = site.driver.remark().unwrap();
    assert_eq!(remark.code, "messenger_differs");
    assert!(remark.message.contains("lacks AddGuestAccess"), "{}", remark.message);
    assert_eq!(end(&site.perform(first(card()), SUCCESS).await.0), "succeeded");
    let site = Site::open_with("ambiance", None).await;
    assert_eq!(site.driver.remark().unwrap().code, "messenger_not_compared");
}

#[tokio::test(start_paused = true)]
async fn community_is_asked_and_never_presented_as_working() {
    let (folder, net) = (folder(), MemoryNet::default());
    let mut listener = Server(net.listen("127.0.0.1:80".parse().unwrap()).await.unwrap(), None);
    let driver = start(Arc::new(net), &config(folder.path(), "community", "probe_only = true"));
    let serving = async {
        listener.take().await;
    };
    tokio::select! {
        () = line_is(&driver, "interface_document_needed") => {}
        () = serving => panic!("it was asked for more than whether it is there"),
    }
    let Line::Down(trouble) = driver.line().borrow().clone() else { panic!("it is down") };
    assert!(trouble.message.contains("interface document is needed"), "{}", trouble.message);
    assert!(trouble.message.contains("does answer as Messenger's service"), "{}", trouble.message);
    assert_eq!(driver.admit(&first(card()).order).unwrap_err().code, Code::Unsupported);
    let capabilities = driver.inventory().capabilities;
    assert_eq!((capabilities.r#override, capabilities.join, capabilities.checkout), (None, None, None));
    assert_eq!(end(&perform(&driver, first(card()), async {}).await), "failed unsupported");
}

#[tokio::test(start_paused = true)]
async fn the_night_of_the_change_of_clocks_is_reported_by_its_later_end() {
    let mut site = Site::open().await;
    let window = Window::new(at("2026-11-20T07:00:00Z"), Some(at("2027-10-31T00:30:00Z"))).unwrap();
    let (performed, asked) = site.perform(first(CardEncode { window, ..card() }), SUCCESS).await;
    assert!(asked.contains("<t:CheckIn>2026-11-20T09:00:"), "a start that has come is now: {asked}");
    assert!(asked.contains("<t:CheckOut>2027-10-31T02:30:00</t:CheckOut>"), "{asked}");
    assert_eq!(success(performed).card.unwrap().printed_end, Some(at("2027-10-31T01:30:00Z")));
}

struct Site {
    driver: KabaMessenger,
    listener: Server,
    folder: TempDir,
}

impl Site {
    async fn open() -> Self {
        Self::open_with("saflok", Some(description(&wsdl::OPERATIONS))).await
    }

    async fn open_with(product: &str, description: Option<String>) -> Self {
        Self::open_told(product, description, "").await
    }

    async fn open_told(product: &str, description: Option<String>, more: &str) -> Self {
        let (folder, net) = (folder(), MemoryNet::default());
        let listener = Server(net.listen("127.0.0.1:80".parse().unwrap()).await.unwrap(), description);
        let driver = start(Arc::new(net), &config(folder.path(), product, more));
        let mut site = Self { driver, listener, folder };
        site.ready().await;
        site
    }

    /// Lets the driver look at the service until it is ready.
    async fn ready(&mut self) {
        let mut line = self.driver.line();
        let ready = async { drop(line.wait_for(|line| *line == Line::Ready).await.unwrap()) };
        let looked = async {
            tokio::select! {
                biased;
                () = ready => {}
                _ = self.listener.take() => panic!("a command although none was ordered"),
            }
        };
        timeout(PATIENCE, looked).await.expect("the line is ready in time");
    }

    /// Does the work, while the server answers this; and what it was asked, to the byte.
    async fn perform(&mut self, work: Work, answer: &str) -> (Performed, String) {
        let asked = Mutex::new(String::new());
        let script = async {
            let (mut server, heard) = self.listener.take().await;
            *asked.lock().unwrap() = heard;
            server.write_all(reply(answer).as_bytes()).await.unwrap();
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "nothing more is said on it");
        };
        let performed = perform(&self.driver, work, script).await;
        (performed, asked.into_inner().unwrap())
    }
}

impl Site {
    /// The same, with more settings.
    async fn open_and(more: &str) -> Self {
        Self::open_told("saflok", Some(description(&wsdl::OPERATIONS)), more).await
    }

    /// Work of several commands, each with its answer.
    async fn perform_all(&mut self, work: Work, answers: &[String]) -> (Performed, Vec<String>) {
        let asked = Mutex::new(Vec::new());
        let script = async {
            for answer in answers {
                let (mut server, heard) = self.listener.take().await;
                asked.lock().unwrap().push(heard);
                server.write_all(reply(answer).as_bytes()).await.unwrap();
            }
        };
        let performed = perform(&self.driver, work, script).await;
        (performed, asked.into_inner().unwrap())
    }
}

/// The server's listener, and its description.
struct Server(Box<dyn Listener>, Option<String>);

impl Server {
    /// The next command that changes something; what else is asked is answered.
    async fn take(&mut self) -> (Box<dyn Stream>, String) {
        loop {
            let mut stream = self.0.accept().await.unwrap().0;
            let heard = hear(&mut stream).await;
            let answer = match &self.1 {
                _ if heard.contains("<t:HelloWorldTest ") => {
                    reply("<HelloWorldTestResponse><HelloWorldTestResult/></HelloWorldTestResponse>")
                }
                _ if heard.contains("<t:PublishFaultList ") => reply("<R>EncoderMsg</R>"),
                Some(description) if heard.starts_with("GET ") => {
                    assert!(
                        heard.starts_with("GET /lens/MessengerPMSService.asmx?wsdl HTTP/1.1\r\n"),
                        "{heard}"
                    );
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{description}", description.len())
                }
                None if heard.starts_with("GET ") => "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".into(),
                _ => return (stream, heard),
            };
            // Whoever waited too long for it has hung up.
            let _either_way = stream.write_all(answer.as_bytes()).await;
        }
    }
}

/// A whole request.
async fn hear(stream: &mut Box<dyn Stream>) -> String {
    let mut heard = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "it hung up after {text:?}");
    }
}

fn reply(inside: &str) -> String {
    let body = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>{inside}</e:Body></e:Envelope>"
    );
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn description(operations: &[&str]) -> String {
    let operations: String = operations.iter().map(|name| format!("<operation name='{name}'/>")).collect();
    format!(
        "<definitions targetNamespace='http://tempuri.org'><portType>{operations}</portType></definitions>"
    )
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "geheim&1\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

fn start(net: Arc<dyn Net>, config: &KabaMessengerConfig) -> KabaMessenger {
    let clock = Clock::simulated(at("2026-11-20T08:00:00Z"));
    let zone = TimeZone::get("Europe/Oslo").unwrap();
    KabaMessenger::start_over(
        net,
        config,
        SystemName::new("front").unwrap(),
        zone,
        Past::Answered,
        clock,
        Random::seeded(7),
    )
}

fn config(folder: &Path, product: &str, more: &str) -> KabaMessengerConfig {
    let text = format!(
        r#"
        [site]
        name = "House"
        time_zone = "Europe/Oslo"
        [storage]
        folder = "store"
        [[system]]
        name = "front"
        kind = "kaba_messenger"
        product = "{product}"
        exclusive = true
        url = "http://messenger.lan/lens/MessengerPMSService.asmx"
        user = "pms"
        password_file = "password"
        reservation_prefix = "L-"
        encoders = [{{ name = "1", terminal = "71" }}, "2"]
        terminal = "90"
        rooms = ["101", "102", "1/2", " 103"]
        common = [{{ name = "pool", pass_level = 7 }}, {{ name = "spa", pass_level = 1 }}]
        {more}
        "#
    );
    let config = AgentConfig::from_toml(&folder.join("latchd.toml"), &text);
    let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let DriverConfig::KabaMessenger(messenger) = config.systems.remove(0).driver else {
        panic!("another make")
    };
    messenger
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn door(name: &str) -> DoorName {
    DoorName::new(name).unwrap()
}

fn key() -> ReservationKey {
    ReservationKey::new("84711").unwrap()
}

/// A card for room 101, pool and spa, from 15:00 to 11:00 local time.
fn card() -> CardEncode {
    CardEncode {
        encoder: EncoderName::new("1").unwrap(),
        doors: ["101", "pool", "spa"].map(door).into(),
        reservation_key: Some(key()),
        window: Window::new(at("2026-11-21T14:00:00Z"), Some(at("2026-11-24T10:00:00Z"))).unwrap(),
        access_method_id: AccessMethodId(Uuid::nil()),
        guest_name: Some(Private::new("Doe Jane")),
        card_wait_seconds: 60,
        begin_again: false,
    }
}

fn first(card: CardEncode) -> Work {
    work(Order::CardEncode(card), Treatment::Override)
}

fn further(card: CardEncode) -> Work {
    work(Order::CardEncode(card), Treatment::Join)
}

fn extend() -> Work {
    let ends_at = at("2026-11-25T10:00:01Z");
    let stay = StayModify { room: door("101"), to_room: None, reservation_key: key(), ends_at };
    work(Order::StayModify(stay), Treatment::Plain)
}

fn check_out() -> Work {
    work(Order::StayCheckout { room: door("101"), reservation_key: key() }, Treatment::Plain)
}

fn work(order: Order, treatment: Treatment) -> Work {
    Work { job_id: JobId(Uuid::from_u128(42)), order, treatment, to_see: None, slot: None }
}

/// Does the work, while the server does what the test says.
async fn perform(driver: &KabaMessenger, work: Work, server: impl Future<Output = ()>) -> Performed {
    let makes_card = matches!(work.order, Order::CardEncode(_));
    let stages = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&stages);
    let sink = move |stage: Stage| told.lock().unwrap().push(stage);
    let both = async { tokio::join!(driver.perform(work, &sink), server).0 };
    let performed = timeout(PATIENCE, both).await.expect("the work ends");
    let left = !matches!(performed, Performed::NothingSent(_)) && end(&performed) != "failed unsupported";
    let wanted = if makes_card && left { vec![Stage::WaitingForCard] } else { Vec::new() };
    assert_eq!(*stages.lock().unwrap(), wanted);
    performed
}

fn success(performed: Performed) -> Success {
    match performed {
        Performed::Ended(Outcome::Succeeded(success)) => success,
        other => panic!("not a success: {other:?}"),
    }
}

/// How it ended, in one word and the code: `nothing_sent system_offline`.
fn end(performed: &Performed) -> String {
    match performed {
        Performed::NothingSent(refusal) => format!("nothing_sent {}", refusal.code),
        Performed::MayRepeat(refusal) => format!("may_repeat {}", refusal.code),
        Performed::Ended(Outcome::Failed(refusal)) => format!("failed {}", refusal.code),
        Performed::Ended(Outcome::Unknown(refusal)) => format!("unknown {}", refusal.code),
        Performed::Ended(other) => other.state().to_string(),
    }
}

/// Waits until the line is down with this trouble.
async fn line_is(driver: &KabaMessenger, wanted: &str) {
    let mut line = driver.line();
    let is_so = |line: &Line| matches!(line, Line::Down(trouble) if trouble.code == wanted);
    timeout(PATIENCE, line.wait_for(is_so)).await.expect("in time").unwrap();
}
