//! `latchd probe` through the real program, against each pretend system and against peers that are something else.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use latchd::{
    drivers::{
        kaba_messenger::sim as messenger,
        salto_is::{
            answer::CardShown,
            codec::{Check, Decoded, decode},
            sim as salto,
        },
        visionline::{codec as visionline_codec, sim as visionline},
    },
    seams::SystemNet,
    sim::control::Client,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};

const LONG_ENOUGH: Duration = Duration::from_secs(60);
const ANY: &str = "127.0.0.1:0";

/// A folder with a configuration of one system.
fn site(kind: &str, section: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let exclusive = if kind == "sim_lock" { "" } else { "exclusive = true" };
    let text = format!(
        r#"
        [site]
        name = "House"
        time_zone = "Europe/Oslo"
        [storage]
        folder = "store"
        [[system]]
        name = "house"
        kind = "{kind}"
        {exclusive}
        {section}
        "#
    );
    fs::write(folder.path().join("latchd.toml"), text).unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "sesame\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

/// What the program says, and how it ends.
async fn probe(folder: &Path, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
    command
        .args(["probe", "house", "--config"])
        .arg(folder.join("latchd.toml"))
        .args(more)
        .kill_on_drop(true);
    let output = timeout(LONG_ENOUGH, command.output()).await.expect("it ends").unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let told = String::from_utf8(output.stdout).unwrap() + &errors;
    assert!(!told.contains("sesame") && !told.contains("panicked"), "{told}");
    (output.status.code().unwrap(), told)
}

/// The record: a list of vectors, each with its bytes.
fn record(path: &Path) -> Vec<(Value, Vec<u8>)> {
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let all: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let bytes = |vector: &Value| {
        for field in ["id", "protocol", "direction", "description", "source", "confidence"] {
            assert!(vector[field].is_string(), "{field} of {vector}");
        }
        let hex = vector["bytes_hex"].as_str().unwrap().as_bytes();
        hex.chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    all.into_iter()
        .map(|vector| {
            let bytes = bytes(&vector);
            (vector, bytes)
        })
        .collect()
}

/// As one line: how it wraps is no matter here.
fn words(told: &str) -> String {
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(told: &str, wanted: &[&str]) {
    let told = words(told);
    let mut rest = told.as_str();
    for wanted in wanted {
        let at =
            rest.find(wanted).unwrap_or_else(|| panic!("{wanted:?} is missing, or out of turn, in {told}"));
        rest = &rest[at + wanted.len()..];
    }
}

fn salto_section(address: &str) -> String {
    format!("line = {{ tcp = \"{address}\" }}\nencoders = [\"1\"]\nrooms = [\"101\"]\nack_timeout = \"1s\"")
}

/// A frame with its check, spelled independently of the driver.
fn frame(fields: &str) -> Vec<u8> {
    let mut bytes = vec![0x02, 0xb3];
    bytes.extend(fields.bytes().map(|byte| if byte == b'|' { 0xb3 } else { byte }));
    bytes.extend([0xb3, 0x03]);
    bytes.push(bytes[1..].iter().fold(0, |sum, byte| sum ^ byte));
    bytes
}

#[tokio::test]
async fn salto_is_asked_in_order_nothing_changes_and_the_record_is_a_vector_of_nobody() {
    let starts_at = Some("2026-11-21T14:00:00Z".parse().unwrap());
    let simulator =
        salto::Simulator::new(salto::Settings { starts_at, ..salto::Settings::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options =
        salto::Options { folder: folder.path().into(), pty: false, tcp: Some(ANY.parse().unwrap()) };
    let front = salto::Front::open(simulator.clone(), options).await.unwrap();
    let address = front.places().tcp.unwrap();
    simulator.command("place ada on 1").await.unwrap();
    let mut desk = TcpStream::connect(address).await.unwrap();
    desk.write_all(&[0x05]).await.unwrap();
    assert_eq!(timeout(LONG_ENOUGH, desk.read_u8()).await.unwrap().unwrap(), 0x06);
    let card = frame("CN1|1|R|101||||12||1500211126|1230251126|LOVELACE||||1");
    desk.write_all(&card).await.unwrap();
    // The card is written when the answer is here, its last byte behind 03.
    while timeout(LONG_ENOUGH, desk.read_u8()).await.unwrap().unwrap() != 0x03 {}
    drop(desk);
    let before = simulator.command("ledger").await.unwrap();

    let site = site("salto_is", &salto_section(&address.to_string()));
    let recorded = site.path().join("record.json");
    let (code, told) = probe(site.path(), &["--encoder", "1", "--record", recorded.to_str().unwrap()]).await;
    says(
        &told,
        &[
            "house (salto_is): nothing is changed by these questions",
            "ok open the line expected:",
            "seen: it opens",
            "ok ask whether it is ready (05) expected: 06, ready",
            "seen: 06, ready",
            "ok open a second line beside it expected: it serves a second client as well seen: it answers there too",
            "ok read the card on the encoder expected: a card on encoder 1, shown with times in minutes \
             seen: a guest's card, with times in minutes",
            "recorded in",
        ],
    );
    assert_eq!(code, 0, "{told}");
    let after = simulator.command("ledger").await.unwrap();
    for part in ["cards", "rooms", "doors"] {
        assert!(before[part] == after[part] && !after[part].is_null(), "{part}: {before} {after}");
    }

    let text = fs::read_to_string(&recorded).unwrap();
    assert!(text.contains("\"confidence\":\"site\""), "{text}");
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for secret in ["LOVELACE", "1230251126"] {
        assert!(!text.contains(secret) && !text.contains(&hex(secret)), "{secret} in {text}");
    }
    let record = record(&recorded);
    let frames: Vec<_> = record
        .iter()
        .filter_map(|(vector, bytes)| match decode(bytes) {
            Decoded::Frame { fields, check, used } => {
                assert_eq!((check, used), (Check::Good, bytes.len()), "{vector}");
                assert_eq!(serde_json::to_value(&fields).unwrap(), vector["decoded"]["fields"]);
                Some((vector["direction"].as_str().unwrap(), fields))
            }
            Decoded::Control(_) => None,
            other => panic!("{other:?} in {vector}"),
        })
        .collect();
    let [("bridge->server", asked), ("server->bridge", answered)] = frames.as_slice() else {
        panic!("{frames:?}");
    };
    assert_eq!(asked, &["LT", "1", "R"]);
    let Some(CardShown::Guest(card)) = CardShown::read(answered) else { panic!("{answered:?}") };
    assert_eq!(
        (card.rooms, card.operator, card.valid),
        (vec!["101".to_owned()], "OPERATOR".to_owned(), true)
    );

    // A record is never written over.
    let (code, told) = probe(site.path(), &["--record", recorded.to_str().unwrap()]).await;
    assert_eq!(code, 1);
    says(&told, &["name a file that is not there yet"]);
    front.close().await;
}

#[tokio::test]
async fn a_salto_server_of_another_dialect_or_for_one_client_is_worth_a_look() {
    let settings = salto::Settings { max_clients: 1, ..salto::Settings::default() };
    let simulator = salto::Simulator::new(settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options =
        salto::Options { folder: folder.path().into(), pty: false, tcp: Some(ANY.parse().unwrap()) };
    let front = salto::Front::open(simulator.clone(), options).await.unwrap();
    let address = front.places().tcp.unwrap();
    simulator.command("place anna staff on 1").await.unwrap();
    let site = site("salto_is", &salto_section(&address.to_string()));
    let (code, told) = probe(site.path(), &["--encoder", "1"]).await;
    says(&told, &["warn open a second line", "it serves one client only", "seen: a card of the staff"]);
    assert_eq!(code, 1, "{told}");
    let (code, told) = probe(site.path(), &["--encoder", "9"]).await;
    says(&told, &["system house has no encoder \"9\"; it has: 1"]);
    assert_eq!(code, 1);
    front.close().await;
}

#[tokio::test]
async fn visionline_is_asked_in_order_and_the_record_can_be_read_again() {
    let simulator = visionline::Simulator::new(visionline::Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = visionline::Options { folder: folder.path().into(), tcp: ANY.parse().unwrap(), web: None };
    let front = visionline::Front::open(simulator.clone(), &SystemNet, options).await.unwrap();
    simulator.command("place ada on 1").await.unwrap();
    let section =
        format!("line = {{ tcp = \"{}\" }}\nencoders = [\"1\"]\nrooms = [\"101\"]", front.places().tcp);
    let site = site("visionline", &section);
    let (code, told) = probe(site.path(), &[]).await;
    says(&told, &["ok open the line", "ok listen without a word", "seen: nothing", "warn read", "--encoder"]);
    assert_eq!(code, 1, "{told}");

    let recorded = site.path().join("record.json");
    let (_, told) = probe(site.path(), &["--encoder", "1", "--record", recorded.to_str().unwrap()]).await;
    says(
        &told,
        &["ok open the line", "ok listen without a word", "read the card on the encoder", "recorded in"],
    );
    let record = record(&recorded);
    assert_eq!(record.len(), 2, "{record:?}");
    for (vector, bytes) in record {
        let visionline_codec::Decoded::Text { text, .. } = visionline_codec::decode(&bytes) else {
            panic!("{vector}");
        };
        assert_eq!(text.items[0], "CCB");
        assert_eq!(serde_json::to_value(&text.items).unwrap(), vector["decoded"]["items"]);
    }
    front.close().await;
}

#[tokio::test]
async fn visionlines_web_api_is_asked_too_where_the_site_has_it() {
    let simulator = visionline::Simulator::new(visionline::Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let any = ANY.parse().unwrap();
    let options = visionline::Options { folder: folder.path().into(), tcp: any, web: Some(any) };
    let front = visionline::Front::open(simulator.clone(), &SystemNet, options).await.unwrap();
    let section = |user: &str, rooms: &str| {
        format!(
            "line = {{ tcp = \"{}\" }}\nencoders = [\"1\"]\nrooms = [{rooms}]\n\
             web = {{ url = \"http://{}\", user = \"{user}\", password_file = \"{}\" }}",
            front.places().tcp,
            front.places().web.unwrap(),
            folder.path().join("visionline-web-password").display(),
        )
    };
    let right = site("visionline", &section("bridge", "\"101\""));
    let recorded = right.path().join("record.json");
    let (_, told) = probe(right.path(), &["--record", recorded.to_str().unwrap()]).await;
    let record = record(&recorded);
    let asked: Vec<_> = record.iter().filter_map(|(vector, _)| vector["decoded"]["asked"].as_str()).collect();
    assert_eq!(asked.len(), 3 * 2 + 2, "three visits, two of which ask for something: {asked:?}");
    assert!(record.iter().all(|(vector, bytes)| {
        vector["protocol"] == "visionline_web" && !String::from_utf8_lossy(bytes).contains("secret")
    }));
    says(
        &told,
        &[
            "ok open a session of the Web API",
            "ok list the doors (Web API) expected: a door for each of the 1 rooms seen: 23 doors",
            "ok list the cards of one room (Web API)",
            "seen: 0 cards",
        ],
    );
    let odd = site("visionline", &section("bridge", "\"101\", \"999\""));
    says(&probe(odd.path(), &[]).await.1, &["warn list the doors (Web API)", "not 1 of the rooms: 999"]);
    let wrong = site("visionline", &section("nobody", "\"101\""));
    let (code, told) = probe(wrong.path(), &[]).await;
    says(&told, &["FAIL open a session of the Web API", "HTTP 401", "does not let this user in"]);
    assert_eq!(code, 2);
    let ledger = simulator.command("ledger").await.unwrap();
    assert_eq!((&ledger["orders"], &ledger["web_sessions"]), (&serde_json::json!([]), &serde_json::json!(0)));
    front.close().await;
}

fn messenger_section(address: &str) -> String {
    format!(
        "product = \"saflok\"\nurl = \"http://{address}/lenspmswebservice/MessengerPMSService.asmx\"\nuser = \"pms\"\npassword_file = \"password\"\n\
         encoders = [\"1\"]\nrooms = [\"101\"]"
    )
}

#[tokio::test]
async fn messenger_is_asked_in_order_and_no_name_or_password_is_recorded() {
    let simulator = messenger::Simulator::new(messenger::Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = messenger::Options { folder: folder.path().into(), tcp: ANY.parse().unwrap() };
    let front = messenger::Front::open(simulator.clone(), &SystemNet, options).await.unwrap();
    let site = site("kaba_messenger", &messenger_section(&front.places().tcp.to_string()));
    let recorded = site.path().join("record.json");
    let (code, told) = probe(site.path(), &["--record", recorded.to_str().unwrap()]).await;
    says(
        &told,
        &[
            "ok greet the service (HelloWorldTest) expected:",
            "seen: it does",
            "ask for its description (?wsdl) expected: the 22 operations",
            "ask for its faults (PublishFaultList)",
            "recorded in",
        ],
    );
    assert!(code < 2, "{told}");
    let orders = simulator.command("ledger").await.unwrap()["orders"].clone();
    assert_eq!(orders.as_array().map(Vec::len), Some(0), "{orders}");
    let asked: Vec<_> = record(&recorded)
        .into_iter()
        .filter(|(vector, _)| vector["direction"] == "bridge->server")
        .map(|(vector, bytes)| {
            let operation = vector["decoded"]["operation"].as_str().unwrap().to_owned();
            let text = String::from_utf8(bytes).unwrap();
            assert!(!text.contains("sesame") && !text.contains(">pms<"), "{text}");
            // The description is asked for without a name.
            assert!(operation == "?wsdl" || text.contains("PASSWORD"), "{text}");
            operation
        })
        .collect();
    assert_eq!(asked, ["HelloWorldTest", "?wsdl", "PublishFaultList"]);
    // Whoever is not let in is told so, and what to mend.
    fs::write(site.path().join("password"), "wrong").unwrap();
    let (code, told) = probe(site.path(), &[]).await;
    says(&told, &["FAIL greet the service", "mend `user` and `password_file`"]);
    assert_eq!(code, 2);
    front.close().await;
}

/// Plays a record at a port of its own, by the program.
struct Played {
    child: tokio::process::Child,
    tcp: String,
    control: Client,
    _folder: TempDir,
}

impl Played {
    async fn start(record: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_latchd"))
            .args(["sim", "script"])
            .arg(record)
            .arg("--dir")
            .arg(folder.path())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = timeout(LONG_ENOUGH, said.next_line()).await.unwrap().unwrap().unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        let control = Client::connect(Path::new(said["control"].as_str().unwrap())).await.unwrap();
        Self { child, tcp: said["tcp"].as_str().unwrap().to_owned(), control, _folder: folder }
    }

    /// Whatever it says to somebody who asks for what was not recorded.
    async fn says(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.tcp).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        // A reset is an end as well.
        let _ = timeout(LONG_ENOUGH, stream.read_to_end(&mut said)).await.expect("it hangs up");
        said
    }

    async fn refused(&mut self) -> Vec<Value> {
        self.control.send("ledger").await.unwrap()["refused"].as_array().unwrap().clone()
    }

    async fn end(mut self) {
        self.control.send("quit").await.unwrap();
        assert!(timeout(LONG_ENOUGH, self.child.wait()).await.unwrap().unwrap().success());
    }
}

/// Probes a system and records it, plays the record, and probes that: it has to be told the same, at another address.
/// Somebody who asks for something else is then told nothing of the record but `refusal`.
async fn is_played_again(
    kind: &str,
    section: impl Fn(&str) -> String,
    address: &str,
    more: &[&str],
    unrecorded: &[u8],
    refusal: &[u8],
) {
    let first = site(kind, &section(address));
    let recorded = first.path().join("record.json");
    let words_of = |told: &str, address: &str| {
        let lines = told.lines().filter(|line| !line.starts_with("recorded in"));
        words(&lines.collect::<Vec<_>>().join(" ")).replace(address, "ADDRESS")
    };
    let record = [more, &["--record", recorded.to_str().unwrap()]].concat();
    let (code, told) = probe(first.path(), &record).await;
    assert_eq!(code, 0, "{kind}: {told}");

    let mut played = Played::start(&recorded).await;
    // Twice: once the record is over, it begins again.
    for _ in 0..2 {
        let again = site(kind, &section(&played.tcp));
        let (code, told_again) = probe(again.path(), more).await;
        assert_eq!(words_of(&told_again, &played.tcp), words_of(&told, address), "{kind}");
        assert_eq!(code, 0, "{kind}");
    }
    assert_eq!(played.refused().await, [Value::Null; 0], "{kind}");
    let said = played.says(unrecorded).await;
    assert!(said.starts_with(refusal), "{kind}: {}", said.escape_ascii());
    assert!(!said.windows(7).any(|it| it == b"Success"), "{kind}: {}", said.escape_ascii());
    assert_eq!(played.refused().await.len(), 1, "{kind}");
    played.end().await;
}

#[tokio::test]
async fn a_record_of_salto_is_played_byte_for_byte_and_nothing_else_is_answered() {
    let simulator = salto::Simulator::new(salto::Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options =
        salto::Options { folder: folder.path().into(), pty: false, tcp: Some(ANY.parse().unwrap()) };
    let front = salto::Front::open(simulator.clone(), options).await.unwrap();
    simulator.command("place boss staff on 1").await.unwrap();
    let address = front.places().tcp.unwrap().to_string();
    // A poll as it was recorded, and behind it a card that was not.
    let card = [&[0x05][..], &frame("CN1|1|R|101||||12||1500211126|1230251126|LATCHD||||1")].concat();
    is_played_again("salto_is", salto_section, &address, &["--encoder", "1"], &card, &[0x06]).await;
    front.close().await;
}

#[tokio::test]
async fn a_record_of_visionline_is_played_byte_for_byte_and_nothing_else_is_answered() {
    // In a record every digit is 0, and so is the encoder's name.
    let property = visionline::Property { encoders: vec!["0".into()], ..visionline::Property::default() };
    let settings = visionline::Settings { property, ..visionline::Settings::default() };
    let simulator = visionline::Simulator::new(settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = visionline::Options { folder: folder.path().into(), tcp: ANY.parse().unwrap(), web: None };
    let front = visionline::Front::open(simulator.clone(), &SystemNet, options).await.unwrap();
    let address = front.places().tcp.to_string();
    simulator.command("place ada on 0").await.unwrap();
    let mut desk = TcpStream::connect(&address).await.unwrap();
    desk.write_all(b"CCA;AM1;EA0;GR101;CO209911241100;NC01;\r\n").await.unwrap();
    // Written when the answer is here.
    while timeout(LONG_ENOUGH, desk.read_u8()).await.unwrap().unwrap() != b'\n' {}
    drop(desk);
    let section =
        |address: &str| format!("line = {{ tcp = \"{address}\" }}\nencoders = [\"0\"]\nrooms = [\"101\"]");
    let card = b"CCA;AM1;EA0;GR102;CO209911241100;NC01;\r\n";
    is_played_again("visionline", section, &address, &["--encoder", "0"], card, b"").await;
    front.close().await;
}

#[tokio::test]
async fn a_record_of_messenger_is_played_by_what_is_asked_and_nothing_else_is_answered() {
    let simulator = messenger::Simulator::new(messenger::Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = messenger::Options { folder: folder.path().into(), tcp: ANY.parse().unwrap() };
    let front = messenger::Front::open(simulator.clone(), &SystemNet, options).await.unwrap();
    let address = front.places().tcp.to_string();
    let booking = b"POST /x HTTP/1.1\r\nContent-Length: 35\r\n\r\n<t:CheckOutGuest></t:CheckOutGuest>";
    is_played_again("kaba_messenger", messenger_section, &address, &[], booking, b"HTTP/1.1 404 ").await;
    front.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_record_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record.json");
    fs::write(&file, "[]").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_latchd")).args(["sim", "script"]).arg(&file).output().await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    says(&errors, &["record.json", "the record is empty"]);
}

/// Somebody else at the port: says something or nothing, and holds the line or not.
async fn stranger(greeting: &'static [u8], hangs_up: bool) -> String {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(greeting).await;
            if !hangs_up {
                held.push(stream);
            }
        }
    });
    address
}

#[tokio::test]
async fn whoever_is_no_lock_system_is_told_plainly() {
    let nobody = {
        // A port that was free a moment ago.
        let listener = TcpListener::bind(ANY).await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let ssh = b"SSH-2.0-OpenSSH_9.6\r\n";
    let visionline = |address: &str| {
        format!(
            "line = {{ tcp = \"{address}\" }}\nencoders = [\"1\"]\nrooms = [\"101\"]\nanswer_margin = \"1s\""
        )
    };
    let cases: [(&str, String, &[&str]); 9] = [
        ("salto_is", salto_section(&nobody), &["FAIL open the line", "connect to"]),
        (
            "salto_is",
            salto_section(&stranger(b"", false).await),
            &["FAIL ask whether it is ready", "nothing within 1 s", "\"Industry Standard\""],
        ),
        (
            "salto_is",
            salto_section(&stranger(b"", true).await),
            &["FAIL ask whether it is ready", "closed the line before a word"],
        ),
        (
            "salto_is",
            salto_section(&stranger(ssh, false).await),
            &["FAIL ask whether it is ready", "SSH-2.0", "something else listens at this port"],
        ),
        ("visionline", visionline(&nobody), &["FAIL open the line", "connect to"]),
        (
            "visionline",
            visionline(&stranger(b"", true).await),
            &["FAIL listen without a word", "enter this machine's address"],
        ),
        (
            "visionline",
            visionline(&stranger(ssh, false).await),
            &["FAIL listen without a word", "SSH-2.0", "something else speaks there"],
        ),
        ("kaba_messenger", messenger_section(&nobody), &["FAIL greet the service"]),
        (
            "kaba_messenger",
            messenger_section(&stranger(ssh, false).await),
            &["FAIL greet the service", "is it an HTTP server that listens there?"],
        ),
    ];
    for (kind, section, wanted) in cases {
        let site = site(kind, &section);
        let recorded = site.path().join("record.json");
        let (code, told) = probe(site.path(), &["--record", recorded.to_str().unwrap()]).await;
        says(&told, wanted);
        assert_eq!(code, 2, "{kind}: {told}");
        // What is not understood is recorded without what it said.
        assert!(record(&recorded).iter().all(|(_, bytes)| !bytes.starts_with(b"SSH")), "{kind}");
    }
    let silent = site("visionline", &visionline(&stranger(b"", false).await));
    let (code, told) = probe(silent.path(), &["--encoder", "1", "--card-wait", "1"]).await;
    says(&told, &["FAIL read the card on the encoder", "it said nothing at all"]);
    assert_eq!(code, 2, "{told}");
}

#[tokio::test]
async fn what_is_not_there_to_be_asked_is_named() {
    let locks = site("sim_lock", "locks = [{ name = \"101\", address = \"127.0.0.1:1\" }]");
    let (code, told) = probe(locks.path(), &[]).await;
    says(&told, &["nothing is known that could be asked"]);
    assert_eq!(code, 1);
    let other = site("salto_is", &salto_section("127.0.0.1:1"));
    let text = fs::read_to_string(other.path().join("latchd.toml")).unwrap();
    fs::write(other.path().join("latchd.toml"), text.replace("name = \"house\"", "name = \"annex\""))
        .unwrap();
    let (code, told) = probe(other.path(), &[]).await;
    says(&told, &["this site has no system \"house\"; it has: annex"]);
    assert_eq!(code, 1);
}
