//! Every licence in the tree that the binary is linked or built from is one that this product may be shipped with.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Allowed for one crate only. MPL-2.0 asks for the sources of its own files, changed or not: they are in the registry,
/// and we change none.
const ALLOWED_FOR: &[(&str, &str)] = &[("serialport", "MPL-2.0")];

/// C that crates bring along, which their own `license` field does not speak of: SQLite is in the public domain, and
/// libdbus may be taken under AFL-2.1.
const BUNDLED: &[(&str, &str)] = &[("libsqlite3-sys", "blessing"), ("libdbus-sys", "AFL-2.1")];

#[test]
fn every_linked_crate_has_a_licence_that_is_allowed() {
    let packages = linked();
    assert!(packages.len() > 100, "{packages:?}");
    for (name, licence) in &packages {
        let of_this_crate = |licence: &str| ALLOWED_FOR.contains(&(name.as_str(), licence));
        let accepted = holds(licence, &|one| ALLOWED.contains(&one) || of_this_crate(one));
        assert_eq!(accepted, Ok(true), "{name}: {licence}");
    }
    for (name, licence) in ALLOWED_FOR.iter().chain(BUNDLED) {
        assert!(packages.contains_key(*name), "{name} is gone: so should be its exception for {licence}");
    }
}

#[test]
fn both_licences_of_this_product_are_here_in_full() {
    let read = |name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (mit, apache) = (read("LICENSE-MIT"), read("LICENSE-APACHE"));
    assert!(mit.contains("the latchd authors") && mit.contains("WITHOUT WARRANTY OF ANY KIND"));
    assert!(apache.contains("Version 2.0, January 2004") && apache.contains("END OF TERMS AND CONDITIONS"));
    assert!(read("Cargo.toml").contains("license = \"MIT OR Apache-2.0\""));
}

#[test]
fn licence_expressions_are_read_with_their_precedence() {
    let check = |expression: &str, wanted| {
        let allowed = |one: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&one);
        assert_eq!(holds(expression, &allowed), wanted, "{expression}");
    };
    check("MIT", Ok(true));
    check("GPL-3.0-only", Ok(false));
    check("MIT OR GPL-3.0-only", Ok(true));
    check("MIT AND GPL-3.0-only", Ok(false));
    check("GPL-3.0-only AND X OR MIT", Ok(true));
    check("GPL-3.0-only AND (X OR MIT)", Ok(false));
    check("(MIT OR X) AND ISC", Ok(true));
    check("X/MIT", Ok(true));
    check("Apache-2.0 WITH LLVM-exception", Ok(true));
    check("MIT WITH LLVM-exception", Ok(false));
    for broken in ["", "MIT OR", "(MIT", "MIT ISC", "AND MIT", "MIT)"] {
        assert!(holds(broken, &|_| true).is_err(), "{broken:?}");
    }
}

/// The crates that the binary is linked or built from on this machine's platform, with their licences.
fn linked() -> BTreeMap<String, String> {
    let metadata = metadata();
    let kinds_count = |dependency: &Value| {
        let kinds = dependency["dep_kinds"].as_array().unwrap();
        kinds.iter().any(|kind| kind["kind"] != "dev")
    };
    let nodes: BTreeMap<_, _> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![metadata["resolve"]["root"].as_str().unwrap()];
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let dependencies = nodes[id]["deps"].as_array().unwrap().iter();
            open.extend(dependencies.filter(|one| kinds_count(one)).map(|one| one["pkg"].as_str().unwrap()));
        }
    }
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| seen.contains(package["id"].as_str().unwrap()))
        .map(|package| {
            let text = |field: &str| package[field].as_str().unwrap_or_default().to_string();
            (text("name"), text("license"))
        })
        .collect()
}

fn metadata() -> Value {
    let compiler = Command::new("rustc").arg("-vV").output().unwrap();
    let compiler = String::from_utf8(compiler.stdout).unwrap();
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = |network: &[&str]| {
        Command::new(env!("CARGO"))
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", host])
            .args(network)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap()
    };
    // What was just built is at hand; crates that only other tests need may not be.
    let mut output = cargo(&["--offline"]);
    if !output.status.success() {
        output = cargo(&[]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether an SPDX expression holds when `allowed` says which licences do. `AND` binds closer than `OR`; the old `/`
/// is an `OR`.
fn holds(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, allowed };
    let value = reader.any()?;
    match reader.words {
        [] => Ok(value),
        rest => Err(format!("{rest:?} left in {expression:?}")),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.words.first() == Some(&word);
        if is_next {
            self.words = &self.words[1..];
        }
        is_next
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut value = self.all()?;
        while self.takes("OR") {
            value |= self.all()?;
        }
        Ok(value)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut value = self.one()?;
        while self.takes("AND") {
            value &= self.one()?;
        }
        Ok(value)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.takes("(") {
            let value = self.any()?;
            return if self.takes(")") { Ok(value) } else { Err("a bracket is open".into()) };
        }
        match self.words {
            [word, "WITH", exception, rest @ ..] => {
                self.words = rest;
                Ok((self.allowed)(&format!("{word} WITH {exception}")))
            }
            [word, rest @ ..] if !["AND", "OR", "WITH", ")"].contains(word) => {
                self.words = rest;
                Ok((self.allowed)(word))
            }
            other => Err(format!("a licence is missing before {other:?}")),
        }
    }
}
