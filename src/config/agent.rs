//! `latchd run --config FILE`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hyper::Uri;
use jiff::tz;

use super::{
    route::RouteConfig,
    section::{Section, Setting, closest},
    system::SystemConfig,
};
use crate::model::{DoorName, Kind};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// `latchd run --config FILE`.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// The property.
    pub site: Site,
    /// The cloud it belongs to.
    pub cloud: CloudLink,
    /// Where it keeps its queue.
    pub storage: StorageConfig,
    /// The socket for local administration.
    pub admin: Admin,
    /// What the site allows, whoever asks.
    pub limits: Limits,
    /// The access systems: `[[system]]`.
    pub systems: Vec<SystemConfig>,
    /// How long running jobs may take to end after SIGTERM. Default 30 s.
    pub stop_deadline: Duration,
}

impl AgentConfig {
    pub(super) fn read(root: &Section<'_>) -> Option<Self> {
        let site = root
            .must("site", "a table [site] with `name` and `time_zone`: the property")
            .and_then(|setting| Site::read(&setting.section()?));
        let cloud = root.get("cloud").and_then(|setting| Some(CloudLink::read(&setting.section()?)));
        let storage = root
            .must("storage", "a table [storage] with `folder`: where the queue is kept")
            .and_then(|setting| StorageConfig::read(&setting.section()?));
        let admin = root.get("admin").and_then(|setting| Some(Admin::read(&setting.section()?)));
        let systems = SystemConfig::read_all(root);
        let limits = root
            .get("limits")
            .and_then(|setting| Some(Limits::read(&setting.section()?, systems.as_deref())));
        let stop_deadline = root
            .get("stop_deadline")
            .and_then(|setting| setting.length(Duration::from_secs(1)..=Duration::from_secs(600)));
        Some(Self {
            site: site?,
            cloud: cloud.unwrap_or_default(),
            storage: storage?,
            admin: admin.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            systems: systems?,
            stop_deadline: stop_deadline.unwrap_or(Duration::from_secs(30)),
        })
    }
}

/// The property.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// What people call it.
    pub name: String,
    /// IANA time zone, e.g. `Europe/Oslo`. Mandatory: the host's zone is never used.
    pub time_zone: String,
}

impl Site {
    fn read(section: &Section<'_>) -> Option<Self> {
        let name = section.must("name", "what people call the property").and_then(|setting| setting.text());
        let time_zone = section
            .must(
                "time_zone",
                "the property's IANA zone, e.g. \"Europe/Oslo\"; the host's own zone is never used",
            )
            .and_then(|setting| zone(&setting));
        Some(Self { name: name?.into(), time_zone: time_zone? })
    }
}

pub(super) fn zone(setting: &Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    if tz::TimeZone::get(text).is_ok() {
        return Some(text.into());
    }
    let known: Vec<_> = tz::db().available().map(|name| name.to_string()).collect();
    let help = match closest(text, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => "write an IANA zone like \"Europe/Oslo\" or \"America/New_York\"".into(),
    };
    setting.wrong(format!("there is no time zone {text:?}"), help);
    None
}

/// The cloud it belongs to. Which one that is, pairing says; this is what differs from it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CloudLink {
    /// `wss://HOST:PORT`, in place of the address that the site was paired with.
    pub url: Option<String>,
    /// PEM file with the certificate authority of a private cloud, in place of what pairing brought. Without either, the
    /// system's own roots are trusted.
    pub ca_file: Option<PathBuf>,
    /// The way there.
    pub route: RouteConfig,
}

impl CloudLink {
    fn read(section: &Section<'_>) -> Self {
        let url = section.get("url").and_then(|setting| wss(&setting));
        let ca_file = section.get("ca_file").and_then(|setting| setting.path());
        let route = RouteConfig::read(section);
        Self { url, ca_file, route }
    }
}

pub(super) fn wss(setting: &Setting<'_>) -> Option<String> {
    const FORM: &str = "write wss://HOST or wss://HOST:PORT";
    let text = setting.text()?;
    let Some(authority) = text.strip_prefix("wss://") else {
        let problem = match text.split_once("://") {
            Some((scheme, _)) => {
                format!("{scheme}:// is not how a bridge reaches its cloud: the link is always TLS")
            }
            None => "this is not an address of a cloud".into(),
        };
        setting.wrong(problem, FORM);
        return None;
    };
    let authority = authority.trim_end_matches('/');
    if authority.contains('@') {
        setting.wrong(
            "a user or password has no place in an address",
            "the certificate that pairing brought is what the cloud asks for",
        );
        return None;
    }
    if authority.contains(['/', '?', '#']) {
        setting.wrong("the address has a path; the protocol brings its own", FORM);
        return None;
    }
    let uri: Option<Uri> = text.parse().ok();
    let names_port = !authority.ends_with(']') && authority.contains(':');
    match uri {
        Some(uri)
            if uri.host().is_some_and(|host| !host.is_empty())
                && names_port == uri.port_u16().is_some_and(|port| port > 0) =>
        {
            Some(format!("wss://{authority}"))
        }
        _ => {
            setting.wrong("the address has no usable host and port", FORM);
            None
        }
    }
}

/// Where a store lives.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageConfig {
    /// The folder for the database.
    pub folder: PathBuf,
    /// The file with the key that seals names, PINs and requests; made on first start, mode 0600. Default:
    /// `seal.key` in the folder.
    pub key_file: Option<PathBuf>,
    /// Bytes of room kept for the day the disk is full, so that what runs can still be recorded. Default 8 MiB.
    pub reserve: u64,
}

impl StorageConfig {
    /// What is kept in reserve where nothing else is said, in bytes.
    pub const RESERVE: u64 = 8 * 1024 * 1024;

    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let folder = section
            .must("folder", "the folder for the database, e.g. \"/var/lib/latchd\"")
            .and_then(|setting| setting.path());
        let key_file = section.get("key_file").and_then(|setting| setting.path());
        let reserve = section.get("reserve").and_then(|setting| size(&setting)).unwrap_or(Self::RESERVE);
        Some(Self { folder: folder?, key_file, reserve })
    }
}

/// A size in bytes, up to 1 GiB.
fn size(setting: &Setting<'_>) -> Option<u64> {
    const MOST: u64 = 1024 * 1024 * 1024;
    let text = setting.text()?;
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => MOST,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    let bytes = bytes.filter(|bytes| unit > 0 && *bytes <= MOST);
    if bytes.is_none() {
        setting
            .wrong(format!("{text:?} is not a size up to 1 GiB"), "write it like \"8 MiB\" or \"512 KiB\"");
    }
    bytes
}

/// The socket for local administration.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Path of the Unix socket; file permissions decide who may use it.
    pub socket: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self { socket: "/run/latchd/latchd.sock".into() }
    }
}

impl Admin {
    fn read(section: &Section<'_>) -> Self {
        let socket = section.get("socket").and_then(|setting| {
            let path = setting.path()?;
            // `sun_path` holds 108 bytes; the socket is made beside its place under a longer name.
            if path.as_os_str().len() < 90 {
                return Some(path);
            }
            setting.wrong(
                "the path is too long for a Unix socket",
                "at most 89 bytes, the folder of this file included where the path is relative",
            );
            None
        });
        socket.map_or_else(Self::default, |socket| Self { socket })
    }
}

/// What the site allows, whoever asks. Enforced by the agent, with an audit line and a named refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Cards an hour, over all systems. Default 60.
    pub cards_per_hour: u32,
    /// Longest validity of a card or code. Default 90 days.
    pub longest_validity: Duration,
    /// Rooms that are never issued from the cloud, as `system/room`.
    pub rooms_never_issued: Vec<String>,
    /// Kinds of job that are refused.
    pub forbidden_kinds: Vec<Kind>,
    /// Whether a door may be opened from afar. Default no.
    pub remote_unlock: bool,
    /// Whether a card ordered from the cloud waits until a person at the site confirms it. Default no.
    pub confirm_remote_cards: bool,
    /// How many jobs may wait; the cloud holds the rest back. Of codes whose time has not come ten times as many may wait
    /// besides. Default 10000.
    pub waiting_jobs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cards_per_hour: 60,
            longest_validity: 90 * DAY,
            rooms_never_issued: Vec::new(),
            forbidden_kinds: Vec::new(),
            remote_unlock: false,
            confirm_remote_cards: false,
            waiting_jobs: 10_000,
        }
    }
}

impl Limits {
    fn read(section: &Section<'_>, systems: Option<&[SystemConfig]>) -> Self {
        let default = Self::default();
        let kinds = Kind::ALL.map(|kind| (kind.as_str(), kind));
        let items = |key| section.get(key).and_then(|setting| setting.items()).unwrap_or_default();
        Self {
            cards_per_hour: section
                .get("cards_per_hour")
                .and_then(|setting| setting.number(1..=100_000))
                .unwrap_or(default.cards_per_hour),
            longest_validity: section
                .get("longest_validity")
                .and_then(|setting| setting.length(Duration::from_secs(60)..=3660 * DAY))
                .unwrap_or(default.longest_validity),
            rooms_never_issued: items("rooms_never_issued")
                .iter()
                .filter_map(|setting| existing_room(setting, systems))
                .collect(),
            forbidden_kinds: items("forbidden_kinds")
                .iter()
                .filter_map(|setting| setting.one_of(&kinds))
                .collect(),
            remote_unlock: section
                .get("remote_unlock")
                .and_then(|setting| setting.flag())
                .unwrap_or(default.remote_unlock),
            confirm_remote_cards: section
                .get("confirm_remote_cards")
                .and_then(|setting| setting.flag())
                .unwrap_or(default.confirm_remote_cards),
            waiting_jobs: section
                .get("waiting_jobs")
                .and_then(|setting| setting.number(1..=1_000_000))
                .unwrap_or(default.waiting_jobs),
        }
    }
}

/// `system/room` of a room that exists: a limit on a room that does not exist would protect nothing.
fn existing_room(setting: &Setting<'_>, systems: Option<&[SystemConfig]>) -> Option<String> {
    let text = setting.text()?;
    let Some((system, room)) = text.split_once('/') else {
        setting.wrong(
            format!("{text:?} is not of the form system/room"),
            "write the system's name, a slash and the room's name, e.g. \"salto/0101\"",
        );
        return None;
    };
    // Where the systems themselves could not be read, there is nothing to compare with.
    let Some(systems) = systems else {
        return Some(text.into());
    };
    let systems: BTreeMap<_, _> = systems.iter().map(|system| (system.name.as_str(), system)).collect();
    let Some(found) = systems.get(system) else {
        let help = match closest(system, systems.keys().copied()) {
            Some(meant) => format!("did you mean \"{meant}/{room}\"?"),
            None => "name a [[system]] of this file".into(),
        };
        setting.wrong(format!("there is no system {system:?}"), help);
        return None;
    };
    let doors: Vec<_> = found.door_names().map(DoorName::as_str).collect();
    if doors.contains(&room) {
        return Some(text.into());
    }
    let help = match closest(room, doors) {
        Some(meant) => format!("did you mean \"{system}/{meant}\"? Names are compared exactly"),
        None => {
            format!("name one of the `rooms` of {system:?}; names are compared exactly, leading zeros too")
        }
    };
    setting.wrong(format!("system {system:?} has no room {room:?}"), help);
    None
}
