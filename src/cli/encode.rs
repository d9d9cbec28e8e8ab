//! `latchd encode`

use std::{io, process::ExitCode, thread};

use clap::Args;
use tokio::{signal::ctrl_c, sync::mpsc};

use super::{AgentAddress, Person, grant, other_answer, print};
use crate::{
    agent::admin::{self, CardReport, GrantReport, Moment, Request, Response},
    model::{Code, DesiredCardState, DoorName, EncoderName, JobId, JobState, SystemName},
    queue::DeskCard,
    seams::Random,
};

/// How long a card may take to be laid down, in seconds.
const CARD_WAIT: u16 = 60;

/// What `latchd encode` is told.
#[derive(Debug, Args)]
pub struct EncodeArgs {
    /// The id of a card, the key or id of a grant, or the key of a stay: then all its cards, one after the other.
    #[arg(value_name = "CARD|GRANT")]
    name: String,
    /// The encoder on which the cards will lie.
    #[arg(long, value_name = "NAME")]
    encoder: EncoderName,
    /// Only the cards of this access system.
    #[arg(long)]
    system: Option<SystemName>,
    /// Write cards once more that are written, or ordered from the cloud: both will open.
    #[arg(long)]
    again: bool,
    /// Begin the stay anew: once the card is used, the stay's earlier cards are dead, a lost one among them, and the others
    /// have to be written again. Of several cards, which are all written then, those with the most doors come first, and
    /// the others join.
    #[arg(long = "override")]
    begin_again: bool,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    agent: AgentAddress,
}

/// How the writing of a card ended.
enum End {
    Written,
    InDoubt,
    /// Nothing was written, and another card may do better.
    TryAnother,
    Failed,
}

pub(super) async fn run(args: &EncodeArgs) -> anyhow::Result<ExitCode> {
    let by = args.person.name()?;
    let request = Request::Grants { name: Some(args.name.clone()), limit: 1000 };
    let Response::Grants { grants, .. } = args.agent.ask(&request).await? else { return other_answer() };
    let mut cards = chosen(args, &grants)?;
    if args.begin_again {
        cards.sort_by_key(|(of, card)| std::cmp::Reverse(doors_of(of, card).len()));
    }
    let mut keyboard = Keyboard::listen();
    let count = cards.len();
    for (number, (of, card)) in (1..).zip(&cards) {
        let title = match count {
            1 => what(of, card),
            _ => format!("Card {number} of {count}, {}", what(of, card)),
        };
        // Whatever lies on the encoder now would be written.
        let asks = format!("Take the written card away, lay the next one down, and press Enter ({title}).\n");
        if number > 1 && !goes_on(&mut keyboard, &asks).await? {
            return left(&cards[number - 1..]);
        }
        let begins = args.begin_again && leads_anywhere_new(&cards[..number - 1], of, card);
        loop {
            match write(args, &by, card, begins, &title).await? {
                End::Written => break,
                End::InDoubt => return Ok(ExitCode::from(3)),
                End::Failed => return Ok(ExitCode::FAILURE),
                End::TryAnother => {
                    let asks = format!("Lay another card down, and press Enter to try again ({title}).\n");
                    if !goes_on(&mut keyboard, &asks).await? {
                        return left(&cards[number - 1..]);
                    }
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The cards that are meant: of several, those that are to be written.
fn chosen<'a>(
    args: &EncodeArgs,
    grants: &'a [GrantReport],
) -> anyhow::Result<Vec<(&'a GrantReport, &'a CardReport)>> {
    let all = grants.iter().flat_map(|grant| grant.cards.iter().map(move |card| (grant, card)));
    let named = |card: &CardReport| card.access_method_id.to_string() == args.name.to_lowercase();
    let meant: Vec<_> = match all.clone().find(|(_, card)| named(card)) {
        Some(one) => vec![one],
        None => {
            all.filter(|(_, card)| args.system.as_ref().is_none_or(|system| card.system == *system)).collect()
        }
    };
    anyhow::ensure!(
        !meant.is_empty(),
        "no card of this site has that name: {} (see `latchd grant list`)",
        args.name
    );
    if meant.len() == 1 {
        // Whatever is wrong with it, the agent says so.
        return Ok(meant);
    }
    let is_wanted = |card: &CardReport| match card.state {
        DesiredCardState::EncodingRequired => true,
        DesiredCardState::Issued | DesiredCardState::BeingEncoded => args.again || args.begin_again,
        DesiredCardState::InDoubt | DesiredCardState::NotReady => false,
    };
    let (wanted, others): (Vec<_>, Vec<_>) = meant.into_iter().partition(|(_, card)| is_wanted(card));
    let others: Vec<_> =
        others.iter().map(|(of, card)| format!("{}: {}", what(of, card), grant::state(card.state))).collect();
    anyhow::ensure!(
        !wanted.is_empty(),
        "no card is left to be written; {}; --again writes written ones once more",
        others.join("; ")
    );
    for other in others {
        print(&format!("Left as it is: {other}\n"))?;
    }
    Ok(wanted)
}

/// A card in a few words.
fn what(grant: &GrantReport, card: &CardReport) -> String {
    let doors = grant.doors.iter().find(|doors| doors.system == card.system);
    let doors: Vec<_> = doors.iter().flat_map(|doors| &doors.doors).map(DoorName::as_str).collect();
    format!("for {}", doors.join(", "))
}

/// Lines as somebody types them; what was typed means nothing.
struct Keyboard(mpsc::Receiver<()>);

impl Keyboard {
    /// The thread goes with the process: a read from a terminal cannot be called off.
    fn listen() -> Self {
        let (typed, lines) = mpsc::channel(1);
        thread::spawn(move || {
            for line in io::stdin().lines() {
                if line.is_err() || typed.blocking_send(()).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }
}

/// Tells a person what to do and waits until that is done; says whether somebody is there.
async fn goes_on(keyboard: &mut Keyboard, asks: &str) -> anyhow::Result<bool> {
    // What was typed before answers no question.
    while keyboard.0.try_recv().is_ok() {}
    print(asks)?;
    tokio::select! {
        line = keyboard.0.recv() => Ok(line.is_some()),
        _ = ctrl_c() => Ok(false),
    }
}

fn left(cards: &[(&GrantReport, &CardReport)]) -> anyhow::Result<ExitCode> {
    for (of, card) in cards {
        print(&format!("Not written: {} ({})\n", what(of, card), card.access_method_id))?;
    }
    Ok(ExitCode::FAILURE)
}

/// Whether a card opens a door that none of these does.
fn leads_anywhere_new(before: &[(&GrantReport, &CardReport)], of: &GrantReport, card: &CardReport) -> bool {
    let earlier: Vec<_> = before.iter().filter(|(_, earlier)| earlier.system == card.system).collect();
    let is_new = |door| earlier.iter().all(|(of, _)| !doors_of(of, card).contains(door));
    doors_of(of, card).iter().any(is_new)
}

/// The doors of a grant in the access system of a card.
fn doors_of<'a>(of: &'a GrantReport, card: &CardReport) -> &'a [DoorName] {
    let mut systems = of.doors.iter();
    systems.find(|there| there.system == card.system).map_or(&[], |there| there.doors.as_slice())
}

/// Orders a card and follows it to its end.
async fn write(
    args: &EncodeArgs,
    by: &str,
    card: &CardReport,
    begin_again: bool,
    title: &str,
) -> anyhow::Result<End> {
    let job_id = JobId(Random::system().uuid());
    let wish = DeskCard {
        access_method_id: card.access_method_id,
        encoder: args.encoder.clone(),
        again: args.again || args.begin_again,
        begin_again,
        job_id,
        card_wait_seconds: CARD_WAIT,
    };
    let request = Request::Encode { card: Box::new(wish), by: by.to_owned() };
    let Response::Added { .. } = args.agent.ask(&request).await? else { return other_answer() };
    let mut agent = admin::watch(&args.agent.socket()?, Some(job_id)).await?;
    let mut was_stopped = false;
    loop {
        let told = tokio::select! {
            told = agent.next() => told?,
            _ = ctrl_c(), if !was_stopped => {
                was_stopped = true;
                take_back(args, by, job_id).await?;
                continue;
            }
        };
        let steps = match told {
            Some(Response::Watching { jobs }) => jobs,
            Some(Response::Watched(step)) => vec![*step],
            Some(Response::Missed { .. }) => continue,
            Some(_) => return other_answer(),
            None => anyhow::bail!("the agent has stopped; `latchd jobs show {job_id}` says how it ended"),
        };
        for step in steps {
            if let Some(end) = tell(&step.moment, args, title, job_id)? {
                return Ok(end);
            }
        }
    }
}

/// Takes a job back, as far as that is possible.
async fn take_back(args: &EncodeArgs, by: &str, job_id: JobId) -> anyhow::Result<()> {
    match args.agent.ask(&Request::Cancel { job_id, by: by.to_owned() }).await {
        Ok(_) => Ok(()),
        Err(error) => Ok(print(&format!("{error:#}\n"))?),
    }
}

/// Says what came to pass; gives the end if that is it.
fn tell(moment: &Moment, args: &EncodeArgs, title: &str, job_id: JobId) -> anyhow::Result<Option<End>> {
    let (text, end) = match moment {
        Moment::WaitingForCard { within_seconds } => {
            (format!("{title}: lay a card on encoder {} within {within_seconds} s\n", args.encoder), None)
        }
        Moment::Queued => (format!("{title}: waits for encoder {}\n", args.encoder), None),
        Moment::Ended { state, code, message } => {
            let why = message.as_deref().unwrap_or_default();
            match state {
                JobState::Succeeded => (format!("{title}: written\n"), Some(End::Written)),
                JobState::Unknown => (
                    format!(
                        "{title}: IN DOUBT: {why}; read the card, then say so with `latchd jobs resolve {job_id}`\n"
                    ),
                    Some(End::InDoubt),
                ),
                JobState::Cancelled => {
                    (format!("{title}: cancelled, nothing was written\n"), Some(End::Failed))
                }
                state => {
                    let end = match code {
                        Some(Code::NoCard | Code::BadCard | Code::CardRemoved) => End::TryAnother,
                        _ => End::Failed,
                    };
                    let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
                    (format!("{title}: {state}: {why}{code}\n"), Some(end))
                }
            }
        }
        Moment::Sent | Moment::WaitingForConfirmation | Moment::Resolved { .. } | Moment::Other => {
            return Ok(None);
        }
    };
    print(&text)?;
    Ok(end)
}
