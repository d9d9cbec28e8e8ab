//! Cards ordered from the cloud that wait for a person's word at the site.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use latchd::{
    model::{Code, Job, JobState, Kind, LaneName, Origin, Outcome, Resolution, Success, Treatment, Verdict},
    protocol::Message,
    queue::{Accepted, ConfirmRefused, LocalOrder, Unconfirmed, Wish},
};
use queue_support::*;

fn asking() -> Site {
    Site::with(|rules| rules.limits.confirm_remote_cards = true)
}

fn held(site: &mut Site, now: i64, job: Job) {
    assert_eq!(site.accept(now, job, true), Accepted::Unconfirmed);
}

fn confirm(site: &mut Site, now: i64, number: u128) -> Result<Option<LaneName>, ConfirmRefused> {
    site.commit(|queue| queue.confirm(at(now), id(number), "Kari")).unwrap()
}

fn decline(site: &mut Site, now: i64, number: u128) -> Result<(), ConfirmRefused> {
    site.commit(|queue| queue.decline(at(now), id(number), "Kari")).unwrap()
}

fn outcome(site: &Site, number: u128) -> Outcome {
    let reports = site.reports();
    let mut outcomes = reports.into_iter().filter_map(|(_, message)| match message {
        Message::Outcome(report) if report.job_id == id(number) => Some(report.outcome),
        _ => None,
    });
    outcomes.next().unwrap()
}

#[test]
fn a_card_from_the_cloud_waits_for_a_persons_word_through_restarts_and_is_then_made_once() {
    let mut site = asking();
    held(&mut site, 0, job(1, card(&["101"], "a")));
    let mut site = site.crash();
    assert_eq!(site.claim(50), None);
    assert_eq!(site.queue.next_due().unwrap(), None, "it waits for no time");
    let view = site.queue.job(id(1)).unwrap().unwrap().view;
    assert_eq!((view.state, view.code, view.due_at), (JobState::Waiting, Some(Code::SiteNotConfirmed), None));
    assert_eq!(site.queue.unconfirmed(9).unwrap(), Unconfirmed { first: vec![id(1)], count: 1 });
    assert_eq!(confirm(&mut site, 60, 1), Ok(Some(lane("1"))));
    assert_eq!(confirm(&mut site, 60, 1), Err(ConfirmRefused::NotAwaited(JobState::Waiting)));
    let mut site = site.crash();
    assert_eq!(site.queue.unconfirmed(9).unwrap(), Unconfirmed::default());
    assert_eq!(site.claim(61).unwrap().job.job_id, id(1));
    // The word that was given counts for every attempt.
    site.commit(|queue| queue.unsend(at(62), id(1), &line_down())).unwrap();
    assert_eq!(site.claim(70).unwrap().attempt, 2);
    assert_eq!(site.claim(70), None);
    assert_eq!(site.audited(), ["confirmed", "site_not_confirmed"]);
    let said = site.queue.audit(1).unwrap().remove(0);
    assert_eq!(said.job_id, Some(id(1)));
    assert!(said.detail.contains("Kari"), "{}", said.detail);
}

#[test]
fn a_card_that_nobody_confirms_before_its_deadline_is_refused_by_name() {
    let mut site = asking();
    held(&mut site, 0, job(1, card(&["101"], "a")));
    assert_eq!(site.queue.next_expiry().unwrap(), Some(at(100_000)));
    assert_eq!(site.commit(|queue| queue.expire(at(100_000))).unwrap(), [id(1)]);
    let Outcome::Expired(why) = outcome(&site, 1) else { panic!("{:?}", outcome(&site, 1)) };
    assert_eq!(why.code, Code::SiteNotConfirmed);
    assert_eq!(confirm(&mut site, 100_000, 1), Err(ConfirmRefused::NotAwaited(JobState::Expired)));

    // Nor by a word that comes before anybody has looked at the deadline.
    held(&mut site, 0, job(2, card(&["101"], "a")));
    assert_eq!(confirm(&mut site, 100_000, 2), Err(ConfirmRefused::NotAwaited(JobState::Expired)));
    assert_eq!(outcome(&site, 2).reason().unwrap().code, Code::SiteNotConfirmed);
    assert_eq!(site.claim(100_000), None);
}

#[test]
fn a_card_that_a_person_declines_is_refused_by_name_and_the_audit_knows_by_whom() {
    let mut site = asking();
    held(&mut site, 0, job(1, card(&["101"], "a")));
    assert_eq!(decline(&mut site, 1, 1), Ok(()));
    let Outcome::Failed(why) = outcome(&site, 1) else { panic!("{:?}", outcome(&site, 1)) };
    assert_eq!(why.code, Code::SiteDeclined);
    assert!(!why.message.contains("Kari"), "who it was stays at the site: {}", why.message);
    assert_eq!(decline(&mut site, 2, 1), Err(ConfirmRefused::NotAwaited(JobState::Failed)));
    assert_eq!(decline(&mut site, 2, 9), Err(ConfirmRefused::NotKnown));
    let said = site.queue.audit(1).unwrap().remove(0);
    assert_eq!(said.what, "site_declined");
    assert!(said.detail.contains("Kari"), "{}", said.detail);
    assert_eq!(site.claim(3), None);
}

#[test]
fn what_is_ordered_at_the_site_waits_for_nobodys_word_nor_for_a_card_that_does() {
    let mut site = asking();
    held(&mut site, 0, job(1, card(&["101"], "a")));
    let local = |job: Job| LocalOrder { job, origin: Origin::Person, retries: None };
    let here = job(2, card(&["101"], "a"));
    let admitted = admission(&here.order);
    let accepted = site.commit(|queue| queue.accept_local(at(1), local(here), Ok(admitted), true)).unwrap();
    assert!(matches!(accepted, Accepted::Sent(_)), "{accepted:?}");
    site.commit(|queue| queue.finish(at(2), id(2), written())).unwrap();
    // Nor does any other kind of order, or one that is done again because a person says so.
    site.done(3, job(3, read()));
    decline(&mut site, 4, 1).unwrap();
    let again = site.queue.retry_of(at(5), id(1)).unwrap().unwrap();
    let admitted = admission(&again.job.order);
    let accepted = site.commit(|queue| queue.accept_local(at(5), again, Ok(admitted), true)).unwrap();
    assert!(matches!(accepted, Accepted::Sent(_)), "{accepted:?}");
}

fn begin_stay(site: &mut Site, number: u128, room: &str, stay: &str) {
    held(site, 0, job(number, card(&[room], stay)));
    confirm(site, 0, number).unwrap();
    assert_eq!(site.claim(0).unwrap().job.job_id, id(number));
    site.commit(|queue| queue.finish(at(0), id(number), written())).unwrap();
}

#[test]
fn a_stay_that_is_checked_out_meanwhile_is_not_begun_anew_by_a_card_that_was_ordered_before() {
    let mut site = asking();
    begin_stay(&mut site, 1, "101", "a");
    begin_stay(&mut site, 2, "102", "a");
    held(&mut site, 1, job(3, card(&["101"], "a")));
    held(&mut site, 1, job(4, card(&["102"], "a")));
    held(&mut site, 1, job(5, card(&["101"], "b")));
    // Not while it may yet prove that the room was not freed.
    site.send(2, job(6, checkout("101", "a")));
    site.commit(|queue| queue.finish(at(2), id(6), no_answer())).unwrap();
    assert_eq!(site.queue.unconfirmed(9).unwrap().first, [id(3), id(4), id(5)]);
    held(&mut site, 3, job(7, card(&["101"], "a")));
    let done = Resolution { verdict: Verdict::Done, by: "Kari".into() };
    site.commit(|queue| queue.resolve(at(4), id(6), done)).unwrap().unwrap();
    assert_eq!(outcome(&site, 3), Outcome::Superseded);
    assert_eq!(confirm(&mut site, 5, 3), Err(ConfirmRefused::NotAwaited(JobState::Superseded)));
    // Of another room, of another stay, and ordered since.
    assert_eq!(site.queue.unconfirmed(9).unwrap().first, [id(4), id(5), id(7)]);
    confirm(&mut site, 6, 7).unwrap();
    assert_eq!(site.claim(6).unwrap().treatment, Treatment::Override);
}

#[test]
fn a_card_whose_encoder_is_away_does_not_begin_a_stay_anew_that_was_checked_out_meanwhile() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    assert_eq!(site.accept(1, job(2, card_at("2", &["101"], "a")), false), Accepted::Waiting);
    assert_eq!(site.accept(1, job(3, checkout("101", "a")), false), Accepted::Waiting);
    let wish = Wish { stuck: [lane("2")].into(), ..Wish::default() };
    let claimed = site.commit(|queue| queue.claim_as(at(2), &lane("1"), &wish)).unwrap().unwrap();
    assert_eq!(claimed.job.job_id, id(3));
    site.commit(|queue| queue.finish(at(3), id(3), Outcome::Succeeded(Success::default()))).unwrap();
    assert_eq!(outcome(&site, 2), Outcome::Superseded);
    assert_eq!(site.commit(|queue| queue.claim(at(9), &lane("2"))).unwrap(), None);
}

#[test]
fn cards_that_wait_already_need_a_word_once_the_site_asks_for_it_and_keep_needing_it() {
    let mut site = Site::new();
    assert_eq!(site.accept(0, job(1, card(&["101"], "a")), false), Accepted::Waiting);
    let mut rules = rules();
    rules.limits.confirm_remote_cards = true;
    site.queue.set_rules(rules.clone());
    assert_eq!(site.claim(1), None);
    assert_eq!(site.queue.unconfirmed(9).unwrap().count, 1);
    // Whoever no longer asks for it has not confirmed what waits.
    rules.limits.confirm_remote_cards = false;
    site.queue.set_rules(rules);
    assert_eq!(site.claim(2), None);
    confirm(&mut site, 3, 1).unwrap();
    assert!(site.claim(4).is_some());
}

#[test]
fn what_the_site_forbids_is_refused_at_once_and_asks_for_nobodys_word() {
    let mut site = Site::with(|rules| {
        rules.limits.confirm_remote_cards = true;
        rules.limits.forbidden_kinds = vec![Kind::CardEncode];
    });
    assert_eq!(site.refused(0, job(1, card(&["101"], "a"))), Code::SiteForbidsKind);
    assert_eq!(site.audited(), ["site_forbids_kind"]);
}

#[test]
fn a_card_that_waits_can_be_taken_back_and_is_then_over() {
    let mut site = asking();
    held(&mut site, 0, job(1, card(&["101"], "a")));
    site.commit(|queue| queue.cancel(at(1), None, id(1))).unwrap();
    assert_eq!(outcome(&site, 1), Outcome::Cancelled);
    assert_eq!(confirm(&mut site, 2, 1), Err(ConfirmRefused::NotAwaited(JobState::Cancelled)));
    assert_eq!(site.queue.unconfirmed(9).unwrap().count, 0);
}
