//! Every published frame, against the simulator.

use std::collections::{BTreeMap, BTreeSet};

use latchd::drivers::salto_is::sim::Dates;
use serde::Deserialize;
use serde_json::Value;

use super::*;

#[derive(Deserialize)]
struct Vector {
    id: String,
    bytes_hex: String,
}

struct Vectors {
    bytes: BTreeMap<u16, Vec<u8>>,
    used: BTreeSet<u16>,
}

impl Vectors {
    fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("../vectors/salto-is.json")).unwrap();
        let bytes = all.iter().map(|vector| {
            let digits = |at: usize| u8::from_str_radix(&vector.bytes_hex[at..at + 2], 16).unwrap();
            let number = vector.id.rsplit_once('-').unwrap().1.parse().unwrap();
            (number, (0..vector.bytes_hex.len()).step_by(2).map(digits).collect())
        });
        Self { bytes: bytes.collect(), used: BTreeSet::new() }
    }

    fn take(&mut self, number: u16) -> Vec<u8> {
        self.used.insert(number);
        self.bytes[&number].clone()
    }
}

#[tokio::test]
async fn every_published_frame_is_understood_or_spoken_exactly() {
    let mut vectors = Vectors::load();
    let mut site = Site::with(|settings| settings.property.rooms.push("W10011".into())).await;
    let mut peer = site.tcp().await;

    peer.send(&vectors.take(1)).await;
    peer.expect(&vectors.take(2)).await;
    site.say("fault busy 1").await;
    peer.send(ENQ).await;
    peer.expect(&vectors.take(3)).await;

    site.say("foreign-card-made W10011").await;
    site.say("clock set 2022-12-10T10:00").await;
    peer.ask(&vectors.take(5), &frame("MC|W10011")).await;
    let ledger = site.say("ledger").await;
    assert_eq!(ledger["rooms"]["W10011"]["stay"]["expiry"], "2022-12-12T11:00:00");
    peer.ask(&vectors.take(4), &frame("CO|0")).await;
    assert_eq!(site.say("ledger").await["rooms"]["W10011"]["stay"], Value::Null);
    site.say("clock set 2026-11-21T15:00").await;

    let codes: [(u16, &str); 13] = [
        (14, "ES"),
        (15, "NC"),
        (16, "NF"),
        (17, "OV"),
        (18, "EP"),
        (19, "EF"),
        (20, "TD"),
        (21, "ED"),
        (22, "EA"),
        (23, "OS"),
        (24, "EO"),
        (25, "EV"),
        (26, "EG 1 Encoder firmware too old"),
    ];
    for (number, code) in codes {
        site.say(&format!("fault error {code}")).await;
        peer.ask(&frame("LT|1|E"), &vectors.take(number)).await;
    }
    site.say("set closing-separator off").await;
    site.say("fault error EN").await;
    peer.ask(&frame("LT|1|E"), &vectors.take(40)).await;
    site.say("set closing-separator on").await;

    peer.ask(&vectors.take(30), &frame("CO|0")).await;
    peer.send(&vectors.take(31)).await;
    peer.expect(NAK).await;
    peer.ask(&vectors.take(32), &frame("ES|101")).await;
    peer.ask(&vectors.take(6), &frame("ES|+15555550100")).await;

    // A fresh site: the first chip there has the serial number of the published answers.
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    peer.send(&vectors.take(7)).await;
    peer.expect(ACK).await;
    peer.expect(&vectors.take(12)).await;
    peer.send(&vectors.take(37)).await;
    // Every one of these asks for the card to be taken away.
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(27), &vectors.take(28)).await;
    site.say("clock set 2026-11-24T11:00").await;
    site.say("place anna on 1").await;
    peer.ask(&frame("LT|1|E"), &vectors.take(39)).await;
    site.say("clock set 2026-11-21T15:00").await;
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(9), &frame("CC1|1|04A1B2C3D4E580")).await;
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(11), &frame("CN1|1")).await;
    assert_eq!(site.say("cards").await["cards"]["anna"]["rooms"].as_array().unwrap().len(), 4);
    site.say("remove 1").await;
    site.say("place boss staff on 1").await;
    peer.ask(&frame("LT|1|R"), &vectors.take(29)).await;
    site.say("place ben on Online Encoder 1").await;
    peer.ask(&vectors.take(8), &frame("CN|Online Encoder 1")).await;

    // The old dialect: hours only.
    let mut site = Site::with(|settings| settings.dates = Dates::Hours).await;
    let mut peer = site.serial();
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(10), &frame("CN1|1")).await;
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(33), &frame("CN|1")).await;
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(34), &frame("CC|1")).await;
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(35), &vectors.take(36)).await;
    site.say("place anna on 1").await;
    peer.ask(&frame("LT|1|E"), &vectors.take(38)).await;

    // The answer to a check-in on a phone, which is not imitated.
    vectors.used.insert(13);
    let unused: Vec<_> = vectors.bytes.keys().filter(|number| !vectors.used.contains(number)).collect();
    assert_eq!(unused, [&0_u16; 0]);
}
