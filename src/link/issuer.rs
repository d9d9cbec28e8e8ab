//! Who issued a certificate, as a person reads it: for a message, never for a decision.

use rustls::pki_types::CertificateDer;

use super::wire::shown;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const VERSION: u8 = 0xa0;
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANISATION: &[u8] = &[0x55, 4, 10];

/// The issuer's common name, else its organisation; harmless to print. The bytes are a stranger's.
pub(super) fn issuer(certificate: &CertificateDer<'_>) -> String {
    let name = name(certificate, COMMON_NAME).or_else(|| name(certificate, ORGANISATION));
    match name {
        Some(name) if !name.trim().is_empty() => format!("\"{}\"", shown(name.trim())),
        _ => "an authority without a name".into(),
    }
}

fn name(certificate: &[u8], wanted: &[u8]) -> Option<String> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    if let (VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // Serial number and signature algorithm.
    let (_, _, rest) = element(rest)?;
    let (_, _, rest) = element(rest)?;
    let (SEQUENCE, mut names, _) = element(rest)? else { return None };
    while let Some((SET, mut set, after)) = element(names) {
        names = after;
        while let Some((SEQUENCE, pair, after)) = element(set) {
            set = after;
            let Some((OBJECT, kind, value)) = element(pair) else { continue };
            if kind == wanted {
                let (_, text, _) = element(value)?;
                return Some(String::from_utf8_lossy(text).into_owned());
            }
        }
    }
    None
}

/// The first DER element: its tag, its content, and what stands behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn issued_by(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["cloud.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_issuer_is_named_and_its_name_harms_no_terminal() {
        let name = |names: &[_]| issuer(&issued_by(names));
        assert_eq!(
            name(&[(DnType::OrganizationName, "Fjord IT"), (DnType::CommonName, "Web Filter CA")]),
            "\"Web Filter CA\""
        );
        assert_eq!(name(&[(DnType::OrganizationName, "Fjord IT")]), "\"Fjord IT\"");
        assert_eq!(name(&[]), "an authority without a name");
        assert_eq!(name(&[(DnType::CommonName, "\u{1b}[2J")]), "\"\\u{1b}[2J\"");
        assert!(name(&[(DnType::CommonName, &"x".repeat(5000))]).len() < 300);
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_stranger_panic(bytes: Vec<u8>, at in 0_usize..300, value: u8) {
            issuer(&CertificateDer::from(bytes));
            let mut altered = issued_by(&[(DnType::CommonName, "Web Filter CA")]).to_vec();
            let at = at % altered.len();
            altered[at] = value;
            issuer(&CertificateDer::from(altered));
        }
    }
}
