//! One property with its cloud, as processes, and the plain clients that ask them.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use latchd::{agent::pairing::Pairing, link::Identity, seal::SealKey, seams::Random};
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Nothing in these tests takes longer, whatever the machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until something is so.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// The same for what takes longer.
pub fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < give_up, "waited {patience:?} in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process of the site; killed with it.
pub struct Process {
    child: Child,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Process {
    pub fn start(folder: &Path, name: &str, command: &mut Command) -> Self {
        let stdout = folder.join(format!("{name}.out"));
        let stderr = folder.join(format!("{name}.err"));
        let append = |path: &Path| fs::File::options().create(true).append(true).open(path).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(append(&stdout)).stderr(append(&stderr)).spawn().unwrap();
        Self { child, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits for its end and gives the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        until("the process ends", || child.try_wait().unwrap()).code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process does not die of SIGKILL's siblings, but of SIGKILL it does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A site that was taken in.
pub struct Paired {
    /// As whom.
    pub bridge: String,
    /// With which code.
    pub code: String,
}

/// The whole property.
pub struct Site {
    pub paired: Paired,
    pub folder: tempfile::TempDir,
    pub sim: Option<Process>,
    sim_options: Vec<String>,
    pub cloud: Option<Process>,
    pub agent: Option<Process>,
    pub said: Value,
    pub control: PathBuf,
    pub tty: String,
    /// Where the simulator takes TCP clients, if it does.
    pub tcp: Option<String>,
    http: ureq::Agent,
    key: String,
    extra: String,
}

impl Site {
    /// Starts simulator, cloud and agent, and waits until the cloud shows a healthy system.
    pub fn start() -> Self {
        let mut site = Self::without_agent();
        site.start_agent();
        site.healthy();
        site
    }

    /// Starts simulator and cloud only.
    pub fn without_agent() -> Self {
        Self::without_agent_at(&[])
    }

    /// Starts a simulator that was told more than to have a serial port, and the cloud.
    pub fn without_agent_at(sim_options: &[&str]) -> Self {
        Self::without_agent_and(sim_options, "")
    }

    /// The same with a cloud whose `[bridges]` say more.
    pub fn without_agent_and(sim_options: &[&str], of_bridges: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("property")).unwrap();
        let sim_options: Vec<String> = sim_options.iter().map(ToString::to_string).collect();
        let (sim, said) = start_sim(folder.path(), &sim_options);
        let control = PathBuf::from(said["control"].as_str().unwrap());
        let tty = said["tty"].as_str().unwrap().to_owned();
        let tcp = said["tcp"].as_str().map(str::to_owned);
        write_cloud_config(folder.path(), 0, 0, of_bridges);
        let cloud = start_cloud(folder.path());
        let said = first_line(&cloud);
        let port =
            |key: &str| said[key].as_str().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        // From here on the cloud comes back at the same place.
        write_cloud_config(folder.path(), port("api"), port("bridges"), of_bridges);
        let key = fs::read_to_string(said["api_key_file"].as_str().unwrap()).unwrap().trim().to_owned();
        let http = https(Path::new(said["ca_file"].as_str().unwrap()));
        let mut site = Self {
            paired: Paired { bridge: String::new(), code: String::new() },
            folder,
            sim: Some(sim),
            sim_options,
            cloud: Some(cloud),
            agent: None,
            said,
            control,
            tty,
            tcp,
            http,
            key,
            extra: String::new(),
        };
        site.configure("");
        site.paired = site.pair();
        site
    }

    /// Takes the site into its cloud: a person at each end types one command.
    pub fn pair(&self) -> Paired {
        self.pair_with(&[], &[])
    }

    /// The same with further words for the cloud's command and for the site's.
    pub fn pair_with(&self, at_cloud: &[&str], at_site: &[&str]) -> Paired {
        self.pair_at("agent.toml", at_cloud, at_site)
    }

    /// Pairs whoever has this configuration.
    pub fn pair_at(&self, config: &str, at_cloud: &[&str], at_site: &[&str]) -> Paired {
        let mut invite = latchd();
        invite.args(["cloud", "bridges", "pair", "--accept", "--json", "--by", "Kari"]).args(at_cloud);
        invite.arg("--config").arg(self.folder.path().join("cloud.toml"));
        // Not into a file: the code is told once, to a person.
        let mut invite = invite.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(invite.stdout.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        let invited: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        let word = |key: &str| invited[key].as_str().unwrap();
        let mut pair = latchd();
        pair.args(["pair", word("url"), "--code", word("code")]).args(at_site);
        pair.args(["--fingerprint", word("cloud_fingerprint"), "--config"])
            .arg(self.folder.path().join(config));
        let paired = pair.stdin(Stdio::null()).output().unwrap();
        if !paired.status.success() {
            let _ = invite.kill();
            panic!("{}", String::from_utf8_lossy(&paired.stderr));
        }
        let told = told.lines().last().unwrap().unwrap();
        assert!(invite.wait().unwrap().success(), "{told}");
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["state"], "paired", "{told}");
        Paired { bridge: told["bridge_id"].as_str().unwrap().to_owned(), code: word("code").to_owned() }
    }

    /// The certificate that the site has now, PEM.
    pub fn certificate(&self) -> String {
        Pairing::load(&self.pairing_file()).unwrap().certificate
    }

    /// The site's bridge, as the cloud lists it.
    pub fn bridge(&self) -> Value {
        let listed = self.at_cloud(&["bridges", "list", "--json"]);
        assert!(listed.status.success(), "{listed:?}");
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let mut bridges = listed["bridges"].as_array().unwrap().iter();
        bridges.find(|bridge| bridge["bridge_id"] == *self.paired.bridge).unwrap().clone()
    }

    /// A command of a person at the cloud's machine.
    pub fn at_cloud(&self, words: &[&str]) -> Output {
        let config = self.folder.path().join("cloud.toml");
        let mut command = latchd();
        command.arg("cloud").args(words).arg("--config").arg(config).env("USER", "Kari");
        command.output().unwrap()
    }

    /// What pairing left at the site.
    pub fn pairing_file(&self) -> PathBuf {
        self.folder.path().join("agent/pairing.json")
    }

    /// Who the agent is towards the cloud, and the secret half of the key that it signs with.
    pub fn identity(&self) -> (Identity, [u8; 32]) {
        let random = Random::seeded(1);
        let seal = SealKey::from_file(&self.folder.path().join("agent/seal.key"), random).unwrap();
        let pairing = Pairing::load(&self.pairing_file()).unwrap();
        (pairing.identity(&seal).unwrap(), *pairing.secrets(&seal).unwrap().signing)
    }

    /// Writes the agent's configuration, with more text at its end (limits, for example).
    pub fn configure(&mut self, extra: &str) {
        let line = format!("serial = \"{}\"", self.tty);
        self.configure_line(&line, extra);
    }

    /// The same, with another line to the lock server.
    pub fn configure_line(&mut self, line: &str, extra: &str) {
        self.extra = extra.to_owned();
        let text = format!(
            r#"
            stop_deadline = "4s"
            [site]
            name = "Test House"
            time_zone = "Europe/Oslo"
            [storage]
            folder = "{folder}/agent"
            [admin]
            socket = "{folder}/agent.sock"
            [[system]]
            name = "house"
            kind = "salto_is"
            exclusive = true
            line = {{ {line} }}
            settle = "1s"
            encoders = ["1", "2"]
            rooms = ["101", "102", "103", "104", "105"]
            common = [{{ name = "pool", authorisation = 1 }}, {{ name = "spa", authorisation = 2 }}]
            {extra}
            "#,
            folder = self.folder.path().display(),
        );
        fs::write(self.folder.path().join("agent.toml"), text).unwrap();
    }

    /// `kill -9` of the lock server.
    pub fn kill_sim(&mut self) {
        self.sim = None;
    }

    /// Starts the lock server again, at the same port and the same address; it has forgotten every card.
    pub fn restart_sim(&mut self) {
        let mut options = self.sim_options.clone();
        if let (Some(at), Some(tcp)) = (options.iter().position(|option| option == "--tcp"), &self.tcp) {
            options[at + 1].clone_from(tcp);
        }
        fs::remove_file(self.folder.path().join("sim.out")).unwrap();
        self.sim = Some(start_sim(self.folder.path(), &options).0);
    }

    pub fn start_agent(&mut self) {
        self.start_agent_with(|command| command);
    }

    /// Starts the agent so that a commit can be caught between its sync and its answer; see [`Gate`].
    pub fn start_agent_with(&mut self, change: impl FnOnce(&mut Command) -> &mut Command) {
        let mut command = latchd();
        command.arg("run").arg("--config").arg(self.folder.path().join("agent.toml"));
        change(&mut command);
        self.agent = Some(Process::start(self.folder.path(), "agent", &mut command));
    }

    pub fn agent(&mut self) -> &mut Process {
        self.agent.as_mut().unwrap()
    }

    pub fn cloud(&mut self) -> &mut Process {
        self.cloud.as_mut().unwrap()
    }

    pub fn restart_agent(&mut self) {
        self.agent = None;
        self.start_agent();
    }

    /// Starts the cloud again; an agent that has learnt to wait for it is told that it need not.
    pub fn restart_cloud(&mut self) {
        self.restart_cloud_with(|command| command);
        if self.report().is_some() {
            self.agent().signal(Signal::HUP);
        }
    }

    pub fn restart_cloud_with(&mut self, change: impl FnOnce(&mut Command) -> &mut Command) {
        self.cloud = None;
        let mut command = latchd();
        command.arg("cloud").arg("--config").arg(self.folder.path().join("cloud.toml"));
        change(&mut command);
        self.cloud = Some(Process::start(self.folder.path(), "cloud", &mut command));
        until("the cloud answers", || self.try_call("/acs/systems/list", &json!({})));
    }

    /// Waits until the agent's line is open and the cloud shows the system without errors.
    pub fn healthy(&self) {
        until("the line is open", || (self.report()?["systems"][0]["line"] == "ready").then_some(()));
        until("the system is healthy", || {
            let (_, answer) = self.try_call("/acs/systems/list", &json!({}))?;
            let system = answer["acs_systems"].get(0)?;
            (system["errors"] == json!([])).then_some(())
        });
    }

    pub fn try_call(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.said["api"].as_str().unwrap());
        let answer =
            self.http.post(url).header("authorization", format!("Bearer {}", self.key)).send_json(body);
        let mut answer = answer.ok()?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().read_json::<Value>().ok()?;
        Some((status, body))
    }

    pub fn call(&self, path: &str, body: Value) -> (u16, Value) {
        self.try_call(path, &body).unwrap_or_else(|| panic!("{path} did not answer"))
    }

    /// A call that must succeed; gives one key of the answer.
    pub fn ok(&self, path: &str, body: Value, key: &str) -> Value {
        let (status, answer) = self.call(path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer[key].clone()
    }

    pub fn entrances(&self, doors: &[&str]) -> Vec<Value> {
        let list = self.ok("/acs/entrances/list", json!({}), "acs_entrances");
        let find = |door: &&str| {
            let found = list.as_array().unwrap().iter().find(|entrance| entrance["display_name"] == *door);
            found.unwrap_or_else(|| panic!("no entrance {door} in {list}"))["acs_entrance_id"].clone()
        };
        doors.iter().map(find).collect()
    }

    pub fn encoder(&self, name: &str) -> Value {
        let list = self.ok("/acs/encoders/list", json!({}), "acs_encoders");
        let found = list.as_array().unwrap().iter().find(|encoder| encoder["display_name"] == name);
        found.unwrap()["acs_encoder_id"].clone()
    }

    /// Grants a card and gives (grant id, method id).
    pub fn grant(&self, guest: &str, reservation: &str, doors: &[&str]) -> (Value, Value) {
        let now = jiff::Timestamp::now();
        let grant = self.ok(
            "/access_grants/create",
            json!({
                "user_identity": { "full_name": guest },
                "acs_entrance_ids": self.entrances(doors),
                "requested_access_methods": [{ "mode": "card" }],
                "reservation_key": reservation,
                "starts_at": now,
                "ends_at": now + jiff::SignedDuration::from_hours(48),
            }),
            "access_grant",
        );
        (grant["access_grant_id"].clone(), grant["access_method_ids"][0].clone())
    }

    /// Orders the card of a method and gives the attempt's id.
    pub fn encode(&self, method: &Value, encoder: &str) -> Value {
        let body = json!({ "access_method_id": method, "acs_encoder_id": self.encoder(encoder) });
        self.ok("/access_methods/encode", body, "action_attempt")["action_attempt_id"].clone()
    }

    /// Polls an attempt to its end.
    pub fn ended(&self, attempt: &Value) -> Value {
        until("the attempt ends", || {
            let (status, answer) =
                self.try_call("/action_attempts/get", &json!({ "action_attempt_id": attempt }))?;
            assert_eq!(status, 200, "{answer}");
            (answer["action_attempt"]["status"] != "pending").then(|| answer["action_attempt"].clone())
        })
    }

    /// One whole card: granted, ordered, laid down, written, taken away.
    pub fn card(&self, card: &str, reservation: &str, doors: &[&str]) -> (Value, Value) {
        let (grant, method) = self.grant(card, reservation, doors);
        let attempt = self.encode(&method, "1");
        self.waits_for_card("1");
        self.control(&format!("place {card} on 1"));
        let attempt = self.ended(&attempt);
        assert_eq!(attempt["status"], "success", "{attempt}");
        self.control("remove 1");
        (grant, method)
    }

    /// One line to the simulator's control socket; the answer must be ok.
    pub fn control(&self, line: &str) -> Value {
        let mut stream = UnixStream::connect(&self.control).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{line}: {answer:?}"));
        assert_eq!(answer["ok"], true, "{line}: {answer}");
        answer
    }

    pub fn opens(&self, card: &str, door: &str) -> bool {
        self.control(&format!("use {card} at {door}"))["opened"] == true
    }

    pub fn waits_for_card(&self, encoder: &str) {
        self.control(&format!("wait card-wait {encoder} within 120000"));
    }

    /// How many frames of a command the lock server received.
    pub fn frames(&self, command: &str) -> u64 {
        self.control(&format!("wire count {command}"))["count"].as_u64().unwrap()
    }

    /// Frames that write: check-in, copy and check-out.
    pub fn writing_frames(&self) -> u64 {
        self.frames("CN") + self.frames("CC") + self.frames("CO")
    }

    /// `latchd status --json` of the agent.
    pub fn status(&self) -> Value {
        until("the agent answers", || self.report())
    }

    fn report(&self) -> Option<Value> {
        let output = latchd()
            .args(["status", "--json", "--socket"])
            .arg(self.folder.path().join("agent.sock"))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the site holds all that is desired of it: neither side has anything to store for that any more.
    pub fn knows_its_grants(&self) {
        let lacks_nothing = "SELECT NOT EXISTS (SELECT 1 FROM desired_change) AND NOT EXISTS (
               SELECT 1 FROM bridge b WHERE b.desired_acknowledged < b.desired_last
                 OR EXISTS (SELECT 1 FROM desired d WHERE d.bridge_id = b.id AND d.epoch < b.desired_epoch))";
        let file = self.folder.path().join("cloud/cloud.db");
        until("the site holds what is desired", || {
            let db = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
            let told = db.query_row(lacks_nothing, [], |row| row.get::<_, bool>(0)).ok()?;
            told.then_some(())
        });
    }

    /// A command of a person at the site, for its agent.
    pub fn at<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.arg("--socket").arg(self.folder.path().join("agent.sock"))
    }

    pub fn ask(&self, words: &[&str]) -> Output {
        self.at(latchd().args(words)).output().unwrap()
    }

    /// What the agent answers to a person whose command it carries out.
    pub fn told(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    pub fn told_json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.told(&[words, &["--json"]].concat())).unwrap()
    }

    pub fn refused(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Hands a job to `latchd jobs add -`.
    pub fn add(&self, job: &Value) -> Output {
        let mut command = latchd();
        self.at(command.args(["jobs", "add", "-", "--json", "--by", "Kari"]));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn added(&self, job: &Value) -> Value {
        let output = self.add(job);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// How many of the agent's jobs are in a state; none while it does not answer.
    pub fn jobs(&self, state: &str) -> Option<u64> {
        let status = self.report()?;
        let counts = status["jobs"].as_array()?;
        let count = counts.iter().find(|count| count["state"] == state);
        Some(count.map_or(0, |count| count["count"].as_u64().unwrap()))
    }
}

/// A process whose next commit is caught when it is durable and before anybody is told.
pub struct Gate {
    flag: PathBuf,
    library: PathBuf,
}

impl Gate {
    pub fn new(site: &Site, name: &str) -> Self {
        Self { flag: site.folder.path().join(name), library: sync_gate() }
    }

    pub fn on<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_PRELOAD", &self.library).env("SYNC_GATE", &self.flag)
    }

    /// From now on the first sync holds the process.
    pub fn close(&self) {
        fs::write(&self.flag, "").unwrap();
    }

    /// Waits until a sync was held.
    pub fn hit(&self) {
        let hit =
            self.flag.with_file_name(format!("{}.hit", self.flag.file_name().unwrap().to_str().unwrap()));
        until("a sync is held", || hit.exists().then_some(()));
    }

    pub fn open(&self) {
        let _ = fs::remove_file(&self.flag);
    }
}

/// The preload library, built once with the C compiler that the build needed anyway.
fn sync_gate() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sync_gate.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/road/sync_gate.c");
            let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
            let output = Command::new(compiler)
                .args(["-shared", "-fPIC", "-O1", "-o"])
                .arg(&library)
                .arg(&source)
                .arg("-ldl")
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            library
        })
        .clone()
}

pub fn latchd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
    command.env_remove("NOTIFY_SOCKET").env_remove("LATCHD_LOG");
    command
}

fn start_sim(folder: &Path, options: &[String]) -> (Process, Value) {
    let mut command = latchd();
    command.args(["sim", "salto-is", "--pty", "--dir"]).arg(folder.join("property")).args(options);
    let sim = Process::start(folder, "sim", &mut command);
    let said = first_line(&sim);
    (sim, said)
}

fn start_cloud(folder: &Path) -> Process {
    Process::start(folder, "cloud", latchd().arg("cloud").arg("--config").arg(folder.join("cloud.toml")))
}

fn write_cloud_config(folder: &Path, api: u16, bridges: u16, of_bridges: &str) {
    let text = format!(
        r#"
        [storage]
        folder = "{folder}/cloud"
        [api]
        listen = "127.0.0.1:{api}"
        hold = "1s"
        [bridges]
        listen = "127.0.0.1:{bridges}"
        {of_bridges}
        "#,
        folder = folder.display(),
    );
    fs::write(folder.join("cloud.toml"), text).unwrap();
}

/// The one JSON line that a process prints when it is up.
pub fn first_line(process: &Process) -> Value {
    until("the process says that it is up", || {
        let text = fs::read_to_string(&process.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with('{') && text.ends_with('\n'))?;
        serde_json::from_str(line).ok()
    })
}

fn https(ca_file: &Path) -> ureq::Agent {
    let pem = fs::read(ca_file).unwrap();
    let certificate = ureq::tls::Certificate::from_pem(&pem).unwrap();
    let roots = ureq::tls::RootCerts::Specific(Arc::new(vec![certificate]));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}
