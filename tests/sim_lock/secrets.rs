//! What holds a PIN shows none of it: no log at any level, no `Debug`, no message.

use std::{
    io,
    sync::{Arc, Mutex},
};

use latchd::drivers::{
    Driver,
    sim_lock::session::{Command, Conversation, Manners, Task},
};
use tracing_subscriber::fmt::MakeWriter;

use crate::house::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_pin_is_in_no_log_and_no_message_whatever_goes_wrong() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    // For all threads: what another test's thread meets first would be off for this one too.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::callsite::rebuild_interest_cache();
    let mut order = stay();
    order.content = pin("83640291");
    let house = House::open().await;
    let mut said = String::new();
    for fault in [
        "clear",
        "silent on PUT",
        "garbage on TABLE",
        "damaged on TABLE",
        "lie on PUT",
        "cut-after on PUT",
        "busy on PUT",
    ] {
        house.tell(&format!("fault {fault}")).await;
        said += &format!("{:?}", house.perform(&put(order.clone())).await);
    }
    order.slot = "other".into();
    said += &format!("{:?}", house.perform(&put(order.clone())).await);
    said += &format!(
        "{:?} {:?}",
        house.prove(&put(order.clone())).await,
        house.driver.admit(&put(order.clone()).order)
    );
    said += &format!("{:?} {:?} {:?}", house.driver, house.lock, put(order.clone()));
    house.tell("clock set 2026-11-22T10:00:00Z").await;
    assert!(house.opens("83640291").await);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("out_bytes") && log.contains("in_bytes") && log.contains("PUT"), "{log}");
    assert!(said.contains("ContentTaken"), "{said}");
    for text in [log, said] {
        assert!(!text.contains("83640291"), "{text}");
        // As bytes in decimal, too.
        assert!(!text.contains("56, 51, 54"), "{text}");
    }
}

#[test]
fn a_conversation_with_a_pin_in_its_buffer_shows_nothing_of_it() {
    use latchd::transport::{Input, Session};
    let job = latchd::model::JobId(uuid::Uuid::nil());
    let manners = Manners {
        answer_timeout: std::time::Duration::from_secs(5),
        now: at(NOW),
        zone: jiff::tz::TimeZone::UTC,
    };
    let task = Task::Prove(Command::Remove { job, key: "k".into() });
    let mut conversation = Conversation::new(task, manners);
    let now = std::time::Instant::now();
    let _ = conversation.poll(now);
    conversation.handle(now, Input::Bytes(b":00400 OK - k PIN 83640291"));
    let shown = format!("{conversation:?}");
    assert!(shown.contains("Prove") && !shown.contains("83640291") && !shown.contains("56, 51"), "{shown}");
}
