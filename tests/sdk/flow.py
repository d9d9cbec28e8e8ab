"""Whole flows by the Python client: who, where, when and how become codes in locks, cards and mobile keys."""

import json
import re
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import seam as client
from house import (
    ENDPOINT,
    SKIPPED,
    answer,
    ask,
    call,
    each,
    example_days,
    gone,
    holds,
    hours,
    issued,
    opens,
    please,
    refused,
    say,
    seam,
    text,
    unlocks,
    until,
)

def encode(access_method_id, card):
    """Lays a card down as soon as the encoder waits for one, and takes it away when it is written."""
    ask("lay the card down when it is asked for", card=card, encoder=ENCODER.display_name)
    attempt = call(
        "access_methods.encode",
        access_method_id=access_method_id,
        acs_encoder_id=ENCODER.acs_encoder_id,
    )
    answer()
    please("take the card", encoder=ENCODER.display_name)
    assert (attempt.status, attempt.action_type) == ("success", "ENCODE_CREDENTIAL")
    return attempt.result


LOCKS = ["lock-1", "lock-2", "lock-3"]
DOORS = []
ENCODER = None


def door(name):
    return next(door.acs_entrance_id for door in DOORS if door.display_name == name)


def device(name):
    return next(device.device_id for device in call("devices.list") if device.display_name == name)


def a_code_for_a_device_before_and_with_its_user():
    devices = call("devices.list")
    lock = next(device for device in devices if device.can_program_online_access_codes)
    assert lock.display_name == "Front Door"
    jane = call("user_identities.create", full_name="Jane Doe", email_address="jane@example.com")
    assert (jane.full_name, jane.email_address) == ("Jane Doe", "jane@example.com")
    check_in, check_out = example_days()
    grant = call(
        "access_grants.create",
        user_identity_id=jane.user_identity_id,
        device_ids=[lock.device_id],
        requested_access_methods=[{"mode": "code"}],
        starts_at=check_in,
        ends_at=check_out,
    )
    assert grant.display_name == "My Access Grant"
    assert grant.user_identity_id == jane.user_identity_id
    assert (grant.starts_at, grant.ends_at) == (check_in, check_out)
    [requested] = grant.requested_access_methods
    assert (requested["display_name"], requested["mode"]) == ("PIN Code", "code")
    [access_method_id] = requested["created_access_method_ids"]
    method = issued(access_method_id)
    assert (method.display_name, method.mode) == ("PIN Code", "code")
    assert re.fullmatch(r"\d{4,8}", method.code)
    # It is in the lock, and opens when its time has come.
    assert holds("lock-1") == [access_method_id]
    assert not unlocks(method.code, "lock-1")

    second = call(
        "access_grants.create",
        user_identity={"full_name": "Jane Doe", "email_address": "jane.doe@example.com"},
        device_ids=[device.device_id for device in devices],
        requested_access_methods=[{"mode": "code"}],
        starts_at=hours(0),
        ends_at=hours(48),
    )
    code = issued(second.access_method_ids[0]).code
    assert all(unlocks(code, lock) for lock in LOCKS)
    for access_grant_id in (grant.access_grant_id, second.access_grant_id):
        call("access_grants.delete", access_grant_id=access_grant_id)
        gone("access_grants.get", access_grant_id=access_grant_id)
    assert not any(holds(lock) for lock in LOCKS)
    assert not unlocks(code, "lock-2")


def a_card_for_entrances_written_while_the_client_waits_and_read():
    global DOORS, ENCODER
    system = next(system for system in call("acs.systems.list") if system.name == "house")
    system_id = system.acs_system_id
    assert call("acs.systems.get", acs_system_id=system_id).errors == []
    DOORS = call("acs.entrances.list", acs_system_id=system_id)
    assert len(DOORS) == 7
    room = call("acs.entrances.get", acs_entrance_id=door("101"))
    assert room.can_unlock_with_card and room.can_belong_to_reservation
    ENCODER = call("acs.encoders.list", acs_system_ids=[system_id])[0]
    encoder_id = ENCODER.acs_encoder_id
    assert call("acs.encoders.get", acs_encoder_id=encoder_id).display_name == "1"

    stay = {
        "acs_entrance_ids": [door("101"), door("pool")],
        "requested_access_methods": [{"mode": "card"}],
        "reservation_key": "stay-1",
        "starts_at": hours(0),
        "ends_at": hours(48),
    }
    ada = call("access_grants.create", user_identity={"full_name": "Ada"}, **stay)
    [access_method_id] = ada.access_method_ids
    waiting = call("access_methods.get", access_method_id=access_method_id)
    assert waiting.display_name == "Plastic Card"
    assert not waiting.is_issued and waiting.is_encoding_required and waiting.is_ready_for_encoding
    card = encode(access_method_id, "ada")
    assert (card.external_type, card.is_issued) == ("salto_space_key", True)
    written = call("access_methods.get", access_method_id=access_method_id)
    assert written.is_issued and not written.is_encoding_required and not written.is_ready_for_encoding

    # Asked for now and looked at later.
    asked = call("acs.encoders.scan_credential", acs_encoder_id=encoder_id, wait_for_action_attempt=False)
    assert asked.status == "pending"
    please("lay the card down when it is asked for", card="ada", encoder="1")
    scan = call("action_attempts.get", action_attempt_id=asked.action_attempt_id)
    assert (scan.action_type, scan.status) == ("SCAN_CREDENTIAL", "success")
    assert scan.result.acs_credential_on_seam["acs_credential_id"] == card.acs_credential_id
    assert scan.result.warnings == []
    please("take the card", encoder="1")

    # Whoever shares the room does not shut the first guest out.
    bo = call("access_grants.create", user_identity={"full_name": "Bo"}, **stay)
    encode(bo.access_method_ids[0], "bo")
    for guest in ("ada", "bo"):
        assert opens(guest, "101") and opens(guest, "pool") and not opens(guest, "102")
    covered = call("acs.entrances.list", access_method_id=access_method_id)
    assert each(covered, "display_name") == ["101", "pool"]


def a_code_a_card_and_a_mobile_key_in_one_grant():
    front = call("devices.get", name="Front Door")
    grant = call(
        "access_grants.create",
        user_identity={"full_name": "Cleo"},
        acs_entrance_ids=[door("102")],
        device_ids=[front.device_id],
        requested_access_methods=[{"mode": "code", "code": "580316"}, {"mode": "card"}, {"mode": "mobile_key"}],
        reservation_key="stay-2",
        access_grant_key="cleo",
        name="Cleo in 102",
        starts_at=hours(0),
        ends_at=hours(48),
    )
    grant_id = grant.access_grant_id
    assert grant.display_name == "Cleo in 102"
    requested = grant.requested_access_methods
    assert [(one["mode"], one["display_name"]) for one in requested] == [
        ("code", "PIN Code"),
        ("card", "Plastic Card"),
        ("mobile_key", "Mobile Key"),
    ]
    code, card, key = (one["created_access_method_ids"][0] for one in requested)
    # A mobile key is there at once.
    assert re.fullmatch("https://keys.example/.+", grant.instant_key_url)
    assert issued(key).instant_key_url == grant.instant_key_url
    assert issued(code).code == "580316"
    assert unlocks("580316", "lock-1")
    encode(card, "cleo")
    assert opens("cleo", "102")
    methods = call("access_methods.list", access_grant_id=grant_id)
    assert each(methods, "access_method_id") == sorted([code, card, key])
    assert all(method.is_issued for method in methods)

    # A code that somebody has is not given to somebody else.
    other = call(
        "access_grants.create",
        user_identity={"full_name": "Dan"},
        device_ids=[front.device_id],
        requested_access_methods=[{"mode": "code", "code": "580316"}],
        ends_at=hours(48),
    )
    another = issued(other.access_method_ids[0])
    assert another.code != "580316"
    assert [warning["warning_code"] for warning in another.warnings] == ["requested_code_unavailable"]
    told = call("access_grants.get", access_grant_id=other.access_grant_id)
    [warning] = told.warnings
    assert warning["warning_code"] == "requested_code_unavailable"
    assert (warning["original_code"], warning["new_code"]) == ("580316", another.code)

    # One more card, and everything that belongs to the grant.
    more = call(
        "access_grants.request_access_methods",
        access_grant_id=grant_id,
        requested_access_methods=[{"mode": "card"}],
    )
    assert len(more.access_method_ids) == 4
    encode(more.requested_access_methods[3]["created_access_method_ids"][0], "cleo-too")
    assert opens("cleo-too", "102") and opens("cleo", "102")
    related = call(
        "access_grants.get_related",
        access_grant_ids=[grant_id],
        include=["devices", "acs_entrances", "user_identities", "access_methods", "acs_systems"],
    )
    if related is not SKIPPED:
        assert each(related.devices, "display_name") == ["Front Door"]
        assert each(related.acs_entrances, "display_name") == ["102"]
        assert each(related.user_identities, "full_name") == ["Cleo"]
        assert len(related.access_methods) == 4
    made = call("access_methods.get_related", access_method_ids=[card])
    if made is not SKIPPED:
        assert each(made.acs_credentials, "external_type") == ["salto_space_key"]

    # Other times: the code stays what it is, and the card is written again. (Cards know whole minutes only.)
    ends_at = text((datetime.now(timezone.utc) + timedelta(hours=72)).replace(second=0, microsecond=0))
    call("access_grants.update", access_grant_id=grant_id, ends_at=ends_at, name="Cleo, one day more")
    assert issued(code).code == "580316"
    again = call("access_methods.get", access_method_id=card)
    assert not again.is_issued and again.is_encoding_required and again.is_ready_for_encoding
    assert encode(card, "cleo").ends_at == ends_at
    later = call("access_grants.get", access_grant_key="cleo")
    assert (later.name, later.ends_at) == ("Cleo, one day more", ends_at)
    assert opens("cleo", "102")

    # One means goes, the others stay; then all of it.
    call("access_methods.delete", access_method_id=code)
    gone("access_methods.get", access_method_id=code)
    assert not unlocks("580316", "lock-1")
    events = call("events.list", since="2020-01-01T00:00:00Z", access_grant_id=grant_id)
    kinds = {event.event_type for event in events}
    assert kinds >= {
        "access_grant.created",
        "access_method.created",
        "access_method.issued",
        "access_method.card_encoding_required",
        "access_grant.access_times_changed",
        "access_method.revoked",
        "access_method.reissued",
        "access_method.deleted",
    }, kinds
    call("access_grants.delete", access_grant_id=other.access_grant_id)
    gone("access_grants.get", access_grant_id=other.access_grant_id)
    call("access_grants.delete", access_grant_id=grant_id)


def a_space_and_grants_that_follow_it():
    space = call(
        "spaces.create",
        name="Unit 103",
        space_key="unit-103",
        acs_entrance_ids=[door("103")],
        device_ids=[device("Front Door")],
    )
    space_id = space.space_id
    assert (space.acs_entrance_count, space.device_count) == (1, 1)
    grant = call(
        "access_grants.create",
        user_identity={"full_name": "Eve"},
        space_ids=[space_id],
        requested_access_methods=[{"mode": "code"}, {"mode": "card"}],
        reservation_key="stay-3",
        ends_at=hours(48),
    )
    assert grant.space_ids == [space_id]
    method, card = (one["created_access_method_ids"][0] for one in grant.requested_access_methods)
    code = issued(method).code
    assert unlocks(code, "lock-1")
    encode(card, "eve")
    assert opens("eve", "103")

    # What the space gets the grant gets, and the other way round.
    call("spaces.add_devices", space_id=space_id, device_ids=[device("Back Door"), device("Garage")])
    until("the code is in the other locks", lambda: unlocks(code, "lock-3"))
    assert issued(method).code == code
    call("spaces.remove_devices", space_id=space_id, device_ids=[device("Front Door")])
    until("the code has left the first lock", lambda: not holds("lock-1"))
    assert issued(method).code == code
    assert unlocks(code, "lock-2")
    call("spaces.add_acs_entrances", space_id=space_id, acs_entrance_ids=[door("spa")])
    asks = call("access_methods.get", access_method_id=card)
    assert not asks.is_issued and asks.is_ready_for_encoding
    encode(card, "eve")
    assert opens("eve", "spa")
    call("spaces.remove_acs_entrances", space_id=space_id, acs_entrance_ids=[door("spa")])

    call("spaces.update", space_id=space_id, name="Suite 103")
    [listed] = call("spaces.list", search="suite")
    assert (listed.space_id, listed.device_count) == (space_id, 2)
    assert call("spaces.get", space_key="unit-103").name == "Suite 103"
    related = call("spaces.get_related", space_keys=["unit-103"])
    if related is not SKIPPED:
        assert each(related.devices, "display_name") == ["Back Door", "Garage"]
    covering = call("access_grants.list", space_id=space_id)
    assert each(covering, "access_grant_id") == [grant.access_grant_id]
    refused(lambda: call("spaces.delete", space_id=space_id), 409, "space_has_access_grants")
    call("access_grants.delete", access_grant_id=grant.access_grant_id)
    until("the code is gone", lambda: not holds("lock-2"))
    refused(lambda: call("spaces.get", space_id=grant.access_grant_id), 404, "space_not_found")


def a_key_that_opens_a_door_from_afar():
    garage = call("devices.get", name="Garage")
    assert garage.can_remotely_unlock
    grant = call(
        "access_grants.create",
        user_identity={"full_name": "Fay"},
        device_ids=[garage.device_id],
        requested_access_methods=[{"mode": "cloud_key"}],
        ends_at=hours(48),
    )
    [access_method_id] = grant.access_method_ids
    issued(access_method_id)
    attempt = call(
        "access_methods.unlock_door",
        access_method_id=access_method_id,
        acs_entrance_id=garage.device_id,
    )
    if attempt is not SKIPPED:
        assert (attempt.action_type, attempt.status) == ("UNLOCK_DOOR", "success")
        assert attempt.result["was_confirmed_by_device"] is True
    unlocked = please("count how often the lock was opened from afar", lock="lock-3")
    assert unlocked == (0 if attempt is SKIPPED else 1)
    call("access_grants.delete", access_grant_id=grant.access_grant_id)


def people():
    guest = call(
        "user_identities.create",
        full_name="Gil",
        user_identity_key="gil",
        email_address="gil@example.com",
        phone_number="+4722334455",
    )
    own = {"user_identity_id": guest.user_identity_id}
    assert call("user_identities.get", user_identity_key="gil").user_identity_id == guest.user_identity_id
    call("user_identities.update", full_name="Gil Grim", email_address="grim@example.com", **own)
    found = call("user_identities.list", search="grim")
    assert [(one.full_name, one.email_address) for one in found] == [("Gil Grim", "grim@example.com")]
    grant = call(
        "access_grants.create",
        acs_entrance_ids=[door("pool")],
        requested_access_methods=[{"mode": "card"}],
        ends_at=hours(48),
        **own,
    )
    doors = call("user_identities.list_accessible_entrances", **own)
    assert doors is SKIPPED or each(doors, "display_name") == ["pool"]
    devices = call("user_identities.list_accessible_devices", **own)
    assert devices is SKIPPED or devices == []
    assert each(call("access_grants.list", **own), "access_grant_id") == [grant.access_grant_id]
    twin = call("user_identities.create", user_identity_key="gil-too")
    merged = call("user_identities.merge", merged_user_identity_ids=[twin.user_identity_id], **own)
    if merged is not SKIPPED:
        assert call("user_identities.get", **own).merged_user_identity_keys == ["gil-too"]
    refused(lambda: call("user_identities.delete", **own), 409, "user_identity_has_access_grants")
    call("access_grants.delete", access_grant_id=grant.access_grant_id)
    call("user_identities.delete", **own)
    refused(lambda: call("user_identities.get", **own), 404, "user_identity_not_found")
    for group in ("access_grants", "user_identities", "devices"):
        unmanaged = call(f"{group}.unmanaged.list")
        assert unmanaged is SKIPPED or unmanaged == []
    assert call("workspaces.get").name == "Home"


def page_by_page_and_what_happened():
    pages = seam.create_paginator(seam.acs.entrances.list, {"limit": 3})
    first, pagination = pages.first_page()
    assert (len(first), pagination.has_next_page) == (3, True)
    everything = each(call("acs.entrances.list"), "display_name")
    assert each(pages.flatten_to_list(), "display_name") == everything
    cursor = pagination.next_page_cursor
    refused(
        lambda: call("acs.entrances.list", limit=4, page_cursor=cursor), 400, "mismatched_page_parameters"
    )

    since = "2020-01-01T00:00:00Z"
    events = call("events.list", since=since, event_type="access_method.issued", limit=3)
    assert [event.event_type for event in events] == ["access_method.issued"] * 3
    event = call("events.get", event_id=events[0].event_id)
    assert event.access_method_id == events[0].access_method_id
    both = call("events.list", between=[since, hours(1)], event_ids=each(events, "event_id"))
    assert len(both) == 3


def a_simulated_encoder_that_fails_and_one_that_does_not():
    encoder = {"acs_encoder_id": ENCODER.acs_encoder_id}
    grant = call(
        "access_grants.create",
        user_identity={"full_name": "Hal"},
        acs_entrance_ids=[door("104")],
        requested_access_methods=[{"mode": "card"}],
        reservation_key="stay-4",
        ends_at=hours(48),
    )
    card = {"access_method_id": grant.access_method_ids[0], **encoder}
    call("acs.encoders.simulate.next_credential_encode_will_fail", **encoder)
    try:
        call("access_methods.encode", **card)
        raise AssertionError("it did not fail")
    except client.SeamActionAttemptFailedError as failed:
        assert (failed.code, failed.action_attempt.status) == ("no_credential_on_encoder", "error")
    # Nothing was written, so it may be tried again.
    call("acs.encoders.simulate.next_credential_encode_will_succeed", **encoder)
    credential = call("access_methods.encode", **card).result.acs_credential_id
    refused(lambda: call("access_methods.encode", **card), 400, "access_method_not_ready_for_encoding")
    call(
        "acs.encoders.simulate.next_credential_scan_will_succeed",
        acs_credential_id_on_seam=credential,
        **encoder,
    )
    scan = call("acs.encoders.scan_credential", **encoder)
    assert scan.result.acs_credential_on_seam["acs_credential_id"] == credential
    please("take the card", encoder="1")
    assert len(call("action_attempts.list", limit=2)) == 2


def what_happens_is_told_to_a_receiver_who_believes_it_over_a_restart_of_the_cloud():
    # It fails at first, as receivers do.
    came = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            came.append((dict(self.headers), body))
            self.send_response(503 if len(came) == 1 else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    webhook = call("webhooks.create", url=f"http://127.0.0.1:{receiver.server_port}/events")
    assert webhook.secret.startswith("whsec_") and webhook.event_types == ["*"]

    grant = call(
        "access_grants.create",
        user_identity={"full_name": "Wil"},
        acs_entrance_ids=[door("pool")],
        requested_access_methods=[{"mode": "card"}],
        ends_at=hours(48),
    )
    grant_id = grant.access_grant_id
    until("the receiver has refused", lambda: came)
    please("restart the cloud")
    call("access_grants.delete", access_grant_id=grant_id)

    # Each in its order, and none more often than it was refused.
    events = call("events.list", since="2020-01-01T00:00:00Z", access_grant_id=grant_id)
    owed = set(each(events, "event_id"))

    def ours():
        return [(headers, body) for headers, body in list(came) if json.loads(body)["event_id"] in owed]

    until("all of it was told", lambda: {json.loads(body)["event_id"] for _, body in ours()} == owed)
    once = {}
    for headers, body in ours():
        event = client.SeamWebhook(webhook.secret).verify(body, headers)
        assert event.event_id == json.loads(body)["event_id"]
        once.setdefault(event.event_id, event.event_type)
    assert list(once.values()) == [
        "access_grant.created",
        "access_method.created",
        "access_method.card_encoding_required",
        "access_grant.deleted",
        "access_method.deleted",
    ]
    (headers, body), *_ = ours()
    again = [headers["svix-id"] for headers, other in ours() if other == body]
    assert len(again) > 1, "what was refused comes again"
    assert len(set(again)) == 1

    # Nobody else can have said it, nor said something else.
    other_secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    for secret, said in ((webhook.secret, body.replace("created", "deleted")), (other_secret, body)):
        try:
            client.SeamWebhook(secret).verify(said, headers)
        except Exception as error:
            assert type(error).__name__ == "WebhookVerificationError", repr(error)
        else:
            raise AssertionError("it was believed")

    call("webhooks.update", webhook_id=webhook.webhook_id, event_types=["access_grant.created"])
    [kept] = call("webhooks.list")
    assert (kept.webhook_id, kept.event_types) == (webhook.webhook_id, ["access_grant.created"])
    call("webhooks.delete", webhook_id=webhook.webhook_id)
    refused(lambda: call("webhooks.get", webhook_id=webhook.webhook_id), 404, "webhook_not_found")
    receiver.shutdown()


def what_is_refused_as_the_client_tells_it():
    stranger = client.Seam(api_key="seam_test1_nobody", endpoint=ENDPOINT)
    refused(stranger.devices.list, 401, "unauthorized", client.SeamHttpUnauthorizedError)

    stay = {
        "user_identity": {"full_name": "Ida"},
        "acs_entrance_ids": [door("105")],
        "requested_access_methods": [{"mode": "card"}],
        "reservation_key": "stay-5",
        "starts_at": hours(0),
        "ends_at": hours(48),
    }
    call("access_grants.create", access_grant_key="ida", **stay)
    nobody = "00000000-0000-4000-8000-000000000000"
    table = [
        (400, "invalid_input", {"ends_at": "2020-01-01T00:00:00Z"}),
        (400, "invalid_input", {"ends_at": None}),
        (400, "invalid_input", {"acs_entrance_ids": []}),
        (400, "invalid_input", {"user_identity": None}),
        (400, "invalid_input", {"requested_access_methods": [{"mode": "code", "code": "12"}]}),
        (400, "invalid_input", {"requested_access_methods": [{"mode": "whistle"}]}),
        (400, "reservation_key_required", {"reservation_key": None}),
        (400, "reservation_key_not_supported", {"acs_entrance_ids": [door("pool")]}),
        (404, "acs_entrance_not_found", {"acs_entrance_ids": [nobody]}),
        (404, "device_not_found", {"device_ids": [nobody]}),
        (404, "space_not_found", {"space_ids": [nobody]}),
        (404, "user_identity_not_found", {"user_identity": None, "user_identity_id": nobody}),
        (409, "access_grant_key_already_exists", {"access_grant_key": "ida"}),
        (409, "reservation_entrance_change_requires_cleanup", {"acs_entrance_ids": [door("104")]}),
        (
            409,
            "reservation_joiner_entrance_set_conflict",
            {"acs_entrance_ids": [door("104"), door("105")]},
        ),
        (409, "reservation_time_frames_must_overlap", {"starts_at": hours(72), "ends_at": hours(96)}),
    ]
    for status, code, change in table:
        params = {name: value for name, value in {**stay, **change}.items() if value is not None}
        kind = client.SeamHttpInvalidInputError if code == "invalid_input" else client.SeamHttpApiError
        refused(lambda params=params: call("access_grants.create", **params), status, code, kind)
    missing = [
        ("access_grants.get", {"access_grant_id": nobody}, "access_grant_not_found"),
        ("access_grants.delete", {"access_grant_id": nobody}, "access_grant_not_found"),
        (
            "access_methods.encode",
            {"access_method_id": nobody, "acs_encoder_id": ENCODER.acs_encoder_id},
            "access_method_not_found",
        ),
        ("acs.encoders.get", {"acs_encoder_id": nobody}, "acs_encoder_not_found"),
        ("acs.systems.get", {"acs_system_id": nobody}, "acs_system_not_found"),
        ("action_attempts.get", {"action_attempt_id": nobody}, "action_attempt_not_found"),
        ("events.get", {"event_id": nobody}, "event_not_found"),
        # What there is elsewhere, but not here.
        ("connect_webviews.list", {}, "not_found"),
    ]
    for path, params, code in missing:
        refused(lambda path=path, params=params: call(path, **params), 404, code)
    refused(
        lambda: call("spaces.create", name="Twice", space_key="unit-103"), 409, "space_key_already_exists"
    )
    call("user_identities.create", email_address="ida@example.com")
    refused(
        lambda: call("user_identities.create", email_address="ida@example.com"),
        409,
        "user_identity_already_exists",
    )


def what_goes_wrong_at_the_property():
    def front():
        return call("devices.get", name="Front Door")

    def is_away():
        lock = front()
        return not lock.properties["online"] and lock

    # Nothing is said to be there that is not.
    please("unplug the lock", lock="lock-1")
    jo = {"user_identity": {"full_name": "Jo"}, "requested_access_methods": [{"mode": "code"}]}
    grant = call("access_grants.create", device_ids=[front().device_id], ends_at=hours(48), **jo)
    own = {"access_grant_id": grant.access_grant_id}
    [access_method_id] = grant.access_method_ids
    away = until("the lock is seen to be away", is_away)
    assert away.can_program_online_access_codes
    assert each(away.errors, "error_code") == ["device_offline"]
    waiting = call("access_methods.get", access_method_id=access_method_id)
    assert not waiting.is_issued and not waiting.code
    assert each(waiting.pending_mutations, "mutation_code") == ["provisioning_access"]
    lacking = call("access_grants.get", **own)
    assert each(lacking.warnings, "warning_code") == ["underprovisioned_access"]
    please("plug the lock in", lock="lock-1")
    code = issued(access_method_id).code
    assert unlocks(code, "lock-1")

    # Nor to be gone.
    please("unplug the lock", lock="lock-1")
    call("access_grants.delete", **own)
    until("the lock is seen to be away", is_away)
    leaving = call("access_grants.get", **own)
    assert each(leaving.warnings, "warning_code") == ["being_deleted", "overprovisioned_access"]
    [method] = call("access_methods.list", **own)
    assert each(method.pending_mutations, "mutation_code") == ["revoking_access"]
    please("plug the lock in", lock="lock-1")
    gone("access_grants.get", **own)
    assert not unlocks(code, "lock-1")

    # The site has the last word: no code of its is good for that long.
    kim = {"user_identity": {"full_name": "Kim"}, "requested_access_methods": [{"mode": "code"}]}
    forbidden = call("access_grants.create", device_ids=[away.device_id], ends_at=hours(400 * 24), **kim)

    def is_refused():
        [method] = call("access_methods.list", access_grant_id=forbidden.access_grant_id)
        assert not method.is_issued
        return "access_not_provisioned" in each(method.errors, "error_code")

    until("the site has refused", is_refused)
    call("access_grants.delete", access_grant_id=forbidden.access_grant_id)

    # A bridge that is away, and a room that is no more.
    def system_errors():
        system = call("acs.systems.get", acs_system_id=DOORS[0].acs_system_id)
        return each(system.errors, "error_code")

    please("switch the bridge off")
    until("the bridge is seen to be away", lambda: "bridge_disconnected" in system_errors())
    assert each(front().errors, "error_code") == ["bridge_disconnected"]
    please("wall room 105 up, and switch the bridge on")
    until("the bridge is back", lambda: not system_errors())
    errors = until(
        "the room is seen to be gone", lambda: call("acs.entrances.get", acs_entrance_id=door("105")).errors
    )
    assert each(errors, "error_code") == ["entrance_removed"]


for flow in (
    a_code_for_a_device_before_and_with_its_user,
    a_card_for_entrances_written_while_the_client_waits_and_read,
    a_code_a_card_and_a_mobile_key_in_one_grant,
    a_space_and_grants_that_follow_it,
    a_key_that_opens_a_door_from_afar,
    people,
    page_by_page_and_what_happened,
    a_simulated_encoder_that_fails_and_one_that_does_not,
    what_happens_is_told_to_a_receiver_who_believes_it_over_a_restart_of_the_cloud,
    what_is_refused_as_the_client_tells_it,
    what_goes_wrong_at_the_property,
):
    flow()
    say({"flow": flow.__name__.replace("_", " ")})
