//! The admin socket as strangers, clients and the command line meet it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream as StdStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use latchd::{
    agent::admin::{
        AdminError, AuditReport, JobLine, LinkReport, LinkState, Moment, Question, Request, Response, Server,
        StatusReport, Watched, Watchers, ask, serve,
    },
    model::{Code, Condition, JobId, JobState, Kind, Origin, Priority, Severity, SystemName},
};
use tokio::sync::{mpsc, oneshot};

fn report(severity: Option<Severity>) -> StatusReport {
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    StatusReport {
        version: "0.1.0".into(),
        site: "Hotel Fjord".into(),
        time_zone: "Europe/Oslo".into(),
        now,
        since: now,
        link: LinkReport {
            state: LinkState::Up,
            since: now,
            cloud: "wss://cloud.example".into(),
            workspace: Some("Home".into()),
            bridge_id: None,
            certificate_until: None,
            trouble: None,
        },
        systems: Vec::new(),
        lanes: Vec::new(),
        jobs: Vec::new(),
        unacknowledged: 0,
        conditions: severity
            .map(|severity| Condition {
                code: "line_down".into(),
                severity,
                subject: "salto".into(),
                message: "plug it in".into(),
                since: now,
            })
            .into_iter()
            .collect(),
    }
}

fn job() -> JobLine {
    JobLine {
        job_id: JobId(uuid::Uuid::nil()),
        kind: Some(Kind::CardEncode),
        system: Some(SystemName::new("salto").unwrap()),
        lane: None,
        state: JobState::Unknown,
        priority: Some(Priority::Desk),
        created_at: "2026-11-22T12:00:00Z".parse().unwrap(),
        changed_at: "2026-11-22T12:00:20Z".parse().unwrap(),
        code: Some(Code::NoAnswer),
        origin: Origin::Cloud,
        due_at: None,
        retries: None,
    }
}

/// Of three entries.
fn audit(before: Option<u64>, limit: u16) -> Response {
    let entry = |number| AuditReport {
        number,
        at: "2026-11-22T12:00:00Z".parse().unwrap(),
        what: "resolved".into(),
        job_id: Some(JobId(uuid::Uuid::from_u128(number.into()))),
        detail: format!("Kari says so, number {number}"),
    };
    let entries: Vec<_> =
        (1..=3).rev().filter(|number| before.is_none_or(|before| *number < before)).collect();
    let shown = entries.iter().copied().take(limit.into()).map(entry).collect();
    Response::Audit { entries: shown, more: usize::from(limit) < entries.len() }
}

fn step(number: u128, moment: Moment) -> Watched {
    Watched {
        at: "2026-11-22T12:00:00Z".parse().unwrap(),
        job_id: JobId(uuid::Uuid::from_u128(number)),
        kind: Some(Kind::CardEncode),
        system: Some(SystemName::new("salto").unwrap()),
        encoder: None,
        device: None,
        doors: Vec::new(),
        moment,
    }
}

/// An agent that serves its socket in a thread of its own until it is dropped.
struct Agent {
    socket: PathBuf,
    watchers: Watchers,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        Self::with(None)
    }

    fn with(severity: Option<Severity>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/latchd.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let path = socket.clone();
        let watchers = Watchers::default();
        let all = watchers.clone();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let server = Server::bind(&path).await.unwrap();
                bound.send(()).unwrap();
                let (questions, mut asked) = mpsc::channel::<Question>(4);
                tokio::spawn(async move {
                    while let Some((request, way_back)) = asked.recv().await {
                        let response = match request {
                            Request::Status => Response::Status(Box::new(report(severity))),
                            Request::Jobs { limit, .. } => {
                                Response::Jobs { jobs: vec![job(); limit.min(3).into()], more: false }
                            }
                            Request::Resolve { .. } => Response::Resolved { state: JobState::Succeeded },
                            Request::Job { job_id } => {
                                Response::refused("no_such_job", format!("there is no job {job_id}"))
                            }
                            Request::Audit { before, limit } => audit(before, limit),
                            Request::Watch { .. } => Response::Watching { jobs: vec![step(1, Moment::Sent)] },
                            Request::Cancel { .. } => Response::refused("too_late", "too late: it was sent"),
                            other => Response::refused("unexpected", format!("{other:?}")),
                        };
                        let _ = way_back.send(response);
                    }
                });
                server.run(questions, all, async { drop(stopped.await) }).await;
            });
        });
        is_bound.recv().unwrap();
        Self { socket, watchers, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    /// Sends bytes and reads what comes until the agent hangs up or `lines` lines are there.
    fn raw(&self, bytes: &[u8], lines: usize) -> String {
        let mut stream = StdStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // The agent may hang up before it has read everything.
        let _ = stream.write_all(bytes);
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while heard.iter().filter(|&&byte| byte == b'\n').count() < lines {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
            }
        }
        String::from_utf8(heard).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn latchd(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latchd")).args(arguments).arg("--socket").arg(socket).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn status_and_jobs_are_printed_for_people_and_for_programs() {
    let agent = Agent::start();
    let status = latchd(&agent.socket, &["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    assert!(text(&status.stdout).contains("Enrolled to  Home, at wss://cloud.example"));
    let json = latchd(&agent.socket, &["status", "--json"]);
    let read: StatusReport = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(read, report(None));
    let list = latchd(&agent.socket, &["jobs", "list", "--limit", "2", "--json"]);
    let jobs: Vec<JobLine> = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(jobs, vec![job(); 2]);
    let list = latchd(&agent.socket, &["jobs", "list", "--state", "unknown"]);
    assert!(text(&list.stdout).contains("unknown: no_answer"));
}

#[test]
fn the_audit_is_listed_page_by_page_for_people_and_for_programs() {
    let agent = Agent::start();
    let first = latchd(&agent.socket, &["audit", "--limit", "2"]);
    let shown = text(&first.stdout);
    assert!(first.status.success() && shown.contains("Kari says so, number 3"), "{first:?}");
    assert!(shown.ends_with("There is more: --before 2\n"), "{shown}");
    let last = latchd(&agent.socket, &["audit", "--before", "2"]);
    let shown = text(&last.stdout);
    assert!(shown.contains("number 1") && !shown.contains("number 2") && !shown.contains("more"), "{shown}");
    let programs = latchd(&agent.socket, &["audit", "--json"]);
    let read: Vec<AuditReport> = serde_json::from_slice(&programs.stdout).unwrap();
    assert_eq!(read.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 2, 1]);
    let none = latchd(&agent.socket, &["audit", "--before", "1"]);
    assert_eq!(text(&none.stdout), "Nothing.\n");
}

#[test]
fn a_refusal_is_told_once_and_ends_with_one() {
    let agent = Agent::start();
    let id = "00000000-0000-0000-0000-000000000000";
    let show = latchd(&agent.socket, &["jobs", "show", id]);
    assert_eq!(show.status.code(), Some(1));
    assert_eq!(text(&show.stderr), format!("latchd: there is no job {id} (no_such_job)\n"));
}

#[test]
fn status_ends_with_three_where_something_needs_a_person() {
    let code = |severity| latchd(&Agent::with(Some(severity)).socket, &["status"]).status.code();
    assert_eq!(code(Severity::Error), Some(3));
    assert_eq!(code(Severity::Warning), Some(0));
}

#[test]
fn without_an_agent_the_command_line_says_so_and_what_to_do() {
    let status = latchd(Path::new("/nonexistent/latchd.sock"), &["status"]);
    assert_eq!(status.status.code(), Some(1));
    let told = text(&status.stderr);
    assert!(told.contains("no agent answers at /nonexistent/latchd.sock"), "{told}");
    assert!(told.contains("systemctl status latchd") && told.contains("No such file"), "{told}");
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_agent() {
    let agent = Agent::start();
    let mode = std::fs::metadata(&agent.socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    let folder = agent.socket.parent().unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "nothing but the socket stays there");
    let socket = agent.socket.clone();
    drop(agent);
    assert!(!socket.exists());
}

#[test]
fn a_dead_agents_socket_is_replaced_a_living_ones_and_a_plain_file_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latchd.sock");
    runtime().block_on(async {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket file outlives its listener");
        let living = Server::bind(&path).await.unwrap();
        assert!(matches!(Server::bind(&path).await, Err(AdminError::Occupied { .. })));
        drop(living);
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Server::bind(&path).await, Err(AdminError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn an_agent_leaves_a_socket_alone_that_has_become_anothers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latchd.sock");
    runtime().block_on(async {
        let first = Server::bind(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Server::bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    });
}

#[test]
fn what_is_no_question_is_refused_by_name() {
    let agent = Agent::start();
    for (sent, code) in [
        (&b"hello\n"[..], "request_malformed"),
        (b"{}\n", "request_malformed"),
        (b"\xff\xfe\n", "request_malformed"),
        (b"{\"latchd\":1,\"request\":\"open_sesame\"}\n", "request_malformed"),
        (b"{\"latchd\":2,\"request\":\"anything\"}\n", "version_unknown"),
        (&[b'['; 40_000], "request_too_long"),
    ] {
        let heard = agent.raw(sent, 2);
        assert!(heard.contains(code), "{code}: {heard}");
        assert_eq!(heard.lines().count(), 1, "the conversation ends there: {heard}");
    }
    assert!(agent.raw(b"{\"latchd\":1,\"request\":\"status\"}\n", 1).contains("Hotel Fjord"));
}

#[test]
fn several_questions_go_over_one_connection_in_order() {
    let agent = Agent::start();
    let asked = b"{\"latchd\":1,\"request\":\"jobs\",\"limit\":1}\n{\"latchd\":1,\"request\":\"status\"}\n";
    let heard = agent.raw(asked, 2);
    let lines: Vec<_> = heard.lines().collect();
    assert!(lines[0].starts_with("{\"latchd\":1,\"response\":\"jobs\""), "{heard}");
    assert!(lines[1].starts_with("{\"latchd\":1,\"response\":\"status\""), "{heard}");
}

#[test]
fn silent_clients_do_not_keep_others_out_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latchd.sock");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let server = Server::bind(&path).await.unwrap();
        let silent: Vec<_> = (0..20).map(|_| StdStream::connect(&path).unwrap()).collect();
        let mut client = StdStream::connect(&path).unwrap();
        client.write_all(b"{\"latchd\":1,\"request\":\"status\"}\n").unwrap();
        let (questions, mut asked) = mpsc::channel::<Question>(1);
        let (done, is_done) = oneshot::channel();
        let core = async move {
            let (_, way_back) = asked.recv().await.unwrap();
            way_back.send(Response::Status(Box::new(report(None)))).unwrap();
            done.send(()).unwrap();
        };
        let serving = server.run(questions, Watchers::default(), async { is_done.await.unwrap() });
        tokio::time::timeout(Duration::from_secs(300), async { tokio::join!(serving, core) }).await.unwrap();
        drop(silent);
    });
}

#[test]
fn an_agent_that_is_going_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latchd.sock");
    runtime().block_on(async {
        let (questions, asked) = mpsc::channel::<Question>(1);
        drop(asked);
        let (stop, stopped) = oneshot::channel::<()>();
        let client = async {
            let refused = loop {
                match ask(&path, &Request::Status).await {
                    Err(AdminError::NoAgent { .. }) => tokio::task::yield_now().await,
                    other => break other,
                }
            };
            assert!(matches!(refused, Err(AdminError::Refused { code, .. }) if code == "unavailable"));
            stop.send(()).unwrap();
        };
        let (served, ()) = tokio::join!(
            serve(&path, questions, Watchers::default(), async { stopped.await.unwrap() }),
            client
        );
        served.unwrap();
    });
}

/// The next line that the agent says.
fn line(stream: &mut BufReader<StdStream>) -> serde_json::Value {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
}

fn watch(agent: &Agent, job_id: Option<u128>) -> BufReader<StdStream> {
    let stream = StdStream::connect(&agent.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut asked = serde_json::json!({ "latchd": 1, "request": "watch" });
    if let Some(number) = job_id {
        asked["job_id"] = uuid::Uuid::from_u128(number).to_string().into();
    }
    (&stream).write_all(format!("{asked}\n").as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    assert_eq!(line(&mut stream)["response"], "watching");
    stream
}

#[test]
fn a_watcher_hears_what_stands_and_then_every_step_in_order_until_it_goes() {
    let agent = Agent::start();
    let (mut all, mut one) = (watch(&agent, None), watch(&agent, Some(2)));
    agent.watchers.tell(step(1, Moment::Sent));
    agent.watchers.tell(step(2, Moment::WaitingForCard { within_seconds: 55 }));
    agent.watchers.tell(step(1, Moment::Ended { state: JobState::Succeeded, code: None, message: None }));
    let heard: Vec<_> = (0..3).map(|_| line(&mut all)["step"].clone()).collect();
    assert_eq!(heard, ["sent", "waiting_for_card", "ended"]);
    let heard = line(&mut one);
    assert_eq!((&heard["step"], &heard["within_seconds"]), (&"waiting_for_card".into(), &55.into()));
    drop((all, one));
    // The agent notices, and does nothing for nobody.
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while agent.watchers.any() {
        assert!(std::time::Instant::now() < give_up, "watchers are never forgotten");
        std::thread::yield_now();
    }
}

#[test]
fn a_slow_watcher_is_told_how_much_it_missed_and_holds_nobody_up() {
    let agent = Agent::start();
    let (mut slow, mut quick) = (watch(&agent, None), watch(&agent, None));
    // Far more than the socket and the ring hold together; the quick one keeps pace.
    const STEPS: u64 = 20_000;
    for number in 0..STEPS {
        agent.watchers.tell(step(number.into(), Moment::Sent));
        assert_eq!(line(&mut quick)["job_id"], uuid::Uuid::from_u128(number.into()).to_string());
    }
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < STEPS {
        let said = line(&mut slow);
        match said["response"].as_str().unwrap() {
            "watched" => heard += 1,
            "missed" => missed += said["steps"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
    }
    assert!(0 < missed && 256 <= heard, "{heard} heard, {missed} missed");
    assert_eq!(heard + missed, STEPS);
}

#[test]
fn a_refused_wish_is_told_with_its_reason_and_a_wish_without_a_name_is_not_sent() {
    let agent = Agent::start();
    let id = "00000000-0000-0000-0000-000000000000";
    let cancel = latchd(&agent.socket, &["jobs", "cancel", id, "--by", "Kari"]);
    assert_eq!(cancel.status.code(), Some(1));
    assert_eq!(text(&cancel.stderr), "latchd: too late: it was sent (too_late)\n");
    let nobody = Command::new(env!("CARGO_BIN_EXE_latchd"))
        .args(["jobs", "cancel", id, "--socket"])
        .arg(&agent.socket)
        .env_remove("USER")
        .env_remove("SUDO_USER")
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(text(&nobody.stderr), "latchd: say with --by who wants it\n");
}
