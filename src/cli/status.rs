//! `latchd status`

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use jiff::Timestamp;

use super::{
    AgentAddress, print, print_json,
    table::{ago, at, columns, wrapped},
};
use crate::{
    agent::admin::{LineState, LinkState, Request, Response, StatusReport, SystemReport, TroubleReport},
    drivers::{Battery, Misses, Signs},
    model::Severity,
};

/// What `latchd status` is told.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    agent: AgentAddress,
    /// The whole report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let Response::Status(report) = args.agent.ask(&Request::Status).await? else {
        anyhow::bail!("the agent answered another question");
    };
    match args.json {
        true => print_json(&report)?,
        false => print(&told(&report))?,
    }
    let needs_a_person = report.conditions.iter().any(|condition| condition.severity == Severity::Error);
    Ok(ExitCode::from(if needs_a_person { 3 } else { 0 }))
}

fn told(report: &StatusReport) -> String {
    let zone = report.time_zone.as_str();
    let mut text = format!(
        "latchd {} at {} ({zone}), up for {}\n\n",
        report.version,
        report.site,
        ago(report.since, report.now)
    );
    let link = &report.link;
    let owner = match &link.workspace {
        Some(workspace) => format!("{workspace}, at {}", link.cloud),
        None => format!("not known yet; asking {}", link.cloud),
    };
    let state = match link.state {
        LinkState::Connecting => "connecting since",
        LinkState::Up => "up since",
        LinkState::Down => "DOWN since",
    };
    let since = format!("{} ({})", at(link.since, zone), ago(link.since, report.now));
    let _ = writeln!(text, "Enrolled to  {owner}");
    if let (Some(bridge_id), Some(until)) = (link.bridge_id, link.certificate_until) {
        let _ = writeln!(text, "Bridge       {bridge_id}");
        let _ = writeln!(text, "Certificate  until {}", at(until, zone));
    }
    let _ = writeln!(text, "Link         {state} {since}");
    text += &trouble(link.trouble.as_ref(), 13);
    let counts: Vec<_> = report
        .jobs
        .iter()
        .filter(|count| count.count > 0)
        .map(|count| format!("{} {}", count.count, count.state))
        .collect();
    let counts = if counts.is_empty() { "none".into() } else { counts.join(", ") };
    text += &wrapped(&counts, 13).replacen("             ", "Jobs         ", 1);
    if report.unacknowledged > 0 {
        let _ = writeln!(text, "Reports      {} not yet acknowledged by the cloud", report.unacknowledged);
    }

    let systems: Vec<_> = report
        .systems
        .iter()
        .map(|system| {
            let line = match system.line {
                LineState::Opening => "opening",
                LineState::Ready => "ready",
                LineState::Down => "DOWN",
            };
            vec![
                system.name.to_string(),
                system.kind.as_str().into(),
                line.into(),
                system.doors.to_string(),
                system.encoders.to_string(),
                system.at.clone(),
            ]
        })
        .collect();
    if !systems.is_empty() {
        text += "\n";
        text += &columns(&["System", "Kind", "Line", "Doors", "Encoders", "At"], &systems);
        for system in &report.systems {
            if let Some(why) = &system.trouble {
                text += &wrapped(&format!("{}: {} ({})", system.name, why.message, why.code), 2);
            }
        }
    }

    let radio: Vec<_> = report
        .systems
        .iter()
        .flat_map(|system| system.signs.iter().map(|signs| signs_of(system, signs, report.now)))
        .collect();
    if !radio.is_empty() {
        text += "\n";
        text += &columns(&["Lock", "Reached", "Last", "Signal", "In", "For", "Battery", "Missed"], &radio);
        let missed = report
            .systems
            .iter()
            .flat_map(|system| system.signs.iter().filter_map(|signs| misses_of(system, signs)));
        let missed: Vec<_> = missed.collect();
        if !missed.is_empty() {
            let _ = writeln!(text, "\n{}", missed.join("\n"));
        }
    }

    let lanes: Vec<_> = report
        .lanes
        .iter()
        .map(|lane| {
            let state = super::lanes::state(lane.state);
            let job = lane.job.map(|job| job.to_string()).unwrap_or_default();
            vec![lane.lane.to_string(), state.into(), lane.waiting.to_string(), job]
        })
        .collect();
    if !lanes.is_empty() {
        text += "\n";
        text += &columns(&["Lane", "State", "Waiting", "Job at work"], &lanes);
    }

    text += "\n";
    if report.conditions.is_empty() {
        text += "Nothing needs attention.\n";
        return text;
    }
    text += "Conditions\n";
    for condition in &report.conditions {
        let severity = match condition.severity {
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Error => "ERROR",
        };
        let since = format!("{} ({})", at(condition.since, zone), ago(condition.since, report.now));
        let head = format!("{severity}  {}: {}, since {since}", condition.subject, condition.code);
        text += &wrapped(&head, 2);
        text += &wrapped(&condition.message, 4);
    }
    text
}

fn trouble(trouble: Option<&TroubleReport>, indent: usize) -> String {
    trouble.map_or(String::new(), |why| wrapped(&format!("{} ({})", why.message, why.code), indent))
}

/// A line about a lock with a radio.
fn signs_of(system: &SystemReport, signs: &Signs, now: Timestamp) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        format!("{}/{}", system.name, signs.device),
        signs.reached.to_string(),
        or_none(signs.reached_at.map(|at| format!("{} ago", ago(at, now)))),
        or_none(signs.signal_dbm.map(|signal| format!("{signal} dBm"))),
        or_none(signs.connect_ms.map(|took| format!("{took} ms"))),
        or_none(signs.session_ms.map(|took| format!("{took} ms"))),
        or_none(signs.battery.map(|battery| match battery {
            Battery::PerCent(per_cent) => format!("{per_cent} %"),
            Battery::Millivolts(millivolts) => format!("{millivolts} mV"),
        })),
        misses(&signs.misses).iter().map(|(count, _)| count).sum::<u64>().to_string(),
    ]
}

/// Why it was missed, if it was.
fn misses_of(system: &SystemReport, signs: &Signs) -> Option<String> {
    let causes = misses(&signs.misses).into_iter().filter(|(count, _)| 0 < *count);
    let causes: Vec<_> = causes.map(|(count, why)| format!("{why} ({count})")).collect();
    let line = format!("{}/{} was missed: {}", system.name, signs.device, causes.join(", "));
    (!causes.is_empty()).then(|| wrapped(&line, 0).trim_end().to_owned())
}

fn misses(misses: &Misses) -> [(u64, &'static str); 5] {
    let Misses { not_heard, not_connected, other_device, radio_down, broken_off } = *misses;
    [
        (not_heard, "not heard"),
        (not_connected, "not connected"),
        (other_device, "another device in its place"),
        (radio_down, "for want of a radio"),
        (broken_off, "broken off"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::admin::{LaneReport, LaneState, LinkReport, StateCount},
        model::{BridgeId, Condition, DeviceName, JobId, JobState, LaneName, SystemKind, SystemName},
    };

    fn time(text: &str) -> jiff::Timestamp {
        text.parse().unwrap()
    }

    fn report() -> StatusReport {
        StatusReport {
            version: "0.1.0".into(),
            site: "Hotel Fjord".into(),
            time_zone: "Europe/Oslo".into(),
            now: time("2026-11-22T12:00:00Z"),
            since: time("2026-11-22T08:48:00Z"),
            link: LinkReport {
                state: LinkState::Up,
                since: time("2026-11-22T09:11:00Z"),
                cloud: "wss://cloud.example:8443".into(),
                workspace: Some("Home".into()),
                bridge_id: Some(BridgeId(uuid::Uuid::nil())),
                certificate_until: Some(time("2027-02-20T12:00:00Z")),
                trouble: None,
            },
            systems: vec![SystemReport {
                name: SystemName::new("salto").unwrap(),
                kind: SystemKind::SaltoIs,
                at: "10.0.0.5:9090".into(),
                line: LineState::Ready,
                trouble: None,
                doors: 12,
                encoders: 2,
                signs: Vec::new(),
            }],
            lanes: vec![LaneReport {
                lane: LaneName::new("salto").unwrap(),
                state: LaneState::Idle,
                job: None,
                waiting: 0,
                paused: None,
                rest: None,
            }],
            jobs: vec![StateCount { state: JobState::Succeeded, count: 120 }],
            unacknowledged: 0,
            conditions: Vec::new(),
        }
    }

    #[test]
    fn a_site_that_is_well_is_told_in_a_few_lines() {
        assert_eq!(
            told(&report()),
            "\
latchd 0.1.0 at Hotel Fjord (Europe/Oslo), up for 3 h 12 min

Enrolled to  Home, at wss://cloud.example:8443
Bridge       00000000-0000-0000-0000-000000000000
Certificate  until 2027-02-20 13:00:00
Link         up since 2026-11-22 10:11:00 (2 h 49 min)
Jobs         120 succeeded

System  Kind      Line   Doors  Encoders  At
salto   salto_is  ready  12     2         10.0.0.5:9090

Lane   State  Waiting  Job at work
salto  idle   0

Nothing needs attention.
"
        );
    }

    #[test]
    fn locks_with_a_radio_are_told_with_how_they_were_found() {
        let mut report = report();
        let of = |name: &str| DeviceName::new(name).unwrap();
        report.systems[0].signs = vec![
            Signs {
                device: of("101"),
                reached: 1204,
                reached_at: Some(time("2026-11-22T11:41:00Z")),
                signal_dbm: Some(-101),
                connect_ms: Some(18_240),
                session_ms: Some(1_930),
                battery: Some(Battery::Millivolts(5_912)),
                misses: Misses { not_heard: 31, broken_off: 2, ..Misses::default() },
            },
            Signs {
                device: of("102"),
                reached: 0,
                reached_at: None,
                signal_dbm: None,
                connect_ms: None,
                session_ms: None,
                battery: None,
                misses: Misses { radio_down: 4, ..Misses::default() },
            },
        ];
        let text = told(&report);
        let lines = "\
Lock       Reached  Last        Signal    In        For      Battery  Missed
salto/101  1204     19 min ago  -101 dBm  18240 ms  1930 ms  5912 mV  33
salto/102  0        -           -         -         -        -        4

salto/101 was missed: not heard (31), broken off (2)
salto/102 was missed: for want of a radio (4)
";
        assert!(text.contains(lines), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= super::super::table::WIDTH), "{text}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_name_its_time_and_what_to_do_within_80_columns() {
        let mut report = report();
        let message = "the serial port is gone: plug the adapter in again, or look whether the lock server is \
                       switched on; it is opened again by itself";
        let why = TroubleReport { code: "line_down".into(), message: message.into() };
        report.link.state = LinkState::Down;
        report.link.workspace = None;
        report.link.trouble = Some(why.clone());
        report.systems[0].line = LineState::Down;
        report.systems[0].trouble = Some(why);
        report.lanes[0].state = LaneState::Blocked;
        report.lanes[0].job = Some(JobId(uuid::Uuid::nil()));
        report.jobs = JobState::ALL.map(|state| StateCount { state, count: 12_345 }).into();
        report.unacknowledged = 3;
        report.conditions = vec![Condition {
            code: "line_down".into(),
            severity: Severity::Error,
            subject: "salto".into(),
            message: message.into(),
            since: time("2026-11-22T11:51:00Z"),
        }];
        let text = told(&report);
        assert!(text.lines().all(|line| line.chars().count() <= super::super::table::WIDTH), "{text}");
        for wanted in [
            "not known yet; asking wss://cloud.example",
            "DOWN since 2026-11-22 10:11:00",
            "3 not yet acknowledged",
            "BLOCKED",
            "ERROR salto: line_down, since 2026-11-22 12:51:00 (9 min)",
            "    the serial port is gone",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }
}
