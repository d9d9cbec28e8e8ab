//! A desk that goes on while its cloud is away: what the cloud told it is there, cards are written from it, and afterwards
//! both sides agree.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use crate::site::{PATIENCE, Site, latchd, until};

/// `latchd encode`, with a person at its keyboard.
struct Encode {
    child: Child,
    told: mpsc::Receiver<String>,
}

impl Encode {
    fn start(site: &Site, words: &[&str]) -> Self {
        let mut command = latchd();
        site.at(command.arg("encode").args(words).args(["--by", "Kari"]));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line, told) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|read| line.send(read)));
        Self { child, told }
    }

    /// Reads on to a line that says this.
    fn tells(&self, words: &str) {
        let mut heard = Vec::new();
        loop {
            let line = self.told.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("never {words:?} in {heard:?}: {error}"));
            if line.contains(words) {
                return;
            }
            heard.push(line);
        }
    }

    fn enter(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Nobody types any more; waits for its end.
    fn ended(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        until("the command ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Encode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The site's own view of a stay's grants, once the cloud has told so many.
fn grants(site: &Site, stay: &str, count: usize) -> Vec<Value> {
    until("the grants are told", || {
        let output = site.ask(&["grant", "show", stay, "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).ok()?;
        let grants = told["grants"].as_array()?.clone();
        (grants.len() == count && told["complete"] == true).then_some(grants)
    })
}

fn states(grants: &[Value]) -> Vec<&Value> {
    grants.iter().flat_map(|grant| grant["cards"].as_array().unwrap()).map(|card| &card["state"]).collect()
}

fn is_issued(site: &Site, method: &Value) -> bool {
    let method = site.ok("/access_methods/get", json!({ "access_method_id": method }), "access_method");
    method["is_issued"] == true
}

fn events(site: &Site, grant: &Value, kind: &str) -> usize {
    let ask = json!({ "since": "2020-01-01T00:00:00Z", "access_grant_id": grant, "event_type": kind });
    site.ok("/events/list", ask, "events").as_array().unwrap().len()
}

#[test]
fn a_family_gets_its_cards_at_the_desk_while_the_cloud_is_away_and_the_cloud_knows_afterwards() {
    let mut site = Site::start();
    let (first, first_method) = site.grant("Jane Doe", "stay-1", &["101", "pool"]);
    let (second, second_method) = site.grant("John Doe", "stay-1", &["101"]);
    assert_eq!(states(&grants(&site, "stay-1", 2)), ["encoding_required", "encoding_required"]);
    site.cloud().kill();

    let mut encode = Encode::start(&site, &["stay-1", "--encoder", "1"]);
    encode.tells("lay a card on encoder 1");
    site.waits_for_card("1");
    site.control("place one on 1");
    encode.tells("written");
    site.control("remove 1");
    encode.tells("press Enter");
    encode.enter();
    encode.tells("lay a card on encoder 1");
    site.waits_for_card("1");
    site.control("place two on 1");
    assert_eq!(encode.ended(), Some(0));
    site.control("remove 1");
    assert!(site.opens("one", "101") && site.opens("two", "101"));
    assert_eq!(site.writing_frames(), 2);
    assert_eq!(
        states(&grants(&site, "stay-1", 2)),
        ["issued", "issued"],
        "the site knows it without the cloud"
    );
    let method = first_method.as_str().unwrap();
    let refused = site.refused(&["encode", method, "--encoder", "1", "--by", "Kari"]);
    assert!(refused.contains("card_already_written") && refused.contains("--again"), "{refused}");

    site.restart_cloud();
    until("the cloud knows", || {
        (is_issued(&site, &first_method) && is_issued(&site, &second_method)).then_some(())
    });
    for grant in [&first, &second] {
        assert_eq!(events(&site, grant, "access_method.issued"), 1);
        assert_eq!(events(&site, grant, "access_grant.access_granted_to_all_doors"), 1);
    }
    assert_eq!(site.writing_frames(), 2);
}

#[test]
fn a_lost_card_is_thrown_out_at_the_desk_while_the_cloud_is_away_and_the_stays_other_cards_are_written_again()
{
    let mut site = Site::start();
    let (grant, of_jane) = site.card("lost", "stay-1", &["101", "pool"]);
    let (_, of_john) = site.card("john", "stay-1", &["101"]);
    let (_, of_ada) = site.card("ada", "stay-2", &["102"]);
    until("the site knows that all are written", || {
        (states(&grants(&site, "stay-1", 2)) == ["issued", "issued"]).then_some(())
    });
    site.cloud().kill();

    let encode = Encode::start(&site, &[of_jane.as_str().unwrap(), "--encoder", "1", "--override"]);
    encode.tells("lay a card on encoder 1");
    site.waits_for_card("1");
    site.control("place new on 1");
    encode.tells("written");
    assert_eq!(encode.ended(), Some(0));
    site.control("remove 1");
    assert_eq!((site.frames("CN"), site.frames("CC")), (3, 1), "it begins the stay again");
    assert!(site.opens("lost", "101") && site.opens("john", "101"), "the lock has not seen the new card yet");
    assert!(site.opens("new", "101") && site.opens("new", "pool"));
    assert!(!site.opens("lost", "101") && !site.opens("john", "101"));
    assert!(site.opens("ada", "102"), "another stay");

    site.restart_cloud();
    let shown = |method: &Value| {
        site.ok("/access_methods/get", json!({ "access_method_id": method }), "access_method")
    };
    until("his card asks to be written again", || {
        (shown(&of_john)["is_ready_for_encoding"] == true).then_some(())
    });
    assert_eq!(shown(&of_john)["is_encoding_required"], true);
    assert_eq!((&shown(&of_jane)["is_issued"], &shown(&of_ada)["is_issued"]), (&json!(true), &json!(true)));
    let told = ["access_method.issued", "access_method.reissued"].map(|kind| events(&site, &grant, kind));
    assert_eq!(told, [1, 1], "the lost card, and the one for it");
    assert_eq!(site.writing_frames(), 4, "nothing is written by itself");

    let encode = Encode::start(&site, &[of_john.as_str().unwrap(), "--encoder", "1"]);
    encode.tells("lay a card on encoder 1");
    site.waits_for_card("1");
    site.control("place john on 1");
    assert_eq!(encode.ended(), Some(0));
    site.control("remove 1");
    assert_eq!((site.frames("CN"), site.frames("CC")), (3, 2), "it joins");
    assert!(site.opens("john", "101") && site.opens("new", "101") && !site.opens("lost", "101"));
}

#[test]
fn a_card_that_the_desk_wrote_is_not_written_again_for_an_order_that_did_not_know_of_it() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    grants(&site, "stay-1", 1);
    // The cloud orders while the site cannot hear it, and the desk goes on.
    site.agent().kill();
    let attempt = site.encode(&method, "2");
    site.cloud().kill();
    site.restart_agent();
    until("the line is open", || (site.status()["systems"][0]["line"] == "ready").then_some(()));
    let encode = Encode::start(&site, &[method.as_str().unwrap(), "--encoder", "1"]);
    encode.tells("lay a card on encoder 1");
    site.waits_for_card("1");
    site.control("place jane on 1");
    assert_eq!(encode.ended(), Some(0));
    site.control("remove 1");
    site.restart_cloud();
    until("the cloud knows", || is_issued(&site, &method).then_some(()));
    assert_eq!(site.ended(&attempt)["status"], "error");
    assert_eq!(site.writing_frames(), 1);
    assert!(site.opens("jane", "101"));
}

#[test]
fn a_card_that_cannot_be_written_is_tried_again_with_another_one_and_what_is_left_is_said() {
    let site = Site::start();
    site.grant("Jane Doe", "stay-1", &["101"]);
    grants(&site, "stay-1", 1);
    site.control("fault error EF 1");
    let mut encode = Encode::start(&site, &["stay-1", "--encoder", "1"]);
    encode.tells("bad_card");
    encode.tells("Lay another card down");
    encode.enter();
    encode.tells("lay a card on encoder 1");
    site.waits_for_card("1");
    site.control("place jane on 1");
    encode.tells("written");
    assert_eq!(encode.ended(), Some(0));
    assert!(site.opens("jane", "101"));
    let none = site.refused(&["encode", "stay-9", "--encoder", "1", "--by", "Kari"]);
    assert!(none.contains("no card of this site has that name"), "{none}");
}

/// The ids of the grants that the cloud has.
fn at_cloud(site: &Site) -> Vec<Value> {
    let grants = site.ok("/access_grants/list", json!({}), "access_grants");
    sorted(grants.as_array().unwrap())
}

/// And those that the site has.
fn at_site(site: &Site) -> Vec<Value> {
    sorted(site.told_json(&["grant", "list"])["grants"].as_array().unwrap())
}

fn sorted(grants: &[Value]) -> Vec<Value> {
    let mut ids: Vec<_> = grants.iter().map(|grant| grant["access_grant_id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    ids
}

fn in_two_days() -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48)).to_string()
}

#[test]
fn what_both_sides_made_and_took_back_without_hearing_each_other_is_the_same_on_both_afterwards() {
    let mut site = Site::start();
    let (of_desk, _) = site.grant("Ada", "stay-1", &["101"]);
    let (of_cloud, _) = site.grant("Max", "stay-2", &["102"]);
    grants(&site, "stay-2", 1);
    grants(&site, "stay-1", 1);
    // First the cloud alone, then the site alone.
    site.agent().kill();
    site.ok("/access_grants/delete", json!({ "access_grant_id": of_cloud }), "ok");
    let (made_at_cloud, _) = site.grant("Eve", "stay-3", &["103"]);
    site.cloud().kill();
    site.restart_agent();
    until("the line is open", || (site.status()["systems"][0]["line"] == "ready").then_some(()));

    let until_then = in_two_days();
    let words =
        ["grant", "create", "--name", "Jane Doe", "--door", "104", "--door", "pool", "--to", &until_then];
    let made = site.told_json(
        &[&words[..], &["--reservation", "stay-4", "--key", "walk-in", "--card", "--by", "Kari"]].concat(),
    );
    site.told(&["grant", "revoke", "stay-1", "--by", "Kari"]);
    let encode = Encode::start(&site, &["walk-in", "--encoder", "1"]);
    encode.tells("lay a card on encoder 1");
    site.waits_for_card("1");
    site.control("place jane on 1");
    assert_eq!(encode.ended(), Some(0));
    site.control("remove 1");
    assert!(site.opens("jane", "104") && site.opens("jane", "pool") && !site.opens("jane", "101"));
    // A stay that the cloud has given to another room meanwhile.
    let other = site.told_json(&[
        "grant",
        "create",
        "--name",
        "John",
        "--door",
        "105",
        "--to",
        &until_then,
        "--reservation",
        "stay-3",
        "--card",
        "--by",
        "Kari",
    ]);

    site.restart_cloud();
    let wanted = sorted(&[made.clone(), other.clone(), json!({ "access_grant_id": made_at_cloud })]);
    until("both sides agree", || (at_cloud(&site) == wanted && at_site(&site) == wanted).then_some(()));
    assert!(!wanted.contains(&of_desk));
    let method = &made["cards"][0]["access_method_id"];
    until("the card is issued", || is_issued(&site, method).then_some(()));
    let of_key = json!({ "access_grant_key": "walk-in" });
    let grant = site.ok("/access_grants/get", of_key, "access_grant");
    assert_eq!((&grant["access_grant_id"], &grant["errors"]), (&made["access_grant_id"], &json!([])));
    assert_eq!(events(&site, &made["access_grant_id"], "access_grant.created"), 1);
    assert_eq!(events(&site, &made["access_grant_id"], "access_method.issued"), 1);
    assert_eq!(events(&site, &of_desk, "access_grant.deleted"), 1);
    let clash =
        site.ok("/access_grants/get", json!({ "access_grant_id": other["access_grant_id"] }), "access_grant");
    assert!(clash["errors"][0].to_string().contains("Made at the property"), "{clash}");
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn a_desk_refuses_what_the_rules_of_stays_forbid_and_what_no_door_takes() {
    let mut site = Site::start();
    site.grant("Ada", "stay-1", &["101"]);
    grants(&site, "stay-1", 1);
    site.cloud().kill();
    let until_then = in_two_days();
    let create = |more: &[&str]| {
        let words = ["grant", "create", "--name", "Jane", "--to", &until_then, "--by", "Kari"];
        site.refused(&[&words[..], more].concat())
    };
    for (more, words) in [
        (&["--door", "102", "--reservation", "stay-1", "--card"][..], "requires_cleanup"),
        (&["--door", "102", "--card"], "reservation_key_required"),
        (&["--door", "999", "--reservation", "stay-9", "--card"], "has a door 999"),
        (&["--door", "102", "--reservation", "stay-9", "--code"], "102 takes no code"),
    ] {
        let told = create(more);
        assert!(told.contains(words), "{told}");
    }
}
