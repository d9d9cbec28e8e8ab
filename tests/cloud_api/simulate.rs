//! Pretend encoders that are told what happens next.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use latchd::{
    config::SimulatorConfig,
    drivers::salto_is::sim::{Front, Options, Settings, Simulator},
    model::{SystemName, Written},
    sim::control::BlockingClient,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Cloud, text, written};

/// A simulator on a thread of its own.
struct Pretend {
    control: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Pretend {
    fn start(folder: &Path) -> Self {
        let options =
            Options { folder: folder.to_owned(), pty: false, tcp: Some("127.0.0.1:0".parse().unwrap()) };
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let simulator = Simulator::new(Settings::default()).unwrap();
                let front = Front::open(simulator, options).await.unwrap();
                tell.send(front.places().control.clone()).unwrap();
                let _ = stopped.await;
            });
        });
        let control = told.recv_timeout(Duration::from_secs(30)).unwrap();
        Self { control, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Pretend {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

const GROUP: &str = "/acs/encoders/simulate";

#[test]
fn a_pretend_encoder_is_told_what_happens_next_and_only_where_the_operator_names_it() {
    let property = tempfile::tempdir().unwrap();
    let simulator = Pretend::start(property.path());
    let mut hands = BlockingClient::connect(&simulator.control).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let mut config = super::config(&folder, true);
    let control = simulator.control.clone();
    let named = SimulatorConfig { system: SystemName::new("salto").unwrap(), control };
    config.simulators.push(named);
    let cloud = Cloud::start_with(folder, config);
    cloud.furnish();
    let encoder = cloud.encoder();
    let order = |call: &str, mut body: Value| {
        body["acs_encoder_id"] = json!(encoder);
        let (status, answer) = cloud.post(&format!("{GROUP}/{call}"), &body);
        (status, answer["error"]["type"].as_str().map(str::to_owned))
    };
    let done = (200, None);
    let mut lies = || {
        let cards = hands.send("cards").unwrap()["cards"].clone();
        let cards = cards.as_object().unwrap().iter();
        let lying: Vec<_> = cards.filter(|(_, card)| card["lies_on"] == "1").collect();
        assert!(lying.len() <= 1, "{lying:?}");
        lying.first().map(|(name, card)| ((*name).clone(), text(&card["kind"]), text(&card["serial"])))
    };
    assert_eq!(order("next_credential_encode_will_succeed", json!({})), done);
    let (_, kind, serial) = lies().unwrap();
    assert_eq!(kind, "blank");
    let scan = "next_credential_scan_will_succeed";
    assert_eq!(order(scan, json!({"scenario": "credential_does_not_exist_on_seam"})), done);
    assert_eq!(lies().unwrap().1, "staff");
    assert_eq!(order(scan, json!({"scenario": "credential_on_encoder_needs_update"})).0, 400);
    assert_eq!(order(scan, json!({})), (400, Some("invalid_input".into())));

    // A card that was written here is laid down again by its credential.
    let attempt = cloud.encode(&cloud.grant("stay-1"));
    cloud.report(&attempt, super::with_serial(written(Written::Proven), &serial));
    let card = cloud.attempt(&attempt)["result"]["acs_credential_id"].clone();
    assert_eq!(order(scan, json!({"acs_credential_id_on_seam": card})), done);
    assert_eq!(lies().unwrap().2, serial);

    let mut fault = |what: &str| hands.send("fault show").unwrap()["faults"][what].clone();
    assert_eq!(order("next_credential_scan_will_fail", json!({})), done);
    assert_eq!((fault("error_code"), fault("error")), (json!("EP"), json!(1)));
    let interrupted = json!({"error_code": "encoding_interrupted"});
    assert_eq!(order("next_credential_encode_will_fail", interrupted.clone()), done);
    assert_eq!((fault("error"), fault("write_then_silent")), (json!(0), json!(1)));
    assert_eq!(order("next_credential_scan_will_fail", interrupted), (400, Some("invalid_input".into())));
    let nobody = json!({"acs_encoder_id": "5b1ed5a0-7a30-4d6f-9d0e-000000000001"});
    let (status, answer) = cloud.post(&format!("{GROUP}/next_credential_encode_will_fail"), &nobody);
    assert_eq!((status, &answer["error"]["type"]), (404, &json!("acs_encoder_not_found")));

    let real = Cloud::with_property();
    let (status, answer) = real.post(&format!("{GROUP}/next_credential_encode_will_succeed"), &json!({}));
    assert_eq!((status, &answer["error"]["type"]), (404, &json!("not_found")));
}
