//! Commands as they are published, checked item by item, and answers.

use jiff::civil::DateTime;

/// The order in which a known client says its items.
const ORDER: [&str; 20] = [
    "JR", "AM", "EA", "TA", "GR", "CI", "CO", "NC", "CR", "UG", "IO", "OP", "OF", "OS", "UI", "UF", "US",
    "CT", "SR", "T2",
];
/// The longest command line.
pub(super) const LONGEST: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Make(Make),
    Read { encoder: String, serial_wanted: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Make {
    pub joins: bool,
    pub encoder: String,
    pub room: String,
    pub start: Option<DateTime>,
    pub end: DateTime,
    pub common: Vec<u16>,
    pub operator: String,
    pub serial_wanted: bool,
}

impl Command {
    pub(super) fn encoder(&self) -> &str {
        match self {
            Self::Make(make) => &make.encoder,
            Self::Read { encoder, .. } => encoder,
        }
    }
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Syntax(pub String);

/// A line without its end. What it begins with is for the answer, whatever follows.
pub(super) fn parse(line: &[u8]) -> Result<Command, Syntax> {
    let wrong = |why: &str| Syntax(why.to_owned());
    if !line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(wrong("a sign that is not plain ASCII"));
    }
    let text: String = line.iter().copied().map(char::from).collect();
    let body = text.strip_suffix(';').ok_or_else(|| wrong("the last item has no end"))?;
    let mut items = body.split(';');
    let name = items.next().unwrap_or_default();
    let mut values = std::collections::BTreeMap::new();
    let mut last = 0;
    for item in items {
        let (field, value) = item.split_at_checked(2).ok_or_else(|| wrong("an item without a name"))?;
        let place = ORDER.iter().position(|known| *known == field);
        let place = place.ok_or_else(|| Syntax(format!("no item is called {field}")))? + 1;
        if place <= last {
            return Err(Syntax(format!("{field} out of its place, or twice")));
        }
        if value.is_empty() {
            return Err(Syntax(format!("{field} without a value")));
        }
        last = place;
        values.insert(field.to_owned(), value.to_owned());
    }
    let mut take = |field: &str| values.remove(field);
    if take("AM").as_deref() != Some("1") {
        return Err(wrong("only AM1 is known"));
    }
    let encoder = take("EA").ok_or_else(|| wrong("no encoder"))?;
    let serial_wanted = match take("SR").as_deref() {
        None => false,
        Some("?") => true,
        Some(_) => return Err(wrong("SR can only be asked for")),
    };
    match name {
        "CCB" if values.is_empty() => Ok(Command::Read { encoder, serial_wanted }),
        "CCB" => Err(wrong("a reading takes no more items")),
        "CCA" => {
            let mut take = |field: &str| values.remove(field);
            let joins = match take("JR").as_deref() {
                None => false,
                Some("1") => true,
                Some(_) => return Err(wrong("only JR1 is known")),
            };
            if take("NC").as_deref() != Some("01") {
                return Err(wrong("only one card a command is imitated"));
            }
            let start = take("CI").map(|text| minutes(&text)).transpose()?;
            let end = take("CO").ok_or_else(|| wrong("no end"))?;
            let common = take("CR").map_or_else(|| Ok(Vec::new()), |text| numbers(&text))?;
            Ok(Command::Make(Make {
                joins,
                encoder,
                room: take("GR").ok_or_else(|| wrong("no room"))?,
                start,
                end: minutes(&end)?,
                common,
                operator: take("IO").unwrap_or_default(),
                serial_wanted,
            }))
        }
        _ => Err(wrong("no command is called so")),
    }
}

fn minutes(text: &str) -> Result<DateTime, Syntax> {
    let wrong = || Syntax(format!("{text} is no time"));
    if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i8>().map_err(|_| wrong());
    let year = text[..4].parse::<i16>().map_err(|_| wrong())?;
    DateTime::new(year, number(4, 6)?, number(6, 8)?, number(8, 10)?, number(10, 12)?, 0, 0)
        .map_err(|_| wrong())
}

fn numbers(text: &str) -> Result<Vec<u16>, Syntax> {
    let number = |text: &str| text.parse().map_err(|_| Syntax(format!("{text} is no common room")));
    text.split(',').map(number).collect()
}

pub(super) fn written(at: DateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!("{:04}{:02}{:02}{:02}{:02}", date.year(), date.month(), date.day(), time.hour(), time.minute())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(line: &str, why: &str) {
        assert_eq!(parse(line.as_bytes()).unwrap_err().0, why, "{line}");
    }

    #[test]
    fn a_full_card_is_read_item_by_item() {
        let line = b"CCA;JR1;AM1;EA1;GR101;CI202611211500;CO202611241100;NC01;CR1,2;UGx;IOBRIDGE;UI8;SR?;";
        let Ok(Command::Make(make)) = parse(line) else { panic!("not read") };
        assert_eq!((make.joins, make.room.as_str(), make.common), (true, "101", vec![1, 2]));
        assert_eq!(make.start, Some(jiff::civil::date(2026, 11, 21).at(15, 0, 0, 0)));
        assert_eq!(written(make.end), "202611241100");
        let read = Command::Read { encoder: "7".into(), serial_wanted: false };
        assert_eq!(parse(b"CCB;AM1;EA7;"), Ok(read));
    }

    #[test]
    fn every_part_that_is_not_as_published_is_refused_with_a_reason() {
        refused("CCA;AM1;EA1;GR101;CO202611241100;NC01", "the last item has no end");
        refused("CCA;EA1;AM1;GR101;CO202611241100;NC01;", "AM out of its place, or twice");
        refused("CCA;AM1;EA1;GR101;GR102;CO202611241100;NC01;", "GR out of its place, or twice");
        refused("CCA;AM1;EA1;GR101;CO20261124110;NC01;", "20261124110 is no time");
        refused("CCA;AM1;EA1;GR101;CO202611311100;NC01;", "202611311100 is no time");
        refused("CCA;AM1;EA1;GR101;CO202611241100;NC02;", "only one card a command is imitated");
        refused("CCA;JR2;AM1;EA1;GR101;CO202611241100;NC01;", "only JR1 is known");
        refused("CCA;AM1;EA1;CO202611241100;NC01;", "no room");
        refused("CCA;AM1;EA1;GR101;NC01;", "no end");
        refused("CCA;AM2;EA1;GR101;CO202611241100;NC01;", "only AM1 is known");
        refused("CCA;AM1;EA1;GR;CO202611241100;NC01;", "GR without a value");
        refused("CCA;AM1;EA1;GR101;CO202611241100;NC01;XX1;", "no item is called XX");
        refused("CCB;AM1;EA1;GR101;", "a reading takes no more items");
        refused("CCC;AM1;EA1;", "no command is called so");
        refused("CCA;AM1;EA1;GR10\u{fc};CO202611241100;NC01;", "a sign that is not plain ASCII");
        refused("", "the last item has no end");
    }

    proptest! {
        #[test]
        fn no_line_of_a_peer_panics(line in proptest::collection::vec(any::<u8>(), 0..200), text in "[A-Z0-9;]{0,80}") {
            let _any_verdict = (parse(&line), parse(text.as_bytes()), parse(format!("CCA;AM1;{text};").as_bytes()));
        }
    }
}
