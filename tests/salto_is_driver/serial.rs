//! Over real pseudo-terminals, published through a link as udev does. They do not imitate speed, parity or modem
//! lines.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use latchd::{
    drivers::{
        Driver, Line,
        salto_is::{Past, SaltoIs},
    },
    seams::Random,
};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_serial::{FlowControl, SerialPort, SerialStream};

use crate::desk::*;

#[tokio::test]
async fn a_card_is_written_over_a_serial_line_in_spite_of_noise() {
    let desk = Desk::new();
    let mut plug = desk.plug_in();
    let driver = desk.driver("");
    ready(&driver).await;
    plug.server.say(b"left over \x02\xb3CN1").await;
    let script = async {
        plug.server.expect(ENQ).await;
        plug.server.say(b"\xff\x00~").await;
        plug.server.say(ACK).await;
        plug.server.expect(FIRST_CARD).await;
        plug.server.say(ACK).await;
        plug.server.say(b"\x80\x80").await;
        for byte in frame("CN1|1|04A1B2C3D4E580") {
            plug.server.say(&[byte]).await;
        }
        plug.server.expect(ACK).await;
    };
    let performed = perform(&driver, override_with(card()), script).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("04A1B2C3D4E580"));
}

#[tokio::test]
async fn the_port_gets_the_settings_of_the_configuration() {
    let desk = Desk::new();
    let plug = desk.plug_in();
    let settings = format!("serial = {:?}, baud = 19200", desk.link.to_str().unwrap());
    let driver =
        SaltoIs::start(&config(&settings, ""), name(), oslo(), Past::Answered, clock(), Random::seeded(7));
    ready(&driver).await;
    // The far end of a pseudo-terminal shows the near end's settings.
    assert_eq!(plug.server.0.baud_rate().unwrap(), 19200);
    assert_eq!(plug.server.0.flow_control().unwrap(), FlowControl::Hardware);
}

#[tokio::test]
async fn unplugged_while_idle_it_comes_back_through_the_same_link() {
    let desk = Desk::new();
    let plug = desk.plug_in();
    let driver = desk.driver("");
    ready(&driver).await;
    desk.pull_out(plug);
    line_is(&driver, "port_missing").await;
    let performed = perform(&driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    let mut plug = desk.plug_in();
    ready(&driver).await;
    success(perform(&driver, override_with(card()), plug.server.serve(FIRST_CARD, "CN1|1")).await);
}

#[tokio::test]
async fn unplugged_before_the_frame_nothing_was_sent() {
    let desk = Desk::new();
    let mut plug = desk.plug_in();
    let driver = desk.driver("");
    ready(&driver).await;
    let script = async {
        plug.server.expect(ENQ).await;
        desk.pull_out(plug);
    };
    let performed = perform(&driver, override_with(card()), script).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    let mut plug = desk.plug_in();
    ready(&driver).await;
    success(perform(&driver, override_with(card()), plug.server.serve(FIRST_CARD, "CN1|1")).await);
}

#[tokio::test]
async fn unplugged_after_the_frame_a_card_is_a_doubt_and_a_reading_a_failure() {
    for (work, end_of_it) in [(override_with(card()), "unknown line_lost"), (read(), "failed line_lost")] {
        let desk = Desk::new();
        let mut plug = desk.plug_in();
        let driver = desk.driver("settle = \"1s\"");
        ready(&driver).await;
        let script = async {
            plug.server.answer_poll().await;
            // The first byte of the frame is enough.
            plug.server.expect(b"\x02").await;
            desk.pull_out(plug);
        };
        let performed = perform(&driver, work, script).await;
        assert_eq!(end(&performed), end_of_it);
        // The server never saw the cable; what it says now is about the card before.
        let mut plug = desk.plug_in();
        line_is(&driver, "line_settling").await;
        plug.server.say(&frame("CN1|1|0LD")).await;
        ready(&driver).await;
        let performed =
            perform(&driver, override_with(card()), plug.server.serve(FIRST_CARD, "CN1|1|NEW")).await;
        assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("NEW"));
    }
}

#[tokio::test]
async fn unplugged_it_does_not_spin() {
    let desk = Desk::new();
    let plug = desk.plug_in();
    let driver = desk.driver("");
    ready(&driver).await;
    desk.pull_out(plug);
    let before = cpu_ticks_of_this_thread();
    sleep(Duration::from_secs(1)).await;
    let spent = cpu_ticks_of_this_thread() - before;
    assert_eq!(word(&driver.line().borrow()), "port_missing");
    // A tick is 10 ms; a loop on a hung-up port takes all hundred of them.
    assert!(spent < 20, "{spent} ticks of processor time in a second");
}

#[tokio::test]
async fn a_port_that_another_program_holds_is_named_and_opens_when_it_is_free() {
    let desk = Desk::new();
    let mut plug = desk.plug_in();
    let port = tokio_serial::new(desk.link.to_str().unwrap(), 9600);
    let holder = SerialStream::open(&port).unwrap();
    let driver = desk.driver("");
    line_is(&driver, "port_held").await;
    let us = format!("(pid {})", std::process::id());
    match &*driver.line().borrow() {
        Line::Down(trouble) => assert!(trouble.message.contains(&us), "{}", trouble.message),
        other => panic!("{other:?}"),
    }
    drop(holder);
    ready(&driver).await;
    success(perform(&driver, override_with(card()), plug.server.serve(FIRST_CARD, "CN1|1")).await);
}

#[tokio::test]
async fn a_late_answer_is_thrown_away_while_the_line_settles_and_never_matched_to_the_next_job() {
    let desk = Desk::new();
    let mut plug = desk.plug_in();
    let driver = desk.driver("settle = \"1s\"\nanswer_margin = \"1s\"");
    ready(&driver).await;
    let mut impatient = card();
    impatient.card_wait_seconds = 0;
    let performed = perform(&driver, override_with(impatient), plug.server.take(FIRST_CARD)).await;
    assert_eq!(end(&performed), "unknown no_answer");
    assert_eq!(word(&driver.line().borrow()), "line_settling");
    let performed = perform(&driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    plug.server.say(&frame("CN1|1|0LD")).await;
    ready(&driver).await;
    let performed = perform(&driver, override_with(card()), plug.server.serve(FIRST_CARD, "CN1|1|NEW")).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("NEW"));
}

#[tokio::test]
async fn a_run_that_ended_without_an_answer_makes_the_next_one_settle_first() {
    let desk = Desk::new();
    let mut plug = desk.plug_in();
    let driver = desk.driver_after("settle = \"1s\"", Past::AnswerMayCome);
    line_is(&driver, "line_settling").await;
    plug.server.say(&frame("CN1|1|0LD")).await;
    ready(&driver).await;
    let performed = perform(&driver, override_with(card()), plug.server.serve(FIRST_CARD, "CN1|1|NEW")).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("NEW"));
}

#[tokio::test]
async fn what_was_written_before_the_port_was_opened_is_cleared() {
    let desk = Desk::new();
    let mut plug = desk.plug_in();
    plug.server.say(&[ACK, ACK, &frame("CN1|1|0LD")[..]].concat()).await;
    let driver = desk.driver("");
    ready(&driver).await;
    let performed = perform(&driver, override_with(card()), plug.server.serve(FIRST_CARD, "CN1|1|NEW")).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("NEW"));
}

/// A desk with one serial link.
struct Desk {
    link: PathBuf,
    _folder: TempDir,
}

/// An adapter in its socket. The slave stays open, else the server's end breaks whenever the driver closes the port.
struct Plug {
    server: Server<SerialStream>,
    _slave: SerialStream,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { link: folder.path().join("usb-adapter-port0"), _folder: folder }
    }

    fn driver(&self, more: &str) -> SaltoIs {
        self.driver_after(more, Past::Answered)
    }

    fn driver_after(&self, more: &str, past: Past) -> SaltoIs {
        let config = config(&format!("serial = {:?}", self.link.to_str().unwrap()), more);
        SaltoIs::start(&config, name(), oslo(), past, clock(), Random::seeded(7))
    }

    fn plug_in(&self) -> Plug {
        let (master, slave) = SerialStream::pair().unwrap();
        let name = slave.name().unwrap();
        let fresh = self.link.with_extension("new");
        symlink(Path::new(&name), &fresh).unwrap();
        fs::rename(&fresh, &self.link).unwrap();
        Plug { server: Server(master), _slave: slave }
    }

    fn pull_out(&self, plug: Plug) {
        fs::remove_file(&self.link).unwrap();
        drop(plug);
    }
}

/// User and system time of this thread, which is the runtime's only one.
fn cpu_ticks_of_this_thread() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
