//! Doors and encoders of an access system from a spreadsheet into the agent's file, which otherwise stays as a person
//! wrote it: comments, order and all.

use std::{collections::BTreeMap, fmt, io};

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

/// The most rows a spreadsheet may have: more than any property has doors.
const MOST_ROWS: usize = 20_000;

/// A spreadsheet's columns. The first two it must have.
const COLUMNS: [&str; 4] = ["kind", "name", "display_name", "number"];

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A guest room.
    Room,
    /// A common door.
    Common,
    /// A card encoder.
    Encoder,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Room, Self::Common, Self::Encoder];

    /// As it stands in a spreadsheet.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Common => "common",
            Self::Encoder => "encoder",
        }
    }

    /// The setting that lists them.
    fn setting(self) -> &'static str {
        match self {
            Self::Room => "rooms",
            Self::Common => "common",
            Self::Encoder => "encoders",
        }
    }
}

/// One row of a spreadsheet. A cell that is empty says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its line.
    pub line: u64,
    /// What it is about.
    pub kind: Kind,
    /// Its name in the access system.
    pub name: String,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its number in the access system, where its make has one.
    pub number: Option<String>,
}

/// What becomes of one door or encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Add(Row),
    /// One of its settings says something else.
    Set {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// Which setting.
        setting: &'static str,
        /// What it said.
        from: Option<String>,
        /// What it says.
        to: String,
    },
    /// It is taken out.
    Remove {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(row) => {
                write!(f, "+ {} {}", row.kind.as_str(), row.name)?;
                if let Some(number) = &row.number {
                    write!(f, ", number {number}")?;
                }
                row.display_name.as_ref().map_or(Ok(()), |name| write!(f, ", {name:?}"))
            }
            Self::Set { kind, name, setting, from: None, to } => {
                write!(f, "~ {} {name}: {setting} {to:?}", kind.as_str())
            }
            Self::Set { kind, name, setting, from: Some(from), to } => {
                write!(f, "~ {} {name}: {setting} {from:?} -> {to:?}", kind.as_str())
            }
            Self::Remove { kind, name } => write!(f, "- {} {name}", kind.as_str()),
        }
    }
}

/// What comes of it.
#[derive(Debug)]
pub struct Imported {
    /// The agent's file as it is to be.
    pub text: String,
    /// What that changes.
    pub changes: Vec<Change>,
    /// What the file has and the spreadsheet has not; it stays.
    pub only_here: Vec<(Kind, String)>,
    /// Names that look as if a spreadsheet had dropped their leading zeros: what it says, and what the file says.
    pub lost_zeros: Vec<(String, String)>,
}

/// Why a spreadsheet cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no table.
    #[error("the spreadsheet is no CSV file in UTF-8: {0}; save it as \"CSV UTF-8\"")]
    NotCsv(#[from] csv::Error),
    /// A column is missing, or there is one that nobody knows.
    #[error(
        "the first line must name the columns; {what}: write {COLUMNS:?}, of which the last two may be left out"
    )]
    Columns {
        /// What is wrong.
        what: String,
    },
    /// There are too many rows.
    #[error("the spreadsheet has more than {MOST_ROWS} rows")]
    TooLong,
    /// A row is wrong.
    #[error("line {line} of the spreadsheet: {what}")]
    Row {
        /// Which line.
        line: u64,
        /// What is wrong, and the way out.
        what: String,
    },
    /// The agent's file cannot be read.
    #[error("the configuration is no TOML: {0}")]
    NotToml(#[from] toml_edit::TomlError),
    /// There is no such system.
    #[error(
        "the configuration has no [[system]] named {name:?}; it has {there}: add the system first, without its doors"
    )]
    NoSystem {
        /// Which one was asked for.
        name: String,
        /// Those it has.
        there: String,
    },
    /// Systems of this make have no such list.
    #[error("a system of kind {make:?} has no rooms, common doors or encoders to bring in")]
    Make {
        /// Its make.
        make: String,
    },
    /// A list is written in a form that is left alone.
    #[error("{setting} of this system is not written as a list: write {setting} = [ … ]")]
    NotAList {
        /// Which one.
        setting: &'static str,
    },
}

/// Reads a spreadsheet: a line that names the columns, and a row for each door or encoder. Columns are parted by commas,
/// semicolons or tabs.
///
/// # Errors
/// When it is no table of this kind, with the line and the way out.
pub fn rows(bytes: &[u8]) -> Result<Vec<Row>, ImportError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let delimiter = *b",;\t"
        .iter()
        .rev()
        .max_by_key(|delimiter| first.iter().filter(|byte| byte == delimiter).count())
        .unwrap_or(&b',');
    let mut table = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(io::Cursor::new(bytes));
    let heads: Vec<_> = table.headers()?.iter().map(str::to_lowercase).collect();
    let wrong = |what: String| ImportError::Columns { what };
    if let Some(unknown) = heads.iter().find(|head| !COLUMNS.contains(&head.as_str())) {
        return Err(wrong(format!("there is no column {unknown:?}")));
    }
    let place = |column: &str| heads.iter().position(|head| head == column);
    if let Some(missing) = COLUMNS[..2].iter().find(|column| place(column).is_none()) {
        return Err(wrong(format!("the column {missing:?} is missing")));
    }
    let mut seen = BTreeMap::new();
    let mut rows = Vec::new();
    for record in table.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        if record.iter().all(str::is_empty) {
            continue;
        }
        if rows.len() == MOST_ROWS {
            return Err(ImportError::TooLong);
        }
        let wrong = |what: String| ImportError::Row { line, what };
        if heads.len() < record.len() {
            return Err(wrong(format!("{} cells where the first line names {}", record.len(), heads.len())));
        }
        let cell = |column: &str| {
            let cell = place(column).and_then(|place| record.get(place)).unwrap_or_default();
            (!cell.is_empty()).then(|| cell.to_owned())
        };
        let (kind, name) = (cell("kind").unwrap_or_default(), cell("name"));
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind.to_lowercase())
            .ok_or_else(|| wrong(format!("kind is {kind:?}: write room, common or encoder")))?;
        let name = name.ok_or_else(|| {
            wrong("name is empty: write the name exactly as the access system spells it".into())
        })?;
        if let Some(before) = seen.insert((kind == Kind::Encoder, name.clone()), line) {
            return Err(wrong(format!("{name:?} stands in line {before} already: remove one of the two")));
        }
        rows.push(Row { line, kind, name, display_name: cell("display_name"), number: cell("number") });
    }
    Ok(rows)
}

/// Brings rows into the agent's file. What the file has and the rows have not stays, unless it is to be taken out; of
/// those lists alone that the rows have anything of.
///
/// # Errors
/// When the file has no such system or is written in a form that is left alone, and when a row does not fit the make.
pub fn import(text: &str, system: &str, rows: &[Row], take_out: bool) -> Result<Imported, ImportError> {
    let mut document: DocumentMut = text.parse()?;
    let table = find(&mut document, system)?;
    let make = table.get("kind").and_then(Item::as_str).unwrap_or_default().to_owned();
    let mut imported =
        Imported { text: String::new(), changes: Vec::new(), only_here: Vec::new(), lost_zeros: Vec::new() };
    for kind in Kind::ALL {
        let number = number_setting(&make, kind)?;
        let of_kind: Vec<_> = rows.iter().filter(|row| row.kind == kind).collect();
        if !of_kind.is_empty() {
            bring_in(table, kind, number, &of_kind, take_out, &mut imported)?;
        }
    }
    imported.text = document.to_string();
    Ok(imported)
}

fn find<'a>(document: &'a mut DocumentMut, system: &str) -> Result<&'a mut Table, ImportError> {
    let name = |table: &Table| table.get("name").and_then(Item::as_str).unwrap_or_default().to_owned();
    let systems = document.get("system").and_then(Item::as_array_of_tables);
    let names: Vec<_> = systems.into_iter().flat_map(ArrayOfTables::iter).map(name).collect();
    let there = if names.is_empty() { "none".into() } else { names.join(", ") };
    document
        .get_mut("system")
        .and_then(Item::as_array_of_tables_mut)
        .and_then(|systems| systems.iter_mut().find(|table| name(table) == system))
        .ok_or(ImportError::NoSystem { name: system.into(), there })
}

/// The setting that a make keeps a number in, and whether it is one; none where it has no use for one.
fn number_setting(make: &str, kind: Kind) -> Result<Option<(&'static str, bool)>, ImportError> {
    Ok(match (make, kind) {
        ("salto_is" | "visionline" | "kaba_messenger", Kind::Room) => None,
        ("salto_is" | "visionline", Kind::Encoder) => None,
        ("salto_is", Kind::Common) => Some(("authorisation", true)),
        ("visionline", Kind::Common) => Some(("number", true)),
        ("kaba_messenger", Kind::Common) => Some(("pass_level", true)),
        ("kaba_messenger", Kind::Encoder) => Some(("terminal", false)),
        _ => return Err(ImportError::Make { make: make.into() }),
    })
}

/// What a row says, as settings.
fn settings(
    row: &Row,
    number: Option<(&'static str, bool)>,
) -> Result<Vec<(&'static str, Value)>, ImportError> {
    let wrong = |what: String| ImportError::Row { line: row.line, what };
    let mut settings = Vec::new();
    settings.extend(row.display_name.as_deref().map(|name| ("display_name", Value::from(name))));
    if let Some(said) = &row.number {
        let (setting, is_number) = number.ok_or_else(|| {
            wrong(format!(
                "{} {:?} has a number, and this make knows none: leave it out",
                row.kind.as_str(),
                row.name
            ))
        })?;
        let value = match is_number {
            false => Value::from(said.as_str()),
            true => Value::from(said.parse::<i64>().map_err(|_| wrong(format!("{said:?} is no number")))?),
        };
        settings.push((setting, value));
    }
    Ok(settings)
}

fn bring_in(
    table: &mut Table,
    kind: Kind,
    number: Option<(&'static str, bool)>,
    rows: &[&Row],
    take_out: bool,
    imported: &mut Imported,
) -> Result<(), ImportError> {
    let setting = kind.setting();
    let not_a_list = || ImportError::NotAList { setting };
    let list = table.entry(setting).or_insert_with(|| Item::from(Array::new()));
    let list = list.as_array_mut().ok_or_else(not_a_list)?;
    let names: Vec<_> = list.iter().map(name_of).collect();
    for row in rows {
        let wanted = settings(row, number)?;
        match names.iter().position(|name| *name == row.name) {
            Some(place) => {
                let entry = list.get_mut(place).ok_or_else(not_a_list)?;
                change(entry, row, wanted, &mut imported.changes);
            }
            None => {
                if let (Kind::Common, None, Some((setting, _))) = (kind, &row.number, number) {
                    let what =
                        format!("{:?} has no number: write its {setting} in the access system", row.name);
                    return Err(ImportError::Row { line: row.line, what });
                }
                let bare = |name: &str| name.trim_start_matches('0').to_owned();
                let alike = names.iter().find(|name| bare(name) == bare(&row.name));
                imported.lost_zeros.extend(alike.map(|alike| (row.name.clone(), alike.clone())));
                add(list, row, wanted);
                imported.changes.push(Change::Add((*row).clone()));
            }
        }
    }
    let only_here: Vec<_> =
        names.into_iter().filter(|name| !rows.iter().any(|row| row.name == *name)).collect();
    for name in only_here {
        if take_out {
            list.retain(|entry| name_of(entry) != name);
            imported.changes.push(Change::Remove { kind, name });
        } else {
            imported.only_here.push((kind, name));
        }
    }
    Ok(())
}

/// The name of an entry, which is it or holds it.
fn name_of(entry: &Value) -> String {
    let name = entry.as_inline_table().and_then(|table| table.get("name")).unwrap_or(entry);
    name.as_str().unwrap_or_default().to_owned()
}

/// A new entry on a line of its own at the end.
fn add(list: &mut Array, row: &Row, settings: Vec<(&'static str, Value)>) {
    let mut entry = match settings.is_empty() {
        true => Value::from(row.name.as_str()),
        false => {
            let mut table = InlineTable::new();
            table.insert("name", row.name.as_str().into());
            table.extend(settings);
            Value::from(table)
        }
    };
    entry.decor_mut().set_prefix("\n    ");
    list.push_formatted(entry);
    list.set_trailing_comma(true);
    let trailing = list.trailing().as_str().unwrap_or_default();
    if !trailing.contains('\n') {
        let trailing = format!("{}\n", trailing.trim_end());
        list.set_trailing(trailing);
    }
}

fn change(entry: &mut Value, row: &Row, settings: Vec<(&'static str, Value)>, changes: &mut Vec<Change>) {
    let shown =
        |value: &Value| value.as_str().map_or_else(|| value.to_string().trim().to_owned(), str::to_owned);
    for (setting, value) in settings {
        let from = entry.as_inline_table().and_then(|table| table.get(setting)).map(shown);
        let to = shown(&value);
        if from.as_ref() == Some(&to) {
            continue;
        }
        if entry.as_inline_table().is_none() {
            let mut table = InlineTable::new();
            table.insert("name", row.name.as_str().into());
            *table.decor_mut() = entry.decor().clone();
            *entry = Value::from(table);
        }
        if let Some(table) = entry.as_inline_table_mut() {
            table.insert(setting, value);
        }
        changes.push(Change::Set { kind: row.kind, name: row.name.clone(), setting, from, to });
    }
}
