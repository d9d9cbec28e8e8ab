//! Conversations with the pretend board, whatever becomes of a request or an answer.

use jiff::{SignedDuration, civil::date};
use latchd::{
    drivers::uhppote::{
        session::{Came, Note, Task},
        values::{Card, CardNumber, Listener, TimeProfile},
    },
    model::Code,
};

use super::pump::{BOARD, OTHER, card, house, profile, say, talk, talk_by};

const PUT: u8 = 0x50;
const CARD: u8 = 0x5A;

fn leaves(notes: &[Note]) -> usize {
    notes.iter().filter(|note| **note == Note::Leaves).count()
}

#[tokio::test]
async fn a_card_is_put_and_read_back_and_deleted_and_not_there_any_more() {
    let house = house();
    let put = talk(&house, Task::PutCard(card(10_058_400)));
    assert_eq!((put.came, put.asked, leaves(&put.notes)), (Came::Done, vec![PUT, CARD], 1));
    let held = say(&house, "cards").await;
    assert_eq!(held["cards"][0]["card"], 10_058_400);
    assert_eq!(held["cards"][0]["pin"], 7531);
    assert_eq!(say(&house, &format!("at {OTHER} cards")).await["cards"].as_array().unwrap().len(), 0);
    for _ in 0..2 {
        let gone = talk(&house, Task::DeleteCard(CardNumber::new(10_058_400)));
        assert_eq!((gone.came, gone.asked), (Came::Done, vec![0x52, CARD]));
        assert_eq!(say(&house, "cards").await["cards"].as_array().unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_lost_request_is_sent_again_after_a_look_and_a_lost_answer_is_not() {
    let house = house();
    say(&house, "fault deaf on 50").await;
    let put = talk(&house, Task::PutCard(card(7)));
    assert_eq!((put.came, put.asked), (Came::Done, vec![PUT, CARD, PUT, CARD]));
    say(&house, "fault silent on 50").await;
    let put = talk(&house, Task::PutCard(card(8)));
    assert_eq!((put.came, put.asked), (Came::Done, vec![PUT, CARD]));
    say(&house, "fault deaf on 5a 2").await;
    let put = talk(&house, Task::PutCard(card(9)));
    assert_eq!((put.came, put.asked), (Came::Done, vec![PUT, CARD, CARD, CARD]));
}

#[tokio::test]
async fn answers_of_another_board_doubled_ones_and_noise_are_passed_over() {
    for fault in ["double", "foreign", "noise"] {
        let house = house();
        say(&house, &format!("fault {fault} 2")).await;
        assert_eq!(talk(&house, Task::PutCard(card(7))).came, Came::Done, "{fault}");
        assert_eq!(say(&house, "cards").await["cards"].as_array().unwrap().len(), 1);
    }
    // An answer to another function, first; then the right one.
    let house = house();
    let put = talk_by(Task::PutCard(card(7)), |packet, _| {
        let mut other = vec![0; 64];
        other[0] = 0x17;
        other[1] = 0x52;
        other[4..8].copy_from_slice(&BOARD.to_le_bytes());
        [vec![other], house.answers(packet)].concat()
    });
    assert_eq!((put.came, put.asked), (Came::Done, vec![PUT, CARD]));
}

#[tokio::test]
async fn a_board_that_says_nothing_is_offline_before_a_command_and_a_doubt_after_it() {
    let nobody = talk_by(Task::List, |_, _| Vec::new());
    assert!(matches!(&nobody.came, Came::NothingSent(why) if why.code == Code::DeviceOffline));
    assert_eq!(nobody.asked.len(), 3);
    let house = house();
    say(&house, "fault silent 0").await;
    let put = talk(&house, Task::PutCard(card(7)));
    assert!(matches!(&put.came, Came::Doubt(why) if why.code == Code::NoAnswer), "{put:?}");
    assert_eq!(put.asked, [PUT, CARD, CARD, CARD]);
    assert_eq!(say(&house, "cards").await["cards"].as_array().unwrap().len(), 1, "it was done");
}

#[tokio::test]
async fn a_door_is_opened_once_and_silence_after_that_is_a_doubt() {
    let house = house();
    let open = talk(&house, Task::Open(3));
    assert_eq!((open.came, open.asked), (Came::Done, vec![0x20, 0x40]));
    for (fault, expected) in [("silent", 2), ("deaf", 2), ("noise", 3), ("foreign", 4)] {
        say(&house, &format!("fault {fault} on 40")).await;
        let open = talk(&house, Task::Open(3));
        assert!(matches!(&open.came, Came::Doubt(why) if why.code == Code::NoAnswer), "{fault}: {open:?}");
        assert_eq!((open.asked, leaves(&open.notes)), (vec![0x20, 0x40], 1), "{fault}");
        assert_eq!(say(&house, "doors").await["opened"][2], expected, "{fault}");
    }
    let nobody = talk_by(Task::Open(3), |_, _| Vec::new());
    assert!(matches!(nobody.came, Came::NothingSent(_)));
    assert_eq!(nobody.asked, [0x20; 3]);
}

#[tokio::test]
async fn what_a_board_refuses_or_does_not_show_is_not_done() {
    let house = house();
    say(&house, "room 0").await;
    let put = talk(&house, Task::PutCard(card(7)));
    assert!(matches!(&put.came, Came::NotDone(why) if why.code == Code::Rejected), "{put:?}");
    assert_eq!(put.asked, [PUT, CARD]);
    // It says yes each time, and forgets.
    let lies = talk_by(Task::PutCard(card(7)), |packet, _| {
        let mut answer = [&packet[..8], &[0; 56]].concat();
        answer[8] = u8::from(packet[1] == PUT);
        vec![answer]
    });
    assert!(matches!(lies.came, Came::NotDone(_)));
    assert_eq!(lies.asked, [PUT, CARD, PUT, CARD, PUT, CARD]);
    let changed = talk_by(Task::PutCard(card(7)), |packet, _| match packet[1] {
        PUT => house_done(packet),
        _ => {
            let other = latchd::drivers::uhppote::reply::Reply {
                serial: BOARD,
                function: latchd::drivers::uhppote::codec::Function::GetCard,
                answer: latchd::drivers::uhppote::reply::Answer::Card(
                    latchd::drivers::uhppote::values::Held::Card(Card { doors: [1, 1, 1, 1], ..card(7) }),
                ),
            };
            vec![other.encode().unwrap().to_vec()]
        }
    });
    assert!(matches!(changed.came, Came::NotDone(_)), "each field counts: {changed:?}");
}

fn house_done(packet: &[u8]) -> Vec<Vec<u8>> {
    let mut answer = [&packet[..8], &[0; 56]].concat();
    answer[8] = 1;
    vec![answer]
}

#[tokio::test]
async fn a_card_that_no_board_may_be_told_of_never_leaves() {
    for wrong in [card(0), card(0x00FF_FFFF), card(u32::MAX), Card { to: date(2026, 11, 20), ..card(7) }] {
        let put = talk_by(Task::PutCard(wrong), |_, _| Vec::new());
        assert!(matches!(&put.came, Came::NothingSent(why) if why.code == Code::Rejected), "{put:?}");
        assert_eq!(put.asked, [0_u8; 0]);
    }
}

#[tokio::test]
async fn profiles_are_there_before_the_card_that_names_them_and_the_end_of_a_chain_before_its_start() {
    let house = house();
    let named = Card { doors: [40, 0, 40, 1], ..card(7) };
    let put = talk(&house, Task::PutCard(named.clone()));
    assert!(matches!(put.came, Came::NothingSent(_)));
    assert_eq!(put.asked, [0x98]);
    let chain = vec![TimeProfile { linked: 41, ..profile(40) }, profile(41)];
    let profiles = talk(&house, Task::PutProfiles(chain));
    assert_eq!((profiles.came, profiles.asked), (Came::Done, vec![0x88, 0x98, 0x88, 0x98]));
    let put = talk(&house, Task::PutCard(named.clone()));
    assert_eq!((put.came, put.asked), (Came::Done, vec![0x98, 0x98, PUT, CARD]));
    // A link that leads nowhere.
    assert_eq!(
        talk(&house, Task::PutProfiles(vec![TimeProfile { linked: 99, ..profile(40) }])).came,
        Came::Done
    );
    let put = talk(&house, Task::PutCard(named));
    assert!(matches!(put.came, Came::NothingSent(_)));
    // Whatever is lost once, each of them is put.
    for fault in ["deaf", "silent"] {
        say(&house, &format!("fault {fault} on 88")).await;
        say(&house, &format!("fault {fault} on 98")).await;
        assert_eq!(talk(&house, Task::PutProfiles(vec![profile(50), profile(51)])).came, Came::Done);
    }
    assert_eq!(talk(&house, Task::PutProfiles(Vec::new())).came, Came::Done);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_is_set_and_one_that_is_right_is_left() {
    let house = house();
    let clock = |second| Task::Clock {
        now: date(2026, 11, 22).at(12, 0, second, 0),
        bound: SignedDuration::from_secs(5),
    };
    let right = talk(&house, clock(4));
    assert_eq!((right.came, right.asked, right.notes), (Came::Done, vec![0x32], vec![]));
    let wrong = talk(&house, clock(30));
    assert_eq!((wrong.came, wrong.asked), (Came::Done, vec![0x32, 0x30, 0x32]));
    assert_eq!(wrong.notes[0], Note::ClockOff { by: Some(SignedDuration::from_millis(-30_010)) });
    assert_eq!(say(&house, "clock show").await["local"], "2026-11-22T12:00:30");
    say(&house, "fault deaf on 30 3").await;
    let stuck = talk(&house, clock(55));
    assert!(matches!(stuck.came, Came::NotDone(_)), "{stuck:?}");
}

#[tokio::test]
async fn where_events_go_is_read_and_set_where_it_is_another() {
    let house = house();
    let here = Listener { address: [127, 0, 0, 1].into(), port: 60_001, every: 0 };
    let set = talk(&house, Task::Listen(here));
    assert_eq!((set.came, set.asked), (Came::Done, vec![0x92, 0x90, 0x92]));
    assert!(matches!(set.notes[0], Note::ListenedElsewhere(_)));
    let again = talk(&house, Task::Listen(here));
    assert_eq!((again.came, again.asked, again.notes), (Came::Done, vec![0x92], vec![]));
}

#[tokio::test]
async fn a_list_has_every_card_and_none_that_was_deleted() {
    let house = house();
    for number in 1..=5 {
        assert_eq!(talk(&house, Task::PutCard(card(number))).came, Came::Done);
    }
    talk(&house, Task::DeleteCard(CardNumber::new(2)));
    let list = talk(&house, Task::List);
    assert_eq!(list.asked, [0x58, 0x5C, 0x5C, 0x5C, 0x5C, 0x5C]);
    let expected = Note::Holds { cards: [1, 3, 4, 5].map(card).into(), is_whole: true };
    assert_eq!((list.came, list.notes), (Came::Done, vec![expected]));
    // One goes while the list is read.
    let mut gone = false;
    let list = talk_by(Task::List, |packet, number| {
        let answers = house.answers(packet);
        if number == 1 && !std::mem::replace(&mut gone, true) {
            let delete = latchd::drivers::uhppote::request::Request::DeleteCard(CardNumber::new(5));
            house.answers(&delete.encode(BOARD).unwrap());
        }
        answers
    });
    assert_eq!(list.notes, [Note::Holds { cards: [1, 3, 4].map(card).into(), is_whole: false }]);
    // The same card at every place: answers that belong to another request.
    let twice = talk_by(Task::List, |packet, _| {
        let mut packet = packet.to_vec();
        if packet[1] == 0x5C {
            packet[8] = 1;
        }
        house.answers(&packet)
    });
    assert!(
        matches!(&twice.came, Came::NothingSent(why) if why.code == Code::ProtocolViolation),
        "{twice:?}"
    );
}
