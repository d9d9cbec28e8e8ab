//! What answers look like, for the API's own description. Tests hold every answer they get against these.

use serde_json::{Map, Value, json};

/// A schema and its name.
pub(super) type Named = (&'static str, fn() -> Value);

/// Every schema.
pub(super) const ALL: &[Named] = &[
    ("access_grant", access_grant),
    ("access_method", access_method),
    ("acs_credential", acs_credential),
    ("acs_encoder", acs_encoder),
    ("acs_entrance", acs_entrance),
    ("acs_system", acs_system),
    ("action_attempt", action_attempt),
    ("batch", batch),
    ("connected_account", connected_account),
    ("device", device),
    ("event", event),
    ("instant_key", instant_key),
    ("pagination", pagination),
    ("refusal", refusal),
    ("space", space),
    ("user_identity", user_identity),
    ("webhook", webhook),
    ("workspace", workspace),
];

/// An object with these fields, always or perhaps, and no others.
pub(super) fn object(always: &[(&str, Value)], perhaps: &[(&str, Value)]) -> Value {
    let fields = always.iter().chain(perhaps);
    let properties: Map<_, _> = fields.map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<_> = always.iter().map(|(name, _)| *name).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

pub(super) fn list(of: &Value) -> Value {
    json!({"type": "array", "items": of})
}

pub(super) fn or_null(schema: &Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn id() -> Value {
    json!({"type": "string", "format": "uuid"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn url() -> Value {
    json!({"type": "string", "format": "uri"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn anything() -> Value {
    json!({"type": "object"})
}

fn one_of(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Errors, warnings or pending mutations: each with a code, a message, a time, and what belongs to its code.
fn notes(code: &str) -> Value {
    list(&json!({
        "type": "object",
        "properties": {code: text(), "message": text(), "created_at": time()},
        "required": [code, "message", "created_at"],
    }))
}

fn errors() -> (&'static str, Value) {
    ("errors", notes("error_code"))
}

fn warnings() -> (&'static str, Value) {
    ("warnings", notes("warning_code"))
}

fn mutations() -> (&'static str, Value) {
    ("pending_mutations", notes("mutation_code"))
}

fn mode() -> Value {
    one_of(&["code", "card", "mobile_key", "cloud_key"])
}

fn instant_key() -> Value {
    object(
        &[
            ("instant_key_id", id()),
            ("workspace_id", id()),
            ("user_identity_id", id()),
            ("client_session_id", id()),
            ("instant_key_url", url()),
            ("created_at", time()),
            ("expires_at", time()),
        ],
        &[("customization_profile_id", id())],
    )
}

fn pagination() -> Value {
    object(
        &[
            ("has_next_page", flag()),
            ("next_page_cursor", or_null(&text())),
            ("next_page_url", or_null(&url())),
        ],
        &[],
    )
}

fn refusal() -> Value {
    let error = object(
        &[("type", text()), ("message", text())],
        &[("validation_errors", anything()), ("data", anything())],
    );
    object(&[("error", error), ("ok", json!({"const": false}))], &[])
}

fn workspace() -> Value {
    object(
        &[
            ("workspace_id", id()),
            ("name", text()),
            ("company_name", text()),
            ("connect_partner_name", or_null(&text())),
            ("connect_webview_customization", anything()),
            ("is_sandbox", flag()),
            ("is_suspended", flag()),
            ("is_publishable_key_auth_enabled", flag()),
            ("organization_id", or_null(&id())),
        ],
        &[],
    )
}

fn user_identity() -> Value {
    object(
        &[
            ("user_identity_id", id()),
            ("workspace_id", id()),
            ("created_at", time()),
            ("full_name", or_null(&text())),
            ("email_address", or_null(&text())),
            ("phone_number", or_null(&text())),
            ("user_identity_key", or_null(&text())),
            ("display_name", text()),
            ("acs_user_ids", list(&id())),
            ("merged_user_identity_ids", list(&id())),
            ("merged_user_identity_keys", list(&text())),
            errors(),
            warnings(),
        ],
        &[],
    )
}

fn space() -> Value {
    let customer = object(
        &[],
        &[
            ("address", or_null(&text())),
            ("default_checkin_time", or_null(&text())),
            ("default_checkout_time", or_null(&text())),
            ("time_zone", or_null(&text())),
        ],
    );
    object(
        &[
            ("space_id", id()),
            ("workspace_id", id()),
            ("created_at", time()),
            ("name", text()),
            ("display_name", text()),
            ("acs_entrance_count", count()),
            ("device_count", count()),
            warnings(),
        ],
        &[
            ("space_key", text()),
            ("customer_key", text()),
            ("customer_data", customer),
            ("parent_space_id", id()),
            ("parent_space_key", text()),
        ],
    )
}

fn acs_system() -> Value {
    object(
        &[
            ("acs_system_id", id()),
            ("workspace_id", id()),
            ("connected_account_id", id()),
            ("connected_account_ids", list(&id())),
            ("created_at", time()),
            ("name", text()),
            ("location", object(&[("time_zone", or_null(&text()))], &[])),
            ("image_url", url()),
            ("image_alt_text", text()),
            ("is_credential_manager", flag()),
            errors(),
            warnings(),
        ],
        &[
            ("external_type", text()),
            ("external_type_display_name", text()),
            ("system_type", text()),
            ("system_type_display_name", text()),
        ],
    )
}

fn acs_entrance() -> Value {
    object(
        &[
            ("acs_entrance_id", id()),
            ("acs_system_id", id()),
            ("connected_account_id", id()),
            ("created_at", time()),
            ("display_name", text()),
            ("space_ids", list(&id())),
            errors(),
            warnings(),
        ],
        &[
            ("can_unlock_with_card", flag()),
            ("can_unlock_with_code", flag()),
            ("can_unlock_with_mobile_key", flag()),
            ("can_unlock_with_cloud_key", flag()),
            ("can_belong_to_reservation", flag()),
            ("salto_space_metadata", anything()),
        ],
    )
}

fn acs_encoder() -> Value {
    object(
        &[
            ("acs_encoder_id", id()),
            ("acs_system_id", id()),
            ("connected_account_id", id()),
            ("workspace_id", id()),
            ("created_at", time()),
            ("display_name", text()),
            errors(),
        ],
        &[],
    )
}

fn device() -> Value {
    json!({
        "type": "object",
        "properties": {
            "device_id": id(),
            "workspace_id": id(),
            "connected_account_id": id(),
            "device_type": text(),
            "display_name": text(),
            "created_at": time(),
            "is_managed": {"const": true},
            "space_ids": list(&id()),
            "capabilities_supported": list(&text()),
            "custom_metadata": anything(),
            "properties": anything(),
            "errors": errors().1,
            "warnings": warnings().1,
        },
        "required": ["device_id", "workspace_id", "connected_account_id", "device_type", "display_name", "created_at",
                     "is_managed", "space_ids", "capabilities_supported", "custom_metadata", "properties", "errors",
                     "warnings"],
    })
}

fn access_grant() -> Value {
    let requested = object(
        &[
            ("display_name", text()),
            ("mode", mode()),
            ("created_at", time()),
            ("created_access_method_ids", list(&id())),
        ],
        &[("code", text()), ("instant_key_max_use_count", count())],
    );
    object(
        &[
            ("access_grant_id", id()),
            ("workspace_id", id()),
            ("user_identity_id", id()),
            ("name", or_null(&text())),
            ("display_name", text()),
            ("display_status", text()),
            ("created_at", time()),
            ("starts_at", time()),
            ("ends_at", or_null(&time())),
            ("space_ids", list(&id())),
            ("location_ids", list(&id())),
            ("requested_access_methods", list(&requested)),
            ("access_method_ids", list(&id())),
            errors(),
            warnings(),
            mutations(),
        ],
        &[
            ("access_grant_key", text()),
            ("reservation_key", text()),
            ("instant_key_url", url()),
            ("client_session_token", text()),
            ("customization_profile_id", id()),
        ],
    )
}

fn access_method() -> Value {
    object(
        &[
            ("access_method_id", id()),
            ("workspace_id", id()),
            ("mode", mode()),
            ("display_name", text()),
            ("display_status", text()),
            ("created_at", time()),
            ("is_issued", flag()),
            ("issued_at", or_null(&time())),
            errors(),
            warnings(),
            mutations(),
        ],
        &[
            ("code", or_null(&text())),
            ("instant_key_url", url()),
            ("client_session_token", text()),
            ("customization_profile_id", id()),
            ("is_encoding_required", flag()),
            ("is_ready_for_encoding", flag()),
            ("is_assignment_required", flag()),
            ("is_ready_for_assignment", flag()),
        ],
    )
}

fn acs_credential() -> Value {
    object(
        &[
            ("acs_credential_id", id()),
            ("acs_system_id", id()),
            ("connected_account_id", id()),
            ("workspace_id", id()),
            ("access_method", mode()),
            ("display_name", text()),
            ("created_at", time()),
            ("is_managed", json!({"const": true})),
            errors(),
            warnings(),
        ],
        &[
            ("user_identity_id", id()),
            ("external_type", text()),
            ("external_type_display_name", text()),
            ("starts_at", time()),
            ("ends_at", time()),
            ("is_issued", flag()),
            ("issued_at", or_null(&time())),
            ("card_number", or_null(&text())),
            ("is_multi_phone_sync_credential", flag()),
            ("is_one_time_use", flag()),
            ("is_latest_desired_state_synced_with_provider", or_null(&flag())),
            ("latest_desired_state_synced_with_provider_at", or_null(&time())),
        ],
    )
}

fn action_attempt() -> Value {
    let attempt = |status: &str, result: Value, error: Value, perhaps: &[(&str, Value)]| {
        object(
            &[
                ("action_attempt_id", id()),
                ("action_type", text()),
                ("status", json!({"const": status})),
                ("result", result),
                ("error", error),
            ],
            perhaps,
        )
    };
    let none = || json!({"type": "null"});
    let error = object(&[("type", text()), ("message", text())], &[]);
    let result = json!({"anyOf": [named("acs_credential"), anything()]});
    json!({"oneOf": [
        attempt("pending", none(), none(), &[("stage", text())]),
        attempt("success", result, none(), &[]),
        attempt("error", none(), error, &[]),
    ]})
}

fn connected_account() -> Value {
    object(
        &[
            ("connected_account_id", id()),
            ("account_type", text()),
            ("account_type_display_name", text()),
            ("display_name", text()),
            ("created_at", time()),
            ("accepted_capabilities", list(&text())),
            ("automatically_manage_new_devices", flag()),
            ("custom_metadata", anything()),
            errors(),
            warnings(),
        ],
        &[],
    )
}

fn batch() -> Value {
    let of = |name: &str| list(&named(name));
    object(
        &[],
        &[
            ("access_grants", of("access_grant")),
            ("access_methods", of("access_method")),
            ("acs_access_groups", list(&anything())),
            ("acs_credentials", of("acs_credential")),
            ("acs_entrances", of("acs_entrance")),
            ("acs_systems", of("acs_system")),
            ("client_sessions", list(&anything())),
            ("connected_accounts", of("connected_account")),
            ("devices", of("device")),
            ("instant_keys", of("instant_key")),
            ("spaces", of("space")),
            ("user_identities", of("user_identity")),
        ],
    )
}

fn event() -> Value {
    json!({
        "type": "object",
        "properties": {
            "event_id": id(),
            "event_type": text(),
            "workspace_id": id(),
            "created_at": time(),
            "occurred_at": time(),
        },
        "required": ["event_id", "event_type", "workspace_id", "created_at", "occurred_at"],
    })
}

fn webhook() -> Value {
    object(&[("webhook_id", id()), ("url", url()), ("event_types", list(&text())), ("secret", text())], &[])
}
