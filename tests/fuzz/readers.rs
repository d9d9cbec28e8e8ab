//! What is thrown at what a card reader sends.

use std::time::{Duration, Instant};

use latchd::{
    drivers::card_reader::{
        codec::{ACK, Decoder, Frame, LONGEST, Target},
        session::{Came, Conversation, Task},
    },
    transport::{Input, Output, Session},
};

/// A card is waited for so long.
const WAIT: Duration = Duration::from_secs(2);
/// Frames that a conversation may send in that time and its grace: looks every 100 ms, each with a release, and faults.
const MOST: usize = 400;

/// Frames and lists in any bytes. Then a conversation: each command is heard, and answered by the next piece, which says how
/// long it is; a piece that is marked goes out as it is, all others in a frame.
pub(crate) fn pn532(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    for part in bytes.chunks(7) {
        decoder.push(part);
        while let Some(frame) = decoder.next_frame() {
            if let Frame::Answer(_, data) = frame {
                assert!(data.len() <= LONGEST);
            }
        }
    }
    if let Some(targets) = Target::read_list(bytes) {
        assert!(targets.iter().all(|target| matches!(target.uid.len(), 4 | 7 | 10)));
    }
    let mut talk = Conversation::new(Task::Read(WAIT), Some(vec![1, 2, 3, 4]));
    let (mut now, mut rest, mut sent) = (Instant::now(), bytes, 0);
    loop {
        match talk.poll(now) {
            Output::Write(frame) => {
                sent += 1;
                assert!(sent <= MOST + 4 * bytes.len(), "it never ends");
                now += Duration::from_millis(1);
                // The code of what was said, behind a wake-up and the head of its frame.
                let Some(at) = frame.windows(2).position(|two| two == [0, 0xFF]) else { continue };
                let Some(&code) = frame.get(at + 5) else { continue };
                let Some((&length, after)) = rest.split_first() else { continue };
                let (piece, left) = after.split_at(usize::from(length & 0x3F).min(after.len()));
                rest = left;
                let said = match length & 0x40 {
                    0 => [&ACK[..], &framed(code.wrapping_add(1), piece)].concat(),
                    _ => piece.to_vec(),
                };
                talk.handle(now, Input::Bytes(&said));
            }
            Output::Wait { until } => {
                now = until;
                talk.handle(now, Input::Timeout);
            }
            Output::Note(_) => {}
            Output::Done(came) => {
                if let Came::Card(target) = came {
                    assert!(!target.is_random() && target.uid != [1, 2, 3, 4] || talk.former_is_gone());
                }
                return;
            }
        }
    }
}

fn framed(code: u8, data: &[u8]) -> Vec<u8> {
    let body = [&[0xD5, code], data].concat();
    let length = u8::try_from(body.len()).expect("a piece is short");
    let sum = body.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    [&[0, 0, 0xFF, length, length.wrapping_neg()], &body[..], &[sum.wrapping_neg(), 0]].concat()
}
