//! The vectors were computed by another implementation of Ed25519 and SHA-256; the keys are those of RFC 8032, 7.1.

use proptest::prelude::*;

use super::*;
use crate::protocol::{EpochReason, Hello, Limit, Memory, Position, StreamName, Welcome};

const BRIDGE_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const CLOUD_SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
const BODY: &str = r#"{"bridge_id":"0192f0c1-2f4e-7a31-9c55-3d1f6a7b8c01","session":"AAECAwQFBgcICQoLDA0ODw==","seq":1,"expires_at":"2026-11-22T12:10:00Z","frame":{"type":"limit","stream":"orders","up_to":64}}"#;
const CLOUD_SAYS: &str =
    "4HSBj/RC7kFToBvyh04d/AWVl0uhUKhhzIlHK52xmo7s/v0Xh70Okf67h6pOKpPfXVqIcwFpyxL9gkx4jFY7AA==";
const BRIDGE_SAYS: &str =
    "rvRRBbnYRer2dS61GpJWeCmbEzoyLxsRM0g8UbfHKqAosm1InJWITkkwDPhfuTTxrtdehHJGedPIv+IIGXIhAw==";

fn bytes<const N: usize>(hexadecimal: &str) -> [u8; N] {
    let byte = |at: usize| u8::from_str_radix(&hexadecimal[2 * at..2 * at + 2], 16).unwrap();
    assert_eq!(hexadecimal.len(), 2 * N);
    std::array::from_fn(byte)
}

fn key(party: Party) -> SigningKey {
    SigningKey::from_seed(&bytes(match party {
        Party::Bridge => BRIDGE_SEED,
        Party::Cloud => CLOUD_SEED,
    }))
}

fn bridge() -> BridgeId {
    "0192f0c1-2f4e-7a31-9c55-3d1f6a7b8c01".parse().unwrap()
}

fn session() -> Session {
    Session(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn noon() -> Timestamp {
    at("2026-11-22T12:00:00Z")
}

fn later() -> Option<Timestamp> {
    Some(at("2026-11-22T12:10:00Z"))
}

fn limit() -> Frame {
    Frame::Limit(Limit { stream: StreamName::Orders, up_to: 64 })
}

fn speaker(party: Party) -> Speaker {
    Speaker::new(party, key(party), bridge(), session())
}

fn listener(party: Party) -> Listener {
    Listener::new(party, [key(party).public()], bridge(), session())
}

/// A packet of the cloud's around any text.
fn signed(body: &str) -> Packet {
    let key = key(Party::Cloud);
    let signature = STANDARD.encode(key.sign(Party::Cloud.domain(), body.as_bytes()));
    Packet { key_id: key.public().id(), signature, body: body.into() }
}

fn hear(packet: &Packet) -> Result<Frame, Distrust> {
    listener(Party::Cloud).hear(packet, noon())
}

#[test]
fn keys_and_signatures_are_those_of_rfc_8032() {
    for (seed, public, message, signature) in [
        (
            BRIDGE_SEED,
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            &b""[..],
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            CLOUD_SEED,
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            b"\x72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            b"\xaf\x82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let key = SigningKey::from_seed(&bytes(seed));
        assert_eq!(key.public().as_bytes(), &bytes::<32>(public));
        assert_eq!(key.sign(b"", message), bytes::<64>(signature));
        assert!(key.public().verifies(b"", message, &bytes::<64>(signature)));
    }
}

#[test]
fn a_key_is_named_by_the_digest_of_its_public_half() {
    assert_eq!(key(Party::Bridge).public().id().as_str(), "21fe31dfa154a261");
    assert_eq!(key(Party::Cloud).public().id().to_string(), "39f713d0a644253f");
    assert_eq!(format!("{:?}", key(Party::Cloud)), "SigningKey(39f713d0a644253f)");
    assert_eq!(format!("{:?}", key(Party::Cloud).public()), "PublicKey(39f713d0a644253f)");
}

#[test]
fn what_is_said_is_signed_with_a_word_for_its_direction() {
    let packet = speaker(Party::Cloud).say(limit(), later());
    assert_eq!((packet.body.as_str(), packet.signature.as_str()), (BODY, CLOUD_SAYS));
    assert_eq!(packet.key_id.as_str(), "39f713d0a644253f");
    let packet = speaker(Party::Bridge).say(limit(), later());
    assert_eq!((packet.body.as_str(), packet.signature.as_str()), (BODY, BRIDGE_SAYS));
    assert_eq!(packet.key_id.as_str(), "21fe31dfa154a261");
}

#[test]
fn what_was_signed_elsewhere_is_heard() {
    for (party, signature) in [(Party::Cloud, CLOUD_SAYS), (Party::Bridge, BRIDGE_SAYS)] {
        let packet =
            Packet { key_id: key(party).public().id(), signature: signature.into(), body: BODY.into() };
        assert_eq!(listener(party).hear(&packet, noon()), Ok(limit()));
    }
}

#[test]
fn a_session_is_the_first_half_of_the_digest_of_its_hello() {
    assert_eq!(Session::of_hello(BODY).to_string(), "EGc3hfg8oaI9l/B3VCSDPg==");
    assert_eq!(Session::read("EGc3hfg8oaI9l/B3VCSDPg=="), Some(Session::of_hello(BODY)));
    assert_eq!(session().to_string(), "AAECAwQFBgcICQoLDA0ODw==");
    for broken in ["", "AAEC", "AAECAwQFBgcICQoLDA0ODxA=", "AAECAwQFBgcICQoLDA0ODw", "not base64 at all!"] {
        assert_eq!(Session::read(broken), None, "{broken:?}");
    }
}

#[test]
fn a_public_key_is_32_bytes_in_base64() {
    let wire = r#""PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=""#;
    assert_eq!(serde_json::from_str::<PublicKey>(wire).unwrap(), key(Party::Cloud).public());
    assert_eq!(serde_json::to_string(&key(Party::Cloud).public()).unwrap(), wire);
    for broken in [r#""""#, r#""AAEC""#, r#""PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw""#, "7", "null"] {
        assert!(serde_json::from_str::<PublicKey>(broken).is_err(), "{broken}");
    }
}

#[test]
fn a_key_that_does_not_speak_for_the_other_side_is_named() {
    let stranger = SigningKey::from_seed(&[66; 32]);
    let packet = Speaker::new(Party::Cloud, stranger.clone(), bridge(), session()).say(limit(), later());
    let distrust = hear(&packet).unwrap_err();
    assert_eq!(distrust, Distrust::KeyUnknown(stranger.public().id()));
    assert_eq!(distrust.code(), RefusedCode::KeyUnknown);
    // Nor does anybody, where no key is known.
    let mut deaf = Listener::new(Party::Cloud, [], bridge(), session());
    let packet = speaker(Party::Cloud).say(limit(), later());
    assert_eq!(deaf.hear(&packet, noon()), Err(Distrust::KeyUnknown(key(Party::Cloud).public().id())));
}

#[test]
fn any_of_the_keys_that_speak_for_the_other_side_is_believed() {
    let newer = SigningKey::from_seed(&[9; 32]);
    let both = [newer.public(), key(Party::Cloud).public()];
    for key in [newer, key(Party::Cloud)] {
        let packet = Speaker::new(Party::Cloud, key, bridge(), session()).say(limit(), later());
        let mut listener = Listener::new(Party::Cloud, both, bridge(), session());
        assert_eq!(listener.hear(&packet, noon()), Ok(limit()));
    }
}

#[test]
fn a_signature_for_the_other_direction_is_not_believed() {
    // The same key on both sides, so that nothing but the word for the direction differs.
    for (says, hears) in [(Party::Cloud, Party::Bridge), (Party::Bridge, Party::Cloud)] {
        let packet = Speaker::new(says, key(says), bridge(), session()).say(limit(), later());
        let mut listener = Listener::new(hears, [key(says).public()], bridge(), session());
        assert_eq!(listener.hear(&packet, noon()), Err(Distrust::Altered));
    }
    assert_eq!(Distrust::Altered.code(), RefusedCode::SignatureInvalid);
}

#[test]
fn a_signature_under_the_name_of_another_known_key_is_not_believed() {
    let other = SigningKey::from_seed(&[9; 32]);
    let keys = [key(Party::Cloud).public(), other.public()];
    let mut packet = speaker(Party::Cloud).say(limit(), later());
    packet.key_id = other.public().id();
    let mut listener = Listener::new(Party::Cloud, keys, bridge(), session());
    assert_eq!(listener.hear(&packet, noon()), Err(Distrust::Altered));
}

#[test]
fn a_signed_body_that_is_no_statement_is_malformed() {
    for body in
        ["", "{}", "null", &BODY[1..], &BODY.replace("limit", "open_sesame"), &BODY.replace(":1,", ":-1,")]
    {
        let distrust = hear(&signed(body)).unwrap_err();
        assert!(matches!(distrust, Distrust::Malformed(_)), "{body}: {distrust:?}");
        assert_eq!(distrust.code(), RefusedCode::FrameMalformed);
    }
}

#[test]
fn a_message_for_another_bridge_is_misdirected() {
    let other: BridgeId = "0192f0c1-2f4e-7a31-9c55-3d1f6a7b8c02".parse().unwrap();
    let packet = Speaker::new(Party::Cloud, key(Party::Cloud), other, session()).say(limit(), later());
    let distrust = hear(&packet).unwrap_err();
    assert_eq!(distrust, Distrust::Misdirected(other));
    assert_eq!(distrust.code(), RefusedCode::MessageReplayed);
}

#[test]
fn a_message_of_another_conversation_is_named() {
    let other = Session::of_hello(BODY);
    let packet = Speaker::new(Party::Cloud, key(Party::Cloud), bridge(), other).say(limit(), later());
    let distrust = hear(&packet).unwrap_err();
    assert_eq!(distrust, Distrust::OtherSession);
    assert_eq!(distrust.code(), RefusedCode::MessageReplayed);
}

#[test]
fn a_message_that_comes_again_or_leaves_a_gap_is_named_with_its_number() {
    let mut speaker = speaker(Party::Cloud);
    let [first, second, third] = std::array::from_fn(|_| speaker.say(limit(), later()));
    let mut listener = listener(Party::Cloud);
    let gap = listener.hear(&second, noon()).unwrap_err();
    assert_eq!(gap, Distrust::Gap { expected: 1, found: 2 });
    assert_eq!(gap.code(), RefusedCode::MessageMissing);
    assert_eq!(listener.hear(&first, noon()), Ok(limit()));
    let repeated = listener.hear(&first, noon()).unwrap_err();
    assert_eq!(repeated, Distrust::Repeated { expected: 2, found: 1 });
    assert_eq!(repeated.code(), RefusedCode::MessageReplayed);
    assert_eq!(listener.hear(&third, noon()), Err(Distrust::Gap { expected: 2, found: 3 }));
    let zeroth = hear(&signed(&BODY.replace(r#""seq":1"#, r#""seq":0"#)));
    assert_eq!(zeroth, Err(Distrust::Repeated { expected: 1, found: 0 }));
}

#[test]
fn a_message_counts_up_to_and_with_the_instant_that_it_names() {
    let packet = speaker(Party::Cloud).say(limit(), later());
    let last = later().unwrap();
    assert_eq!(listener(Party::Cloud).hear(&packet, last), Ok(limit()));
    let after = last + jiff::SignedDuration::from_nanos(1);
    let distrust = listener(Party::Cloud).hear(&packet, after).unwrap_err();
    assert_eq!(distrust, Distrust::Expired { expires_at: last, now: after });
    assert_eq!(distrust.code(), RefusedCode::MessageExpired);
}

#[test]
fn only_hello_and_welcome_need_not_say_until_when_they_count() {
    let memory = Memory {
        orders_received: Position { epoch: 1, n: 2 },
        reports_sent: Position { epoch: 1, n: 3 },
        reports_acknowledged: Position { epoch: 1, n: 3 },
        orders_limit: 64,
    };
    let hello = Frame::Hello(Hello {
        versions: vec![1],
        agent: "latchd 1.0".into(),
        memory,
        nonce: session(),
        cloud_keys: vec![key(Party::Cloud).public().id()],
    });
    let welcome = Frame::Welcome(Welcome {
        version: 1,
        bridge_id: bridge(),
        workspace: "Seaview".into(),
        time: noon(),
        orders_resume_after: Position { epoch: 2, n: 0 },
        reports_received: Position { epoch: 1, n: 3 },
        reports_limit: 64,
        orders_epoch_reason: Some(EpochReason::ReceiverBehind),
        cloud_keys: vec![key(Party::Cloud).public()],
    });
    for (party, frame) in [(Party::Bridge, hello), (Party::Cloud, welcome)] {
        let endless = speaker(party).say(frame.clone(), None);
        assert_eq!(listener(party).hear(&endless, Timestamp::MAX), Ok(frame.clone()));
        // If they do say it, they are held to it.
        let expired = speaker(party).say(frame, Some(noon() - jiff::SignedDuration::from_secs(1)));
        assert!(matches!(listener(party).hear(&expired, noon()), Err(Distrust::Expired { .. })));
    }
    let endless = speaker(Party::Cloud).say(limit(), None);
    let distrust = hear(&endless).unwrap_err();
    assert_eq!(distrust, Distrust::Endless);
    assert_eq!(distrust.code(), RefusedCode::FrameMalformed);
}

#[test]
fn what_is_not_believed_moves_nothing() {
    let mut speaker = speaker(Party::Cloud);
    let [first, second] = std::array::from_fn(|_| speaker.say(limit(), later()));
    let mut listener = listener(Party::Cloud);
    let altered = Packet { body: first.body.replace("64", "65"), ..first.clone() };
    assert_eq!(listener.hear(&altered, noon()), Err(Distrust::Altered));
    assert!(listener.hear(&first, Timestamp::MAX).is_err());
    assert_eq!(listener.hear(&first, noon()), Ok(limit()));
    assert_eq!(listener.hear(&second, noon()), Ok(limit()));
}

#[test]
fn an_unsigned_frame_is_told_so() {
    assert_eq!(Distrust::Unsigned("limit").code(), RefusedCode::SignatureMissing);
}

/// A text in which the character at `at` became another one.
fn altered(text: &str, at: usize, to: char) -> Option<String> {
    let mut letters: Vec<_> = text.chars().collect();
    let letter = letters.get_mut(at)?;
    let before = std::mem::replace(letter, to);
    (before != to).then(|| letters.into_iter().collect())
}

proptest! {
    #[test]
    fn a_packet_with_any_character_altered_is_not_believed(
        field in 0_usize..3, at in 0_usize..256, to in any::<char>(), drop in any::<bool>(),
    ) {
        let packet = speaker(Party::Cloud).say(limit(), later());
        let Packet { key_id, signature, body } = &packet;
        let text: &str = [key_id.as_str(), signature, body][field];
        let at = at % text.chars().count();
        let changed = match drop {
            true => Some(text.chars().enumerate().filter(|(n, _)| *n != at).map(|(_, letter)| letter).collect()),
            false => altered(text, at, to),
        };
        prop_assume!(changed.is_some());
        let mut packet = packet.clone();
        match field {
            0 => packet.key_id = KeyId(changed.unwrap()),
            1 => packet.signature = changed.unwrap(),
            _ => packet.body = changed.unwrap(),
        }
        let distrust = hear(&packet).unwrap_err();
        match field {
            0 => prop_assert_eq!(distrust, Distrust::KeyUnknown(packet.key_id)),
            _ => prop_assert_eq!(distrust, Distrust::Altered),
        }
    }

    #[test]
    fn of_messages_in_any_order_only_the_next_one_is_believed(order in proptest::collection::vec(0_u64..12, 1..40)) {
        let mut speaker = speaker(Party::Bridge);
        let packets: Vec<_> = (0..12).map(|up_to| {
            speaker.say(Frame::Limit(Limit { stream: StreamName::Reports, up_to }), later())
        }).collect();
        let mut listener = listener(Party::Bridge);
        let mut due = 1;
        for which in order {
            let found = which + 1;
            let heard = listener.hear(&packets[usize::try_from(which).unwrap()], noon());
            match found.cmp(&due) {
                std::cmp::Ordering::Equal => {
                    let frame = Frame::Limit(Limit { stream: StreamName::Reports, up_to: which });
                    prop_assert_eq!(heard, Ok(frame));
                    due += 1;
                }
                std::cmp::Ordering::Less => {
                    prop_assert_eq!(heard, Err(Distrust::Repeated { expected: due, found }));
                }
                std::cmp::Ordering::Greater => {
                    prop_assert_eq!(heard, Err(Distrust::Gap { expected: due, found }));
                }
            }
        }
    }

    #[test]
    fn no_text_is_believed_or_panics(key_id in ".{0,40}", signature in ".{0,120}", body in ".{0,200}") {
        let packet = Packet { key_id: KeyId(key_id), signature, body: body.clone() };
        prop_assert!(hear(&packet).is_err());
        let named = Packet { key_id: key(Party::Cloud).public().id(), ..packet };
        prop_assert!(hear(&named).is_err());
        prop_assert!(matches!(hear(&signed(&body)), Err(Distrust::Malformed(_))));
        let _ = Session::read(&body);
    }

    #[test]
    fn what_one_says_the_other_hears(party in prop_oneof![Just(Party::Bridge), Just(Party::Cloud)], n in 1_u64..20) {
        let (mut speaker, mut listener) = (speaker(party), listener(party));
        for up_to in 0..n {
            let frame = Frame::Limit(Limit { stream: StreamName::Orders, up_to });
            let packet = speaker.say(frame.clone(), later());
            prop_assert_eq!(listener.hear(&packet, noon()), Ok(frame));
        }
    }
}
