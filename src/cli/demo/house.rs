//! Which access system the property has: its simulator, its lines, and what the story may expect of it.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{locks, property::Property};
use crate::{
    config::{Dialect, KabaProduct},
    drivers::{ble::BleLocks, kaba_messenger, salto_is::SaltoIs, visionline::Visionline},
    model::Capabilities,
};

/// Where a kept folder says which system it was made with.
const FILE: &str = "system";

/// The access system of the pretended property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum House {
    /// SALTO SPACE.
    Salto,
    /// Onity HT: the older form of SALTO's protocol, with whole hours.
    Onity,
    /// ASSA ABLOY Visionline.
    Visionline,
    /// dormakaba Ambiance.
    Ambiance,
    /// TTLock and August locks by Bluetooth: another story, with codes; needs dbus-daemon.
    Ble,
}

impl House {
    /// What people call it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Salto => "SALTO SPACE",
            Self::Onity => "Onity HT",
            Self::Visionline => "Visionline",
            Self::Ambiance => "Ambiance",
            Self::Ble => "locks by Bluetooth",
        }
    }

    /// What its driver declares.
    pub(super) fn can(self) -> Capabilities {
        match self {
            Self::Salto => SaltoIs::capabilities(Dialect::Salto),
            Self::Onity => SaltoIs::capabilities(Dialect::Onity),
            Self::Visionline => Visionline::capabilities_over_tcp(),
            Self::Ambiance => kaba_messenger::KabaMessenger::capabilities(KabaProduct::Ambiance),
            Self::Ble => BleLocks::capabilities(),
        }
    }

    /// Whether the first of its two lines is a serial one.
    pub(super) fn has_serial_line(self) -> bool {
        matches!(self, Self::Salto | Self::Onity)
    }

    /// How its simulator notes that a stay's end was changed.
    pub(super) fn change_of_a_stay(self) -> &'static str {
        match self {
            Self::Salto | Self::Onity | Self::Visionline | Self::Ble => "MC",
            Self::Ambiance => "ExtendCheckOut",
        }
    }

    /// How its simulator notes that a room was freed.
    pub(super) fn check_out(self) -> &'static str {
        match self {
            Self::Salto | Self::Onity | Self::Visionline | Self::Ble => "CO",
            Self::Ambiance => "CancelGuestsAccessToRoom",
        }
    }

    /// What `latchd sim` is asked for.
    pub(super) fn simulator(self) -> &'static [&'static str] {
        match self {
            Self::Salto => &["salto-is", "--pty"],
            Self::Onity => &["salto-is", "--pty", "--dialect", "onity"],
            Self::Visionline => &["visionline"],
            Self::Ambiance => &["messenger"],
            Self::Ble => &["ble", "--fresh", "1"],
        }
    }

    /// How many systems that are to the agent: the annex is one of its own where there is a second line to it.
    pub(super) fn systems(self) -> usize {
        if self.has_serial_line() { 2 } else { 1 }
    }

    /// The sections of the agent's configuration: the house with a pool, and the annex.
    pub(super) fn sections(self, folder: &Path, property: &Property) -> anyhow::Result<String> {
        let rooms = |first: u32| {
            let rooms = first..first + 10;
            rooms.map(|room| format!("\"{room}\"")).collect::<Vec<_>>().join(", ")
        };
        let tcp = format!("line = {{ tcp = \"{}\" }}", property.tcp);
        let serial = property.tty.as_ref().map(|tty| format!("line = {{ serial = \"{tty}\" }}"));
        let first = serial.unwrap_or_else(|| tcp.clone());
        let (make, first, second, number) = match self {
            Self::Salto => ("kind = \"salto_is\"".to_owned(), first, tcp, "authorisation"),
            Self::Onity => {
                ("kind = \"salto_is\"\ndialect = \"onity\"".to_owned(), first, tcp, "authorisation")
            }
            Self::Visionline => ("kind = \"visionline\"".to_owned(), first, tcp, "number"),
            Self::Ble => return locks::sections(property),
            Self::Ambiance => {
                let password = folder.join("property").join("password");
                write_secret(&password, &kaba_messenger::sim::Property::default().password)?;
                let make = "kind = \"kaba_messenger\"\nproduct = \"ambiance\"\nuser = \"pms\"\n\
                            password_file = \"property/password\"";
                let url =
                    format!("url = \"http://{}/lenspmswebservice/MessengerPMSService.asmx\"", property.tcp);
                (make.to_owned(), url.clone(), url, "pass_level")
            }
        };
        let checkout = if self.can().checkout.is_some() { "checkout = \"last_grant\"\n" } else { "" };
        let system = |name: &str, line: &str, encoders: &str, rooms: String, more: &str| {
            format!(
                "\n[[system]]\nname = \"{name}\"\n{make}\nexclusive = true\n{line}\nencoders = [{encoders}]\n\
                 rooms = [{rooms}]\n{more}"
            )
        };
        let pool = format!(
            "common = [{{ name = \"pool\", {number} = 1 }}]\n{checkout}after_deleted_card = \"override\"\n"
        );
        Ok(match self.systems() {
            1 => system("house", &first, "\"1\", \"2\"", format!("{}, {}", rooms(101), rooms(201)), &pool),
            _ => {
                let house = system("house", &first, "\"1\"", rooms(101), &pool);
                house + &system("annex", &second, "\"2\"", rooms(201), "")
            }
        })
    }

    /// Refuses a folder that was kept of another system: its cloud and its queue know other doors.
    ///
    /// # Errors
    /// When it was, or cannot be read or written.
    pub(super) fn claim(self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(before) if before.trim() == self.word() => Ok(()),
            Ok(before) => bail!(
                "{} was kept of `--system {}`, not of {}: name that system, or another folder with --keep",
                folder.display(),
                before.trim(),
                self.word()
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::write(&path, self.word()).with_context(|| format!("write {}", path.display()))
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Salto => "salto",
            Self::Onity => "onity",
            Self::Visionline => "visionline",
            Self::Ambiance => "ambiance",
            Self::Ble => "ble",
        }
    }
}

fn write_secret(path: &Path, secret: &str) -> anyhow::Result<()> {
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(file.write_all(secret.as_bytes())?)
}
