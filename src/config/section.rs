//! Reading tables of a file with an eye on every key and where it stands.
//!
//! A [`Section`] notes each key it was asked for; when it goes, what is left in its table is unknown. So the list of
//! known keys is the code that reads them, and cannot fall behind it.

use std::{
    cell::RefCell,
    fmt,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use jiff::{Span, SpanRelativeTo};
use toml::de::{DeTable, DeValue};

use super::mistakes::{ConfigErrors, Mistake, Place, is_secret};

type Spanned<T> = toml::Spanned<T>;

/// Reads a file with `read`, which answers `None` only where it noted a mistake.
pub(super) fn read_file<T>(
    path: &Path,
    text: &str,
    read: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<T, ConfigErrors> {
    let notes = Notes::new(path, text);
    let read = notes.read(read);
    let mut mistakes = notes.mistakes.into_inner();
    mistakes.sort_by_key(|(at, _)| *at);
    match read {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(ConfigErrors::Mistakes {
            path: path.into(),
            mistakes: mistakes.into_iter().map(|(_, mistake)| mistake).collect(),
        }),
    }
}

/// What is noted while a file is read.
struct Notes<'t> {
    text: &'t str,
    folder: PathBuf,
    mistakes: RefCell<Vec<(usize, Mistake)>>,
    /// Every setting that was asked for, without indices, and whether the file has it.
    #[cfg(test)]
    asked: RefCell<std::collections::BTreeMap<String, bool>>,
}

impl<'t> Notes<'t> {
    fn new(path: &Path, text: &'t str) -> Self {
        Self {
            text,
            folder: path.parent().unwrap_or(Path::new("")).into(),
            mistakes: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Section<'_>) -> Option<T>) -> Option<T> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            return read(&Section::new(self, String::new(), None, root.get_ref()));
        }
        for error in errors {
            self.note("", error.span(), error.message(), None);
        }
        None
    }

    fn note(
        &self,
        setting: &str,
        span: Option<Range<usize>>,
        problem: impl fmt::Display,
        help: Option<String>,
    ) {
        let at = span.as_ref().map_or(0, |span| span.start);
        self.mistakes.borrow_mut().push((
            at,
            Mistake {
                setting: setting.into(),
                problem: problem.to_string(),
                help,
                place: span.map(|span| Place::of(self.text, &span)),
            },
        ));
    }
}

/// One table of the file.
pub(super) struct Section<'t> {
    notes: &'t Notes<'t>,
    path: String,
    span: Option<Range<usize>>,
    table: &'t DeTable<'t>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'t> Section<'t> {
    fn new(notes: &'t Notes<'t>, path: String, span: Option<Range<usize>>, table: &'t DeTable<'t>) -> Self {
        Self { notes, path, span, table, asked: RefCell::default() }
    }

    /// The setting `key`, if the file has it.
    pub(super) fn get(&self, key: &'static str) -> Option<Setting<'t>> {
        self.asked.borrow_mut().push(key);
        let found = self.table.get(key).map(|value| Setting {
            notes: self.notes,
            path: self.path_of(key),
            span: value.span(),
            value: value.get_ref(),
        });
        #[cfg(test)]
        {
            let path = self.path_of(key);
            let general = path.split('.').map(|part| part.split('[').next().unwrap_or(part));
            let general = general.collect::<Vec<_>>().join(".");
            *self.notes.asked.borrow_mut().entry(general).or_default() |= found.is_some();
        }
        found
    }

    /// Whether the file has a setting, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The setting `key`; `why` says what it is for where it is missing.
    pub(super) fn must(&self, key: &'static str, why: &str) -> Option<Setting<'t>> {
        let found = self.get(key);
        if found.is_none() {
            self.wrong_key(key, "this setting is mandatory and missing", why);
        }
        found
    }

    /// Notes a mistake about a key that is not there.
    pub(super) fn wrong_key(&self, key: &str, problem: impl fmt::Display, help: &str) {
        self.notes.note(&self.path_of(key), self.span.clone(), problem, Some(help.into()));
    }

    fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.into(),
            path => format!("{path}.{key}"),
        }
    }

    fn note_unknown(&self) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let (problem, help) = if is_secret(name) {
                let file = closest(
                    &format!("{name}_file"),
                    asked.iter().copied().filter(|key| key.ends_with("_file")),
                );
                let file = file.unwrap_or("… a `_file` setting of the section concerned");
                (
                    "secrets are never written into this file",
                    format!("put the value into a file of mode 0600 and name that file with `{file}`"),
                )
            } else {
                let help = match closest(name, asked.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known here: {}", asked.join(", ")),
                };
                ("unknown setting", help)
            };
            self.notes.note(&self.path_of(name), Some(key.span()), problem, Some(help));
        }
    }
}

impl Drop for Section<'_> {
    /// Here and not in a call of its own, so that no table can be read without being judged.
    fn drop(&mut self) {
        self.note_unknown();
    }
}

/// One setting of the file: a value and where it stands.
pub(super) struct Setting<'t> {
    notes: &'t Notes<'t>,
    path: String,
    span: Range<usize>,
    value: &'t DeValue<'t>,
}

impl<'t> Setting<'t> {
    /// Notes a mistake about this setting.
    pub(super) fn wrong(&self, problem: impl fmt::Display, help: impl Into<String>) {
        self.notes.note(&self.path, Some(self.span.clone()), problem, Some(help.into()));
    }

    fn not_a<T>(&self, expected: &str) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a broken number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let help = match (self.value, expected.contains("quotes")) {
            (DeValue::Integer(number), true) => Some(format!("write it in quotes: \"{number}\"")),
            _ => None,
        };
        let problem = format!("expected {expected}, found {found}");
        self.notes.note(&self.path, Some(self.span.clone()), problem, help);
        None
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<&'t str> {
        match self.value {
            DeValue::String(text) if text.trim().is_empty() => {
                self.wrong("the text is empty", "write one, or leave the setting out where it is optional");
                None
            }
            DeValue::String(text) => Some(text),
            _ => self.not_a("a text in quotes"),
        }
    }

    /// Yes or no.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.not_a("true or false"),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<N>(&self, bounds: RangeInclusive<N>) -> Option<N>
    where
        N: Copy + PartialOrd + fmt::Display + TryFrom<i64>,
    {
        let (least, most) = (*bounds.start(), *bounds.end());
        let DeValue::Integer(digits) = self.value else {
            return self.not_a("a whole number");
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .and_then(|number| N::try_from(number).ok());
        match number {
            Some(number) if bounds.contains(&number) => Some(number),
            _ => {
                self.wrong(
                    format!("{digits} is out of bounds"),
                    format!("write a number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// A length of time within bounds.
    pub(super) fn length(&self, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.text()?;
        let length =
            text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours())).ok();
        let Some(length) = length else {
            self.wrong(
                format!("{text:?} is not a length of time"),
                "write it like \"30s\", \"2h 30m\" or \"90d\"",
            );
            return None;
        };
        match Duration::try_from(length) {
            Ok(length) if bounds.contains(&length) => Some(length),
            _ => {
                let spelt = |length: &Duration| Spelt(*length).to_string();
                self.wrong(
                    format!("{text:?} is out of bounds"),
                    format!("write a length from {} to {}", spelt(bounds.start()), spelt(bounds.end())),
                );
                None
            }
        }
    }

    /// A path; a relative one begins at the folder of the file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        Some(self.notes.folder.join(self.text()?))
    }

    /// A text with a form of its own.
    pub(super) fn parsed<T>(&self) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        match self.text()?.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.notes.note(&self.path, Some(self.span.clone()), error, None);
                None
            }
        }
    }

    /// An address to listen at.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let text = self.text()?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.wrong(
                format!("{text:?} is not an address to listen at"),
                "write IP:PORT, e.g. \"127.0.0.1:8080\", \"0.0.0.0:8443\" or \"[::]:8443\"",
            );
        }
        parsed
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let chosen = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let help = match closest(text, words.iter().map(|(word, _)| *word)) {
                Some(meant) => format!("did you mean \"{meant}\"? Known: {}", known.join(", ")),
                None => format!("known: {}", known.join(", ")),
            };
            self.wrong(format!("{text:?} is not known here"), help);
        }
        chosen
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'t>> {
        match self.value {
            DeValue::Table(table) => {
                Some(Section::new(self.notes, self.path.clone(), Some(self.span.clone()), table))
            }
            _ => self.not_a("a table"),
        }
    }

    /// Whether this is a table rather than a plain value.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<Setting<'t>>> {
        let DeValue::Array(items) = self.value else {
            return self.not_a("a list");
        };
        let item = |(index, value): (usize, &'t Spanned<DeValue<'t>>)| Setting {
            notes: self.notes,
            path: format!("{}[{index}]", self.path),
            span: value.span(),
            value: value.get_ref(),
        };
        Some(items.iter().enumerate().map(item).collect())
    }
}

/// A length of time as a person writes it.
struct Spelt(Duration);

impl fmt::Display for Spelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "\"0s\""),
            _ if seconds.is_multiple_of(86_400) => write!(f, "\"{}d\"", seconds / 86_400),
            _ if seconds.is_multiple_of(3600) => write!(f, "\"{}h\"", seconds / 3600),
            _ if seconds.is_multiple_of(60) => write!(f, "\"{}m\"", seconds / 60),
            _ => write!(f, "\"{seconds}s\""),
        }
    }
}

/// The candidate that was probably meant.
pub(super) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (strsim::normalized_damerau_levenshtein(&word, &candidate.to_lowercase()), candidate)
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Every setting that reading this text asks for, and whether the text has it.
#[cfg(test)]
pub(super) fn settings_asked<T>(
    text: &str,
    read: impl FnOnce(&Section<'_>) -> Option<T>,
) -> std::collections::BTreeMap<String, bool> {
    let notes = Notes::new(Path::new("test.toml"), text);
    notes.read(read);
    notes.asked.into_inner()
}
