//! Rows as the JSON objects that clients know: every documented field, all arrays present, times in UTC with
//! milliseconds.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cloud::{
        store::{
            Attempt, AttemptState, Credential, Encoder, Entrance, Grant, Identity, Method, Scan, ScanState,
            Scanned, Space, System, SystemTrouble, TimedEvent, Workspace,
        },
        time_text,
    },
    grants::{CardFate, Mode},
    model::{DoorKind, Private, WorkspaceId},
    protocol::Stage,
};

/// Leaves out what is null: for fields that may be absent.
fn without_nulls(mut value: Value, names: &[&str]) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, value| !(value.is_null() && names.contains(&name.as_str())));
    }
    value
}

fn maybe_time(time: Option<Timestamp>) -> Option<String> {
    time.map(time_text)
}

pub(super) fn workspace(workspace: &Workspace) -> Value {
    json!({
        "workspace_id": workspace.id,
        "name": workspace.name,
        "company_name": workspace.name,
        "connect_partner_name": workspace.name,
        "connect_webview_customization": {},
        "is_sandbox": false,
        "is_suspended": false,
        "is_publishable_key_auth_enabled": false,
        "organization_id": null,
    })
}

pub(super) fn identity(workspace: WorkspaceId, identity: &Identity) -> Value {
    let person = &identity.person;
    let names = [&person.full_name, &person.email_address, &person.phone_number, &person.user_identity_key];
    let display_name = names.into_iter().flatten().find(|name| !name.is_empty());
    json!({
        "user_identity_id": identity.id,
        "workspace_id": workspace,
        "created_at": time_text(identity.created_at),
        "full_name": person.full_name,
        "email_address": person.email_address,
        "phone_number": person.phone_number,
        "user_identity_key": person.user_identity_key,
        "display_name": display_name,
        "acs_user_ids": [],
        "merged_user_identity_ids": identity.merged.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        "merged_user_identity_keys": identity.merged.iter().filter_map(|(_, key)| key.as_ref()).collect::<Vec<_>>(),
        "errors": [],
        "warnings": [],
    })
}

pub(super) fn space(workspace: WorkspaceId, space: &Space) -> Value {
    without_nulls(
        json!({
            "space_id": space.id,
            "workspace_id": workspace,
            "created_at": time_text(space.created_at),
            "name": space.name,
            "display_name": space.name,
            "acs_entrance_count": space.entrance_count,
            "device_count": 0,
            "space_key": space.space_key,
            "customer_key": space.customer_key,
            "customer_data": space.customer_data,
            "parent_space_id": space.parent.as_ref().map(|(id, _)| id),
            "parent_space_key": space.parent.as_ref().and_then(|(_, key)| key.as_ref()),
            "warnings": [],
        }),
        &["space_key", "customer_key", "customer_data", "parent_space_id", "parent_space_key"],
    )
}

pub(super) fn system(workspace: WorkspaceId, system: &System) -> Value {
    let mut errors: Vec<_> = system.troubles.iter().map(SystemTrouble::to_json).collect();
    if let Some(removed_at) = system.removed_at {
        errors.push(json!({
            "error_code": "acs_system_disconnected",
            "message": "The property no longer has this access system",
            "created_at": time_text(removed_at),
        }));
    }
    json!({
        "acs_system_id": system.id,
        "workspace_id": workspace,
        "connected_account_id": system.account,
        "connected_account_ids": [system.account],
        "created_at": time_text(system.created_at),
        "name": system.name,
        "location": {"time_zone": system.time_zone},
        "external_type": "salto_space_system",
        "external_type_display_name": "SALTO SPACE system",
        "system_type": "salto_space_system",
        "system_type_display_name": "SALTO SPACE system",
        "image_url": "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'/%3E",
        "image_alt_text": "",
        "is_credential_manager": false,
        "errors": errors,
        "warnings": [],
    })
}

/// The account of an access system: the configuration of its site stands for it.
pub(super) fn account(system: &System) -> Value {
    json!({
        "connected_account_id": system.account,
        "account_type": "salto_space",
        "account_type_display_name": "SALTO SPACE",
        "display_name": system.name,
        "created_at": time_text(system.created_at),
        "accepted_capabilities": [],
        "automatically_manage_new_devices": true,
        "custom_metadata": {},
        "errors": [],
        "warnings": [],
    })
}

pub(super) fn entrance(entrance: &Entrance) -> Value {
    let removed = entrance.removed_at.map(|removed_at| {
        json!({
            "error_code": "entrance_removed",
            "message": "The access system no longer has this entrance",
            "created_at": time_text(removed_at),
        })
    });
    let mut metadata = json!({"door_name": entrance.name});
    if entrance.kind == DoorKind::Room {
        metadata["room_name"] = json!(entrance.name);
    }
    json!({
        "acs_entrance_id": entrance.id,
        "acs_system_id": entrance.system,
        "connected_account_id": entrance.account,
        "created_at": time_text(entrance.created_at),
        "display_name": entrance.display_name.as_ref().unwrap_or(&entrance.name),
        "space_ids": entrance.spaces,
        "can_unlock_with_card": true,
        "can_unlock_with_code": false,
        "can_unlock_with_mobile_key": false,
        "can_unlock_with_cloud_key": false,
        "can_belong_to_reservation": entrance.kind == DoorKind::Room,
        "salto_space_metadata": metadata,
        "errors": removed.into_iter().collect::<Vec<_>>(),
        "warnings": [],
    })
}

pub(super) fn encoder(workspace: WorkspaceId, encoder: &Encoder) -> Value {
    let removed = encoder.removed_at.map(|removed_at| {
        json!({
            "error_code": "acs_encoder_removed",
            "message": "The access system no longer has this encoder",
            "created_at": time_text(removed_at),
        })
    });
    json!({
        "acs_encoder_id": encoder.id,
        "acs_system_id": encoder.system,
        "connected_account_id": encoder.account,
        "workspace_id": workspace,
        "created_at": time_text(encoder.created_at),
        "display_name": encoder.display_name.as_ref().unwrap_or(&encoder.name),
        "errors": removed.into_iter().collect::<Vec<_>>(),
    })
}

pub(super) fn grant(workspace: WorkspaceId, grant: &Grant, now: Timestamp) -> Value {
    let requested: Vec<_> = (0_u32..)
        .zip(&grant.requested)
        .map(|(place, (mode, code))| {
            let made: Vec<_> =
                grant.methods.iter().filter(|method| method.place == place).map(|method| method.id).collect();
            without_nulls(
                json!({
                    "display_name": mode.display_name(),
                    "mode": mode.as_str(),
                    "created_at": time_text(grant.created_at),
                    "created_access_method_ids": made,
                    "code": code.as_ref().map(Private::expose),
                }),
                &["code"],
            )
        })
        .collect();
    let errors: Vec<_> = grant
        .errors
        .iter()
        .map(|(code, message, created_at)| {
            json!({"error_code": code, "message": message, "created_at": time_text(*created_at)})
        })
        .collect();
    let methods: Vec<_> = grant.methods.iter().map(|method| method.id).collect();
    let name = grant.name.as_ref().map(Private::expose);
    without_nulls(
        json!({
            "access_grant_id": grant.id,
            "workspace_id": workspace,
            "user_identity_id": grant.user_identity,
            "access_grant_key": grant.key,
            "reservation_key": grant.reservation_key,
            "name": name,
            "display_name": name.unwrap_or("My Access Grant"),
            "display_status": grant_status(grant, now),
            "created_at": time_text(grant.created_at),
            "starts_at": time_text(grant.window.starts_at()),
            "ends_at": maybe_time(grant.window.ends_at()),
            "space_ids": grant.spaces,
            "location_ids": grant.spaces,
            "requested_access_methods": requested,
            "access_method_ids": methods,
            "errors": errors,
            "warnings": grant_warnings(grant, now),
            "pending_mutations": [],
        }),
        &["access_grant_key", "reservation_key"],
    )
}

fn grant_status(grant: &Grant, now: Timestamp) -> &'static str {
    if grant.deleted_at.is_some() {
        "Being deleted"
    } else if grant.window.is_over(now) {
        "Expired"
    } else if grant.methods.iter().any(|method| !method.is_issued) || grant.methods.is_empty() {
        "Awaiting issuance"
    } else if grant.window.starts_at() > now {
        "Upcoming"
    } else {
        "Active"
    }
}

fn grant_warnings(grant: &Grant, now: Timestamp) -> Vec<Value> {
    let Some(deleted_at) = grant.deleted_at else {
        return Vec::new();
    };
    let warning = |code: &str, message: String| json!({"warning_code": code, "message": message, "created_at": time_text(deleted_at)});
    let mut warnings = vec![warning("being_deleted", "This access grant is being deleted".into())];
    let opening: Vec<_> = grant
        .methods
        .iter()
        .filter_map(|method| match method.card {
            CardFate::MayExist { opens_until } if method.card.may_open(now) => Some(opens_until),
            _ => None,
        })
        .collect();
    if !opening.is_empty() {
        let until = match opening.iter().copied().collect::<Option<Vec<_>>>() {
            Some(ends) => match ends.into_iter().max() {
                Some(end) => format!("until {}", time_text(end)),
                None => "until it is taken back".into(),
            },
            None => "until it is taken back".into(),
        };
        warnings.push(warning(
            "overprovisioned_access",
            format!(
                "A card of this access grant still opens {until}: offline locks cannot be told. Take the card back, \
                 have the room checked out, or let the next guest's card be used at the door"
            ),
        ));
    }
    warnings
}

pub(super) fn method(workspace: WorkspaceId, method: &Method) -> Value {
    let warnings: Vec<_> = method
        .deleted
        .map(|deleted_at| {
            json!({
                "warning_code": "being_deleted",
                "message": "This access method is being deleted",
                "created_at": time_text(deleted_at),
            })
        })
        .into_iter()
        .collect();
    let mut answer = json!({
        "access_method_id": method.id,
        "workspace_id": workspace,
        "mode": method.mode.as_str(),
        "display_name": method.mode.display_name(),
        "display_status": method_status(method),
        "created_at": time_text(method.created_at),
        "is_issued": method.is_issued,
        "issued_at": maybe_time(method.issued_at),
        "errors": [],
        "warnings": warnings,
        "pending_mutations": [],
    });
    if method.mode == Mode::Card {
        let required = !method.is_issued;
        answer["is_encoding_required"] = json!(required);
        answer["is_ready_for_encoding"] = json!(required && !method.in_doubt && method.deleted.is_none());
    }
    answer
}

fn method_status(method: &Method) -> &'static str {
    if method.deleted.is_some() {
        "Being deleted"
    } else if method.in_doubt {
        "Perhaps written: read the card"
    } else if method.is_issued {
        "Issued"
    } else {
        "Awaiting encoding"
    }
}

/// An attempt; while it is pending, with the stage at which its bridge has the job, as far as that is known.
pub(super) fn attempt(workspace: WorkspaceId, attempt: &Attempt, stage: Option<Stage>) -> Value {
    let (status, result, error) = match &attempt.state {
        AttemptState::Pending => ("pending", Value::Null, Value::Null),
        AttemptState::Success(card) => ("success", credential(workspace, card), Value::Null),
        AttemptState::Error { kind, message } => {
            ("error", Value::Null, json!({"type": kind, "message": message}))
        }
    };
    let mut answer = json!({
        "action_attempt_id": attempt.id,
        "action_type": "ENCODE_CREDENTIAL",
        "status": status,
        "result": result,
        "error": error,
    });
    if let (AttemptState::Pending, Some(stage)) = (&attempt.state, stage) {
        answer["stage"] = json!(stage);
    }
    answer
}

/// An attempt to read a card.
pub(super) fn scan(workspace: WorkspaceId, scan: &Scan, stage: Option<Stage>) -> Value {
    let (status, result, error) = match &scan.state {
        ScanState::Pending => ("pending", Value::Null, Value::Null),
        ScanState::Seen(seen) => ("success", scanned(workspace, seen), Value::Null),
        ScanState::Error { kind, message } => {
            ("error", Value::Null, json!({"type": kind, "message": message}))
        }
    };
    let mut answer = json!({
        "action_attempt_id": scan.id,
        "action_type": "SCAN_CREDENTIAL",
        "status": status,
        "result": result,
        "error": error,
    });
    if let (ScanState::Pending, Some(stage)) = (&scan.state, stage) {
        answer["stage"] = json!(stage);
    }
    answer
}

fn scanned(workspace: WorkspaceId, seen: &Scanned) -> Value {
    let card = &seen.card;
    let warning = |code: &str, message: &str| json!({"warning_code": code, "warning_message": message});
    let mut warnings = Vec::new();
    match &seen.known {
        None if card.one_of_several => warnings.push(warning(
            "acs_credential_on_seam_not_found",
            "Several cards of this stay look the same: this may be any of them",
        )),
        None => warnings.push(warning(
            "acs_credential_on_seam_not_found",
            "No card that was made here is known to look like this one",
        )),
        Some(known) if card.valid == Some(false) || known.window.ends_at() != card.ends_at => {
            warnings.push(warning(
                "acs_credential_on_encoder_out_of_sync",
                "What lies on the encoder is not what was written last: write the card again",
            ));
        }
        Some(_) => {}
    }
    json!({
        "acs_credential_on_encoder": {
            "card_number": null,
            "created_at": null,
            "starts_at": maybe_time(card.starts_at),
            "ends_at": maybe_time(card.ends_at),
            "is_issued": card.valid,
        },
        "acs_credential_on_seam": seen.known.as_ref().map(|known| credential(workspace, known)),
        "warnings": warnings,
    })
}

pub(super) fn credential(workspace: WorkspaceId, card: &Credential) -> Value {
    let unproven = (!card.proven).then(|| {
        json!({
            "warning_code": "unknown_issue_with_acs_credential",
            "message": "The access system took the order, but does not say that the card was written: try the card",
            "created_at": time_text(card.issued_at),
        })
    });
    without_nulls(
        json!({
            "acs_credential_id": card.id,
            "acs_system_id": card.system,
            "connected_account_id": card.account,
            "workspace_id": workspace,
            "user_identity_id": card.user_identity,
            "access_method": "card",
            "display_name": Mode::Card.display_name(),
            "external_type": "salto_space_key",
            "external_type_display_name": "SALTO SPACE key",
            "created_at": time_text(card.created_at),
            "starts_at": time_text(card.window.starts_at()),
            "ends_at": maybe_time(card.window.ends_at()),
            "is_managed": true,
            "is_issued": true,
            "issued_at": time_text(card.issued_at),
            "card_number": card.card_number,
            "is_multi_phone_sync_credential": false,
            "is_one_time_use": false,
            "is_latest_desired_state_synced_with_provider": true,
            "latest_desired_state_synced_with_provider_at": time_text(card.issued_at),
            "errors": [],
            "warnings": unproven.into_iter().collect::<Vec<_>>(),
        }),
        &["ends_at"],
    )
}

pub(super) fn event(workspace: WorkspaceId, event: &TimedEvent) -> Value {
    let mut answer = event.fields.clone();
    let at = time_text(event.occurred_at);
    answer.insert("event_id".into(), json!(event.id));
    answer.insert("event_type".into(), json!(event.kind));
    answer.insert("workspace_id".into(), json!(workspace));
    answer.insert("created_at".into(), json!(at));
    answer.insert("occurred_at".into(), json!(at));
    Value::Object(answer)
}
