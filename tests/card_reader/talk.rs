//! Conversations with the pretend chip, whatever goes wrong on the line.

use std::time::Duration;

use latchd::{
    drivers::card_reader::{
        session::{Came, Conversation, NoNumber, Note, Task},
        sim::Reader,
    },
    transport,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::Instant,
};

const CHIP: &str = "DEADBEEF";
const UID: [u8; 4] = [0xDE, 0xAD, 0xBE, 0xEF];
const WAIT: Duration = Duration::from_secs(10);
/// No conversation lasts longer than its wait, what a chip that was slow may take, and a look.
const LONGEST: Duration = Duration::from_secs(30);

/// What a cable does to a byte of the chip, by its place among all of them. None cuts it there.
type Cable = Box<dyn FnMut(usize, u8) -> Option<u8> + Send>;

/// A line to the reader by a cable.
fn line(reader: &Reader, mut cable: Cable) -> DuplexStream {
    let (host, ours) = tokio::io::duplex(4096);
    let (chip, theirs) = tokio::io::duplex(4096);
    let reader = reader.clone();
    tokio::spawn(async move { reader.serve(chip).await });
    let (mut from_host, mut to_host) = tokio::io::split(ours);
    let (mut from_chip, mut to_chip) = tokio::io::split(theirs);
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = from_host.read(&mut buffer).await {
            if to_chip.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut at = 0;
        while let Ok(byte) = from_chip.read_u8().await {
            let Some(byte) = cable(at, byte) else { break };
            at += 1;
            if to_host.write_u8(byte).await.is_err() {
                break;
            }
        }
        let _ = to_host.shutdown().await;
    });
    host
}

/// A conversation by a cable: how it ended, whether a card was asked for, and whether the former one was lifted.
async fn by(reader: &Reader, cable: Cable, task: Task, former: Option<&[u8]>) -> (Came, bool, bool) {
    let mut port = line(reader, cable);
    let mut talk = Conversation::new(task, former.map(<[u8]>::to_vec));
    let (mut asked, begun) = (false, Instant::now());
    let came = transport::run(&mut port, &mut talk, |Note::Waiting| asked = true).await;
    assert!(begun.elapsed() <= LONGEST, "it lasted {:?}", begun.elapsed());
    (came, asked, talk.former_is_gone())
}

async fn read(reader: &Reader) -> Came {
    by(reader, Box::new(|_, byte| Some(byte)), Task::Read(WAIT), None).await.0
}

async fn say(reader: &Reader, command: &str) {
    reader.command(command).await.unwrap();
}

fn number(came: &Came) -> Option<String> {
    match came {
        Came::Card(target) => Some(target.number()),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_card_that_is_laid_down_is_read() {
    let reader = Reader::default();
    let laying = reader.clone();
    tokio::spawn(async move {
        // Calls for cards, of which none came.
        say(&laying, "wait requests 4A 5").await;
        say(&laying, "place DEADBEEF").await;
    });
    assert_eq!(number(&read(&reader).await).as_deref(), Some(CHIP));
    // It lies there still, and is read as well as before by whoever asks.
    assert_eq!(number(&read(&reader).await).as_deref(), Some(CHIP));
    for (chip, kind) in
        [("04A1B2C3D4E580", "ultralight"), ("04A1B2C3D4E581", "desfire"), ("CAFEBABE", "classic-4k")]
    {
        say(&reader, "lift").await;
        say(&reader, &format!("place {chip} {kind}")).await;
        assert_eq!(number(&read(&reader).await).as_deref(), Some(chip));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_two_at_once_and_a_number_of_the_moment_are_told_apart() {
    let reader = Reader::default();
    assert_eq!(read(&reader).await, Came::NoCard(None));
    say(&reader, "place DEADBEEF").await;
    say(&reader, "place CAFEBABE").await;
    assert_eq!(read(&reader).await, Came::NoCard(Some(NoNumber::Several)));
    say(&reader, "lift").await;
    say(&reader, "place 08ADBEEF").await;
    assert_eq!(read(&reader).await, Came::NoCard(Some(NoNumber::Random)));
}

#[tokio::test(start_paused = true)]
async fn the_card_of_the_reading_before_counts_only_once_it_was_lifted() {
    let reader = Reader::default();
    say(&reader, "place DEADBEEF").await;
    let whole = || -> Cable { Box::new(|_, byte| Some(byte)) };
    let (came, asked, gone) = by(&reader, whole(), Task::Read(WAIT), Some(&UID)).await;
    assert_eq!((came, asked, gone), (Came::NoCard(Some(NoNumber::Former)), true, false));

    let hands = reader.clone();
    tokio::spawn(async move {
        let looks = hands.command("requests").await.unwrap()["requests"]["4A"].as_u64().unwrap();
        say(&hands, &format!("wait requests 4A {}", looks + 3)).await;
        say(&hands, "lift").await;
        // One look without it is none: it may lie at the edge of the field.
        say(&hands, &format!("wait requests 4A {}", looks + 10)).await;
        say(&hands, "place DEADBEEF").await;
    });
    let (came, _, gone) = by(&reader, whole(), Task::Read(WAIT), Some(&UID)).await;
    assert_eq!((number(&came).as_deref(), gone), (Some(CHIP), true));

    // Another one takes its place at once.
    say(&reader, "lift").await;
    say(&reader, "place CAFEBABE").await;
    let (came, ..) = by(&reader, whole(), Task::Read(WAIT), Some(&UID)).await;
    assert_eq!(number(&came).as_deref(), Some("CAFEBABE"));
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_once_the_card_is_read_and_what_goes_on_being_wrong_is_said() {
    let whole = || -> Cable { Box::new(|_, byte| Some(byte)) };
    for fault in ["deaf", "silent", "noise", "bad-sum", "torn", "foreign", "syntax"] {
        for code in ["14", "02", "12", "32", "4A", "52"] {
            let reader = Reader::default();
            say(&reader, "place DEADBEEF").await;
            say(&reader, &format!("fault {fault} on {code}")).await;
            assert_eq!(number(&read(&reader).await).as_deref(), Some(CHIP), "{fault} on {code}");

            say(&reader, &format!("fault {fault} on {code} 0")).await;
            let (came, ..) = by(&reader, whole(), Task::Read(WAIT), None).await;
            match fault {
                "noise" => assert_eq!(number(&came).as_deref(), Some(CHIP)),
                _ => assert_eq!(came, Came::Silent, "{fault} on {code} for good"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_chip_that_loses_its_power_is_set_up_again() {
    let reader = Reader::default();
    let hands = reader.clone();
    tokio::spawn(async move {
        say(&hands, "wait requests 4A 3").await;
        say(&hands, "power-cut").await;
        say(&hands, "wait requests 4A 8").await;
        say(&hands, "place DEADBEEF").await;
    });
    assert_eq!(number(&read(&reader).await).as_deref(), Some(CHIP));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_cut_at_any_byte_tells_no_number_but_the_right_one() {
    let reader = Reader::default();
    say(&reader, "place DEADBEEF").await;
    let mut cut = 0;
    loop {
        let cable: Cable = Box::new(move |at, byte| (at < cut).then_some(byte));
        match by(&reader, cable, Task::Read(WAIT), None).await.0 {
            Came::Closed => {}
            Came::Card(target) => {
                assert_eq!(target.uid, UID);
                break;
            }
            came => panic!("cut at {cut}: {came:?}"),
        }
        cut += 1;
    }
    assert!(cut > 100, "setting up, two looks and a release were heard before: {cut}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_byte_anywhere_never_becomes_another_number() {
    let reader = Reader::default();
    say(&reader, "place DEADBEEF").await;
    for flip in [0x01, 0x80, 0xFF] {
        for wrong in 0..160 {
            let cable: Cable = Box::new(move |at, byte| Some(if at == wrong { byte ^ flip } else { byte }));
            let (came, ..) = by(&reader, cable, Task::Read(WAIT), None).await;
            assert_eq!(number(&came).as_deref(), Some(CHIP), "byte {wrong} with {flip:02x}: {came:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_says_what_it_is() {
    let reader = Reader::default();
    say(&reader, "place DEADBEEF").await;
    assert_eq!(
        by(&reader, Box::new(|_, byte| Some(byte)), Task::Identify, None).await.0,
        Came::Identified(latchd::drivers::card_reader::codec::Firmware {
            chip: 0x32,
            version: (1, 6),
            supports: 7
        })
    );
}
