//! What the README tells people to type is what the program understands.

mod commands;

use std::path::Path;

use clap::Parser;
use latchd::cli::{Cli, Command};

/// Programs that the README may use beside ours.
const OTHERS: &[&str] = &["cargo", "cp", "install", "sh", "systemctl"];

fn parse(words: impl IntoIterator<Item = impl Into<String>>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words.into_iter().map(Into::into).map(std::ffi::OsString::from))
}

#[test]
fn every_command_line_of_the_readme_is_understood() {
    let mut ours = 0;
    for command in commands::commands() {
        let words: Vec<_> = command.strip_prefix("sudo ").unwrap_or(&command).split_whitespace().collect();
        if words[0] != "latchd" {
            assert!(OTHERS.contains(&words[0]), "{command}");
            continue;
        }
        ours += 1;
        if let Err(error) = parse(words) {
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{command}: {error}");
        }
    }
    assert!(ours >= 8, "{ours}");
}

#[test]
fn the_readmes_first_command_is_the_demo_once_and_its_second_the_tests() {
    assert_eq!(commands::commands()[1], "cargo test");
    let demo = commands::demo_arguments();
    let cli = parse(std::iter::once("latchd".to_string()).chain(demo)).unwrap();
    assert!(matches!(cli.command, Command::Demo(demo) if demo.once));
}

#[test]
fn files_that_the_readme_names_are_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = include_str!("../../README.md");
    let words = readme.split(|c: char| c.is_whitespace() || "()`,'".contains(c));
    let ours = ["config/", "systemd/", "src/", ".ci/", "LICENSE-"];
    let files: Vec<_> = words.filter(|word| ours.iter().any(|place| word.starts_with(place))).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        assert!(root.join(file.trim_end_matches(['.', ';', ':'])).exists(), "{file}");
    }
}

#[test]
fn the_readme_names_the_version_of_rust_that_the_package_states() {
    let stated = env!("CARGO_PKG_RUST_VERSION");
    assert!(include_str!("../../README.md").contains(&format!("({stated} or newer)")), "{stated}");
}

#[test]
fn the_map_in_the_readme_claims_no_proof_in_the_field() {
    let table = include_str!("../../README.md").lines().filter(|line| line.starts_with("| SALTO"));
    for row in table {
        let proven = row.rsplit('|').nth(1).unwrap();
        assert!(
            proven.split(',').all(|level| ["vector", "peer", "simulator"].contains(&level.trim())),
            "{row}"
        );
    }
}
