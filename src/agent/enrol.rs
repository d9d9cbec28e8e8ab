//! A site is taken in by a cloud: who is there, what a person compares, what is asked, what is kept.
//!
//! Nothing is told to the cloud before [`Enrolment::ask`], and nothing is kept here before that either. What answers is
//! believed by the one key that a person compared.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::pairing::{Draft, Pairing, Taken};
use crate::{
    config::AgentConfig,
    link::{
        self, Route,
        enrol::{Asked, EnrolError, Gate, Met},
    },
    model::{BridgeId, Private},
    protocol::enrol::{Answer, PairRequest, Waiting},
    seal::{SealKey, hand_over},
    seams::{Clock, Net, Random},
    store::make_folder,
};

/// How long a cloud that does not hold a request open is left alone.
const PAUSE: Duration = Duration::from_secs(2);
/// No pairing code is longer.
const LONGEST_CODE: usize = 64;

/// What an enrolment needs of the world.
#[derive(Clone)]
pub struct Tools {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The host's clock.
    pub clock: Clock,
    /// For keys.
    pub random: Random,
}

impl std::fmt::Debug for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tools")
    }
}

/// What a person wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where the cloud is: `https://HOST:PORT`.
    pub url: String,
    /// What the cloud gave for this site.
    pub code: Private,
    /// The certificate authority of whoever vouches for the cloud, where the system does not know it.
    pub ca_file: Option<PathBuf>,
    /// Whether a pairing that is there may be replaced.
    pub replace: bool,
}

/// A cloud that was met, and keys for it.
#[derive(Debug)]
pub struct Enrolment {
    config: AgentConfig,
    tools: Tools,
    code: Private,
    gate: Gate,
    met: Met,
    /// What vouches for the cloud's certificate where the cloud has no authority of its own, PEM.
    authority: Option<String>,
    draft: Draft,
}

/// A site that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// The name that the cloud gave us.
    pub bridge_id: BridgeId,
    /// The workspace's name.
    pub workspace: String,
    /// When the first certificate ends; it is renewed before.
    pub expires_at: Timestamp,
    /// Where it is kept.
    pub file: PathBuf,
    /// How many rooms' states came along from the bridge that this one replaces.
    pub rooms: usize,
    /// The address in the configuration that is dialled in place of the one that was paired with.
    pub overridden: Option<String>,
}

impl Enrolment {
    /// Asks a cloud who it is, and makes keys, or takes up those of an attempt with the same code that was cut off.
    ///
    /// # Errors
    /// When the site is paired already, the address or the code is not one, or the cloud cannot be met.
    pub async fn begin(config: AgentConfig, wanted: Wanted, tools: Tools) -> anyhow::Result<Self> {
        let Wanted { url, code, ca_file, replace } = wanted;
        let code = Private::new(code.expose().trim());
        let is_code = (1..=LONGEST_CODE).contains(&code.expose().len())
            && code.expose().bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(is_code, "this is no pairing code: it is a short word like ABCD-EFGH that the cloud gave");
        refuse_paired(&Pairing::path(&config), replace)?;
        let gate = Gate::at(&url, Arc::clone(&tools.net), tools.clock.clone())?;
        let route = Route::from_config(&gate.url(), &config.cloud, |name| std::env::var(name).ok())?;
        let gate = gate.by(route);
        // Before anything is asked: a key that cannot be used would be noticed too late.
        let seal = match key_file(&config) {
            path if path.exists() => Some(SealKey::from_file(&path, tools.random.clone())?),
            path => {
                ensure!(
                    config.storage.key_file.is_none(),
                    "there is no seal key at {}: name its file with --key-file where the service alone sees that one \
                     (often /etc/latchd/seal.key)",
                    path.display()
                );
                None
            }
        };
        let ca_file = ca_file.as_deref().or(config.cloud.ca_file.as_deref());
        let ca = ca_file.map(link::roots).transpose()?;
        let authority = ca_file.map(std::fs::read_to_string).transpose().context("read the authority")?;
        let met = gate.meet(ca).await?;
        let kept =
            seal.as_ref().and_then(|seal| Draft::again(&draft_path(&config), &purpose(&gate, &code), seal));
        let draft = kept.map_or_else(|| Draft::make(&tools.random), Ok)?;
        Ok(Self { config, tools, code, gate, met, authority, draft })
    }

    /// Where the cloud is: `wss://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.gate.url()
    }

    /// What the cloud shows to whoever runs it.
    #[must_use]
    pub fn cloud_fingerprint(&self) -> String {
        self.met.card.fingerprint()
    }

    /// What the cloud will show of us.
    #[must_use]
    pub fn own_fingerprint(&self) -> String {
        self.draft.keys.fingerprint()
    }

    /// Whether a person wrote the cloud's fingerprint; case, dashes and spaces do not matter, nor do letters that are
    /// mistaken for digits.
    #[must_use]
    pub fn is_cloud(&self, fingerprint: &str) -> bool {
        let plain = |text: &str| -> String {
            let letters = text.chars().filter(|letter| !matches!(letter, '-' | ' '));
            let digit = |letter: char| match letter.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                letter => letter,
            };
            letters.map(digit).collect()
        };
        plain(fingerprint) == plain(&self.cloud_fingerprint())
    }

    /// Asks to be taken in, and keeps what comes of it. `waits` hears that a person at the cloud has to say yes.
    ///
    /// # Errors
    /// When the cloud says no or nothing, or what it says is not to be believed. What was there before is as it was;
    /// unless the cloud said no, the same keys are asked for when the same is tried again.
    pub async fn ask(self, waits: impl FnMut(&Waiting)) -> anyhow::Result<Paired> {
        let Self { config, tools, code, gate, met, authority, draft } = self;
        let (file, draft_file) = (Pairing::path(&config), draft_path(&config));
        let seal = seal_key(&config, &tools.random)?;
        draft.keep(&draft_file, &purpose(&gate, &code), &seal)?;
        let request = PairRequest {
            code: code.expose().to_owned(),
            proof: draft.keys.proof(&draft.secrets.signing_key()),
            keys: draft.keys.clone(),
            agent: concat!("latchd/", env!("CARGO_PKG_VERSION")).into(),
        };
        let answer = match answered(&gate, &met, &request, waits).await {
            Ok(answer) => answer,
            Err(error) if error.is_final() => {
                Draft::remove(&draft_file);
                return Err(error.into());
            }
            Err(error) => return Err(error).context("nothing came of it; the same command asks again"),
        };
        // Of the keys on the card, the fingerprint that was compared covers the first alone.
        let compared = &met.card.cloud_keys[..1];
        let mut admission = answer.open(compared, &draft.keys)?;
        ensure!(admission.issued_at < admission.expires_at, "the cloud's certificate ends before it begins");
        let ledger = admission.ledger.take();
        admission.authority = admission.authority.or(authority);
        let mut pairing = Pairing::new(Taken::new(gate.url(), admission), &draft.secrets, &seal);
        pairing.settings(&config, &seal).context("the cloud's answer cannot be used")?;
        if let Some(copy) = &ledger {
            pairing = pairing.with_ledger(copy, &seal);
        }
        pairing.store(&file)?;
        Draft::remove(&draft_file);
        let overridden = config.cloud.url.filter(|url| *url != pairing.url);
        Ok(Paired {
            bridge_id: pairing.bridge_id,
            workspace: pairing.workspace,
            expires_at: pairing.expires_at,
            file,
            rooms: ledger.map_or(0, |copy| copy.rooms.len()),
            overridden,
        })
    }
}

/// The answer to a request, however long a person takes.
async fn answered(
    gate: &Gate,
    met: &Met,
    request: &PairRequest,
    mut waits: impl FnMut(&Waiting),
) -> Result<Answer, EnrolError> {
    let mut until = None;
    loop {
        let pause = match gate.pair(&met.roots, request).await {
            Ok(Asked::Answered(answer)) => return Ok(answer),
            Ok(Asked::Waiting(waiting)) => {
                waits(&waiting);
                until = Some(Instant::now() + Duration::from_secs(waiting.expires_in));
                PAUSE
            }
            // Somebody is being waited for: a connection that fails meanwhile is no reason to begin again.
            Err(error) => {
                let pause = error.after().unwrap_or(PAUSE).max(PAUSE);
                if error.is_final() || until.is_none_or(|until| until < Instant::now() + pause) {
                    return Err(error);
                }
                pause
            }
        };
        sleep(pause).await;
    }
}

fn refuse_paired(path: &Path, replace: bool) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
        Ok(_) if replace => return Ok(()),
        Ok(_) => {}
    }
    match Pairing::load(path) {
        Ok(pairing) => bail!(
            "this site is paired already: it is bridge {} of {}, at {}; with --replace it is paired anew",
            pairing.bridge_id,
            pairing.workspace,
            pairing.url
        ),
        Err(error) => Err(error).context("this site is paired already; with --replace it is paired anew"),
    }
}

fn key_file(config: &AgentConfig) -> PathBuf {
    config.storage.key_file.clone().unwrap_or_else(|| config.storage.folder.join("seal.key"))
}

/// The site's own key; made where there is none yet.
///
/// # Errors
/// When it can neither be read nor made.
pub(crate) fn seal_key(config: &AgentConfig, random: &Random) -> anyhow::Result<SealKey> {
    let folder = &config.storage.folder;
    make_folder(folder, 0o700).with_context(|| format!("make the folder {}", folder.display()))?;
    let path = key_file(config);
    if config.storage.key_file.is_some() {
        return Ok(SealKey::from_file(&path, random.clone())?);
    }
    let is_new = !path.exists();
    let seal = SealKey::from_file_or_new(&path, random.clone())?;
    if is_new {
        hand_over(&path).with_context(|| format!("hand {} over to the service", path.display()))?;
    }
    Ok(seal)
}

fn draft_path(config: &AgentConfig) -> PathBuf {
    config.storage.folder.join(Draft::PAIRING)
}

fn purpose(gate: &Gate, code: &Private) -> String {
    format!("pair {} {}", gate.url(), code.expose())
}
