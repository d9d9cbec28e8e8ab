//! The two configuration files, as types. Each field's text here is its reference.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer};

use crate::model::{DoorName, EncoderName, Kind, SystemName};

/// `latchd run --config FILE`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The property.
    pub site: Site,
    /// The cloud it belongs to.
    pub cloud: CloudLink,
    /// Where it keeps its queue.
    pub storage: StorageConfig,
    /// The socket for local administration.
    #[serde(default)]
    pub admin: Admin,
    /// What the site allows, whoever asks.
    #[serde(default)]
    pub limits: Limits,
    /// The access systems.
    #[serde(default, rename = "system")]
    pub systems: Vec<SystemConfig>,
    /// How long running jobs may take to end after SIGTERM.
    #[serde(default = "thirty_seconds", deserialize_with = "duration")]
    pub stop_deadline: Duration,
}

/// The property.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// What people call it.
    pub name: String,
    /// IANA time zone, e.g. `Europe/Oslo`. Mandatory: the host's zone is never used.
    pub time_zone: String,
}

/// The cloud it belongs to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudLink {
    /// `wss://HOST:PORT`; the path is the protocol's own.
    pub url: String,
    /// The file with the bearer token.
    pub token_file: PathBuf,
    /// PEM file with the certificate authority of a private cloud. Without it, the system's own roots are trusted.
    pub ca_file: Option<PathBuf>,
}

/// Where a store lives.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// The folder for the database.
    pub folder: PathBuf,
    /// The file with the key that seals names, PINs and requests; made on first start, mode 0600. Default:
    /// `seal.key` in the folder.
    pub key_file: Option<PathBuf>,
}

/// The socket for local administration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Path of the Unix socket; file permissions decide who may use it.
    pub socket: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: "/run/latchd/latchd.sock".into(),
        }
    }
}

/// What the site allows, whoever asks. Enforced by the agent, with an audit line and a named refusal.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Cards an hour, over all systems. Default 60.
    pub cards_per_hour: u32,
    /// Longest validity of a card or code. Default 90 days.
    #[serde(deserialize_with = "duration")]
    pub longest_validity: Duration,
    /// Rooms that are never issued from the cloud, as `system/room`.
    pub rooms_never_issued: Vec<String>,
    /// Kinds of job that are refused.
    pub forbidden_kinds: Vec<Kind>,
    /// Whether a door may be opened from afar. Default no.
    pub remote_unlock: bool,
    /// How many jobs may wait; the cloud holds the rest back. Default 10000.
    pub waiting_jobs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cards_per_hour: 60,
            longest_validity: Duration::from_secs(90 * 24 * 3600),
            rooms_never_issued: Vec::new(),
            forbidden_kinds: Vec::new(),
            remote_unlock: false,
            waiting_jobs: 10_000,
        }
    }
}

/// One access system.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemConfig {
    /// The site's name for it; the first half of every local id. Never change it.
    pub name: SystemName,
    /// Whether latchd alone makes cards on it. `false` where the hotel's desk program or PMS makes cards too: then a
    /// card joins a stay only after a live card of that stay was read on an encoder.
    pub exclusive: bool,
    /// With `exclusive = false`: trust the ledger all the same. Every such join is written to the audit.
    #[serde(default)]
    pub assume_unchanged: bool,
    /// Whether the end of a reservation's last grant frees the room in the lock system.
    #[serde(default)]
    pub checkout: Checkout,
    /// Which make, and its own settings.
    #[serde(flatten)]
    pub driver: DriverConfig,
}

/// Whether the end of a reservation's last grant frees the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkout {
    /// Never; the desk does it.
    #[default]
    Never,
    /// When the last live grant of the reservation is deleted.
    LastGrant,
}

/// Which make, and its own settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DriverConfig {
    /// SALTO SPACE by its "Industry Standard" PMS interface.
    SaltoIs(SaltoIsConfig),
}

/// SALTO SPACE by its "Industry Standard" PMS interface.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SaltoIsConfig {
    /// How to reach it.
    pub line: LineConfig,
    /// Its Ethernet encoders, by their names in SPACE. USB encoders cannot be used for PMS.
    pub encoders: Vec<EncoderConfig>,
    /// Its guest rooms, by their names in SPACE; leading zeros matter.
    pub rooms: Vec<DoorConfig>,
    /// Its common doors, with their numbers on the "PMS Authorizations" screen.
    #[serde(default)]
    pub common: Vec<CommonConfig>,
    /// Whether the final answer is acknowledged. Two public clients do, two do not; default yes.
    #[serde(default = "yes")]
    pub ack_final: bool,
    /// What stands behind ETX in our frames: the checksum, or `0D` for "do not check". Default the checksum.
    #[serde(default)]
    pub lrc: LrcConfig,
    /// Shown in the lock system's audit trail; at most 24 characters.
    #[serde(default = "operator")]
    pub operator: String,
    /// Whether to wait until the card is taken away (`E`) or not (`R`). Default yes.
    #[serde(default = "yes")]
    pub wait_for_removal: bool,
    /// How long the system may take for ACK. Default 5 s.
    #[serde(default = "five_seconds", deserialize_with = "duration")]
    pub ack_timeout: Duration,
    /// How much longer than the card wait the final answer may take. Default 15 s.
    #[serde(default = "fifteen_seconds", deserialize_with = "duration")]
    pub answer_margin: Duration,
    /// On a serial line, how long to wait after an answer that did not come, throwing away what arrives, so that it is
    /// never taken for the next one's. Default 30 s.
    #[serde(default = "thirty_seconds", deserialize_with = "duration")]
    pub settle: Duration,
}

/// What stands behind ETX in our frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrcConfig {
    /// The checksum.
    #[default]
    Checked,
    /// `0D`, which tells the other side not to check.
    Skip,
}

/// How to reach a system: exactly one of `tcp` and `serial`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineConfig {
    /// `HOST:PORT`.
    pub tcp: Option<String>,
    /// Path of a serial port; use a `/dev/serial/by-id/…` link, it survives replugging.
    pub serial: Option<PathBuf>,
    /// Speed of the serial port. Default 9600.
    #[serde(default = "baud")]
    pub baud: u32,
    /// Data bits, parity and stop bits. Default `8N1`.
    #[serde(default = "framing")]
    pub framing: String,
    /// Whether the serial port uses RTS/CTS. Default yes, as SALTO's own default is.
    #[serde(default = "yes")]
    pub hardware_handshake: bool,
}

/// An encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Its name in the system.
    pub name: EncoderName,
    /// What people call it.
    pub display_name: Option<String>,
}

/// A door.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorConfig {
    /// Its name in the system.
    pub name: DoorName,
    /// What people call it.
    pub display_name: Option<String>,
}

/// A common door.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonConfig {
    /// What the site calls it; also its local id.
    pub name: DoorName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its number on the "PMS Authorizations" screen, 1 to 62.
    pub authorisation: u8,
}

/// `latchd cloud --config FILE`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudConfig {
    /// Where it keeps its database, keys and certificates.
    pub storage: StorageConfig,
    /// The tenant.
    #[serde(default)]
    pub workspace: WorkspaceConfig,
    /// The HTTP API.
    pub api: ApiConfig,
    /// The bridges' websocket.
    pub bridges: BridgesConfig,
}

/// The tenant.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspaceConfig {
    /// What people call it.
    pub name: String,
}

impl Default for WorkspaceConfig {
    fn default() -> Self {
        Self { name: "Home".into() }
    }
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens; port 0 takes a free one and prints it.
    pub listen: SocketAddr,
    /// Plain HTTP, on a loopback address only: for a reverse proxy, or SDKs on the same machine.
    #[serde(default)]
    pub plain: bool,
    /// The operator's certificate. Without it, one is made from a certificate authority of our own.
    pub tls: Option<TlsFiles>,
    /// Names and addresses that the certificate we make is good for. Default `localhost` and the listen address.
    #[serde(default)]
    pub names: Vec<String>,
    /// How long `action_attempts/get` may be held open while the attempt is pending; at most 25 s. Default 25 s.
    #[serde(default = "twenty_five_seconds", deserialize_with = "duration")]
    pub hold: Duration,
}

/// The bridges' websocket. TLS is always ended here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgesConfig {
    /// Where it listens; port 0 takes a free one and prints it.
    pub listen: SocketAddr,
    /// The operator's certificate. Without it, one is made from a certificate authority of our own.
    pub tls: Option<TlsFiles>,
    /// Names and addresses that the certificate we make is good for. Default `localhost` and the listen address.
    #[serde(default)]
    pub names: Vec<String>,
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert_file: PathBuf,
    /// The key; mode 0600.
    pub key_file: PathBuf,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let span: jiff::SignedDuration = text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not a length of time; write it like \"30s\" or \"2h 30m\""
        ))
    })?;
    Duration::try_from(span)
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is negative; a length of time is not")))
}

fn yes() -> bool {
    true
}

fn operator() -> String {
    "LATCHD".into()
}

fn baud() -> u32 {
    9600
}

fn framing() -> String {
    "8N1".into()
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn fifteen_seconds() -> Duration {
    Duration::from_secs(15)
}

fn twenty_five_seconds() -> Duration {
    Duration::from_secs(25)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}
