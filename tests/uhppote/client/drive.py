"""Lets an independent client loose on the pretend boards, over UDP and TCP. Arguments: control socket, address."""

import datetime
import ipaddress
import json
import socket
import sys

from uhppoted import uhppote
from uhppoted.decode import get_status_response
from uhppoted.structs import DoorMode
from types import SimpleNamespace as Of

BOARD, OTHER = 405419896, 303986753
FROM, TO = datetime.date(2026, 11, 21), datetime.date(2026, 11, 24)
NONE = datetime.time(0, 0)

control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
lines = control.makefile("rw")


def say(words):
    lines.write(words + "\n")
    lines.flush()
    answer = json.loads(lines.readline())
    assert answer["ok"], (words, answer)
    return answer


address = sys.argv[2]
host, port = address.split(":")
client = uhppote.Uhppote("127.0.0.1", address, "127.0.0.1:60001")

found = client.get_all_controllers(timeout=0.5)
assert sorted(it.controller for it in found) == sorted([BOARD, OTHER]), found

for number, way in [(10058400, "udp"), (10058401, "tcp")]:
    board = (BOARD, address, way)
    device = client.get_controller(board)
    assert (device.controller, device.version, str(device.date)) == (BOARD, "v8.92", "2018-11-05"), device

    now = datetime.datetime(2026, 11, 21, 23, 30, 5)
    assert client.set_time(board, now).datetime == now
    shown = client.get_time(board).datetime
    assert now <= shown < now + datetime.timedelta(seconds=30), shown

    assert client.set_door_control(board, 3, 3, 9).delay == 9
    assert client.get_door_control(board, 3).mode == 3
    assert client.get_door_control(board, 3).delay == 9

    assert client.put_card(board, number, FROM, TO, 1, 0, 29, 1, 7531).stored
    card = client.get_card(board, number)
    assert (card.card_number, card.start_date, card.end_date) == (number, FROM, TO), card
    assert (card.door_1, card.door_2, card.door_3, card.door_4, card.pin) == (1, 0, 29, 1, 7531), card
    assert client.get_card(board, 12345).card_number == 0
    assert client.get_cards(board).cards == len(say("cards")["cards"])
    assert client.get_card_by_index(board, 1).card_number == 10058400

    profile = client.set_time_profile(
        board, 29, FROM, TO, True, True, False, True, True, False, True,
        datetime.time(8, 30), datetime.time(11, 45), datetime.time(13, 15), datetime.time(17, 30), NONE, NONE, 30,
    )
    assert profile.stored
    profile = client.get_time_profile(board, 29)
    assert (profile.profile_id, profile.start_date, profile.end_date) == (29, FROM, TO), profile
    assert (profile.wednesday, profile.saturday, profile.sunday) == (False, False, True), profile
    assert (profile.segment_2_start, profile.segment_2_end) == (datetime.time(13, 15), datetime.time(17, 30))
    assert profile.linked_profile_id == 30
    assert client.get_time_profile(board, 77).profile_id == 0

    assert client.activate_keypads(board, True, False, False, False).ok
    assert client.set_door_passcodes(board, 2, 12345, 0, 0, 999999).ok
    assert say("code 999999 2")["granted"]

    before = client.get_event(board, 0xFFFFFFFF).index
    assert say(f"swipe {number} 1 7531")["granted"]
    event = client.get_event(board, before + 1)
    assert (event.access_granted, event.door, event.card, event.reason) == (True, 1, number, 1), event
    assert not say(f"swipe {number} 1 1")["granted"]
    last = client.get_event(board, 0xFFFFFFFF)
    assert (last.index, last.access_granted, last.reason) == (before + 2, False, 7), last
    assert client.get_event(board, 0).index == 1
    status = client.get_status(board)
    assert (status.event_index, status.event_card, status.event_reason) == (last.index, number, 7), status
    assert status.system_date == datetime.date(2026, 11, 21), status

    assert client.set_event_index(board, last.index).updated
    assert not client.set_event_index(board, last.index).updated
    assert client.get_event_index(board).event_index == last.index

    assert client.open_door(board, 4).opened
    assert say("doors")["opened"][3] == (1 if way == "udp" else 2)

    assert client.set_antipassback(board, 2).ok
    assert client.get_antipassback(board).antipassback == 2
    assert client.set_interlock(board, 4).ok
    week = Of(monday=True, tuesday=True, wednesday=True, thursday=True, friday=True, saturday=False, sunday=False)
    first = Of(
        start_time=datetime.time(8, 30), end_time=datetime.time(17, 45), weekdays=week,
        active_mode=DoorMode.NORMALLY_OPEN, inactive_mode=DoorMode.CONTROLLED,
    )
    assert client.set_firstcard(board, 2, first)
    assert client.clear_tasklist(board).cleared
    assert client.add_task(
        board, FROM, TO, True, True, True, True, True, False, False, datetime.time(8, 30), 3, 2, 0
    ).added
    assert client.refresh_tasklist(board).refreshed
    assert client.set_pc_control(board, True).ok
    assert say(f"swipe {number} 1 7531")["reason"] == 5
    assert client.set_pc_control(board, False).ok
    assert client.record_special_events(board, True).updated
    assert client.set_ip(board, ipaddress.IPv4Address("192.168.1.7"), ipaddress.IPv4Address("255.255.255.0"),
                         ipaddress.IPv4Address("192.168.1.1"))
    if way == "udp":
        assert str(client.get_controller(board).ip_address) == "192.168.1.7"

# An event is sent to the listener, in the form in which the client reads a status.
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("127.0.0.1", 0))
listener.settimeout(10)
board = (BOARD, address, "udp")
here = listener.getsockname()[1]
assert client.set_listener(board, ipaddress.IPv4Address("127.0.0.1"), here, 0).ok
assert client.get_listener(board).port == here
assert not say("swipe 999 1")["granted"]
event = get_status_response(listener.recv(128))
assert (event.controller, event.event_card, event.event_reason) == (BOARD, 999, 18), event

assert client.delete_card(board, 10058401).deleted
assert not client.delete_card(board, 10058401).deleted
assert client.get_card_by_index(board, 2).card_number == 0xFFFFFFFF
assert client.delete_all_cards(board).deleted
assert client.get_cards(board).cards == 0
assert client.delete_all_time_profiles(board).deleted
assert client.restore_default_parameters(board).reset
assert client.get_event(board, 0xFFFFFFFF).index == 0
print("held")
