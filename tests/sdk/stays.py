"""The stories of stays, by the Python client: who opens what after each of them is asked at the doors.

The house on the hill is its lock system's only user: there a card after a deleted one begins the stay anew, and a stay's
end frees its room. The annex shares its lock system with a desk program of its own, and further cards always join.
"""

from house import call, client, each, hours, opens, please, refused, say, until

CARD = [{"mode": "card"}]


def door(name):
    return next(door.acs_entrance_id for door in call("acs.entrances.list") if door.display_name == name)


def encoder(name):
    return next(one.acs_encoder_id for one in call("acs.encoders.list") if one.display_name == name)


def grant(guest, stay, doors, begins=0, ends=48):
    """A grant of one card."""
    return call(
        "access_grants.create",
        user_identity={"full_name": guest},
        acs_entrance_ids=[door(name) for name in doors],
        reservation_key=stay,
        requested_access_methods=CARD,
        starts_at=hours(begins),
        ends_at=hours(ends),
    )


def card_of(granted):
    [method] = [
        method
        for method in call("access_methods.list", access_grant_id=granted.access_grant_id)
        if "being_deleted" not in each(method.warnings, "warning_code")
    ]
    return method


def begin(method, at="1"):
    """Orders a card, and does not wait for it."""
    return call(
        "access_methods.encode",
        access_method_id=method.access_method_id,
        acs_encoder_id=encoder(at),
        wait_for_action_attempt=False,
    ).action_attempt_id


def attempt_of(attempt_id):
    return call("action_attempts.get", action_attempt_id=attempt_id, wait_for_action_attempt=False)


def ended(attempt_id):
    def look():
        attempt = attempt_of(attempt_id)
        return attempt.status != "pending" and attempt

    return until("the attempt ends", look)


def write(granted, card, at="1"):
    """Encodes the card of a grant; the guest takes it along."""
    method = card_of(granted)
    attempt = begin(method, at)
    please("lay the card down when it is asked for", card=card, encoder=at)
    written = ended(attempt)
    please("take the card", encoder=at)
    assert written.status == "success", written.error
    return method


def not_written(granted, at="1"):
    """Orders a card that cannot be made, and says why not."""
    attempt = ended(begin(card_of(granted), at))
    assert attempt.status == "error", attempt
    return attempt.error["message"]


def asks_again(granted):
    until("the card asks to be encoded again", lambda: card_of(granted).is_ready_for_encoding)


def told(granted):
    """What a grant warns of."""
    grant = call("access_grants.get", access_grant_id=granted.access_grant_id)
    return {warning["warning_code"]: warning["message"] for warning in map(dict_of, grant.warnings)}


def dict_of(thing):
    return thing if isinstance(thing, dict) else vars(thing)


def revoke(granted):
    call("access_grants.delete", access_grant_id=granted.access_grant_id)


def tell(line):
    return please("tell the property", line=line)


def open_for(**cards):
    """Every card opens these doors of those that are asked for, and no others."""
    doors = tell("doors")["doors"]
    for card, expected in cards.items():
        name = card.replace("_", "-")
        seen = sorted(door for door, openers in doors.items() if name in openers)
        assert seen == sorted(expected), f"{name} opens {seen}, and should {expected}"


def which_grants_make_a_stay():
    first = grant("Ada", "rules", ["101", "pool"])
    grant("Bo", "rules", ["101"], ends=24)
    for status, code, stay, doors, window in (
        (400, "reservation_key_not_supported", "rules", ["pool"], {}),
        (400, "reservation_key_required", None, ["101"], {}),
        (409, "reservation_entrance_change_requires_cleanup", "rules", ["102"], {}),
        (409, "reservation_joiner_entrance_set_conflict", "rules", ["101", "102"], {}),
        (409, "reservation_time_frames_must_overlap", "rules", ["101"], {"begins": 72, "ends": 96}),
    ):
        refused(lambda: grant("Cy", stay, doors, **window), status, code)
    # Another stay may have the room afterwards, and be prepared today.
    grant("Di", "rules-next", ["101"], begins=48, ends=96)
    assert told(first) == {}


def the_first_card_overrides_and_the_second_joins_whoever_comes_first():
    ada, bo = grant("Ada", "stay-1", ["101", "pool"]), grant("Bo", "stay-1", ["101", "pool"])
    write(bo, "bo")
    write(ada, "ada")
    assert opens("ada", "101") and opens("bo", "101") and not opens("bo", "102")
    cleo = grant("Cleo", "stay-2", ["101", "pool"])
    write(cleo, "cleo")
    # It is the lock that learns, from the first use.
    open_for(ada=["101", "pool"], bo=["101", "pool"], cleo=["101", "pool"])
    assert opens("cleo", "101")
    open_for(ada=["pool"], bo=["pool"], cleo=["101", "pool"])
    # Nobody of the earlier stay joins the later one.
    assert "room_held_by_other_reservation" in not_written(grant("Dee", "stay-1", ["101"]))
    for one in (ada, bo, cleo):
        revoke(one)


def a_lost_card_dies_with_its_stay_where_the_house_wants_that():
    ada, bo = grant("Ada", "lost", ["102", "pool"]), grant("Bo", "lost", ["102", "pool"])
    lost = write(ada, "ada-lost")
    write(bo, "bo-lost")
    call("access_methods.delete", access_method_id=lost.access_method_id)
    assert "still opens until" in told(ada)["overprovisioned_access"]
    call("access_grants.request_access_methods", access_grant_id=ada.access_grant_id, requested_access_methods=CARD)
    write(ada, "ada-found")
    assert opens("ada-found", "102")
    open_for(ada_lost=["pool"], bo_lost=["pool"], ada_found=["102", "pool"])
    asks_again(bo)
    write(bo, "bo-lost")
    open_for(ada_lost=["pool"], bo_lost=["102", "pool"], ada_found=["102", "pool"])
    kinds = [event.event_type for event in call("events.list", since=hours(-1), access_grant_id=bo.access_grant_id)]
    for kind in ("access_method.issued", "access_method.revoked", "access_method.reissued"):
        assert kind in kinds, (kind, kinds)


def a_lost_card_lives_on_where_further_cards_join_and_the_stay_says_so():
    ada = grant("Ada", "lost-annex", ["201"])
    lost = write(ada, "ada-annex", at="Online Encoder 1")
    call("access_methods.delete", access_method_id=lost.access_method_id)
    call("access_grants.request_access_methods", access_grant_id=ada.access_grant_id, requested_access_methods=CARD)
    # Somebody else may have given the room away, so a live card of the stay has to be shown first.
    scan("ada-annex", "Online Encoder 1")
    write(ada, "ada-annex-2", at="Online Encoder 1")
    assert opens("ada-annex-2", "201")
    open_for(ada_annex=["201"], ada_annex_2=["201"])
    assert "still opens until" in told(ada)["overprovisioned_access"]


def scan(card, at):
    asked = call("acs.encoders.scan_credential", acs_encoder_id=encoder(at), wait_for_action_attempt=False)
    please("lay the card down when it is asked for", card=card, encoder=at)
    seen = ended(asked.action_attempt_id)
    please("take the card", encoder=at)
    assert seen.status == "success", seen.error
    return seen.result


def guests_move_to_another_room():
    ada, bo = grant("Ada", "move", ["103", "pool"]), grant("Bo", "move", ["103", "pool"])
    write(ada, "ada-moves")
    write(bo, "bo-moves")
    refused(
        lambda: grant("Ada", "move", ["104"]), 409, "reservation_entrance_change_requires_cleanup"
    )
    freed = tell("wire count CO")["count"]
    revoke(ada)
    assert tell("wire count CO")["count"] == freed, "the stay goes on with Bo"
    revoke(bo)
    tell(f"wait count CO {freed + 1} within 40000")
    ada = grant("Ada", "move", ["104", "pool"])
    # Her card can be told on the encoder; Bo has left with his.
    write(ada, "ada-moves")
    assert opens("ada-moves", "104")
    open_for(ada_moves=["104", "pool"], bo_moves=["103", "pool"])


def a_stay_is_extended_and_every_card_keeps_its_old_end_until_it_is_encoded_again():
    ada = grant("Ada", "extend", ["105"], ends=24)
    method = write(ada, "ada-extends")
    changes = tell("wire count MC")["count"]
    call("access_grants.update", access_grant_id=ada.access_grant_id, ends_at=hours(72))
    tell(f"wait count MC {changes + 1} within 40000")
    asks_again(ada)
    assert "keeps the end printed on it" in told(ada)["updating_access_times"]
    write(ada, "ada-extends")
    again = call("access_methods.get", access_method_id=method.access_method_id)
    assert again.is_issued and not again.is_encoding_required
    until("the grant has nothing to warn of", lambda: told(ada) == {})
    # Shortened, it opens longer than it should.
    call("access_grants.update", access_grant_id=ada.access_grant_id, ends_at=hours(12))
    assert "still opens" in told(ada)["overprovisioned_access"]


def guests_leave_early_and_the_next_stay_is_encoded_before_they_are_gone():
    ada = grant("Ada", "leaves", ["102"], ends=72)
    write(ada, "ada-leaves")
    assert opens("ada-leaves", "102")
    eve = grant("Eve", "comes", ["102"], begins=0, ends=96)
    write(eve, "eve-comes")
    assert opens("ada-leaves", "102"), "Eve is not there yet"
    revoke(ada)
    # Her room is not freed any more: it is Eve's.
    assert "until" in told(ada)["overprovisioned_access"]
    assert opens("eve-comes", "102")
    open_for(ada_leaves=[], eve_comes=["102"])


def two_rooms_in_one_stay():
    parents = grant("Ada", "family", ["103", "105", "pool"])
    write(parents, "parents")
    child = grant("Bea", "family", ["105"])
    write(child, "child")
    assert opens("parents", "103") and opens("parents", "105") and opens("child", "105")
    open_for(parents=["103", "105", "pool"], child=["105"])
    # One of the rooms goes to somebody else, and the other one is theirs as before.
    write(grant("Cy", "other", ["103"]), "other")
    assert opens("other", "103")
    open_for(parents=["105", "pool"], child=["105"], other=["103"])


def a_stay_in_two_systems_has_a_card_for_each():
    ada = grant("Ada", "both", ["104", "202"])
    methods = call("access_methods.list", access_grant_id=ada.access_grant_id)
    assert len(methods) == 2
    cards = {}
    for method in methods:
        [room] = call("acs.entrances.list", access_method_id=method.access_method_id)
        at = {"104": "1", "202": "Online Encoder 1"}[room.display_name]
        attempt = begin(method, at)
        please("lay the card down when it is asked for", card=f"both-{room.display_name}", encoder=at)
        assert ended(attempt).status == "success"
        please("take the card", encoder=at)
        cards[room.display_name] = method
    assert opens("both-104", "104") and opens("both-202", "202")
    open_for(both_104=["104"], both_202=["202"])


def a_card_that_may_have_been_written_is_never_written_blindly_again():
    ada, bo = grant("Ada", "doubt", ["101"]), grant("Bo", "doubt", ["101"])
    for card, settle in (("read", "reads it"), ("said", "says so")):
        who = ada if card == "read" else bo
        # The order has left and the card is written, but nobody is there to hear of it.
        attempt = begin(card_of(who))
        please("have the power fail when the card is asked for, and lay it down", card=f"doubt-{card}", encoder="1")
        failed = ended(attempt)
        please("take the card", encoder="1")
        assert failed.error["type"] == "encoding_interrupted", failed.error
        method = card_of(who)
        assert method.is_encoding_required and not method.is_ready_for_encoding and not method.is_issued
        refused(lambda: begin(method), 400, "access_method_not_ready_for_encoding")
        if settle == "reads it":
            # The first card of the stay: nobody knows whose room it is, until it is laid down once more.
            assert "room_state_unknown" in not_written(bo)
            scan("doubt-read", "1")
        else:
            please("say of the doubt", verdict="--done")
        until("the method knows", lambda: card_of(who).is_issued)
        assert attempt_of(attempt).status == "error", "what has ended stays"
    assert opens("doubt-read", "101") and opens("doubt-said", "101")


def somebody_else_gives_a_room_away():
    ada, bo = grant("Ada", "shared", ["202"]), grant("Bo", "shared", ["202"])
    write(ada, "ada-shared", at="Online Encoder 1")
    # Nobody can know what the other desk does: a further card needs a card of the stay that is alive.
    assert "room_state_unknown" in not_written(bo, at="Online Encoder 1")
    scan("ada-shared", "Online Encoder 1")
    tell("foreign-check-out 202")
    assert "no_stay_to_join" in not_written(bo, at="Online Encoder 1")
    complaint = please("look for a complaint", code="room_changed_elsewhere")
    assert "annex/202" in complaint["message"], complaint
    open_for(ada_shared=["202"])


def the_site_has_the_last_word():
    before = len(please("look what failed"))
    refusals = {"site_forbids_room": ("203", 24), "site_validity_limit": ("201", 40 * 24)}
    for refusal, (room, ends) in refusals.items():
        limited = grant("Ada", refusal, [room], ends=ends)
        assert refusal in not_written(limited, at="Online Encoder 1")
        assert not card_of(limited).is_issued
    # At the site they have the same names.
    failed = please("look what failed")
    assert sorted(job["code"] for job in failed[: len(failed) - before]) == sorted(refusals), failed


def a_family_gets_its_cards_in_a_row():
    family = [grant(name, "row", ["102"]) for name in ("Ada", "Bea", "Cy")]
    attempts = [begin(card_of(one)) for one in family]
    for number, attempt in enumerate(attempts):
        please("lay the card down when it is asked for", card=f"row-{number}", encoder="1")
        assert ended(attempt).status == "success"
        waiting = [attempt_of(later).status for later in attempts[number + 1 :]]
        assert waiting == ["pending"] * len(waiting), "one card, one encode"
        please("take the card", encoder="1")
    assert all(opens(f"row-{number}", "102") for number in range(3))


def what_people_do_at_the_encoder():
    ada, bo = grant("Ada", "hands", ["104"]), grant("Bo", "hands", ["104"])
    for card, kind, error in (
        ("chef", "staff", "uncategorized_error"),
        ("broken", "damaged", "incompatible_card_format"),
    ):
        attempt = begin(card_of(ada))
        please("lay a card of a kind down when it is asked for", card=card, kind=kind, encoder="1")
        failed = ended(attempt)
        please("take the card", encoder="1")
        assert failed.error["type"] == error, failed.error
    first, second = begin(card_of(ada)), begin(card_of(bo))
    please("cancel the card that waits at the desk")
    assert ended(second).error["type"] == "credential_deleted"
    please("lay the card down when it is asked for", card="hands", encoder="1")
    assert ended(first).status == "success"
    # It is left where it is, and does not become Bo's because of that.
    third = begin(card_of(bo))
    tell("wait card-wait 1 within 40000")
    assert attempt_of(third).status == "pending"
    please("take the card", encoder="1")
    please("lay the card down when it is asked for", card="hands-too", encoder="1")
    assert ended(third).status == "success"
    please("take the card", encoder="1")
    assert opens("hands", "104") and opens("hands-too", "104")


def the_desk_goes_on_while_the_cloud_is_away_and_the_client_sees_what_it_did():
    bo = grant("Bo", "away-bo", ["104"])
    write(bo, "bo-away")
    # Somebody stays on in the room: it is not freed when Bo's grant goes, and the card goes on opening.
    grant("Liv", "away-bo", ["104"])
    please("have the cloud go away")
    made = please(
        "make a grant at the desk", name="Ada", door="105", stay="away-ada", key="ada-away", to=hours(24)
    )
    please("write its card at the desk", grant="ada-away", card="ada-away", encoder="1")
    please("take a grant back at the desk", grant=bo.access_grant_id)
    assert opens("ada-away", "105")
    please("have the cloud come back")

    def adopted():
        try:
            known = call("access_grants.get", access_grant_key="ada-away")
        except client.SeamHttpApiError:
            return None
        return card_of(known).is_issued and known

    ada = until("the client sees the grant and its card", adopted)
    assert ada.access_grant_id == made["access_grant_id"]
    assert told(ada) == {}
    kinds = kinds_of(ada)
    for kind in ("access_grant.created", "access_method.created", "access_method.issued"):
        assert kinds.count(kind) == 1, (kind, kinds)
    until("the client sees the end", lambda: "being_deleted" in told(bo))
    assert "until" in told(bo)["overprovisioned_access"]
    # The next stay in her room: hers is written, and not what it was.
    before = invalidated()
    eve = grant("Eve", "away-eve", ["105"])
    write(eve, "eve-away")
    [card] = until("her card is told to be invalid", lambda: invalidated() - before)
    assert card in {event.acs_credential_id for event in told_of("acs_credential.issued")}


def a_desk_gives_out_a_pin_while_the_cloud_is_away_and_the_client_sees_the_same_one():
    lock = until("the lock is there", lambda: [one for one in call("devices.list") if one.display_name == "lock-1"])[0]
    tom = call(
        "access_grants.create",
        user_identity={"full_name": "Tom"},
        device_ids=[lock.device_id],
        requested_access_methods=[{"mode": "code"}],
        starts_at=hours(0),
        ends_at=hours(48),
    )
    until("his PIN is there", lambda: card_of(tom).is_issued)
    his = card_of(tom).code
    assert types(his)
    please("have the cloud go away")
    made = please("give a PIN out at the desk", name="Ida", lock="lock-1", key="ida-away", to=hours(24))
    [code] = made["codes"]
    assert code["state"] == "set" and code["code"] != his
    assert types(code["code"])
    # Whoever gave a PIN out, a desk that is alone takes it back.
    please("take a grant back at the desk", grant=tom.access_grant_id)
    until("his PIN is gone", lambda: not types(his))
    please("have the cloud come back")

    def adopted():
        try:
            known = call("access_grants.get", access_grant_key="ida-away")
        except client.SeamHttpApiError:
            return None
        return card_of(known).is_issued and known

    ida = until("the client sees the grant and its PIN", adopted)
    method = card_of(ida)
    assert (method.access_method_id, method.code) == (code["access_method_id"], code["code"])
    assert (told(ida), each(ida.errors, "error_code")) == ({}, [])
    assert kinds_of(ida).count("access_method.issued") == 1
    assert types(code["code"])

    def is_gone():
        try:
            return call("access_grants.get", access_grant_id=tom.access_grant_id) and False
        except client.SeamHttpApiError:
            return True

    until("the client sees the end of his grant", is_gone)
    revoke(ida)
    until("her PIN is gone", lambda: not types(code["code"]))


def types(pin):
    return please("type the code", lock="lock-1", code=pin)


def kinds_of(granted):
    events = call("events.list", since=hours(-1), access_grant_id=granted.access_grant_id)
    return [event.event_type for event in events]


def told_of(kind):
    return call("events.list", since=hours(-1), event_type=kind)


def invalidated():
    return {event.acs_credential_id for event in told_of("acs_credential.invalidated")}


for story in (
    which_grants_make_a_stay,
    the_first_card_overrides_and_the_second_joins_whoever_comes_first,
    a_lost_card_dies_with_its_stay_where_the_house_wants_that,
    a_lost_card_lives_on_where_further_cards_join_and_the_stay_says_so,
    guests_move_to_another_room,
    a_stay_is_extended_and_every_card_keeps_its_old_end_until_it_is_encoded_again,
    guests_leave_early_and_the_next_stay_is_encoded_before_they_are_gone,
    two_rooms_in_one_stay,
    a_stay_in_two_systems_has_a_card_for_each,
    a_card_that_may_have_been_written_is_never_written_blindly_again,
    somebody_else_gives_a_room_away,
    the_site_has_the_last_word,
    a_family_gets_its_cards_in_a_row,
    what_people_do_at_the_encoder,
    the_desk_goes_on_while_the_cloud_is_away_and_the_client_sees_what_it_did,
    a_desk_gives_out_a_pin_while_the_cloud_is_away_and_the_client_sees_the_same_one,
):
    story()
    say({"flow": story.__name__.replace("_", " ")})
