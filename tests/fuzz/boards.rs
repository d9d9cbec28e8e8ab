//! What is thrown at what boards send, and at the pretend boards.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, civil::date};
use latchd::{
    drivers::uhppote::{
        codec::LENGTH,
        events::Mark,
        reply::{Pushed, Reply},
        request::Request,
        session::{Conversation, Manners, Note, Task},
        values::{Card, CardNumber, Listener, Pin},
    },
    transport::{Input, Output, Session},
};

const BOARD: u32 = 405_419_896;
/// Requests that a conversation may send for so many answers: each is tried three times, and what is not done is sent again.
const REQUESTS: usize = 40;

/// Frames: what is read is spelled the same. Then a conversation, named by the first byte, to which the rest is answered.
pub(crate) fn uhppote(bytes: &[u8]) {
    if let Ok((serial, request)) = Request::decode(bytes) {
        let frame = request.encode(serial).expect("what was read can be spelled");
        assert_eq!(Request::decode(&frame), Ok((serial, request)));
    }
    if let Ok(reply) = Reply::decode(bytes) {
        let frame = reply.encode().expect("what was read can be spelled");
        assert_eq!(Reply::decode(&frame), Ok(reply));
    }
    if let Ok(event) = Pushed::decode(bytes) {
        let frame = event.encode().expect("what was read can be spelled");
        assert_eq!(Pushed::decode(&frame), Ok(event));
    }
    let Some((&first, answers)) = bytes.split_first() else { return };
    converse(task(first), answers);
}

fn task(first: u8) -> Task {
    let number = CardNumber::new(10_058_400);
    match first % 9 {
        0 => Task::Status,
        1 => Task::Open(4),
        2 => Task::PutCard(Card {
            number,
            from: date(2026, 11, 21),
            to: date(2026, 11, 24),
            doors: [1, 0, first, 1],
            pin: Pin::new(7531).expect("six digits at most"),
            first_card: 0,
        }),
        3 => Task::DeleteCard(number),
        4 => Task::PutProfiles(Vec::new()),
        5 => Task::Listen(Listener { address: [127, 0, 0, 1].into(), port: 60_001, every: 0 }),
        6 => Task::List,
        7 => Task::Events { after: None, most: 50 },
        _ => Task::Events { after: Some(Mark { index: u32::from(first), at: None }), most: u32::MAX },
    }
}

/// A conversation ends soon after the last answer, and opens a door once at most.
fn converse(task: Task, answers: &[u8]) {
    let clock = Task::Clock { now: date(2026, 11, 21).at(23, 30, 5, 0), bound: SignedDuration::from_secs(5) };
    for task in [task, clock] {
        let mut conversation = Conversation::new(BOARD, task, Manners::default());
        let mut now = Instant::now();
        let mut packets = answers.chunks(LENGTH);
        let most = answers.len() / LENGTH * 3 + REQUESTS;
        let (mut requests, mut opened) = (0, 0);
        loop {
            match conversation.poll(now) {
                Output::Write(packet) => {
                    requests += 1;
                    assert!(requests <= most, "it never ends");
                    assert!(Request::decode(&packet).is_ok(), "it sends what no board understands");
                    opened += u32::from(packet[1] == 0x40);
                    assert!(opened <= 1, "a door is opened twice");
                    // The board and the function are nearly always right: else nothing would ever be heard.
                    let Some(answer) = packets.next() else { continue };
                    let mut answer = answer.to_vec();
                    if answer.len() == LENGTH && answer[2] != 0xFF {
                        answer[..8].copy_from_slice(&packet[..8]);
                    }
                    now += Duration::from_millis(1);
                    conversation.handle(now, Input::Bytes(&answer));
                }
                Output::Wait { until } => {
                    now = until;
                    conversation.handle(now, Input::Timeout);
                }
                Output::Note(Note::Holds { cards, .. }) => assert!(cards.len() <= answers.len()),
                Output::Note(Note::Happened { events, .. }) => {
                    assert!(events.windows(2).all(|two| two[0].index < two[1].index), "out of order");
                }
                Output::Note(_) => {}
                Output::Done(_) => break,
            }
        }
    }
}
