//! `latchd setup`: a property's doors from a spreadsheet, through the real program.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use latchd::{
    config::{AgentConfig, DriverConfig, import, rows},
    drivers::visionline::sim as visionline,
    seams::SystemNet,
};

const CONFIG: &str = r#"# Kept as it is.
[site]
name = "Hotel Fjord"
time_zone = "Europe/Oslo"

[storage]
folder = "state"

[[system]]
name = "other"
kind = "salto_is"
exclusive = true
line = { tcp = "10.0.0.4:9090" }
encoders = ["1"]
rooms = ["1"]

[[system]]
name = "salto"
kind = "salto_is" # the make
exclusive = true
line = { tcp = "10.0.0.5:9090" }
encoders = ["1", { name = "2", display_name = "Night desk" }]
rooms = ["0101", # by the lift
    { name = "0201", display_name = "Suite" },
]
common = [{ name = "pool", authorisation = 1 }]

# The last line.
"#;

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(config: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(site.config(), config).unwrap();
        fs::set_permissions(site.config(), fs::Permissions::from_mode(0o640)).unwrap();
        site
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("latchd.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn setup(&self, spreadsheet: impl AsRef<[u8]>, more: &[&str]) -> Output {
        let file = self.folder.path().join("doors.csv");
        fs::write(&file, spreadsheet).unwrap();
        Command::new(env!("CARGO_BIN_EXE_latchd"))
            .args(["setup", "salto", "--from"])
            .arg(file)
            .arg("--config")
            .arg(self.config())
            .args(more)
            .output()
            .unwrap()
    }

    fn done(&self, spreadsheet: impl AsRef<[u8]>, more: &[&str]) -> String {
        let output = self.setup(spreadsheet, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is said of a spreadsheet that is refused; nothing is written then.
    fn refused(&self, spreadsheet: impl AsRef<[u8]>) -> String {
        let before = self.text();
        let output = self.setup(spreadsheet, &["--apply"]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(self.text(), before);
        String::from_utf8(output.stderr).unwrap()
    }
}

fn three_hundred_rooms() -> String {
    let mut text = "kind,name,display_name,number\nencoder,3,Back office,\ncommon,pool,Pool,1\n".to_owned();
    for floor in 1..=10 {
        for room in 1..=30 {
            text += &format!("room,{floor:02}{room:02},,\n");
        }
    }
    text + "common,gym,\"Fitness, sauna\",2\n"
}

#[test]
fn three_hundred_rooms_are_shown_then_written_and_then_there() {
    let site = Site::new(CONFIG);
    let shown = site.done(three_hundred_rooms(), &[]);
    assert_eq!(shown.lines().filter(|line| line.starts_with("+ room ")).count(), 298);
    assert!(shown.contains("\n+ encoder 3, \"Back office\"\n"), "{shown}");
    assert!(
        shown.contains("~ common pool: display_name \"Pool\"\n+ common gym, number 2, \"Fitness, sauna\"\n"),
        "{shown}"
    );
    assert!(
        shown.contains("  2 not in the spreadsheet stay (encoder 1, encoder 2); --take-out takes them out\n"),
        "{shown}"
    );
    assert!(shown.ends_with("301 changes. Nothing was written; --apply writes them.\n"), "{shown}");
    assert_eq!(site.text(), CONFIG);

    let written = site.done(three_hundred_rooms(), &["--apply"]);
    assert!(written.contains("301 changes written to "), "{written}");
    let text = site.text();
    for kept in
        ["# Kept as it is.\n", "kind = \"salto_is\" # the make\n", "# by the lift\n", "\n# The last line.\n"]
    {
        assert!(text.contains(kept), "{kept:?} is gone: {text}");
    }
    assert!(
        text.contains("    { name = \"0201\", display_name = \"Suite\" },\n    \"0102\",\n    \"0103\",\n"),
        "{text}"
    );
    assert_eq!(fs::metadata(site.config()).unwrap().permissions().mode() & 0o777, 0o640);
    let config = AgentConfig::load(&site.config()).unwrap();
    assert_eq!(config.systems[0].door_count(), 1);
    let DriverConfig::SaltoIs(salto) = &config.systems[1].driver else { panic!("{config:?}") };
    assert_eq!((salto.rooms.len(), salto.encoders.len()), (300, 3));
    let common: Vec<_> = salto
        .common
        .iter()
        .map(|door| (door.name.as_str(), door.display_name.as_deref(), door.authorisation))
        .collect();
    assert_eq!(common, [("pool", Some("Pool"), 1), ("gym", Some("Fitness, sauna"), 2)]);

    assert!(site.done(three_hundred_rooms(), &["--apply"]).ends_with("Nothing to change.\n"));
    assert_eq!(site.text(), text);
    let names: Vec<_> =
        fs::read_dir(site.folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn what_a_spreadsheet_program_makes_of_it_is_read_all_the_same() {
    let site = Site::new(CONFIG);
    let told = site.done("\u{feff}Kind;Name;Display_Name\r\nROOM;0301;\"Zimmer; groß\"\r\n;;\r\n", &[]);
    assert!(told.contains("+ room 0301, \"Zimmer; groß\"\n"), "{told}");
    let told = site.done("name\tkind\n0301\troom\n", &[]);
    assert!(told.contains("+ room 0301\n"), "{told}");
    let told = site.done("kind,name\nroom,101\n", &[]);
    assert!(
        told.contains(
            "! \"101\" is new, and \"0101\" is there already: a spreadsheet may have dropped the zeros"
        ),
        "{told}"
    );
}

#[test]
fn what_is_not_there_any_more_is_taken_out_only_when_asked_and_only_of_kinds_that_are_there() {
    let site = Site::new(CONFIG);
    site.done("kind,name\nroom,0201\n", &["--apply", "--take-out"]);
    let text = site.text();
    assert!(!text.contains("0101") && text.contains("\"Night desk\"") && text.contains("pool"), "{text}");
    assert!(AgentConfig::load(&site.config()).is_ok());
}

#[test]
fn whatever_is_wrong_is_named_with_its_line_and_nothing_is_written() {
    let site = Site::new(CONFIG);
    let check = |spreadsheet: &str, words: &[&str]| {
        let told = site.refused(spreadsheet);
        assert!(words.iter().all(|word| told.contains(word)), "{spreadsheet:?}: {told}");
    };
    check("", &["the column \"kind\" is missing"]);
    check("kind,name,colour\n", &["there is no column \"colour\""]);
    check("kind,name\nroom,1\nsuite,2\n", &["line 3 of the spreadsheet", "room, common or encoder"]);
    check("kind,name\nroom,\n", &["line 2 of the spreadsheet", "name is empty"]);
    check("kind,name\nroom,9\ncommon,9\n", &["line 3 of the spreadsheet", "stands in line 2 already"]);
    check("kind,name\nroom,1,2,3\n", &["line 2 of the spreadsheet", "4 cells"]);
    check("kind,name,number\nroom,1,7\n", &["line 2 of the spreadsheet", "this make knows none"]);
    check("kind,name,number\ncommon,sauna,x\n", &["line 2 of the spreadsheet", "\"x\" is no number"]);
    check("kind,name\ncommon,sauna\n", &["line 2 of the spreadsheet", "has no number", "authorisation"]);
    // What only the configuration's own rules know.
    check(
        "kind,name,number\ncommon,sauna,63\n",
        &["the configuration would be wrong", "authorisation", "63"],
    );
    check("kind,name,number\ncommon,sauna,1\n", &["1"]);
    check(&format!("kind,name\nroom,{}\n", "x".repeat(300)), &["rooms"]);
    let told = site.refused(b"kind,name\nroom,\xff\n");
    assert!(told.contains("UTF-8"), "{told}");
}

#[test]
fn a_system_that_is_not_there_or_has_no_doors_is_told() {
    let check = |config: &str, words: &str| {
        let told = Site::new(config).refused("kind,name\nroom,1\n");
        assert!(told.contains(words), "{told}");
    };
    check(&CONFIG.replace("\"salto\"", "\"lobby\""), "no [[system]] named \"salto\"; it has other, lobby");
    check(
        &CONFIG.replace("kind = \"salto_is\" #", "kind = \"sim_lock\" #"),
        "of kind \"sim_lock\" has no rooms",
    );
    check("[site\n", "is no TOML");
}

#[test]
fn what_somebody_points_to_by_a_link_is_replaced_and_not_the_link() {
    let site = Site::new(CONFIG);
    let real = site.folder.path().join("real.toml");
    fs::rename(site.config(), &real).unwrap();
    std::os::unix::fs::symlink("real.toml", site.config()).unwrap();
    site.done("kind,name\nroom,0301\n", &["--apply"]);
    assert!(fs::symlink_metadata(site.config()).unwrap().is_symlink());
    assert!(fs::read_to_string(real).unwrap().contains("\"0301\""));
}

#[test]
fn each_make_keeps_numbers_where_its_own_settings_are() {
    let import = |kind: &str, row: &str| {
        let config = format!("[[system]]\nname = \"s\"\nkind = \"{kind}\"\n");
        let rows = rows(format!("kind,name,number\n{row}\n").as_bytes()).unwrap();
        import(&config, "s", &rows, false).map(|imported| imported.text).map_err(|error| error.to_string())
    };
    let has = |kind: &str, row: &str, expected: &str| {
        let text = import(kind, row).unwrap();
        assert!(text.contains(expected), "{text}");
    };
    has("visionline", "common,pool,12", "common = [\n    { name = \"pool\", number = 12 },\n]");
    has("kaba_messenger", "common,pool,3", "common = [\n    { name = \"pool\", pass_level = 3 },\n]");
    has("kaba_messenger", "encoder,1,11", "encoders = [\n    { name = \"1\", terminal = \"11\" },\n]");
    has("kaba_messenger", "encoder,1,", "encoders = [\n    \"1\",\n]");
    assert!(import("visionline", "encoder,1,2").unwrap_err().contains("this make knows none"));
}

#[tokio::test]
async fn visionlines_own_rooms_are_taken_over_and_a_second_run_changes_nothing() {
    let simulator = visionline::Simulator::new(visionline::Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let options = visionline::Options { folder: folder.path().into(), tcp: any, web: Some(any) };
    let front = visionline::Front::open(simulator, &SystemNet, options).await.unwrap();
    let web = front.places().web.unwrap();
    let password = folder.path().join("visionline-web-password");
    let section = format!(
        "[[system]]\nname = \"front\"\nkind = \"visionline\"\nexclusive = true\n\
         line = {{ tcp = \"{}\" }}\nencoders = [\"1\"]\nrooms = [{{ name = \"101\", display_name = \"Suite\" }}]\n\
         web = {{ url = \"http://{web}\", user = \"bridge\", password_file = \"{}\" }}\n",
        front.places().tcp,
        password.display(),
    );
    let site = Site::new(&format!("{CONFIG}\n{section}"));
    let setup = async |system: &str, more: &[&str]| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_latchd"))
            .args(["setup", system, "--discover", "--config"])
            .arg(site.config())
            .args(more)
            .output()
            .await
            .unwrap();
        let (told, errors) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
        (output.status.success(), told.unwrap() + &errors.unwrap())
    };
    let before = site.text();
    let (is_done, told) = setup("front", &[]).await;
    assert!(is_done && told.contains("19 changes. Nothing was written"), "{told}");
    assert!(told.contains("3 more that are no guest rooms (gym, pool, spa)"), "{told}");
    assert_eq!(site.text(), before);
    let (is_done, told) = setup("front", &["--apply"]).await;
    assert!(is_done, "{told}");
    let config = AgentConfig::from_toml(&site.config(), &site.text()).unwrap();
    let DriverConfig::Visionline(visionline) = &config.systems[2].driver else { panic!("another make") };
    assert_eq!(visionline.rooms.len(), 20);
    assert_eq!(visionline.rooms[0].display_name.as_deref(), Some("Suite"), "what people call it stays");
    let (is_done, told) = setup("front", &["--apply"]).await;
    assert!(is_done && told.contains("Nothing to change."), "{told}");

    let (is_done, told) = setup("salto", &[]).await;
    assert!(
        !is_done && told.contains("system salto cannot list its doors: bring them in with --from FILE"),
        "{told}"
    );
    let (is_done, told) = setup("nowhere", &[]).await;
    assert!(!is_done && told.contains("there are: other, salto, front"), "{told}");
    fs::write(&password, "wrong").unwrap();
    let (is_done, told) = setup("front", &[]).await;
    assert!(!is_done && told.contains("ask front for its doors"), "{told}");
    front.close().await;
}
