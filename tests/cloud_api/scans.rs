//! What grows with guests is never looked through row by row: every statement that any call runs, with each of its
//! parameters, and every one that runs by the clock, is asked for its plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    model::Written,
    seams::Storage,
    store::{Store, open_reader},
};
use rusqlite::{
    Connection,
    trace::{TraceEvent, TraceEventCodes},
};
use serde_json::{Map, Value, json};

use super::{
    Cloud, in_hours, inventory_with_a_lock,
    table::{Furnished, document, required},
    written,
};

/// Tables that have as many rows as the operator has houses and keys.
const FEW: &[&str] = &[
    "acs_system",
    "api_key",
    "bridge",
    "bridge_key",
    "cloud_key",
    "pairing",
    "site",
    "site_condition",
    "sqlite_schema",
    // At most 32 for a workspace.
    "webhook",
    "workspace",
];

/// Indexes that hold no more than what is to be done, and are looked through for it.
const TO_BE_DONE: &[&str] = &[
    "access_grant_deleted",
    "bridge_order_cancels",
    "action_attempt_deadline",
    "action_attempt_pending",
    "bridge_order_waiting",
    "code_grant_due",
    "desired_change",
    "device_read_due",
    "scan_attempt_pending",
    // Methods that are being deleted alone.
    "sqlite_autoindex_method_end_1",
    "unlock_attempt_pending",
];

/// Plans that look through something all the same: a part of the statement, of the plan, and why that may be.
const EXCUSED: &[(&str, &str, &str)] = &[
    (
        "FROM ordered_checkout o",
        "SCAN o",
        "by the hour, and a check-out goes with the last grant of its stay",
    ),
    ("AS is_idle", "u USING INTEGER PRIMARY KEY (rowid>?)", "by the hour, two hundred people at a time"),
];

/// Something that a parameter may be.
fn value(own: &Furnished, name: &str, schema: &Value) -> Option<Value> {
    let schema = schema["anyOf"].get(0).unwrap_or(schema);
    if let Some(id) = own.id(name) {
        return Some(if schema["type"] == "array" { json!([id]) } else { json!(id) });
    }
    let text = match name {
        "access_grant_key" | "access_grant_keys" => "booking-1",
        "user_identity_key" | "merged_user_identity_keys" => "jane",
        "space_key" | "space_keys" | "parent_space_key" => "unit",
        "reservation_key" => "stay-1",
        _ => "a",
    };
    Some(match (schema["type"].as_str()?, schema["format"].as_str(), &schema["enum"]) {
        (_, _, Value::Array(words)) => words[0].clone(),
        ("string", Some("uuid"), _) => json!("5b1ed5a0-7a30-4d6f-9d0e-0000000000ff"),
        ("string", Some("date-time"), _) => json!(in_hours(1)),
        ("string", Some("email"), _) => json!("john@example.com"),
        ("string", None, _) if name == "code" => json!("4711"),
        ("string", None, _) => json!(text),
        ("integer", ..) => json!(1),
        ("boolean", ..) => json!(true),
        ("array", ..) if name == "between" => json!(["2020-01-01T00:00:00Z", in_hours(1)]),
        ("array", ..) => json!([value(own, name, &schema["items"])?]),
        _ => return None,
    })
}

/// Every call with each of its parameters beside those that it needs; those that take things away come last.
fn calls(own: &Furnished) -> Vec<(&'static str, Map<String, Value>)> {
    let mut calls = Vec::new();
    for (path, operations) in document()["paths"].as_object().unwrap() {
        let body = &operations["post"]["requestBody"]["content"]["application/json"]["schema"];
        let base = required(own, path);
        calls.push((path.as_str(), base.clone()));
        for (name, schema) in body["properties"].as_object().unwrap() {
            if let Some(value) = value(own, name, schema).filter(|_| !base.contains_key(name)) {
                let mut body = base.clone();
                body.insert(name.clone(), value);
                calls.push((path.as_str(), body));
            }
        }
    }
    let takes_away =
        |path: &str| path.contains("delete") || path.contains("remove") || path.contains("merge");
    calls.sort_by_key(|(path, _)| takes_away(path));
    calls
}

/// The tables that a statement calls by a name.
fn tables(sql: &str) -> BTreeMap<String, BTreeSet<String>> {
    let words = sql.replace(['(', ')', ','], " , ").replace(';', " ");
    let words: Vec<_> = words.split_whitespace().collect();
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (at, word) in words.iter().enumerate() {
        if !["FROM", "JOIN", "UPDATE", "INTO", ","].contains(&word.to_ascii_uppercase().as_str()) {
            continue;
        }
        let Some(table) = words.get(at + 1) else { continue };
        let alias = match words.get(at + 2) {
            Some(&"AS") => words.get(at + 3),
            other => other,
        };
        for name in std::iter::once(table).chain(alias) {
            tables.entry((*name).to_owned()).or_default().insert((*table).to_owned());
        }
    }
    tables
}

/// What is wrong with one line of a plan.
fn fault(sql: &str, detail: &str, growing: &BTreeSet<String>) -> Option<String> {
    let (how, rest) = detail.split_once(' ')?;
    if !["SCAN", "SEARCH"].contains(&how) {
        return None;
    }
    let name = rest.split_whitespace().next()?;
    let known = tables(sql);
    let own = [name.to_owned()].into();
    let named = known.get(name).unwrap_or(&own);
    if !named.iter().any(|table| growing.contains(table)) {
        return None;
    }
    let by_what = |index: &&&str| rest.split_whitespace().any(|word| word == **index);
    if TO_BE_DONE.iter().any(|index| by_what(&index)) {
        return None;
    }
    let whole = how == "SCAN"
        || rest.contains("AUTOMATIC")
        || rest.ends_with("INTEGER PRIMARY KEY (rowid>?)")
        || (rest.ends_with("(workspace_id=?)") && named.iter().any(|table| growing.contains(table)));
    let is_excused =
        EXCUSED.iter().any(|(statement, plan, _)| sql.contains(statement) && detail.contains(plan));
    (whole && !is_excused).then(|| format!("{detail}\n  of {sql}"))
}

fn plan(reader: &Connection, sql: &str) -> Vec<String> {
    let mut statement = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let nothing = rusqlite::params_from_iter((0..statement.parameter_count()).map(|_| rusqlite::types::Null));
    statement.query_map(nothing, |row| row.get("detail")).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn no_call_and_no_clock_looks_through_what_grows_with_guests() {
    let cloud = Cloud::with_pretend_property();
    cloud.furnish_with(cloud.bridge, inventory_with_a_lock());
    let heard = Arc::new(Mutex::new(BTreeSet::new()));
    let hears = Arc::clone(&heard);
    cloud.apply(move |db| {
        let hear = move |event: TraceEvent<'_>| {
            if let TraceEvent::Stmt(statement, _) = event {
                hears.lock().unwrap().insert(statement.sql().into_owned());
            }
        };
        Ok(db.connection().trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(hear))?)
    });
    let own = Furnished::new(&cloud, &cloud.key);
    let attempt = json!({"action_attempt_id": own.id("action_attempt_id").unwrap()});
    cloud.report(&attempt, written(Written::Proven));
    let code = json!({
        "user_identity": {"full_name": "John"}, "device_ids": [own.id("device_id").unwrap()],
        "requested_access_methods": [{"mode": "code"}, {"mode": "mobile_key"}], "ends_at": in_hours(24),
    });
    cloud.ok("/access_grants/create", &code);
    cloud.ok("/acs/encoders/scan_credential", &json!({"acs_encoder_id": cloud.encoder()}));
    for (path, body) in calls(&own) {
        let (status, answer) = cloud.post(path, &Value::Object(body.clone()));
        // Nobody answers for the pretend system.
        assert!(status < 500 || path.contains("/simulate/"), "{path} {body:?}: {answer}");
        if let Some(cursor) = answer["pagination"]["next_page_cursor"].as_str() {
            let mut next = body;
            next.insert("page_cursor".into(), json!(cursor));
            cloud.post(path, &Value::Object(next));
        }
    }
    let bridge = cloud.bridge;
    cloud.apply(move |db| {
        let now = Timestamp::now() + SignedDuration::from_hours(24 * 200);
        db.end_overdue(now)?;
        db.forget(now)?;
        db.forget_people(now, Some(now))?;
        db.part(now, bridge, 1)
    });
    cloud.furnish();

    let heard = heard.lock().unwrap().clone();
    // Or nothing was heard at all.
    assert!(heard.len() > 200, "{}", heard.len());
    let reader = open_reader(&Storage::folder(cloud.folder.path()), "cloud.db").unwrap();
    let mut statement = reader.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let growing: BTreeSet<String> =
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let growing: BTreeSet<_> = growing.into_iter().filter(|table| !FEW.contains(&table.as_str())).collect();
    let is_asked = |sql: &&String| {
        ["SELECT", "UPDATE", "DELETE", "INSERT", "WITH"].iter().any(|verb| sql.trim_start().starts_with(verb))
    };
    let faults: Vec<_> = heard
        .iter()
        .filter(is_asked)
        .flat_map(|sql| plan(&reader, sql).into_iter().filter_map(|detail| fault(sql, &detail, &growing)))
        .collect();
    assert!(faults.is_empty(), "{} plans:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_plan_that_looks_through_a_table_is_known_for_one() {
    let growing = ["event".to_owned()].into();
    for (sql, detail, is_fault) in [
        ("SELECT * FROM event e WHERE kind = 1", "SCAN e", true),
        ("SELECT * FROM event AS e", "SCAN e USING COVERING INDEX event_by_time", true),
        ("SELECT * FROM event", "SEARCH event USING INTEGER PRIMARY KEY (rowid>?)", true),
        ("SELECT * FROM event", "SEARCH event USING INDEX event_by_time (workspace_id=?)", true),
        ("SELECT * FROM a, event", "SEARCH event USING AUTOMATIC COVERING INDEX (x=?)", true),
        ("SELECT * FROM event", "SEARCH event USING INDEX event_by_time (workspace_id=? AND rowid>?)", false),
        ("SELECT * FROM event", "SEARCH event USING INTEGER PRIMARY KEY (rowid=?)", false),
        ("SELECT * FROM site e", "SCAN e", false),
    ] {
        assert_eq!(fault(sql, detail, &growing).is_some(), is_fault, "{sql}: {detail}");
    }
}
