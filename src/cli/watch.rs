//! `latchd jobs watch`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{AgentAddress, other_answer, print};
use crate::{
    agent::admin::{self, Moment, Response, Watched},
    model::{DoorName, JobId, JobState, Kind},
};

/// What `latchd jobs watch` is told.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only this job, until it is over.
    #[arg(value_name = "JOB_ID")]
    job_id: Option<JobId>,
    #[command(flatten)]
    agent: AgentAddress,
    /// As JSON, one object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &WatchArgs) -> anyhow::Result<ExitCode> {
    let mut agent = admin::watch(&args.agent.socket()?, args.job_id).await?;
    loop {
        let steps = match agent.next().await? {
            Some(Response::Watching { jobs }) => jobs,
            Some(Response::Watched(step)) => vec![*step],
            Some(Response::Missed { steps }) => {
                print(&missed(steps, args.json))?;
                continue;
            }
            Some(_) => return other_answer(),
            None => anyhow::bail!("the agent has stopped"),
        };
        for step in steps {
            let line = match args.json {
                true => serde_json::to_string(&step)? + "\n",
                false => told(&step),
            };
            print(&line)?;
            if let Some(code) = args.job_id.and_then(|_| exit_code(&step.moment)) {
                return Ok(ExitCode::from(code));
            }
        }
    }
}

/// The exit code of a job that is over.
fn exit_code(moment: &Moment) -> Option<u8> {
    let (Moment::Ended { state, .. } | Moment::Resolved { state, .. }) = moment else { return None };
    Some(match state {
        JobState::Succeeded => 0,
        JobState::Unknown => 3,
        _ => 1,
    })
}

fn missed(steps: u64, json: bool) -> String {
    match json {
        true => json!({ "missed": steps }).to_string() + "\n",
        false => format!("({steps} steps were missed: this terminal was too slow; see `latchd jobs list`)\n"),
    }
}

fn told(step: &Watched) -> String {
    format!("{}  {}  {}\n", step.at.strftime("%H:%M:%SZ"), step.job_id, words(step))
}

fn words(step: &Watched) -> String {
    let what = what(step);
    match &step.moment {
        Moment::Queued => format!("waits: {what}"),
        Moment::WaitingForConfirmation => {
            format!("waits for `latchd jobs confirm` or `decline`: {what}")
        }
        Moment::Sent => format!("sent: {what}"),
        Moment::WaitingForCard { within_seconds } => {
            let encoder = step.encoder.as_ref().map(|encoder| format!(" on encoder {encoder}"));
            format!("lay a card{} within {within_seconds} s", encoder.unwrap_or_default())
        }
        Moment::Ended { state, code, message } => {
            let why = match (code, message) {
                (Some(code), Some(message)) => format!(": {message} ({code})"),
                (Some(code), None) => format!(": {code}"),
                (None, _) => String::new(),
            };
            match state {
                JobState::Succeeded => format!("done: {what}"),
                JobState::Unknown => format!("IN DOUBT{why}; look, then say so with `latchd jobs resolve`"),
                JobState::Cancelled => "cancelled: nothing was written".into(),
                JobState::Superseded => "superseded: a newer job took its place".into(),
                state => format!("{state}{why}"),
            }
        }
        Moment::Resolved { state, by } => format!("settled by {by}: it is {state}"),
        Moment::Other => "a step that this version does not know".into(),
    }
}

/// A job in a few words, without a name of anybody.
fn what(step: &Watched) -> String {
    let mut words = step.kind.map_or("unreadable", Kind::as_str).to_owned();
    if let Some(encoder) = &step.encoder {
        words += &format!(" on encoder {encoder}");
    }
    if let Some(device) = &step.device {
        words += &format!(" at {device}");
    }
    if let Some(system) = &step.system {
        words += &format!(" of {system}");
    }
    if !step.doors.is_empty() {
        let doors: Vec<_> = step.doors.iter().map(DoorName::as_str).collect();
        words += &format!(" for {}", doors.join(", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Code, EncoderName, SystemName};

    fn step(moment: Moment) -> Watched {
        Watched {
            at: "2026-11-22T12:00:03Z".parse().unwrap(),
            job_id: JobId(uuid::Uuid::nil()),
            kind: Some(Kind::CardEncode),
            system: Some(SystemName::new("salto").unwrap()),
            encoder: Some(EncoderName::new("2").unwrap()),
            device: None,
            doors: vec![DoorName::new("101").unwrap(), DoorName::new("pool").unwrap()],
            moment,
        }
    }

    #[test]
    fn every_step_is_told_in_plain_words() {
        for (moment, words) in [
            (Moment::Queued, "waits: card.encode on encoder 2 of salto for 101, pool"),
            (
                Moment::WaitingForConfirmation,
                "waits for `latchd jobs confirm` or `decline`: card.encode on encoder 2 of salto for 101, pool",
            ),
            (Moment::WaitingForCard { within_seconds: 55 }, "lay a card on encoder 2 within 55 s"),
            (
                Moment::Ended {
                    state: JobState::Failed,
                    code: Some(Code::NoCard),
                    message: Some("nobody laid a card down".into()),
                },
                "failed: nobody laid a card down (no_card)",
            ),
            (
                Moment::Ended { state: JobState::Succeeded, code: None, message: None },
                "done: card.encode on encoder 2 of salto for 101, pool",
            ),
            (
                Moment::Resolved { state: JobState::Succeeded, by: "Kari".into() },
                "settled by Kari: it is succeeded",
            ),
        ] {
            assert_eq!(
                told(&step(moment)),
                format!("12:00:03Z  00000000-0000-0000-0000-000000000000  {words}\n")
            );
        }
    }

    #[test]
    fn a_step_in_json_is_one_flat_object() {
        let line = serde_json::to_value(step(Moment::WaitingForCard { within_seconds: 55 })).unwrap();
        assert_eq!((&line["step"], &line["within_seconds"]), (&json!("waiting_for_card"), &json!(55)));
        assert_eq!(
            serde_json::from_value::<Watched>(line).unwrap().moment,
            step(Moment::WaitingForCard { within_seconds: 55 }).moment
        );
        let newer = json!({ "at": "2026-11-22T12:00:03Z", "job_id": uuid::Uuid::nil(), "step": "dancing", "shoes": 2 });
        assert_eq!(serde_json::from_value::<Watched>(newer).unwrap().moment, Moment::Other);
    }

    #[test]
    fn only_the_end_of_a_job_has_an_exit_code() {
        let ended = |state| exit_code(&Moment::Ended { state, code: None, message: None });
        assert_eq!(ended(JobState::Succeeded), Some(0));
        assert_eq!(ended(JobState::Unknown), Some(3));
        assert_eq!(ended(JobState::Expired), Some(1));
        assert_eq!(exit_code(&Moment::Sent), None);
    }
}
