//! The one state behind every line, and the steps of an order through it.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use jiff::{Timestamp, civil::DateTime};
use serde::Serialize;

use super::{
    command::{Command, Dates, Dialect, Encode, parse},
    faults::{Fault, Faults},
    property::Property,
    server::{Line, Settings},
    wire::Style,
    world::{Denial, World},
};
use crate::sim::Tape;

#[derive(Debug)]
pub(super) struct State {
    pub property: Property,
    pub world: World,
    pub faults: Faults,
    pub tape: Tape,
    pub orders: VecDeque<Record>,
    pub card_wait: Duration,
    pub style: Style,
    pub serial: Plug,
    pub tcp: Plug,
    /// Conversations going on.
    pub open: BTreeSet<String>,
    pub quit: bool,
    /// The serial port's link, when there is one.
    pub tty: Option<PathBuf>,
    /// The TCP address, when there is one.
    pub address: Option<SocketAddr>,
    pub max_clients: usize,
    pub baud: Option<NonZeroU32>,
    pub conversations: u64,
    pub dialect: Dialect,
    dates: Dates,
    last_order: u64,
    ends: u64,
}

/// Whether a line is plugged in.
#[derive(Debug)]
pub(super) struct Plug {
    pub up: bool,
    /// How often it was pulled: a quick unplug and replug must not go unnoticed.
    pub pulls: u64,
    /// Whether a port is published under its name right now; `None` when the line has no port of ours.
    pub published: Option<bool>,
}

impl Plug {
    fn new() -> Self {
        Self { up: true, pulls: 0, published: None }
    }

    pub(super) fn pull(&mut self) {
        self.up = false;
        self.pulls += 1;
    }
}

/// An order in the log: every frame that was acknowledged.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Record {
    n: u64,
    at: Timestamp,
    line: String,
    fields: Vec<String>,
    /// `waiting`, `written`, `done`, `silent`, or the code of the denial.
    result: &'static str,
    /// Why, where the wire does not say it.
    why: Option<String>,
    card: Option<String>,
    serial: Option<String>,
    /// What a card that was read holds.
    read: Option<Vec<String>>,
    ended_at: Option<Timestamp>,
    /// Counts ends: the clock may have been set between two of them.
    ended_as: Option<u64>,
}

/// How many orders the log keeps.
const KEPT: usize = 10_000;
/// A command that needs a card.
#[derive(Debug)]
pub(super) enum Waiting {
    Encode(Encode),
    Read { said: String, encoder: String, ejects: bool },
}

impl Waiting {
    pub(super) fn encoder(&self) -> &str {
        match self {
            Self::Encode(encode) => &encode.encoder,
            Self::Read { encoder, .. } => encoder,
        }
    }

    fn ejects(&self) -> bool {
        match self {
            Self::Encode(encode) => encode.ejects,
            Self::Read { ejects, .. } => *ejects,
        }
    }
}

pub(super) enum Begun {
    Waiting(Waiting),
    Ended(End),
}

/// How an order ended.
#[derive(Debug)]
pub(super) enum End {
    Written { card: String, serial: String, answer: Vec<String>, silent: bool },
    Done { answer: Vec<String> },
    Silent,
    Denied { code: &'static str, why: String },
}

impl End {
    pub(super) fn answer(self, asked: &[String]) -> Option<Vec<String>> {
        match self {
            Self::Silent | Self::Written { silent: true, .. } => None,
            Self::Written { answer, .. } | Self::Done { answer } => Some(answer),
            Self::Denied { code, why } => {
                let mut answer = vec![code.to_owned()];
                answer.extend(asked.get(1).cloned());
                if code == "EG" {
                    answer.resize(2, String::new());
                    answer.push(why);
                }
                Some(answer)
            }
        }
    }
}

impl From<Denial> for End {
    fn from(denial: Denial) -> Self {
        Self::Denied { code: denial.code, why: denial.text.to_owned() }
    }
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        let (dates, style) = match settings.dialect {
            Dialect::Salto => (settings.dates, settings.style),
            Dialect::Onity | Dialect::AmadeusSt40 => {
                (Dates::Hours, Style { true_check: false, ..settings.style })
            }
        };
        Self {
            world: World::new(&settings.property, dates),
            property: settings.property,
            faults: Faults::default(),
            tape: Tape::default(),
            orders: VecDeque::new(),
            card_wait: settings.card_wait,
            style,
            serial: Plug::new(),
            tcp: Plug::new(),
            open: BTreeSet::new(),
            quit: false,
            tty: None,
            address: None,
            max_clients: settings.max_clients,
            baud: settings.baud,
            conversations: 0,
            dialect: settings.dialect,
            dates,
            last_order: 0,
            ends: 0,
        }
    }

    pub(super) fn plug(&self, line: Line) -> &Plug {
        match line {
            Line::Serial => &self.serial,
            Line::Tcp => &self.tcp,
        }
    }

    pub(super) fn plug_mut(&mut self, line: Line) -> &mut Plug {
        match line {
            Line::Serial => &mut self.serial,
            Line::Tcp => &mut self.tcp,
        }
    }

    pub(super) fn log(&mut self, now: Timestamp, label: &str, fields: Vec<String>) -> u64 {
        self.last_order += 1;
        if self.orders.len() == KEPT {
            self.orders.pop_front();
        }
        self.orders.push_back(Record {
            n: self.last_order,
            at: now,
            line: label.to_owned(),
            fields,
            result: "waiting",
            why: None,
            card: None,
            serial: None,
            read: None,
            ended_at: None,
            ended_as: None,
        });
        self.last_order
    }

    pub(super) fn close(&mut self, n: u64, now: Timestamp, end: &End) {
        let Some(record) = self.orders.iter_mut().rev().find(|record| record.n == n) else {
            return;
        };
        record.ended_at = Some(now);
        self.ends += 1;
        record.ended_as = Some(self.ends);
        match end {
            End::Written { card, serial, .. } => {
                record.result = "written";
                record.card = Some(card.clone());
                record.serial = Some(serial.clone());
            }
            End::Done { answer } => {
                record.result = "done";
                record.read = answer
                    .split_first()
                    .filter(|(what, _)| what.starts_with("LT"))
                    .map(|(_, it)| it[1..].to_vec());
            }
            End::Silent => record.result = "silent",
            End::Denied { code, why } => {
                record.result = code;
                record.why = Some(why.clone());
            }
        }
        tracing::info!(
            order = n,
            result = record.result,
            card = record.card,
            why = record.why,
            "order ended"
        );
    }

    pub(super) fn begin(&mut self, fields: &[String], now: DateTime) -> Begun {
        if let Some((code, why)) = self.faults.error() {
            return Begun::Ended(End::Denied { code, why });
        }
        if self.faults.strikes(Fault::SilentAnswer) {
            return Begun::Ended(End::Silent);
        }
        let command = match parse(fields, self.dates, self.dialect) {
            Ok(command) => command,
            Err(syntax) => {
                let why = syntax.to_string();
                return Begun::Ended(End::Denied { code: "ES", why });
            }
        };
        let begun = match command {
            Command::Encode(_) if self.faults.strikes(Fault::DemoFail) => {
                Err(Denial { code: "EG", text: "told to fail" })
            }
            Command::Encode(encode) => self.world.admit(&encode, now).map(|()| {
                self.world.occupy(&encode.encoder, Some(&encode.rooms));
                Begun::Waiting(Waiting::Encode(encode))
            }),
            Command::Read { said, encoder, ejects } => self.world.idle(&encoder).map(|()| {
                self.world.occupy(&encoder, Some(&[]));
                Begun::Waiting(Waiting::Read { said, encoder, ejects })
            }),
            Command::CheckOut { encoder, room } => {
                self.world.check_out(encoder.as_deref().unwrap_or("0"), &room).map(|()| {
                    Begun::Ended(End::Done {
                        answer: [Some("CO".into()), encoder].into_iter().flatten().collect(),
                    })
                })
            }
            Command::Modify(modify) => self
                .world
                .modify(&modify, now)
                .map(|()| Begun::Ended(End::Done { answer: vec!["MC".into(), modify.room] })),
        };
        begun.unwrap_or_else(|denial| Begun::Ended(denial.into()))
    }

    pub(super) fn finish(&mut self, waiting: &Waiting, now: DateTime) -> End {
        self.world.occupy(waiting.encoder(), None);
        let end = match waiting {
            Waiting::Encode(encode) => self.world.write(encode, now).map(|made| {
                let mut answer = vec![encode.said.clone(), encode.encoder.clone()];
                if encode.serial_wanted {
                    answer.push(made.serial.clone());
                }
                End::Written {
                    card: made.card,
                    serial: made.serial,
                    answer,
                    silent: self.faults.strikes(Fault::WriteThenSilent),
                }
            }),
            Waiting::Read { said, encoder, .. } => self.world.read(encoder, now).map(|fields| {
                let mut answer = vec![said.clone(), encoder.clone()];
                answer.extend(fields);
                End::Done { answer }
            }),
        };
        if waiting.ejects() {
            self.world.eject(waiting.encoder());
        }
        end.unwrap_or_else(Into::into)
    }

    /// How many orders came to an end since the start.
    pub(super) fn orders_ended(&self) -> u64 {
        let kept = self.orders.iter().filter(|record| record.ended_at.is_some()).count();
        self.last_order - self.orders.len() as u64 + kept as u64
    }

    /// How many of `count` bytes may pass before the line hangs up.
    pub(super) fn pass(&mut self, count: usize) -> usize {
        match &mut self.faults.close_after_bytes {
            None => count,
            Some(left) => {
                let passed = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= passed as u64;
                passed
            }
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.faults.close_after_bytes == Some(0)
    }
}
