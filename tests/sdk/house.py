"""The client as a script holds it, and the people of the house: what only they can do, such as laying a card down, is
asked for on standard output and answered on standard input.

A call that this line of the client does not know is skipped, and said to be.
"""

import functools
import inspect
import json
import os
import re
import sys
import time
from datetime import datetime, timedelta, timezone
from importlib.metadata import version

import seam as client

ENDPOINT = os.environ["API"]
seam = client.Seam(api_key=os.environ["API_KEY"], endpoint=ENDPOINT)


def say(line):
    print(json.dumps(line), flush=True)


def ask(what, **about):
    say({"please": what, **about})


def answer():
    return json.loads(sys.stdin.readline())


def please(what, **about):
    ask(what, **about)
    return answer()


SKIPPED = object()


def call(path, **params):
    try:
        asked = functools.reduce(getattr, path.split("."), seam)
    except AttributeError:
        asked = None
    known = asked and inspect.signature(asked).parameters
    if known is None or not set(params) <= set(known):
        say({"skipped": f"{path} (seam {version('seam')})"})
        return SKIPPED
    return asked(**params)


def until(what, look):
    end = time.monotonic() + 40
    while time.monotonic() < end:
        seen = look()
        if seen:
            return seen
        time.sleep(0.025)
    raise AssertionError(f"waited in vain until {what}")


def refused(asked, status, code, kind=client.SeamHttpApiError):
    """What the client throws, in a table's words."""
    try:
        asked()
    except client.SeamHttpApiError as error:
        assert isinstance(error, kind), error
        assert (error.status_code, error.code) == (status, code), (error.status_code, error.code, str(error))
        assert re.fullmatch("[0-9a-f-]{36}", error.request_id)
        return error
    raise AssertionError(f"it was not refused: {code}")


def each(things, key):
    return sorted(thing[key] if isinstance(thing, dict) else getattr(thing, key) for thing in things)


def text(moment):
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def hours(count):
    """As Python writes it, with an offset and microseconds."""
    return (datetime.now(timezone.utc) + timedelta(hours=count)).isoformat()


def example_days():
    """The days of an example, moved to where they lie ahead: from the next 15:00 on."""
    now = datetime.now(timezone.utc)
    first = now.replace(hour=15, minute=0, second=0, microsecond=0)
    if first <= now:
        first += timedelta(days=1)
    return text(first), text(first.replace(hour=11) + timedelta(days=3))


def issued(access_method_id):
    def look():
        method = call("access_methods.get", access_method_id=access_method_id)
        return method.is_issued and not method.pending_mutations and method

    return until("the access method is issued", look)


def gone(path, **params):
    """What is deleted is there until the locks have let go of it."""

    def look():
        try:
            call(path, **params)
        except client.SeamHttpApiError as error:
            return error
        return None

    error = until(f"{path} finds it no longer", look)
    assert error.status_code == 404 and error.code.endswith("_not_found"), error.code


def opens(card, door):
    return please("try the card", card=card, door=door)


def unlocks(code, lock):
    return please("type the code", code=code, lock=lock)


def holds(lock):
    return please("look what the lock holds", lock=lock)
