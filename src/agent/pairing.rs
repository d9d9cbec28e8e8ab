//! What pairing left at the site: whose bridge this is, whom it trusts, and its keys.
//!
//! One file of mode 0600 beside the queue, replaced as a whole. The two private keys in it are sealed with the store's
//! key, so that a copy of the disk alone speaks for nobody.

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
    protocol::{PublicKey, SigningKey},
    seal::{SealKey, replace_private},
    seams::Random,
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
        }
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
            format!("{} is not a pairing: pair the site again with `latchd pair`", path.display())
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
        let mut text = serde_json::to_string_pretty(self).expect("a pairing has string keys only");
        text.push('\n');
        replace_private(path, text.as_bytes()).with_context(|| format!("write {}", path.display()))
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

/// How this process is paired, and what it takes to be paired anew.
#[derive(Debug, Clone)]
pub(super) struct Own {
    /// As the file says.
    pub(super) pairing: Pairing,
    /// Opens its keys.
    pub(super) seal: SealKey,
}

fn place(bridge: BridgeId) -> String {
    format!("pairing.secrets/{bridge}")
}
