//! Signatures by which a receiver knows that a delivery is ours and of now: those of Standard Webhooks, as Svix makes
//! them and both client libraries verify them.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use ring::hmac;

use crate::{model::Private, seams::Random};

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// A new secret: `whsec_` and 32 random bytes in base64.
pub(crate) fn new_secret(random: &Random) -> Private {
    Private::new(format!("{PREFIX}{}", STANDARD.encode(random.bytes::<32>())))
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.seconds.body`; `None` if the secret is none.
pub(super) fn signature(secret: &Private, id: &str, at: Timestamp, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.expose().strip_prefix(PREFIX)?).ok()?;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    context.update(format!("{id}.{}.", at.as_second()).as_bytes());
    context.update(body);
    Some(format!("v1,{}", STANDARD.encode(context.sign())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked with npm `seam` and PyPI `svix` where it was recorded.
    #[test]
    fn a_delivery_is_signed_as_both_client_libraries_verify_it() {
        let secret = Private::new("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned());
        let body = "{\"event_id\":\"5b1ed5a0-7a30-4d6f-9d0e-000000000001\",\"event_type\":\"access_grant.created\",\
                    \"workspace_id\":\"5b1ed5a0-7a30-4d6f-9d0e-0000000000aa\",\
                    \"created_at\":\"2026-11-21T12:00:00.000Z\",\"occurred_at\":\"2026-11-21T12:00:00.000Z\",\
                    \"access_grant_id\":\"5b1ed5a0-7a30-4d6f-9d0e-0000000000bb\"}";
        assert_eq!(body.len(), 279);
        let at = Timestamp::from_second(1_795_262_400).unwrap();
        let made = signature(&secret, "msg_2xAmpLe0001", at, body.as_bytes());
        assert_eq!(made.unwrap(), "v1,LQdivjtd233f+KZ1bsivS7smKi62uNEF15YHP56ARII=");
    }

    #[test]
    fn a_new_secret_signs_and_what_is_none_does_not() {
        let secret = new_secret(&Random::seeded(1));
        assert!(secret.expose().starts_with("whsec_"));
        assert!(signature(&secret, "msg_1", Timestamp::UNIX_EPOCH, b"{}").is_some());
        for none in ["", "whsec_***", "MDEyMzQ1"] {
            assert_eq!(
                signature(&Private::new(none.to_owned()), "msg_1", Timestamp::UNIX_EPOCH, b"{}"),
                None
            );
        }
    }
}
