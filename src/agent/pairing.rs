//! What pairing left at the site: whose bridge this is, whom it trusts, and its keys.
//!
//! One file of mode 0600 beside the queue, replaced as a whole. The two private keys in it are sealed with the store's
//! key, so that a copy of the disk alone speaks for nobody.
//!
//! While a cloud is asked to certify new keys, they are kept in a draft beside it, sealed alike: whenever the answer or
//! this process is lost on the way, the very same request can be sent again.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    config::AgentConfig,
    link::{Identity, LinkError, Route, Settings, Trust},
    model::BridgeId,
    protocol::{
        PublicKey, SigningKey,
        enrol::{Admission, Keys, LedgerCopy},
    },
    queue::{Imported, Queue},
    seal::{SealKey, hand_over, replace_private},
    seams::{Clock, Net, Random},
    store::WriterHandle,
};

/// The file's name in the storage folder.
pub const FILE: &str = "pairing.json";
/// The version of its form.
const VERSION: u16 = 1;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// The version of its form.
    latchd: u16,
    /// Where the cloud is, as it was paired.
    pub url: String,
    /// The name that the cloud gave us.
    pub bridge_id: BridgeId,
    /// The workspace's name, for people.
    pub workspace: String,
    /// Speak for the cloud.
    pub cloud_keys: Vec<PublicKey>,
    /// The certificate authority of a private cloud, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Our certificate, PEM.
    pub certificate: String,
    /// When it was issued, by the cloud's clock.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The two private keys, sealed, base64.
    secrets: String,
    /// A [`LedgerCopy`] that the queue has not taken over yet, sealed, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger: Option<String>,
}

/// The private halves that were made here. They leave neither the process nor, unsealed, its memory.
pub struct Secrets {
    /// Of the certificate: PKCS #8, DER.
    pub tls: Zeroizing<Vec<u8>>,
    /// Of what signs: 32 bytes.
    pub signing: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Makes both keys.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(random: &Random) -> anyhow::Result<Self> {
        let tls = rcgen::KeyPair::generate().context("make a key")?;
        let (_, signing) = SigningKey::generate(random);
        Ok(Self { tls: Zeroizing::new(tls.serialize_der()), signing })
    }

    /// What signs.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.signing)
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.signing.as_slice(), self.tls.as_slice()].concat())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (signing, tls) = bytes.split_first_chunk::<32>()?;
        Some(Self { tls: Zeroizing::new(tls.to_vec()), signing: Zeroizing::new(*signing) })
    }
}

/// What a cloud said when it took a bridge in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Where the cloud is.
    pub url: String,
    /// The name that it gave us.
    pub bridge_id: BridgeId,
    /// The workspace's name.
    pub workspace: String,
    /// Speak for it.
    pub cloud_keys: Vec<PublicKey>,
    /// Its certificate authority, PEM, where it is a private one.
    pub authority: Option<String>,
    /// Our certificate, PEM.
    pub certificate: String,
    /// When it was issued, by the cloud's clock.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Taken {
    /// What a believed answer says.
    #[must_use]
    pub fn new(url: String, admission: Admission) -> Self {
        let Admission {
            bridge_id, workspace, cloud_keys, authority, certificate, issued_at, expires_at, ..
        } = admission;
        Self { url, bridge_id, workspace, cloud_keys, authority, certificate, issued_at, expires_at }
    }
}

impl Pairing {
    /// What is to be kept of being taken in with these keys.
    #[must_use]
    pub fn new(taken: Taken, secrets: &Secrets, seal: &SealKey) -> Self {
        let Taken { url, bridge_id, workspace, cloud_keys, authority, certificate, issued_at, expires_at } =
            taken;
        let sealed = seal.seal(&place(bridge_id), &secrets.to_bytes());
        let secrets = STANDARD.encode(sealed);
        Self {
            latchd: VERSION,
            url,
            bridge_id,
            workspace,
            cloud_keys,
            authority,
            certificate,
            issued_at,
            expires_at,
            secrets,
            ledger: None,
        }
    }

    /// With what the cloud knows of the doors, for the queue to take over.
    #[must_use]
    pub fn with_ledger(mut self, copy: &LedgerCopy, seal: &SealKey) -> Self {
        let text = serde_json::to_vec(copy).expect("a ledger has string keys only");
        self.ledger = Some(STANDARD.encode(seal.seal(&ledger_place(self.bridge_id), &text)));
        self
    }

    /// What the queue has not taken over yet.
    ///
    /// # Errors
    /// When it does not open.
    pub fn ledger(&self, seal: &SealKey) -> anyhow::Result<Option<LedgerCopy>> {
        let Some(sealed) = &self.ledger else { return Ok(None) };
        let sealed = STANDARD.decode(sealed).context("the pairing's ledger is not base64")?;
        let text = seal.open(&ledger_place(self.bridge_id), &sealed)?;
        Ok(Some(serde_json::from_slice(&text).context("the pairing's ledger")?))
    }

    /// The queue has taken the ledger over.
    #[must_use]
    pub fn without_ledger(&self) -> Self {
        Self { ledger: None, ..self.clone() }
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(config: &AgentConfig) -> PathBuf {
        config.storage.folder.join(FILE)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When there is none, others may read it, or it is not of this form.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let mode = match fs::metadata(path) {
            Ok(metadata) => metadata.permissions().mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "this site is not paired with a cloud ({} is not there): run `latchd pair URL --code CODE`; \
                 `latchd cloud bridges pair` on the cloud's machine gives both",
                path.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        if mode & 0o077 != 0 {
            bail!("{} may be read by others (mode {mode:o}): run `chmod 600` on it", path.display());
        }
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let pairing: Self = serde_json::from_str(&text).with_context(|| {
            format!("{} is not a pairing: pair the site again with `latchd pair --replace`", path.display())
        })?;
        if pairing.latchd != VERSION {
            bail!(
                "{} is of form {}, this program reads form {VERSION}: update it",
                path.display(),
                pairing.latchd
            );
        }
        Ok(pairing)
    }

    /// Writes the file in the place of what is there; a power cut leaves the one or the other.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        let _lock = lock(path)?;
        self.write(path)
    }

    /// [`Pairing::store`], if what is there is still what this follows. Says whether it was: another process may have
    /// paired the site anew meanwhile.
    ///
    /// # Errors
    /// Those of the file system, and of [`Pairing::load`].
    pub fn store_after(&self, before: &Self, path: &Path) -> anyhow::Result<bool> {
        let _lock = lock(path)?;
        let is_ours = Self::load(path)?.certificate == before.certificate;
        if is_ours {
            self.write(path)?;
        }
        Ok(is_ours)
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).expect("a pairing has string keys only");
        text.push('\n');
        write_private(path, text.as_bytes())
    }

    /// The private keys.
    ///
    /// # Errors
    /// When they do not open.
    pub fn secrets(&self, seal: &SealKey) -> anyhow::Result<Secrets> {
        let sealed = STANDARD.decode(&self.secrets).context("the pairing's keys are not base64")?;
        let bytes = Zeroizing::new(seal.open(&place(self.bridge_id), &sealed)?);
        Secrets::from_bytes(&bytes).context("the pairing's keys are cut off")
    }

    /// Who we are on the link.
    ///
    /// # Errors
    /// When the keys do not open, or the certificate cannot be read.
    pub fn identity(&self, seal: &SealKey) -> anyhow::Result<Identity> {
        let secrets = self.secrets(seal)?;
        let certificate = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the pairing's certificate")?;
        Ok(Identity {
            bridge_id: self.bridge_id,
            key: secrets.signing_key(),
            certificate,
            tls_key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(secrets.tls.to_vec())),
        })
    }

    /// Whom the link trusts: the configuration's authority, or the pairing's, or else the system's own.
    ///
    /// # Errors
    /// When there is nobody to trust.
    pub fn trust(&self, config: &AgentConfig) -> Result<Trust, LinkError> {
        let trust = match (&config.cloud.ca_file, &self.authority) {
            (None, Some(pem)) => Trust::of_pairing(pem)?,
            (ca_file, _) => Trust::open(ca_file.as_deref())?,
        };
        Ok(trust.pinned(config.cloud.route.pins.clone()))
    }

    /// What the link starts with.
    ///
    /// # Errors
    /// When something of the pairing or the configuration cannot be used.
    pub fn settings(&self, config: &AgentConfig, seal: &SealKey) -> anyhow::Result<Settings> {
        let identity = Arc::new(self.identity(seal)?);
        let url = config.cloud.url.as_ref().unwrap_or(&self.url);
        let route = Route::from_config(url, &config.cloud, |name| std::env::var(name).ok())?;
        Ok(Settings::new(url, identity, self.cloud_keys.clone(), self.trust(config)?)?.by(route))
    }
}

/// Keys that a cloud is asked to certify.
#[derive(Debug)]
pub struct Draft {
    /// Their public halves, exactly as they are sent.
    pub keys: Keys,
    /// Their private halves.
    pub secrets: Secrets,
}

/// A draft's file.
#[derive(Serialize, Deserialize)]
struct DraftFile {
    latchd: u16,
    /// A digest of what was asked for: a pairing code must not be read here.
    purpose: String,
    csr: String,
    secrets: String,
}

impl Draft {
    /// The file's name while a site is paired,
    pub const PAIRING: &str = "pairing.draft.json";
    /// and while its certificate is renewed.
    pub const RENEWAL: &str = "renewal.draft.json";

    /// Makes new keys.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn make(random: &Random) -> anyhow::Result<Self> {
        let secrets = Secrets::generate(random)?;
        let key = PrivatePkcs8KeyDer::from(secrets.tls.to_vec());
        let key = rcgen::KeyPair::try_from(&key).context("read the key that was made")?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(&key).context("make a request for a certificate")?;
        let signing_key = secrets.signing_key().public();
        Ok(Self { keys: Keys { csr: STANDARD.encode(csr.der()), signing_key }, secrets })
    }

    /// The keys that the same was asked for before, if they were kept and still open.
    #[must_use]
    pub fn again(path: &Path, purpose: &str, seal: &SealKey) -> Option<Self> {
        let file: DraftFile = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let index = index(purpose, seal);
        if file.latchd != VERSION || file.purpose != index {
            return None;
        }
        let bytes = seal.open(&draft_place(&index), &STANDARD.decode(file.secrets).ok()?).ok()?;
        let secrets = Secrets::from_bytes(&Zeroizing::new(bytes))?;
        let keys = Keys { csr: file.csr, signing_key: secrets.signing_key().public() };
        Some(Self { keys, secrets })
    }

    /// Keeps them, so that the same can be asked for again.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(&self, path: &Path, purpose: &str, seal: &SealKey) -> anyhow::Result<()> {
        let purpose = index(purpose, seal);
        let sealed = seal.seal(&draft_place(&purpose), &self.secrets.to_bytes());
        let file = DraftFile {
            latchd: VERSION,
            purpose,
            csr: self.keys.csr.clone(),
            secrets: STANDARD.encode(sealed),
        };
        let text = serde_json::to_vec(&file).expect("a draft has string keys only");
        write_private(path, &text)
    }

    /// The request was answered.
    pub fn remove(path: &Path) {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %path.display(), "a draft that has served could not be removed");
        }
    }
}

/// One process at a time looks at a pairing and then replaces it. The lock is on the folder, so that it leaves no file
/// behind that another user could not open.
fn lock(path: &Path) -> anyhow::Result<fs::File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let locked = fs::File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    locked.with_context(|| format!("lock {}", folder.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    replace_private(path, bytes)
        .and_then(|()| hand_over(path))
        .with_context(|| format!("write {}", path.display()))
}

/// Lets the queue take over what a pairing brought of the doors, and notes that it has. Says what came of it, if there was
/// anything.
pub(super) async fn take_ledger(
    queue: &WriterHandle<Queue>,
    pairing: &mut Pairing,
    path: &Path,
    seal: &SealKey,
    now: Timestamp,
) -> anyhow::Result<Option<Imported>> {
    let Some(copy) = pairing.ledger(seal)? else { return Ok(None) };
    let imported = queue.run(move |queue: &mut Queue| queue.import_ledger(now, &copy)).await?;
    tracing::info!(?imported, "took over what the cloud knew of the doors");
    let (before, path) = (pairing.clone(), path.to_owned());
    *pairing = pairing.without_ledger();
    let after = pairing.clone();
    // Whatever goes wrong here, the same is taken over again at the next start, and changes nothing.
    let stored = tokio::task::spawn_blocking(move || after.store_after(&before, &path)).await?;
    if let Err(error) = stored {
        tracing::warn!(error = format!("{error:#}"), "the ledger that was taken over stays in the pairing");
    }
    Ok(Some(imported))
}

/// How this process is paired, and what it takes to be paired anew.
#[derive(Clone)]
pub(super) struct Own {
    /// As the file says.
    pub(super) pairing: Pairing,
    /// Opens its keys.
    pub(super) seal: SealKey,
    /// Judges certificates.
    pub(super) clock: Clock,
    /// For keys.
    pub(super) random: Random,
    /// The network towards the cloud.
    pub(super) net: Arc<dyn Net>,
    /// Whether a renewal was cut off.
    pub(super) is_renewing: bool,
    /// What the queue took over from the bridge that this one replaces, at this start.
    pub(super) imported: Option<Imported>,
}

fn index(purpose: &str, seal: &SealKey) -> String {
    STANDARD.encode(seal.blind_index("draft.purpose", purpose))
}

fn draft_place(index: &str) -> String {
    format!("draft.secrets/{index}")
}

fn ledger_place(bridge: BridgeId) -> String {
    format!("pairing.ledger/{bridge}")
}

fn place(bridge: BridgeId) -> String {
    format!("pairing.secrets/{bridge}")
}
