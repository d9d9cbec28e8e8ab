//! Other makes than the rest of these tests go by: granted over the cloud's interface, judged by the simulator's doors.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};

use crate::site::{Process, Site, first_line, latchd, until};

/// A site whose only system is of another make, with more settings for it.
fn site_of(make: &str, more: &str) -> Site {
    let mut site = Site::without_agent();
    let folder = site.folder.path().to_owned();
    let mut sim = latchd();
    sim.args(["sim", make, "--dir"]).arg(folder.join("system"));
    let sim = Process::start(&folder, "system", &mut sim);
    site.control = PathBuf::from(first_line(&sim)["control"].as_str().unwrap());
    site.sim = Some(sim);
    let password = folder.join("password");
    fs::write(&password, "sesame").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let asked = match make {
        "messenger" => format!("agent-config {}", password.display()),
        _ => "agent-config".into(),
    };
    let section = site.control(&asked)["config"].as_str().unwrap().to_owned();
    let folder = folder.display();
    let text = format!(
        "[site]\nname = \"Test House\"\ntime_zone = \"Europe/Oslo\"\n[storage]\nfolder = \"{folder}/agent\"\n\
         [admin]\nsocket = \"{folder}/agent.sock\"\n{section}\n{more}\n"
    );
    fs::write(site.folder.path().join("agent.toml"), text).unwrap();
    site.start_agent();
    site.healthy();
    site
}

impl Site {
    /// One whole card at the first encoder, as [`Site::card`] for the simulators that tell of waits in their ledger.
    fn made(&self, card: &str, reservation: &str, doors: &[&str]) -> Value {
        let (grant, method) = self.grant(card, reservation, doors);
        let attempt = self.encode(&method, "1");
        until("the encoder waits for a card", || {
            (self.control("ledger")["encoders"]["1"]["busy"] == true).then_some(())
        });
        self.control(&format!("place {card} on 1"));
        let attempt = self.ended(&attempt);
        assert_eq!(attempt["status"], "success", "{attempt}");
        self.control("remove 1");
        grant
    }

    fn deleted(&self, grant: &Value) {
        let (status, answer) = self.call("/access_grants/delete", json!({ "access_grant_id": grant }));
        assert_eq!(status, 200, "{answer}");
    }

    /// What a grant says of cards that open what they should not.
    fn overprovisioned(&self, grant: &Value) -> Vec<String> {
        let shown = self.ok("/access_grants/get", json!({ "access_grant_id": grant }), "access_grant");
        let warnings = shown["warnings"].as_array().unwrap().iter();
        let wanted = warnings.filter(|warning| warning["warning_code"] == "overprovisioned_access");
        wanted.map(|warning| warning["message"].as_str().unwrap().to_owned()).collect()
    }

    fn openers(&self, door: &str) -> Vec<String> {
        serde_json::from_value(self.control("ledger")["doors"][door].clone()).unwrap()
    }
}

/// What was asked of Messenger's service, oldest first.
fn operations(site: &Site) -> Vec<String> {
    let ledger = site.control("ledger");
    let orders = ledger["orders"].as_array().unwrap().iter();
    orders.map(|order| order["operation"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_stay_at_messenger_begins_is_joined_and_is_checked_out_with_all_who_joined() {
    let site = site_of("messenger", "checkout = \"last_grant\"");
    let janes = site.made("jane", "stay-1", &["101", "pool"]);
    assert_eq!((site.openers("101"), site.openers("pool")), (vec!["jane".into()], vec!["jane".into()]));
    let johns = site.made("john", "stay-1", &["101"]);
    assert_eq!(
        (site.openers("101"), site.openers("pool")),
        (vec!["jane".into(), "john".into()], vec!["jane".into()])
    );
    assert!(site.openers("102").is_empty());

    site.deleted(&janes);
    let told = site.overprovisioned(&johns);
    assert!(told.len() == 1 && told[0].contains("still opens 101"), "{told:?}");
    // Another stay's card, ordered and written after it, shows that nothing was on its way for the first one.
    site.made("ada", "stay-2", &["102"]);
    assert_eq!(operations(&site), ["CreateNewBooking", "AddSharedGuest", "CreateNewBooking"]);

    site.deleted(&johns);
    until("the room is checked out", || (site.jobs("succeeded") == Some(4)).then_some(()));
    assert_eq!(operations(&site)[3..], ["CheckOutGuest", "CancelGuestsAccessToRoom"]);
    let ledger = site.control("ledger");
    let stays = ledger["stays"].as_object().unwrap();
    assert_eq!(stays.len(), 3, "{stays:?}");
    for stay in stays.values() {
        assert_eq!(stay["is_out"], stay["rights"]["room"] == "101", "{stays:?}");
    }
    // The service has nobody in the room; its offline lock goes by the cards until the next guest's is used.
    assert_eq!(site.openers("101"), ["jane", "john"]);
    site.made("eve", "stay-3", &["101"]);
    assert!(site.opens("eve", "101"));
    assert_eq!((site.openers("101"), site.openers("102")), (vec!["eve".into()], vec!["ada".into()]));
}

#[test]
fn what_is_odd_about_a_service_is_a_warning_until_it_is_mended_and_cards_are_made_all_the_same() {
    let mut site = site_of("messenger", "");
    let remarked = |site: &Site| {
        let conditions = site.status()["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["code"] == "messenger_differs")
    };
    assert_eq!(remarked(&site), None);
    site.control("set wsdl-without ExtendCheckOut");
    site.restart_agent();
    site.healthy();
    let remark = until("the remark is shown", || remarked(&site));
    assert_eq!(remark["severity"], "warning", "{remark}");
    assert!(remark["message"].as_str().unwrap().contains("lacks ExtendCheckOut"), "{remark}");
    site.made("jane", "stay-1", &["101"]);
    assert_eq!(site.openers("101"), ["jane"]);
    site.control("set wsdl-without nothing");
    site.restart_agent();
    site.healthy();
    until("the service is compared again", || remarked(&site).is_none().then_some(()));
}

#[test]
fn a_stay_at_visionline_begins_is_joined_and_its_deleted_grants_say_until_when_their_cards_open() {
    let site = site_of("visionline", "");
    let janes = site.made("jane", "stay-1", &["101", "pool"]);
    assert_eq!((site.openers("101"), site.openers("pool")), (vec!["jane".into()], vec!["jane".into()]));
    let johns = site.made("john", "stay-1", &["101"]);
    assert_eq!(site.openers("101"), ["jane", "john"]);

    // Nothing frees a room by this interface: the grants say so, and nobody is asked for anything.
    site.deleted(&janes);
    let told = site.overprovisioned(&johns);
    assert!(told.len() == 1 && told[0].contains("still opens 101, pool until"), "{told:?}");
    site.deleted(&johns);
    let told = site.overprovisioned(&johns);
    assert!(told.len() == 1 && told[0].contains("still opens until 20"), "{told:?}");
    site.made("ada", "stay-2", &["102"]);
    let ledger = site.control("ledger");
    let said = ledger["orders"].as_array().unwrap().iter().map(|order| order["said"].as_str().unwrap());
    let changing: Vec<_> = said.filter(|said| !said.starts_with("CCB;")).collect();
    let cards = changing.iter().filter(|said| said.starts_with("CCA;")).count();
    assert_eq!((cards, changing.len()), (3, 3), "{changing:?}");
    assert_eq!(site.openers("101"), ["jane", "john"]);
    // The end that is printed on a card is its end.
    site.control("clock advance 49h");
    assert!(site.openers("101").is_empty() && site.openers("pool").is_empty());
}
