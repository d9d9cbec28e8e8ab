//! One conversation with a board. No IO, no clock.
//!
//! ```text
//! status        STATUS
//! clock         TIME  (SET-TIME  TIME)
//! open          STATUS  OPEN                              asked once; silence from here on is a doubt
//! put card      (PROFILE …)  PUT  CARD                    done only if the board shows exactly what was ordered
//! delete card   DELETE  CARD                              done only if the board shows no such card
//! put profiles  (SET-PROFILE  PROFILE) …                  the last of a chain first: none ever leads nowhere
//! listen        LISTENER  (SET-LISTENER  LISTENER)
//! list          COUNT  (CARD-AT …)
//! see           COUNT  CARD
//! profiles      PROFILE …
//! events        NEWEST  OLDEST  (EVENT …)
//! ```
//! Each write is one request. It has to leave by a UDP port of its own, or a TCP connection of its own: answers carry no
//! number, and a late one to an earlier request must find nobody. What comes back is given to the conversation whole, one
//! datagram at a time; what is not the answer is passed over.
//!
//! A request without an answer is sent again, but the one to open a door. Before a command that changes something is sent
//! again, the board is read: perhaps only the answer was lost.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, civil::DateTime};

pub use super::task::{Came, Manners, Note, Task};
use super::{
    codec::{Function, Wrong},
    events::{Mark, Span},
    reply::{Answer, Reply},
    request::Request,
    values::{Card, CardNumber, Event, Held, TimeProfile},
};
use crate::{
    model::{Code, Refusal},
    transport::{Input, Output, Session},
};

/// Places of a list that are looked at: more than any board has, since a peer may never come to an end.
const PLACES: u32 = 100_000;

/// One conversation.
#[derive(Debug)]
pub struct Conversation {
    serial: u32,
    task: Task,
    manners: Manners,
    begun: Option<Instant>,
    state: At,
    notes: VecDeque<Note>,
    /// It was told that the next command leaves.
    is_told: bool,
    /// A command was handed out for writing.
    left: bool,
    /// Commands that were handed out since the last one that the board showed as done.
    commands: u32,
    /// The board refused the last command.
    refused: bool,
    /// Profiles that a card names and that are to be seen; and those that were.
    to_see: Vec<u8>,
    seen: BTreeSet<u8>,
    /// Profiles that are still to be put.
    to_put: Vec<TimeProfile>,
    /// Cards that the board says it has, and those read.
    count: u32,
    cards: Vec<Card>,
    numbers: BTreeSet<CardNumber>,
    /// Profiles that were read.
    profiles: Vec<TimeProfile>,
    log: Log,
}

/// The reading of a log.
#[derive(Debug, Default)]
struct Log {
    newest: u32,
    /// The record under the mark is another one.
    is_new: bool,
    oldest: u32,
    to: u32,
    events: Vec<Event>,
    lost: u64,
    mark: Option<Mark>,
}

#[derive(Debug)]
enum At {
    Ask { request: Request, tried: u32 },
    Asked { request: Request, tried: u32, until: Instant },
    Over(Came),
}

impl Conversation {
    /// A conversation with the board of this serial number, not begun.
    #[must_use]
    pub fn new(serial: u32, task: Task, manners: Manners) -> Self {
        let mut it = Self {
            serial,
            manners,
            begun: None,
            state: At::Over(Came::Done),
            notes: VecDeque::new(),
            is_told: false,
            left: false,
            commands: 0,
            refused: false,
            to_see: Vec::new(),
            seen: BTreeSet::new(),
            to_put: Vec::new(),
            count: 0,
            cards: Vec::new(),
            numbers: BTreeSet::new(),
            profiles: Vec::new(),
            log: Log::default(),
            task: task.clone(),
        };
        match task {
            Task::Status | Task::Open(_) => it.ask(Request::GetStatus),
            Task::Clock { .. } => it.ask(Request::GetTime),
            Task::PutCard(card) => {
                it.to_see = card.doors.into_iter().filter(|door| (2..=254).contains(door)).collect();
                it.see_profiles(card);
            }
            Task::DeleteCard(card) => it.ask(Request::DeleteCard(card)),
            Task::PutProfiles(profiles) => {
                it.to_put = profiles;
                it.put_profile();
            }
            Task::Listen(_) => it.ask(Request::GetListener),
            Task::List | Task::See(_) => it.ask(Request::CountCards),
            Task::Profiles(range) => it.see_defined(*range.start()),
            Task::Events { .. } => it.ask(Request::GetEvent(u32::MAX)),
        }
        it
    }

    fn ask(&mut self, request: Request) {
        self.state = At::Ask { request, tried: 0 };
    }

    fn end(&mut self, came: Came) {
        self.state = At::Over(came);
    }

    /// Ends without what was asked for.
    fn fail(&mut self, code: Code, message: &str) {
        let came = if self.left {
            let message = format!("{message} after the command had left; it may have been done");
            Came::Doubt(Refusal::new(code, message))
        } else {
            Came::NothingSent(Refusal::new(code, message))
        };
        self.end(came);
    }

    /// Ends because of an answer that cannot be.
    fn strange(&mut self, message: &str) {
        let code = if self.left { Code::NoAnswer } else { Code::ProtocolViolation };
        self.fail(code, message);
    }

    fn not_understood(&mut self, wrong: &Wrong) {
        self.strange(&format!("the board's answer was not understood ({wrong})"));
    }

    /// The request of now was not answered.
    fn unanswered(&mut self) {
        let At::Asked { request, tried, .. } = &self.state else { return };
        let (request, tried) = (request.clone(), *tried);
        match (&request, self.reads_back(&request)) {
            (Request::OpenDoor(_), _) => self.fail(Code::NoAnswer, "the board did not answer"),
            // Perhaps it was done, and only the answer is lost.
            (_, Some(look)) => self.ask(look),
            _ if tried < self.manners.tries => self.state = At::Ask { request, tried },
            _ => {
                let code = if self.left { Code::NoAnswer } else { Code::DeviceOffline };
                self.fail(code, "the board did not answer");
            }
        }
    }

    /// What shows whether this command was done.
    fn reads_back(&self, request: &Request) -> Option<Request> {
        match request {
            Request::PutCard(card) => Some(Request::GetCard(card.number)),
            Request::DeleteCard(card) => Some(Request::GetCard(*card)),
            Request::SetTimeProfile(profile) => Some(Request::GetTimeProfile(profile.id)),
            Request::SetTime(_) => Some(Request::GetTime),
            Request::SetListener(_) => Some(Request::GetListener),
            _ => None,
        }
    }

    /// The board shows that the command was not done.
    fn not_shown(&mut self, again: Request, what: &str) {
        if self.refused {
            return self
                .end(Came::NotDone(Refusal::new(Code::Rejected, format!("the board refused {what}"))));
        }
        if self.commands < self.manners.tries {
            return self.ask(again);
        }
        let message = format!("the board does not show {what} after it was sent {} times", self.commands);
        self.end(Came::NotDone(Refusal::new(Code::Rejected, message)));
    }

    fn hear(&mut self, now: Instant, bytes: &[u8]) {
        let At::Asked { request, .. } = &self.state else { return };
        let Some(&[code, _, _, a, b, c, d]) = bytes.get(1..8) else { return };
        let is_ours =
            Function::of(code) == Ok(request.function()) && u32::from_le_bytes([a, b, c, d]) == self.serial;
        let request = request.clone();
        let answer = match Reply::decode(bytes) {
            Ok(reply) if is_ours => reply.answer,
            // Noise, another board, or an answer to something else.
            Ok(_) | Err(Wrong::Length(_) | Wrong::Start(_)) => return,
            Err(_) if !is_ours => return,
            Err(wrong) => match request {
                Request::GetEvent(index) if index != 0 && index != u32::MAX => {
                    return self.event_read(index, None);
                }
                _ => return self.not_understood(&wrong),
            },
        };
        self.answered(now, request, answer);
    }

    fn answered(&mut self, now: Instant, request: Request, answer: Answer) {
        match (request, answer) {
            (Request::GetStatus, Answer::Status(status)) => {
                self.notes.push_back(Note::Status(status));
                match self.task {
                    Task::Open(door) => self.ask(Request::OpenDoor(door)),
                    _ => self.end(Came::Done),
                }
            }
            (Request::OpenDoor(_), Answer::Done(done)) => self.end(if done {
                Came::Done
            } else {
                Came::NotDone(Refusal::new(Code::Rejected, "the board refused to open the door"))
            }),
            (Request::GetTime, Answer::Time(shown)) => self.clock_seen(now, shown),
            (Request::SetTime(_), Answer::Time(_)) => self.ask(Request::GetTime),
            (request, Answer::Done(done)) => {
                if let Some(look) = self.reads_back(&request) {
                    // A card that was not there to be deleted is no refusal; the reading decides.
                    self.refused = !done && !matches!(request, Request::DeleteCard(_));
                    self.ask(look);
                }
            }
            (Request::GetCard(asked), Answer::Card(held)) => self.card_seen(asked, held),
            (Request::GetTimeProfile(asked), Answer::TimeProfile(shown)) => self.profile_seen(asked, shown),
            (Request::GetListener, Answer::Listener(shown)) => {
                let Task::Listen(wanted) = self.task else { return };
                if shown == wanted {
                    return self.end(Came::Done);
                }
                if !self.left {
                    self.notes.push_back(Note::ListenedElsewhere(shown));
                }
                self.not_shown(Request::SetListener(wanted), "where to send its events");
            }
            (Request::CountCards, Answer::Cards(count)) => {
                self.count = count;
                if let Task::See(card) = self.task {
                    return self.ask(Request::GetCard(card));
                }
                if count == 0 { self.listed() } else { self.ask(Request::GetCardByIndex(1)) }
            }
            (Request::GetCardByIndex(index), Answer::Card(held)) => self.card_listed(index, held),
            (Request::GetEvent(index), Answer::Event(event)) => self.event_heard(index, event),
            // Functions tell which answer comes: nothing else can.
            _ => {}
        }
    }

    fn clock_seen(&mut self, now: Instant, shown: Option<DateTime>) {
        let Task::Clock { now: right, bound } = self.task else { return };
        let elapsed = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let Ok(right) = SignedDuration::try_from(elapsed).and_then(|elapsed| right.checked_add(elapsed))
        else {
            return self.fail(Code::Rejected, "the time lies outside the calendar");
        };
        let by = shown.map(|shown| shown.duration_since(right));
        if by.is_some_and(|by| by.abs() <= bound.abs()) {
            return self.end(Came::Done);
        }
        if !self.left {
            self.notes.push_back(Note::ClockOff { by });
        }
        let whole = right.with().subsec_nanosecond(0).build().unwrap_or(right);
        self.not_shown(Request::SetTime(whole), "its clock as it was set");
    }

    /// Sees whether the next profile is there that the card needs; puts it once all are.
    fn see_profiles(&mut self, card: Card) {
        while let Some(id) = self.to_see.pop() {
            if self.seen.insert(id) {
                return self.ask(Request::GetTimeProfile(id));
            }
        }
        self.ask(Request::PutCard(card));
    }

    /// Reads the next of a range of profiles.
    fn see_defined(&mut self, id: u8) {
        match &self.task {
            Task::Profiles(range) if range.contains(&id) => self.ask(Request::GetTimeProfile(id)),
            _ => {
                let profiles = std::mem::take(&mut self.profiles);
                self.notes.push_back(Note::Profiles(profiles));
                self.end(Came::Done);
            }
        }
    }

    fn profile_seen(&mut self, asked: u8, shown: Option<TimeProfile>) {
        if shown.as_ref().is_some_and(|shown| shown.id != asked) {
            // A late answer about another one.
            return;
        }
        match &self.task {
            Task::Profiles(_) => {
                self.profiles.extend(shown);
                self.see_defined(asked.saturating_add(1));
            }
            Task::PutCard(card) => {
                let card = card.clone();
                let Some(shown) = shown else {
                    let message = format!("the board has no time profile {asked}");
                    return self.end(Came::NothingSent(Refusal::new(Code::Rejected, message)));
                };
                self.to_see.extend((shown.linked != 0).then_some(shown.linked));
                self.see_profiles(card);
            }
            _ => {
                let Some(wanted) = self.to_put.last() else { return };
                if shown.as_ref() == Some(wanted) {
                    self.to_put.pop();
                    return self.put_profile();
                }
                let again = Request::SetTimeProfile(wanted.clone());
                self.not_shown(again, &format!("time profile {asked}"));
            }
        }
    }

    /// Puts the next profile; those at the end of a chain first.
    fn put_profile(&mut self) {
        self.commands = 0;
        self.refused = false;
        match self.to_put.last() {
            Some(profile) => self.ask(Request::SetTimeProfile(profile.clone())),
            None => self.end(Came::Done),
        }
    }

    fn card_seen(&mut self, asked: CardNumber, held: Held) {
        if matches!(&held, Held::Card(card) if card.number != asked) {
            // A late answer about another one.
            return;
        }
        match &self.task {
            Task::PutCard(wanted) if held == Held::Card(wanted.clone()) => self.end(Came::Done),
            Task::PutCard(wanted) => {
                let again = Request::PutCard(wanted.clone());
                self.not_shown(again, "the card");
            }
            Task::DeleteCard(_) if matches!(held, Held::Nothing | Held::Deleted) => self.end(Came::Done),
            Task::DeleteCard(_) => self.not_shown(Request::DeleteCard(asked), "that the card is gone"),
            Task::See(_) => {
                self.notes.push_back(Note::Sees { count: self.count, held });
                self.end(Came::Done);
            }
            _ => {}
        }
    }

    fn card_listed(&mut self, index: u32, held: Held) {
        match held {
            Held::Nothing => return self.listed(),
            Held::Deleted => {}
            Held::Card(card) => {
                if !self.numbers.insert(card.number) {
                    return self.strange("the board lists a card twice");
                }
                self.cards.push(card);
            }
        }
        if self.cards.len() as u64 >= u64::from(self.count) || index >= PLACES {
            return self.listed();
        }
        self.ask(Request::GetCardByIndex(index + 1));
    }

    fn listed(&mut self) {
        let cards = std::mem::take(&mut self.cards);
        let is_whole = cards.len() as u64 == u64::from(self.count);
        self.notes.push_back(Note::Holds { cards, is_whole });
        self.end(Came::Done);
    }

    fn event_heard(&mut self, asked: u32, event: Option<Event>) {
        let Task::Events { after, .. } = self.task else { return };
        match (asked, event) {
            (u32::MAX, None) => {
                // Nothing is there: all that was read is gone with the rest.
                self.log.lost = u64::from(after.is_some());
                self.happened(false);
            }
            (u32::MAX, Some(event)) => {
                self.log.newest = event.index;
                let behind = after.filter(|mark| (1..=event.index).contains(&mark.index));
                match behind {
                    Some(mark) if mark.index == event.index => {
                        self.log.is_new = mark.is_contradicted(&event);
                        self.ask(Request::GetEvent(0));
                    }
                    Some(mark) => self.ask(Request::GetEvent(mark.index)),
                    None => self.ask(Request::GetEvent(0)),
                }
            }
            (0, None) => self.strange("the board has a newest event and no oldest"),
            (0, Some(event)) => self.plan(event.index),
            (index, event) if self.log.oldest == 0 => {
                // The record under the mark.
                if event.as_ref().is_some_and(|event| event.index != index) {
                    return;
                }
                let is_contradicted = |mark: Mark| event.is_some_and(|event| mark.is_contradicted(&event));
                self.log.is_new = after.is_some_and(is_contradicted);
                self.ask(Request::GetEvent(0));
            }
            // A late answer about another one.
            (index, Some(event)) if event.index != index => {}
            (index, event) => self.event_read(index, event.filter(|event| !event.is_overwritten())),
        }
    }

    /// The ends of the log are known.
    fn plan(&mut self, oldest: u32) {
        let Task::Events { after, most } = self.task else { return };
        let newest = self.log.newest;
        if newest < oldest {
            return self.strange("the board's oldest event is newer than its newest");
        }
        self.log.oldest = oldest;
        let span = match after {
            Some(_) if self.log.is_new => Span::after_reset(oldest, newest),
            after => Span::behind(after.map(|mark| mark.index), oldest, newest),
        };
        // A mark that leads nowhere any more is not handed on.
        let is_kept = after.is_some_and(|mark| mark.index <= newest) && !self.log.is_new;
        self.log.mark = after.filter(|_| is_kept);
        self.log.lost = span.lost;
        if span.to < span.from || most == 0 {
            return self.happened(span.from <= span.to);
        }
        self.log.to = span.to.min(span.from.saturating_add(most - 1));
        self.ask(Request::GetEvent(span.from));
    }

    /// The record of this number, or that there is none.
    fn event_read(&mut self, index: u32, event: Option<Event>) {
        if self.log.oldest == 0 {
            // Only whether it is the marked one was to be seen.
            return self.ask(Request::GetEvent(0));
        }
        match event {
            Some(event) => {
                self.log.mark = Some(Mark::behind(&event));
                self.log.events.push(event);
            }
            None => {
                self.log.lost += 1;
                self.log.mark = Some(Mark { index, at: None });
            }
        }
        if index < self.log.to {
            return self.ask(Request::GetEvent(index + 1));
        }
        self.happened(self.log.to < self.log.newest);
    }

    fn happened(&mut self, more: bool) {
        let Log { events, lost, mark, .. } = std::mem::take(&mut self.log);
        self.notes.push_back(Note::Happened { events, lost, mark, more });
        self.end(Came::Done);
    }

    fn expire(&mut self, now: Instant) {
        if matches!(self.state, At::Asked { until, .. } if until <= now) {
            self.unanswered();
        }
    }
}

impl Session for Conversation {
    type Done = Came;
    type Note = Note;
    const PRIVATE: bool = true;

    fn poll(&mut self, now: Instant) -> Output<Came, Note> {
        self.begun.get_or_insert(now);
        // A peer that never stops sending would keep the shell from ever reporting a timeout.
        self.expire(now);
        loop {
            if let Some(note) = self.notes.pop_front() {
                return Output::Note(note);
            }
            let (request, tried) = match &self.state {
                At::Asked { until, .. } => return Output::Wait { until: *until },
                At::Over(came) => return Output::Done(came.clone()),
                At::Ask { request, tried } => (request.clone(), *tried + 1),
            };
            let frame = match request.encode(self.serial) {
                Ok(frame) => frame,
                Err(wrong) => {
                    let why = Refusal::new(Code::Rejected, format!("no board may be told this: {wrong}"));
                    self.end(if self.left { Came::NotDone(why) } else { Came::NothingSent(why) });
                    continue;
                }
            };
            if changes(&request) && !self.is_told {
                self.is_told = true;
                return Output::Note(Note::Leaves);
            }
            if changes(&request) {
                self.is_told = false;
                self.left = true;
                self.commands += 1;
            }
            self.state = At::Asked { request, tried, until: now + self.manners.answer_timeout };
            return Output::Write(frame.to_vec());
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Timeout => self.expire(now),
            // Nobody is there, or the answer is lost with its connection.
            Input::Closed => self.unanswered(),
            Input::Bytes(bytes) => self.hear(now, bytes),
        }
    }
}

/// Whether it changes something at the board.
fn changes(request: &Request) -> bool {
    matches!(
        request,
        Request::PutCard(_)
            | Request::DeleteCard(_)
            | Request::SetTimeProfile(_)
            | Request::SetTime(_)
            | Request::SetListener(_)
            | Request::OpenDoor(_)
    )
}
