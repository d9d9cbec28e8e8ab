//! Somebody on the way who holds a certificate that the bridge trusts, and the stolen TLS key of the bridge: everything
//! said goes through their hands in the clear. All they can do is to be in the way, and both ends say so.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use latchd::{
    cloud::store::Standing,
    link::{Event, Link},
    model::{
        Code, Condition, Inventory, JobState, Outcome, Refusal, Report, Resolution, Severity, Success,
        Verdict,
    },
    protocol::{
        Envelope, Frame, Limit, Message as Body, Ordered, Position, Progress, Stage, Status, StreamName,
        Welcome,
    },
    seams::{Listener, Stream},
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

use super::{
    peers::websocket_as,
    world::{Cloud, World, at, job, job_id, memory, report},
};

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ToCloud,
    ToBridge,
}

/// What is done to the first frame of a kind, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Attack {
    /// One character of what is signed becomes another.
    Alter,
    /// Another of the same kind, signed with a key of the attacker's own, goes in its place.
    Invent,
    /// The frame goes without its signature.
    Strip,
    /// It does not arrive.
    Drop,
    /// It arrives twice.
    Repeat,
    /// It arrives after the one that follows it.
    Delay,
    /// It goes back to whoever said it, too.
    Reflect,
    /// One of an earlier conversation goes in its place.
    Recall,
    /// It and everything signed after it in this conversation does not arrive, while signs of life do.
    Withhold,
}

/// The attacker's plan and what they have seen.
#[derive(Default)]
struct Plan {
    way: Option<Way>,
    kind: &'static str,
    attack: Option<Attack>,
    /// From which conversation on.
    from: usize,
    struck: bool,
    withholds: bool,
    /// The frame that waits for the next one.
    held: Option<String>,
    /// What went by in earlier conversations.
    seen: BTreeMap<(Way, String), String>,
}

impl Plan {
    /// What becomes of a text: what goes on its way, and what goes back.
    fn meets(&mut self, conversation: usize, way: Way, text: String) -> (Vec<String>, Vec<String>) {
        let (packet, kind) = kind_of(&text);
        let Some(kind) = kind else { return (vec![text], Vec::new()) };
        if self.withholds && self.way == Some(way) {
            return (Vec::new(), Vec::new());
        }
        if let Some(held) = self.held.take_if(|_| self.way == Some(way)) {
            return (vec![text, held], Vec::new());
        }
        let earlier = self.seen.get(&(way, kind.clone())).cloned();
        if conversation < self.from {
            self.seen.insert((way, kind.clone()), text.clone());
        }
        let meant = self.way == Some(way) && self.kind == kind && conversation == self.from && !self.struck;
        let Some(attack) = self.attack.filter(|_| meant) else { return (vec![text], Vec::new()) };
        self.struck = true;
        let body = packet["body"].as_str().unwrap();
        match attack {
            Attack::Alter => {
                let mut altered = packet.clone();
                // The last digit of the number: the how-manieth it says it is, or of what.
                let place = body.rfind(|letter: char| letter.is_ascii_digit()).unwrap();
                let digit = if &body[place..=place] == "7" { "8" } else { "7" };
                altered["body"] = format!("{}{digit}{}", &body[..place], &body[place + 1..]).into();
                (vec![altered.to_string()], Vec::new())
            }
            Attack::Invent => {
                let key = Ed25519KeyPair::from_seed_unchecked(&[66; 32]).unwrap();
                let domain: &[u8] = match way {
                    Way::ToCloud => b"latchd v1 bridge to cloud\0",
                    Way::ToBridge => b"latchd v1 cloud to bridge\0",
                };
                let signature = STANDARD.encode(key.sign(&[domain, body.as_bytes()].concat()));
                let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
                let key_id: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
                let invented =
                    json!({"type": "signed", "key_id": key_id, "signature": signature, "body": body});
                (vec![invented.to_string()], Vec::new())
            }
            Attack::Strip => {
                let statement: Value = serde_json::from_str(body).unwrap();
                (vec![statement["frame"].to_string()], Vec::new())
            }
            Attack::Drop => (Vec::new(), Vec::new()),
            Attack::Repeat => (vec![text.clone(), text], Vec::new()),
            Attack::Delay => {
                self.held = Some(text);
                (Vec::new(), Vec::new())
            }
            Attack::Reflect => (vec![text.clone()], vec![text]),
            Attack::Recall => (vec![earlier.expect("an earlier conversation had one")], Vec::new()),
            Attack::Withhold => {
                self.withholds = true;
                (Vec::new(), Vec::new())
            }
        }
    }
}

/// The packet, and the kind of what it says: of its message, or else of its frame.
fn kind_of(text: &str) -> (Value, Option<String>) {
    let packet: Value = serde_json::from_str(text).unwrap();
    let kind = packet["body"].as_str().map(|body| {
        let statement: Value = serde_json::from_str(body).unwrap();
        let frame = &statement["frame"];
        match frame["body"].as_str() {
            Some(message) => {
                let message: Value = serde_json::from_str(message).unwrap();
                message["message"].as_str().unwrap().to_owned()
            }
            None => frame["type"].as_str().unwrap().to_owned(),
        }
    });
    (packet, kind)
}

type Socket = WebSocketStream<Box<dyn Stream>>;

/// Between a bridge and its cloud.
struct Mitm {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    task: JoinHandle<()>,
}

impl Drop for Mitm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mitm {
    async fn between(world: &Arc<World>, cloud: u16, plan: Plan) -> Self {
        let listener = world.net.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let port = listener.address().port();
        let plan = Arc::new(Mutex::new(plan));
        let task = tokio::spawn(relay(Arc::clone(world), listener, cloud, Arc::clone(&plan)));
        Self { port, plan, task }
    }
}

async fn relay(world: Arc<World>, mut listener: Box<dyn Listener>, cloud: u16, plan: Arc<Mutex<Plan>>) {
    for conversation in 0.. {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(tls) = world.localhost().accept(tcp).await else { continue };
        let tls: Box<dyn Stream> = Box::new(tls);
        let Ok((hub, nonce)) = websocket_as(&world, cloud, &world.ours()).await else { continue };
        #[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
        let callback = |_: &Request, mut response: Response| {
            response.headers_mut().insert("latchd-nonce", nonce.parse().unwrap());
            Ok(response)
        };
        let Ok(bridge) = accept_hdr_async(tls, callback).await else { continue };
        // One conversation at a time is all there is.
        pass(conversation, bridge, hub, &plan).await;
        plan.lock().unwrap().withholds = false;
    }
}

/// Hands on what is said until either side goes; what each said last still arrives.
async fn pass(conversation: usize, bridge: Socket, hub: Socket, plan: &Mutex<Plan>) {
    let (mut to_bridge, mut from_bridge) = bridge.split();
    let (mut to_hub, mut from_hub) = hub.split();
    loop {
        let (way, said) = tokio::select! {
            biased;
            said = from_hub.next() => (Way::ToBridge, said),
            said = from_bridge.next() => (Way::ToCloud, said),
        };
        let text = match said {
            Some(Ok(Message::Text(text))) => text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            _ => break,
        };
        let (on, back) = plan.lock().unwrap().meets(conversation, way, text);
        let (on_its_way, on_its_way_back) = match way {
            Way::ToBridge => (&mut to_bridge, &mut to_hub),
            Way::ToCloud => (&mut to_hub, &mut to_bridge),
        };
        for text in on {
            let _ = on_its_way.send(Message::text(text)).await;
        }
        for text in back {
            let _ = on_its_way_back.send(Message::text(text)).await;
        }
    }
    let _ = to_bridge.close().await;
    let _ = to_hub.close().await;
}

/// A site that does what it is told, remembers it, and reports until it is acknowledged.
struct Site {
    link: Link,
    connection: Option<u64>,
    held: Position,
    /// What was done, in the order of its arrival.
    done: Vec<Body>,
    outbox: Vec<(u64, Body)>,
    numbered: u64,
    acknowledged: u64,
    troubles: Vec<&'static str>,
}

impl Site {
    fn new(world: &World, port: u16) -> Self {
        Self {
            link: world.link(port),
            connection: None,
            held: at(0, 0),
            done: Vec::new(),
            outbox: Vec::new(),
            numbered: 0,
            acknowledged: 0,
            troubles: Vec::new(),
        }
    }

    async fn works(&mut self) {
        match self.link.events.recv().await.unwrap() {
            Event::Connecting(answer) => {
                let mut memory = memory(self.held, 100);
                memory.reports_sent = at(1, self.numbered);
                memory.reports_acknowledged = at(1, self.acknowledged);
                let _ = answer.send(memory);
            }
            Event::Up { connection, welcome, .. } => self.up(connection, &welcome).await,
            Event::Down(trouble) | Event::GaveUp(trouble) => {
                self.connection = None;
                self.connection = None;
                self.troubles.push(trouble.code);
            }
            Event::Frame { frame: Frame::Envelope(envelope), .. } => self.hears(&envelope).await,
            Event::Frame { frame: Frame::Limit(_), .. } => {}
            Event::Frame { frame, .. } => panic!("{frame:?}"),
        }
    }

    async fn up(&mut self, connection: u64, welcome: &Welcome) {
        assert_eq!(welcome.orders_epoch_reason, None, "nobody forgot anything");
        self.connection = Some(connection);
        self.says(Frame::Inventory(Inventory { systems: Vec::new() })).await;
        let condition = Condition {
            subject: "clock".into(),
            code: "clock_skewed".into(),
            severity: Severity::Warning,
            message: "as the site said".into(),
            since: "2026-11-22T11:00:00Z".parse().unwrap(),
        };
        self.says(Frame::Status(Status { conditions: vec![condition] })).await;
        self.says(Frame::Limit(Limit { stream: StreamName::Orders, up_to: 200 })).await;
        let held = welcome.reports_received;
        for (n, body) in self.outbox.clone() {
            if held < at(1, n) {
                self.says(Frame::Envelope(Envelope::at(at(1, n), &body))).await;
            }
        }
    }

    async fn hears(&mut self, envelope: &Envelope) {
        let body = envelope.message().unwrap();
        let Some(position) = envelope.position else {
            let Body::Acknowledgement { position, .. } = body else { panic!("{body:?}") };
            assert!(position.n <= self.numbered, "what was never said was acknowledged");
            self.acknowledged = self.acknowledged.max(position.n);
            return;
        };
        assert_eq!(position, at(1, self.held.n + 1), "the orders come in their order, each once");
        self.held = position;
        self.done.push(body.clone());
        let acknowledgement = Body::Acknowledgement { stream: StreamName::Orders, position };
        self.says(Frame::Envelope(Envelope::loose(&acknowledgement))).await;
        // Every other job ends only when it is taken back.
        let job_id = match body {
            Body::Job(job) => {
                self.says(Frame::Progress(Progress { job_id: job.job_id, stage: Stage::Sent })).await;
                if job.job_id.0.as_u128() % 2 == 1 {
                    return;
                }
                job.job_id
            }
            Body::Cancel { job_id, .. } => job_id,
            other => panic!("{other:?}"),
        };
        let number = job_id.0.as_u128();
        let why = Refusal::new(Code::NoAnswer, "as the site said");
        self.reports(Body::Outcome(Report { outcome: Outcome::Unknown(why), ..report(number) })).await;
        let settled = Report {
            revision: 2,
            outcome: Outcome::Succeeded(Success::default()),
            resolution: Some(Resolution { verdict: Verdict::Done, by: "a reading".into() }),
            ..report(number)
        };
        self.reports(Body::Resolution(settled)).await;
    }

    async fn reports(&mut self, body: Body) {
        self.numbered += 1;
        self.outbox.push((self.numbered, body.clone()));
        self.says(Frame::Envelope(Envelope::at(at(1, self.numbered), &body))).await;
    }

    async fn says(&mut self, frame: Frame) {
        if let Some(connection) = self.connection {
            self.link.frames.send((connection, frame)).await.unwrap();
        }
    }
}

/// What an attack on a kind of frame ended in: the reasons that the link gave.
async fn attacked(way: Way, kind: &'static str, attack: Attack) -> Vec<&'static str> {
    let world = Arc::new(World::simulated());
    let cloud = world.cloud().await;
    let from = usize::from(attack == Attack::Recall);
    let plan = Plan { way: Some(way), kind, attack: Some(attack), from, ..Plan::default() };
    let mitm = Mitm::between(&world, cloud.port, plan).await;
    let mut site = Site::new(&world, mitm.port);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let site = tokio::spawn(async move {
        let mut stopped = stopped;
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return site,
                () = site.works() => {}
            }
        }
    });
    day(&world, &cloud, 1).await;
    if from > 0 {
        world.cut();
        world.pass(Duration::from_secs(1)).await;
        world.mend();
    }
    day(&world, &cloud, 11).await;
    assert!(mitm.plan.lock().unwrap().struck, "there was no {kind} {way:?}");
    // Whatever was in the way, the third day is as the others.
    day(&world, &cloud, 21).await;
    drop(stop);
    let site = world.soon(site).await.unwrap();

    let ordered = [1, 11, 21].into_iter().flat_map(|first| {
        [
            Body::Job(job(first)),
            Body::Job(job(first + 1)),
            Body::Cancel { job_id: job_id(first), ordered: Some(Ordered::of(&job(first))) },
        ]
    });
    // A job that is taken back before the site is known to hold it is taken back first.
    let sorted = |bodies: Vec<Body>| {
        let mut bodies: Vec<_> = bodies.iter().map(|body| serde_json::to_string(body).unwrap()).collect();
        bodies.sort_unstable();
        bodies
    };
    let (done, ordered) = (sorted(site.done), sorted(ordered.collect()));
    assert_eq!(done, ordered, "what was ordered, as it was ordered, each once: {way:?} {kind} {attack:?}");
    site.troubles
}

/// Two jobs are ordered and one is taken back; both end as the site said, however long it takes.
async fn day(world: &World, cloud: &Cloud, first: u128) {
    cloud.order(world, [first, first + 1]).await;
    let mut taken_back = false;
    // Long enough for what is withheld to be missed, and for a beacon each way.
    for _ in 0..60 {
        world.pass(Duration::from_secs(10)).await;
        let known = cloud.standing(world, first).await.is_some_and(|standing| standing != Standing::Waiting);
        if known && !taken_back {
            cloud.cancel(world, first).await;
            taken_back = true;
        }
        let mut ended = true;
        for number in [first, first + 1] {
            ended &= cloud.end_of(world, number).await == Some((2, JobState::Succeeded));
        }
        if ended {
            world.pass(Duration::from_secs(130)).await;
            return;
        }
    }
    panic!("the jobs from {first} on did not end");
}

const SAID: [(Way, &str); 12] = [
    (Way::ToCloud, "hello"),
    (Way::ToCloud, "acknowledgement"),
    (Way::ToCloud, "outcome"),
    (Way::ToCloud, "resolution"),
    (Way::ToCloud, "inventory"),
    (Way::ToCloud, "status"),
    (Way::ToCloud, "progress"),
    (Way::ToCloud, "limit"),
    (Way::ToBridge, "welcome"),
    (Way::ToBridge, "job"),
    (Way::ToBridge, "cancel"),
    (Way::ToBridge, "acknowledgement"),
];

/// Attacks each kind of frame, and wants one of these reasons given for it.
async fn each_is_noticed(attack: Attack, reasons: impl Fn(&str) -> &'static [&'static str]) {
    for (way, kind) in SAID.into_iter().chain([(Way::ToBridge, "beacon"), (Way::ToCloud, "beacon")]) {
        let troubles = attacked(way, kind, attack).await;
        let reasons = reasons(kind);
        assert!(
            troubles.iter().any(|code| reasons.contains(code)),
            "{way:?} {kind} {attack:?}: {troubles:?} instead of {reasons:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_attack_the_relay_is_not_noticed() {
    let world = Arc::new(World::simulated());
    let cloud = world.cloud().await;
    let mitm = Mitm::between(&world, cloud.port, Plan::default()).await;
    let mut site = Site::new(&world, mitm.port);
    let site = tokio::spawn(async move {
        loop {
            site.works().await;
            assert_eq!(site.troubles, [] as [&str; 0]);
        }
    });
    day(&world, &cloud, 1).await;
    assert!(!site.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_altered_frame_is_not_believed() {
    each_is_noticed(Attack::Alter, |_| &["link_tampered"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_invented_frame_is_not_believed() {
    each_is_noticed(Attack::Invent, |_| &["link_key_unknown"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_without_its_signature_is_not_believed() {
    each_is_noticed(Attack::Strip, |_| &["link_tampered"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_left_out_is_missed() {
    // Without hello or welcome there is no conversation at all; a beacon that is missed shows at the next one.
    each_is_noticed(Attack::Drop, |kind| match kind {
        "hello" | "welcome" => &["link_not_welcomed", "link_closed", "link_tampered"],
        _ => &["link_tampered", "link_messages_withheld"],
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_twice_is_noticed() {
    each_is_noticed(Attack::Repeat, |_| &["link_tampered"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_late_is_noticed() {
    each_is_noticed(Attack::Delay, |kind| match kind {
        "hello" | "welcome" => &["link_not_welcomed", "link_closed", "link_tampered"],
        _ => &["link_tampered", "link_messages_withheld"],
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_back_to_its_sender_is_not_believed() {
    each_is_noticed(Attack::Reflect, |_| &["link_key_unknown"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_an_earlier_conversation_is_not_believed() {
    each_is_noticed(Attack::Recall, |_| &["link_tampered"]).await;
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_kept_back_behind_living_pings_are_missed() {
    each_is_noticed(Attack::Withhold, |kind| match kind {
        // A ping comes where the welcome was due.
        "hello" | "welcome" => &["link_not_welcomed", "link_closed", "link_frame_unexpected"],
        _ => &["link_messages_withheld"],
    })
    .await;
}
