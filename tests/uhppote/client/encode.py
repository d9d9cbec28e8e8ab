"""Prints what an independent client sends: one JSON object of request names and frames."""

import datetime
import ipaddress
import json
from types import SimpleNamespace as Of

from uhppoted import encode
from uhppoted.structs import DoorMode

BOARD = 405419896
FROM, TO = datetime.date(2026, 11, 21), datetime.date(2026, 11, 24)
NONE = datetime.time(0, 0)
HALF = datetime.time(8, 30)
address = ipaddress.IPv4Address

frames = {
    "get_device": encode.get_controller_request(BOARD),
    "discover": encode.get_controller_request(0),
    "set_address": encode.set_ip_request(
        BOARD, address("192.168.1.125"), address("255.255.255.0"), address("192.168.1.1")
    ),
    "get_time": encode.get_time_request(BOARD),
    "set_time": encode.set_time_request(BOARD, datetime.datetime(2026, 11, 21, 23, 30, 5)),
    "get_status": encode.get_status_request(BOARD),
    "get_listener": encode.get_listener_request(BOARD),
    "set_listener": encode.set_listener_request(BOARD, address("192.168.1.2"), 60001, 15),
    "get_door_control": encode.get_door_control_request(BOARD, 3),
    "set_door_control": encode.set_door_control_request(BOARD, 4, 2, 17),
    "open_door": encode.open_door_request(BOARD, 4),
    "count_cards": encode.get_cards_request(BOARD),
    "get_card": encode.get_card_request(BOARD, 10058400),
    "get_card_by_index": encode.get_card_by_index_request(BOARD, 70000),
    "put_card": encode.put_card_request(BOARD, 10058400, FROM, TO, 1, 0, 29, 254, 999999),
    "delete_card": encode.delete_card_request(BOARD, 10058400),
    "delete_all_cards": encode.delete_cards_request(BOARD),
    "get_event": encode.get_event_request(BOARD, 0xFFFFFFFF),
    "get_event_index": encode.get_event_index_request(BOARD),
    "set_event_index": encode.set_event_index_request(BOARD, 98765),
    "record_special_events": encode.record_special_events_request(BOARD, True),
    "get_time_profile": encode.get_time_profile_request(BOARD, 254),
    "set_time_profile": encode.set_time_profile_request(
        BOARD, 29, FROM, TO, True, False, True, False, True, False, True,
        HALF, datetime.time(11, 45), datetime.time(13, 15), datetime.time(17, 30), NONE, NONE, 30,
    ),
    "clear_time_profiles": encode.delete_all_time_profiles_request(BOARD),
    "add_task": encode.add_task_request(
        BOARD, FROM, TO, True, False, True, False, True, False, True, HALF, 3, 2, 7
    ),
    "refresh_tasks": encode.refresh_tasklist_request(BOARD),
    "clear_tasks": encode.clear_tasklist_request(BOARD),
    "set_pc_control": encode.set_pc_control_request(BOARD, True),
    "set_interlock": encode.set_interlock_request(BOARD, 8),
    "activate_keypads": encode.activate_keypads_request(BOARD, True, False, False, True),
    "set_door_passcodes": encode.set_door_passcodes_request(BOARD, 2, 12345, 999999, 0, 54321),
    "get_anti_passback": encode.get_antipassback_request(BOARD),
    "set_anti_passback": encode.set_antipassback_request(BOARD, 4),
    "set_first_card": encode.set_firstcard_request(
        BOARD, 3,
        Of(
            start_time=HALF, end_time=datetime.time(17, 45), active_mode=DoorMode.NORMALLY_OPEN,
            inactive_mode=DoorMode.FIRSTCARD_ONLY,
            weekdays=Of(
                monday=True, tuesday=True, wednesday=False, thursday=True, friday=True, saturday=False, sunday=True
            ),
        ),
    ),
    "restore_defaults": encode.restore_default_parameters_request(BOARD),
}
print(json.dumps({name: bytes(frame).hex() for name, frame in frames.items()}))
