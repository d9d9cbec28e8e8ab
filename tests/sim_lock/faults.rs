//! Every fault, at every byte: what the driver says is judged by the lock's own table and ledger.

use std::time::Duration;

use latchd::{
    drivers::{Performed, Proof, Work},
    model::{Kind, Outcome},
};

use crate::house::*;

/// Whether the lock, and nobody else, says that it was done.
async fn is_done(house: &House, work: &Work) -> bool {
    match work.order.kind() {
        Kind::SlotPut => {
            let table = house.table().await;
            table.len() == 1 && table[0]["content"] == "4711" && table[0]["generation"] == 3
        }
        Kind::SlotRemove => house.table().await.is_empty(),
        _ => house.lock.done("unlocked", Some(JOB)) == 1,
    }
}

/// A house where the work makes a difference.
async fn prepared(work: &Work) -> House {
    let house = House::open().await;
    if work.order.kind() == Kind::SlotRemove {
        house.succeeded(&house.perform(&other_job(put(stay()))).await);
    }
    house
}

/// What was said must be what is so; and a repetition or a proof must get to the truth.
async fn judge(house: &House, work: &Work, performed: &Performed, case: &str) {
    let kind = work.order.kind();
    let done = is_done(house, work).await;
    match performed {
        Performed::Ended(Outcome::Succeeded(_)) => assert!(done, "{case}: said to be done"),
        Performed::NothingSent(_) => assert!(!done, "{case}: said not to be sent"),
        Performed::Ended(Outcome::Failed(_)) => assert!(!done, "{case}: said to have failed"),
        Performed::MayRepeat(_) => assert!(kind.is_repeatable(), "{case}"),
        Performed::Ended(Outcome::Unknown(_)) => assert!(!kind.is_repeatable(), "{case}"),
        Performed::Ended(other) => panic!("{case}: {other:?}"),
    }
    house.tell("fault clear").await;
    if kind.is_repeatable() {
        let mut last = performed.clone();
        for _ in 0..10 {
            if matches!(last, Performed::Ended(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            last = house.perform(work).await;
        }
        if !matches!(performed, Performed::Ended(Outcome::Failed(_))) {
            house.succeeded(&last);
            assert!(is_done(house, work).await, "{case}: after repeating");
        }
        return;
    }
    assert!(house.asked("OPEN").await <= 1, "{case}: asked twice");
    let mut proof = Proof::None;
    for _ in 0..10 {
        proof = house.prove(work).await;
        if proof != Proof::None {
            break;
        }
    }
    match proof {
        Proof::Done(_) => assert!(is_done(house, work).await, "{case}: proven done"),
        Proof::NotDone(_) => {
            // And it is not done by itself later.
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert_eq!(house.lock.done("unlocked", None), 0, "{case}: proven not done");
        }
        Proof::None => panic!("{case}: nothing was proven"),
    }
    assert!(house.asked("OPEN").await <= 1, "{case}: asked twice by the proof");
}

fn works() -> [Work; 3] {
    [put(stay()), remove("stay 7"), unlock()]
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_at_any_byte_never_makes_a_lie() {
    for work in works() {
        for way in ["received", "sent"] {
            let (mut words, mut cut) = (std::collections::BTreeSet::new(), 0);
            loop {
                let house = prepared(&work).await;
                house.tell(&format!("fault cut-{way} {cut}")).await;
                let performed = house.perform(&work).await;
                let survived = !house.tell("fault show").await["faults"][format!("cut_{way}")].is_null();
                let case = format!("{} cut-{way} {cut}: {}", work.order.kind().as_str(), word(&performed));
                words.insert(word(&performed));
                judge(&house, &work, &performed, &case).await;
                if survived {
                    house.succeeded(&performed);
                    break;
                }
                cut += 1;
            }
            // More than the whole of the longest frame was gone through, and each kind of end was met.
            assert!(cut > 60, "{way} {cut}");
            let doubt =
                if work.order.kind().is_repeatable() { "may_repeat line_lost" } else { "unknown line_lost" };
            for expected in ["nothing_sent device_offline", doubt, "succeeded"] {
                assert!(
                    words.contains(expected),
                    "{} cut-{way} never came out {expected}",
                    work.order.kind().as_str()
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_misbehaviour_at_any_step_makes_a_lie() {
    let faults = [
        "silent",
        "deaf",
        "slow 2000",
        "slow 7000",
        "slow 20000",
        "garbage",
        "damaged",
        "wrong-number",
        "cut-before",
        "cut-after",
        "busy",
        "full",
        "lie",
    ];
    for work in works() {
        let verbs: &[&str] = match work.order.kind() {
            Kind::SlotPut => &["STATE", "CLOCK", "PUT", "TABLE"],
            Kind::SlotRemove => &["STATE", "DEL", "TABLE"],
            _ => &["STATE", "OPEN"],
        };
        for verb in verbs {
            for fault in faults {
                // A lock that lies about its door cannot be found out by the driver.
                if (fault, *verb) == ("lie", "OPEN") {
                    continue;
                }
                let house = prepared(&work).await;
                house.tell("clock advance 10m").await;
                house.tell(&format!("fault {fault} on {verb}")).await;
                let performed = house.perform(&work).await;
                let case = format!("{} {fault} on {verb}: {}", work.order.kind().as_str(), word(&performed));
                judge(&house, &work, &performed, &case).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_says_done_and_did_nothing_is_found_out() {
    let house = House::open().await;
    house.tell("fault lie on PUT").await;
    assert_eq!(word(&house.perform(&put(stay())).await), "may_repeat protocol_violation");
    house.succeeded(&house.perform(&put(stay())).await);
    house.tell("fault lie on DEL").await;
    assert_eq!(word(&house.perform(&remove("stay 7")).await), "may_repeat protocol_violation");
    house.succeeded(&house.perform(&remove("stay 7")).await);
}

#[tokio::test(start_paused = true)]
async fn an_unlock_without_an_answer_is_unknown_and_never_asked_again() {
    let house = House::open().await;
    for (fault, expected) in [
        ("silent", "unknown no_answer"),
        ("cut-after", "unknown line_lost"),
        ("garbage", "unknown no_answer"),
        ("damaged", "unknown no_answer"),
        ("deaf", "unknown no_answer"),
    ] {
        house.tell(&format!("fault {fault} on OPEN")).await;
        assert_eq!(word(&house.perform(&unlock()).await), expected, "{fault}");
    }
    assert_eq!((house.asked("OPEN").await, house.lock.done("unlocked", None)), (5, 4));
}

#[tokio::test(start_paused = true)]
async fn a_busy_lock_was_not_asked_and_a_full_one_says_so() {
    let house = House::open().await;
    for verb in ["STATE", "PUT"] {
        house.tell(&format!("fault busy on {verb}")).await;
        assert_eq!(word(&house.perform(&put(stay())).await), "nothing_sent device_busy");
    }
    house.tell("fault full on PUT").await;
    assert_eq!(word(&house.perform(&put(stay())).await), "failed slots_full");
    assert!(house.table().await.is_empty());
}
