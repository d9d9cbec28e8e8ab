//! Whom to take for the cloud: who vouches for its certificate, and which keys are pinned.
//!
//! Nothing here makes a doubtful certificate good: it is refused first, and what is found out after that is told to a
//! person.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::{ParsedCertificate, VerifierBuilderError},
};

use super::{
    Identity, LinkError,
    issuer::issuer,
    settings::{private_roots, read_roots, system_roots},
};
use crate::config::{Pins, SpkiPin};

/// Whom to take for the cloud.
#[derive(Debug)]
pub struct Trust {
    roots: RootCertStore,
    is_private: bool,
    pins: Option<Pins>,
    /// Whom this machine trusts beside, where it is already known.
    public: Option<RootCertStore>,
}

impl Trust {
    /// The certificate authority of a private cloud, or else the system's own roots.
    ///
    /// # Errors
    /// When there is nobody to trust.
    pub fn open(ca_file: Option<&Path>) -> Result<Self, LinkError> {
        match ca_file {
            Some(path) => Ok(Self::private(private_roots(path)?)),
            None => Ok(Self::public(system_roots()?)),
        }
    }

    /// The authorities of a PEM text that pairing brought.
    ///
    /// # Errors
    /// When it names nobody.
    pub fn of_pairing(pem: &str) -> Result<Self, LinkError> {
        read_roots(Path::new("the pairing"), pem.as_bytes()).map(Self::private)
    }

    /// Authorities that vouch for this cloud and nobody else.
    #[must_use]
    pub fn private(roots: RootCertStore) -> Self {
        Self { roots, is_private: true, pins: None, public: None }
    }

    /// Authorities that vouch for everybody.
    #[must_use]
    pub fn public(roots: RootCertStore) -> Self {
        Self { roots, is_private: false, pins: None, public: None }
    }

    /// The chain must also hold one of these keys.
    #[must_use]
    pub fn pinned(mut self, pins: Option<Pins>) -> Self {
        self.pins = pins;
        self
    }

    /// What this machine trusts beside a private authority, in place of the system's roots. A certificate that those
    /// vouch for was made by somebody in between.
    #[must_use]
    pub fn beside(mut self, public: RootCertStore) -> Self {
        self.public = Some(public);
        self
    }

    /// TLS that keeps to it, and shows a certificate where there is one.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults, or the certificate's key.
    pub fn client_config(self, identity: Option<&Identity>) -> Result<ClientConfig, LinkError> {
        let provider = Arc::new(default_provider());
        let verifier = Verifier::new(self, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(LinkError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.certificate.clone(), identity.tls_key.clone_key())
                .map_err(LinkError::Tls),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

/// Why a certificate is not taken although nothing is wrong with its form, its name or its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) kind: DoubtKind,
    /// Who issued it, for a person.
    pub(super) issuer: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DoubtKind {
    /// Nobody who is trusted here vouches for it.
    Untrusted,
    /// This machine trusts who vouches for it, but the cloud is somebody else.
    Inspected,
    /// The cloud's own authority vouches for it, but its key is none of those pinned.
    NotPinned,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.kind {
            DoubtKind::Untrusted => "nobody who is trusted here vouches for it",
            DoubtKind::Inspected => "it was made by somebody in between",
            DoubtKind::NotPinned => "its key is none of those pinned",
        };
        write!(f, "certificate issued by {}: {why}", self.issuer)
    }
}

impl std::error::Error for Doubt {}

impl Doubt {
    fn refused(kind: DoubtKind, certificate: &CertificateDer<'_>) -> rustls::Error {
        let doubt = Self { kind, issuer: issuer(certificate) };
        CertificateError::Other(OtherError(Arc::new(doubt))).into()
    }

    /// The doubt behind an error of TLS.
    pub(super) fn behind(error: &CertificateError) -> Option<&Self> {
        match error {
            CertificateError::Other(OtherError(cause)) => cause.downcast_ref(),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    is_private: bool,
    pins: Option<Pins>,
    /// Read at the first doubt: most sites never need it.
    public: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(trust: Trust, provider: &Arc<CryptoProvider>) -> Result<Self, LinkError> {
        let Trust { roots, is_private, pins, public } = trust;
        let roots = Arc::new(roots);
        let refused = |error: VerifierBuilderError| LinkError::Tls(rustls::Error::General(error.to_string()));
        let inner = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(refused)?;
        let known = OnceLock::new();
        if let Some(public) = public {
            let _ = known.set(verifier(public, provider));
        }
        Ok(Self { inner, roots, is_private, pins, public: known, provider: provider.clone() })
    }

    /// Whether this machine trusts who vouches for a certificate that the cloud's own authority does not.
    fn is_publicly_vouched_for(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let public = self.public.get_or_init(|| verifier(system_roots().ok()?, &self.provider));
        public.as_ref().is_some_and(|public| {
            public.verify_server_cert(certificate, intermediates, name, &[], now).is_ok()
        })
    }

    /// Whether a chain that has been verified runs over a pinned key. A certificate that was merely sent along proves
    /// nothing: the chain is verified anew with nobody to trust but the pinned keys.
    fn is_pinned(
        &self,
        pins: &Pins,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
            return false;
        };
        if pins.has(pin(&parsed.subject_public_key_info())) {
            return true;
        }
        let mut pinned = RootCertStore::empty();
        for intermediate in intermediates {
            let has_pin = ParsedCertificate::try_from(intermediate)
                .is_ok_and(|parsed| pins.has(pin(&parsed.subject_public_key_info())));
            if has_pin {
                // What is no authority vouches for nobody.
                let _ = pinned.add(intermediate.clone());
            }
        }
        let has_pin = |root: &&TrustAnchor<'_>| pins.has(pin(&in_sequence(&root.subject_public_key_info)));
        pinned.roots.extend(self.roots.roots.iter().filter(has_pin).cloned());
        let algorithms = self.provider.signature_verification_algorithms.all;
        !pinned.is_empty()
            && verify_server_cert_signed_by_trust_anchor(&parsed, &pinned, intermediates, now, algorithms)
                .is_ok()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Ok(verified) => match &self.pins {
                Some(pins) if !self.is_pinned(pins, certificate, intermediates, now) => {
                    let kind = if self.is_private { DoubtKind::NotPinned } else { DoubtKind::Inspected };
                    Err(Doubt::refused(kind, certificate))
                }
                _ => Ok(verified),
            },
            // A private authority that was made anew keeps its name: then the signature is what does not fit.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => {
                let kind = match self.is_private
                    && self.is_publicly_vouched_for(certificate, intermediates, name, now)
                {
                    true => DoubtKind::Inspected,
                    false => DoubtKind::Untrusted,
                };
                Err(Doubt::refused(kind, certificate))
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
}

fn pin(subject_public_key_info: &[u8]) -> SpkiPin {
    let digest = digest(&SHA256, subject_public_key_info);
    SpkiPin(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// A trust anchor keeps its key without the outer tag and length that a pin covers.
fn in_sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut bytes = vec![0x30];
    match content.len() {
        short @ 0..0x80 => bytes.push(u8::try_from(short).unwrap_or(0)),
        _ => {
            bytes.push(0x80 | u8::try_from(digits.len()).unwrap_or(0));
            bytes.extend_from_slice(digits);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};

    use super::*;

    const NAME: &str = "cloud.example";

    /// An authority, or one below another.
    struct Authority {
        der: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
        pin: SpkiPin,
    }

    impl Authority {
        fn new(name: &str, above: Option<&Self>) -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let pin = super::pin(&key.subject_public_key_info());
            let der = match above {
                None => params.self_signed(&key).unwrap(),
                Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
            };
            Self { der: der.der().clone(), issuer: Issuer::new(params, key), pin }
        }

        fn leaf(&self) -> (CertificateDer<'static>, SpkiPin) {
            let params = CertificateParams::new([NAME.to_owned()]).unwrap();
            let key = KeyPair::generate().unwrap();
            let pin = super::pin(&key.subject_public_key_info());
            (params.signed_by(&key, &self.issuer).unwrap().der().clone(), pin)
        }

        fn roots(&self) -> RootCertStore {
            let mut roots = RootCertStore::empty();
            roots.add(self.der.clone()).unwrap();
            roots
        }
    }

    fn other_pin() -> SpkiPin {
        SpkiPin([7; 32])
    }

    fn pins(pin: SpkiPin) -> Option<Pins> {
        Some(Pins::new(vec![other_pin(), pin]).unwrap())
    }

    /// What a trust makes of a chain.
    fn judge(trust: Trust, chain: &[CertificateDer<'static>]) -> Result<(), Doubt> {
        let verifier = Verifier::new(trust, &Arc::new(default_provider())).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_795_000_000));
        let name = ServerName::try_from(NAME).unwrap();
        match verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(error)) => Err(Doubt::behind(&error).unwrap().clone()),
            Err(error) => panic!("{error}"),
        }
    }

    fn kind(result: Result<(), Doubt>) -> DoubtKind {
        result.unwrap_err().kind
    }

    #[test]
    fn a_pin_may_be_the_clouds_own_key_one_above_it_or_the_root_that_is_not_sent() {
        let root = Authority::new("Root", None);
        let middle = Authority::new("Middle", Some(&root));
        let (leaf, leaf_pin) = middle.leaf();
        let chain = [leaf, middle.der.clone()];
        for pin in [leaf_pin, middle.pin, root.pin] {
            for trust in [Trust::private(root.roots()), Trust::public(root.roots())] {
                assert_eq!(judge(trust.pinned(pins(pin)), &chain), Ok(()));
            }
        }
        let none = pins(SpkiPin([8; 32]));
        assert_eq!(
            kind(judge(Trust::private(root.roots()).pinned(none.clone()), &chain)),
            DoubtKind::NotPinned
        );
        assert_eq!(kind(judge(Trust::public(root.roots()).pinned(none), &chain)), DoubtKind::Inspected);
    }

    #[test]
    fn a_pinned_certificate_that_was_merely_sent_along_proves_nothing() {
        let cloud = Authority::new("Cloud CA", None);
        let filter = Authority::new("Web Filter CA", None);
        let (genuine, genuine_pin) = cloud.leaf();
        let (made, _) = filter.leaf();
        let mut both = filter.roots();
        both.add(cloud.der.clone()).unwrap();
        for (sent, pin) in [(genuine, genuine_pin), (cloud.der.clone(), cloud.pin)] {
            let trust = Trust::public(both.clone()).pinned(pins(pin));
            let doubt = judge(trust, &[made.clone(), sent, filter.der.clone()]).unwrap_err();
            assert_eq!(doubt.kind, DoubtKind::Inspected);
            assert_eq!(doubt.issuer, "\"Web Filter CA\"");
        }
    }

    #[test]
    fn a_certificate_that_this_machine_trusts_and_the_cloud_did_not_issue_means_inspection() {
        let cloud = Authority::new("Cloud CA", None);
        let filter = Authority::new("Web Filter CA", None);
        let (made, _) = filter.leaf();
        let trust = || Trust::private(cloud.roots());
        let doubt = judge(trust().beside(filter.roots()), std::slice::from_ref(&made)).unwrap_err();
        assert_eq!(doubt, Doubt { kind: DoubtKind::Inspected, issuer: "\"Web Filter CA\"".into() });
        let stranger = Authority::new("Stranger", None);
        assert_eq!(
            kind(judge(trust().beside(stranger.roots()), std::slice::from_ref(&made))),
            DoubtKind::Untrusted
        );
        // A public authority does not make it good, pinned or not.
        assert_eq!(
            kind(judge(trust().beside(filter.roots()).pinned(pins(filter.pin)), &[made])),
            DoubtKind::Inspected
        );
        let (genuine, _) = cloud.leaf();
        assert_eq!(judge(trust().beside(filter.roots()), &[genuine]), Ok(()));
    }

    #[test]
    fn a_pin_covers_the_key_with_its_tag_and_length() {
        for length in [0_usize, 1, 0x7f, 0x80, 0xff, 0x100, 0x1_0000] {
            let framed = in_sequence(&vec![5; length]);
            let head: &[u8] = match length {
                0..0x80 => &[0x30, u8::try_from(length).unwrap()],
                0x80..0x100 => &[0x30, 0x81, u8::try_from(length).unwrap()],
                0x100 => &[0x30, 0x82, 1, 0],
                _ => &[0x30, 0x83, 1, 0, 0],
            };
            assert!(framed.starts_with(head) && framed.len() == head.len() + length, "{length}");
        }
    }
}
