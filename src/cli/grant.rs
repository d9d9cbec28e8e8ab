//! `latchd grant …`

use std::{fmt::Write, io, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::{AgentAddress, Person, other_answer, print, print_json, table::columns};
use crate::{
    agent::admin::{
        self, CardReport, CodeReport, CodeState, DeskCode, DeskGrant, GrantReport, Moment, Request, Response,
    },
    model::{AccessGrantId, DesiredCardState, DoorName, JobId, Private, ReservationKey, Window},
};

/// How long a desk waits for the locks to show a code. One that is not within reach is tried again all the same.
const CODE_WAIT: Duration = Duration::from_secs(60);

/// What `latchd grant` is told.
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to look at, or to do.
#[derive(Debug, Subcommand)]
pub enum What {
    /// The grants that lead to this site's doors.
    List(ListArgs),
    /// A grant, or all grants of a stay: doors, times, and where each card stands.
    Show(ShowArgs),
    /// Make a grant at the desk, with or without the cloud, which takes it over as it is.
    ///
    /// The rules of stays hold, judged by what this property knows: the first grant of a stay says which rooms it has, and a
    /// further one names the same or some of them, for a time that overlaps. Where it turns out not to fit beside what
    /// the cloud knows, the grant says so there, and nothing is undone. Then write its card with `latchd encode`.
    ///
    /// A PIN is put into the locks at once, or shortly before the grant begins, and told of each lock once that was read back. It
    /// is none that another has there, as far as this property knows; a lock refuses one that the cloud gave somebody else.
    Create(CreateArgs),
    /// Take a grant back, with or without the cloud.
    ///
    /// Its PINs go out of the locks. A card that was written opens until its printed end: no lock can be told otherwise from
    /// afar.
    Revoke(RevokeArgs),
}

/// A grant to be made.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The guest's name.
    #[arg(long)]
    name: String,
    /// A door or lock: its name, or SYSTEM/DOOR where several systems have one of that name. Can be given several times.
    #[arg(long = "door", value_name = "DOOR", required = true)]
    doors: Vec<String>,
    /// When it begins, like 2026-11-22T14:00:00Z [default: now].
    #[arg(long)]
    from: Option<Timestamp>,
    /// When it ends.
    #[arg(long)]
    to: Option<Timestamp>,
    /// The stay; needed for rooms.
    #[arg(long, value_name = "KEY")]
    reservation: Option<ReservationKey>,
    /// The name by which you will ask for the grant.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    means: MeansArgs,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    agent: AgentAddress,
    /// The grant as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct MeansArgs {
    /// A card for each access system.
    #[arg(long)]
    card: bool,
    /// A PIN for the locks that take one, drawn by their rules.
    #[arg(long, conflicts_with = "own_code")]
    code: bool,
    /// A PIN of the guest's own choice: the first line of standard input.
    #[arg(long)]
    own_code: bool,
    /// A key on a phone: only the cloud hands these out.
    #[arg(long)]
    mobile_key: bool,
}

/// A grant to be taken back.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The key or id of the grant, or the key of a stay that has but one.
    #[arg(value_name = "GRANT")]
    name: String,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    agent: AgentAddress,
}

/// How many grants.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agent: AgentAddress,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Which grants.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The key or id of a grant, the id of a card, or the key of a stay.
    #[arg(value_name = "GRANT")]
    name: String,
    #[command(flatten)]
    agent: AgentAddress,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &GrantArgs) -> anyhow::Result<()> {
    let (agent, json, request) = match &args.what {
        What::Create(args) => return create(args).await,
        What::Revoke(args) => return revoke(args).await,
        What::List(args) => (&args.agent, args.json, Request::Grants { name: None, limit: args.limit }),
        What::Show(args) => {
            let name = Some(args.name.clone());
            (&args.agent, args.json, Request::Grants { name, limit: 1000 })
        }
    };
    let Response::Grants { grants, more, complete } = agent.ask(&request).await? else {
        return other_answer();
    };
    if json {
        return print_json(&json!({ "grants": grants, "more": more, "complete": complete }));
    }
    let text = match &args.what {
        What::Show(args) if grants.is_empty() => {
            anyhow::bail!(
                "no grant of this site has that name: {}{}",
                args.name,
                if complete { "" } else { " (the cloud has not told all of them yet)" }
            )
        }
        What::List(_) => listed(&grants, more),
        _ => grants.iter().map(told).collect::<Vec<_>>().join("\n"),
    };
    let note = match complete {
        true => "",
        false => "The cloud has not told all of its grants yet: some may be missing, some may be over.\n",
    };
    Ok(print(&format!("{text}{note}"))?)
}

async fn create(args: &CreateArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.means.mobile_key,
        "a desk gives out cards and PINs: mobile keys come from the cloud, which alone knows who holds one; ask there \
         when it is back"
    );
    let code = match (args.means.code, args.means.own_code) {
        (_, true) => Some(DeskCode::Pin(typed_pin()?)),
        (true, false) => Some(DeskCode::Any),
        (false, false) => None,
    };
    let grant = DeskGrant {
        access_grant_key: args.key.clone(),
        reservation_key: args.reservation.clone(),
        guest_name: Private::new(args.name.as_str()),
        starts_at: args.from,
        ends_at: args.to,
        doors: args.doors.clone(),
        card: args.means.card,
        code,
    };
    let request = Request::MakeGrant { grant: Box::new(grant), by: args.person.name()? };
    let Response::Grant(grant) = args.agent.ask(&request).await? else { return other_answer() };
    let grant = with_codes(args, *grant).await?;
    if args.json {
        print_json(&grant)?;
    } else {
        let next = match grant.cards.is_empty() {
            true => String::new(),
            false => format!("\nWrite its card with `latchd encode {} --encoder NAME`.\n", name_of(&grant)),
        };
        print(&(told(&grant) + &next))?;
    }
    let is_missing = |code: &&CodeReport| !matches!(code.state, CodeState::Set | CodeState::Scheduled);
    let missing: Vec<_> = grant.codes.iter().filter(is_missing).map(|code| code.device.as_str()).collect();
    anyhow::ensure!(
        missing.is_empty(),
        "the code is not known to be in {}: see `latchd grant show {}`",
        missing.join(", "),
        grant.access_grant_id
    );
    Ok(())
}

/// A PIN is typed or piped in: on the command line, everybody on this machine could read it.
fn typed_pin() -> anyhow::Result<Private> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let pin = line.trim();
    anyhow::ensure!(!pin.is_empty(), "no PIN was given: type it, or pipe it in, as the first line");
    Ok(Private::new(pin))
}

/// The grant once its locks have shown its codes, or for as long as a desk waits for that.
async fn with_codes(args: &CreateArgs, mut grant: GrantReport) -> anyhow::Result<GrantReport> {
    let at_work = |code: &CodeReport| code.job_id.filter(|_| code.state == CodeState::BeingSet);
    let all = async {
        // Another job may have taken a code over meanwhile, as the cloud's does.
        while let Some(job) = grant.codes.iter().find_map(at_work) {
            ended(args, job).await?;
            match look_again(args, grant.access_grant_id).await? {
                Some(seen) => grant = seen,
                None => break,
            }
        }
        anyhow::Ok(())
    };
    // What has not ended by then is shown as it stands.
    if let Ok(ended) = tokio::time::timeout(CODE_WAIT, all).await {
        ended?;
    }
    Ok(grant)
}

/// Waits for the end of a job.
async fn ended(args: &CreateArgs, job: JobId) -> anyhow::Result<()> {
    let is_end = |moment: &Moment| matches!(moment, Moment::Ended { .. } | Moment::Resolved { .. });
    let mut agent = admin::watch(&args.agent.socket()?, Some(job)).await?;
    while let Some(told) = agent.next().await? {
        let is_over = match told {
            Response::Watching { jobs } => jobs.iter().any(|step| is_end(&step.moment)),
            Response::Watched(step) => is_end(&step.moment),
            _ => false,
        };
        if is_over {
            return Ok(());
        }
    }
    anyhow::bail!("the agent has stopped; `latchd jobs show {job}` says how it ended")
}

async fn look_again(args: &CreateArgs, grant: AccessGrantId) -> anyhow::Result<Option<GrantReport>> {
    let request = Request::Grants { name: Some(grant.to_string()), limit: 1 };
    let Response::Grants { mut grants, .. } = args.agent.ask(&request).await? else { return other_answer() };
    Ok(grants.pop())
}

async fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let request = Request::RevokeGrant { name: args.name.clone(), by: args.person.name()? };
    let Response::Grant(grant) = args.agent.ask(&request).await? else { return other_answer() };
    let opens = |card: &&CardReport| {
        matches!(
            card.state,
            DesiredCardState::Issued | DesiredCardState::InDoubt | DesiredCardState::BeingEncoded
        )
    };
    let cards = grant.cards.iter().filter(opens).count();
    let note = match cards {
        0 => String::new(),
        _ => format!(
            "{cards} of its cards may be out, and open until {}: take them back, or make a card for the next stay, at \
             whose first use they die.\n",
            until(&grant.window)
        ),
    };
    let in_locks: Vec<_> = grant
        .codes
        .iter()
        .filter(|code| code.state != CodeState::NotSet)
        .map(|code| code.device.as_str())
        .collect();
    let codes = match in_locks.is_empty() {
        true => String::new(),
        false => format!(
            "Its PIN opens until it is taken out of: {}. That is under way; `latchd slots list` shows where it still is.\n",
            in_locks.join(", ")
        ),
    };
    Ok(print(&format!("Taken back: {}.\n{note}{codes}", name_of(&grant)))?)
}

fn listed(grants: &[GrantReport], more: bool) -> String {
    if grants.is_empty() {
        return "No grants.\n".into();
    }
    let row = |grant: &GrantReport| {
        vec![
            name_of(grant),
            grant.reservation_key.as_ref().map(ReservationKey::to_string).unwrap_or_default(),
            guest(grant).to_owned(),
            until(&grant.window),
            cards(&grant.cards),
            codes(&grant.codes),
        ]
    };
    let rows: Vec<_> = grants.iter().map(row).collect();
    let mut text = columns(&["Grant", "Stay", "Guest", "Ends", "Cards", "Codes"], &rows);
    if more {
        text += "There are more; see --limit, or name one with `latchd grant show`.\n";
    }
    text
}

fn told(grant: &GrantReport) -> String {
    let mut text = format!("{}\n\n", name_of(grant));
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:9} {value}");
    };
    fact("Id", &grant.access_grant_id.to_string());
    fact("Guest", guest(grant));
    if let Some(stay) = &grant.reservation_key {
        fact("Stay", stay.as_str());
    }
    fact("From", &grant.window.starts_at().to_string());
    fact("To", &until(&grant.window));
    for doors in &grant.doors {
        let names: Vec<_> = doors.doors.iter().map(DoorName::as_str).collect();
        fact("Doors", &format!("{} of {}", names.join(", "), doors.system));
    }
    for card in &grant.cards {
        let why = card.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let job = card.job_id.map(|job| format!(" (job {job})")).unwrap_or_default();
        fact(
            "Card",
            &format!("{} of {}: {}{why}{job}", card.access_method_id, card.system, state(card.state)),
        );
    }
    for code in &grant.codes {
        let pin = code.code.as_ref().map_or("", Private::expose);
        let why = code.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let job = code.job_id.map(|job| format!(" (job {job})")).unwrap_or_default();
        let state = code_state(code.state);
        fact("Code", format!("{pin} {}/{}: {state}{why}{job}", code.system, code.device).trim_start());
    }
    text
}

/// The caller's own name for it, where there is one.
fn name_of(grant: &GrantReport) -> String {
    grant.access_grant_key.clone().unwrap_or_else(|| grant.access_grant_id.to_string())
}

fn guest(grant: &GrantReport) -> &str {
    grant.guest_name.as_ref().map_or("", Private::expose)
}

fn until(window: &Window) -> String {
    window.ends_at().map_or_else(|| "no end".into(), |end| end.to_string())
}

fn cards(cards: &[CardReport]) -> String {
    let states: Vec<_> = cards.iter().map(|card| state(card.state)).collect();
    states.join(", ")
}

fn codes(codes: &[CodeReport]) -> String {
    let states: Vec<_> = codes.iter().map(|code| code_state(code.state)).collect();
    states.join(", ")
}

/// Where a card stands, for a person.
pub(super) fn state(state: DesiredCardState) -> &'static str {
    match state {
        DesiredCardState::EncodingRequired => "to be written",
        DesiredCardState::BeingEncoded => "being written",
        DesiredCardState::Issued => "written",
        DesiredCardState::InDoubt => "IN DOUBT",
        DesiredCardState::NotReady => "cannot be written",
    }
}

/// Where a code stands in a lock, for a person.
fn code_state(state: CodeState) -> &'static str {
    match state {
        CodeState::Set => "in the lock",
        CodeState::Scheduled => "to be put there shortly before it begins",
        CodeState::BeingSet => "being put there",
        CodeState::InDoubt => "IN DOUBT",
        CodeState::NotSet => "not in the lock",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{AccessMethodId, DesiredDoors, DeviceName, SystemName};

    pub(in crate::cli) fn grant() -> GrantReport {
        let time = |text: &str| text.parse().unwrap();
        let salto = SystemName::new("salto").unwrap();
        GrantReport {
            access_grant_id: AccessGrantId(uuid::Uuid::nil()),
            access_grant_key: Some("booking-7".into()),
            reservation_key: ReservationKey::new("stay-1").ok(),
            guest_name: Some(Private::new("Jane Doe")),
            window: Window::new(time("2026-11-22T12:00:00Z"), Some(time("2026-11-24T11:00:00Z"))).unwrap(),
            doors: vec![DesiredDoors {
                system: salto.clone(),
                doors: vec![DoorName::new("101").unwrap(), DoorName::new("pool").unwrap()],
            }],
            cards: vec![CardReport {
                access_method_id: AccessMethodId(uuid::Uuid::nil()),
                system: salto,
                state: DesiredCardState::EncodingRequired,
                why: None,
                job_id: None,
            }],
            codes: Vec::new(),
        }
    }

    #[test]
    fn a_grant_is_listed_with_its_stay_its_end_and_its_cards() {
        assert_eq!(listed(&[], false), "No grants.\n");
        assert_eq!(
            listed(&[grant()], true),
            "\
Grant      Stay    Guest     Ends                  Cards          Codes
booking-7  stay-1  Jane Doe  2026-11-24T11:00:00Z  to be written
There are more; see --limit, or name one with `latchd grant show`.
"
        );
    }

    #[test]
    fn a_grant_is_shown_with_its_doors_and_its_cards() {
        assert_eq!(
            told(&grant()),
            "\
booking-7

Id        00000000-0000-0000-0000-000000000000
Guest     Jane Doe
Stay      stay-1
From      2026-11-22T12:00:00Z
To        2026-11-24T11:00:00Z
Doors     101, pool of salto
Card      00000000-0000-0000-0000-000000000000 of salto: to be written
"
        );
    }

    #[test]
    fn a_pin_is_shown_for_each_lock_that_is_known_to_hold_it() {
        let code = |device: &str, state, code: Option<&str>, why: Option<&str>| CodeReport {
            access_method_id: AccessMethodId(uuid::Uuid::nil()),
            system: SystemName::new("keypads").unwrap(),
            device: DeviceName::new(device).unwrap(),
            state,
            code: code.map(Private::new),
            why: why.map(Into::into),
            job_id: None,
        };
        let codes = vec![
            code("front", CodeState::Set, Some("472913"), None),
            code("back", CodeState::NotSet, None, Some("the lock has no free slot")),
        ];
        let text = told(&GrantReport { codes, ..grant() });
        assert!(text.ends_with(
            "\
Code      472913 keypads/front: in the lock
Code      keypads/back: not in the lock: the lock has no free slot
"
        ));
    }
}
