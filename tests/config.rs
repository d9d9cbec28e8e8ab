//! What people get wrong in a configuration file, and what they are told.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use latchd::config::{
    AfterDeletedCard, AgentConfig, AnyConfig, BleLockConfig, Checkout, CheckoutOf, CloudConfig, ConfigErrors,
    DriverConfig, LrcConfig, ProxyAt, RetentionConfig, SaltoIsConfig, SpkiPin,
};

const AGENT: &str = r#"
[site]
name = "Hotel Fjord"
time_zone = "Europe/Oslo"

[cloud]
url = "wss://cloud.example:8443"
ca_file = "ca.pem"

[storage]
folder = "state"

[[system]]
name = "salto"
kind = "salto_is"
exclusive = true
line = { tcp = "10.0.0.5:9090" }
encoders = ["1"]
rooms = ["0101", { name = "0102", display_name = "Suite" }]
common = [{ name = "pool", authorisation = 1 }]
"#;

const CLOUD: &str = r#"
[storage]
folder = "state"
[api]
listen = "127.0.0.1:8080"
[bridges]
listen = "127.0.0.1:8443"
"#;

fn agent(text: &str) -> Result<AgentConfig, ConfigErrors> {
    AgentConfig::from_toml(Path::new("/etc/latchd/latchd.toml"), text)
}

fn cloud(text: &str) -> Result<CloudConfig, ConfigErrors> {
    CloudConfig::from_toml(Path::new("/etc/latchd/cloud.toml"), text)
}

/// The text with the one place of a part replaced.
#[track_caller]
fn with(text: &str, part: &str, by: &str) -> String {
    assert_eq!(text.matches(part).count(), 1, "{part:?} must stand once in\n{text}");
    text.replace(part, by)
}

/// The only mistake of a file, in one line.
#[track_caller]
fn told<T: std::fmt::Debug>(result: Result<T, ConfigErrors>) -> String {
    let errors = result.unwrap_err();
    let [mistake] = errors.mistakes() else { panic!("expected one mistake:\n{errors}") };
    let place = mistake.place.as_ref();
    let place = place.map_or(String::new(), |place| format!("{}:{} ", place.line, place.column));
    let help = mistake.help.as_deref().unwrap_or_default();
    format!("{place}{}: {} ({help})", mistake.setting, mistake.problem)
}

/// The agent's file with one part replaced has one mistake, and it is told with all of `parts`.
#[track_caller]
fn check(part: &str, by: &str, parts: &[&str]) {
    let told = told(agent(&with(AGENT, part, by)));
    for wanted in parts {
        assert!(told.contains(wanted), "{wanted:?} is missing in: {told}");
    }
}

fn settings(errors: &ConfigErrors) -> Vec<&str> {
    errors.mistakes().iter().map(|mistake| mistake.setting.as_str()).collect()
}

fn salto(config: &AgentConfig) -> &SaltoIsConfig {
    let DriverConfig::SaltoIs(salto) = &config.systems[0].driver else { panic!("another make") };
    salto
}

#[test]
fn a_short_file_is_enough_and_the_rest_has_defaults() {
    let config = agent(AGENT).unwrap();
    assert_eq!(config.stop_deadline.as_secs(), 30);
    assert_eq!(config.limits.cards_per_hour, 60);
    assert_eq!(config.systems[0].checkout, Checkout::Never);
    assert_eq!(config.systems[0].after_deleted_card, AfterDeletedCard::Join);
    let salto = salto(&config);
    assert_eq!(salto.rooms[1].display_name.as_deref(), Some("Suite"));
    assert_eq!(salto.rooms[0].name.as_str(), "0101");
    assert_eq!(salto.lrc, LrcConfig::Checked);
    assert!(salto.ack_final && salto.wait_for_removal);
    assert!(!cloud(CLOUD).unwrap().api.plain);
}

#[test]
fn relative_paths_begin_at_the_folder_of_the_file() {
    let config = agent(AGENT).unwrap();
    assert_eq!(config.cloud.ca_file, Some(PathBuf::from("/etc/latchd/ca.pem")));
    assert_eq!(config.storage.folder, PathBuf::from("/etc/latchd/state"));
    assert_eq!(config.admin.socket, PathBuf::from("/run/latchd/latchd.sock"));
}

#[test]
fn what_is_kept_for_how_long_is_said_key_by_key_and_the_rest_has_defaults() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let kept = |text: &str| cloud(&format!("{CLOUD}[retention]\n{text}")).unwrap().retention;
    let otherwise = cloud(CLOUD).unwrap().retention;
    let defaults = RetentionConfig {
        identities: None,
        grants: days(365),
        codes: days(30),
        events: days(90),
        attempts: days(90),
    };
    assert_eq!((&otherwise, &kept("")), (&defaults, &defaults));
    assert_eq!(kept("identities = \"30 d\"").identities, Some(days(30)));
    assert_eq!(kept("grants = \"48 h\"").grants, days(2));
    assert_eq!(kept("codes = \"1 d\"").codes, days(1));
    assert_eq!(kept("events = \"3650 d\"").events, days(3650));
    let attempts = kept("attempts = \"7 d\"");
    assert_eq!(attempts, RetentionConfig { attempts: days(7), ..defaults });

    for key in ["identities", "grants", "codes", "events", "attempts"] {
        for wrong in ["\"23 h\"", "\"3651 d\"", "\"soon\"", "30", "\"-1 d\""] {
            let told = told(cloud(&format!("{CLOUD}[retention]\n{key} = {wrong}")));
            assert!(told.contains(&format!("retention.{key}: ")), "{told}");
        }
    }
    let told = told(cloud(&format!("{CLOUD}[retention]\nattempt = \"7 d\"")));
    assert!(told.contains("retention.attempt: unknown setting") && told.contains("`attempts`"), "{told}");
}

#[test]
fn the_reserve_is_a_size_with_its_unit() {
    assert_eq!(agent(AGENT).unwrap().storage.reserve, 8 * 1024 * 1024);
    for (text, bytes) in [("512 KiB", 512 * 1024), ("64MiB", 64 * 1024 * 1024), ("0 MiB", 0)] {
        let by = format!("[storage]\nreserve = \"{text}\"");
        assert_eq!(agent(&with(AGENT, "[storage]", &by)).unwrap().storage.reserve, bytes);
    }
    for text in ["8", "MiB", "8 MB", "2 GiB", "-1 MiB", "99999999999999999999 KiB"] {
        let by = format!("[storage]\nreserve = \"{text}\"");
        check("[storage]", &by, &["storage.reserve", "not a size up to 1 GiB", "\"8 MiB\""]);
    }
}

#[test]
fn unknown_settings_are_refused_at_every_depth_with_place_and_suggestion() {
    check(
        "name = \"Hotel",
        "nmae = 1\nname = \"Hotel",
        &["3:1 site.nmae: unknown setting", "did you mean `name`?"],
    );
    check(
        "exclusive = true",
        "exclusive = true\nack_finale = true",
        &["17:1 system[0].ack_finale", "`ack_final`"],
    );
    check("display_name", "displayname", &["system[0].rooms[1].displayname", "`display_name`"]);
    check(
        "authorisation = 1",
        "authorisation = 1, colour = 2",
        &["system[0].common[0].colour", "known here: name"],
    );
    check("tcp =", "speed = 1, tcp =", &["system[0].line.speed: unknown setting"]);
    check("[site]", "[sites]\n[site]", &["2:2 sites: unknown setting", "`site`"]);
}

#[test]
fn all_mistakes_are_shown_at_once_in_the_order_of_the_file() {
    let text = AGENT
        .replace("Europe/Oslo", "Europe/Olso")
        .replace("wss:", "ws:")
        .replace("exclusive = true", "")
        .replace("\"10.0.0.5:9090\"", "9090")
        .replace("authorisation = 1", "authorisation = 63");
    assert_eq!(
        settings(&agent(&text).unwrap_err()),
        [
            "site.time_zone",
            "cloud.url",
            "system[0].exclusive",
            "system[0].line.tcp",
            "system[0].common[0].authorisation"
        ]
    );
}

#[test]
fn several_mistakes_of_syntax_are_shown_at_once_too() {
    let errors = agent("[site\nname = \n[cloud]\nurl = 'x").unwrap_err();
    assert!(errors.mistakes().len() > 1, "{errors}");
}

#[test]
fn a_wrong_type_says_what_is_expected_and_what_stands_there() {
    check(
        "\"0101\"",
        "101",
        &["19:10 system[0].rooms[0]: expected a text in quotes, found a whole number", "\"101\""],
    );
    check("exclusive = true", "exclusive = \"yes\"", &["16:13", "expected true or false, found a text"]);
    check("encoders = [\"1\"]", "encoders = \"1\"", &["expected a list, found a text"]);
    check("{ tcp = \"10.0.0.5:9090\" }", "\"10.0.0.5:9090\"", &["expected a table, found a text"]);
    check("authorisation = 1", "authorisation = 1.5", &["expected a whole number, found a broken number"]);
}

#[test]
fn mistakes_read_like_a_compilers() {
    let text = with(AGENT, "Europe/Oslo", "Europe/Olso");
    assert_eq!(
        agent(&text).unwrap_err().to_string(),
        r#"error: site.time_zone: there is no time zone "Europe/Olso"
 --> /etc/latchd/latchd.toml:4:13
  |
4 | time_zone = "Europe/Olso"
  |             ^^^^^^^^^^^^^
  = help: did you mean "Europe/Oslo"?

/etc/latchd/latchd.toml: 1 mistake"#
    );
}

#[test]
fn what_is_mandatory_says_what_it_is_for() {
    check(
        "exclusive = true\n",
        "",
        &["system[0].exclusive", "mandatory", "desk program or PMS", "live card"],
    );
    check("time_zone = \"Europe/Oslo\"", "", &["site.time_zone", "host's own zone is never used"]);
    assert_eq!(settings(&agent("").unwrap_err()), ["site", "storage"]);
}

#[test]
fn which_cloud_it_is_need_not_be_said() {
    let start = AGENT.find("[cloud]").unwrap();
    let end = AGENT.find("[storage]").unwrap();
    let config = agent(&format!("{}{}", &AGENT[..start], &AGENT[end..])).unwrap();
    assert_eq!((config.cloud.url, config.cloud.ca_file), (None, None));
    check("ca_file =", "token_file =", &["cloud.token_file", "unknown setting"]);
}

#[test]
fn a_secret_in_the_file_is_refused_with_the_way_out_and_never_shown() {
    for (part, by, way_out) in [
        ("[storage]", "token = 'hunter2'\n[storage]", "file"),
        ("[storage]", "password = 'hunter2'\n[storage]", "file"),
        ("[storage]", "API-Key = 'hunter2'\n[storage]", "file"),
        ("tcp =", "pin = 'hunter2', tcp =", "file"),
        ("wss://cloud", "wss://me:hunter2@cloud", "the certificate that pairing brought"),
        ("[storage]", "proxy = 'http://me:hunter2@proxy.example:3128'\n[storage]", "file"),
    ] {
        let errors = agent(&with(AGENT, part, by)).unwrap_err();
        assert!(!format!("{errors}{errors:?}").contains("hunter2"), "{errors:?}");
        assert!(told(Err::<(), _>(errors)).contains(way_out));
    }
    check("[storage]", "token = 'x'\n[storage]", &["mode 0600", "a `_file` setting"]);
}

#[test]
fn the_clouds_address_is_always_tls_and_only_host_and_port() {
    let url = "wss://cloud.example:8443";
    check(url, "ws://cloud.example", &["cloud.url", "the link is always TLS", "wss://HOST"]);
    check(url, "https://cloud.example", &["the link is always TLS"]);
    check(url, "cloud.example", &["not an address"]);
    for broken in
        ["wss://", "wss://:8443", "wss://cloud:0", "wss://cloud:99999", "wss://cloud:x", "wss://a b"]
    {
        check(url, broken, &["cloud.url", "no usable host and port"]);
    }
    check(url, "wss://cloud.example/bridge", &["has a path"]);
    for good in [
        "wss://cloud.example:8443",
        "wss://cloud.example",
        "wss://10.0.0.1:1",
        "wss://[::1]:8443",
        "wss://[::1]",
    ] {
        let config = agent(&with(AGENT, url, good)).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.cloud.url.as_deref(), Some(good));
    }
    let config = agent(&with(AGENT, url, "wss://cloud.example/")).unwrap();
    assert_eq!(config.cloud.url.as_deref(), Some("wss://cloud.example"));
}

#[test]
fn the_way_to_the_cloud_is_read_and_each_mistake_in_it_is_told() {
    let pin = |byte: u8| SpkiPin([byte; 32]);
    let file = |settings: &str| with(AGENT, "[storage]", &format!("{settings}\n[storage]"));
    let config = agent(&file(&format!(
        "also = ['wss://cloud-2.example']\nproxy = 'http://proxy.example:3128'\n\
         proxy_credentials_file = 'proxy'\nno_proxy = ['localhost']\npins = ['{}', '{}']",
        pin(1),
        pin(2)
    )));
    let route = config.unwrap_or_else(|errors| panic!("{errors}")).cloud.route;
    assert_eq!(route.also, ["wss://cloud-2.example"]);
    let proxy = route.proxy.unwrap();
    assert_eq!(proxy.at, ProxyAt::Address { host: "proxy.example".into(), port: 3128 });
    assert_eq!(proxy.credentials_file, Some(PathBuf::from("/etc/latchd/proxy")));
    assert!(proxy.bypass[0].covers("localhost", 443));
    assert!(route.pins.unwrap().has(pin(2)));
    let (one, one_alone) = (pin(1), format!("pins = ['{}']", pin(1)));
    for (settings, parts) in [
        ("also = ['https://x']", &["cloud.also[0]", "the link is always TLS"][..]),
        ("proxy = 'https://proxy.example:1'", &["cloud.proxy", "http://HOST:PORT"]),
        ("proxy_credentials_file = 'x'", &["cloud.proxy_credentials_file", "no proxy", "set `proxy`"]),
        ("no_proxy = ['x']", &["cloud.no_proxy", "no proxy"]),
        ("proxy = 'environment'\nno_proxy = ['10.0.0.0/40']", &["cloud.no_proxy[0]", "10.0.0.0/8"]),
        (&one_alone, &["cloud.pins", "backup pin is missing", "two different"]),
        (&format!("pins = ['{one}', '{one}']"), &["cloud.pins", "backup pin is missing"]),
        (&format!("pins = ['{one}', 'sha256/AAAA']"), &["cloud.pins[1]", "not a pin", "44 base64"]),
        ("pins = []", &["cloud.pins", "backup pin is missing"]),
    ] {
        let told = told(agent(&file(settings)));
        for part in parts {
            assert!(told.contains(part), "{part:?} is missing in: {told}");
        }
    }
}

#[test]
fn names_are_unique_and_can_be_said_to_a_device() {
    check("\"0101\", ", "\"0101\", \"0101\", ", &["system[0].rooms[1]", "listed twice"]);
    check("\"pool\"", "\"0101\"", &["system[0].common[0]", "listed twice"]);
    check("encoders = [\"1\"]", "encoders = [\"1\", \"1\"]", &["system[0].encoders[1]", "listed twice"]);
    check("encoders = [\"1\"]", "encoders = []", &["system[0].encoders", "empty"]);
    check("name = \"salto\"", "name = \"salto/1\"", &["a slash is not possible"]);
    check("name = \"salto\"", "name = \"  \"", &["system[0].name", "empty"]);
    let system = &AGENT[AGENT.find("[[system]]").unwrap()..];
    let twice = format!("{AGENT}{}", system.replace("9090", "9091"));
    assert!(told(agent(&twice)).contains("system[1]: there are two systems named \"salto\""));
    let shared = format!("{AGENT}{}", system.replace("\"salto\"", "\"other\""));
    assert!(told(agent(&shared)).contains("system[1]: two systems share the line 10.0.0.5:9090"));
}

#[test]
fn authorisations_are_1_to_62_and_unique() {
    check("authorisation = 1", "authorisation = 0", &["0 is out of bounds", "from 1 to 62"]);
    check("authorisation = 1", "authorisation = -7", &["-7 is out of bounds"]);
    check("authorisation = 1", "authorisation = 99999999999999999999", &["out of bounds"]);
    check(
        "authorisation = 1 }",
        "authorisation = 1 }, { name = \"gym\", authorisation = 1 }",
        &["two common doors have authorisation 1"],
    );
}

#[test]
fn a_line_is_tcp_or_serial_and_has_only_its_own_settings() {
    let line = "{ tcp = \"10.0.0.5:9090\" }";
    check(line, "{}", &["neither `tcp` nor `serial`"]);
    check(line, "{ tcp = \"a:1\", serial = \"/dev/ttyS0\" }", &["either `tcp` or `serial`"]);
    check(line, "{ tcp = \"a:1\", baud = 9600 }", &["system[0].line.baud", "belongs to `serial`"]);
    for broken in ["host", "host:", ":1", "host:0", "host:70000", "::1:80", "a b:1"] {
        check(line, &format!("{{ tcp = \"{broken}\" }}"), &["HOST:PORT"]);
    }
    for broken in ["9N1", "8X1", "8N3", "8N", "8N11", "8n1"] {
        check(line, &format!("{{ serial = \"x\", framing = \"{broken}\" }}"), &["not a framing"]);
    }
    let serial = "{ serial = \"tty\", framing = \"7E1\", baud = 19200 }";
    let serial = agent(&with(AGENT, line, serial)).unwrap();
    assert_eq!(salto(&serial).line.serial.as_deref(), Some(Path::new("/etc/latchd/tty")));
    assert_eq!(salto(&serial).line.framing, "7E1");
}

#[test]
fn numbers_lengths_and_texts_keep_their_bounds() {
    let system = |setting: &str, parts: &[&str]| {
        check("exclusive = true", &format!("exclusive = true\n{setting}"), parts);
    };
    system("operator = \"1234567890123456789012345\"", &["at most 24 characters"]);
    system("operator = \"Müller\"", &["plain ASCII"]);
    system("ack_timeout = \"0s\"", &["out of bounds", "from \"1s\" to \"1m\""]);
    system("ack_timeout = \"soon\"", &["not a length of time", "\"2h 30m\""]);
    system("ack_timeout = \"-5s\"", &["out of bounds"]);
    system("ack_timeout = 5", &["expected a text in quotes"]);
    system("checkout = \"always\"", &["not known here", "\"never\", \"last_grant\""]);
    system("after_deleted_card = \"kill\"", &["not known here", "\"join\", \"override\""]);
    system("assume_unchanged = true", &["nothing to assume"]);
    check("kind = \"salto_is\"", "kind = \"salto\"", &["did you mean \"salto_is\"?"]);
    let before = |setting: &str, parts: &[&str]| check("[site]", &format!("{setting}\n[site]"), parts);
    before("stop_deadline = \"1h\"", &["stop_deadline", "\"10m\""]);
    before("[limits]\ncards_per_hour = 0", &["limits.cards_per_hour", "out of bounds"]);
    before("[limits]\nforbidden_kinds = [\"card.encod\"]", &["did you mean \"card.encode\"?"]);
    before(&format!("[admin]\nsocket = \"{}\"", "x".repeat(120)), &["too long for a Unix socket"]);
    let days = agent(&with(AGENT, "[site]", "[limits]\nlongest_validity = \"14d\"\n[site]")).unwrap();
    assert_eq!(days.limits.longest_validity.as_secs(), 14 * 86_400);
}

#[test]
fn rooms_never_issued_must_exist() {
    let limit = |entry: &str| format!("[limits]\nrooms_never_issued = [\"{entry}\"]\n[site]");
    agent(&with(AGENT, "[site]", &limit("salto/0102"))).unwrap();
    agent(&with(AGENT, "[site]", &limit("salto/pool"))).unwrap();
    check("[site]", &limit("0102"), &["not of the form system/room"]);
    check("[site]", &limit("saldo/0102"), &["did you mean \"salto/0102\"?"]);
    check("[site]", &limit("salto/102"), &["has no room \"102\"", "compared exactly"]);
}

const LOCKS: &str = r#"
[[system]]
name = "locks"
kind = "sim_lock"
locks = [
    { name = "101", address = "10.0.0.7:4800" },
    { name = "back door", display_name = "Back", address = "[::1]:4801", time_zone = "Asia/Tokyo" },
]
"#;

#[test]
fn keypad_locks_need_names_and_addresses_and_the_rest_has_defaults() {
    let config = agent(&format!("{AGENT}{LOCKS}")).unwrap();
    let DriverConfig::SimLock(locks) = &config.systems[1].driver else { panic!("another make") };
    assert_eq!((locks.lead.as_secs(), locks.answer_timeout.as_secs()), (72 * 3600, 5));
    assert_eq!(locks.locks[0].time_zone, None);
    assert_eq!(locks.locks[1].time_zone.as_deref(), Some("Asia/Tokyo"));
    assert_eq!(locks.locks[1].display_name.as_deref(), Some("Back"));
    assert_eq!(config.systems[1].door_count(), 2);
    assert_eq!(config.systems[1].door_names().count(), 0);
}

#[test]
fn mistakes_about_keypad_locks_are_told_with_the_way_out() {
    let check = |part: &str, by: &str, parts: &[&str]| {
        let told = told(agent(&format!("{AGENT}{}", with(LOCKS, part, by))));
        for wanted in parts {
            assert!(told.contains(wanted), "{wanted:?} is missing in: {told}");
        }
    };
    check("10.0.0.7:4800", "10.0.0.7", &["system[1].locks[0].address", "HOST:PORT"]);
    check("[::1]:4801", "10.0.0.7:4800", &["two locks have the address 10.0.0.7:4800"]);
    check("10.0.0.7:4800", "10.0.0.5:9090", &["two systems share the line 10.0.0.5:9090"]);
    check("\"back door\"", "\"101\"", &["system[1].locks[1]", "listed twice"]);
    check("Asia/Tokyo", "Asia/Tokio", &["system[1].locks[1].time_zone", "did you mean \"Asia/Tokyo\"?"]);
    check("kind = \"sim_lock\"", "kind = \"sim_lock\"\nlead = \"31d\"", &["system[1].lead", "\"30d\""]);
    check("kind = \"sim_lock\"", "kind = \"sim_lock\"\nanswer_timeout = \"0s\"", &["from \"1s\" to \"1m\""]);
    check("kind = \"sim_lock\"", "kind = \"sim_lock\"\nexclusive = true", &["exclusive: unknown setting"]);
    check("kind = \"sim_lock\"", "kind = \"sim_lok\"", &["did you mean \"sim_lock\"?"]);
    check("\"10.0.0.7:4800\"", "\"10.0.0.7:4800\", pin = \"4711\"", &["locks[0].pin", "0600"]);
    let address = "\"10.0.0.7:4800\"";
    check(address, "\"10.0.0.7:4800\", pin_lengths = [3]", &["pin_lengths"]);
    check(address, "\"10.0.0.7:4800\", pin_lengths = []", &["no length is listed"]);
    check(address, "\"10.0.0.7:4800\", pin_constraints = [\"no_primes\"]", &["pin_constraints", "no_zeros"]);
}

const VISIONLINE: &str = r#"
[[system]]
name = "front"
kind = "visionline"
exclusive = false
line = { serial = "/dev/ttyS0" }
encoders = ["1"]
rooms = ["101", "102"]
common = [{ name = "pool", number = 1 }, { name = "spa", number = 2 }]
"#;

#[test]
fn a_visionline_system_has_the_usual_settings_of_its_serial_line() {
    let config = agent(&format!("{AGENT}{VISIONLINE}")).unwrap();
    let DriverConfig::Visionline(visionline) = &config.systems[1].driver else { panic!("another make") };
    let line = &visionline.line;
    assert_eq!((line.baud, line.framing.as_str(), line.hardware_handshake), (9600, "8E1", false));
    assert_eq!((visionline.ack_timeout.as_secs(), visionline.answer_margin.as_secs()), (3, 15));
    assert_eq!((visionline.operator.as_deref(), visionline.card_type), (None, None));
    assert_eq!(config.systems[1].door_count(), 4);
    let DriverConfig::SaltoIs(salto) = &config.systems[0].driver else { panic!("another make") };
    assert_eq!((salto.line.framing.as_str(), salto.line.hardware_handshake), ("8N1", true));
}

#[test]
fn mistakes_about_a_visionline_system_are_told_with_the_way_out() {
    let check = |part: &str, by: &str, parts: &[&str]| {
        let told = told(agent(&format!("{AGENT}{}", with(VISIONLINE, part, by))));
        for wanted in parts {
            assert!(told.contains(wanted), "{wanted:?} is missing in: {told}");
        }
    };
    let kind = "kind = \"visionline\"";
    let and = |setting: &str| format!("{kind}\n{setting}");
    check(kind, &and("checkout = \"last_grant\""), &["system[1].checkout", "no known command"]);
    check(kind, &and("operator = \"a;b\""), &["system[1].operator", "without semicolons"]);
    check(kind, &and("user_group = \"Gäste\""), &["system[1].user_group", "plain ASCII"]);
    check(kind, &and("card_type = -1"), &["system[1].card_type"]);
    check(kind, &and("lrc = \"skip\""), &["system[1].lrc", "unknown setting"]);
    check("number = 2", "number = 1", &["two common rooms have number 1"]);
    check("\"101\", \"102\"", "\"101\", \"101\"", &["listed twice"]);
    check("[\"1\"]", "[]", &["without an encoder"]);
}

const MESSENGER: &str = r#"
[[system]]
name = "front"
kind = "kaba_messenger"
product = "ambiance"
exclusive = true
url = "http://10.0.0.7/MessengerPMSService.asmx"
user = "pms"
password_file = "password"
encoders = ["1", { name = "2", terminal = "12" }]
rooms = ["101", "102"]
common = [{ name = "pool", pass_level = 1 }, { name = "spa", pass_level = 2 }]
"#;

#[test]
fn a_messenger_system_has_a_terminal_for_each_encoder_and_the_usual_margin() {
    let config = agent(&format!("{AGENT}{MESSENGER}")).unwrap();
    let DriverConfig::KabaMessenger(messenger) = &config.systems[1].driver else { panic!("another make") };
    let terminals: Vec<_> = messenger.encoders.iter().map(|it| it.terminal.as_str()).collect();
    assert_eq!((terminals, messenger.terminal.as_deref()), (vec!["1", "12"], None));
    assert_eq!((messenger.answer_margin.as_secs(), messenger.site_name.as_str()), (30, "MAIN"));
    // Whose stay a check-out ends goes by who else makes cards.
    assert_eq!(messenger.checkout_of, CheckoutOf::Room);
    let shared = with(MESSENGER, "exclusive = true", "exclusive = false");
    let shared = agent(&format!("{AGENT}{shared}")).unwrap();
    let DriverConfig::KabaMessenger(shared) = &shared.systems[1].driver else { panic!("another make") };
    assert_eq!(shared.checkout_of, CheckoutOf::FirstGuest);
    assert_eq!(config.systems[1].door_count(), 4);
}

#[test]
fn mistakes_about_a_messenger_system_are_told_with_the_way_out() {
    let check = |part: &str, by: &str, parts: &[&str]| {
        let told = told(agent(&format!("{AGENT}{}", with(MESSENGER, part, by))));
        for wanted in parts {
            assert!(told.contains(wanted), "{wanted:?} is missing in: {told}");
        }
    };
    let product = "product = \"ambiance\"";
    check(
        product,
        "product = \"community\"",
        &["interface document is needed", "ask dormakaba", "probe_only"],
    );
    let shared = with(MESSENGER, "exclusive = true", "exclusive = false\ncheckout_of = \"room\"");
    let told_of_it = told(agent(&format!("{AGENT}{shared}")));
    for wanted in ["system[1].checkout_of", "checkout_of = \"first_guest\"", "`exclusive = true`"] {
        assert!(told_of_it.contains(wanted), "{wanted:?} is missing in: {told_of_it}");
    }
    check(product, "product = \"saflock\"", &["did you mean \"saflok\"?"]);
    check(product, &format!("{product}\nprobe_only = true"), &["for Community alone"]);
    check("url = \"http://10.0.0.7/MessengerPMSService.asmx\"", "", &["system[1].url", "mandatory"]);
    check("http://10.0.0.7", "http://pms:geheim@10.0.0.7", &["system[1].url", "no place in a url"]);
    check(
        "user = \"pms\"",
        "user = \"pms\"\npassword = \"geheim\"",
        &["never written into this file", "password_file"],
    );
    check("user = \"pms\"", "user = \"pms\"\nca_file = \"x\"", &["system[1].ca_file", "plain http"]);
    let pin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    check("user = \"pms\"", &format!("user = \"pms\"\npin = \"{pin}\""), &["system[1].pin", "plain http"]);
    check("terminal = \"12\"", "terminal = \"1\"", &["terminal \"1\" is used twice"]);
    check("pass_level = 2", "pass_level = 1", &["two common areas have pass level 1"]);
    check("[\"1\", { name = \"2\", terminal = \"12\" }]", "[]", &["without an encoder"]);
}

#[test]
fn one_pair_of_brackets_too_few_is_told() {
    check("[[system]]", "[system]", &["write [[system]] with two brackets"]);
}

#[test]
fn an_address_for_mobile_keys_that_could_not_work_is_refused() {
    let api = "listen = \"127.0.0.1:8080\"";
    let with_url = |url: &str| cloud(&with(CLOUD, api, &format!("{api}\ninstant_key_url = \"{url}\"")));
    assert!(with_url("https://keys.example/{token}").unwrap().api.instant_key_url.is_some());
    for (url, wanted) in [
        ("http://keys.example/{token}", "does not begin with https://"),
        ("https://keys.example/{pin}", "no placeholder {pin}"),
        ("https://keys.example/all", "every key would have the same link"),
    ] {
        let told = told(with_url(url));
        assert!(told.contains("api.instant_key_url") && told.contains(wanted), "{wanted:?}: {told}");
    }
}

#[test]
fn plain_http_is_for_loopback_only() {
    let api = "listen = \"127.0.0.1:8080\"";
    for good in ["127.0.0.1:8080", "[::1]:8080"] {
        let config = cloud(&with(CLOUD, api, &format!("listen = \"{good}\"\nplain = true"))).unwrap();
        assert!(config.api.plain);
    }
    let check = |by: &str, wanted: &str| {
        let told = told(cloud(&with(CLOUD, api, by)));
        assert!(told.contains(wanted), "{wanted:?} is missing in: {told}");
    };
    check("listen = \"0.0.0.0:8080\"\nplain = true", "api.plain: plain HTTP at 0.0.0.0:8080");
    let both = "plain = true\ntls = { cert_file = \"c\", key_file = \"k\" }";
    check(&format!("{api}\n{both}"), "exclude each other");
    check("listen = \"localhost:1\"", "not an address to listen at");
    check(&format!("{api}\nhold = \"26s\""), "to \"25s\"");
    check(&format!("{api}\nnames = [\"https://x\"]"), "neither a host name nor an address");
    check(&format!("{api}\ntls = {{ cert_file = \"c\" }}"), "api.tls.key_file");
    check("listen = \"127.0.0.1:8443\"", "both listen at");
}

#[test]
fn a_file_is_known_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    for (text, is_cloud) in [(AGENT, false), (CLOUD, true)] {
        let path = folder.path().join("any.toml");
        std::fs::write(&path, text).unwrap();
        let config = AnyConfig::load(&path).unwrap();
        assert_eq!(matches!(config, AnyConfig::Cloud(_)), is_cloud);
    }
    let missing = AnyConfig::load(&folder.path().join("none.toml")).unwrap_err();
    assert!(matches!(missing, ConfigErrors::Unreadable { .. }), "{missing}");
}

#[test]
fn three_hundred_rooms_are_three_hundred_words() {
    let rooms: Vec<_> = (1..=300).map(|room| format!("\"{room:04}\"")).collect();
    let two = "\"0101\", { name = \"0102\", display_name = \"Suite\" }";
    let config = agent(&with(AGENT, two, &rooms.join(", "))).unwrap();
    assert_eq!(salto(&config).rooms.len(), 300);
}

#[test]
fn no_damage_to_a_file_makes_reading_panic_and_every_refusal_has_a_reason() {
    use proptest::prelude::*;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let damage = (0..AGENT.len(), 0..12_usize, "\\PC{0,6}|[\\[\\]{}=\"'#,.\n\u{e9}]{0,4}");
    runner
        .run(&damage, |(at, gone, new)| {
            let end = (at + gone).min(AGENT.len());
            let text = format!("{}{new}{}", &AGENT[..at], &AGENT[end..]);
            if let Err(errors) = agent(&text) {
                prop_assert!(!errors.mistakes().is_empty());
                prop_assert!(errors.to_string().contains("latchd.toml"));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn locks_with_a_radio_are_read_and_what_is_wrong_with_one_is_said() {
    let locks = |kind: &str, lock: &str| {
        let text = AGENT.split("[[system]]").next().unwrap();
        format!("{text}[[system]]\nname = \"doors\"\nkind = \"{kind}\"\nlocks = [{lock}]\n")
    };
    let lock = "{ name = \"101\", address = \"C0:FF:EE:00:00:01\", keys_file = \"101.json\" }";
    let config = agent(&locks("ttlock", lock)).unwrap();
    let DriverConfig::Ble(doors) = &config.systems[0].driver else { panic!("another driver") };
    let first = &doors.locks[0];
    assert_eq!(first.keys_file, Some(PathBuf::from("/etc/latchd/101.json")));
    assert_eq!((first.pin_lengths.as_slice(), first.windows), (&[4, 5, 6, 7, 8, 9][..], true));
    assert_eq!((doors.listen, doors.lead), (Duration::from_secs(20), Duration::from_secs(72 * 3600)));
    let bare = agent(&locks("ttlock", &lock.replace(", keys_file = \"101.json\"", ""))).unwrap();
    let DriverConfig::Ble(bare) = &bare.systems[0].driver else { panic!("another driver") };
    assert_eq!(bare.locks[0], BleLockConfig { keys_file: None, ..first.clone() });
    let named = lock.replace("C0:FF:EE:00:00:01", "M100001").replace(" }", ", places = [20, 40] }");
    let config = agent(&locks("august_yale", &named)).unwrap();
    let DriverConfig::Ble(flats) = &config.systems[0].driver else { panic!("another driver") };
    assert_eq!((flats.locks[0].places, flats.locks[0].pin_lengths.as_slice()), ((20, 40), &[4, 5, 6][..]));
    for (kind, lock, parts) in [
        ("ttlock", lock.replace("00:01", "00:0G"), ["no address", "bluetoothctl scan on"]),
        ("ttlock", named.clone(), ["a TTLock numbers nothing", "remove this setting"]),
        ("august_yale", named.replace("[20, 40]", "[40, 20]"), ["20 comes before 40", "places = [20, 99]"]),
        ("ttlock", lock.replace("\"101.json\"", "7"), ["keys_file", "7"]),
        ("schlage_encode", lock.to_owned(), ["the maker's cloud alone", "Z-Wave or Matter"]),
    ] {
        let text = told(agent(&locks(kind, &lock)));
        assert!(parts.iter().all(|part| text.contains(part)), "{kind}: {text}");
    }
    // What nothing on the property speaks to has a name, and neither an address nor keys.
    let Err(errors) = agent(&locks("igloohome", lock)) else { panic!("it has an address") };
    assert!(errors.to_string().contains("locks[0].address: unknown setting"), "{errors}");
    let config = agent(&locks("igloohome", "{ name = \"301\", pin_lengths = [8, 9] }")).unwrap();
    let DriverConfig::Igloohome(gate) = &config.systems[0].driver else { panic!("another driver") };
    assert_eq!((gate.locks.len(), gate.locks[0].pin_lengths.as_slice()), (1, &[8, 9][..]));
}
