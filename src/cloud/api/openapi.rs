//! The API's own description, made from the table of calls.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{
    calls::{Answers, CALLS, Call, SIMULATED},
    params::{Kind, LONGEST_LIST, LONGEST_TEXT, Param},
    schemas,
};

/// Statuses that any call may be refused with, and what each means.
const REFUSALS: [(&str, &str); 11] = [
    ("400", "A parameter is not what it should be, or what is asked cannot be"),
    ("401", "No API key, or one that does not count"),
    ("404", "Something that is named is not there"),
    ("405", "The call does not take this method"),
    ("408", "The body took too long"),
    ("409", "What is asked does not go with what is there"),
    ("413", "The body is too large"),
    ("414", "The query string is too long; send the same call as POST"),
    ("431", "The headers are too large"),
    ("500", "The request failed; nothing was changed"),
    ("503", "The request took too long"),
];

/// Ids that fit into the longest query string; more of them go by POST.
const IN_QUERY: usize = 200;

/// Every call, those for pretend access systems included.
fn every() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().copied().chain([SIMULATED]).flatten()
}

/// The HTTP API as an OpenAPI 3.1 document: every call with both of its methods, its parameters and its answers.
#[must_use]
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for call in every() {
        let mut operations = Map::from_iter([("post".to_owned(), operation(call, &Method::POST))]);
        if call.method != Method::POST {
            operations.insert(call.method.as_str().to_ascii_lowercase(), operation(call, &call.method));
        }
        paths.insert(call.path.to_owned(), Value::Object(operations));
    }
    let named = schemas::ALL.iter().map(|(name, schema)| ((*name).to_owned(), schema()));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "latchd cloud",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Access grants for a property's doors. Every call is taken as POST with a JSON body, and \
                            by the method beside it.",
        },
        "security": [{"api_key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"api_key": {"type": "http", "scheme": "bearer"}},
            "schemas": named.collect::<Map<_, _>>(),
        },
    })
}

fn operation(call: &Call, method: &Method) -> Value {
    let name = call.path.trim_start_matches('/').replace('/', "_");
    let mut operation = json!({
        "operationId": match *method == Method::POST {
            true => name,
            false => format!("{name}_{}", method.as_str().to_ascii_lowercase()),
        },
        "tags": [call.path.trim_start_matches('/').rsplit_once('/').map_or("", |(group, _)| group)],
        "responses": responses(call),
    });
    if SIMULATED.iter().any(|simulated| simulated.path == call.path) {
        operation["description"] = json!("There only where the operator names pretend access systems");
    }
    if *method == Method::GET || *method == Method::DELETE {
        let mut parameters = Vec::new();
        query(call.params, "", &mut parameters);
        operation["parameters"] = Value::Array(parameters);
    } else {
        let required = call.params.iter().any(|param| param.required);
        operation["requestBody"] = json!({
            "required": required,
            "content": {"application/json": {"schema": object(call.params)}},
        });
    }
    operation
}

fn responses(call: &Call) -> Value {
    let mut responses = Map::new();
    let done =
        json!({"description": "Done", "content": {"application/json": {"schema": answer(call.answers)}}});
    responses.insert("200".into(), done);
    for (status, meaning) in REFUSALS {
        let schema = json!({"$ref": "#/components/schemas/refusal"});
        let refused = json!({"description": meaning, "content": {"application/json": {"schema": schema}}});
        responses.insert(status.into(), refused);
    }
    Value::Object(responses)
}

fn answer(answers: Answers) -> Value {
    let named = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let mut fields = vec![("ok", json!({"const": true}))];
    match answers {
        Answers::Nothing => {}
        Answers::One(key, thing) => fields.push((key, named(thing))),
        Answers::All(key, thing) => fields.push((key, schemas::list(&named(thing)))),
        Answers::AllTwice(key, older, thing) => {
            fields.extend([key, older].map(|key| (key, schemas::list(&named(thing)))));
        }
        Answers::Pages(key, thing) => {
            fields.push((key, schemas::list(&named(thing))));
            fields.push(("pagination", named("pagination")));
        }
    }
    schemas::object(&fields, &[])
}

fn query(params: &[Param], before: &str, into: &mut Vec<Value>) {
    for param in params {
        let name = format!("{before}{}", param.name);
        if let Kind::Object(fields) = param.kind {
            query(fields, &format!("{name}."), into);
            continue;
        }
        into.push(json!({
            "name": name,
            "in": "query",
            "required": param.required && before.is_empty(),
            "schema": match kind(&param.kind) {
                mut list if list["type"] == "array" => {
                    list["maxItems"] = json!(IN_QUERY);
                    list
                }
                other => other,
            },
        }));
    }
}

fn object(params: &[Param]) -> Value {
    let schema = |param: &Param| match param.required {
        true => kind(&param.kind),
        // Null is as good as not given, where it does not mean to empty something.
        false => schemas::or_null(&kind(&param.kind)),
    };
    let properties: Map<_, _> = params.iter().map(|param| (param.name.to_owned(), schema(param))).collect();
    let required: Vec<_> = params.iter().filter(|param| param.required).map(|param| param.name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// What a parameter of a kind may be.
fn kind(of: &Kind) -> Value {
    match of {
        Kind::Text => json!({
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST_TEXT,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        }),
        Kind::Email => json!({"type": "string", "format": "email", "maxLength": 254}),
        Kind::Code => json!({"type": "string", "pattern": "^[0-9]{4,9}$"}),
        Kind::Id => json!({"type": "string", "format": "uuid"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::Count(most) => json!({"type": "integer", "minimum": 1, "maximum": most}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Clock => json!({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"}),
        Kind::Zone => json!({"type": "string", "maxLength": 64, "examples": ["Europe/Oslo"]}),
        Kind::Choice(words) => json!({"type": "string", "enum": words}),
        Kind::List(of) => json!({"type": "array", "items": kind(of), "maxItems": LONGEST_LIST}),
        Kind::Object(params) => object(params),
        Kind::Any => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `$ref` in a document.
    fn references(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get("$ref") {
                    into.insert(to.clone());
                }
                fields.values().for_each(|value| references(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }

    #[test]
    fn the_document_names_every_call_once_and_nothing_it_does_not_hold() {
        let document = openapi();
        assert_eq!(document["paths"].as_object().unwrap().len(), every().count(), "two calls have one path");
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        let held: BTreeSet<_> =
            schemas::ALL.iter().map(|(name, _)| format!("#/components/schemas/{name}")).collect();
        assert_eq!(used, held);
    }
}
