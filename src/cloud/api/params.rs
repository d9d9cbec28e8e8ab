//! Parameters: declared types, read from a JSON body or a query string, checked once.
//!
//! What a call gets is an [`Args`] whose values are of the declared types; unknown parameters are ignored, as the
//! interface has grown by them.

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::problem::Problem;

/// A parameter of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    /// Null means something of its own, so it is told apart from what was not given.
    pub(super) nullable: bool,
}

/// What a parameter holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Text, not empty, of at most [`LONGEST_TEXT`] characters.
    Text,
    /// An e-mail address.
    Email,
    /// A PIN that is wished: four to nine digits.
    Code,
    /// A UUID.
    Id,
    /// An instant with an offset.
    Time,
    /// A whole number from 1 up to this.
    Count(u32),
    /// True or false.
    Flag,
    /// A time of day: hours, minutes, perhaps seconds.
    Clock,
    /// A time zone by its name.
    Zone,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of these.
    List(&'static Kind),
    /// An object with these.
    Object(&'static [Param]),
    /// Anything; not looked at.
    Any,
}

/// Longest text of a parameter: names and keys are shorter, and rows and screens are spared.
pub(super) const LONGEST_TEXT: usize = 512;
/// Longest list of a parameter.
pub(super) const LONGEST_LIST: usize = 2_000;

pub(super) const fn optional(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: false, nullable: false }
}

/// One whose null means something of its own.
pub(super) const fn nullable(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: false, nullable: true }
}

pub(super) const fn required(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: true, nullable: false }
}

pub(super) const IDS: Kind = Kind::List(&Kind::Id);
pub(super) const TEXTS: Kind = Kind::List(&Kind::Text);

type Errors = Vec<(Vec<String>, String)>;

/// Checked parameters. A parameter that was not given is not there, nor is one that was null, unless its null means
/// something.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Args(Map<String, Value>);

impl Args {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a parameter whose null means something was given as null.
    pub(super) fn is_null(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Value::is_null)
    }

    /// What becomes of a text whose null empties it: nothing, or what it is from now on.
    pub(super) fn changed(&self, name: &str) -> Option<Option<String>> {
        self.has(name).then(|| self.text(name))
    }

    /// A value as it was given; null is none.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        self.0.get(name).filter(|value| !value.is_null()).cloned()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(str::to_owned)
    }

    pub(super) fn id<T: From<Uuid>>(&self, name: &str) -> Option<T> {
        Uuid::parse_str(self.0.get(name)?.as_str()?).ok().map(T::from)
    }

    /// An id as rows carry it.
    pub(super) fn id_text(&self, name: &str) -> Option<String> {
        self.id::<Uuid>(name).map(|id| id.to_string())
    }

    /// For a parameter that the call declares as required.
    pub(super) fn the_id<T: From<Uuid>>(&self, name: &str) -> Result<T, Problem> {
        self.id(name).ok_or_else(|| Problem::invalid_parameter(name, "Required"))
    }

    pub(super) fn ids<T: From<Uuid>>(&self, name: &str) -> Option<Vec<T>> {
        let list = self.0.get(name)?.as_array()?;
        let parse = |value: &Value| Uuid::parse_str(value.as_str()?).ok().map(T::from);
        Some(list.iter().filter_map(parse).collect())
    }

    /// One id or a list of them, under two names.
    pub(super) fn one_or_more<T: From<Uuid>>(&self, one: &str, more: &str) -> Option<Vec<T>> {
        match (self.id(one), self.ids(more)) {
            (None, None) => None,
            (one, more) => Some(one.into_iter().chain(more.into_iter().flatten()).collect()),
        }
    }

    /// The same of texts.
    pub(super) fn one_or_more_texts(&self, one: &str, more: &str) -> Option<Vec<String>> {
        match (self.text(one), self.texts(more)) {
            (None, None) => None,
            (one, more) => Some(one.into_iter().chain(more.into_iter().flatten()).collect()),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = self.0.get(name)?.as_array()?;
        Some(list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    }

    pub(super) fn time(&self, name: &str) -> Option<Timestamp> {
        self.0.get(name)?.as_str().and_then(instant)
    }

    pub(super) fn times(&self, name: &str) -> Option<Vec<Timestamp>> {
        let list = self.0.get(name)?.as_array()?;
        Some(list.iter().filter_map(|value| value.as_str().and_then(instant)).collect())
    }

    pub(super) fn count(&self, name: &str) -> Option<u32> {
        self.0.get(name)?.as_u64().and_then(|count| u32::try_from(count).ok())
    }

    pub(super) fn object(&self, name: &str) -> Option<Self> {
        self.0.get(name)?.as_object().cloned().map(Self)
    }

    pub(super) fn objects(&self, name: &str) -> Vec<Self> {
        let list = self.0.get(name).and_then(Value::as_array);
        let objects = list.into_iter().flatten().filter_map(Value::as_object);
        objects.cloned().map(Self).collect()
    }

    /// The parameters beside those of paging, as a query string of the exact encoding: keys sorted, keys repeated
    /// for lists.
    pub(super) fn filter_query(&self) -> String {
        let mut query = String::new();
        write_query(&self.0, "", &mut query);
        query
    }
}

/// Keys sorted, those of objects behind a point, keys repeated for lists.
fn write_query(fields: &Map<String, Value>, before: &str, query: &mut String) {
    let mut names: Vec<_> = fields.keys().collect();
    names.sort_unstable();
    for name in names.into_iter().filter(|name| *name != "page_cursor") {
        let path = format!("{before}{name}");
        let mut push = |value: &Value| {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(&path);
            query.push('=');
            match value {
                Value::Null => {}
                Value::String(text) => percent_encode(text, query),
                other => percent_encode(&other.to_string(), query),
            }
        };
        match &fields[name] {
            Value::Array(list) if list.is_empty() => push(&Value::Null),
            Value::Array(list) => list.iter().for_each(push),
            Value::Object(fields) => write_query(fields, &format!("{path}."), query),
            value => push(value),
        }
    }
}

/// Reads the parameters of a JSON body; an empty body is an empty object.
pub(super) fn from_body(params: &[Param], body: &[u8]) -> Result<Args, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return check(params, Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(given)) => check(params, given),
        Ok(_) => Err(Problem::invalid(vec![(Vec::new(), "Expected a JSON object as the body".into())])),
        Err(error) => Err(Problem::invalid(vec![(
            Vec::new(),
            format!("The body is not JSON: line {}, column {}", error.line(), error.column()),
        )])),
    }
}

/// Reads the parameters of a query string: declared types say what a text means.
pub(super) fn from_query(params: &[Param], query: &str) -> Result<Args, Problem> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (Some(name), Some(value)) = (percent_decode(name), percent_decode(value)) else {
            return Err(Problem::invalid(vec![(
                Vec::new(),
                "The query string is not UTF-8 in percent encoding".into(),
            )]));
        };
        pairs.push((name, value));
    }
    let strict = pairs.iter().any(|(name, value)| name == "_strict" && value == "true");
    let mut given = Map::new();
    for param in params {
        let value = of_query(&param.kind, param.name, &pairs, strict)
            .map_err(|what| Problem::invalid_parameter(param.name, what))?;
        if let Some(value) = value {
            given.insert(param.name.to_owned(), value);
        }
    }
    check(params, given)
}

fn of_query(
    kind: &Kind,
    name: &str,
    pairs: &[(String, String)],
    strict: bool,
) -> Result<Option<Value>, String> {
    let of_key = |wanted: &str| {
        let of_key = pairs.iter().filter(|(given, _)| given == wanted);
        of_key.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let (mut values, bracketed) = (of_key(name), of_key(&format!("{name}[]")));
    match kind {
        _ if bracketed.is_empty() => {}
        Kind::List(_) if !strict => values.extend(bracketed),
        Kind::List(_) => return Err(format!("Expected {name} to be repeated, received {name}[]")),
        _ => return Err("Expected one value, received an array".into()),
    }
    match (kind, values.as_slice()) {
        (Kind::Object(params), []) => {
            let mut object = Map::new();
            for param in *params {
                let name = format!("{name}.{}", param.name);
                if let Some(value) = of_query(&param.kind, &name, pairs, strict)? {
                    object.insert(param.name.to_owned(), value);
                }
            }
            Ok((!object.is_empty()).then_some(Value::Object(object)))
        }
        (_, []) => Ok(None),
        (Kind::List(_), [""]) => Ok(Some(Value::Array(Vec::new()))),
        (Kind::List(_), [one]) if !strict => {
            Ok(Some(one.split(',').map(|text| Value::String(text.to_owned())).collect()))
        }
        (Kind::List(_), several) => {
            Ok(Some(several.iter().map(|text| Value::String((*text).to_owned())).collect()))
        }
        (_, [""]) => Ok(Some(Value::Null)),
        (Kind::Count(_), [one]) => match one.strip_suffix(".0").unwrap_or(one).parse::<u64>() {
            Ok(number) => Ok(Some(number.into())),
            Err(_) => Err("Expected number, received nan".into()),
        },
        (Kind::Flag, [one]) => match *one {
            "true" => Ok(Some(Value::Bool(true))),
            "false" => Ok(Some(Value::Bool(false))),
            "1" | "yes" if !strict => Ok(Some(Value::Bool(true))),
            "0" | "no" if !strict => Ok(Some(Value::Bool(false))),
            _ => Err("Expected boolean, received string".into()),
        },
        (_, [one]) => Ok(Some(Value::String((*one).to_owned()))),
        (_, _) => Err("Expected one value, received several".into()),
    }
}

fn check(params: &[Param], given: Map<String, Value>) -> Result<Args, Problem> {
    let mut errors = Vec::new();
    let args = check_object(params, given, &[], &mut errors);
    if errors.is_empty() { Ok(Args(args)) } else { Err(Problem::invalid(errors)) }
}

fn check_object(
    params: &[Param],
    mut given: Map<String, Value>,
    path: &[String],
    errors: &mut Errors,
) -> Map<String, Value> {
    let mut args = Map::new();
    for param in params {
        let path: Vec<_> = path.iter().cloned().chain([param.name.to_owned()]).collect();
        match given.remove(param.name) {
            None | Some(Value::Null) if param.required => errors.push((path, "Required".into())),
            Some(Value::Null) if param.nullable => {
                args.insert(param.name.to_owned(), Value::Null);
            }
            None | Some(Value::Null) => {}
            Some(value) => {
                if let Some(value) = check_value(&param.kind, value, &path, errors) {
                    args.insert(param.name.to_owned(), value);
                }
            }
        }
    }
    args
}

fn check_value(kind: &Kind, value: Value, path: &[String], errors: &mut Errors) -> Option<Value> {
    match (kind, value) {
        (Kind::Any, value) | (Kind::Flag, value @ Value::Bool(_)) => return Some(value),
        (Kind::Count(most), Value::Number(number)) => match whole(&number) {
            Some(count) if (1..=u64::from(*most)).contains(&count) => return Some(count.into()),
            _ => errors.push((path.to_vec(), format!("Expected a whole number from 1 to {most}"))),
        },
        (Kind::List(_), Value::Array(list)) if list.len() > LONGEST_LIST => {
            errors.push((path.to_vec(), format!("Expected at most {LONGEST_LIST} elements")));
        }
        (Kind::List(kind), Value::Array(list)) => {
            let checked = list.into_iter().enumerate().filter_map(|(index, value)| {
                let path: Vec<_> = path.iter().cloned().chain([index.to_string()]).collect();
                check_value(kind, value, &path, errors)
            });
            return Some(Value::Array(checked.collect()));
        }
        (Kind::Object(params), Value::Object(given)) => {
            return Some(Value::Object(check_object(params, given, path, errors)));
        }
        (kind, Value::String(text)) => match check_text(kind, &text) {
            Ok(()) => return Some(Value::String(text)),
            Err(what) => errors.push((path.to_vec(), what)),
        },
        (kind, value) => errors
            .push((path.to_vec(), format!("Expected {}, received {}", expected(kind), received(&value)))),
    }
    None
}

/// Some languages have no whole numbers, or write them as `10.0`.
fn whole(number: &serde_json::Number) -> Option<u64> {
    number.as_u64().or_else(|| number.to_string().strip_suffix(".0")?.parse().ok())
}

fn check_text(kind: &Kind, text: &str) -> Result<(), String> {
    let fine = match kind {
        Kind::Text if text.is_empty() => return Err("String must contain at least 1 character(s)".into()),
        Kind::Text if text.chars().count() > LONGEST_TEXT => {
            return Err(format!("String must contain at most {LONGEST_TEXT} character(s)"));
        }
        Kind::Text => !text.chars().any(char::is_control),
        Kind::Email => is_email(text),
        Kind::Code => (4..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
        Kind::Id => text.len() == 36 && Uuid::parse_str(text).is_ok(),
        Kind::Time => instant(text).is_some(),
        Kind::Clock => is_time_of_day(text),
        Kind::Zone => text.len() <= 64 && jiff::tz::TimeZone::get(text).is_ok(),
        Kind::Choice(words) if words.contains(&text) => true,
        Kind::Choice(words) => return Err(format!("Invalid enum value. Expected {}", words.join(" | "))),
        Kind::Count(_) | Kind::Flag | Kind::List(_) | Kind::Object(_) | Kind::Any => {
            return Err(format!("Expected {}, received string", expected(kind)));
        }
    };
    if fine { Ok(()) } else { Err(format!("Invalid {}", expected(kind))) }
}

fn is_email(text: &str) -> bool {
    let plain = text.len() <= 254 && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    match text.rsplit_once('@') {
        Some((name, host)) => {
            plain
                && !name.is_empty()
                && !name.contains('@')
                && host.contains('.')
                && !host.starts_with('.')
                && !host.ends_with('.')
        }
        None => false,
    }
}

fn is_time_of_day(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    let number = |part: &str, below: u8| {
        part.len() == 2
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse().is_ok_and(|n: u8| n < below)
    };
    matches!(parts.len(), 2 | 3) && number(parts[0], 24) && parts[1..].iter().all(|part| number(part, 60))
}

/// An instant in whole milliseconds, within the years that a card or a lock could mean.
fn instant(text: &str) -> Option<Timestamp> {
    let exact: Timestamp = text.parse().ok()?;
    let whole = Timestamp::from_millisecond(exact.as_millisecond()).ok()?;
    // 1970 to 2199: nothing real lies outside, and sums of it with any length we use stay in range.
    (0..7_258_118_400_000).contains(&whole.as_millisecond()).then_some(whole)
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text => "string",
        Kind::Email => "email",
        Kind::Code => "code of 4 to 9 digits",
        Kind::Id => "uuid",
        Kind::Time => "date with an offset",
        Kind::Count(_) => "number",
        Kind::Flag => "boolean",
        Kind::Clock => "time of day",
        Kind::Zone => "time zone",
        Kind::Choice(_) => "one of the words",
        Kind::List(_) => "array",
        Kind::Object(_) => "object",
        Kind::Any => "anything",
    }
}

fn received(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn percent_encode(text: &str, into: &mut String) {
    use std::fmt::Write;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                into.push(char::from(byte));
            }
            byte => {
                let _ = write!(into, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const PARAMS: &[Param] = &[
        required("id", Kind::Id),
        optional("name", Kind::Text),
        optional("include", TEXTS),
        optional("limit", Kind::Count(500)),
        optional("since", Kind::Time),
        optional("flag", Kind::Flag),
        nullable("until", Kind::Time),
        optional(
            "place",
            Kind::Object(&[optional("town", Kind::Text), optional("mode", Kind::Choice(&["a", "b"]))]),
        ),
    ];
    const ID: &str = "5b1ed5a0-7a30-4d6f-9d0e-000000000001";

    fn query(text: &str) -> Result<Value, String> {
        from_query(PARAMS, &format!("id={ID}{text}"))
            .map(|args| {
                let mut given = args.0;
                given.remove("id");
                Value::Object(given)
            })
            .map_err(|problem| problem.body()["error"]["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_query_means_what_the_declared_types_say() {
        let check = |text: &str, expected: Value| assert_eq!(query(text), Ok(expected), "{text}");
        check("", json!({}));
        check("&limit=1&_strict=true", json!({"limit": 1}));
        check("&limit=10.0&_strict=true", json!({"limit": 10}));
        check("&include=a&include=b&_strict=true", json!({"include": ["a", "b"]}));
        check("&include=a,b", json!({"include": ["a", "b"]}));
        check("&include=a%2Cb&_strict=true", json!({"include": ["a,b"]}));
        check("&include[]=a&include%5B%5D=b", json!({"include": ["a", "b"]}));
        check("&include=&_strict=true", json!({"include": []}));
        check("&name=&_strict=true", json!({}));
        check("&place.town=Oslo&unknown=1", json!({"place": {"town": "Oslo"}}));
        for (given, flag) in [("true", true), ("1", true), ("yes", true), ("0", false), ("no", false)] {
            check(&format!("&flag={given}"), json!({"flag": flag}));
        }
        check("&flag=false&_strict=true", json!({"flag": false}));
        check("&flag=&limit=", json!({}));
        check("&until=", json!({"until": null}));
        check("&until=&_strict=true", json!({"until": null}));
        check("&include=", json!({"include": []}));
        check("&include[]=", json!({"include": []}));
        check("&since=2026-11-21T23%3A57%3A03.593Z", json!({"since": "2026-11-21T23:57:03.593Z"}));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |text: &str, words: &str| {
            let error = query(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        };
        check("&limit=nan", "received nan for \"limit\"");
        check("&limit=501", "from 1 to 500 for \"limit\"");
        check("&name=a&name=b", "received several for \"name\"");
        check("&since=yesterday", "Invalid date");
        check("&name[]=a", "received an array for \"name\"");
        check("&include[]=a&_strict=true", "Expected include to be repeated");
        check("&flag=1&_strict=true", "Expected boolean, received string for \"flag\"");
        check("&flag=maybe", "Expected boolean");
        check("&place.mode=c", "Expected a | b for \"place.mode\"");
        check("&name=%ff", "not UTF-8");
        check("&name=%2", "not UTF-8");
    }

    #[test]
    fn every_mistake_of_a_body_is_told_at_its_place() {
        let body = json!({"id": "x", "include": ["a", 7], "place": [], "limit": "1"});
        let problem = from_body(PARAMS, body.to_string().as_bytes()).unwrap_err().body();
        let errors = &problem["error"]["validation_errors"];
        assert_eq!(errors["id"]["_errors"], json!(["Invalid uuid"]));
        assert_eq!(errors["include"]["1"]["_errors"], json!(["Expected string, received number"]));
        assert_eq!(errors["place"]["_errors"], json!(["Expected object, received array"]));
        assert_eq!(errors["limit"]["_errors"], json!(["Expected number, received string"]));
    }

    #[test]
    fn times_of_day_and_zones_are_looked_at() {
        let check = |kind: Kind, text: &str, fine: bool| {
            assert_eq!(check_text(&kind, text).is_ok(), fine, "{text}");
        };
        for (text, fine) in
            [("15:00", true), ("23:59:59", true), ("24:00", false), ("7:00", false), ("15", false)]
        {
            check(Kind::Clock, text, fine);
        }
        for (text, fine) in [("Europe/Oslo", true), ("UTC", true), ("Europe/Atlantis", false), ("", false)] {
            check(Kind::Zone, text, fine);
        }
    }

    #[test]
    fn the_query_of_a_filter_is_read_back_as_the_same_filter() {
        let given = format!("id={ID}&include=a&include=b&limit=3&place.town=S%C3%B8r&until=&_strict=true");
        let args = from_query(PARAMS, &given).unwrap();
        let query = args.filter_query();
        assert_eq!(from_query(PARAMS, &format!("{query}&_strict=true")).unwrap(), args, "{query}");
    }

    #[test]
    fn offsets_and_microseconds_are_understood() {
        let since = |text: &str| {
            let args = from_body(&[optional("since", Kind::Time)], text.as_bytes()).unwrap();
            args.time("since").unwrap().to_string()
        };
        assert_eq!(since(r#"{"since":"2026-11-22T01:00:00.123456+01:00"}"#), "2026-11-22T00:00:00.123Z");
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let limit = |text: &str| {
            let args = from_body(&[optional("limit", Kind::Count(500))], text.as_bytes());
            args.ok().and_then(|args| args.count("limit"))
        };
        assert_eq!(limit(r#"{"limit": 10.0}"#), Some(10));
        assert_eq!(limit(r#"{"limit": 10.5}"#), None);
        assert_eq!(limit(r#"{"limit": 1e300}"#), None);
    }

    proptest! {
        #[test]
        fn no_query_and_no_body_makes_it_panic(text: String, bytes: Vec<u8>) {
            let _ = from_query(PARAMS, &text);
            let _ = from_body(PARAMS, &bytes);
        }

        #[test]
        fn what_is_encoded_is_read_back(text: String) {
            let mut encoded = String::new();
            percent_encode(&text, &mut encoded);
            prop_assert_eq!(percent_decode(&encoded), Some(text));
        }
    }
}
