//! Two processes on one folder: the second one refuses before it touches anything.

use std::{fs, path::Path};

use crate::site::{Process, Site, latchd};

fn refused(site: &Site, role: &str, config: &Path, holder: u32) {
    let mut command = latchd();
    let mut second =
        Process::start(site.folder.path(), "second", command.arg(role).arg("--config").arg(config));
    assert_eq!(second.ended(), Some(1));
    let told = second.errors();
    let folder = if role == "run" { "agent" } else { "cloud" };
    let folder = site.folder.path().join(folder).display().to_string();
    assert!(told.contains(&folder) && told.contains("in use by another latchd"), "{told}");
    assert!(told.contains(&format!("process {holder}")), "{told}");
}

#[test]
fn a_second_agent_on_the_same_queue_refuses_and_the_card_at_work_is_still_written_once() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");

    // The same file, and one that differs in its admin socket: neither may settle the job that is at work.
    let config = site.folder.path().join("agent.toml");
    let other = site.folder.path().join("other.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&other, text.replace("agent.sock", "other.sock")).unwrap();
    let holder = site.agent().pid();
    for config in [&config, &other] {
        refused(&site, "run", config, holder);
    }

    site.control("place jane on 1");
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(site.jobs("succeeded"), Some(1));
    assert_eq!(site.jobs("unknown"), Some(0));
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn a_second_cloud_on_the_same_folder_refuses_and_the_first_one_keeps_its_bridge() {
    let mut site = Site::start();
    let other = site.folder.path().join("other.toml");
    let folder = site.folder.path().join("cloud");
    let text = format!(
        "[storage]\nfolder = \"{}\"\n[api]\nlisten = \"127.0.0.1:0\"\n[bridges]\nlisten = \"127.0.0.1:0\"\n",
        folder.display()
    );
    fs::write(&other, text).unwrap();
    let holder = site.cloud().pid();
    refused(&site, "cloud", &other, holder);
    site.healthy();
    site.card("jane", "stay-1", &["101"]);
}
