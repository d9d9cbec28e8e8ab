//! The vectors were computed by another implementation of Ed25519 and SHA-256; the keys are those of RFC 8032, 7.1.

use proptest::prelude::*;

use super::*;
use crate::model::{BridgeId, DoorName, SystemName};

const OLD: [u8; 32] = *b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
const CLOUD: [u8; 32] = *b"\x4c\xcd\x08\x9b\x28\xff\x96\xda\x9d\xb6\xc3\x46\xec\x11\x4e\x0f\x5b\x8a\x31\x9f\x35\xab\xa6\x24\xda\x8c\xf6\xed\x4f\xb8\xa6\xfb";
const NEW: [u8; 32] = *b"\xc5\xaa\x8d\xf4\x3f\x9f\x83\x7b\xed\xb7\x44\x2f\x31\xdc\xb7\xb1\x66\xd3\x85\x35\x07\x6f\x09\x4b\x85\xce\x3a\x2e\x0b\x44\x58\xf7";

const DIGEST: &str = "2866a7e06f238869b3acc071c8cce91643b1d1fdec58f076c62309db8a913e16";
const PROOF: &str =
    "ob7EqF+5ES+2mLeyRY2EKHKm1gfjUs+BLCxPNx3cGgRKnc0UsG5tsCMhYwU+T2S8sSpKxUjgHSNUBWw9Hs+kBQ==";
const RENEWAL_PROOF: &str =
    "cbIQte1d8dzfvMU4CrBxPCV4SFVJGXDGK0if5VBmz/pDK/fC3hUKWU9uFjgwnTRHFF5Sp3a7jFvA8etialz6Cw==";
const BODY: &str = r#"{"keys":"2866a7e06f238869b3acc071c8cce91643b1d1fdec58f076c62309db8a913e16","bridge_id":"0192f0c1-2f4e-7a31-9c55-3d1f6a7b8c01","workspace":"Seaview","cloud_keys":["PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="],"certificate":"PEM","issued_at":"2026-11-22T12:00:00Z","expires_at":"2027-02-20T12:00:00Z"}"#;
const ANSWER: &str =
    "PYz6HUC0poaOMagL9leYjARPMb03NWN8BTxpujv7Qc+0w/3f1tD1gRecoCUiFS2GFTRvt2BJE4ziAPaDfVXNCg==";

fn key(seed: [u8; 32]) -> SigningKey {
    SigningKey::from_seed(&seed)
}

fn keys() -> Keys {
    Keys { csr: "MIIBAAEC".into(), signing_key: key(NEW).public() }
}

fn admission() -> Admission {
    Admission {
        keys: DIGEST.into(),
        bridge_id: "0192f0c1-2f4e-7a31-9c55-3d1f6a7b8c01".parse().unwrap(),
        workspace: "Seaview".into(),
        cloud_keys: vec![key(CLOUD).public()],
        authority: None,
        certificate: "PEM".into(),
        issued_at: "2026-11-22T12:00:00Z".parse().unwrap(),
        expires_at: "2027-02-20T12:00:00Z".parse().unwrap(),
        ledger: None,
    }
}

fn card(authority: Option<&str>) -> CloudCard {
    CloudCard {
        cloud_keys: vec![key(CLOUD).public(), key(OLD).public()],
        authority: authority.map(Into::into),
        time: admission().issued_at,
    }
}

/// A signed answer around any text.
fn signed(body: &str) -> Answer {
    let signature = STANDARD.encode(key(CLOUD).sign(ADMISSION, body.as_bytes()));
    Answer { key_id: key(CLOUD).public().id(), signature, body: body.into() }
}

fn open(answer: &Answer) -> Result<Admission, NotBelieved> {
    answer.open(&[key(CLOUD).public()], &keys())
}

#[test]
fn digest_and_proofs_cover_both_keys() {
    assert_eq!(keys().digest(), DIGEST);
    assert_eq!(keys().proof(&key(NEW)), PROOF);
    assert_eq!(keys().renewal_proof(&key(OLD)), RENEWAL_PROOF);
    assert!(keys().is_proven(PROOF));
    assert!(keys().is_wanted(&key(OLD).public(), RENEWAL_PROOF));
}

#[test]
fn a_proof_is_good_for_one_purpose_one_key_and_these_keys_only() {
    assert!(!keys().is_proven(&keys().renewal_proof(&key(NEW))));
    assert!(!keys().is_wanted(&key(NEW).public(), PROOF));
    assert!(!keys().is_proven(&keys().proof(&key(OLD))));
    assert!(!keys().is_wanted(&key(NEW).public(), RENEWAL_PROOF));
    let others = [
        Keys { csr: "MIIBAAED".into(), ..keys() },
        Keys { csr: String::new(), ..keys() },
        Keys { signing_key: key(OLD).public(), ..keys() },
    ];
    for other in others {
        assert!(!other.is_proven(PROOF), "{other:?}");
        assert!(!other.is_wanted(&key(OLD).public(), RENEWAL_PROOF), "{other:?}");
        assert_ne!(other.digest(), DIGEST);
        assert_ne!(other.fingerprint(), keys().fingerprint());
    }
}

#[test]
fn fingerprints_are_sixteen_letters_that_nobody_confuses() {
    assert_eq!(keys().fingerprint(), "71AX-D13W-GR0N-6X8W");
    assert_eq!(card(Some("-----BEGIN")).fingerprint(), "GJFW-FKA1-R1X1-YJGN");
    assert_eq!(card(None).fingerprint(), "6RWQ-0QSM-W0Z0-7HRS");
}

#[test]
fn the_parts_of_a_fingerprint_do_not_run_into_each_other() {
    let one = fingerprint(b"x\0", &[b"ab", b"c"]);
    assert_ne!(one, fingerprint(b"x\0", &[b"a", b"bc"]));
    assert_ne!(one, fingerprint(b"x\0", &[b"abc"]));
    assert_ne!(one, fingerprint(b"y\0", &[b"ab", b"c"]));
}

#[test]
fn a_cloud_without_keys_has_a_fingerprint_that_is_nobodys() {
    let nobody = CloudCard { cloud_keys: Vec::new(), ..card(None) };
    assert_ne!(nobody.fingerprint(), card(None).fingerprint());
}

#[test]
fn an_answer_is_signed_and_opens_again() {
    let answer = Answer::new(&admission(), &key(CLOUD));
    assert_eq!((answer.body.as_str(), answer.signature.as_str()), (BODY, ANSWER));
    assert_eq!(answer.key_id.as_str(), "39f713d0a644253f");
    assert_eq!(open(&answer), Ok(admission()));
    // Whichever of the cloud's keys it was.
    assert_eq!(answer.open(&[key(OLD).public(), key(CLOUD).public()], &keys()), Ok(admission()));
}

#[test]
fn a_copy_of_the_ledger_travels_with_an_admission() {
    let rooms = vec![RoomState {
        system: SystemName::new("salto").unwrap(),
        room: DoorName::new("101").unwrap(),
        reservation_key: None,
        certain: true,
        since: admission().issued_at,
        cards: 0,
        printed_ends: Vec::new(),
    }];
    let moved = Admission { ledger: Some(LedgerCopy { is_current: true, rooms }), ..admission() };
    assert_eq!(open(&Answer::new(&moved, &key(CLOUD))), Ok(moved));
}

#[test]
fn an_answer_by_a_key_that_is_not_the_clouds_is_not_believed() {
    assert_eq!(open(&Answer::new(&admission(), &key(OLD))), Err(NotBelieved::KeyUnknown));
    assert_eq!(Answer::new(&admission(), &key(CLOUD)).open(&[], &keys()), Err(NotBelieved::KeyUnknown));
    // Nor is one that only bears the name of the cloud's key.
    let claimed = Answer { key_id: key(CLOUD).public().id(), ..Answer::new(&admission(), &key(OLD)) };
    assert_eq!(open(&claimed), Err(NotBelieved::Altered));
}

#[test]
fn a_signature_for_another_purpose_is_not_one_of_an_answer() {
    let signature = STANDARD.encode(key(CLOUD).sign(b"latchd v1 cloud to bridge\0", BODY.as_bytes()));
    assert_eq!(open(&Answer { signature, ..signed(BODY) }), Err(NotBelieved::Altered));
    assert_eq!(open(&Answer { signature: "?".into(), ..signed(BODY) }), Err(NotBelieved::Altered));
}

#[test]
fn a_signed_answer_of_another_form_is_named() {
    for body in ["", "{}", "null", &BODY.replace("issued_at", "issued"), &BODY.replace("0192f0c1", "bridge")]
    {
        assert_eq!(open(&signed(body)), Err(NotBelieved::Malformed), "{body}");
    }
}

#[test]
fn an_answer_to_other_keys_is_named() {
    let others = Keys { csr: "MIIBAAED".into(), ..keys() };
    let answer = Answer::new(&admission(), &key(CLOUD));
    assert_eq!(answer.open(&[key(CLOUD).public()], &others), Err(NotBelieved::OtherKeys));
}

#[test]
fn requests_carry_the_keys_beside_their_other_fields() {
    let pair =
        PairRequest { code: "ABCDEF".into(), keys: keys(), proof: PROOF.into(), agent: "latchd 1.0".into() };
    let wire = format!(
        r#"{{"code":"ABCDEF","csr":"MIIBAAEC","signing_key":"/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=","proof":"{PROOF}","agent":"latchd 1.0"}}"#
    );
    assert_eq!(serde_json::to_string(&pair).unwrap(), wire);
    assert_eq!(serde_json::from_str::<PairRequest>(&wire).unwrap(), pair);
    let bridge_id: BridgeId = admission().bridge_id;
    let renew = RenewRequest {
        bridge_id,
        keys: keys(),
        proof: PROOF.into(),
        old_key_id: key(OLD).public().id(),
        old_proof: RENEWAL_PROOF.into(),
    };
    let wire = format!(
        r#"{{"bridge_id":"{bridge_id}","csr":"MIIBAAEC","signing_key":"/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=","proof":"{PROOF}","old_key_id":"21fe31dfa154a261","old_proof":"{RENEWAL_PROOF}"}}"#
    );
    assert_eq!(serde_json::to_string(&renew).unwrap(), wire);
    assert_eq!(serde_json::from_str::<RenewRequest>(&wire).unwrap(), renew);
}

proptest! {
    #[test]
    fn an_answer_with_any_character_altered_is_not_believed(
        in_body in any::<bool>(), at in 0_usize..512, to in any::<char>(),
    ) {
        let answer = Answer::new(&admission(), &key(CLOUD));
        let mut letters: Vec<_> = if in_body { &answer.body } else { &answer.signature }.chars().collect();
        let at = at % letters.len();
        prop_assume!(letters[at] != to);
        letters[at] = to;
        let changed = letters.into_iter().collect();
        let altered = match in_body {
            true => Answer { body: changed, ..answer },
            false => Answer { signature: changed, ..answer },
        };
        prop_assert_eq!(open(&altered), Err(NotBelieved::Altered));
    }

    #[test]
    fn no_text_is_an_answer_or_a_proof(text in ".{0,200}", signature in ".{0,120}") {
        prop_assert!(!keys().is_proven(&text) && !keys().is_wanted(&key(OLD).public(), &text));
        let answer = Answer { signature, ..signed(&text) };
        prop_assert_eq!(open(&answer), Err(NotBelieved::Altered));
        prop_assert_eq!(open(&signed(&text)), Err(NotBelieved::Malformed));
    }
}
