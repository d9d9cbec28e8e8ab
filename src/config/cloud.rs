//! `latchd cloud --config FILE`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::model::SystemName;

use super::{
    agent::StorageConfig,
    section::{Section, Setting},
};
use crate::model::KeyTemplate;

/// What load balancers and SDKs cut at 30 s must get its answer before.
const LONGEST_HOLD: Duration = Duration::from_secs(25);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a bridge's certificate may be good for.
const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(397 * 24 * 3600);
/// For how long after that it may be renewed.
const GRACES: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3650 * 24 * 3600);

/// For how long something that is over may be kept.
const KEPT: std::ops::RangeInclusive<Duration> = DAY..=Duration::from_secs(3650 * 24 * 3600);

/// `latchd cloud --config FILE`.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudConfig {
    /// Where it keeps its database, keys and certificates.
    pub storage: StorageConfig,
    /// The tenant.
    pub workspace: WorkspaceConfig,
    /// The HTTP API.
    pub api: ApiConfig,
    /// The bridges' websocket.
    pub bridges: BridgesConfig,
    /// What is kept for how long.
    pub retention: RetentionConfig,
    /// Where events may be delivered to.
    pub webhooks: WebhooksConfig,
    /// Pretend access systems that clients under test may tell what happens next.
    pub simulators: Vec<SimulatorConfig>,
}

impl CloudConfig {
    pub(super) fn read(root: &Section<'_>) -> Option<Self> {
        let storage = root
            .must(
                "storage",
                "a table [storage] with `folder`: where database, keys and certificates are kept",
            )
            .and_then(|setting| StorageConfig::read(&setting.section()?));
        let workspace =
            root.get("workspace").and_then(|setting| Some(WorkspaceConfig::read(&setting.section()?)));
        let api = root
            .must("api", "a table [api] with `listen`: the HTTP API")
            .and_then(|setting| ApiConfig::read(&setting.section()?));
        let bridges = root.must("bridges", "a table [bridges] with `listen`: where bridges dial in");
        let bridges = bridges.and_then(|setting| {
            let bridges = BridgesConfig::read(&setting.section()?)?;
            if api.as_ref().is_some_and(|api| api.listen == bridges.listen && api.listen.port() != 0) {
                setting.wrong(
                    format!("`api` and `bridges` both listen at {}", bridges.listen),
                    "give each a port of its own: bridges come by TLS with rules of their own",
                );
            }
            Some(bridges)
        });
        let retention =
            root.get("retention").and_then(|setting| Some(RetentionConfig::read(&setting.section()?)));
        let webhooks =
            root.get("webhooks").and_then(|setting| Some(WebhooksConfig::read(&setting.section()?)));
        Some(Self {
            storage: storage?,
            workspace: workspace.unwrap_or_default(),
            api: api?,
            bridges: bridges?,
            retention: retention.unwrap_or_default(),
            webhooks: webhooks.unwrap_or_default(),
            simulators: SimulatorConfig::read_all(root),
        })
    }
}

/// The tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkspaceConfig {
    /// What people call it. Default `Home`.
    pub name: String,
}

impl Default for WorkspaceConfig {
    fn default() -> Self {
        Self { name: "Home".into() }
    }
}

impl WorkspaceConfig {
    fn read(section: &Section<'_>) -> Self {
        let name = section.get("name");
        name.and_then(|setting| setting.text().map(Into::into))
            .map_or_else(Self::default, |name| Self { name })
    }
}

/// What is kept for how long, from a day on; counted from when it was over.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionConfig {
    /// People without any access. Default: until they are deleted.
    pub identities: Option<Duration>,
    /// Grants that ended and of which no card opens any more and no code is left in a lock. Default a year.
    pub grants: Duration,
    /// PINs and links of grants that ended. Default 30 days.
    pub codes: Duration,
    /// The feed. Default 90 days.
    pub events: Duration,
    /// Attempts that ended, and the record of cards whose grants are gone. Default 90 days.
    pub attempts: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            identities: None,
            grants: DAY.saturating_mul(365),
            codes: DAY.saturating_mul(30),
            events: DAY.saturating_mul(90),
            attempts: DAY.saturating_mul(90),
        }
    }
}

impl RetentionConfig {
    fn read(section: &Section<'_>) -> Self {
        let length = |key| section.get(key).and_then(|setting| setting.length(KEPT));
        let otherwise = Self::default();
        Self {
            identities: length("identities"),
            grants: length("grants").unwrap_or(otherwise.grants),
            codes: length("codes").unwrap_or(otherwise.codes),
            events: length("events").unwrap_or(otherwise.events),
            attempts: length("attempts").unwrap_or(otherwise.attempts),
        }
    }
}

/// Where events may be delivered to: to public addresses by https, and where else.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WebhooksConfig {
    /// To addresses of private networks, by https.
    pub private: bool,
    /// To this machine itself, also by plain http.
    pub loopback: bool,
    /// Authorities whose certificates receivers may show, beside those that the machine trusts; PEM.
    pub ca_file: Option<PathBuf>,
}

impl WebhooksConfig {
    fn read(section: &Section<'_>) -> Self {
        let flag = |key| section.get(key).as_ref().and_then(Setting::flag).unwrap_or_default();
        Self {
            private: flag("private"),
            loopback: flag("loopback"),
            ca_file: section.get("ca_file").and_then(|setting| setting.path()),
        }
    }
}

/// A pretend access system.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatorConfig {
    /// What its site calls it.
    pub system: SystemName,
    /// Its control socket.
    pub control: PathBuf,
}

impl SimulatorConfig {
    fn read_all(root: &Section<'_>) -> Vec<Self> {
        let Some(setting) = root.get("simulator") else {
            return Vec::new();
        };
        if setting.is_table() {
            setting.wrong("there may be several simulators", "write [[simulator]] with two brackets");
            return Vec::new();
        }
        let items = setting.items().unwrap_or_default();
        items.iter().filter_map(|item| Self::read(&item.section()?)).collect()
    }

    fn read(section: &Section<'_>) -> Option<Self> {
        let system = section.must("system", "what the site calls the pretend access system");
        let control = section.must("control", "the simulator's control socket");
        let (system, control) = (system.and_then(|name| name.parsed()), control.and_then(|path| path.path()));
        Some(Self { system: system?, control: control? })
    }
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiConfig {
    /// Where it listens; port 0 takes a free one and prints it.
    pub listen: SocketAddr,
    /// Plain HTTP, on a loopback address only: for a reverse proxy, or SDKs on the same machine.
    pub plain: bool,
    /// The operator's certificate. Without it, one is made from a certificate authority of our own.
    pub tls: Option<TlsFiles>,
    /// Names and addresses that the certificate we make is good for. Default `localhost` and the listen address.
    pub names: Vec<String>,
    /// How long `action_attempts/get` may be held open while the attempt is pending; at most 25 s. Default 25 s.
    pub hold: Duration,
    /// Whether a call that orders a card to be written or read, or a door to be opened, is held open likewise, and answers
    /// with the end of the attempt: for clients that wait for less time than a person needs to lay a card down. Default no.
    pub hold_orders: bool,
    /// Where mobile keys are handed out, e.g. `https://keys.example/{token}`; with the placeholders
    /// `{access_method_id}`, `{access_grant_id}`, `{user_identity_id}` and `{token}` (random, one for each key). Without
    /// it a mobile key that is asked for says that there is none.
    pub instant_key_url: Option<KeyTemplate>,
}

impl ApiConfig {
    fn read(section: &Section<'_>) -> Option<Self> {
        let listen = listen(section);
        let plain_set = section.get("plain");
        let plain = plain_set.as_ref().and_then(Setting::flag).unwrap_or_default();
        if let (Some(setting), true, Some(listen)) = (&plain_set, plain, listen)
            && !listen.ip().is_loopback()
        {
            setting.wrong(
                format!("plain HTTP at {listen} could be read on the way"),
                "listen at 127.0.0.1 or [::1] and put a reverse proxy before it, or remove `plain` for TLS",
            );
        }
        let tls = tls(section);
        if let (Some(setting), true, true) = (&plain_set, plain, tls.is_some()) {
            setting.wrong("a certificate and plain HTTP exclude each other", "remove `plain` or `tls`");
        }
        let hold = section.get("hold").and_then(|setting| setting.length(Duration::ZERO..=LONGEST_HOLD));
        let hold_orders = section.get("hold_orders").as_ref().and_then(Setting::flag).unwrap_or_default();
        let instant_key_url = section.get("instant_key_url").and_then(|setting| {
            let text = setting.text()?;
            let template = KeyTemplate::new(text);
            if let Err(error) = &template {
                setting.wrong(
                    error.to_string(),
                    "write an https address with placeholders, e.g. \"https://keys.example/{token}\"",
                );
            }
            template.ok()
        });
        let hold = hold.unwrap_or(LONGEST_HOLD);
        Some(Self { names: names(section), listen: listen?, plain, tls, hold, hold_orders, instant_key_url })
    }
}

/// The bridges' websocket. TLS is always ended here.
#[derive(Debug, Clone, PartialEq)]
pub struct BridgesConfig {
    /// Where it listens; port 0 takes a free one and prints it.
    pub listen: SocketAddr,
    /// The operator's certificate. Without it, one is made from a certificate authority of our own.
    pub tls: Option<TlsFiles>,
    /// Names and addresses that the certificate we make is good for. Default `localhost` and the listen address.
    pub names: Vec<String>,
    /// How long the certificate of a bridge is good for; it is renewed long before. Default 90 days.
    pub certificate_lifetime: Duration,
    /// For how long after its end a bridge that was away may still renew it, by its old key. Default 90 days.
    pub renewal_grace: Duration,
}

impl BridgesConfig {
    /// How long the certificate of a bridge is good for, if nothing else is said.
    pub const CERTIFICATE_LIFETIME: Duration = DAY.saturating_mul(90);
    /// For how long it may be renewed after its end, if nothing else is said.
    pub const RENEWAL_GRACE: Duration = DAY.saturating_mul(90);

    fn read(section: &Section<'_>) -> Option<Self> {
        let (listen, tls) = (listen(section), tls(section));
        let length = |key, bounds| section.get(key).and_then(|setting| setting.length(bounds));
        Some(Self {
            names: names(section),
            certificate_lifetime: length("certificate_lifetime", LIFETIMES)
                .unwrap_or(Self::CERTIFICATE_LIFETIME),
            renewal_grace: length("renewal_grace", GRACES).unwrap_or(Self::RENEWAL_GRACE),
            listen: listen?,
            tls,
        })
    }
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert_file: PathBuf,
    /// The key; mode 0600.
    pub key_file: PathBuf,
}

fn listen(section: &Section<'_>) -> Option<SocketAddr> {
    section
        .must("listen", "where to listen, e.g. \"0.0.0.0:8443\"; port 0 takes a free one")
        .and_then(|setting| setting.address())
}

fn tls(section: &Section<'_>) -> Option<TlsFiles> {
    let files = section.get("tls")?.section()?;
    let cert_file = files.must("cert_file", "the PEM file of the certificate chain, leaf first");
    let key_file = files.must("key_file", "the PEM file of its key, mode 0600");
    let (cert_file, key_file) = (cert_file?.path(), key_file?.path());
    Some(TlsFiles { cert_file: cert_file?, key_file: key_file? })
}

fn names(section: &Section<'_>) -> Vec<String> {
    let items = section.get("names").and_then(|setting| setting.items());
    let host = |setting: Setting<'_>| {
        let text = setting.text()?;
        if text.chars().all(|c| c.is_ascii_alphanumeric() || ".-:*".contains(c)) {
            return Some(text.to_string());
        }
        setting.wrong(
            format!("{text:?} is neither a host name nor an address"),
            "write it without scheme, port or path, e.g. \"cloud.example\"",
        );
        None
    };
    items.unwrap_or_default().into_iter().filter_map(host).collect()
}
