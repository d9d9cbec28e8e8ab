//! A process that is killed with its queue open: whatever it said was stored is stored.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use latchd::{
    model::{Code, JobState, Outcome},
    protocol::Position,
    queue::{Accepted, Queue},
    seams::Storage,
    store::Writer,
};
use queue_support::*;

const FOLDER: &str = "QUEUE_TO_BE_KILLED_IN";

#[test]
fn every_acknowledged_operation_survives_a_kill_at_any_time() {
    for acknowledgements in [1, 2, 3, 7, 20, 41] {
        let folder = tempfile::tempdir().unwrap();
        let told = run_and_kill(folder.path(), acknowledgements);
        let mut queue = open(&Storage::folder(folder.path()), &rules());
        let recovered = queue.recover(at(9)).unwrap();
        for line in &told {
            let (what, number) = line.split_once(' ').unwrap();
            let number: u128 = number.parse().unwrap();
            let detail = queue.job(id(number)).unwrap().unwrap();
            match what {
                "done" => assert_eq!(detail.outcome, Some(written()), "{line}"),
                "sent" if recovered.contains(&id(number)) => {
                    let Some(Outcome::Unknown(refusal)) = detail.outcome else { panic!("{line}") };
                    assert_eq!(refusal.code, Code::AgentStopped);
                }
                // Its end was stored too, but the process died before it could say so.
                "sent" => assert_eq!(detail.view.state, JobState::Succeeded, "{line}"),
                other => panic!("{other}"),
            }
        }
        assert!(recovered.len() <= 1, "one lane, one job at work");
        let memory = queue.memory().unwrap();
        let jobs = queue.counts().unwrap().by_state.values().sum::<u64>();
        assert_eq!(memory.orders_received.n, jobs, "a position is stored with its job or not at all");
        assert_eq!(memory.reports.last.n, jobs, "an end is stored with its report or not at all");
    }
}

/// Starts the process, kills it after so many acknowledgements and says what it acknowledged.
fn run_and_kill(folder: &std::path::Path, acknowledgements: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "works_until_it_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said =
        lines.map(Result::unwrap).filter(|line| line.starts_with("sent ") || line.starts_with("done "));
    let mut told = Vec::new();
    for line in said {
        told.push(line);
        if told.len() == acknowledgements {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(told.len() >= acknowledgements);
    // The kill may have cut the last line.
    told.truncate(acknowledgements);
    told
}

/// Not a test of its own: the process that is killed.
#[test]
fn works_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (_writer, handle) = Writer::start("queue", open(&Storage::folder(folder), &rules()));
        let say = |what: &str, number: u128| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "\n{what} {number}").unwrap();
            out.flush().unwrap();
        };
        // Bounded, should nobody kill it.
        for number in 1..=1000_u64 {
            let position = Position { epoch: 1, n: number };
            let number = u128::from(number);
            let job = job(number, card(&["101"], &format!("stay {number}")));
            let admission = admission(&job.order);
            let accepted = handle
                .run(move |queue: &mut Queue| queue.accept(at(0), Some(position), job, Ok(admission), true))
                .await
                .unwrap();
            assert!(matches!(accepted, Accepted::Sent(_)), "{accepted:?}");
            say("sent", number);
            handle.run(move |queue: &mut Queue| queue.finish(at(1), id(number), written())).await.unwrap();
            say("done", number);
        }
    });
}
