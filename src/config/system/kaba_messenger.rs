//! `kaba_messenger`: dormakaba's hotel systems by the Messenger PMS web service.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{DoorConfig, list, names};
use crate::{
    config::{
        HttpConfig,
        section::{Section, Setting},
    },
    model::{DoorName, EncoderName},
};

/// dormakaba's hotel systems by the Messenger PMS web service.
#[derive(Debug, Clone, PartialEq)]
pub struct KabaMessengerConfig {
    /// Which of them.
    pub product: KabaProduct,
    /// Where the service is: `url`, and with `https` `pin` or `ca_file`.
    pub http: HttpConfig,
    /// The PMS user.
    pub user: String,
    /// File with this user's password alone, mode 0600. It is read anew for every request.
    pub password_file: PathBuf,
    /// The site's name in the system. Default `MAIN`.
    pub site_name: String,
    /// Its encoders, by their registered numbers, each with its PMS terminal.
    pub encoders: Vec<TerminalConfig>,
    /// The PMS terminal of what needs no encoder: the change and the end of a stay. Default that of the first encoder,
    /// behind whose cards they then wait.
    pub terminal: Option<String>,
    /// Its guest rooms, by their names in the system.
    pub rooms: Vec<DoorConfig>,
    /// Its common areas, with their pass levels.
    pub common: Vec<PassLevelConfig>,
    /// What stands before the names of our stays in the system, which keeps them apart from those of another program.
    /// Default nothing.
    pub reservation_prefix: String,
    /// Whose stay a check-out ends. Default the whole room's where latchd alone makes cards, otherwise the first guest's.
    pub checkout_of: CheckoutOf,
    /// How much longer than the card wait the answer may take. Default 30 s.
    pub answer_margin: Duration,
    /// With `product = "community"`: ask whether the service is there, and do nothing else.
    pub probe_only: bool,
}

/// Which of dormakaba's hotel systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KabaProduct {
    /// `saflok`: System 6000 with Messenger LENS.
    Saflok,
    /// `ambiance`: Ambiance, with its switch for the SOAP interface on.
    Ambiance,
    /// `community`: Community, of whose interface nothing is public.
    Community,
}

/// Whose stay a check-out ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckoutOf {
    /// `first_guest`: that of the first card and its duplicates. Whoever joined keeps his own until its end.
    FirstGuest,
    /// `room`: that of everybody in the room.
    Room,
}

/// What there is to say of Community.
pub const COMMUNITY: &str = "dormakaba publishes no interface of Community, and latchd cannot make cards on it: its interface document is needed";

impl KabaMessengerConfig {
    pub(super) fn read(section: &Section<'_>, exclusive: bool) -> Option<Self> {
        let product = section
            .must("product", "which system: \"saflok\" (System 6000 with Messenger LENS) or \"ambiance\"")
            .and_then(|setting| product(section, &setting));
        let probe_only = section.get("probe_only").and_then(|setting| {
            let probe_only = setting.flag()?;
            if probe_only && product.is_some_and(|product| product != KabaProduct::Community) {
                setting.wrong("this is for Community alone", "remove this setting");
            }
            Some(probe_only)
        });
        let http = HttpConfig::read(
            section,
            "where the service is, e.g. url = \"http://10.0.0.7/lenspmswebservice/MessengerPMSService.asmx\"",
        );
        let text = |setting: &Setting<'_>| sayable(setting);
        let user = section.must("user", "the PMS user").and_then(|setting| text(&setting));
        let password_file = section
            .must("password_file", "file with the PMS user's password, mode 0600")
            .and_then(|setting| setting.path());
        let site_name = section.get("site_name").and_then(|setting| text(&setting));
        let mut terminals = BTreeSet::new();
        let encoders = section
            .must("encoders", "the registered numbers of its encoders, e.g. encoders = [\"1\"]")
            .and_then(|setting| encoders(&setting, &mut terminals));
        let terminal = section.get("terminal").and_then(|setting| {
            let terminal = text(&setting)?;
            own(&setting, &mut terminals, &terminal);
            Some(terminal)
        });
        let mut doors = BTreeSet::new();
        let rooms = section
            .must("rooms", "the names of its guest rooms as the system spells them, e.g. rooms = [\"101\"]")
            .and_then(|setting| list(&setting, &mut doors, DoorConfig::read, |room| room.name.as_str()));
        let common = section.get("common").and_then(|setting| common(&setting, &mut doors));
        let reservation_prefix = section.get("reservation_prefix").and_then(|setting| text(&setting));
        let checkout_of = section.get("checkout_of").and_then(|setting| {
            let of =
                setting.one_of(&[("first_guest", CheckoutOf::FirstGuest), ("room", CheckoutOf::Room)])?;
            if of == CheckoutOf::Room && !exclusive {
                setting.wrong(
                    "this would end the stays of guests that other programs made cards for",
                    "say checkout_of = \"first_guest\", or `exclusive = true` where latchd alone makes cards",
                );
            }
            Some(of)
        });
        let second = Duration::from_secs(1);
        let answer_margin =
            section.get("answer_margin").and_then(|setting| setting.length(second..=300 * second));
        Some(Self {
            product: product?,
            http: http?,
            user: user?,
            password_file: password_file?,
            site_name: site_name.unwrap_or_else(|| "MAIN".into()),
            encoders: encoders?,
            terminal,
            rooms: rooms?,
            common: common.unwrap_or_default(),
            reservation_prefix: reservation_prefix.unwrap_or_default(),
            checkout_of: checkout_of.unwrap_or(match exclusive {
                true => CheckoutOf::Room,
                false => CheckoutOf::FirstGuest,
            }),
            answer_margin: answer_margin.unwrap_or(30 * second),
            probe_only: probe_only.unwrap_or_default(),
        })
    }
}

fn product(section: &Section<'_>, setting: &Setting<'_>) -> Option<KabaProduct> {
    let product = setting.one_of(&[
        ("saflok", KabaProduct::Saflok),
        ("ambiance", KabaProduct::Ambiance),
        ("community", KabaProduct::Community),
    ])?;
    if product == KabaProduct::Community && !section.has("probe_only") {
        setting.wrong(
            COMMUNITY,
            "ask dormakaba for it; with `probe_only = true` latchd asks the server whether it serves Messenger's service, \
             and does nothing else",
        );
    }
    Some(product)
}

fn encoders(setting: &Setting<'_>, terminals: &mut BTreeSet<String>) -> Option<Vec<TerminalConfig>> {
    let encoders =
        list(setting, &mut BTreeSet::new(), TerminalConfig::read, |encoder| encoder.name.as_str())?;
    if encoders.is_empty() {
        setting.wrong("the list is empty", "without an encoder no card can be made");
    }
    for encoder in &encoders {
        own(setting, terminals, &encoder.terminal);
    }
    Some(encoders)
}

/// A terminal has one command open at a time, so no two lanes share one.
fn own(setting: &Setting<'_>, terminals: &mut BTreeSet<String>, terminal: &str) {
    if !terminals.insert(terminal.to_owned()) {
        setting.wrong(
            format!("terminal {terminal:?} is used twice"),
            "each encoder has a PMS terminal of its own",
        );
    }
}

fn common(setting: &Setting<'_>, doors: &mut BTreeSet<String>) -> Option<Vec<PassLevelConfig>> {
    let common = list(setting, doors, PassLevelConfig::read, |door| door.name.as_str())?;
    let mut levels = BTreeSet::new();
    for door in &common {
        if !levels.insert(door.pass_level) {
            setting.wrong(
                format!("two common areas have pass level {}", door.pass_level),
                "each has its own number in the system",
            );
        }
    }
    Some(common)
}

fn sayable(setting: &Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    if text.trim() != text || text.chars().any(char::is_control) {
        setting.wrong(
            "the service would not read this as it is",
            "write it without control signs and blanks around it",
        );
    }
    Some(text.to_owned())
}

/// An encoder: its number, or `{ name, display_name, terminal }`.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminalConfig {
    /// Its registered number.
    pub name: EncoderName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its PMS terminal. Default its number.
    pub terminal: String,
}

impl TerminalConfig {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let (name, display_name, terminal) = match setting.is_table() {
            false => (setting.parsed(), None, None),
            true => {
                let section = setting.section()?;
                let (name, display_name) = names::<EncoderName>(&section);
                let terminal = section.get("terminal").and_then(|setting| sayable(&setting));
                (name, display_name, terminal)
            }
        };
        let name = name?;
        Some(Self { terminal: terminal.unwrap_or_else(|| name.as_str().to_owned()), name, display_name })
    }
}

/// A common area.
#[derive(Debug, Clone, PartialEq)]
pub struct PassLevelConfig {
    /// What the site calls it; also its local id.
    pub name: DoorName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its number in the system.
    pub pass_level: u16,
}

impl PassLevelConfig {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let pass_level = section
            .must("pass_level", "the common area's number in the system (PassLevelNo)")
            .and_then(|setting| setting.number(1..=9999));
        Some(Self { name: name?, display_name, pass_level: pass_level? })
    }
}
