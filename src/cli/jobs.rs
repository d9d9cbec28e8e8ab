//! `latchd jobs …`

use std::{
    fmt::Write,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    AgentAddress, Person, order, other_answer, print, print_json,
    table::{columns, wrapped},
    watch::{self, WatchArgs},
};
use crate::{
    agent::admin::{JobDetail, JobLine, Request, Response},
    model::{
        CardFacts, DoorName, JobId, JobState, Kind, LaneName, Origin, Outcome, Priority, Refusal, Report,
        Treatment, Verdict,
    },
    seams::Random,
};

/// No job at the socket is longer.
const LONGEST_JOB: u64 = 30 * 1024;

/// What `latchd jobs` is told.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to look at, or to do.
#[derive(Debug, Subcommand)]
pub enum What {
    /// The jobs, newest first.
    List(ListArgs),
    /// One job with its story: every state, the outcome, and what settled a doubt.
    Show(ShowArgs),
    /// Follow the jobs live: a line for every step, until ctrl-c.
    ///
    /// Begins with the jobs that are not over. "Lay a card on encoder 2" is told the moment the encoder asks for one.
    /// With a JOB_ID it ends when that job does: with 0 if it succeeded, 3 if it is in doubt, else 1.
    Watch(WatchArgs),
    /// Take a job back, if nothing of it was sent.
    ///
    /// A job that was sent is not taken back: you are told when that was.
    Cancel(ActArgs),
    /// Let a card be made that was ordered from the cloud and waits for you.
    ///
    /// Where the site asks for it (`limits.confirm_remote_cards`), such a card is made only when somebody at the site
    /// has said so, and is refused at its deadline when nobody has. What waits is listed as
    /// `waiting: site_not_confirmed`; orders of the site's own wait for nobody.
    Confirm(ActArgs),
    /// Do not let a card be made that was ordered from the cloud and waits for you.
    Decline(ActArgs),
    /// Do a job once more that failed, expired or was cancelled.
    ///
    /// A new job takes the place of the old one, and the cloud is told so: the access method follows the new one. For
    /// a job that is `unknown` see `latchd jobs resolve --retry`.
    Retry(ActArgs),
    /// Settle a doubt: say what became of a job that is `unknown`.
    ///
    /// Look first: read the card, or try it at the door. A card that a later job wrote for the same guest says nothing
    /// about this one: `latchd jobs list` shows whether there is one. What you say is final, is kept with your name, and
    /// moves the room and the access method accordingly; nothing is written to any card by it, unless you say --retry.
    Resolve(ResolveArgs),
    /// Order a job at the site, with or without the cloud.
    ///
    /// Reads it as JSON from a file, or from standard input for `-`, for example
    /// {"system": "salto", "order": {"kind": "card.read", "encoder": "1"}}. Beside these there may be `priority`
    /// ("desk", the default, or "background"), `expires_in` ("10m", the default) and `job_id`, a UUID: given again, it
    /// is the same job, and nothing is done twice. The site's limits hold for it as for any other.
    Add(AddArgs),
}

/// Which jobs.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agent: AgentAddress,
    /// Only those in this state: received, waiting, sent, succeeded, failed, unknown, cancelled, expired, superseded.
    #[arg(long, value_parser = state)]
    state: Option<JobState>,
    /// Only those of this lane.
    #[arg(long)]
    lane: Option<LaneName>,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Which job.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The job's id, as `latchd jobs list` shows it.
    #[arg(value_name = "JOB_ID")]
    job_id: JobId,
    #[command(flatten)]
    agent: AgentAddress,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What became of a job.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The job's id, as `latchd jobs list --state unknown` shows it.
    #[arg(value_name = "JOB_ID")]
    job_id: JobId,
    #[command(flatten)]
    verdict: VerdictArgs,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    agent: AgentAddress,
}

/// A job, and who acts on it.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// The job's id, as `latchd jobs list` shows it.
    #[arg(value_name = "JOB_ID")]
    job_id: JobId,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    agent: AgentAddress,
}

/// A job of the site's own.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The file with the job, or `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    agent: AgentAddress,
    /// What came of it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct VerdictArgs {
    /// It had been done: the card is written.
    #[arg(long)]
    done: bool,
    /// It had not been done: the card is as it was.
    #[arg(long)]
    not_done: bool,
    /// It had not been done, and shall be done now, by a new job that takes its place.
    #[arg(long)]
    retry: bool,
}

fn state(text: &str) -> Result<JobState, String> {
    let found = JobState::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| format!("known are {}", JobState::ALL.map(JobState::as_str).join(", ")))
}

pub(super) async fn run(args: &JobsArgs) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::List(args) => {
            let request = Request::Jobs { state: args.state, lane: args.lane.clone(), limit: args.limit };
            match args.agent.ask(&request).await? {
                Response::Jobs { jobs, .. } if args.json => print_json(&jobs)?,
                Response::Jobs { jobs, more } => print(&listed(&jobs, more))?,
                _ => return other_answer(),
            }
        }
        What::Show(args) => match args.agent.ask(&Request::Job { job_id: args.job_id }).await? {
            Response::Job(job) if args.json => print_json(&job)?,
            Response::Job(job) => print(&told(&job))?,
            _ => return other_answer(),
        },
        What::Watch(args) => return watch::run(args).await,
        What::Cancel(args) => {
            let request = Request::Cancel { job_id: args.job_id, by: args.person.name()? };
            let Response::Cancelled = args.agent.ask(&request).await? else { return other_answer() };
            print(&format!("Cancelled: nothing of job {} was sent, and nothing will be.\n", args.job_id))?;
        }
        What::Confirm(args) => {
            let request = Request::Confirm { job_id: args.job_id, by: args.person.name()? };
            let Response::Confirmed = args.agent.ask(&request).await? else { return other_answer() };
            print(&format!("Confirmed; follow it with `latchd jobs watch {}`.\n", args.job_id))?;
        }
        What::Decline(args) => {
            let request = Request::Decline { job_id: args.job_id, by: args.person.name()? };
            let Response::Declined = args.agent.ask(&request).await? else { return other_answer() };
            print(&format!("Declined: nothing of job {} was sent, and nothing will be.\n", args.job_id))?;
        }
        What::Retry(args) => retry(args.job_id, false, &args.person, &args.agent).await?,
        What::Resolve(args) if args.verdict.retry => {
            retry(args.job_id, true, &args.person, &args.agent).await?;
        }
        What::Resolve(args) => {
            let verdict = if args.verdict.done { Verdict::Done } else { Verdict::NotDone };
            let request = Request::Resolve { job_id: args.job_id, verdict, by: args.person.name()? };
            let Response::Resolved { state } = args.agent.ask(&request).await? else { return other_answer() };
            print(&format!("Settled: job {} is {state} now.\n", args.job_id))?;
        }
        What::Add(args) => add(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn retry(job_id: JobId, not_done: bool, person: &Person, agent: &AgentAddress) -> anyhow::Result<()> {
    let request = Request::Retry { job_id, not_done, by: person.name()? };
    let Response::Retried { job_id: new } = agent.ask(&request).await? else { return other_answer() };
    Ok(print(&format!("Job {new} takes its place; follow it with `latchd jobs watch {new}`.\n"))?)
}

async fn add(args: &AddArgs) -> anyhow::Result<()> {
    let text = job_text(&args.file)?;
    let job = order::read(&text, &Random::system())
        .with_context(|| format!("read the job in {}", args.file.display()))?;
    let request = Request::Add { job: Box::new(job), by: args.person.name()? };
    let Response::Added { job_id, known } = args.agent.ask(&request).await? else { return other_answer() };
    if args.json {
        return print_json(&json!({ "job_id": job_id, "known": known }));
    }
    let text = match known {
        false => format!("Added: follow it with `latchd jobs watch {job_id}`.\n"),
        true => format!("Job {job_id} was there before; nothing was added.\n"),
    };
    Ok(print(&text)?)
}

/// The text of a file, or of standard input.
fn job_text(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => io::stdin().lock().take(LONGEST_JOB + 1).read_to_string(&mut text),
        false => fs::File::open(file).and_then(|file| file.take(LONGEST_JOB + 1).read_to_string(&mut text)),
    };
    read.with_context(|| format!("read {}", file.display()))?;
    anyhow::ensure!(text.len() as u64 <= LONGEST_JOB, "a job has at most {LONGEST_JOB} bytes");
    Ok(text)
}

fn listed(jobs: &[JobLine], more: bool) -> String {
    if jobs.is_empty() {
        return "No such jobs.\n".into();
    }
    let row = |job: &JobLine| {
        vec![
            job.job_id.to_string(),
            job.changed_at.strftime("%m-%d %H:%M:%SZ").to_string(),
            kind(job).into(),
            job.code.map_or_else(|| job.state.to_string(), |code| format!("{}: {code}", job.state)),
        ]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    let mut text = columns(&["Job", "Since", "Kind", "State"], &rows);
    if more {
        text += "There are more; see --limit, --state and --lane.\n";
    }
    text
}

fn told(detail: &JobDetail) -> String {
    let job = &detail.job;
    let mut text = format!("{} {}\n\n", kind(job), job.job_id);
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(text, "{name:9} {value}");
    };
    fact("State", job.state.to_string());
    if let Some(system) = &job.system {
        fact("System", system.to_string());
    }
    if let Some(lane) = &job.lane {
        fact("Lane", lane.to_string());
    }
    if let Some(encoder) = &detail.encoder {
        fact("Encoder", encoder.to_string());
    }
    if let Some(device) = &detail.device {
        fact("Device", device.to_string());
    }
    if !detail.doors.is_empty() {
        let doors: Vec<_> = detail.doors.iter().map(DoorName::as_str).collect();
        fact("Doors", doors.join(", "));
    }
    if let Some(treatment) = detail.treatment {
        let treatment = match treatment {
            Treatment::Plain => "no room of it follows reservations",
            Treatment::Override => "begins a stay: the rooms' older cards die at first use",
            Treatment::Join => "joins the stay that its rooms have",
        };
        fact("Card", treatment.into());
    }
    if let Some(priority) = job.priority {
        let awaited = match priority {
            Priority::Desk => "yes",
            Priority::Background => "no",
        };
        fact("Awaited", awaited.into());
    }
    match job.origin {
        Origin::Cloud => {}
        Origin::Person => fact("Ordered", "by a person at the site".into()),
        Origin::Timer => fact("Ordered", "by the agent: what a slot holds has come to its end".into()),
    }
    if let Some(old) = job.retries {
        fact("Instead of", old.to_string());
    }
    fact("Made", job.created_at.to_string());
    if let Some(due_at) = job.due_at {
        fact("Not before", due_at.to_string());
    }
    fact("Good till", detail.expires_at.to_string());
    fact("Sent", times(detail.attempts));
    text += "\nStory\n";
    for step in &detail.history {
        let note = step.note.as_deref().map(|note| format!("  {note}")).unwrap_or_default();
        let _ = writeln!(text, "  {}  {}", step.at, format!("{:10}{note}", step.state.as_str()).trim_end());
    }
    for report in &detail.reports {
        text += &reported(report);
    }
    text
}

fn kind(job: &JobLine) -> &'static str {
    job.kind.map_or("unreadable", Kind::as_str)
}

fn times(count: u32) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        count => format!("{count} times"),
    }
}

fn reported(report: &Report) -> String {
    let head = match &report.resolution {
        None => format!("\nOutcome: {}\n", report.outcome.state()),
        Some(resolution) => {
            let verdict = match resolution.verdict {
                Verdict::Done => "it had been done",
                Verdict::NotDone => "it had not been done",
            };
            format!("\nThe doubt was settled: {verdict}, says {}\n", resolution.by)
        }
    };
    let why = match &report.outcome {
        Outcome::Failed(why) | Outcome::Unknown(why) | Outcome::Expired(why) => refusal(why),
        Outcome::Succeeded(success) => success.card.as_ref().map_or_else(String::new, printed),
        Outcome::Cancelled | Outcome::Superseded => String::new(),
    };
    head + &why
}

/// What stands on a card that was written: a system's clock may be coarser than what was ordered.
fn printed(card: &CardFacts) -> String {
    let start = card.printed_start.map(|start| format!(" from {start}")).unwrap_or_default();
    let end = card.printed_end.map(|end| format!(" until {end}")).unwrap_or_default();
    match start.is_empty() && end.is_empty() {
        true => String::new(),
        false => format!("  Printed on the card: it opens{start}{end}\n"),
    }
}

fn refusal(why: &Refusal) -> String {
    let vendor = why.vendor_code.as_deref().map(|code| format!(", the device says {code}"));
    wrapped(&format!("{} ({}{})", why.message, why.code, vendor.unwrap_or_default()), 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::admin::Step,
        model::{Code, EncoderName, SystemName},
    };

    #[test]
    fn what_is_printed_on_a_card_is_told_with_its_outcome() {
        let time = |text: &str| Some(text.parse().unwrap());
        let told = |printed_start, printed_end| {
            printed(&CardFacts { printed_start, printed_end, ..CardFacts::default() })
        };
        let (start, end) = (time("2026-11-22T12:00:00Z"), time("2026-11-24T11:00:00Z"));
        assert_eq!(
            told(start, end),
            "  Printed on the card: it opens from 2026-11-22T12:00:00Z until 2026-11-24T11:00:00Z\n"
        );
        assert_eq!(told(None, end), "  Printed on the card: it opens until 2026-11-24T11:00:00Z\n");
        assert_eq!(told(None, None), "");
    }

    fn detail() -> JobDetail {
        let time = |text: &str| text.parse().unwrap();
        JobDetail {
            job: JobLine {
                job_id: JobId(uuid::Uuid::nil()),
                kind: Some(Kind::CardEncode),
                system: Some(SystemName::new("salto").unwrap()),
                lane: Some(LaneName::new("salto").unwrap()),
                state: JobState::Unknown,
                priority: Some(Priority::Desk),
                created_at: time("2026-11-22T11:59:58Z"),
                changed_at: time("2026-11-22T12:00:20Z"),
                code: Some(Code::NoAnswer),
                origin: Origin::Cloud,
                due_at: None,
                retries: None,
            },
            expires_at: time("2026-11-22T12:05:00Z"),
            attempts: 1,
            treatment: Some(Treatment::Override),
            encoder: Some(EncoderName::new("1").unwrap()),
            device: None,
            doors: vec![DoorName::new("0101").unwrap(), DoorName::new("pool").unwrap()],
            history: vec![
                Step { at: time("2026-11-22T12:00:00Z"), state: JobState::Sent, note: None },
                Step {
                    at: time("2026-11-22T12:00:20Z"),
                    state: JobState::Unknown,
                    note: Some("read the card".into()),
                },
            ],
            reports: vec![Report {
                job_id: JobId(uuid::Uuid::nil()),
                revision: 1,
                at: time("2026-11-22T12:00:20Z"),
                outcome: Outcome::unknown(Code::NoAnswer, "the card may have been written: read it"),
                resolution: None,
                rooms: Vec::new(),
                local: None,
            }],
        }
    }

    #[test]
    fn a_job_tells_its_story_from_the_order_to_the_doubt() {
        assert_eq!(
            told(&detail()),
            "\
card.encode 00000000-0000-0000-0000-000000000000

State     unknown
System    salto
Lane      salto
Encoder   1
Doors     0101, pool
Card      begins a stay: the rooms' older cards die at first use
Awaited   yes
Made      2026-11-22T11:59:58Z
Good till 2026-11-22T12:05:00Z
Sent      once

Story
  2026-11-22T12:00:00Z  sent
  2026-11-22T12:00:20Z  unknown     read the card

Outcome: unknown
  the card may have been written: read it (no_answer)
"
        );
    }

    #[test]
    fn a_list_has_a_line_a_job_and_says_when_there_are_more() {
        assert_eq!(listed(&[], false), "No such jobs.\n");
        let text = listed(&[detail().job], true);
        assert!(text.contains("11-22 12:00:20Z  card.encode  unknown: no_answer"), "{text}");
        assert!(text.ends_with("--lane.\n"), "{text}");
    }
}
