//! UHPPOTE door controllers.

use std::{collections::BTreeSet, net::SocketAddrV4, time::Duration};

use super::{Section, Setting, list, names, pin_lengths};
use crate::model::DeviceName;

/// Boards on the property's network, each with up to four doors.
#[derive(Debug, Clone, PartialEq)]
pub struct UhppoteConfig {
    /// The boards.
    pub boards: Vec<BoardConfig>,
    /// Where boards without an address are asked for: everybody. Default `255.255.255.255:60000`.
    pub broadcast: SocketAddrV4,
    /// Where boards are to send what happens at once: this machine's own address, and a free port. Without it their logs are
    /// read all the same, as often as `read_events_every` says.
    pub listener: Option<SocketAddrV4>,
    /// Numbers of time profiles, the first and the last, that are latchd's alone on every board. Default 2 to 254.
    pub profiles: (u8, u8),
    /// What a reader makes of a chip's number.
    pub card_numbers: CardNumbers,
    /// How long before its window a card is put into a board, which keeps the window by itself. Default 1 h, at most 30 days.
    pub lead: Duration,
    /// How long a board may take for each answer: 100 ms to 60 s. Default 2.5 s.
    pub answer_timeout: Duration,
    /// How often each board's log is read: 1 s to one day. Default 1 min.
    pub read_events_every: Duration,
}

/// What a reader makes of a chip's number, and the board takes for the card's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardNumbers {
    /// `wiegand_34`: the first four bytes, the first one highest.
    #[default]
    Wiegand34,
    /// `wiegand_34_reversed`: the first four bytes, the first one lowest.
    Wiegand34Reversed,
    /// `wiegand_26`: the first three bytes, as facility (0 to 255) and number (0 to 65535): 100000 times the one and the other.
    Wiegand26,
    /// `wiegand_26_reversed`: the same of the first three bytes, the first one lowest.
    Wiegand26Reversed,
}

/// One board.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardConfig {
    /// Its serial number, as it is printed on it.
    pub serial: u32,
    /// Its address and port. Without one it is asked for by broadcast.
    pub address: Option<SocketAddrV4>,
    /// Whether it is spoken to by TCP. Default by UDP.
    pub is_tcp: bool,
    /// Its doors.
    pub doors: Vec<BoardDoor>,
}

/// One door of a board.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardDoor {
    /// The site's name for it; half of its local id. Never change it.
    pub name: DeviceName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Which of the board's doors, 1 to 4.
    pub door: u8,
    /// Whether its reader has keys at which a number may be typed instead of a card: then it takes PINs. Default no.
    pub keypad: bool,
    /// How many digits a PIN may have, 4 to 8. Default 6 to 8.
    pub pin_lengths: Vec<u8>,
}

impl CardNumbers {
    const NAMES: [(&'static str, Self); 4] = [
        ("wiegand_34", Self::Wiegand34),
        ("wiegand_34_reversed", Self::Wiegand34Reversed),
        ("wiegand_26", Self::Wiegand26),
        ("wiegand_26_reversed", Self::Wiegand26Reversed),
    ];
}

impl UhppoteConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let mut doors = BTreeSet::new();
        let boards = section
            .must(
                "boards",
                "its boards, e.g. boards = [{ serial = 405419896, address = \"10.0.0.7:60000\", \
                 doors = [{ name = \"front\", door = 1 }] }]",
            )
            .and_then(|setting| {
                let items = setting.items()?;
                let boards: Vec<_> = items.iter().map(|item| BoardConfig::read(item, &mut doors)).collect();
                let boards = boards.into_iter().collect::<Option<Vec<_>>>()?;
                if boards.is_empty() {
                    setting.wrong("the list is empty", "a system without a board can do nothing");
                }
                let (mut serials, mut addresses) = (BTreeSet::new(), BTreeSet::new());
                for board in &boards {
                    if !serials.insert(board.serial) {
                        let problem = format!("two boards have the serial number {}", board.serial);
                        setting.wrong(problem, "list a board once, with all its doors");
                    }
                    if let Some(address) = board.address.filter(|address| !addresses.insert(*address)) {
                        let problem = format!("two boards have the address {address}");
                        setting.wrong(problem, "each board has its own address");
                    }
                }
                Some(boards)
            });
        let broadcast = section.get("broadcast").map(|setting| address(&setting));
        let listener = section.get("listener").map(|setting| {
            let listener = address(&setting)?;
            if listener.ip().is_unspecified() || listener.port() == 60000 {
                setting.wrong(
                    format!("{listener} is not where a board can reach latchd"),
                    "write this machine's own address and a port other than the boards' 60000, e.g. \"10.0.0.2:60001\"",
                );
                return None;
            }
            Some(listener)
        });
        let profiles = section.get("profiles").map(|setting| {
            let items = setting.items()?;
            let [first, last] = items.as_slice() else {
                setting.wrong("it is not two numbers", "the first and the last: profiles = [2, 254]");
                return None;
            };
            let (first, last) = (first.number(2..=254_u8)?, last.number(2..=254_u8)?);
            if last < first {
                setting.wrong(
                    format!("{last} comes before {first}"),
                    "the first and the last: profiles = [2, 254]",
                );
                return None;
            }
            Some((first, last))
        });
        let card_numbers =
            section.get("card_numbers").and_then(|setting| setting.one_of(&CardNumbers::NAMES));
        let second = Duration::from_secs(1);
        let length = |key, bounds| section.get(key).and_then(|setting| setting.length(bounds));
        let lead = length("lead", Duration::ZERO..=30 * 24 * 3600 * second);
        let answer_timeout = length("answer_timeout", second / 10..=60 * second);
        let read_events_every = length("read_events_every", second..=24 * 3600 * second);
        // What was told and is wrong must not become what is usual.
        Some(Self {
            boards: boards?,
            broadcast: broadcast.unwrap_or(Some(SocketAddrV4::new([255; 4].into(), 60000)))?,
            listener: listener.map_or(Some(None), |listener| listener.map(Some))?,
            profiles: profiles.unwrap_or(Some((2, 254)))?,
            card_numbers: card_numbers.unwrap_or_default(),
            lead: lead.unwrap_or(3600 * second),
            answer_timeout: answer_timeout.unwrap_or(second * 5 / 2),
            read_events_every: read_events_every.unwrap_or(60 * second),
        })
    }

    /// How many doors the boards have together.
    #[must_use]
    pub fn door_count(&self) -> usize {
        self.boards.iter().map(|board| board.doors.len()).sum()
    }
}

impl BoardConfig {
    /// `names` holds the doors' names that are taken.
    fn read(setting: &Setting<'_>, names: &mut BTreeSet<String>) -> Option<Self> {
        let section = setting.section()?;
        let serial = section
            .must("serial", "its serial number, as it is printed on it")
            .and_then(|setting| setting.number(1..=u32::MAX));
        let at = section.get("address").map(|setting| address(&setting));
        let is_tcp = section
            .get("protocol")
            .and_then(|setting| setting.one_of(&[("udp", false), ("tcp", true)]).map(|tcp| (setting, tcp)));
        let is_tcp = is_tcp.is_some_and(|(setting, is_tcp)| {
            if is_tcp && at.is_none() {
                setting
                    .wrong("a board without an address is asked for by datagrams", "write its `address` too");
            }
            is_tcp
        });
        let doors = section
            .must("doors", "its doors, e.g. doors = [{ name = \"front\", door = 1 }]")
            .and_then(|setting| {
                let doors = list(&setting, names, BoardDoor::read, |door| door.name.as_str())?;
                let mut seen = BTreeSet::new();
                for door in &doors {
                    if !seen.insert(door.door) {
                        setting.wrong(format!("door {} is listed twice", door.door), "name each door once");
                    }
                }
                if doors.is_empty() {
                    setting.wrong("the list is empty", "a board without a door opens nothing");
                }
                Some(doors)
            });
        Some(Self {
            serial: serial?,
            address: at.map_or(Some(None), |address| address.map(Some))?,
            is_tcp,
            doors: doors?,
        })
    }
}

impl BoardDoor {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let door = section
            .must("door", "which of the board's doors, 1 to 4")
            .and_then(|setting| setting.number(1..=4_u8));
        let keypad = section.get("keypad").and_then(|setting| setting.flag()).unwrap_or_default();
        let lengths = pin_lengths(&section, 4..=8);
        if !keypad && let Some(setting) = section.get("pin_lengths") {
            setting.wrong("without keys there are no PINs", "say `keypad = true`, or remove this setting");
        }
        Some(Self {
            name: name?,
            display_name,
            door: door?,
            keypad,
            pin_lengths: lengths.unwrap_or_else(|| (6..=8).collect()),
        })
    }
}

fn address(setting: &Setting<'_>) -> Option<SocketAddrV4> {
    let text = setting.text()?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            setting.wrong(
                format!("{text:?} is no IPv4 address with a port"),
                "write e.g. \"10.0.0.7:60000\": a board has no name",
            );
            None
        }
    }
}
