"""Codes in locks that are spoken to by Bluetooth, and in one whose codes its maker computes, by the Python client."""

from datetime import datetime, timedelta, timezone

from house import call, each, gone, issued, please, say, text, until

# Long enough for everything that comes before its end.
SHORT = timedelta(seconds=40)


def device(name):
    return next(device for device in call("devices.list") if device.display_name == name)


def opens_ttlock(code):
    return please("try the code", **{"lock": "ttlock-1", "try": code})["answer"] == "opens"


def opens_august(code, at):
    at = at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return please("try the code", **{"lock": "august-1", "try": f"{code} {at}"})["opens"]


def a_code_of_a_lock_by_bluetooth_opens_within_its_hours_only():
    now = datetime.now(timezone.utc).replace(microsecond=0)
    begin, end = now + timedelta(hours=20), now + timedelta(hours=44)
    lock = device("201")
    assert (lock.device_type, lock.can_program_online_access_codes) == ("august_lock", True)
    grant = call(
        "access_grants.create",
        user_identity={"full_name": "Jane Doe"},
        device_ids=[lock.device_id],
        requested_access_methods=[{"mode": "code"}],
        starts_at=text(begin),
        ends_at=text(end),
    )
    code = issued(grant.access_method_ids[0]).code
    second = timedelta(seconds=1)
    table = [(begin - second, False), (begin, True), (end - second, True), (end + second, False)]
    assert [opens_august(code, at) for at, _ in table] == [opens for _, opens in table]

    # It goes on longer, with the same code.
    longer = end + timedelta(hours=20)
    call("access_grants.update", access_grant_id=grant.access_grant_id, ends_at=text(longer))
    until("the lock knows of it", lambda: opens_august(code, longer - second))
    assert issued(grant.access_method_ids[0]).code == code
    assert not opens_august(code, longer + second)

    call("access_grants.delete", access_grant_id=grant.access_grant_id)
    gone("access_grants.get", access_grant_id=grant.access_grant_id)
    assert not opens_august(code, longer - second)


def a_code_is_gone_after_its_end_from_a_space_of_three_kinds_and_what_is_not_is_told():
    names = ["101", "201", "301"]
    computed = device("301")
    assert computed.can_unlock_with_code
    assert not computed.can_program_online_access_codes
    space = call(
        "spaces.create", name="Cabin", device_ids=[device(name).device_id for name in names]
    )
    end = datetime.now(timezone.utc) + SHORT
    grant = call(
        "access_grants.create",
        user_identity={"full_name": "John Doe"},
        space_ids=[space.space_id],
        # As the maker of one of them computed it.
        requested_access_methods=[{"mode": "code", "code": "830517"}],
        ends_at=text(end),
    )
    [access_method_id] = grant.access_method_ids
    assert issued(access_method_id).code == "830517"
    assert opens_ttlock("830517")
    assert opens_august("830517", end - timedelta(seconds=2))

    please("tell the radio", line="range ttlock-1 off")
    call("access_grants.delete", access_grant_id=grant.access_grant_id)
    until("one lock is free of it", lambda: not opens_august("830517", end - timedelta(seconds=2)))

    def still_there():
        seen = call("access_grants.get", access_grant_id=grant.access_grant_id)
        [warning] = [one for one in seen.warnings if one["warning_code"] == "overprovisioned_access"]
        return each(warning["failed_devices"], "device_id")

    left = sorted(device(name).device_id for name in ("101", "301"))
    until("those are named that may have it", lambda: still_there() == left)
    assert opens_ttlock("830517")
    please("tell the radio", line="range ttlock-1 on")
    until("the other one is free of it", lambda: not opens_ttlock("830517"))
    # Nobody can take away what its maker computed: it is said until it is over.
    if datetime.now(timezone.utc) < end - timedelta(seconds=5):
        until("one is left", lambda: still_there() == [computed.device_id])
        assert datetime.now(timezone.utc) < end
    gone("access_grants.get", access_grant_id=grant.access_grant_id)
    assert end <= datetime.now(timezone.utc)


def nobody_makes_up_a_code_for_a_lock_whose_maker_computes_them():
    grant = call(
        "access_grants.create",
        user_identity={"full_name": "Eve"},
        device_ids=[device("301").device_id],
        requested_access_methods=[{"mode": "code"}],
    )
    seen = call("access_grants.get", access_grant_id=grant.access_grant_id)
    assert seen.access_method_ids == []
    told = str(seen.errors) + str(seen.warnings) + str(seen.requested_access_methods)
    assert "their maker computes" in told, told
    call("access_grants.delete", access_grant_id=grant.access_grant_id)


for flow in (
    a_code_of_a_lock_by_bluetooth_opens_within_its_hours_only,
    a_code_is_gone_after_its_end_from_a_space_of_three_kinds_and_what_is_not_is_told,
    nobody_makes_up_a_code_for_a_lock_whose_maker_computes_them,
):
    flow()
    say({"flow": flow.__name__.replace("_", " ")})
