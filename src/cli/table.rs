//! Text for terminals of 80 columns.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// How wide a terminal is taken to be.
pub(super) const WIDTH: usize = 80;

/// Columns, as wide as their widest cell; the last one as it comes.
pub(super) fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        widest.max(heads[column].chars().count())
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(heads.to_vec())).chain(body).collect()
}

/// A text in lines that fit, each behind `indent` blanks.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &format!("{:indent$}{line}\n", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &format!("{:indent$}{line}\n", "")
}

/// A time in the property's zone; UTC, and it says so, where that zone is not known here.
pub(super) fn at(time: Timestamp, zone: &str) -> String {
    match TimeZone::get(zone) {
        Ok(zone) => time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    }
}

/// How long ago something was, as a person says it.
pub(super) fn ago(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).max(SignedDuration::ZERO).as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        let told = |seconds| ago(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        assert_eq!([told(9), told(61), told(3660)], ["9 s", "1 min", "1 h 1 min"]);
        assert_eq!([told(90_000), told(-5)], ["1 d 1 h", "0 s"]);
    }

    #[test]
    fn a_long_text_wraps_at_words_and_a_long_word_stands_alone() {
        let text = wrapped(&format!("{} {}", "word ".repeat(20), "x".repeat(90)), 10);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[..2].iter().all(|line| line.len() <= WIDTH && line.starts_with("          word")));
    }
}
