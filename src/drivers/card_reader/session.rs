//! A conversation with a PN532: wake it, set it up, and read the number of the next card that is laid down.
//!
//! A number counts once it was read twice in a row with nothing else in the field: a card on its way through, two cards at
//! once and a wrong bit are none.

use std::time::{Duration, Instant};

use super::codec::{ACK, Command, Decoder, Firmware, Frame, Target, WAKE};
use crate::transport::{Input, Output, Session};

/// What a conversation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// See what is there.
    Identify,
    /// Read the number of a card that is laid down within this time.
    Read(Duration),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// A reader is there.
    Identified(Firmware),
    /// This card was laid down.
    Card(Target),
    /// None was, or none that could be taken; the last reason is told.
    NoCard(Option<NoNumber>),
    /// The chip does not answer, or not as one.
    Silent,
    /// It is something else.
    OtherChip(u8),
    /// The line hung up.
    Closed,
}

/// Why a card that was seen was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoNumber {
    /// Several lay there at once.
    Several,
    /// Its number is another one each time.
    Random,
    /// It was read before, and has not been lifted since.
    Former,
}

/// What it tells on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The reader is ready: lay a card down.
    Waiting,
}

/// A PN532 answers within 15 ms that it heard; an adapter that was just opened may take much longer for the first time.
const HEARD_WITHIN: Duration = Duration::from_millis(1500);
/// What it does itself, without a card.
const DONE_WITHIN: Duration = Duration::from_secs(1);
/// So many faults end it, unless a whole look went well in between.
const FAULTS: u32 = 3;
/// A card was lifted when so many looks in a row show none: one that lies at the edge of the field comes and goes.
const EMPTY_LOOKS: u32 = 3;
/// A card that comes and goes is looked after for so long beyond the time.
const GRACE: Duration = Duration::from_secs(2);
/// The field rests so long between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the chip calls a card in one look.
const CALLS: u8 = 2;
/// Two lying there at once are seen.
const MOST_CARDS: u8 = 2;
/// Cards of ISO 14443-4 are selected by themselves; libnfc sets the same.
const PARAMETERS: u8 = 0x14;
const PN532: u8 = 0x32;

/// One conversation.
#[derive(Debug)]
pub struct Conversation {
    task: Task,
    /// The card of the reading before, which may still lie there.
    former: Option<Vec<u8>>,
    decoder: Decoder,
    step: Step,
    /// Until when a card is waited for.
    give_up: Option<Instant>,
    /// The card that was seen in the last look.
    seen: Option<Target>,
    why_not: Option<NoNumber>,
    faults: u32,
    /// Looks in a row that showed nothing.
    empty_looks: u32,
    /// How it ends, once the field is off.
    came: Option<Came>,
    outputs: std::collections::VecDeque<Output<Came, Note>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Nothing was said yet.
    Start,
    /// This was said, and is to be heard or answered until then.
    Said { what: Say, heard: bool, until: Instant },
    /// Nothing to do before.
    Rest(Instant),
    /// Over.
    End,
}

/// What is said, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    Wake,
    Firmware,
    Parameters,
    Retries,
    /// Cards lose their power: whatever somebody said to them before, they are called anew.
    FieldOff,
    Look,
    /// The card is let go, and then it is looked again.
    Release,
    /// The last that is said.
    Rest,
}

impl Say {
    fn command(self) -> Command {
        match self {
            Self::Wake => Command::SamConfiguration,
            Self::Firmware => Command::GetFirmwareVersion,
            Self::Parameters => Command::SetParameters(PARAMETERS),
            Self::Retries => Command::Retries(CALLS),
            Self::FieldOff | Self::Rest => Command::Field(false),
            Self::Look => Command::ListTargets(MOST_CARDS),
            Self::Release => Command::Release,
        }
    }
}

impl Conversation {
    /// A conversation. A card with the number `former` was read before: it counts only once it was lifted.
    #[must_use]
    pub fn new(task: Task, former: Option<Vec<u8>>) -> Self {
        Self {
            task,
            former,
            decoder: Decoder::default(),
            step: Step::Start,
            give_up: None,
            seen: None,
            why_not: None,
            faults: 0,
            empty_looks: 0,
            came: None,
            outputs: std::collections::VecDeque::new(),
        }
    }

    /// Whether the card of the reading before was lifted, or another one laid down.
    #[must_use]
    pub fn former_is_gone(&self) -> bool {
        self.former.is_none()
    }

    fn say(&mut self, now: Instant, what: Say) {
        self.decoder.clear();
        let mut frame = what.command().frame().expect("no command here is long");
        if what == Say::Wake {
            frame = [&WAKE[..], &frame].concat();
        }
        self.outputs.push_back(Output::Write(frame));
        self.step = Step::Said { what, heard: false, until: now + HEARD_WITHIN };
    }

    /// It ends so, with the field off: nothing that lies there keeps what was said to it.
    fn end_with(&mut self, now: Instant, came: Came) {
        self.came = Some(came);
        self.say(now, Say::Rest);
    }

    fn over(&mut self) {
        let came = self.came.take().unwrap_or(Came::Silent);
        self.end(came);
    }

    fn end(&mut self, came: Came) {
        self.step = Step::End;
        self.outputs.push_back(Output::Done(came));
    }

    /// It was not heard, or not answered: it is said again, and the chip may have fallen asleep.
    fn again(&mut self, now: Instant) {
        let Step::Said { what, heard, .. } = self.step else { return };
        if what == Say::Rest {
            return self.over();
        }
        self.faults += 1;
        if FAULTS <= self.faults || self.give_up.is_some_and(|at| at + GRACE <= now) {
            return self.end(Came::Silent);
        }
        if heard {
            // Whatever it still does, it ends.
            self.outputs.push_back(Output::Write(ACK.to_vec()));
        }
        if what == Say::Look || what == Say::Release {
            // A chip that lost its power has forgotten how it was set up.
            self.seen = None;
            return self.say(now, Say::Wake);
        }
        self.say(now, what);
    }

    fn answered(&mut self, now: Instant, what: Say, data: &[u8]) {
        match what {
            Say::Wake => self.say(now, Say::Firmware),
            Say::Firmware => match (Firmware::read(data), self.task) {
                (None, _) => self.again(now),
                (Some(firmware), Task::Identify) => self.end(Came::Identified(firmware)),
                (Some(firmware), Task::Read(_)) if firmware.chip != PN532 => {
                    self.end(Came::OtherChip(firmware.chip));
                }
                (Some(_), Task::Read(_)) => self.say(now, Say::Parameters),
            },
            Say::Parameters => self.say(now, Say::Retries),
            Say::Retries => {
                let Task::Read(within) = self.task else { return self.end(Came::Silent) };
                if self.give_up.is_none() {
                    self.give_up = Some(now + within);
                    self.outputs.push_back(Output::Note(Note::Waiting));
                }
                self.say(now, Say::FieldOff);
            }
            Say::FieldOff => self.say(now, Say::Look),
            Say::Look => match Target::read_list(data) {
                None => self.again(now),
                Some(targets) => self.looked(now, targets),
            },
            Say::Release => self.rest(now),
            Say::Rest => self.over(),
        }
    }

    /// What lay there in a look.
    fn looked(&mut self, now: Instant, targets: Vec<Target>) {
        self.empty_looks = if targets.is_empty() { self.empty_looks + 1 } else { 0 };
        let is_former = |target: &Target| self.former.as_ref() == Some(&target.uid);
        let was_one = !targets.is_empty();
        let taken = match targets.as_slice() {
            [] => {
                if EMPTY_LOOKS <= self.empty_looks {
                    self.former = None;
                }
                None
            }
            [target] if is_former(target) => {
                self.why_not = Some(NoNumber::Former);
                None
            }
            [target] if target.is_random() => {
                self.former = None;
                self.why_not = Some(NoNumber::Random);
                None
            }
            [target] => {
                self.former = None;
                Some(target.clone())
            }
            _ => {
                self.why_not = Some(NoNumber::Several);
                None
            }
        };
        match taken {
            Some(target) if self.seen.as_ref() == Some(&target) => {
                return self.end_with(now, Came::Card(target));
            }
            taken => self.seen = taken,
        }
        // A card that stays selected does not answer the next call.
        if was_one { self.say(now, Say::Release) } else { self.rest(now) }
    }

    fn rest(&mut self, now: Instant) {
        self.faults = 0;
        match self.give_up {
            // What was seen once is looked at once more.
            Some(at) if at + GRACE <= now || (at <= now && self.seen.is_none()) => {
                self.end_with(now, Came::NoCard(self.why_not));
            }
            _ if self.seen.is_some() => self.say(now, Say::Look),
            _ => self.step = Step::Rest(now + LOOK_EVERY),
        }
    }
}

impl Session for Conversation {
    type Done = Came;
    type Note = Note;
    const PRIVATE: bool = true;

    fn poll(&mut self, now: Instant) -> Output<Came, Note> {
        if self.step == Step::Start {
            self.say(now, Say::Wake);
        }
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        match self.step {
            Step::Said { until, .. } | Step::Rest(until) => Output::Wait { until },
            Step::Start | Step::End => Output::Done(Came::Silent),
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Closed => {
                self.outputs.clear();
                let came = self.came.take().unwrap_or(Came::Closed);
                self.end(came);
            }
            Input::Timeout => match self.step {
                Step::Said { until, .. } if until <= now => self.again(now),
                Step::Rest(until) if until <= now => self.say(now, Say::Look),
                _ => {}
            },
            Input::Bytes(bytes) => {
                self.decoder.push(bytes);
                while let Some(frame) = self.decoder.next_frame() {
                    let Step::Said { what, heard, .. } = self.step else { continue };
                    match frame {
                        Frame::Ack => {
                            self.step = Step::Said { what, heard: true, until: now + DONE_WITHIN };
                        }
                        Frame::Nack | Frame::SyntaxError => self.again(now),
                        // A late answer to something else is none.
                        Frame::Answer(code, data) if heard && code == what.command().code() + 1 => {
                            self.answered(now, what, &data);
                        }
                        Frame::Answer(..) => {}
                    }
                }
            }
        }
    }
}
