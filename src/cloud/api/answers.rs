//! Rows as the JSON objects that clients know: every documented field, all arrays present, times in UTC with
//! milliseconds.

mod still_open;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cloud::{
        store::{
            Attempt, AttemptState, Credential, DeviceRow, DeviceTrouble, Encoder, Entrance, Grant, Identity,
            InstantKey, Method, Scan, ScanState, Scanned, Space, StayEndTrouble, System, SystemTrouble,
            TimedEvent, Webhook, Workspace,
        },
        time_text,
    },
    grants::{Mode, pin},
    model::{DeviceId, DoorKind, PinConstraint, PinRules, Private, UserIdentityId, Window, WorkspaceId},
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
            "device_count": space.device_count,
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
    // Of a make that clients have no name for, none is given.
    let make = Make::of(system);
    let answer = json!({
        "acs_system_id": system.id,
        "workspace_id": workspace,
        "connected_account_id": system.account,
        "connected_account_ids": [system.account],
        "created_at": time_text(system.created_at),
        "name": system.name,
        "location": {"time_zone": system.time_zone},
        "external_type": make.system_type.map(|(kind, _)| kind),
        "external_type_display_name": make.system_type.map(|(_, name)| name),
        "system_type": make.system_type.map(|(kind, _)| kind),
        "system_type_display_name": make.system_type.map(|(_, name)| name),
        "image_url": "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'/%3E",
        "image_alt_text": "",
        "is_credential_manager": false,
        "errors": errors,
        "warnings": [],
    });
    let types = ["external_type", "external_type_display_name", "system_type", "system_type_display_name"];
    without_nulls(answer, &types)
}

/// How clients know the make of an access system.
struct Make {
    account_type: String,
    account_name: String,
    /// Its type and what people call it, where clients have one.
    system_type: Option<(&'static str, &'static str)>,
}

impl Make {
    fn of(system: &System) -> Self {
        match system.kind.as_str() {
            "salto_is" => Self {
                account_type: "salto_space".into(),
                account_name: "SALTO SPACE".into(),
                system_type: Some(("salto_space_system", "SALTO SPACE system")),
            },
            "visionline" => Self {
                account_type: "visionline".into(),
                account_name: "Visionline".into(),
                system_type: Some(("visionline_system", "Visionline system")),
            },
            "kaba_messenger" => Self {
                account_type: "dormakaba_ambiance".into(),
                account_name: "dormakaba Messenger".into(),
                system_type: Some(("dormakaba_ambiance_site", "dormakaba Ambiance site")),
            },
            "igloohome" => {
                Self { account_type: "igloohome".into(), account_name: "igloohome".into(), system_type: None }
            }
            "sim_lock" => Self {
                account_type: "sim_lock".into(),
                account_name: "Simulated keypad locks".into(),
                system_type: None,
            },
            other => Self { account_type: other.into(), account_name: other.into(), system_type: None },
        }
    }
}

/// The account of an access system: the configuration of its site stands for it.
pub(super) fn account(system: &System) -> Value {
    let make = Make::of(system);
    json!({
        "connected_account_id": system.account,
        "account_type": make.account_type,
        "account_type_display_name": make.account_name,
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

pub(super) fn device(workspace: WorkspaceId, device: &DeviceRow) -> Value {
    let declared = &device.declared;
    let name = declared.display_name.as_deref().unwrap_or(declared.name.as_str());
    let mut errors: Vec<_> = device.troubles.iter().map(DeviceTrouble::to_json).collect();
    if let Some(removed_at) = device.removed_at {
        errors.push(json!({
            "error_code": "device_removed",
            "message": "The property no longer has this device",
            "created_at": time_text(removed_at),
            "is_device_error": true,
        }));
    }
    let is_full = declared.slots > 0 && device.codes >= u32::from(declared.slots);
    let full = is_full.then(|| {
        json!({
            "warning_code": "max_access_codes_reached",
            "message": "Every slot of this device holds a code: delete one that is not needed",
            "created_at": time_text(device.created_at),
        })
    });
    let pins = declared.pins.as_ref().filter(|_| device.has_slots);
    let takes_codes = pins.is_some_and(pin::can_be_given);
    let device_type = declared.device_type.as_deref().unwrap_or("unknown_lock");
    let manufacturer = declared.manufacturer.as_deref();
    let model = declared.model.as_deref().unwrap_or(name);
    let mut properties = json!({
        "online": device.troubles.is_empty() && device.removed_at.is_none(),
        "name": name,
        "appearance": {"name": name},
        "model": {
            "display_name": model,
            "manufacturer_display_name": manufacturer.unwrap_or("Unknown"),
        },
        "has_native_entry_events": false,
    });
    if let Some(manufacturer) = manufacturer {
        properties["manufacturer"] = json!(manufacturer);
    }
    if let Some(pins) = pins {
        let constraints = pins.constraints.iter().filter(|one| {
            // The clients know neither.
            !matches!(one, PinConstraint::ComputedByMaker | PinConstraint::Other)
        });
        let constraints: Vec<_> = constraints.map(|one| json!({"constraint_type": one.as_str()})).collect();
        properties["supported_code_lengths"] = json!(pins.lengths);
        properties["code_constraints"] = json!(constraints);
    }
    if declared.slots > 0 {
        properties["max_active_codes_supported"] = json!(declared.slots);
    }
    // What its maker computed needs nothing to be programmed.
    let is_computed = pins.is_some_and(PinRules::are_computed);
    let mut capabilities = vec!["lock"];
    capabilities.extend(takes_codes.then_some("access_code"));
    let remotely = device.can_be_opened.then_some(declared.remote_unlock).flatten();
    without_nulls(
        json!({
            "device_id": device.id,
            "workspace_id": workspace,
            "connected_account_id": device.account,
            "device_type": device_type,
            "display_name": name,
            "nickname": name,
            "created_at": time_text(device.created_at),
            "is_managed": true,
            "space_ids": device.spaces,
            "capabilities_supported": capabilities,
            "custom_metadata": {},
            "location": {"time_zone": device.time_zone},
            "errors": errors,
            "warnings": full.into_iter().collect::<Vec<_>>(),
            "properties": properties,
            "can_program_online_access_codes": (takes_codes && !is_computed).then_some(true),
            "can_unlock_with_code": takes_codes.then_some(true),
            "can_remotely_unlock": remotely,
        }),
        &["can_program_online_access_codes", "can_unlock_with_code", "can_remotely_unlock"],
    )
}

pub(super) fn grant(workspace: WorkspaceId, grant: &Grant, now: Timestamp) -> Value {
    let requested: Vec<_> = (0_u32..)
        .zip(&grant.requested)
        .map(|(place, (mode, code, at))| {
            let made: Vec<_> =
                grant.methods.iter().filter(|method| method.place == place).map(|method| method.id).collect();
            without_nulls(
                json!({
                    "display_name": mode.display_name(),
                    "mode": mode.as_str(),
                    "created_at": time_text(*at),
                    "created_access_method_ids": made,
                    "code": code.as_ref().map(Private::expose),
                }),
                &["code"],
            )
        })
        .collect();
    let wants_codes = grant.requested.iter().any(|(mode, ..)| *mode == Mode::Code);
    let without_codes: Vec<_> =
        grant.devices.iter().filter(|device| wants_codes && !grant.coded.contains(device)).collect();
    let error = |code: &str, message: &str, created_at: Timestamp| json!({"error_code": code, "message": message, "created_at": time_text(created_at)});
    let mut errors: Vec<_> =
        grant.errors.iter().map(|(code, message, created_at)| error(code, message, *created_at)).collect();
    errors.extend(grant.lacks.iter().map(|lack| {
        let mut error = error("cannot_create_requested_access_methods", lack.message(), lack.since);
        if !lack.devices.is_empty() {
            error["missing_device_ids"] = json!(lack.devices);
        } else if !without_codes.is_empty() {
            error["missing_device_ids"] = json!(without_codes);
        }
        error
    }));
    let mut warnings = grant_warnings(grant, now);
    warnings.extend(without_codes.iter().map(|device| {
        json!({
            "warning_code": "device_does_not_support_access_codes",
            "message": "This device takes no codes",
            "device_id": device,
            "created_at": time_text(grant.created_at),
        })
    }));
    let methods: Vec<_> = grant.methods.iter().map(|method| method.id).collect();
    let mut keys = grant.methods.iter().filter(|method| method.mode == Mode::MobileKey);
    let url = match (keys.next(), keys.next()) {
        (Some(only), None) => only.key.as_ref().and_then(|key| key.url.as_ref()),
        _ => None,
    };
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
            "instant_key_url": url.map(Private::expose),
            "errors": errors,
            "warnings": warnings,
            "pending_mutations": grant_mutations(grant),
        }),
        &["access_grant_key", "reservation_key", "instant_key_url"],
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

fn warning(code: &str, message: impl Into<String>, created_at: Timestamp) -> Value {
    let message: String = message.into();
    json!({"warning_code": code, "message": message, "created_at": time_text(created_at)})
}

fn grant_warnings(grant: &Grant, now: Timestamp) -> Vec<Value> {
    let mut warnings = Vec::new();
    if let Some(deleted_at) = grant.deleted_at {
        warnings.push(warning("being_deleted", "This access grant is being deleted", deleted_at));
    }
    warnings.extend(still_open::of_grant(grant, now));
    warnings.extend(codes_that_are_still_there(grant, now));
    if grant.deleted_at.is_some() {
        return warnings;
    }
    let methods = grant.methods.iter().filter(|method| method.deleted.is_none());
    let updating: Vec<_> =
        methods.clone().filter_map(|method| Some((method.id, updating(method)?.1))).collect();
    if let Some(since) = updating.iter().map(|(_, since)| *since).min() {
        let mut update = warning(
            "updating_access_times",
            "The new times are not in every access method yet; a card keeps the end printed on it until it is encoded again",
            since,
        );
        update["access_method_ids"] = updating.iter().map(|(id, _)| json!(id)).collect();
        warnings.push(update);
    }
    warnings.extend(grant.stay_end_troubles.iter().map(stay_end_trouble));
    for method in methods {
        let Some(view) = &method.code else { continue };
        if let Some((_, since)) = coming(method) {
            warnings.push(warning("underprovisioned_access", "A code is not in every device yet", since));
        }
        // What no device has been seen to hold is not told either.
        if let Some(wish) = view.code.wish.as_ref().filter(|wish| method.is_issued && **wish != view.code.pin)
        {
            for device in &view.code.devices {
                let mut other = warning(
                    "requested_code_unavailable",
                    "This device cannot have the code that was asked for; it has another one",
                    method.created_at,
                );
                other["device_id"] = json!(device);
                other["original_code"] = json!(wish.expose());
                other["new_code"] = json!(view.code.pin.expose());
                other["access_method_id"] = json!(method.id);
                warnings.push(other);
            }
        }
    }
    warnings
}

fn stay_end_trouble(trouble: &StayEndTrouble) -> Value {
    let (room, end) = (&trouble.room, time_text(trouble.ends_at));
    let message = match &trouble.refused {
        Some(code) => format!(
            "The lock system was not told that the stay in {room} now ends at {end} ({code}): after the end that it \
             knows it may take the room for free"
        ),
        None => format!(
            "The lock system may not know that the stay in {room} now ends at {end}: look it up there"
        ),
    };
    warning("underprovisioned_access", message, trouble.since)
}

/// The link of a mobile key. There are no sessions here, so its key stands for one; an open end is the last there is.
pub(super) fn instant_key(workspace: WorkspaceId, identity: UserIdentityId, key: &InstantKey) -> Value {
    json!({
        "instant_key_id": key.method,
        "workspace_id": workspace,
        "user_identity_id": identity,
        "client_session_id": key.method,
        "instant_key_url": key.url.expose(),
        "created_at": time_text(key.created_at),
        "expires_at": time_text(key.ends_at.unwrap_or(Timestamp::MAX)),
    })
}

/// Codes that should be gone and are not known to be, by device.
fn codes_that_are_still_there(grant: &Grant, now: Timestamp) -> Option<Value> {
    let mut since = None::<Timestamp>;
    let mut failed = Vec::new();
    for method in &grant.methods {
        for (device, there_since) in method.code.iter().flat_map(|view| &view.leaving) {
            let begun = method.deleted.or(grant.window.ends_at().filter(|end| *end <= now)).unwrap_or(now);
            since = Some(since.map_or(begun, |since| since.min(begun)));
            let there = there_since.map(|since| format!(", where it was put at {}", time_text(since)));
            failed.push(json!({
                "device_id": device,
                "error_code": "failed_to_remove_from_device",
                "message": format!(
                    "The code may still open this device{}: it is removed as soon as the device can be reached, or opens \
                     until its end where only its maker could take it away",
                    there.unwrap_or_default()
                ),
            }));
        }
    }
    let mut warning =
        warning("overprovisioned_access", "A code that should be gone may still be in a device", since?);
    warning["failed_devices"] = json!(failed);
    Some(warning)
}

fn grant_mutations(grant: &Grant) -> Vec<Value> {
    let methods = grant.methods.iter().filter(|method| method.deleted.is_none());
    let mut mutations = Vec::new();
    let updating: Vec<_> = methods
        .clone()
        .filter_map(|method| updating(method).map(|(from, since)| (method.id, from, since)))
        .collect();
    if let Some((_, from, since)) = updating.first() {
        let mut mutation = mutation("updating_access_times", "The new times are being written", *since);
        mutation["access_method_ids"] = updating.iter().map(|(id, ..)| json!(id)).collect();
        mutation["from"] = times(from);
        mutation["to"] = times(&grant.window);
        mutations.push(mutation);
    }
    let (mut from, mut to) = (Vec::new(), Vec::new());
    let mut since = None::<Timestamp>;
    for method in methods.filter(|method| method.issued_at.is_some()) {
        let Some(view) = &method.code else { continue };
        if view.code.updating_from.is_some() || view.code.has_ended {
            continue;
        }
        let new = view.coming.iter();
        let stays = view.code.devices.iter().filter(|device| !view.coming.contains(device));
        if view.coming.is_empty() && view.leaving.is_empty() {
            continue;
        }
        since = Some(since.map_or(view.code.asked_at, |since| since.min(view.code.asked_at)));
        from.extend(stays.clone().chain(view.leaving.iter().map(|(device, _)| device)).copied());
        to.extend(stays.chain(new).copied());
    }
    if let Some(since) = since {
        let mut mutation =
            mutation("updating_spaces", "The devices of this access grant are being updated", since);
        mutation["from"] = json!({"device_ids": from});
        mutation["to"] = json!({"device_ids": to});
        mutations.push(mutation);
    }
    mutations
}

fn mutation(code: &str, message: &str, created_at: Timestamp) -> Value {
    json!({"mutation_code": code, "message": message, "created_at": time_text(created_at)})
}

fn times(window: &Window) -> Value {
    json!({"starts_at": time_text(window.starts_at()), "ends_at": maybe_time(window.ends_at())})
}

/// The window before an update that a method does not follow yet, and since when.
fn updating(method: &Method) -> Option<(Window, Timestamp)> {
    match &method.code {
        Some(view) => view.code.updating_from.map(|from| (from, view.code.asked_at)),
        // A card of which only the doors changed is to be written again as well.
        None => method.written_for.filter(|(from, _)| !method.is_issued && Some(*from) != method.window),
    }
}

/// The devices that a code is not in yet, and since when it should be.
fn coming(method: &Method) -> Option<(&[DeviceId], Timestamp)> {
    let view = method.code.as_ref()?;
    let is_on_its_way =
        !view.coming.is_empty() && view.code.updating_from.is_none() && method.deleted.is_none();
    is_on_its_way.then_some((&view.coming, view.code.asked_at))
}

pub(super) fn method(workspace: WorkspaceId, method: &Method, now: Timestamp) -> Value {
    let mut answer = json!({
        "access_method_id": method.id,
        "workspace_id": workspace,
        "mode": method.mode.as_str(),
        "display_name": method.mode.display_name(),
        "display_status": method_status(method),
        "created_at": time_text(method.created_at),
        "is_issued": method.is_issued,
        "issued_at": maybe_time(method.issued_at),
        "errors": method_errors(method, now),
        "warnings": method_warnings(method, now),
        "pending_mutations": method_mutations(method),
    });
    match method.mode {
        Mode::Card => {
            // One that devices know by its number is laid down once.
            let required = match &method.code {
                Some(view) => view.code.awaits_card() && !view.code.has_ended,
                None => !method.is_issued,
            };
            answer["is_encoding_required"] = json!(required);
            answer["is_ready_for_encoding"] = json!(required && !method.in_doubt && method.deleted.is_none());
        }
        Mode::Code => {
            // Not before it was read back: whoever sees a code hands it out.
            let pin = method.code.as_ref().filter(|_| method.is_issued).map(|view| view.code.pin.expose());
            // Of a grant long over it is forgotten.
            if let Some(pin) = pin.filter(|pin| !pin.is_empty()) {
                answer["code"] = json!(pin);
            }
        }
        Mode::MobileKey => {
            let url = method.key.as_ref().and_then(|key| key.url.as_ref());
            if let Some(url) = url {
                answer["instant_key_url"] = json!(url.expose());
            }
        }
        Mode::CloudKey => {}
    }
    answer
}

/// What a method in slots is called in a sentence.
fn noun(method: &Method) -> &'static str {
    match method.mode {
        Mode::Card => "card",
        Mode::Code | Mode::MobileKey | Mode::CloudKey => "code",
    }
}

fn method_errors(method: &Method, now: Timestamp) -> Vec<Value> {
    let error = |code: &str, message: &str, created_at: Timestamp| json!({"error_code": code, "message": message, "created_at": time_text(created_at)});
    let mut errors = Vec::new();
    if let Some(problem) = method.key.as_ref().and_then(|key| key.problem.as_ref()) {
        errors.push(error("failed_to_issue", problem, method.created_at));
    }
    if let Some(view) = method.code.as_ref().filter(|view| method.deleted.is_none() && !view.code.has_ended) {
        if let Some(since) = view.code.failed_since.filter(|since| *since <= now) {
            let message = format!(
                "The {} is not in every device although its time has come; this goes on being tried",
                noun(method)
            );
            errors.push(error("failed_to_issue", &message, since));
        }
        if let Some(trouble) = view.trouble.as_ref().filter(|trouble| !trouble.code.is_unreachable()) {
            let message =
                format!("The site refuses this {} ({}): {}", noun(method), trouble.code, trouble.message);
            errors.push(error("access_not_provisioned", &message, trouble.since));
        }
    }
    errors
}

fn method_warnings(method: &Method, now: Timestamp) -> Vec<Value> {
    let mut warnings = Vec::new();
    if let Some(deleted_at) = method.deleted {
        let message = still_open::deleted(method, now);
        let message = message.unwrap_or_else(|| "This access method is being deleted".into());
        warnings.push(warning("being_deleted", message, deleted_at));
        return warnings;
    }
    if let Some((_, since)) = updating(method) {
        let message = match method.mode {
            Mode::Card if method.code.is_none() => {
                "The card keeps the end printed on it until it is encoded again"
            }
            Mode::Card | Mode::Code | Mode::MobileKey | Mode::CloudKey => "The new times are being written",
        };
        warnings.push(warning("updating_access_times", message, since));
    }
    if let Some(view) = &method.code {
        if let Some(since) = view.code.late_since {
            let message = format!("It takes longer than usual to issue this {}", noun(method));
            warnings.push(warning("delay_in_issuing", message, since));
        }
        if view.code.wish.as_ref().is_some_and(|wish| *wish != view.code.pin) {
            warnings.push(warning(
                "requested_code_unavailable",
                "The code that was asked for could not be had; this is another one",
                method.created_at,
            ));
        }
    }
    warnings
}

fn method_mutations(method: &Method) -> Vec<Value> {
    let mut mutations = Vec::new();
    if let Some((devices, since)) = coming(method) {
        let message = format!("The {} is being put into its devices", noun(method));
        let mut coming = mutation("provisioning_access", &message, since);
        let all = method.code.as_ref().map(|view| view.code.devices.clone()).unwrap_or_default();
        let there: Vec<_> = all.iter().filter(|device| !devices.contains(device)).collect();
        coming["from"] = json!({"device_ids": there});
        coming["to"] = json!({"device_ids": all});
        mutations.push(coming);
    }
    if let Some((from, since)) = updating(method).filter(|_| method.deleted.is_none()) {
        let mut update = mutation("updating_access_times", "The new times are being written", since);
        update["from"] = times(&from);
        update["to"] = match &method.window {
            Some(window) => times(window),
            None => Value::Null,
        };
        mutations.push(update);
    }
    if let Some(view) = method.code.as_ref().filter(|view| !view.leaving.is_empty()) {
        let since = method.deleted.unwrap_or(view.code.asked_at);
        let message = format!("The {} is being removed from devices", noun(method));
        let mut leaving = mutation("revoking_access", &message, since);
        let stays: Vec<_> = match method.deleted {
            Some(_) => Vec::new(),
            None => view.code.devices.clone(),
        };
        let gone: Vec<_> = view.leaving.iter().map(|(device, _)| *device).collect();
        let before: std::collections::BTreeSet<_> = stays.iter().chain(&gone).collect();
        leaving["from"] = json!({"device_ids": before});
        leaving["to"] = json!({"device_ids": stays});
        mutations.push(leaving);
    }
    mutations
}

fn method_status(method: &Method) -> &'static str {
    if method.deleted.is_some() {
        "Being deleted"
    } else if method.in_doubt {
        "Perhaps written: read the card"
    } else if method.code.as_ref().is_some_and(|view| view.code.has_ended) {
        "Expired"
    } else if method.is_issued {
        "Issued"
    } else {
        match method.mode {
            Mode::Card if method.code.as_ref().is_some_and(|view| !view.code.awaits_card()) => "Issuing",
            Mode::Card => "Awaiting encoding",
            Mode::Code => "Issuing",
            Mode::MobileKey | Mode::CloudKey => "Not available",
        }
    }
}

/// An attempt; while it is pending, with the stage at which its bridge has the job, as far as that is known.
pub(super) fn attempt(workspace: WorkspaceId, attempt: &Attempt, stage: Option<Stage>) -> Value {
    let (status, result, error) = match &attempt.state {
        AttemptState::Pending => ("pending", Value::Null, Value::Null),
        AttemptState::Success(card) => ("success", credential(workspace, card), Value::Null),
        AttemptState::Unlocked => ("success", json!({"was_confirmed_by_device": true}), Value::Null),
        AttemptState::Error { kind, message } => {
            ("error", Value::Null, json!({"type": kind, "message": message}))
        }
    };
    let mut answer = json!({
        "action_attempt_id": attempt.id,
        "action_type": attempt.action,
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
        // A chip's number says nothing of times.
        Some(_) if card.number.is_some() => {}
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
            "card_number": card.number,
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
    let invalid = card.invalid_since.map(|since| {
        json!({
            "warning_code": "needs_to_be_reissued",
            "message": "A later card has taken this one's place, in a room or on the card itself: it does not open what it was written for",
            "created_at": time_text(since),
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
            "warnings": unproven.into_iter().chain(invalid).collect::<Vec<_>>(),
        }),
        &["ends_at"],
    )
}

pub(crate) fn event(workspace: WorkspaceId, event: &TimedEvent) -> Value {
    let mut answer = event.fields.clone();
    let at = time_text(event.occurred_at);
    answer.insert("event_id".into(), json!(event.id));
    answer.insert("event_type".into(), json!(event.kind));
    answer.insert("workspace_id".into(), json!(workspace));
    answer.insert("created_at".into(), json!(at));
    // What happened at a door may be told long after it did.
    answer.entry("occurred_at").or_insert_with(|| json!(at));
    Value::Object(answer)
}

pub(super) fn webhook(webhook: &Webhook) -> Value {
    json!({
        "webhook_id": webhook.id,
        "url": webhook.url.expose(),
        "event_types": webhook.kinds,
        "secret": webhook.secret.expose(),
    })
}
