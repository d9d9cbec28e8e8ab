"""An independent client of August locks, yalexs-ble over bleak, against the pretend lock."""

import asyncio
import json
import socket
import sys

from bleak import BleakScanner
from yalexs_ble.const import LockStatus
from yalexs_ble.lock import KeycodeError, Lock
from yalexs_ble.session import AuthError


def sim(control, command):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(control)
        stream.sendall((command + "\n").encode())
        answer = json.loads(stream.makefile().readline())
    assert answer["ok"], answer
    return answer


async def main(control, address, name, keys_file):
    keys = json.load(open(keys_file))
    device = await BleakScanner.find_device_by_address(address, timeout=20)
    assert device is not None and device.name == name, device
    lock = Lock(lambda: device, keys["offline_key"], keys["slot"], name, lambda states: None)
    await lock.connect()
    try:
        assert await lock.lock_status() == LockStatus.LOCKED
        await lock.set_keycode(7, "135790")
        assert await lock.get_keycode(7) == "135790"
        assert await lock.get_keycode(8) is None
        assert sim(control, "lock august-1 try 135790")["opens"]
        try:
            await lock.set_keycode(8, "135790")
            raise AssertionError("a PIN in two slots")
        except KeycodeError as error:
            assert "0x06" in str(error), error
        await lock.clear_keycode(7)
        assert await lock.get_keycode(7) is None
        assert not sim(control, "lock august-1 try 135790")["opens"]
        await lock.force_unlock()
        assert await lock.lock_status() == LockStatus.UNLOCKED
        await lock.force_lock()
        assert await lock.lock_status() == LockStatus.LOCKED
    finally:
        await lock.disconnect()

    wrong = Lock(lambda: device, "00" * 16, keys["slot"], name, lambda states: None)
    try:
        await wrong.connect()
        raise AssertionError("a wrong key was taken")
    except AuthError:
        print("held")


asyncio.run(main(*sys.argv[1:]))
