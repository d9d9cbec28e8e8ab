//! The HTTP API of the shipped cloud, over TLS, with 1,000, 10,000 and 100,000 grants in its database: what a new grant
//! takes above one durable write of as many bytes, and whether new grants and lists take the same with many as with few.
//!
//! Every size has a cloud of its own, and all of them run side by side and take turns; the floor takes its turn with them.
//! The grants were made by the same program through the same calls, with its syncs left out.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use latchd::{
    cloud::store::Db,
    model::{
        Capabilities, Device, DeviceName, Door, DoorKind, DoorName, Encoder, EncoderName, Inventory,
        PinRules, ProofLevel, SystemInventory, SystemKind, SystemName,
    },
    seal::SealKey,
    seams::{Random, Storage},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{PATIENCE, runtime};
use crate::{
    Options,
    agent::{self, Process},
    floor::Disk,
    http::{Address, Client},
    judge::{self, Check, Goal, Paired, Samples, Verdict, median},
    preload::Preload,
};

const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
const ROOMS: usize = 500;
/// Locks with keypads; every tenth grant has a code on one of them.
const LOCKS: usize = 500;
/// New grants, or questions of one kind, in a turn.
const BLOCK: usize = 100;
/// Connections that fill a database.
const FILLING: u64 = 24;
/// How many a list shows at once.
const PAGE: u64 = 20;

pub fn run(options: &Options) -> anyhow::Result<Verdict> {
    let scratch = options.scratch()?;
    let sizes = if options.quick { &SIZES[..2] } else { &SIZES[..] };
    let program = agent::program(options.agent.as_deref())?;
    let runtime = runtime()?;
    let clouds = runtime.block_on(async {
        let mut clouds = Vec::new();
        for size in sizes {
            clouds.push(Cloud::filled(&program, scratch.path(), *size).await?);
        }
        anyhow::Ok(clouds)
    })?;
    judge::attempts("api", || runtime.block_on(measure(options, scratch.path(), &clouds)))
}

/// A running cloud, and things in it to ask for.
struct Cloud {
    size: u64,
    folder: PathBuf,
    address: Address,
    doors: Vec<String>,
    locks: Vec<String>,
    questions: Vec<(&'static str, &'static str, Value)>,
    /// The number of the next guest: people stay when their grants go, so nobody comes twice.
    next: Cell<u64>,
    _process: Process,
}

/// One kind of new grant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum New {
    /// A card for a room and a common door.
    Card,
    /// A code for a lock.
    Code,
}

impl Cloud {
    /// One with so many grants, made through its own calls.
    async fn filled(program: &Path, scratch: &Path, size: u64) -> anyhow::Result<Self> {
        let folder = scratch.join(format!("cloud{size}"));
        fs::create_dir(&folder)?;
        let config = "[storage]\nfolder = \"cloud\"\n[api]\nlisten = \"127.0.0.1:0\"\n[bridges]\nlisten = \"127.0.0.1:0\"\n";
        fs::write(folder.join("cloud.toml"), config)?;
        furnish(&folder.join("cloud"))?;

        let unsynced = Preload::unsynced(&folder)?;
        let (process, address) = start(program, &folder, Some(&unsynced)).await?;
        let mut client = address.connect().await?;
        let rooms = ids(&mut client, "/acs/entrances/list", json!({}), "acs_entrance_id").await?;
        let locks = ids(&mut client, "/devices/list", json!({"limit": LOCKS}), "device_id").await?;
        let encoder = ids(&mut client, "/acs/encoders/list", json!({}), "acs_encoder_id").await?.remove(0);
        ensure!(rooms.len() == ROOMS + 1 && locks.len() == LOCKS, "the property has other doors");
        let fill = async |worker: u64| {
            let mut client = address.connect().await?;
            let mut n = worker;
            while n < size {
                let kind = if n % 10 == 9 { New::Code } else { New::Card };
                let (made, _) = client.call("/access_grants/create", &grant(n, kind, &rooms, &locks)).await?;
                if n.is_multiple_of(20) {
                    let method = &made["access_grant"]["access_method_ids"][0];
                    let order = json!({"access_method_id": method, "acs_encoder_id": encoder});
                    client.call("/access_methods/encode", &order).await?;
                }
                n += FILLING;
            }
            anyhow::Ok(())
        };
        let began = Instant::now();
        try_join_all((0..FILLING).map(fill)).await?;
        println!("filled with {size} grants in {:.0} s", began.elapsed().as_secs_f64());
        drop(client);
        stop(process).await?;

        let (process, address) = start(program, &folder, None).await?;
        let questions = questions(&address, size).await?;
        Ok(Self {
            size,
            folder,
            address,
            doors: rooms,
            locks,
            questions,
            next: Cell::new(size * 10),
            _process: process,
        })
    }

    /// Makes so many grants and takes them back again; how long the making of each took. `wrote` hears before and after
    /// each.
    async fn make(
        &self,
        kind: New,
        many: usize,
        mut wrote: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Samples> {
        let mut client = self.address.connect().await?;
        let (mut took, mut made) = (Samples::default(), Vec::new());
        let first = self.next.replace(self.next.get() + many as u64);
        for n in first..first + many as u64 {
            let body = grant(n, kind, &self.doors, &self.locks);
            wrote()?;
            let (answer, time) = client.call("/access_grants/create", &body).await?;
            wrote()?;
            took.push(time);
            made.push(answer["access_grant"]["access_grant_id"].clone());
        }
        for grant in made {
            client.call("/access_grants/delete", &json!({"access_grant_id": grant})).await?;
        }
        Ok(took)
    }

    async fn ask(&self, question: usize, many: usize) -> anyhow::Result<Samples> {
        let mut client = self.address.connect().await?;
        let (_, path, body) = &self.questions[question];
        client.call(path, body).await?;
        let mut took = Samples::default();
        for _ in 0..many {
            took.push(client.call(path, body).await?.1);
        }
        Ok(took)
    }

    /// How many bytes the commit of a new grant writes: pages of the log with what stands before each.
    async fn bytes_of_a_grant(&self) -> anyhow::Result<usize> {
        let index = fs::File::open(self.folder.join("cloud/cloud.db-shm"))?;
        let mut pages = Vec::new();
        self.make(New::Card, 20, || {
            let mut last = [0; 4];
            index.read_exact_at(&mut last, 16)?;
            pages.push(f64::from(u32::from_ne_bytes(last)));
            Ok(())
        })
        .await?;
        // Where the log began anew on the way, nothing can be told.
        let grown: Vec<f64> =
            pages.chunks_exact(2).map(|two| two[1] - two[0]).filter(|grown| *grown > 0.0).collect();
        ensure!(!grown.is_empty(), "the log does not grow with new grants");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few pages")]
        Ok(median(&grown) as usize * (4096 + 24))
    }
}

/// A property with rooms, a common door, an encoder and locks, of the first bridge of a new workspace.
fn furnish(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder)?;
    let (now, random) = (Timestamp::now(), Random::system());
    let seal = SealKey::from_file_or_new(&folder.join("seal.key"), random.clone())?;
    let mut db = Db::open(&Storage::folder(folder), seal, random.clone())?;
    let home = latchd::cloud::keys::home(&mut db, now, "Bench", folder, &random)?;
    let bridge = db.the_bridge(now, home.workspace)?;
    let proven = Some(ProofLevel::Vector);
    let cards = Capabilities {
        r#override: proven,
        join: proven,
        future_start: proven,
        checkout: proven,
        modify_stay: None,
        read_card: proven,
        open_end: None,
        slots: None,
        unlock: None,
        chip_numbers: None,
        max_rooms: 2,
        max_common: 62,
        answer_means_written: true,
        parallel_encoders: true,
    };
    let door = |name: String, kind| -> anyhow::Result<Door> {
        Ok(Door { name: DoorName::new(name)?, display_name: None, kind })
    };
    let rooms = (0..ROOMS).map(|number| door(format!("{}", 1000 + number), DoorKind::Room));
    let lobby = std::iter::once(door("lobby".into(), DoorKind::Common));
    let lock = |number: usize| -> anyhow::Result<Device> {
        Ok(Device {
            name: DeviceName::new(format!("lock{number}"))?,
            display_name: None,
            slots: 500,
            pins: Some(PinRules { lengths: vec![4, 5, 6], constraints: Vec::new() }),
            device_type: None,
            manufacturer: None,
            model: None,
            lead_seconds: None,
            remote_unlock: None,
            card_numbers: false,
        })
    };
    let salto = SystemInventory {
        name: SystemName::new("salto")?,
        kind: SystemKind::SaltoIs,
        time_zone: "Europe/Oslo".into(),
        capabilities: cards.clone(),
        checkout_on_last_grant: false,
        override_after_deleted_card: false,
        doors: rooms.chain(lobby).collect::<Result<_, _>>()?,
        encoders: vec![Encoder { name: EncoderName::new("1")?, display_name: None }],
        devices: Vec::new(),
    };
    let locks = SystemInventory {
        name: SystemName::new("locks")?,
        kind: SystemKind::SimLock,
        capabilities: Capabilities { slots: Some(ProofLevel::Simulator), ..cards },
        doors: Vec::new(),
        encoders: Vec::new(),
        devices: (0..LOCKS).map(lock).collect::<Result<_, _>>()?,
        ..salto.clone()
    };
    db.apply_inventory(now, bridge, &Inventory { systems: vec![locks, salto] })?;
    Ok(())
}

/// The stay of one guest.
fn grant(n: u64, kind: New, rooms: &[String], locks: &[String]) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "numbers of guests")]
    let at = n as usize;
    let starts_at = Timestamp::now() + SignedDuration::from_hours(24 * (n % 300) as i64);
    let mut body = json!({
        "user_identity": {
            "full_name": format!("Guest Number {n}"),
            "email_address": format!("guest{n}@example.com"),
            "user_identity_key": format!("guest-{n}"),
        },
        "access_grant_key": format!("booking-{n}"),
        "name": format!("Stay {n}"),
        "starts_at": starts_at.to_string(),
        "ends_at": (starts_at + SignedDuration::from_hours(72)).to_string(),
    });
    match kind {
        New::Card => {
            body["acs_entrance_ids"] = json!([rooms[at % ROOMS], rooms[ROOMS]]);
            body["reservation_key"] = json!(format!("stay-{n}"));
            body["requested_access_methods"] = json!([{"mode": "card"}]);
        }
        New::Code => {
            body["device_ids"] = json!([locks[at / 10 % LOCKS]]);
            body["requested_access_methods"] = json!([{"mode": "code"}]);
        }
    }
    body
}

/// What is asked of a filled cloud: a name, the call, its parameters.
async fn questions(address: &Address, size: u64) -> anyhow::Result<Vec<(&'static str, &'static str, Value)>> {
    let mut client = address.connect().await?;
    let mut asked = Vec::new();
    for (first, later, path) in [
        ("access_grants/list, first page", "access_grants/list, page in the middle", "/access_grants/list"),
        (
            "user_identities/list, first page",
            "user_identities/list, page in the middle",
            "/user_identities/list",
        ),
    ] {
        let page = json!({"limit": PAGE});
        let mut place = page.clone();
        for _ in 0..size / PAGE / 2 {
            let (answer, _) = client.call(path, &place).await?;
            place["page_cursor"] = answer["pagination"]["next_page_cursor"].clone();
        }
        asked.push((first, path, page));
        asked.push((later, path, place));
    }
    let key = json!({"access_grant_key": format!("booking-{}", size / 20 * 10)});
    let (found, _) = client.call("/access_grants/get", &key).await?;
    let grant = &found["access_grant"];
    let of_grant = json!({"access_grant_id": grant["access_grant_id"]});
    asked.push(("access_grants/get by key", "/access_grants/get", key));
    let of_person = json!({"user_identity_id": grant["user_identity_id"]});
    asked.push(("access_grants/list of a person", "/access_grants/list", of_person));
    let of_door = json!({"acs_entrance_id": grant["acs_entrance_ids"][0], "limit": 2});
    asked.push(("access_grants/list of a room", "/access_grants/list", of_door));
    let of_stay = json!({"reservation_key": grant["reservation_key"]});
    asked.push(("access_grants/list of a stay", "/access_grants/list", of_stay));
    let related = json!({"access_grant_ids": [grant["access_grant_id"]]});
    asked.push(("access_grants/get_related", "/access_grants/get_related", related));
    asked.push(("access_methods/list of a grant", "/access_methods/list", of_grant.clone()));
    let last =
        json!({"since": (Timestamp::now() - SignedDuration::from_hours(24)).to_string(), "limit": PAGE});
    let (events, _) = client.call("/events/list", &last).await?;
    asked.push(("events/list", "/events/list", last.clone()));
    let mut of_one = last;
    of_one["access_grant_id"] = grant["access_grant_id"].clone();
    asked.push(("events/list of a grant", "/events/list", of_one));
    let ids: Vec<_> =
        events["events"].as_array().context("events")?.iter().map(|event| &event["event_id"]).collect();
    asked.push(("events/get", "/events/get", json!({"event_id": ids.last()})));
    asked.push(("events/list by event_ids", "/events/list", json!({"event_ids": ids})));
    asked.push(("action_attempts/list", "/action_attempts/list", json!({"limit": PAGE})));
    let (attempts, _) = client.call("/action_attempts/list", &json!({"limit": PAGE})).await?;
    let ids: Vec<_> = attempts["action_attempts"].as_array().context("attempts")?.iter().collect();
    let ids: Vec<_> = ids.into_iter().map(|attempt| attempt["action_attempt_id"].clone()).collect();
    asked.push(("action_attempts/list by ids", "/action_attempts/list", json!({"action_attempt_ids": ids})));
    Ok(asked)
}

async fn ids(client: &mut Client, path: &str, body: Value, key: &str) -> anyhow::Result<Vec<String>> {
    let (answer, _) = client.call(path, &body).await?;
    let lists = answer.as_object().context("an object")?.values().filter_map(Value::as_array);
    let things = lists.flatten().filter_map(|thing| thing[key].as_str());
    Ok(things.map(ToOwned::to_owned).collect())
}

async fn start(
    program: &Path,
    folder: &Path,
    preload: Option<&Preload>,
) -> anyhow::Result<(Process, Address)> {
    let mut command = Command::new(program);
    command.args(["cloud", "--config"]).arg(folder.join("cloud.toml"));
    if let Some(preload) = preload {
        preload.under(&mut command);
    }
    let mut process = Process::start(folder, "cloud", &mut command)?;
    let began = Instant::now();
    loop {
        let said = fs::read_to_string(folder.join("cloud.out"))?;
        if let Some(line) = said.strip_suffix('\n') {
            let said: Value = serde_json::from_str(line)?;
            let text = |key: &str| said[key].as_str().with_context(|| format!("a cloud says its {key}"));
            let key = fs::read_to_string(text("api_key_file")?)?;
            return Ok((process, Address::new(text("api")?, Path::new(text("ca_file")?), &key)?));
        }
        let err = || fs::read_to_string(folder.join("cloud.err")).unwrap_or_default();
        ensure!(!process.is_over()? && began.elapsed() < PATIENCE, "the cloud does not start: {}", err());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends a cloud as a service manager does.
async fn stop(mut process: Process) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(process.pid())?).context("a process id")?;
    kill_process(pid, Signal::TERM)?;
    let began = Instant::now();
    while !process.is_over()? {
        ensure!(began.elapsed() < PATIENCE, "the cloud does not stop");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn measure(options: &Options, scratch: &Path, clouds: &[Cloud]) -> anyhow::Result<Vec<Check>> {
    let few = &clouds[0];
    let bytes = few.bytes_of_a_grant().await?;
    let mut disk = Disk::of(scratch, bytes)?;
    disk.block(BLOCK)?;
    let mut made: Vec<Paired> = clouds.iter().map(|_| Paired::default()).collect();
    let mut flat: Vec<[Paired; 2]> = clouds[1..].iter().map(|_| Default::default()).collect();
    let mut lists: Vec<Vec<Paired>> =
        clouds[1..].iter().map(|cloud| cloud.questions.iter().map(|_| Paired::default()).collect()).collect();
    for cloud in clouds {
        cloud.make(New::Card, 20, || Ok(())).await?;
    }
    for _ in 0..options.rounds {
        let mut cards = Vec::new();
        for (cloud, paired) in clouds.iter().zip(&mut made) {
            let mut own = Samples::default();
            own.extend(disk.block(BLOCK)?);
            let took = cloud.make(New::Card, BLOCK, || Ok(())).await?;
            paired.round(own, took.clone());
            cards.push(took);
        }
        let codes = few.make(New::Code, BLOCK, || Ok(())).await?;
        for ((cloud, flat), took) in clouds[1..].iter().zip(&mut flat).zip(&cards[1..]) {
            flat[0].round(cards[0].clone(), took.clone());
            flat[1].round(codes.clone(), cloud.make(New::Code, BLOCK, || Ok(())).await?);
        }
        for question in 0..few.questions.len() {
            let answered = few.ask(question, BLOCK / 2).await?;
            for (cloud, paired) in clouds[1..].iter().zip(&mut lists) {
                paired[question].round(answered.clone(), cloud.ask(question, BLOCK / 2).await?);
            }
        }
    }
    let mut checks = Vec::new();
    for (cloud, paired) in clouds.iter().zip(&made) {
        let what = format!("access_grants/create with {} grants, above a durable write", shown(cloud.size));
        // A busy machine may take any time for it.
        let goal = if options.quick { Goal::Told } else { Goal::AtMost(1.0) };
        checks.push(paired.above("api", what, goal));
        let p99 = paired.candidate().percentile(99) / 1000.0;
        checks.push(Check::told("api", "the same, p99", p99, "ms"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    checks.push(Check::told("api", "bytes of its commit, and of the durable write", bytes as f64, "bytes"));
    for ((cloud, [cards, codes]), lists) in clouds[1..].iter().zip(&flat).zip(&lists) {
        let against = format!("{} grants against {}", shown(cloud.size), shown(few.size));
        checks.push(cards.check("api", format!("a card, {against}"), Goal::AtMost(1.3)));
        checks.push(codes.check("api", format!("a code, {against}"), Goal::AtMost(1.3)));
        for ((name, ..), paired) in cloud.questions.iter().zip(lists) {
            checks.push(paired.check("api", format!("{name}, {against}"), Goal::AtMost(1.3)));
        }
    }
    Ok(checks)
}

fn shown(size: u64) -> String {
    format!("{}k", size / 1000)
}
