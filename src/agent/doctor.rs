//! What is well with an agent and what is not: each thing it needs is looked at, with the next step where it is
//! missing. Nothing is changed, no secret is told, and every look has its time.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    admin::{self, AdminError, LineState, LinkState, Request, Response, StatusReport},
    mistakes,
    pairing::{Draft, Pairing},
};
use crate::{
    config::{AgentConfig, ConfigErrors, DriverConfig, LockConfig, SystemConfig},
    drivers::ble::{BleLocks, KeyRing},
    link,
    model::Severity,
    queue,
    seal::{SealKey, is_exposed},
    seams::{Clock, Net, Random},
    store,
    transport::{LineError, Target},
};

/// How long the cloud or a lock system may take to answer.
const REACH: Duration = Duration::from_secs(10);
/// How long the database is looked at.
const DATABASE: Duration = Duration::from_secs(10);
/// Less free space than this is worth a word,
const LITTLE_SPACE: u64 = 512 * 1024 * 1024;
/// and with less than this nothing can be kept for long.
const NO_SPACE: u64 = 32 * 1024 * 1024;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: `config`, `pairing`, `storage`, `cloud`, `system salto`.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// The same in words.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Well.
    Ok,
    /// It works, or may; somebody should know.
    Warn,
    /// It does not work.
    Fail,
}

/// What an examination needs of the world.
#[derive(Clone)]
pub struct Tools {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The host's clock.
    pub clock: Clock,
    /// For the key, which wants it.
    pub random: Random,
}

/// Looks at everything that the agent with this configuration needs.
pub async fn examine(path: &Path, tools: &Tools) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(config) = configuration(path, &mut found) else {
        return found;
    };
    let agent = running(&config, &mut found).await;
    seal_key(&config, tools, &mut found);
    folder(&config, &mut found);
    database(&config, agent.is_some(), &mut found).await;
    let paired = pairing(&config, tools, &mut found);
    cloud(paired, agent.as_ref(), tools, &mut found).await;
    let ring = super::key_ring(&config, &tools.random);
    for system in &config.systems {
        keys(system, &ring, &mut found);
        line(system, agent.as_ref(), tools, &mut found).await;
    }
    conditions(agent.as_ref(), &mut found);
    found
}

fn ok(subject: &str, message: impl Into<String>) -> Finding {
    Finding { subject: subject.into(), verdict: Verdict::Ok, message: message.into(), next: None }
}

fn warn(subject: &str, message: impl Into<String>, next: impl Into<String>) -> Finding {
    let next = Some(next.into());
    Finding { subject: subject.into(), verdict: Verdict::Warn, message: message.into(), next }
}

fn fail(subject: &str, message: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Fail, ..warn(subject, message, next) }
}

fn configuration(path: &Path, found: &mut Vec<Finding>) -> Option<AgentConfig> {
    let shown = path.display();
    match AgentConfig::load(path) {
        Ok(config) => {
            let wrong = mistakes(&config);
            for mistake in &wrong {
                found.push(fail("config", mistake.clone(), format!("mend {shown}")));
            }
            if wrong.is_empty() {
                found.push(ok("config", format!("{shown}: fine, for {}", config.site.name)));
            }
            Some(config)
        }
        Err(ConfigErrors::Unreadable { source, .. }) => {
            let next = "name the file with --config, or make one from config/latchd.example.toml";
            found.push(fail("config", format!("{shown} cannot be read: {source}"), next));
            None
        }
        Err(errors @ ConfigErrors::Mistakes { .. }) => {
            let count = errors.mistakes().len();
            let next = format!("`latchd check-config {shown}` shows each with its place");
            found.push(fail("config", format!("{shown}: {count} mistakes"), next));
            None
        }
    }
}

/// What the running agent says, if one answers.
async fn running(config: &AgentConfig, found: &mut Vec<Finding>) -> Option<StatusReport> {
    let socket = &config.admin.socket;
    match admin::ask(socket, &Request::Status).await {
        Ok(Response::Status(report)) => {
            found.push(ok("agent", format!("version {} runs and answers", report.version)));
            return Some(*report);
        }
        Ok(_) => found.push(fail("agent", "it answers another question", "use one version of latchd")),
        Err(error @ AdminError::NoAgent { .. }) => {
            let next = "`systemctl start latchd`; `journalctl -u latchd` says why it stopped";
            found.push(warn("agent", error.to_string(), next));
        }
        Err(error @ AdminError::Denied { .. }) => {
            found.push(warn("agent", error.to_string(), "run this as root"));
        }
        Err(error) => found.push(fail("agent", error.to_string(), "`systemctl restart latchd`")),
    }
    None
}

/// A file that a service manager hands over is there only while the service runs.
fn is_credential(path: &Path) -> bool {
    path.starts_with("/run/credentials")
}

fn pairing(
    config: &AgentConfig,
    tools: &Tools,
    found: &mut Vec<Finding>,
) -> Option<(String, link::Settings)> {
    let path = Pairing::path(config);
    let next =
        "pair the site with `latchd pair`; `latchd cloud bridges pair` on the cloud's machine says how";
    let pairing = match Pairing::load(&path) {
        Ok(pairing) => pairing,
        Err(error) => {
            let next = match config.storage.folder.join(Draft::PAIRING).exists() {
                true => "`latchd pair` was cut off: repeat it with the same code",
                false => next,
            };
            found.push(fail("pairing", format!("{error:#}"), next));
            return None;
        }
    };
    let key_file = config.storage.key_file.clone().unwrap_or_else(|| config.storage.folder.join("seal.key"));
    let settings = SealKey::from_file(&key_file, tools.random.clone())
        .map_err(anyhow::Error::from)
        .and_then(|seal| pairing.settings(config, &seal));
    let url = config.cloud.url.clone().unwrap_or(pairing.url);
    match settings {
        Ok(settings) => {
            let ends = pairing.expires_at;
            found.push(match ends < tools.clock.now() {
                true => {
                    warn("pairing", format!("the certificate ended at {ends}"), "it is renewed by itself")
                }
                false => ok(
                    "pairing",
                    format!("bridge {} of {}, until {ends}", pairing.bridge_id, pairing.workspace),
                ),
            });
            Some((url, settings))
        }
        Err(error) => {
            found.push(fail("pairing", format!("{error:#}"), next));
            None
        }
    }
}

fn unreadable(subject: &str, path: &Path, error: &io::Error, next: &str) -> Finding {
    let message = format!("{} cannot be read: {error}", path.display());
    match is_credential(path) {
        true => warn(subject, message, "it is there only while the service runs; run this as root then"),
        false if error.kind() == io::ErrorKind::PermissionDenied => {
            warn(subject, message, "run this as root")
        }
        false => fail(subject, message, next),
    }
}

/// A word about a secret that others may read.
fn private(path: &Path, subject: &str) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    is_exposed(mode, is_credential(path)).then(|| {
        let shown = path.display();
        warn(
            subject,
            format!("{shown} may be read by others (mode {mode:04o})"),
            format!("chmod 600 {shown}"),
        )
    })
}

fn seal_key(config: &AgentConfig, tools: &Tools, found: &mut Vec<Finding>) {
    let configured = config.storage.key_file.clone();
    let path = configured.clone().unwrap_or_else(|| config.storage.folder.join("seal.key"));
    let shown = path.display();
    let database = config.storage.folder.join(queue::FILE);
    match fs::metadata(&path) {
        Ok(_) => match SealKey::from_file(&path, tools.random.clone()) {
            Ok(_) => {
                found.push(private(&path, "key").unwrap_or_else(|| ok("key", format!("{shown}: there"))));
            }
            Err(error) => found.push(fail("key", error.to_string(), "restore it from your copy")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && configured.is_none() => {
            found.push(match database.exists() {
                true => fail(
                    "key",
                    format!("{shown} is missing, and the database was sealed with it"),
                    "restore it from your copy; without it nothing in the database opens",
                ),
                false => ok("key", format!("{shown}: made at first start")),
            });
        }
        Err(error) => {
            let next = "restore it from your copy, or make one: openssl rand -hex 32";
            found.push(unreadable("key", &path, &error, next));
        }
    }
}

fn folder(config: &AgentConfig, found: &mut Vec<Finding>) {
    let folder = &config.storage.folder;
    let shown = folder.display();
    // What is not there yet is made at first start.
    let Some(there) = folder.ancestors().find(|ancestor| ancestor.is_dir()).map(PathBuf::from) else {
        found.push(fail("storage", format!("there is no folder above {shown}"), "make it"));
        return;
    };
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    if let Err(error) = rustix::fs::access(&there, access) {
        let message = format!("{} may not be written by this user: {error}", there.display());
        found.push(warn("storage", message, "run this as root, or as the user of the service"));
    } else if there == *folder {
        found.push(ok("storage", format!("{shown} may be written")));
    } else {
        found.push(ok("storage", format!("{shown}: made at first start")));
    }
    let Ok(space) = rustix::fs::statvfs(&there) else {
        return;
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let message = format!("{} MiB are free at {}", free / (1024 * 1024), there.display());
    found.push(match free {
        ..NO_SPACE => fail("disk", message, "free some space now: nothing new can be taken for long"),
        NO_SPACE..LITTLE_SPACE => warn("disk", message, "free some space"),
        _ => ok("disk", message),
    });
}

async fn database(config: &AgentConfig, in_use: bool, found: &mut Vec<Finding>) {
    let path = config.storage.folder.join(queue::FILE);
    let shown = path.display().to_string();
    if let Err(error) = fs::metadata(&path) {
        found.push(match error.kind() {
            io::ErrorKind::NotFound => ok("database", format!("{shown}: made at first start")),
            _ => unreadable("database", &path, &error, "look at the disk"),
        });
        return;
    }
    let look = spawn_blocking(move || store::inspect(&path, in_use, DATABASE));
    found.push(match timeout(DATABASE * 2, look).await {
        Ok(Ok(Ok(inspection))) => {
            let (schema, known) = (inspection.schema, queue::SCHEMA);
            match inspection.damage.first() {
                Some(damage) => fail(
                    "database",
                    format!("{shown} is damaged: {damage}"),
                    "stop the agent, keep a copy of the folder, restore a backup",
                ),
                None if schema > known => fail(
                    "database",
                    format!("{shown} has schema {schema}, this program knows up to {known}"),
                    "run the newer program",
                ),
                None if !inspection.whole => warn(
                    "database",
                    format!("{shown}: nothing wrong in {} s, and not all of it seen", DATABASE.as_secs()),
                    "`sqlite3 FILE 'PRAGMA quick_check'` takes the time it needs",
                ),
                None => ok("database", format!("{shown}: schema {schema}, nothing wrong")),
            }
        }
        Ok(Ok(Err(error))) => fail("database", error.chain(), "look at the file and the disk"),
        Ok(Err(_)) | Err(_) => fail("database", format!("{shown} cannot be looked at"), "look at the disk"),
    });
}

async fn cloud(
    paired: Option<(String, link::Settings)>,
    agent: Option<&StatusReport>,
    tools: &Tools,
    found: &mut Vec<Finding>,
) {
    let Some((url, settings)) = paired else { return };
    if let Some(report) = agent
        && report.link.state == LinkState::Up
    {
        let workspace = report.link.workspace.as_deref().unwrap_or("its workspace");
        found.push(ok("cloud", format!("linked to {workspace} at {url}")));
        return;
    }
    let reached = timeout(REACH, link::probe(&settings, tools.net.as_ref(), tools.clock.now())).await;
    found.push(match reached {
        Ok(Ok(())) => ok("cloud", format!("{url} answers and knows this bridge")),
        Ok(Err(trouble)) => fail("cloud", format!("{url}: {}", trouble.message), fix(trouble.code)),
        Err(_) => fail(
            "cloud",
            format!("{url} does not answer within {} s", REACH.as_secs()),
            "check network, address and firewall",
        ),
    });
}

fn fix(code: &str) -> &'static str {
    match code {
        "link_name_unknown" => "check `cloud.url` and the DNS of this machine",
        "link_dns_silent" => "check the DNS servers of this machine: resolvectl status",
        "link_port_closed" | "link_unreachable" | "link_connect_timeout" => {
            "check `cloud.url`, the firewall, and whether the cloud runs"
        }
        "link_tls_untrusted" => "pair the site again, or put the cloud's ca.pem where `cloud.ca_file` says",
        "link_tls_inspected" => "ask who runs the proxy or firewall for an exemption from TLS inspection",
        "link_tls_not_pinned" => "ask who runs the cloud whether its key has changed; then mend `cloud.pins`",
        "link_tls_wrong_name" => "use a name in `cloud.url` that the cloud has under `names`",
        "link_tls_not_yet_valid" | "link_tls_expired" | "link_clock_wrong" => {
            "set the clock of this machine: timedatectl"
        }
        "link_captive_portal" => "log in to this network, or have it let the cloud's address pass",
        "link_proxy_auth" => "put user:password into the file of `cloud.proxy_credentials_file`",
        "link_not_paired" => {
            "pair the site again: `latchd pair … --replace`, with a code of `latchd cloud bridges pair --replace BRIDGE_ID`"
        }
        "link_standing_unknown" => {
            "ask who runs the cloud to vouch for this site: `latchd cloud bridges vouch BRIDGE_ID`"
        }
        "link_certificate_expired" => "it is renewed by itself; wait a minute",
        code if code.starts_with("link_proxy_") => "check `cloud.proxy`, and ask the proxy's keeper",
        _ => "look at the cloud's log",
    }
}

/// What gives rights at locks with a radio.
fn keys(system: &SystemConfig, ring: &KeyRing, found: &mut Vec<Finding>) {
    let DriverConfig::Ble(locks) = &system.driver else { return };
    found.extend(locks.locks.iter().map(|lock| {
        let name = format!("lock {}/{}", system.name, lock.name);
        match BleLocks::check_keys(ring, locks.make, &system.name, lock) {
            Ok(()) => ok(&name, format!("its keys are in {}", ring.path(&system.name, lock).display())),
            Err(error) => fail(&name, error.to_string(), "`latchd devices list` shows what each lock lacks"),
        }
    }));
}

async fn line(system: &SystemConfig, agent: Option<&StatusReport>, tools: &Tools, found: &mut Vec<Finding>) {
    let subject = format!("system {}", system.name);
    if let Some(report) = agent {
        let Some(said) = report.systems.iter().find(|said| said.name == system.name) else {
            let next = "`systemctl reload latchd`";
            found.push(warn(&subject, "the running agent does not know it yet", next));
            return;
        };
        found.push(match (said.line, &said.trouble) {
            (LineState::Ready, _) => ok(&subject, format!("the line to {} is open", said.at)),
            (_, Some(trouble)) => fail(&subject, trouble.message.clone(), "it is tried again by itself"),
            (_, None) => warn(&subject, format!("the line to {} is being opened", said.at), "ask again"),
        });
        return;
    }
    match &system.driver {
        DriverConfig::SaltoIs(salto) => {
            found.push(reach(&subject, Target::from_config(&salto.line), tools).await);
        }
        DriverConfig::Visionline(visionline) => {
            found.push(reach(&subject, Target::from_config(&visionline.line), tools).await);
            if let Some(web) = &visionline.web {
                let target = Target::Tcp { host: web.http.url.host.clone(), port: web.http.url.port };
                found.push(reach(&format!("{subject}, Web API"), Ok(target), tools).await);
            }
        }
        DriverConfig::KabaMessenger(messenger) => {
            let url = &messenger.http.url;
            let target = Target::Tcp { host: url.host.clone(), port: url.port };
            found.push(reach(&subject, Ok(target), tools).await);
        }
        DriverConfig::CardReader(readers) => {
            for reader in &readers.encoders {
                let name = format!("encoder {}/{}", system.name, reader.name);
                found.push(reach(&name, Target::from_config(&reader.line), tools).await);
            }
        }
        DriverConfig::Ble(_) | DriverConfig::Igloohome(_) | DriverConfig::Uhppote(_) => {}
        DriverConfig::SimLock(locks) => {
            let look = |lock: &LockConfig| {
                let (name, address) = (format!("lock {}/{}", system.name, lock.name), lock.address.clone());
                async move { reach(&name, Target::tcp(&address), tools).await }
            };
            found.extend(futures_util::future::join_all(locks.locks.iter().map(look)).await);
        }
    }
}

/// Whether there is anything at the other end of a line.
async fn reach(subject: &str, target: Result<Target, LineError>, tools: &Tools) -> Finding {
    let target = match target {
        Ok(target) => target,
        Err(error) => return fail(subject, error.to_string(), "mend its `line`"),
    };
    let looked = timeout(REACH, target.look(tools.net.as_ref())).await;
    match looked {
        Ok(Ok(())) if target.is_tcp() => ok(subject, format!("{target} takes a connection")),
        Ok(Ok(())) => ok(subject, format!("{target} is there, and nobody holds it")),
        Ok(Err(error)) => {
            let next = match error.code() {
                "port_missing" => "plug the adapter in; /dev/serial/by-id shows what is there",
                "port_held" => "stop the program that holds it",
                "port_open" => "add the user of the service to the port's group, often dialout",
                _ => "look whether the other side runs, and at address, port and firewall",
            };
            fail(subject, chain(&error), next)
        }
        Err(_) => fail(
            subject,
            format!("{target} does not answer within {} s", REACH.as_secs()),
            "look whether the other side runs, and at address, port and firewall",
        ),
    }
}

/// What the running agent has on its mind beyond its lines and its link.
fn conditions(agent: Option<&StatusReport>, found: &mut Vec<Finding>) {
    let Some(report) = agent else {
        let next = "start the agent: it compares the clock with the cloud's";
        found.push(warn("clock", "not compared with the cloud's", next));
        return;
    };
    if !report.conditions.iter().any(|condition| condition.subject == "clock") {
        found.push(match report.link.state {
            LinkState::Up => ok("clock", "within a minute of the cloud's"),
            _ => warn("clock", "not compared with the cloud's", "see `cloud`"),
        });
    }
    let lines: Vec<_> = report.systems.iter().map(|system| system.name.as_str()).collect();
    for condition in &report.conditions {
        if condition.subject == "link" || lines.contains(&condition.subject.as_str()) {
            continue;
        }
        let message = format!("{} ({}, since {})", condition.message, condition.code, condition.since);
        found.push(match condition.severity {
            Severity::Notice => ok(&condition.subject, message),
            Severity::Warning => warn(&condition.subject, message, "`latchd status` shows all conditions"),
            Severity::Error => fail(&condition.subject, message, "`latchd status` shows all conditions"),
        });
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
