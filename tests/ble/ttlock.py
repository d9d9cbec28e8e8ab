"""An independent client of TTLock locks, ttlock-ble over bleak, against the pretend lock."""

import asyncio
import json
import socket
import sys

from ttlock_ble.client import TTLockClient
from ttlock_ble.models import LockVersion, VirtualKey


def sim(control, command):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(control)
        stream.sendall((command + "\n").encode())
        answer = json.loads(stream.makefile().readline())
    assert answer["ok"], answer
    return answer.get("answer", "")


async def main(control, address, keys_file):
    keys = json.load(open(keys_file))
    version = LockVersion(protocolType=5, protocolVersion=3, scene=7, groupId=1, orgId=1)
    key = VirtualKey(
        keyId=1, lockId=1, lockMac=address, lockAlias="", lockName="", lockVersion=version,
        aesKeyStr=keys["aes_key"], unlockKey=str(keys["unlock"]), lockFlagPos=0, timezoneRawOffSet=0,
    )
    async with TTLockClient(key, keep_alive_after_command=0) as lock:
        assert await lock.query_state() == (0, 87), "locked"
        await lock.unlock()
        assert sim(control, "lock ttlock-1 done") == "0 writes, 1 opens"
        assert await lock.query_state() == (1, 87), "open"
        await lock.lock()
        # It never logs in as administrator, which the pretend lock asks for.
        sim(control, "lock ttlock-1 lenient")
        await lock.add_passcode("135790")
        assert sim(control, "lock ttlock-1 slots").startswith("135790 "), sim(control, "lock ttlock-1 slots")
        try:
            await lock.add_passcode("135790")
            raise AssertionError("a passcode twice")
        except AssertionError:
            raise
        except Exception as error:
            assert "error=14" in str(error), error
        await lock.delete_passcode("135790")
        assert sim(control, "lock ttlock-1 slots") == ""
        log = await lock.get_operation_log()
        assert [entry.record_type for entry in log] == [26, 26], log
    print("held")


asyncio.run(main(*sys.argv[1:]))
