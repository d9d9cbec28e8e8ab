//! `[[system]]`: the access systems of a site.

mod ble;
mod card_reader;
mod dialect;
mod igloohome;
mod kaba_messenger;
mod uhppote;

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

pub use ble::{BleConfig, BleLockConfig, BleMake};
pub use card_reader::{CardReaderConfig, ReaderConfig};
pub use dialect::{Dialect, HourRounding};
pub use igloohome::{IgloohomeConfig, IgloohomeLock};
pub use kaba_messenger::{
    COMMUNITY, CheckoutOf, KabaMessengerConfig, KabaProduct, PassLevelConfig, TerminalConfig,
};
pub use uhppote::{BoardConfig, BoardDoor, CardNumbers, UhppoteConfig};

use super::{
    HttpConfig,
    agent::zone,
    section::{Section, Setting},
};
use crate::model::{DeviceName, DoorName, EncoderName, PinConstraint, SystemName};

/// One access system.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemConfig {
    /// The site's name for it; the first half of every local id. Never change it.
    pub name: SystemName,
    /// Whether latchd alone makes cards on it. `false` where the hotel's desk program or PMS makes cards too: then a
    /// card joins a stay only after a live card of that stay was read on an encoder. Mandatory: there is no safe
    /// guess.
    pub exclusive: bool,
    /// With `exclusive = false`: trust the ledger all the same. Every such join is written to the audit.
    pub assume_unchanged: bool,
    /// Whether the end of a reservation's last grant frees the room in the lock system.
    pub checkout: Checkout,
    /// What the next card of a stay does once one of the stay's cards was deleted.
    pub after_deleted_card: AfterDeletedCard,
    /// Which make (`kind`), and its own settings, beside the ones above.
    pub driver: DriverConfig,
}

/// Whether the end of a reservation's last grant frees the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checkout {
    /// `never`: the desk does it.
    #[default]
    Never,
    /// `last_grant`: when the last live grant of the reservation is deleted.
    LastGrant,
}

/// What the next card of a stay does once one of the stay's cards was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterDeletedCard {
    /// `join`: it joins, and the deleted card opens until the end printed on it.
    #[default]
    Join,
    /// `override`: it begins the stay anew. Once it is used, the deleted card is dead, and so are the stay's other cards:
    /// they ask to be encoded again.
    Override,
}

/// Which make, and its own settings.
#[derive(Debug, Clone, PartialEq)]
pub enum DriverConfig {
    /// `salto_is`: SALTO SPACE by its "Industry Standard" PMS interface.
    SaltoIs(SaltoIsConfig),
    /// `visionline`: ASSA ABLOY Visionline by its PMS text interface.
    Visionline(VisionlineConfig),
    /// `kaba_messenger`: dormakaba's hotel systems by the Messenger PMS web service.
    KabaMessenger(KabaMessengerConfig),
    /// `ttlock`, `august_yale`: locks that are spoken to by Bluetooth Low Energy.
    Ble(BleConfig),
    /// `igloohome`: locks whose codes their maker's cloud computes.
    Igloohome(IgloohomeConfig),
    /// `uhppote`: UHPPOTE door controllers.
    Uhppote(UhppoteConfig),
    /// `card_reader`: readers on desks, for devices that know cards by number.
    CardReader(CardReaderConfig),
    /// `sim_lock`: the keypad locks of `latchd sim lock`.
    SimLock(SimLockConfig),
}

impl DriverConfig {
    /// Whether its devices number the places that slots have.
    #[must_use]
    pub fn numbers_places(&self) -> bool {
        matches!(self, Self::Ble(BleConfig { make: BleMake::AugustYale, .. }))
    }

    /// Whether its system's own list of a room's cards can be asked for.
    #[must_use]
    pub fn lists_cards(&self) -> bool {
        matches!(self, Self::Visionline(VisionlineConfig { web: Some(_), .. }))
    }
}

#[derive(Clone, Copy)]
enum Make {
    SaltoIs,
    Visionline,
    KabaMessenger,
    Ble(BleMake),
    Igloohome,
    Uhppote,
    CardReader,
    SimLock,
}

impl Make {
    const NAMES: [(&str, Self); 9] = [
        ("salto_is", Self::SaltoIs),
        ("visionline", Self::Visionline),
        ("kaba_messenger", Self::KabaMessenger),
        ("ttlock", Self::Ble(BleMake::TtLock)),
        ("august_yale", Self::Ble(BleMake::AugustYale)),
        ("igloohome", Self::Igloohome),
        ("uhppote", Self::Uhppote),
        ("card_reader", Self::CardReader),
        ("sim_lock", Self::SimLock),
    ];
}

impl SystemConfig {
    pub(super) fn read_all(root: &Section<'_>) -> Option<Vec<Self>> {
        let Some(setting) = root.get("system") else {
            return Some(Vec::new());
        };
        if setting.is_table() {
            setting.wrong("there may be several systems", "write [[system]] with two brackets");
            return None;
        }
        let (mut systems, mut names, mut lines) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut whole = true;
        for item in setting.items()? {
            let Some(system) = item.section().and_then(|section| Self::read(&section)) else {
                whole = false;
                continue;
            };
            if !names.insert(system.name.clone()) {
                item.wrong(
                    format!("there are two systems named {:?}", system.name.as_str()),
                    "the name is half of every local id: give each its own",
                );
            }
            let (of_system, help) = match &system.driver {
                DriverConfig::SaltoIs(SaltoIsConfig { line, .. })
                | DriverConfig::Visionline(VisionlineConfig { line, .. }) => (
                    BTreeSet::from([line.to_string()]),
                    "a line belongs to one system; list all its rooms and encoders there",
                ),
                DriverConfig::KabaMessenger(it) => (
                    BTreeSet::from([it.http.url.to_string()]),
                    "a server belongs to one system; list all its rooms and encoders there",
                ),
                DriverConfig::Ble(locks) => (
                    locks.locks.iter().map(|lock| lock.address.to_ascii_uppercase()).collect(),
                    "each lock has its own address and belongs to one system",
                ),
                DriverConfig::Uhppote(it) => (
                    it.boards.iter().map(|board| format!("board {}", board.serial)).collect(),
                    "a board belongs to one system; list all its doors there",
                ),
                DriverConfig::CardReader(it) => (
                    it.encoders.iter().map(|encoder| encoder.line.to_string()).collect(),
                    "a reader belongs to one system; list all of them there",
                ),
                // They are reached by nothing.
                DriverConfig::Igloohome(_) => (BTreeSet::new(), ""),
                DriverConfig::SimLock(locks) => (
                    locks.locks.iter().map(|lock| lock.address.clone()).collect(),
                    "each lock has its own address and belongs to one system",
                ),
            };
            for line in of_system {
                if !lines.insert(line.clone()) {
                    item.wrong(format!("two systems share the line {line}"), help);
                }
            }
            systems.push(system);
        }
        whole.then_some(systems)
    }

    fn read(section: &Section<'_>) -> Option<Self> {
        let name = section
            .must("name", "the site's name for this system; half of every local id, never change it")
            .and_then(|setting| {
                let name: SystemName = setting.parsed()?;
                if name.as_str().contains('/') {
                    setting.wrong("a slash is not possible here", "local ids are written system/door");
                    return None;
                }
                Some(name)
            });
        let driver = section
            .must("kind", "which make of access system: \"salto_is\", \"visionline\", \"kaba_messenger\", \"ttlock\", \"august_yale\", \"igloohome\", \"uhppote\", \"card_reader\" or \"sim_lock\"")
            .and_then(|setting| {
                if let Some((problem, help)) = impossible(setting.text()?) {
                    setting.wrong(problem, help);
                    // Its settings are judged as those of the locks that it resembles.
                    return Some(Make::Ble(BleMake::TtLock));
                }
                setting.one_of(&Make::NAMES)
            });
        // Where the kind is misspelt, what stands there tells best which mistakes to show.
        let driver = driver.or_else(|| section.get("locks").map(|_| Make::SimLock));
        if let Some(Make::SimLock | Make::Igloohome | Make::Uhppote | Make::CardReader | Make::Ble(_)) =
            driver
        {
            let driver = match driver {
                Some(Make::Igloohome) => IgloohomeConfig::read(section).map(DriverConfig::Igloohome),
                Some(Make::CardReader) => CardReaderConfig::read(section).map(DriverConfig::CardReader),
                Some(Make::Uhppote) => UhppoteConfig::read(section).map(DriverConfig::Uhppote),
                Some(Make::Ble(make)) => BleConfig::read(section, make).map(DriverConfig::Ble),
                _ => SimLockConfig::read(section).map(DriverConfig::SimLock),
            };
            return Some(Self {
                // Keypad locks have no stays: there is nobody to share them with, and no room to free.
                exclusive: true,
                assume_unchanged: false,
                checkout: Checkout::Never,
                after_deleted_card: AfterDeletedCard::Join,
                driver: driver?,
                name: name?,
            });
        }
        let exclusive = section
            .must(
                "exclusive",
                "`true` if latchd alone makes cards on this system; `false` if the hotel's desk program or PMS makes \
                 cards too: then a further card needs a live card of its stay read on an encoder first",
            )
            .and_then(|setting| setting.flag());
        let assume_unchanged = section.get("assume_unchanged").and_then(|setting| {
            let assume = setting.flag()?;
            if assume && exclusive == Some(true) {
                setting.wrong(
                    "with `exclusive = true` there is nothing to assume",
                    "remove this setting, or say `exclusive = false` if other programs make cards too",
                );
            }
            Some(assume)
        });
        let checkout = section.get("checkout").and_then(|setting| {
            let checkout =
                setting.one_of(&[("never", Checkout::Never), ("last_grant", Checkout::LastGrant)])?;
            if let (Checkout::LastGrant, Some(Make::Visionline)) = (checkout, driver) {
                setting.wrong(
                    "Visionline's PMS interface has no known command that frees a room",
                    "remove this setting; cards end by themselves",
                );
            }
            Some(checkout)
        });
        let after_deleted_card = section.get("after_deleted_card").and_then(|setting| {
            setting.one_of(&[("join", AfterDeletedCard::Join), ("override", AfterDeletedCard::Override)])
        });
        let driver = match driver {
            Some(Make::Visionline) => VisionlineConfig::read(section).map(DriverConfig::Visionline),
            Some(Make::KabaMessenger) => {
                let messenger = KabaMessengerConfig::read(section, exclusive == Some(true));
                messenger.map(DriverConfig::KabaMessenger)
            }
            // Where the kind is misspelt, most settings are those of any card system.
            Some(
                Make::SaltoIs
                | Make::Ble(_)
                | Make::Igloohome
                | Make::Uhppote
                | Make::CardReader
                | Make::SimLock,
            )
            | None => SaltoIsConfig::read(section).map(DriverConfig::SaltoIs),
        };
        Some(Self {
            name: name?,
            exclusive: exclusive?,
            assume_unchanged: assume_unchanged.unwrap_or_default(),
            checkout: checkout.unwrap_or_default(),
            after_deleted_card: after_deleted_card.unwrap_or_default(),
            driver: driver?,
        })
    }

    /// The names of all its doors, rooms and common ones.
    pub fn door_names(&self) -> impl Iterator<Item = &DoorName> {
        let (rooms, common): (&[DoorConfig], Vec<&DoorName>) = match &self.driver {
            DriverConfig::SaltoIs(salto) => (&salto.rooms, salto.common.iter().map(|it| &it.name).collect()),
            DriverConfig::Visionline(it) => (&it.rooms, it.common.iter().map(|it| &it.name).collect()),
            DriverConfig::KabaMessenger(it) => (&it.rooms, it.common.iter().map(|it| &it.name).collect()),
            DriverConfig::Ble(_)
            | DriverConfig::Igloohome(_)
            | DriverConfig::Uhppote(_)
            | DriverConfig::CardReader(_)
            | DriverConfig::SimLock(_) => (&[], Vec::new()),
        };
        rooms.iter().map(|room| &room.name).chain(common)
    }

    /// How many doors it has; a keypad lock is one.
    #[must_use]
    pub fn door_count(&self) -> usize {
        match &self.driver {
            DriverConfig::SaltoIs(_) | DriverConfig::Visionline(_) | DriverConfig::KabaMessenger(_) => {
                self.door_names().count()
            }
            DriverConfig::Ble(locks) => locks.locks.len(),
            DriverConfig::Igloohome(locks) => locks.locks.len(),
            DriverConfig::Uhppote(it) => it.door_count(),
            DriverConfig::CardReader(_) => 0,
            DriverConfig::SimLock(locks) => locks.locks.len(),
        }
    }
}

/// SALTO SPACE by its "Industry Standard" PMS interface.
#[derive(Debug, Clone, PartialEq)]
pub struct SaltoIsConfig {
    /// How to reach it.
    pub line: LineConfig,
    /// Which form of the protocol it speaks. Default `salto`.
    pub dialect: Dialect,
    /// In a dialect of whole hours: where a time goes that lies between two of them. Default `outside`.
    pub hour_rounding: HourRounding,
    /// Its Ethernet encoders, by their names in SPACE. USB encoders cannot be used for PMS.
    pub encoders: Vec<EncoderConfig>,
    /// Its guest rooms, by their names in SPACE; leading zeros matter.
    pub rooms: Vec<DoorConfig>,
    /// Its common doors, with their numbers on the "PMS Authorizations" screen.
    pub common: Vec<CommonConfig>,
    /// Whether the final answer is acknowledged. Two public clients do, two do not; default yes.
    pub ack_final: bool,
    /// What stands behind ETX in our frames: the checksum, or `0D` for "do not check". Default the checksum;
    /// `0D` for Onity and Amadeus.
    pub lrc: LrcConfig,
    /// Shown in the lock system's audit trail; at most 24 characters, 20 for Onity and Amadeus. A card that is read is known by
    /// it as one of ours, so nobody else may make cards in this name. Default `LATCHD`.
    pub operator: String,
    /// Whether the encoder waits until the card is taken away (`E`) or not (`R`). Where it does not, the card that lies there
    /// is read before the next one is written. Default yes; Amadeus cannot be told to, and never does.
    pub wait_for_removal: bool,
    /// How long the system may take for ACK. Default 5 s.
    pub ack_timeout: Duration,
    /// How much longer than the card wait the final answer may take. Default 15 s.
    pub answer_margin: Duration,
    /// How long a serial line rests after an answer that did not come, throwing away what arrives, so that it is never
    /// taken for the next one's; over TCP only the encoder rests, as it may still be at work. Default 30 s.
    pub settle: Duration,
}

impl SaltoIsConfig {
    fn read(section: &Section<'_>) -> Option<Self> {
        let line = section
            .must(
                "line",
                "how to reach the system: line = { tcp = \"HOST:PORT\" } or { serial = \"/dev/…\" }",
            )
            .and_then(|setting| LineConfig::read(&setting.section()?, 9600, "8N1", true));
        let encoders = section
            .must("encoders", "the names of its Ethernet encoders, e.g. encoders = [\"1\"]")
            .and_then(|setting| {
                let encoders = list(&setting, &mut BTreeSet::new(), EncoderConfig::read, |encoder| {
                    encoder.name.as_str()
                })?;
                if encoders.is_empty() {
                    setting.wrong("the list is empty", "without an encoder no card can be made");
                }
                Some(encoders)
            });
        let mut doors = BTreeSet::new();
        let rooms = section
            .must(
                "rooms",
                "the names of its guest rooms as SPACE spells them, e.g. rooms = [\"0101\", \"0102\"]",
            )
            .and_then(|setting| list(&setting, &mut doors, DoorConfig::read, |room| room.name.as_str()));
        let common = section.get("common").and_then(|setting| {
            let common = list(&setting, &mut doors, CommonConfig::read, |door| door.name.as_str())?;
            let mut numbers = BTreeSet::new();
            for door in &common {
                if !numbers.insert(door.authorisation) {
                    setting.wrong(
                        format!("two common doors have authorisation {}", door.authorisation),
                        "each door has its own number on the \"PMS Authorizations\" screen",
                    );
                }
            }
            Some(common)
        });
        let dialect = section.get("dialect").and_then(|setting| setting.one_of(&Dialect::NAMES));
        let dialect = dialect.unwrap_or_default();
        let hour_rounding = section.get("hour_rounding").and_then(|setting| {
            let rounding =
                setting.one_of(&[("inside", HourRounding::Inside), ("outside", HourRounding::Outside)])?;
            if rounding != HourRounding::default() && !dialect.has_hours_only() {
                setting.wrong(
                    "this dialect has minutes, nothing is rounded to hours",
                    "remove this setting, or set `dialect` to one of whole hours",
                );
            }
            Some(rounding)
        });
        let flag = |key| section.get(key).and_then(|setting| setting.flag());
        let ack_final = flag("ack_final");
        let wait_for_removal = section.get("wait_for_removal").and_then(|setting| {
            let waits = setting.flag()?;
            if waits && !dialect.has_eject() {
                setting.wrong(
                    "an Amadeus encoder cannot be told to wait until a card is taken away",
                    "remove this setting",
                );
            }
            Some(waits)
        });
        let lrc = section.get("lrc").and_then(|setting| {
            setting.one_of(&[("checked", LrcConfig::Checked), ("skip", LrcConfig::Skip)])
        });
        let operator = section.get("operator").and_then(|setting| {
            let text = setting.text()?;
            let most = dialect.operator_length();
            if text.chars().count() > most || !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
                let help = format!("at most {most} characters of plain ASCII");
                setting.wrong("the protocol has no room for this name", help);
            }
            Some(text.to_string())
        });
        let second = Duration::from_secs(1);
        let length = |key, bounds| section.get(key).and_then(|setting| setting.length(bounds));
        let ack_timeout = length("ack_timeout", second..=60 * second);
        let answer_margin = length("answer_margin", second..=300 * second);
        let settle = length("settle", second..=300 * second);
        Some(Self {
            line: line?,
            dialect,
            hour_rounding: hour_rounding.unwrap_or_default(),
            encoders: encoders?,
            rooms: rooms?,
            common: common.unwrap_or_default(),
            ack_final: ack_final.unwrap_or(true),
            lrc: lrc.unwrap_or(if dialect.is_old() { LrcConfig::Skip } else { LrcConfig::Checked }),
            operator: operator.unwrap_or_else(|| "LATCHD".into()),
            wait_for_removal: wait_for_removal.unwrap_or(true) && dialect.has_eject(),
            ack_timeout: ack_timeout.unwrap_or(5 * second),
            answer_margin: answer_margin.unwrap_or(15 * second),
            settle: settle.unwrap_or(30 * second),
        })
    }
}

/// ASSA ABLOY Visionline by its PMS text interface.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionlineConfig {
    /// How to reach it: TCP, usually port 4000, or a serial line, usually 9600 baud and `8E1`. Over TCP the server takes
    /// commands only from addresses that are entered in its PMS settings.
    pub line: LineConfig,
    /// Its encoders, by their PMS addresses.
    pub encoders: Vec<EncoderConfig>,
    /// Its guest rooms, by their names in Visionline: plain ASCII without semicolons and commas.
    pub rooms: Vec<DoorConfig>,
    /// Its common rooms, with their numbers.
    pub common: Vec<NumberedConfig>,
    /// The operator in whose name cards are made. Default none is named.
    pub operator: Option<String>,
    /// The user group of guests, where the site uses one. Default none is named.
    pub user_group: Option<String>,
    /// The card type, a number, where the site uses one. Default none is named.
    pub card_type: Option<u16>,
    /// On a serial line, how long the server may take for its acknowledgement. Default 3 s.
    pub ack_timeout: Duration,
    /// How much longer than the card wait the answer may take. Default 15 s.
    pub answer_margin: Duration,
    /// How long a serial line rests after an answer that did not come, so that it is never taken for the next one's; over
    /// TCP only the encoder rests, as it may still be at work. Default 30 s.
    pub settle: Duration,
    /// Its Web API, where the site has it. With it the server's doors are compared with `rooms`, and where others make
    /// cards too the server's own list of a room's cards is looked at before a card joins.
    pub web: Option<VisionlineWebConfig>,
}

/// Visionline's Web API.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionlineWebConfig {
    /// Where it is: `url`, and with `https` `pin` or `ca_file`. Its certificate is usually one that the server made itself.
    pub http: HttpConfig,
    /// The API user.
    pub user: String,
    /// File with this user's password alone, mode 0600. It is read anew for every session.
    pub password_file: PathBuf,
}

impl VisionlineWebConfig {
    fn read(section: &Section<'_>) -> Option<Self> {
        let http = HttpConfig::read(section, "where the Web API is, e.g. url = \"https://10.0.0.6\"");
        if http.as_ref().is_some_and(|http| http.url.path != "/") {
            section.wrong_key(
                "url",
                "the API's own paths follow the server's address",
                "write the address alone, e.g. \"https://10.0.0.6\"",
            );
        }
        let user = section.must("user", "the API user").and_then(|setting| setting.text());
        let password_file = section
            .must("password_file", "file with the API user's password, mode 0600")
            .and_then(|setting| setting.path());
        Some(Self { http: http?, user: user?.to_owned(), password_file: password_file? })
    }
}

impl VisionlineConfig {
    fn read(section: &Section<'_>) -> Option<Self> {
        let line = section
            .must(
                "line",
                "how to reach the system: line = { tcp = \"HOST:4000\" } or { serial = \"/dev/…\" }",
            )
            .and_then(|setting| LineConfig::read(&setting.section()?, 9600, "8E1", false));
        let encoders = section
            .must("encoders", "the PMS addresses of its encoders, e.g. encoders = [\"1\"]")
            .and_then(|setting| {
                let encoders = list(&setting, &mut BTreeSet::new(), EncoderConfig::read, |encoder| {
                    encoder.name.as_str()
                })?;
                if encoders.is_empty() {
                    setting.wrong("the list is empty", "without an encoder no card can be made");
                }
                Some(encoders)
            });
        let mut doors = BTreeSet::new();
        let rooms = section
            .must("rooms", "the names of its guest rooms as Visionline spells them, e.g. rooms = [\"101\"]")
            .and_then(|setting| list(&setting, &mut doors, DoorConfig::read, |room| room.name.as_str()));
        let common = section.get("common").and_then(|setting| {
            let common = list(&setting, &mut doors, NumberedConfig::read, |door| door.name.as_str())?;
            let mut numbers = BTreeSet::new();
            for door in &common {
                if !numbers.insert(door.number) {
                    setting.wrong(
                        format!("two common rooms have number {}", door.number),
                        "each has its own number in Visionline",
                    );
                }
            }
            Some(common)
        });
        let sayable = |key| {
            section.get(key).and_then(|setting| {
                let text = setting.text()?;
                if text.is_empty()
                    || text.contains(';')
                    || !text.chars().all(|c| c == ' ' || c.is_ascii_graphic())
                {
                    setting.wrong(
                        "the interface cannot say this name",
                        "plain ASCII without semicolons is possible",
                    );
                }
                Some(text.to_string())
            })
        };
        let operator = sayable("operator");
        let user_group = sayable("user_group");
        let card_type = section.get("card_type").and_then(|setting| setting.number(0..=9999));
        let second = Duration::from_secs(1);
        let length = |key, bounds| section.get(key).and_then(|setting| setting.length(bounds));
        let ack_timeout = length("ack_timeout", second..=60 * second);
        let answer_margin = length("answer_margin", second..=300 * second);
        let settle = length("settle", second..=300 * second);
        let web = section.get("web").map(|setting| VisionlineWebConfig::read(&setting.section()?));
        let web = match web {
            // One that is none was told; it must not become "no Web API".
            Some(web) => Some(web?),
            None => None,
        };
        Some(Self {
            line: line?,
            encoders: encoders?,
            rooms: rooms?,
            common: common.unwrap_or_default(),
            web,
            operator,
            user_group,
            card_type,
            ack_timeout: ack_timeout.unwrap_or(3 * second),
            answer_margin: answer_margin.unwrap_or(15 * second),
            settle: settle.unwrap_or(30 * second),
        })
    }
}

/// The keypad locks of `latchd sim lock`.
#[derive(Debug, Clone, PartialEq)]
pub struct SimLockConfig {
    /// Its locks.
    pub locks: Vec<LockConfig>,
    /// How long before its window an entry is put into a lock, which keeps the window by itself; it is removed when the
    /// window ends. A code is given out once it was read back, so longer means that guests have theirs earlier, and that a
    /// lock which cannot be reached for a while costs nobody access. Default 72 h, at most 30 days.
    pub lead: Duration,
    /// How long a lock may take for each answer. Default 5 s.
    pub answer_timeout: Duration,
    /// How often each lock is asked what happened at its door, which the cloud's clients then see as events: at least
    /// 1 s, at most one day. Default never.
    pub read_events_every: Option<Duration>,
}

impl SimLockConfig {
    fn read(section: &Section<'_>) -> Option<Self> {
        let locks = section
            .must("locks", "its locks, e.g. locks = [{ name = \"101\", address = \"10.0.0.7:4800\" }]")
            .and_then(|setting| {
                let locks =
                    list(&setting, &mut BTreeSet::new(), LockConfig::read, |lock| lock.name.as_str())?;
                if locks.is_empty() {
                    setting.wrong("the list is empty", "a system without a lock can do nothing");
                }
                let mut addresses = BTreeSet::new();
                for lock in &locks {
                    if !addresses.insert(&lock.address) {
                        setting.wrong(
                            format!("two locks have the address {}", lock.address),
                            "each lock has its own address",
                        );
                    }
                }
                Some(locks)
            });
        let second = Duration::from_secs(1);
        let length = |key, bounds| section.get(key).and_then(|setting| setting.length(bounds));
        let lead = length("lead", Duration::ZERO..=30 * 24 * 3600 * second);
        let answer_timeout = length("answer_timeout", second..=60 * second);
        let read_events_every = length("read_events_every", second..=24 * 3600 * second);
        Some(Self {
            locks: locks?,
            lead: lead.unwrap_or(72 * 3600 * second),
            answer_timeout: answer_timeout.unwrap_or(5 * second),
            read_events_every,
        })
    }
}

/// One keypad lock.
#[derive(Debug, Clone, PartialEq)]
pub struct LockConfig {
    /// The site's name for it; half of its local id. Never change it.
    pub name: DeviceName,
    /// What people call it.
    pub display_name: Option<String>,
    /// `HOST:PORT`.
    pub address: String,
    /// IANA zone of the lock's local time, where it is not the property's.
    pub time_zone: Option<String>,
    /// How many digits a PIN of this lock may have, from 4 to 8. Default 4 to 8.
    pub pin_lengths: Vec<u8>,
    /// What this lock refuses beside that, e.g. `no_zeros`. Default nothing.
    pub pin_constraints: Vec<PinConstraint>,
    /// As what the cloud's clients see it. Default `august_lock`, as the locks of a sandbox are.
    pub device_type: String,
}

impl LockConfig {
    /// A lock with nothing said but its name and its address.
    #[must_use]
    pub fn new(name: DeviceName, address: String) -> Self {
        Self {
            name,
            display_name: None,
            address,
            time_zone: None,
            pin_lengths: (4..=8).collect(),
            pin_constraints: Vec::new(),
            device_type: "august_lock".into(),
        }
    }

    fn read(setting: &Setting<'_>) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let address = section
            .must("address", "where the lock is reached, e.g. \"10.0.0.7:4800\"")
            .and_then(|setting| host_and_port(&setting));
        let time_zone = section.get("time_zone").map(|setting| zone(&setting));
        let pin_lengths = pin_lengths(&section, 4..=8);
        let pin_constraints = pin_constraints(&section);
        let device_type = section.get("device_type").and_then(|setting| setting.text().map(String::from));
        let plain = Self::new(name?, address?);
        Some(Self {
            display_name,
            pin_lengths: pin_lengths.unwrap_or(plain.pin_lengths),
            pin_constraints: pin_constraints.unwrap_or_default(),
            device_type: device_type.unwrap_or(plain.device_type),
            // A zone that is none was told; it must not become the property's.
            time_zone: match time_zone {
                Some(zone) => Some(zone?),
                None => None,
            },
            name: plain.name,
            address: plain.address,
        })
    }
}

/// What stands behind ETX in our frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LrcConfig {
    /// `checked`: the checksum.
    #[default]
    Checked,
    /// `skip`: `0D`, which tells the other side not to check.
    Skip,
}

/// How to reach a system: exactly one of `tcp` and `serial`.
#[derive(Debug, Clone, PartialEq)]
pub struct LineConfig {
    /// `HOST:PORT`.
    pub tcp: Option<String>,
    /// Path of a serial port; use a `/dev/serial/by-id/…` link, it survives replugging.
    pub serial: Option<PathBuf>,
    /// Speed of the serial port. Default 9600; 115200 for `card_reader`.
    pub baud: u32,
    /// Data bits, parity and stop bits. Default `8N1`; `8E1` for `visionline`.
    pub framing: String,
    /// Whether the serial port uses RTS/CTS. Default yes for `salto_is`, as SALTO's own default is; no for the others.
    pub hardware_handshake: bool,
}

impl fmt::Display for LineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tcp, &self.serial) {
            (Some(address), _) => f.write_str(address),
            (None, Some(path)) => path.display().fmt(f),
            (None, None) => f.write_str("none"),
        }
    }
}

impl LineConfig {
    /// The last three are what a serial line has where nothing is said.
    fn read(
        section: &Section<'_>,
        usual_baud: u32,
        usual_framing: &str,
        usual_handshake: bool,
    ) -> Option<Self> {
        let (tcp_set, serial_set) = (section.get("tcp"), section.get("serial"));
        match (&tcp_set, &serial_set) {
            (Some(_), Some(serial)) => {
                serial.wrong("a line is either `tcp` or `serial`", "remove one of the two");
            }
            (None, None) => {
                section.wrong_key(
                    "tcp",
                    "neither `tcp` nor `serial` is set",
                    "write tcp = \"HOST:PORT\", or serial = \"/dev/serial/by-id/…\"",
                );
                return None;
            }
            _ => {}
        }
        let tcp = tcp_set.as_ref().and_then(host_and_port);
        let serial = serial_set.as_ref().and_then(Setting::path);
        let of_serial = |key| {
            let setting = section.get(key)?;
            if serial_set.is_none() {
                setting.wrong("a TCP line has no such setting", "it belongs to `serial`: remove it");
            }
            Some(setting)
        };
        let baud = of_serial("baud").and_then(|setting| setting.number(300..=921_600));
        let framing = of_serial("framing").and_then(|setting| framing(&setting));
        let hardware_handshake = of_serial("hardware_handshake").and_then(|setting| setting.flag());
        if tcp.is_none() && serial.is_none() {
            return None;
        }
        Some(Self {
            tcp,
            serial,
            baud: baud.unwrap_or(usual_baud),
            framing: framing.unwrap_or_else(|| usual_framing.into()),
            hardware_handshake: hardware_handshake.unwrap_or(usual_handshake),
        })
    }
}

fn host_and_port(setting: &Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    let usable = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let plain =
            !host.is_empty() && !host.contains(['[', ']', ':', '/']) && !host.contains(char::is_whitespace);
        (bracketed || plain) && port.parse().is_ok_and(|port: u16| port > 0)
    });
    if usable {
        return Some(text.into());
    }
    setting.wrong(
        format!("{text:?} is not HOST:PORT"),
        "write its name or address and its port, e.g. \"10.0.0.5:9090\"",
    );
    None
}

fn framing(setting: &Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    if let [b'7' | b'8', b'N' | b'E' | b'O', b'1' | b'2'] = text.as_bytes() {
        return Some(text.into());
    }
    setting.wrong(
        format!("{text:?} is not a framing"),
        "write data bits (7 or 8), parity (N, E or O) and stop bits (1 or 2), e.g. \"8N1\" or \"7E1\"",
    );
    None
}

/// An encoder: a name, or `{ name, display_name }`.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Its name in the system.
    pub name: EncoderName,
    /// What people call it.
    pub display_name: Option<String>,
}

impl EncoderConfig {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let (name, display_name) = named(setting)?;
        Some(Self { name, display_name })
    }
}

/// A door: a name, or `{ name, display_name }`.
#[derive(Debug, Clone, PartialEq)]
pub struct DoorConfig {
    /// Its name in the system.
    pub name: DoorName,
    /// What people call it.
    pub display_name: Option<String>,
}

impl DoorConfig {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let (name, display_name) = named(setting)?;
        Some(Self { name, display_name })
    }
}

/// A common door.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonConfig {
    /// What the site calls it; also its local id.
    pub name: DoorName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its number on the "PMS Authorizations" screen, 1 to 62.
    pub authorisation: u8,
}

impl CommonConfig {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let authorisation = section
            .must("authorisation", "the door's number on the \"PMS Authorizations\" screen, 1 to 62")
            .and_then(|setting| setting.number(1..=62));
        Some(Self { name: name?, display_name, authorisation: authorisation? })
    }
}

/// A common room of Visionline.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberedConfig {
    /// What the site calls it; also its local id.
    pub name: DoorName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its number in Visionline.
    pub number: u16,
}

impl NumberedConfig {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let number = section
            .must("number", "the common room's number in Visionline")
            .and_then(|setting| setting.number(1..=9999));
        Some(Self { name: name?, display_name, number: number? })
    }
}

/// A plain name, or a table with more about it.
fn named<N>(setting: &Setting<'_>) -> Option<(N, Option<String>)>
where
    N: FromStr<Err: fmt::Display>,
{
    if !setting.is_table() {
        return Some((setting.parsed()?, None));
    }
    let (name, display_name) = names(&setting.section()?);
    Some((name?, display_name))
}

fn names<N>(section: &Section<'_>) -> (Option<N>, Option<String>)
where
    N: FromStr<Err: fmt::Display>,
{
    let name = section.must("name", "its name, exactly as the access system spells it");
    let display_name = section.get("display_name");
    (
        name.and_then(|setting| setting.parsed()),
        display_name.and_then(|setting| setting.text().map(Into::into)),
    )
}

/// Why nothing on the property can drive a make of lock, and what can be done.
fn impossible(make: &str) -> Option<(&'static str, &'static str)> {
    match make {
        "schlage" | "schlage_encode" | "schlage_sense" => Some((
            "these locks take orders from the maker's cloud alone: what they speak by Bluetooth is signed with keys that \
             never leave it",
            "use them through the maker's cloud, or a model with Z-Wave or Matter once latchd speaks those",
        )),
        _ => None,
    }
}

fn pin_lengths(section: &Section<'_>, possible: RangeInclusive<u8>) -> Option<Vec<u8>> {
    let setting = section.get("pin_lengths")?;
    let items = setting.items()?;
    if items.is_empty() {
        setting.wrong(
            "no length is listed",
            format!(
                "list lengths from {} to {}, e.g. [4, 6], or remove the setting",
                possible.start(),
                possible.end()
            ),
        );
    }
    items.iter().map(|item| item.number(possible.clone())).collect()
}

fn pin_constraints(section: &Section<'_>) -> Option<Vec<PinConstraint>> {
    let setting = section.get("pin_constraints")?;
    let told = [PinConstraint::ComputedByMaker, PinConstraint::Other];
    let known = PinConstraint::ALL.into_iter().filter(|one| !told.contains(one));
    let known: Vec<_> = known.map(|one| (one.as_str(), one)).collect();
    setting.items()?.iter().map(|item| item.one_of(&known)).collect()
}

/// The items of a list, each judged even where an earlier one is wrong; `None` where any is. `seen` holds the names
/// that are taken.
fn list<T>(
    setting: &Setting<'_>,
    seen: &mut BTreeSet<String>,
    read: impl Fn(&Setting<'_>) -> Option<T>,
    name: impl Fn(&T) -> &str,
) -> Option<Vec<T>> {
    let items: Vec<_> = setting
        .items()?
        .iter()
        .map(|item| {
            let read = read(item)?;
            if !seen.insert(name(&read).into()) {
                item.wrong(
                    format!("{:?} is listed twice", name(&read)),
                    "remove one of the two, or give it its own name",
                );
            }
            Some(read)
        })
        .collect();
    items.into_iter().collect()
}
