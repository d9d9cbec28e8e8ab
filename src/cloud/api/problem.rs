//! Refusals as HTTP answers.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::{
    grants::{Class, Refused},
    store::StoreError,
};

/// A refusal with its status.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    kind: &'static str,
    message: String,
    /// What is wrong with each parameter, by path.
    fields: Vec<(Vec<String>, String)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), fields: Vec::new() }
    }

    /// Parameters that are not what they should be.
    pub(super) fn invalid(fields: Vec<(Vec<String>, String)>) -> Self {
        let message = fields
            .iter()
            .map(|(path, what)| match path.as_slice() {
                [] => what.clone(),
                path => format!("{what} for \"{}\"", path.join(".")),
            })
            .collect::<Vec<_>>()
            .join("; ");
        Self { fields, ..Self::new(StatusCode::BAD_REQUEST, "invalid_input", message) }
    }

    pub(super) fn invalid_parameter(parameter: &str, what: impl Into<String>) -> Self {
        Self::invalid(vec![(vec![parameter.to_owned()], what.into())])
    }

    pub(super) fn unauthorized(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn body(&self) -> Value {
        let mut error = json!({"type": self.kind, "message": self.message});
        if self.kind == "invalid_input" {
            let mut tree = json!({"_errors": []});
            for (path, what) in &self.fields {
                note(&mut tree, path, what);
            }
            error["validation_errors"] = tree;
        }
        json!({"error": error, "ok": false})
    }
}

fn note(tree: &mut Value, path: &[String], what: &str) {
    match path {
        [] => {
            if let Some(errors) = tree["_errors"].as_array_mut() {
                errors.push(json!(what));
            }
        }
        [first, rest @ ..] => {
            if let Some(fields) = tree.as_object_mut() {
                let below = fields
                    .entry(first.clone())
                    .or_insert_with(|| Value::Object(Map::from_iter([("_errors".into(), json!([]))])));
                note(below, rest, what);
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        if let Some(parameter) = refused.parameter() {
            return Self::invalid_parameter(parameter, refused.to_string());
        }
        let status = match refused.class() {
            Class::Invalid => StatusCode::BAD_REQUEST,
            Class::NotFound => StatusCode::NOT_FOUND,
            Class::Conflict => StatusCode::CONFLICT,
        };
        Self::new(status, refused.name(), refused.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a request failed in the database");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "The request failed; nothing was changed",
        )
    }
}
