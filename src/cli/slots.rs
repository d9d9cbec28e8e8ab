//! `latchd slots list`

use clap::{Args, Subcommand};

use super::{AgentAddress, other_answer, print, print_json, table::columns};
use crate::{
    agent::admin::{Request, Response, SlotReport, SlotState},
    model::SystemName,
};

/// What `latchd slots` is told.
#[derive(Debug, Args)]
pub struct SlotsArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum What {
    /// The slots, by system, device and key.
    List(ListArgs),
}

/// Which slots.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agent: AgentAddress,
    /// Only those of this system.
    #[arg(long)]
    system: Option<SystemName>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &SlotsArgs) -> anyhow::Result<()> {
    let What::List(args) = &args.what;
    match args.agent.ask(&Request::Slots { system: args.system.clone() }).await? {
        Response::Slots { slots } if args.json => print_json(&slots),
        Response::Slots { slots } => Ok(print(&listed(&slots))?),
        _ => other_answer(),
    }
}

fn listed(slots: &[SlotReport]) -> String {
    if slots.is_empty() {
        return "No slots.\n".into();
    }
    let row = |slot: &SlotReport| {
        let state = match slot.state {
            SlotState::Empty => "empty",
            SlotState::Filled => "filled",
            SlotState::Uncertain => "UNCERTAIN",
        };
        let mut ends_at = slot.ends_at.map_or_else(String::new, |ends_at| ends_at.to_string());
        if let Some(end) = slot.may_outlive {
            ends_at.push_str(&format!(" (may still open by the code that ends {end}: settle the doubt)"));
        }
        vec![slot.system.to_string(), slot.device.to_string(), slot.slot.clone(), state.into(), ends_at]
    };
    let rows: Vec<_> = slots.iter().map(row).collect();
    columns(&["System", "Device", "Slot", "State", "Ends"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceName, JobId};

    #[test]
    fn a_slot_is_listed_with_its_state_and_its_end() {
        let slot = SlotReport {
            system: SystemName::new("annex").unwrap(),
            device: DeviceName::new("door-7").unwrap(),
            slot: "stay-1".into(),
            state: SlotState::Filled,
            since: "2026-11-20T12:00:00Z".parse().unwrap(),
            job_id: JobId(uuid::Uuid::nil()),
            ends_at: Some("2026-11-22T12:00:00Z".parse().unwrap()),
            may_outlive: None,
        };
        let doubted = SlotReport {
            state: SlotState::Uncertain,
            may_outlive: Some("2026-11-21T12:00:00Z".parse().unwrap()),
            ..slot.clone()
        };
        assert_eq!(
            listed(&[slot]),
            "\
System  Device  Slot    State   Ends
annex   door-7  stay-1  filled  2026-11-22T12:00:00Z
"
        );
        let told = "UNCERTAIN  2026-11-22T12:00:00Z (may still open by the code that ends 2026-11-21T12:00:00Z: settle \
                    the doubt)";
        assert!(listed(&[doubted]).contains(told));
    }
}
