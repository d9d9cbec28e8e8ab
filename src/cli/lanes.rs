//! `latchd lanes …`

use std::fmt::Write;

use clap::{Args, Subcommand};

use super::{AgentAddress, Person, other_answer, print, print_json, table::columns};
use crate::{
    agent::admin::{LaneReport, LaneState, Request, Response},
    model::LaneName,
};

/// What `latchd lanes` is told.
#[derive(Debug, Args)]
pub struct LanesArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to look at, or to do.
#[derive(Debug, Subcommand)]
pub enum What {
    /// The lanes: what each does, how many jobs wait there, who paused it.
    List(ListArgs),
    /// Have a lane begin nothing new until it is resumed, also after a restart.
    ///
    /// A job that is at work goes on to its end. Those that wait keep their deadlines.
    Pause(ActArgs),
    /// Let a paused lane go on.
    Resume(ActArgs),
}

/// How to show the lanes.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agent: AgentAddress,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// A lane, and who acts on it.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// The lane, as `latchd lanes list` names it.
    lane: LaneName,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    agent: AgentAddress,
}

pub(super) async fn run(args: &LanesArgs) -> anyhow::Result<()> {
    let (agent, request) = match &args.what {
        What::List(args) => (&args.agent, Request::Lanes),
        What::Pause(args) => {
            (&args.agent, Request::PauseLane { lane: args.lane.clone(), by: args.person.name()? })
        }
        What::Resume(args) => {
            (&args.agent, Request::ResumeLane { lane: args.lane.clone(), by: args.person.name()? })
        }
    };
    let Response::Lanes { lanes } = agent.ask(&request).await? else { return other_answer() };
    match &args.what {
        What::List(args) if args.json => print_json(&lanes),
        What::List(_) | What::Pause(_) | What::Resume(_) => Ok(print(&listed(&lanes))?),
    }
}

/// What a lane does, in a word.
pub(super) fn state(state: LaneState) -> &'static str {
    match state {
        LaneState::Idle => "idle",
        LaneState::Busy => "busy",
        LaneState::Blocked => "BLOCKED",
        LaneState::Paused => "PAUSED",
        LaneState::Resting => "RESTING",
    }
}

fn listed(lanes: &[LaneReport]) -> String {
    if lanes.is_empty() {
        return "No lanes: no access system is configured.\n".into();
    }
    let row = |lane: &LaneReport| {
        let job = lane.job.map(|job| job.to_string()).unwrap_or_default();
        vec![lane.lane.to_string(), state(lane.state).into(), lane.waiting.to_string(), job]
    };
    let rows: Vec<_> = lanes.iter().map(row).collect();
    let mut text = columns(&["Lane", "State", "Waiting", "Job at work"], &rows);
    for lane in lanes {
        if let Some(pause) = &lane.paused {
            let _ = writeln!(text, "{}: paused by {} since {}", lane.lane, pause.by, pause.since);
        }
        if let Some(rest) = &lane.rest {
            let _ = writeln!(text, "{}: rests until {}: {}", lane.lane, rest.until, rest.why);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::admin::{Pause, Rest};

    #[test]
    fn who_paused_a_lane_and_why_one_rests_stand_below_the_table() {
        let lane = |name: &str, state| LaneReport {
            lane: LaneName::new(name).unwrap(),
            state,
            job: None,
            waiting: 2,
            paused: None,
            rest: None,
        };
        let since = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut lanes = [lane("salto/1", LaneState::Paused), lane("salto/2", LaneState::Resting)];
        lanes[0].paused = Some(Pause { by: "Kari".into(), since });
        lanes[1].rest = Some(Rest { until: since, why: "the lock does not answer".into() });
        assert_eq!(
            listed(&lanes),
            "\
Lane     State    Waiting  Job at work
salto/1  PAUSED   2
salto/2  RESTING  2
salto/1: paused by Kari since 2026-11-22T12:00:00Z
salto/2: rests until 2026-11-22T12:00:00Z: the lock does not answer
"
        );
        assert_eq!(listed(&[]), "No lanes: no access system is configured.\n");
    }
}
