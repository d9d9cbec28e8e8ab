//! Every test that the threat model names is there.

use std::{fs, path::Path};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What a text names: files, and the tests of the file before them.
fn named(text: &str) -> Vec<(String, String)> {
    let mut file = None;
    let mut tests = Vec::new();
    for word in text.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = Some(word.to_owned());
        } else if let Some(file) = &file
            && word.contains('_')
        {
            tests.push((file.clone(), word.to_owned()));
        }
    }
    tests
}

/// Whether a source holds a function of this name that is run as a test.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with('#'));
        is_it(line)
            && above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

fn model() -> String {
    let text = read("src/threats.rs");
    text.lines().filter_map(|line| line.strip_prefix("//!")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let named = named(&model());
    assert!(named.len() > 40, "{named:?}");
    for (file, test) in named {
        assert!(is_test(&read(&file), &test), "{file} has no test {test}");
    }
}

#[test]
fn every_claim_names_its_test() {
    let model = model();
    let mut claims = 0;
    let mut of_claims = false;
    for line in model.lines().map(str::trim) {
        let columns: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            of_claims = false;
        } else if columns.last() == Some(&"shown by") {
            of_claims = true;
        } else if of_claims && !line.starts_with("| ---") {
            claims += 1;
            assert!(!named(columns[1]).is_empty(), "no test shows: {line}");
        }
    }
    assert!(claims > 40, "{claims}");
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let source = "#[test]\nfn real() {}\n#[tokio::test(start_paused = true)]\nasync fn waits() {}\nfn helper() {}\n\
        #[test]\n#[cfg(x)]\nfn both() {}";
    for (name, wanted) in [("real", true), ("waits", true), ("both", true), ("helper", false), ("rea", false)]
    {
        assert_eq!(is_test(source, name), wanted, "{name}");
    }
    assert_eq!(
        named("`a.rs`: `b_c`, `d_e`"),
        [("a.rs", "b_c"), ("a.rs", "d_e")].map(|(a, b)| (a.into(), b.into()))
    );
}
