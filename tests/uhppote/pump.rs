//! Lets a conversation talk with pretend boards, without a line and without time.

use std::time::{Duration, Instant};

use jiff::civil::{Time, date, time};
use latchd::{
    drivers::uhppote::{
        session::{Came, Conversation, Manners, Note, Task},
        sim::{House, Settings},
        values::{Card, CardNumber, Pin, TimeProfile},
    },
    transport::{Input, Output, Session},
};
use serde_json::Value;

pub(crate) const BOARD: u32 = 405_419_896;
pub(crate) const OTHER: u32 = 303_986_753;

pub(crate) fn card(number: u32) -> Card {
    Card {
        number: CardNumber::new(number),
        from: date(2026, 11, 21),
        to: date(2026, 11, 24),
        doors: [1, 0, 0, 1],
        pin: Pin::new(7531).unwrap(),
        first_card: 0,
    }
}

/// Every day, from half past eight to a quarter to twelve.
pub(crate) fn profile(id: u8) -> TimeProfile {
    let none = (Time::midnight(), Time::midnight());
    TimeProfile {
        id,
        from: date(2026, 11, 1),
        to: date(2026, 12, 31),
        days: [true; 7],
        segments: [(time(8, 30, 0, 0), time(11, 45, 0, 0)), none, none],
        linked: 0,
    }
}

/// Two boards on one port, at noon of the 22nd of November 2026.
pub(crate) fn house() -> House {
    house_with(1000)
}

pub(crate) fn house_with(events: usize) -> House {
    House::new(&Settings {
        serials: vec![BOARD, OTHER],
        cards: 100,
        events,
        starts_at: date(2026, 11, 22).at(12, 0, 0, 0),
    })
}

/// Says something to the boards, which must understand it.
pub(crate) async fn say(house: &House, words: &str) -> Value {
    house.command(words).await.unwrap_or_else(|error| panic!("{words}: {error}"))
}

/// What came of a conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) came: Came,
    pub(crate) notes: Vec<Note>,
    /// The functions asked, in their order.
    pub(crate) asked: Vec<u8>,
}

pub(crate) fn talk(house: &House, task: Task) -> Talk {
    talk_by(task, |packet, _| house.answers(packet))
}

/// A conversation whose every request, with its number from 0, is answered so; without an answer its time runs out.
pub(crate) fn talk_by(task: Task, mut answers: impl FnMut(&[u8], usize) -> Vec<Vec<u8>>) -> Talk {
    let mut conversation = Conversation::new(BOARD, task, Manners::default());
    let mut now = Instant::now();
    let (mut notes, mut asked) = (Vec::new(), Vec::new());
    loop {
        match conversation.poll(now) {
            Output::Note(note) => notes.push(note),
            Output::Done(came) => return Talk { came, notes, asked },
            Output::Wait { until } => {
                now = until;
                conversation.handle(now, Input::Timeout);
            }
            Output::Write(packet) => {
                now += Duration::from_millis(10);
                asked.push(packet[1]);
                assert!(asked.len() < 2000, "it never ends: {asked:02x?}");
                for answer in answers(&packet, asked.len() - 1) {
                    conversation.handle(now, Input::Bytes(&answer));
                }
            }
        }
    }
}
