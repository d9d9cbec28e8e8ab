//! The corpora of the fuzz targets in `tests/fuzz`, replayed without a fuzzer. An input that ever broke a target stays
//! in its corpus.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "fuzz/targets.rs"]
mod targets;

use std::{
    collections::BTreeSet,
    fs, panic,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn no_input_of_a_corpus_breaks_its_target() {
    for (name, target) in targets::TARGETS {
        let corpus = folder("corpus").join(name);
        let inputs = names(&corpus);
        assert!(inputs.len() >= 10, "{name} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = fs::read(corpus.join(&input)).unwrap();
            let whole = panic::catch_unwind(|| target(&bytes));
            assert!(whole.is_ok(), "{name} breaks on {input}");
        }
    }
}

/// A change or two such as a fuzzer begins with.
fn changed(mut input: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=input.len());
        let end = input.len().min(at + random.random_range(0..9));
        match random.random_range(0..4) {
            0 => input.insert(at, random.random()),
            1 => drop(input.drain(at..end)),
            2 => input.extend_from_within(at..end),
            _ => input[at..end].fill(random.random()),
        }
    }
    input
}

#[test]
fn small_changes_of_the_inputs_break_no_target() {
    let cases = std::env::var("LATCHD_CASES").map_or(200, |cases| cases.parse().unwrap());
    let mut random = StdRng::seed_from_u64(7);
    for (name, target) in targets::TARGETS {
        let corpus = folder("corpus").join(name);
        let inputs: Vec<_> =
            names(&corpus).iter().map(|input| fs::read(corpus.join(input)).unwrap()).collect();
        for _ in 0..cases {
            let input = inputs[random.random_range(0..inputs.len())].clone();
            let input = changed(input, &mut random);
            let whole = panic::catch_unwind(|| target(&input));
            assert!(whole.is_ok(), "{name} breaks on {}", input.escape_ascii());
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let known: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("corpus")), known);
    let files = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder("fuzz_targets")), files);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

/// Inputs that get all the way through, so that what lies behind the first check is tried as well.
#[test]
fn some_inputs_of_each_corpus_are_what_the_target_is_for() {
    let taken = |name: &str, is_taken: &dyn Fn(&[u8]) -> bool| {
        let corpus = folder("corpus").join(name);
        names(&corpus).iter().filter(|input| is_taken(&fs::read(corpus.join(input)).unwrap())).count()
    };
    let is = |bytes: &[u8], name: &str| std::str::from_utf8(bytes).is_ok_and(|text| text.contains(name));
    let reads = |bytes: &[u8]| {
        std::str::from_utf8(bytes).is_ok_and(|text| latchd::protocol::Said::read(text).is_ok())
    };
    assert!(taken("websocket", &reads) >= 8);
    let opens = |bytes: &[u8]| serde_json::from_slice::<latchd::protocol::Message>(bytes).is_ok();
    assert!(taken("message", &opens) >= 12);
    let says = |bytes: &[u8]| serde_json::from_slice::<latchd::protocol::signing::Statement>(bytes).is_ok();
    assert!(taken("statement", &says) >= 5);
    let asks = |bytes: &[u8]| serde_json::from_slice::<latchd::protocol::enrol::PairRequest>(bytes).is_ok();
    assert!(taken("enrolment_request", &asks) >= 1);
    let answers = |bytes: &[u8]| serde_json::from_slice::<latchd::protocol::enrol::Answer>(bytes).is_ok();
    assert!(taken("enrolment_answer", &answers) >= 1);
    assert!(taken("certificate", &|bytes| is(bytes, "BEGIN CERTIFICATE")) >= 1);
    let parses = |bytes: &[u8]| {
        latchd::cloud::tls::public_key_hash(&rustls::pki_types::CertificateDer::from(bytes)).is_ok()
    };
    assert!(taken("certificate", &parses) >= 1);
    let asks = |bytes: &[u8]| latchd::cloud::enrol::requested_key(&STANDARD.encode(bytes)).is_some();
    assert!(taken("certificate_request", &asks) >= 1);
    let opens = |bytes: &[u8]| bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"\r\n\r\n");
    assert!(taken("proxy_answer", &opens) >= 2);
    let ends = |bytes: &[u8]| bytes.starts_with(b"CCA;EA1;RC") && bytes.ends_with(b";\r\n");
    assert!(taken("visionline", &ends) >= 4);
    let is_made = |bytes: &[u8]| is(bytes, "accessKey") && is(bytes, "credentialId");
    assert!(taken("visionline_web", &is_made) >= 2);
    let succeeds = |bytes: &[u8]| is(bytes, "<bSuccess>true</bSuccess>") && is(bytes, "</s:Envelope>");
    assert!(taken("messenger", &succeeds) >= 2);
    let answers = |bytes: &[u8]| bytes.starts_with(b"\x06\x06\x02\xb3CO\xb3") && bytes.ends_with(b"\x03\x0f");
    assert!(taken("salto_is", &answers) >= 1);
    let shows = |bytes: &[u8]| is(bytes, "3 OK - stay-1 PIN 4711 20261121T150000 20261124T110000 1");
    assert!(taken("sim_lock", &shows) >= 1);
    let reads =
        |bytes: &[u8]| latchd::drivers::xml::read(bytes, latchd::drivers::xml::Limits::default()).is_ok();
    assert!(taken("xml", &reads) >= 5);
}
