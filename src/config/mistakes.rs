//! What is wrong with a file, told the way a compiler would.

use std::{fmt, io, ops::Range, path::PathBuf};

/// Names under which people write secrets into configuration files. Their values are never shown.
const SECRETS: &[&str] = &[
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "api_key",
    "apikey",
    "key",
    "private_key",
    "seal_key",
    "pin",
];

/// Whether a key is the name of a secret, however it is spelt.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SECRETS.contains(&key.as_str())
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file cannot be read.
    #[error("read configuration {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds mistakes; all that could be found at once, in the order of the file.
    #[error("{}", Rendered { path, mistakes })]
    Mistakes {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        mistakes: Vec<Mistake>,
    },
}

impl ConfigErrors {
    /// The mistakes, where the file could be read at all.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Mistakes { mistakes, .. } => mistakes,
        }
    }
}

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Which setting, e.g. `system[0].rooms[3].name`; empty for mistakes of the file as a whole.
    pub setting: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where; a setting of the whole file that is missing has no place.
    pub place: Option<Place>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// How many characters of the line are meant.
    pub width: usize,
    /// The line as written, but for the values of secrets.
    pub source: String,
}

impl Place {
    /// Finds the place of a span of bytes.
    pub(super) fn of(text: &str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let column = text[begin..start].chars().count();
        let width = text[start..floor(text, span.end).clamp(start, end)].chars().count();
        let source = without_secret(text[begin..end].trim_end());
        Self {
            line: text[..begin].matches('\n').count() + 1,
            column: column + 1,
            width: width.min(source.chars().count().saturating_sub(column)).max(1),
            source,
        }
    }
}

/// The nearest character boundary at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    let index = index.min(text.len());
    (0..=index).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// A line without what stands behind the `=` of a secret or inside the user part of an address.
fn without_secret(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('=') {
        shown.push_str(before);
        shown.push('=');
        let key = before.trim_end().trim_end_matches(['"', '\'']);
        let key = &key[key
            .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
            .map_or(0, |at| at + key[at..].chars().next().map_or(1, char::len_utf8))..];
        if is_secret(key) {
            return shown + " …";
        }
        rest = after;
    }
    shown.push_str(rest);
    match (shown.find("://"), shown.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}…{}", &shown[..scheme + 3], &shown[at..]),
        _ => shown,
    }
}

struct Rendered<'a> {
    path: &'a PathBuf,
    mistakes: &'a [Mistake],
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for Mistake { setting, problem, help, place } in self.mistakes {
            match setting.as_str() {
                "" => writeln!(f, "error: {problem}")?,
                setting => writeln!(f, "error: {setting}: {problem}")?,
            }
            let mut gutter = 1;
            match place {
                None => writeln!(f, "  --> {path}")?,
                Some(Place { line, column, width, source }) => {
                    gutter = line.to_string().len();
                    let before: String = source
                        .chars()
                        .chain(std::iter::repeat(' '))
                        .take(column - 1)
                        .map(|c| if c == '\t' { '\t' } else { ' ' })
                        .collect();
                    writeln!(f, "{:gutter$}--> {path}:{line}:{column}", "")?;
                    writeln!(f, "{:gutter$} |", "")?;
                    writeln!(f, "{line} | {source}")?;
                    writeln!(f, "{:gutter$} | {before}{}", "", "^".repeat(*width))?;
                }
            }
            if let Some(help) = help {
                writeln!(f, "{:gutter$} = help: {help}", "")?;
            }
            writeln!(f)?;
        }
        match self.mistakes.len() {
            1 => write!(f, "{path}: 1 mistake"),
            count => write!(f, "{path}: {count} mistakes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one_and_stays_in_its_line() {
        let text = "a = 1\nname = \"Ålesund\"\nlast";
        let at = text.find("\"Å").unwrap();
        let place = Place::of(text, &(at..at + 10));
        assert_eq!((place.line, place.column, place.width), (2, 8, 9));
        let end = Place::of(text, &(text.len()..text.len() + 9));
        assert_eq!((end.line, end.column, end.width), (3, 5, 1));
        assert_eq!(Place::of("", &(0..1)).line, 1);
    }

    #[test]
    fn the_value_of_a_secret_is_never_shown() {
        for line in [
            "token = \"hunter2\"",
            "  \"api_key\" = 'hunter2'",
            "cloud = { url = \"wss://x\", password=\"hunter2\" }",
            "url = \"wss://me:hunter2@cloud.example\"",
            "cloud.token= \"hunter2\"",
        ] {
            let shown = without_secret(line);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(without_secret("token_file = \"a=b\""), "token_file = \"a=b\"");
    }
}
