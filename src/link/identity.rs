//! Who the agent is to its cloud.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{model::BridgeId, protocol::SigningKey};

/// What pairing left: who we are. The two keys are made together and live as long as the
/// certificate: one opens the connection, the other signs what is said on it, so that whoever ends TLS for us still
/// cannot speak for us.
pub struct Identity {
    /// The name that the cloud gave us.
    pub bridge_id: BridgeId,
    /// Signs what we say.
    pub key: SigningKey,
    /// Our certificate, issued by the cloud, with what leads to its authority.
    pub certificate: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    pub tls_key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("bridge_id", &self.bridge_id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
