//! The log of a board, read without loss and without anything twice.

use latchd::drivers::uhppote::{
    events::{Mark, Place},
    reply::Pushed,
    session::{Came, Note, Task},
    sim::House,
};

use super::pump::{BOARD, Talk, house_with, say, talk, talk_by};

struct Read {
    indexes: Vec<u32>,
    lost: u64,
    mark: Option<Mark>,
    more: bool,
}

fn read_of(talk: Talk) -> Read {
    assert_eq!(talk.came, Came::Done, "{talk:?}");
    let Ok([Note::Happened { events, lost, mark, more }]) = <[Note; 1]>::try_from(talk.notes) else {
        panic!("something else was told");
    };
    Read { indexes: events.iter().map(|event| event.index).collect(), lost, mark, more }
}

fn read(house: &House, after: Option<Mark>, most: u32) -> Read {
    read_of(talk(house, Task::Events { after, most }))
}

async fn swipe(house: &House, times: u32) {
    for _ in 0..times {
        say(house, "clock advance 1s").await;
        say(house, "swipe 7 1").await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_is_read_once_page_by_page() {
    let house = house_with(100);
    assert!(read(&house, None, 10).mark.is_none());
    swipe(&house, 25).await;
    let (mut mark, mut all) = (None, Vec::new());
    loop {
        let page = read(&house, mark, 10);
        all.extend(page.indexes);
        mark = page.mark;
        assert_eq!(page.lost, 0);
        if !page.more {
            break;
        }
    }
    assert_eq!(all, (1..=25).collect::<Vec<_>>());
    let nothing = read(&house, mark, 10);
    assert_eq!((nothing.indexes, nothing.lost, nothing.mark, nothing.more), (vec![], 0, mark, false));
    swipe(&house, 1).await;
    assert_eq!(read(&house, mark, 10).indexes, [26]);
}

#[tokio::test(start_paused = true)]
async fn events_that_newer_ones_took_the_place_of_are_counted_as_lost() {
    let house = house_with(16);
    swipe(&house, 3).await;
    let mark = read(&house, None, 100).mark;
    swipe(&house, 40).await;
    let after = read(&house, mark, 100);
    assert_eq!(after.indexes.last(), Some(&43));
    assert_eq!(after.indexes.len() as u64 + after.lost, 40);
    let first = after.indexes[0];
    assert_eq!(after.indexes, (first..=43).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn events_that_go_while_they_are_read_are_lost_and_the_rest_is_whole() {
    let house = house_with(16);
    swipe(&house, 16).await;
    let came = talk_by(Task::Events { after: None, most: 100 }, |packet, number| {
        // Between the ends of the log and its first record the oldest two go.
        if number == 2 {
            let open = latchd::drivers::uhppote::request::Request::OpenDoor(1);
            house.answers(&open.encode(BOARD).unwrap());
        }
        house.answers(packet)
    });
    let read = read_of(came);
    assert_eq!((read.indexes, read.lost), ((3..=16).collect::<Vec<_>>(), 2));
    assert_eq!(read.mark.map(|mark| mark.index), Some(16));
}

#[tokio::test(start_paused = true)]
async fn a_board_that_was_reset_is_read_from_its_new_beginning() {
    let house = house_with(100);
    swipe(&house, 5).await;
    let mark = read(&house, None, 100).mark;
    say(&house, "forget").await;
    let empty = read(&house, mark, 100);
    assert_eq!((empty.indexes, empty.lost, empty.mark), (vec![], 1, None));
    swipe(&house, 2).await;
    let fewer = read(&house, mark, 100);
    assert_eq!((fewer.indexes, fewer.lost), (vec![1, 2], 1));
    // As many again: only the time of the marked one tells.
    swipe(&house, 3).await;
    let as_many = read(&house, mark, 100);
    assert_eq!((as_many.indexes, as_many.lost), (vec![1, 2, 3, 4, 5], 1));
    swipe(&house, 3).await;
    let more = read(&house, mark, 100);
    assert_eq!((more.indexes, more.lost), ((1..=8).collect::<Vec<_>>(), 1));
}

#[tokio::test(start_paused = true)]
async fn lost_late_and_doubled_answers_change_nothing_of_a_reading() {
    let house = house_with(100);
    swipe(&house, 9).await;
    for fault in ["deaf", "silent", "double", "foreign", "noise"] {
        for skipped in 0..8 {
            let mut heard = 0;
            let came = talk_by(Task::Events { after: None, most: 100 }, |packet, _| {
                let mut answers = house.answers(packet);
                if heard == skipped {
                    match fault {
                        "double" => answers.extend_from_within(..),
                        "foreign" => answers[0][4] ^= 1,
                        "noise" => answers[0].truncate(63),
                        _ => answers.clear(),
                    }
                }
                heard += 1;
                answers
            });
            let read = read_of(came);
            assert_eq!((read.indexes, read.lost), ((1..=9).collect::<Vec<_>>(), 0), "{fault} {skipped}");
        }
    }
    // Each answer comes once more, with the next request.
    let mut late: Vec<Vec<u8>> = Vec::new();
    let came = talk_by(Task::Events { after: None, most: 100 }, |packet, number| {
        let answers = house.answers(packet);
        let all = if number < 3 { answers.clone() } else { [late.clone(), answers.clone()].concat() };
        late = answers;
        all
    });
    assert_eq!(read_of(came).indexes, (1..=9).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_sent_may_be_taken_if_it_is_the_next() {
    let house = house_with(100);
    swipe(&house, 2).await;
    let mark = read(&house, None, 100).mark.unwrap();
    let pushed = || {
        let status = latchd::drivers::uhppote::request::Request::GetStatus.encode(BOARD).unwrap();
        Pushed::decode(&house.answers(&status)[0]).unwrap().status.event
    };
    assert_eq!(mark.places(&pushed()), Place::Known);
    swipe(&house, 1).await;
    assert_eq!(mark.places(&pushed()), Place::Next);
    let next = Mark::behind(&pushed());
    swipe(&house, 2).await;
    assert_eq!(next.places(&pushed()), Place::Elsewhere);
    say(&house, "forget").await;
    assert_eq!(next.places(&pushed()), Place::None);
    swipe(&house, 3).await;
    assert_eq!(next.places(&pushed()), Place::Elsewhere, "the same number, and another event");
}
