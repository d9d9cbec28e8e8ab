//! `latchd demo`, as somebody who has just cloned the repository runs it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "readme/commands.rs"]
mod commands;

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Nothing in these tests takes longer, whatever the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The chapters of the story, in order.
const CHAPTERS: [&str; 11] = [
    "Everything connects",
    "A guest arrives",
    "A second guest joins the stay",
    "The stay is extended",
    "Jane loses her card",
    "They move to another room",
    "The next stay is prepared",
    "They check out early",
    "At the annex, over TCP",
    "Somebody pulls the serial cable",
    "What the event feed says of the first grant",
];
const LAST: &str = "Every step held.";

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < give_up, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A demo with a folder of its own for everything temporary.
struct Demo {
    child: Child,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let temporary = folder.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        let file = |name| fs::File::create(folder.path().join(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_latchd"))
            .args(arguments)
            .env("TMPDIR", &temporary)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LATCHD_LOG")
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn told(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).unwrap()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("err")).unwrap()
    }

    fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the demo ends", || child.try_wait().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its child processes: numbers and the instants when they began, which together are nobody else's.
    fn children(&self) -> Vec<(u32, String)> {
        let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let parent = self.child.id().to_string();
        numbers
            .filter_map(|pid| {
                let stat = stat(pid)?;
                (stat[1] == parent).then(|| (pid, stat[19].clone()))
            })
            .collect()
    }

    /// Nothing of it is left: no process and no file outside its folder.
    fn left_nothing(&self, children: &[(u32, String)]) {
        for (pid, began) in children {
            assert!(stat(*pid).is_none_or(|stat| stat[19] != *began), "process {pid} is still there");
        }
        let left: Vec<_> = fs::read_dir(self.folder.path().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Waits until the story is told and the invitation printed.
    fn stays_up(&self) -> String {
        until("the demo stays up", || {
            let told = self.told();
            let whole =
                told.lines().any(|line| line.trim_start().starts_with("curl ")) && told.ends_with('\n');
            whole.then_some(told)
        })
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // In order, so that a failed test leaves no processes either.
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
            let give_up = Instant::now() + Duration::from_secs(20);
            while self.child.try_wait().unwrap().is_none() && Instant::now() < give_up {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The fields of a process's `stat` behind its name; the first one is its state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn chapters(told: &str) -> Vec<&str> {
    told.lines().filter(|line| CHAPTERS.contains(line)).collect()
}

#[test]
fn the_readmes_command_tells_every_chapter_and_leaves_nothing_behind() {
    let mut demo = Demo::start(commands::demo_arguments());
    let status = demo.ended();
    let told = demo.told();
    assert!(status.success(), "{told}{}", demo.errors());
    assert_eq!(chapters(&told), CHAPTERS, "{told}");
    assert_eq!(told.lines().last(), Some(LAST), "{told}");
    for (label, count) in [
        ("paired", 1),
        ("written", 11),
        ("waiting", 11),
        ("now open", 7),
        ("refused", 1),
        ("condition", 1),
        ("replugged", 1),
    ] {
        let seen = told.lines().filter(|line| line.trim_start().starts_with(label)).count();
        assert_eq!(seen, count, "{label}: {told}");
    }
    demo.left_nothing(&[]);
}

/// Tells the story of another system: how often each label stands there, and what it says it cannot do.
fn tells(system: &str, counts: [(&str, usize); 5], cannot: &[&str]) {
    let mut demo = Demo::start(["demo", "--once", "--system", system]);
    let status = demo.ended();
    let told = demo.told();
    assert!(status.success(), "{told}{}", demo.errors());
    assert_eq!(chapters(&told), CHAPTERS, "{told}");
    assert_eq!(told.lines().last(), Some(LAST), "{told}");
    let lines =
        |label: &str| told.lines().filter(|line| line.trim_start().starts_with(label)).collect::<Vec<_>>();
    for (label, count) in counts {
        assert_eq!(lines(label).len(), count, "{label}: {told}");
    }
    let said = lines("cannot");
    assert_eq!(said.len(), cannot.len(), "{said:?}");
    for (said, what) in said.iter().zip(cannot) {
        assert!(said.contains(what), "{said}");
    }
    demo.left_nothing(&[]);
}

#[test]
fn visionline_tells_the_same_stay_and_says_what_it_cannot_do() {
    let counts = [("written", 10), ("now open", 7), ("refused", 1), ("told", 0), ("freed", 0)];
    tells("visionline", counts, &["no command that changes a stay", "free 101", "no serial cable"]);
}

#[test]
fn ambiance_changes_stays_and_frees_rooms_and_has_no_cable() {
    let counts = [("written", 10), ("now open", 7), ("refused", 1), ("told", 1), ("freed", 1)];
    tells("ambiance", counts, &["no serial cable"]);
}

#[test]
fn onity_tells_all_of_it_in_whole_hours_on_a_server_that_takes_nothing_else() {
    let counts = [("written", 11), ("now open", 7), ("refused", 1), ("told", 1), ("condition", 1)];
    tells("onity", counts, &[]);
}

#[test]
fn locks_by_bluetooth_are_paired_get_a_code_and_lose_it_again_one_of_them_late() {
    let has_a_bus = Command::new("dbus-daemon").arg("--version").output().is_ok();
    assert!(has_a_bus || std::env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: dbus-daemon");
    if !has_a_bus {
        return;
    }
    let mut demo = Demo::start(["demo", "--once", "--system", "ble"]);
    let status = demo.ended();
    let told = demo.told();
    assert!(status.success(), "{told}{}", demo.errors());
    let expected = [
        "The locks get to know the house",
        "Everything connects",
        "A guest gets one code for three locks",
        "The grant ends while a lock is out of range",
    ];
    let told_of = told.lines().filter(|line| expected.contains(line)).collect::<Vec<_>>();
    assert_eq!(told_of, expected, "{told}");
    assert_eq!(told.lines().last(), Some(LAST), "{told}");
    for (label, count) in [("device", 3), ("issued", 1), ("opens", 1), ("removed", 3), ("still", 1)] {
        let seen = told.lines().filter(|line| line.trim_start().starts_with(label)).count();
        assert_eq!(seen, count, "{label}: {told}");
    }
    demo.left_nothing(&[]);
}

#[test]
fn a_folder_that_was_kept_of_another_system_is_refused_by_name() {
    let kept = tempfile::tempdir().unwrap();
    let keep = kept.path().to_str().unwrap();
    fs::write(kept.path().join("system"), "salto").unwrap();
    let mut demo = Demo::start(["demo", "--once", "--keep", keep, "--system", "onity"]);
    assert_eq!(demo.ended().code(), Some(1));
    let errors = demo.errors();
    assert!(errors.contains("--system salto") && errors.contains("another folder"), "{errors}");
    demo.left_nothing(&[]);
}

#[test]
fn a_failing_property_fails_the_demo_which_names_the_step_and_keeps_databases_and_logs() {
    let kept = tempfile::tempdir().unwrap();
    let keep = kept.path().join("kept");
    let keep_here = keep.to_str().unwrap();
    let mut demo = Demo::start(["demo", "--once", "--keep", keep_here, "--fault", "fault error EG 1"]);
    let status = demo.ended();
    let told = demo.told();
    assert_eq!(status.code(), Some(1), "{told}");
    let failed = told.lines().find(|line| line.trim_start().starts_with("FAILED")).unwrap();
    assert!(failed.contains("a guest arrives") && failed.contains("EG"), "{failed}");
    assert_eq!(chapters(&told), CHAPTERS[..2], "{told}");
    assert!(!told.contains(LAST) && demo.errors().contains("did not hold"), "{told}{}", demo.errors());
    for file in ["agent/queue.db", "cloud/cloud.db", "agent.log", "cloud.log", "latchd.toml", "cloud.toml"] {
        assert!(fs::metadata(keep.join(file)).unwrap().len() > 0, "{file}");
    }
    demo.left_nothing(&[]);

    // What was kept is gone on with: the site stays paired, and what failed is done.
    let mut demo = Demo::start(["demo", "--once", "--keep", keep_here]);
    let status = demo.ended();
    let told = demo.told();
    assert!(status.success(), "{told}{}", demo.errors());
    assert_eq!(chapters(&told), CHAPTERS, "{told}");
    let paired = told.lines().find(|line| line.trim_start().starts_with("paired")).unwrap();
    assert!(paired.contains("as it was when this folder was kept"), "{paired}");
    demo.left_nothing(&[]);
}

#[test]
fn without_once_it_stays_up_with_a_curl_line_that_works_and_ends_on_sigterm() {
    let mut demo = Demo::start(["demo"]);
    let told = demo.stays_up();
    assert_eq!(chapters(&told), CHAPTERS, "{told}");
    assert!(told.contains(LAST), "{told}");
    let after = |label: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(label));
        line.unwrap_or_else(|| panic!("no line {label:?} in {told}")).trim().to_owned()
    };
    let curl = Curl::read(&after("curl "));
    assert_eq!(curl.url, format!("{}/acs/entrances/list", after("URL ")));
    assert_eq!(after("key ").split_whitespace().next(), curl.key_file.to_str());
    let (status, answer) = curl.run();
    assert_eq!(status, 200, "{answer}");
    let names: Vec<_> =
        answer["acs_entrances"].as_array().unwrap().iter().map(|one| &one["display_name"]).collect();
    assert!(names.contains(&&json!("101")) && names.contains(&&json!("pool")), "{answer}");

    let children = demo.children();
    assert_eq!(children.len(), 3, "{children:?}");
    demo.signal(Signal::TERM);
    let status = demo.ended();
    assert!(status.success(), "{:?} {}", status.signal(), demo.errors());
    demo.left_nothing(&children);
}

#[test]
fn an_interrupt_ends_it_without_a_trace_while_it_stays_up() {
    let mut demo = Demo::start(["demo"]);
    demo.stays_up();
    let children = demo.children();
    assert_eq!(children.len(), 3, "{children:?}");
    demo.signal(Signal::INT);
    let status = demo.ended();
    assert!(status.success(), "{:?} {}", status.signal(), demo.errors());
    demo.left_nothing(&children);
}

#[test]
fn a_signal_in_the_middle_of_the_story_ends_it_without_a_trace_and_is_no_success() {
    let mut demo = Demo::start(["demo", "--once"]);
    until("the story begins", || (!chapters(&demo.told()).is_empty()).then_some(()));
    let children = demo.children();
    assert_eq!(children.len(), 3, "{children:?}");
    demo.signal(Signal::TERM);
    let status = demo.ended();
    assert_eq!(status.code(), Some(1), "{:?} {}", status.signal(), demo.errors());
    assert!(demo.errors().contains("before the end of the story"), "{}", demo.errors());
    demo.left_nothing(&children);
}

/// The request that the demo prints as a command.
struct Curl {
    ca_file: PathBuf,
    key_file: PathBuf,
    url: String,
}

impl Curl {
    /// Takes the command apart; whatever it does not know fails.
    fn read(command: &str) -> Self {
        let between = |before: &str, after: &str| {
            let rest = command.split_once(before).unwrap_or_else(|| panic!("no {before} in {command}")).1;
            rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {command}")).0.to_owned()
        };
        let ca_file = between("--cacert ", " -H");
        let key_file = between("-H \"authorization: Bearer $(cat ", ")\" -X POST");
        let url = command.rsplit_once(' ').unwrap().1.to_owned();
        let whole =
            format!("--cacert {ca_file} -H \"authorization: Bearer $(cat {key_file})\" -X POST {url}");
        assert_eq!(command, whole);
        Self { ca_file: ca_file.into(), key_file: key_file.into(), url }
    }

    /// The same request by a plain client.
    fn run(&self) -> (u16, Value) {
        let key = fs::read_to_string(&self.key_file).unwrap();
        let answer = https(&self.ca_file)
            .post(&self.url)
            .header("authorization", format!("Bearer {}", key.trim()))
            .send_empty()
            .unwrap();
        let status = answer.status().as_u16();
        (status, answer.into_body().read_json().unwrap())
    }
}

fn https(ca_file: &Path) -> ureq::Agent {
    let certificate = ureq::tls::Certificate::from_pem(&fs::read(ca_file).unwrap()).unwrap();
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::Specific(Arc::new(vec![certificate])))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}
