//! The simulator as an Onity server: what it takes, and what it refuses because a real one knows no such thing.

use latchd::drivers::salto_is::sim::Dialect;

use super::*;

async fn onity() -> Site {
    Site::with(|settings| settings.dialect = Dialect::Onity).await
}

/// A frame that nobody checks.
fn unchecked(fields: &str) -> Vec<u8> {
    let mut bytes = frame(fields);
    *bytes.last_mut().unwrap() = 0x0d;
    bytes
}

/// As a client of Onity's publishes it: one room, no start, the end in whole hours, two tracks, `0D`.
const FIRST: &[u8] =
    b"\x02\xb3CN\xb31\xb3E\xb3101\xb3\xb3\xb3\xb312\xb3\xb3\xb311241126\xb3BRIDGE\xb3\xb3\xb3\x03\x0d";

#[tokio::test]
async fn a_published_card_is_made_and_answers_are_not_checked() {
    let mut site = onity().await;
    let mut peer = site.tcp().await;
    site.say("place ada on 1").await;
    peer.ask(FIRST, &unchecked("CN|1")).await;
    let cards = site.say("cards").await;
    assert_eq!(cards["cards"]["ada"]["expiry"], "2026-11-24T11:00:00", "{cards}");
    site.say("place ada on 1").await;
    let read = unchecked("LT|1|101||||CI|0|12|15211126|11241126|BRIDGE");
    peer.ask(&unchecked("LT|1|E"), &read).await;
    peer.ask(&unchecked("CO|0|101"), &unchecked("CO|0")).await;
}

#[tokio::test]
async fn what_onity_does_not_know_is_a_syntax_error_with_its_reason() {
    let mut site = onity().await;
    let mut peer = site.tcp().await;
    site.say("place ada on 1").await;
    let track = "x".repeat(63);
    let first_track = format!("CN|1|R|101||||||||BRIDGE|{track}");
    for (asked, why) in [
        ("CN|1|R|101|||||||1100241126", "a date is not in the form this server is set to"),
        ("CN|1|R|101||||||15211126|11241126", "a start: a card of this system opens at once"),
        ("CN|1|R|101|102||||||11241126", "a second room: a card of this system opens one"),
        ("CN|desk|R|101|||||||11241126", "the encoder is no client number"),
        ("LT|desk|R", "the encoder is no client number"),
        ("CN|1|R|101|||||||11241126|ABCDEFGHIJKLMNOPQRSTU", "operator longer than 20"),
        (&first_track, "track 1 longer than 62 or track 2 longer than 14"),
        (
            "CN|1|R|101|||||||11241126|BRIDGE||123456789012345",
            "track 1 longer than 62 or track 2 longer than 14",
        ),
        ("MC|101||1100241126", "a date is not in the form this server is set to"),
    ] {
        let encoder = asked.split('|').nth(1).unwrap();
        peer.ask(&unchecked(asked), &unchecked(&format!("ES|{encoder}"))).await;
        assert_eq!(site.last_order().await["why"], why, "{asked}");
    }
    let cards = site.say("cards").await;
    assert_eq!(cards["cards"]["ada"]["kind"], "blank", "{cards}");
}

#[tokio::test]
async fn a_salto_server_takes_what_onity_does_not() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place ada on 1").await;
    peer.exchange("CN|1|R|101|102|||||1500211126|1100241126|ABCDEFGHIJKLMNOPQRSTUVWX", "CN|1").await;
}

#[tokio::test]
async fn its_section_of_the_agents_configuration_names_the_dialect() {
    let mut site = onity().await;
    let section = site.say("agent-config tcp").await["toml"].as_str().unwrap().to_owned();
    let table: toml::Table = section.parse().unwrap();
    assert_eq!(table["system"][0]["dialect"].as_str(), Some("onity"), "{section}");
    let salto = Site::new().await.say("agent-config tcp").await["toml"].as_str().unwrap().to_owned();
    assert!(!salto.contains("dialect"), "{salto}");
}

#[tokio::test]
async fn amadeus_has_an_empty_eject_field_and_a_reading_and_a_check_out_of_its_own() {
    let mut site = Site::with(|settings| settings.dialect = Dialect::AmadeusSt40).await;
    let mut peer = site.tcp().await;
    site.say("place ada on 1").await;
    peer.ask(&unchecked("CN|1||101||||12|||11241126|BRIDGE"), &unchecked("CN|1")).await;
    let read = unchecked("LTE|1|101||||CI|0|12|15211126|11241126|BRIDGE");
    peer.ask(&unchecked("LTE|1|"), &read).await;
    peer.ask(&unchecked("CO|101"), &unchecked("CO")).await;
    for (asked, why) in [
        ("CN|1|E|101|||||||11241126|BRIDGE", "an eject field: this system has none"),
        ("CN|1||101||||||15211126|11241126|BRIDGE", "a start: a card of this system opens at once"),
        ("LT|1|", "not a command this server knows"),
        ("CO|0|101", "more fields than the command has"),
        ("MC|101||11241126", "not a command this server knows"),
    ] {
        let encoder = asked.split('|').nth(1).unwrap();
        peer.ask(&unchecked(asked), &unchecked(&format!("ES|{encoder}"))).await;
        assert_eq!(site.last_order().await["why"], why, "{asked}");
    }
    let section = site.say("agent-config tcp").await["toml"].as_str().unwrap().to_owned();
    assert!(section.contains("dialect = \"amadeus_st40\""), "{section}");
}

#[tokio::test]
async fn an_onity_server_takes_nothing_of_amadeus() {
    let site = onity().await;
    let mut peer = site.tcp().await;
    for asked in ["CN|1||101|||||||11241126|BRIDGE", "LTE|1|", "CO|101"] {
        let encoder = asked.split('|').nth(1).unwrap();
        peer.ask(&unchecked(asked), &unchecked(&format!("ES|{encoder}"))).await;
    }
}
