//! Webhooks over real sockets: a cloud of its own process, and a receiver that checks each delivery by itself and fails
//! as the test wants it to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use latchd::seams::Random;
use ring::hmac;
use serde_json::{Value, json};

/// Nothing in these tests takes longer, whatever the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the receiver does with a delivery.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Take,
    /// Takes it and hangs up without a word: the cloud cannot know.
    TakeSilently,
    Refuse(u16),
    HangUp,
    Redirect,
}

/// A delivery that came whole.
#[derive(Clone)]
struct Came {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    manner: Manner,
}

impl Came {
    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// As anybody would who has read how Standard Webhooks signs, and nothing of ours.
    fn verify(&self, secret: &str) {
        for family in ["svix", "webhook"] {
            let header = |name: &str| &self.headers[&format!("{family}-{name}")];
            let (id, at) = (header("id"), header("timestamp"));
            let age =
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().abs_diff(at.parse().unwrap());
            assert!(age < 300, "a delivery of {age} s ago");
            let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
            let mut signed = format!("{id}.{at}.").into_bytes();
            signed.extend(&self.body);
            let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
            assert_eq!(*header("signature"), format!("v1,{}", STANDARD.encode(made)));
        }
        assert_eq!(self.headers["content-type"], "application/json");
    }
}

#[derive(Default)]
struct Seen {
    came: Vec<Came>,
    /// How the next ones are met; with none left, they are taken.
    manners: Vec<Manner>,
}

/// Takes deliveries on a port of its own for as long as the test runs.
#[derive(Clone)]
struct Receiver {
    url: String,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/events?token=abc", listener.local_addr().unwrap());
        let receiver = Self { url, seen: Arc::default() };
        let own = receiver.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let own = own.clone();
                thread::spawn(move || own.meet(stream.unwrap()));
            }
        });
        receiver
    }

    fn meet(&self, stream: TcpStream) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut read = BufReader::new(&stream);
        let mut line = String::new();
        // A cloud that was killed says nothing more.
        let mut next = || {
            line.clear();
            matches!(read.read_line(&mut line), Ok(1..)).then(|| line.trim_end().to_owned())
        };
        let Some(first) = next() else { return };
        assert_eq!(first, "POST /events?token=abc HTTP/1.1");
        let mut headers = BTreeMap::new();
        loop {
            let Some(line) = next() else { return };
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        if read.read_exact(&mut body).is_err() {
            return;
        }
        let (lock, changed) = &*self.seen;
        let manner = {
            let mut seen = lock.lock().unwrap();
            let manner = seen.manners.pop().unwrap_or(Manner::Take);
            seen.came.push(Came { headers, body, manner });
            changed.notify_all();
            manner
        };
        let answer = match manner {
            Manner::Take => "HTTP/1.1 204 No Content\r\n\r\n".into(),
            Manner::Refuse(status) => format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"),
            Manner::Redirect => format!("HTTP/1.1 307 Elsewhere\r\nlocation: {}\r\n\r\n", self.url),
            Manner::HangUp | Manner::TakeSilently => return,
        };
        // Nobody may be there any more.
        let _ = (&stream).write_all(answer.as_bytes());
    }

    fn meets_the_next_with(&self, manners: &[Manner]) {
        self.seen.0.lock().unwrap().manners = manners.iter().rev().copied().collect();
    }

    /// What was taken, each once, in the order in which it came first; once it is all that was waited for.
    fn wait<T>(&self, what: &str, mut look: impl FnMut(&[Came]) -> Option<T>) -> T {
        let (lock, changed) = &*self.seen;
        let until = Instant::now() + PATIENCE;
        let mut seen = lock.lock().unwrap();
        loop {
            if let Some(found) = look(&seen.came) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain until {what}");
            seen = changed.wait_timeout(seen, left).unwrap().0;
        }
    }
}

/// Those that the receiver has, by space, each once, oldest first.
fn taken(came: &[Came]) -> BTreeMap<String, Vec<String>> {
    let mut by_space: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for came in came.iter().filter(|came| [Manner::Take, Manner::TakeSilently].contains(&came.manner)) {
        let event = came.event();
        let events = by_space.entry(event["space_id"].as_str().unwrap().to_owned()).or_default();
        let id = event["event_id"].as_str().unwrap().to_owned();
        match events.iter().position(|known| *known == id) {
            None => events.push(id),
            Some(place) => assert_eq!(place + 1, events.len(), "an old event again after a newer one"),
        }
    }
    by_space
}

/// `latchd cloud`, which can be killed and started again.
struct Cloud {
    folder: tempfile::TempDir,
    child: Child,
    url: String,
}

impl Cloud {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = "[storage]\nfolder = \"cloud\"\n[api]\nlisten = \"127.0.0.1:0\"\nplain = true\n\
                      [bridges]\nlisten = \"127.0.0.1:0\"\n[webhooks]\nloopback = true\n";
        fs::write(folder.path().join("cloud.toml"), config).unwrap();
        let (child, url) = run(folder.path());
        Self { folder, child, url }
    }

    fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.url) = run(self.folder.path());
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let key = fs::read_to_string(self.folder.path().join("cloud/api-key")).unwrap();
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(format!("{}{path}", self.url));
        let mut answer =
            request.header("authorization", format!("Bearer {}", key.trim())).send_json(body).unwrap();
        answer.body_mut().read_json().unwrap()
    }

    fn ok(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(path, body);
        assert_eq!(answer["ok"], true, "{path}: {answer}");
        answer
    }

    fn webhook(&self, receiver: &Receiver, kinds: &Value) -> Value {
        let body = json!({"url": receiver.url, "event_types": kinds});
        self.ok("/webhooks/create", &body)["webhook"].clone()
    }

    fn space(&self) -> String {
        let made = self.ok("/spaces/create", &json!({"name": "Unit"}));
        made["space"]["space_id"].as_str().unwrap().to_owned()
    }

    /// What `latchd cloud webhooks …` prints.
    fn command(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_latchd"))
            .args(["cloud", "--config"])
            .arg(self.folder.path().join("cloud.toml"))
            .arg("webhooks")
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn listed(&self) -> Value {
        serde_json::from_str(&self.command(&["list", "--json"])).unwrap()
    }

    /// Ids of the events of each space, as the feed has them.
    fn feed(&self) -> BTreeMap<String, Vec<String>> {
        let body = json!({"since": "2020-01-01T00:00:00Z", "limit": 1000});
        let answer = self.ok("/events/list", &body);
        let mut by_space: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in answer["events"].as_array().unwrap().iter().filter(|event| event["space_id"].is_string())
        {
            let events = by_space.entry(event["space_id"].as_str().unwrap().to_owned()).or_default();
            events.push(event["event_id"].as_str().unwrap().to_owned());
        }
        by_space
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the process and reads from its standard output where its API is.
fn run(folder: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_latchd"))
        .args(["cloud", "--config"])
        .arg(folder.join("cloud.toml"))
        .stdout(Stdio::piped())
        .stderr(fs::File::options().create(true).append(true).open(folder.join("cloud.err")).unwrap())
        .spawn()
        .unwrap();
    let mut read = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    read.read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line)
        .unwrap_or_else(|_| panic!("{line:?}: {}", fs::read_to_string(folder.join("cloud.err")).unwrap()));
    thread::spawn(move || std::io::copy(&mut read, &mut std::io::sink()));
    (child, said["api"].as_str().unwrap().to_owned())
}

#[test]
fn an_event_is_delivered_signed_as_the_feed_shows_it() {
    let cloud = Cloud::start();
    let (all, some) = (Receiver::start(), Receiver::start());
    let webhook = cloud.webhook(&all, &json!(["*"]));
    let other = cloud.webhook(&some, &json!(["space.deleted"]));
    assert_ne!(webhook["secret"], other["secret"]);
    let space = cloud.space();
    cloud.ok("/spaces/delete", &json!({"space_id": space}));
    let came = all.wait("both events came", |came| (came.len() == 2).then(|| came.to_vec()));
    for came in &came {
        came.verify(webhook["secret"].as_str().unwrap());
        let event = came.event();
        let shown = cloud.ok("/events/get", &json!({"event_id": event["event_id"]}));
        assert_eq!(shown["event"], event);
    }
    let kinds: Vec<_> = came.iter().map(|came| came.event()["event_type"].clone()).collect();
    assert_eq!(kinds, ["space.created", "space.deleted"]);
    let came = some.wait("the one event came", |came| came.first().cloned());
    assert_eq!(came.event()["event_type"], "space.deleted");
    came.verify(other["secret"].as_str().unwrap());
}

#[test]
fn what_fails_comes_again_with_the_same_id_and_holds_up_nobody_else() {
    let cloud = Cloud::start();
    let receiver = Receiver::start();
    cloud.webhook(&receiver, &json!(["*"]));
    receiver.meets_the_next_with(&[Manner::Refuse(422)]);
    let refused = cloud.space();
    receiver.wait("the first event is refused", |came| (came.len() == 1).then_some(()));
    cloud.ok("/spaces/delete", &json!({"space_id": refused}));
    let other = cloud.space();
    let came = receiver.wait("all events came", |came| (came.len() == 4).then(|| came.to_vec()));
    let order: Vec<_> = came
        .iter()
        .map(|came| {
            (came.event()["space_id"].as_str().unwrap() == refused, came.event()["event_type"].clone())
        })
        .collect();
    let (created, deleted) = (json!("space.created"), json!("space.deleted"));
    assert_eq!(order, [(true, created.clone()), (false, created.clone()), (true, created), (true, deleted)]);
    assert_eq!(came[0].headers["svix-id"], came[2].headers["svix-id"]);
    assert_eq!(came[0].body, came[2].body);
    assert_ne!(came[0].headers["svix-id"], came[1].headers["svix-id"]);
    assert!(taken(&came).contains_key(&other));
}

/// Fails in every manner while the cloud is killed at random moments, also while a delivery is under way.
#[test]
fn whatever_fails_and_however_often_the_cloud_is_killed_each_event_arrives_in_order() {
    let random = Random::seeded(7);
    let mut cloud = Cloud::start();
    let receiver = Receiver::start();
    let webhook = cloud.webhook(&receiver, &json!(["*"]));
    let mut spaces = Vec::new();
    for round in 0..12 {
        let manners: Vec<_> = (0..3)
            .map(|_| match random.below(6) {
                0 => Manner::Refuse(500),
                1 => Manner::Refuse(400),
                2 => Manner::HangUp,
                3 => Manner::TakeSilently,
                4 => Manner::Redirect,
                _ => Manner::Take,
            })
            .collect();
        receiver.meets_the_next_with(&manners);
        let before = receiver.wait("", |came| Some(came.len()));
        for _ in 0..2 {
            spaces.push(cloud.space());
        }
        for _ in 0..random.below(3) {
            let space = spaces.swap_remove(usize::try_from(random.below(spaces.len() as u64)).unwrap());
            cloud.ok("/spaces/delete", &json!({"space_id": space}));
        }
        // Sometimes in the middle of a delivery, sometimes before any.
        if round % 3 != 0 {
            let is_blocked = cloud.listed()[0]["failing_since"].is_string();
            if !is_blocked {
                receiver.wait("something comes", |came| (came.len() > before).then_some(()));
            }
        }
        cloud.kill_and_start();
    }
    receiver.meets_the_next_with(&[]);
    let id = webhook["webhook_id"].as_str().unwrap();
    // Nobody wants to wait for the next try of a receiver that was down for long.
    cloud.command(&["enable", id, "--by", "Ada"]);
    let feed = cloud.feed();
    let all = receiver.wait("every event has come", |came| {
        for came in came {
            came.verify(webhook["secret"].as_str().unwrap());
        }
        let taken = taken(came);
        let count = |events: &BTreeMap<String, Vec<String>>| events.values().map(Vec::len).sum::<usize>();
        (count(&taken) >= count(&feed)).then_some(taken)
    });
    assert_eq!(all, feed);
    assert!(feed.values().any(|events| events.len() == 2), "{feed:?}");
}

#[test]
fn an_operator_sees_what_is_owed_and_stops_and_starts_it() {
    let cloud = Cloud::start();
    let receiver = Receiver::start();
    let webhook = cloud.webhook(&receiver, &json!(["*"]));
    let id = webhook["webhook_id"].as_str().unwrap();
    cloud.command(&["disable", id, "--by", "Ada"]);
    cloud.space();
    let listed = cloud.listed();
    assert_eq!((&listed[0]["owed"], listed[0]["disabled_at"].is_string()), (&json!(1), true));
    let shown = cloud.command(&["list"]);
    let origin = receiver.url.split("/events").next().unwrap();
    assert!(shown.contains("DISABLED") && shown.contains(origin) && !shown.contains("token=abc"), "{shown}");
    cloud.command(&["enable", id, "--by", "Ada"]);
    receiver.wait("what was owed comes", |came| (came.len() == 1).then_some(()));
    let unknown = cloud.call("/webhooks/get", &json!({"webhook_id": "5b1ed5a0-7a30-4d6f-9d0e-0000000000ff"}));
    assert_eq!(unknown["error"]["type"], "webhook_not_found");
}

#[test]
fn an_address_that_only_the_cloud_can_reach_is_refused() {
    let cloud = Cloud::start();
    for url in
        ["https://169.254.169.254/latest", "https://10.0.0.1/", "http://example.com/", "ftp://example.com/"]
    {
        let answer = cloud.call("/webhooks/create", &json!({"url": url}));
        assert_eq!(answer["error"]["type"], "invalid_input", "{url}: {answer}");
        assert!(answer["error"]["validation_errors"]["url"].is_object(), "{answer}");
    }
    let answer =
        cloud.call("/webhooks/create", &json!({"url": "https://example.com/", "event_types": ["Nothing"]}));
    assert_eq!(answer["error"]["type"], "invalid_input", "{answer}");
}
