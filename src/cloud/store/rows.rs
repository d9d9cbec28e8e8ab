//! Rows to values and back: ids are text, times are milliseconds.

use std::{error::Error, str::FromStr};

use jiff::Timestamp;
use rusqlite::{Row, types::Type};
use uuid::Uuid;

/// A time as rows carry it.
pub(super) fn ms(time: Timestamp) -> i64 {
    time.as_millisecond()
}

pub(super) fn id<T: From<Uuid>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse::<Uuid>(&text).map(T::from)
}

pub(super) fn maybe_id<T: From<Uuid>>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| parse::<Uuid>(&text).map(T::from)).transpose()
}

pub(super) fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    at(row.get(column)?)
}

pub(super) fn maybe_time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    row.get::<_, Option<i64>>(column)?.map(at).transpose()
}

pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    parse(&row.get::<_, String>(column)?)
}

pub(super) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(unreadable)
}

/// A list of ids for `json_each`; `None` where there is no such filter.
pub(super) fn id_list<T: ToString>(ids: Option<&[T]>) -> Option<String> {
    ids.map(|ids| {
        let texts: Vec<_> = ids.iter().map(ToString::to_string).collect();
        serde_json::Value::from(texts).to_string()
    })
}

fn parse<T>(text: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text.parse().map_err(unreadable)
}

fn at(milliseconds: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(milliseconds).map_err(unreadable)
}

fn unreadable(error: impl Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}
