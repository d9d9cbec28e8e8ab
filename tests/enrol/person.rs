//! A person at the command line while a site asks.

use std::{os::fd::OwnedFd, process::Stdio};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout, Command},
    time::{Duration, timeout},
};

use super::world::{Site, World};

/// A pseudo-terminal: the person's end, and the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let program = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    (person, program)
}

fn latchd(world: &World, args: &[&str], stdin: Stdio) -> Command {
    let config = world.folder.path().join("cloud.toml");
    let text =
        "[storage]\nfolder = \".\"\n[api]\nlisten = \"127.0.0.1:0\"\n[bridges]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
    command.arg("cloud").args(args).arg("--config").arg(config).env("USER", "night porter");
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Reads until a text has come; gives everything so far.
async fn until(said: &mut ChildStdout, heard: &mut String, text: &str) {
    let read = async {
        while !heard.contains(text) {
            let mut bytes = [0; 1024];
            let count = said.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "it ended after {heard:?}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    timeout(Duration::from_secs(60), read).await.unwrap_or_else(|_| panic!("{text:?} is not in {heard:?}"));
}

fn word_after<'a>(text: &'a str, before: &str) -> &'a str {
    text.split_once(before)
        .unwrap_or_else(|| panic!("{before:?} in {text:?}"))
        .1
        .split_whitespace()
        .next()
        .unwrap()
}

async fn ended(mut child: Child) -> Option<i32> {
    timeout(Duration::from_secs(60), child.wait()).await.expect("it ends").unwrap().code()
}

#[tokio::test]
async fn a_person_at_a_terminal_is_shown_who_asks_and_answers_there() {
    for (typed, paired) in [("yes\n", true), ("no\n", false), ("\n", false)] {
        let world = World::start().await;
        let (person, program) = terminal();
        let mut child = latchd(&world, &["bridges", "pair"], program.into()).spawn().unwrap();
        let (mut said, mut heard) = (child.stdout.take().unwrap(), String::new());
        until(&mut said, &mut heard, "Waiting for the site").await;
        let site = Site::new();
        let request = site.pair(word_after(&heard, "--code "));
        let answers = async {
            until(&mut said, &mut heard, "[yes/no]").await;
            rustix::io::write(&person, typed.as_bytes()).unwrap();
        };
        let (reply, ()) = tokio::join!(world.post("/bridge/v1/pair", &request), answers);
        assert_eq!(reply.status, if paired { 200 } else { 403 }, "{typed:?}: {reply:?}");
        assert_eq!(ended(child).await, Some(i32::from(!paired)), "{typed:?}");
        world.stop().await;
    }
}

#[tokio::test]
async fn without_a_terminal_it_is_said_how_to_answer() {
    let world = World::start().await;
    let mut child = latchd(&world, &["bridges", "pair", "--name", "Fjord"], Stdio::null()).spawn().unwrap();
    let (mut said, mut heard) = (child.stdout.take().unwrap(), String::new());
    until(&mut said, &mut heard, "Waiting for the site").await;
    let site = Site::new();
    let request = site.pair(word_after(&heard, "--code "));
    let answers = async {
        until(&mut said, &mut heard, "If not: `decline`").await;
        let pairing = word_after(&heard, "bridges accept ").to_owned();
        let fingerprint = word_after(&heard, &format!("accept {pairing} --fingerprint ")).to_owned();
        let args = ["bridges", "accept", &pairing, "--fingerprint", &fingerprint];
        assert!(latchd(&world, &args, Stdio::null()).status().await.unwrap().success());
    };
    let (reply, ()) = tokio::join!(world.post("/bridge/v1/pair", &request), answers);
    let admission = site.admission(&reply);
    until(&mut said, &mut heard, &format!("Paired: bridge {}", admission.bridge)).await;
    assert_eq!(ended(child).await, Some(0));
    world.stop().await;
}
