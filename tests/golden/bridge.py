"""A bridge that shares nothing with latchd but the page that describes its language.

Python's standard library and nothing else: the two kinds of signature are computed here, from RFC 8032 and FIPS 186-5.
Slow, not safe against anybody who measures it, and of no use but to show that the page is enough.

    bridge.py hear FOLDER                      judge the golden conversation in FOLDER
    bridge.py work HOST:PORT CODE FINGERPRINT FOLDER    be taken in, take orders and report them done

`work` says what happens in lines of JSON, and ends with the first order whose report the cloud holds.
"""

import base64
import datetime
import hashlib
import http.client
import json
import os
import secrets
import socket
import ssl
import struct
import sys
import time

# -- Ed25519: -x^2 + y^2 = 1 + d x^2 y^2 over the integers modulo P; points are (x, y, z, t) with t = x y / z.

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493


def ed_add(one, two):
    a = (one[1] - one[0]) * (two[1] - two[0]) % P
    b = (one[1] + one[0]) * (two[1] + two[0]) % P
    c = 2 * one[3] * two[3] * D % P
    d = 2 * one[2] * two[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def ed_times(number, point):
    sum_ = (0, 1, 1, 0)
    while number:
        if number & 1:
            sum_ = ed_add(sum_, point)
        point = ed_add(point, point)
        number >>= 1
    return sum_


def ed_root(y, is_odd):
    """The x of a point, or nothing where there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and is_odd):
        return None
    return P - x if (x & 1) != is_odd else x


def ed_write(point):
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def ed_read(text):
    number = int.from_bytes(text, "little")
    y, is_odd = number & (1 << 255) - 1, number >> 255
    x = ed_root(y, is_odd) if y < P else None
    return None if x is None else (x, y, 1, x * y % P)


def ed_number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


ED_BASE_Y = 4 * pow(5, -1, P) % P
ED_BASE = ed_read(ED_BASE_Y.to_bytes(32, "little"))


class SigningKey:
    def __init__(self, seed):
        digest = hashlib.sha512(seed).digest()
        self.number = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
        self.prefix = digest[32:]
        self.public = ed_write(ed_times(self.number, ED_BASE))

    def sign(self, word, text):
        nonce = ed_number(self.prefix, word, text)
        first = ed_write(ed_times(nonce, ED_BASE))
        second = (nonce + ed_number(first, self.public, word, text) * self.number) % ORDER
        return b64(first + second.to_bytes(32, "little"))


def is_signed(public, word, text, signature):
    key, first = ed_read(public), ed_read(signature[:32])
    second = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or key is None or first is None or second >= ORDER:
        return False
    number = ed_number(signature[:32], public, word, text)
    return ed_write(ed_times(second, ED_BASE)) == ed_write(ed_add(first, ed_times(number, key)))


# -- ECDSA on P-256, for the certificate's key only.

Q = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def p256_add(one, two):
    if one is None or two is None:
        return one or two
    if one[0] == two[0]:
        if (one[1] + two[1]) % Q == 0:
            return None
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, Q) % Q
    else:
        slope = (two[1] - one[1]) * pow(two[0] - one[0], -1, Q) % Q
    x = (slope * slope - one[0] - two[0]) % Q
    return x, (slope * (one[0] - x) - one[1]) % Q


def p256_times(number):
    sum_, point = None, P256_BASE
    while number:
        if number & 1:
            sum_ = p256_add(sum_, point)
        point = p256_add(point, point)
        number >>= 1
    return sum_


def der(tag, *parts):
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(length)]) + length + body


def der_number(number):
    return der(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


ECDSA_SHA256 = der(0x30, bytes.fromhex("06082a8648ce3d040302"))
EC_P256 = der(0x30, bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107"))


def certificate_key():
    """A key for TLS: the file that OpenSSL reads, and the request for its certificate (PKCS #10, DER)."""
    number = secrets.randbelow(P256_ORDER - 1) + 1
    x, y = p256_times(number)
    point = b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    inner = der(0x30, der_number(1), der(4, number.to_bytes(32, "big")), der(0xA1, der(3, b"\0", point)))
    private = der(0x30, der_number(0), EC_P256, der(4, inner))
    wish = der(0x30, der_number(0), der(0x30), der(0x30, EC_P256, der(3, b"\0", point)), der(0xA0))
    digest = int.from_bytes(hashlib.sha256(wish).digest(), "big")
    nonce = secrets.randbelow(P256_ORDER - 1) + 1
    r = p256_times(nonce)[0] % P256_ORDER
    s = (digest + r * number) * pow(nonce, -1, P256_ORDER) % P256_ORDER
    signature = der(3, b"\0", der(0x30, der_number(r), der_number(s)))
    text = base64.encodebytes(private).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n", der(0x30, wish, ECDSA_SHA256, signature)


# -- The language.

TO_CLOUD = b"latchd v1 bridge to cloud\0"
TO_BRIDGE = b"latchd v1 cloud to bridge\0"


class Refused(Exception):
    """What the other side said does not count; the name is the one that it is told."""


def b64(some):
    return base64.b64encode(some).decode()


def unb64(text):
    return base64.b64decode(text, validate=True)


def key_id(public):
    return hashlib.sha256(public).hexdigest()[:16]


def fingerprint(word, *parts):
    digest = hashlib.sha256(word)
    for part in parts:
        digest.update(struct.pack(">Q", len(part)) + part)
    number = int.from_bytes(digest.digest()[:10], "big")
    digits = [("0123456789ABCDEFGHJKMNPQRSTVWXYZ")[number >> 5 * at & 31] for at in reversed(range(16))]
    return "-".join("".join(digits[at : at + 4]) for at in range(0, 16, 4))


def fingerprint_of_cloud(card):
    authority = card.get("authority") or ""
    return fingerprint(b"latchd v1 cloud's fingerprint\0", unb64(card["cloud_keys"][0]), authority.encode())


def fingerprint_of_bridge(public, csr):
    return fingerprint(b"latchd v1 bridge's fingerprint\0", public, csr.encode())


def seconds(timestamp):
    """Seconds since 1970 of an RFC 3339 text in UTC."""
    whole, _, fraction = timestamp.removesuffix("Z").partition(".")
    parsed = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    return parsed.timestamp() + float(f"0.{fraction or 0}")


def timestamp(at):
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Voice:
    """What one side says in one session."""

    def __init__(self, word, key, bridge_id, session):
        self.word, self.key, self.bridge_id, self.session, self.seq = word, key, bridge_id, session, 0

    def say(self, frame, expires_at=None):
        """The packet that travels, and the body that was signed."""
        self.seq += 1
        body = {"bridge_id": self.bridge_id, "session": self.session, "seq": self.seq}
        if expires_at is not None:
            body["expires_at"] = timestamp(expires_at)
        body = json.dumps({**body, "frame": frame})
        packet = {
            "type": "signed",
            "key_id": key_id(self.key.public),
            "signature": self.key.sign(self.word, body.encode()),
            "body": body,
        }
        return json.dumps(packet), body


class Ear:
    """What one side is believed in one session."""

    def __init__(self, word, keys, bridge_id, session):
        self.word, self.bridge_id, self.session, self.seq = word, bridge_id, session, 0
        self.keys = {key_id(key): key for key in keys}

    def hear(self, text, now):
        """A frame, and the body that was signed, if it was."""
        said = json.loads(text)
        if said["type"] in ("ping", "pong", "refused"):
            return said, None
        if said["type"] != "signed":
            raise Refused("signature_missing")
        if said["key_id"] not in self.keys:
            raise Refused("key_unknown")
        if not is_signed(self.keys[said["key_id"]], self.word, said["body"].encode(), unb64(said["signature"])):
            raise Refused("signature_invalid")
        body = json.loads(said["body"])
        if body["bridge_id"] != self.bridge_id or body["session"] != self.session or body["seq"] <= self.seq:
            raise Refused("message_replayed")
        if body["seq"] != self.seq + 1:
            raise Refused("message_missing")
        begins = body["frame"]["type"] in ("hello", "welcome")
        if body.get("expires_at") is None and not begins:
            raise Refused("frame_malformed")
        if body.get("expires_at") is not None and now is not None and seconds(body["expires_at"]) < now:
            raise Refused("message_expired")
        self.seq += 1
        return body["frame"], said["body"]


def session_of(hello):
    return b64(hashlib.sha256(hello.encode()).digest()[:16])


# -- The golden conversation.


def hear(folder):
    """Believes every word of it, and not one that was changed."""
    keys = json.load(open(os.path.join(folder, "keys.json")))
    told = json.load(open(os.path.join(folder, "conversation.json")))
    for key in keys.values():
        assert b64(SigningKey(bytes.fromhex(key["seed"])).public) == key["public"], key
    words = {"bridge": TO_CLOUD, "cloud": TO_BRIDGE}
    bridge_id = json.loads(json.loads(told["messages"][0]["text"])["body"])["bridge_id"]

    def ears(session):
        return {by: Ear(words[by], [unb64(keys[by]["public"])], bridge_id, session) for by in words}

    hearing, heard, refused = ears(told["latchd-nonce"]), 0, 0
    for message in told["messages"]:
        ear, text = hearing[message["by"]], message["text"]
        if json.loads(text)["type"] == "signed":
            changed = json.loads(text)
            at = len(changed["body"]) // 2
            changed["body"] = changed["body"][:at] + chr(ord(changed["body"][at]) ^ 1) + changed["body"][at + 1 :]
            try:
                ear.hear(json.dumps(changed), None)
            except Refused as why:
                assert str(why) == "signature_invalid", why
                refused += 1
        frame, body = ear.hear(text, None)
        heard += 1
        if frame["type"] == "hello":
            hearing = ears(session_of(body))
        elif body is not None:
            try:
                ear.hear(text, None)
            except Refused as why:
                assert str(why) == "message_replayed", why
                refused += 1
    fingerprints = json.load(open(os.path.join(folder, "fingerprints.json")))
    found = {name: [] for name in fingerprints}
    for card in json.load(open(os.path.join(folder, "enrol-cloud.json"))):
        found["enrol-cloud.json"].append(fingerprint_of_cloud(card))
    for asked in json.load(open(os.path.join(folder, "enrol-pair.json"))):
        found["enrol-pair.json"].append(fingerprint_of_bridge(unb64(asked["signing_key"]), asked["csr"]))
    assert found == fingerprints, found
    print(json.dumps({"heard": heard, "refused": refused}))


# -- A bridge at work.


def request(connection, method, path, body=None):
    connection.request(method, path, body and json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, json.loads(text)


def pair(host, port, code, expected):
    """Gives what the cloud said when it took us in, with our keys."""
    tls = ssl.create_default_context()
    # Whom to believe, the fingerprint decides.
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, context=tls, timeout=60)
    status, card = request(connection, "GET", "/bridge/v1/cloud")
    assert status == 200, card
    found = fingerprint_of_cloud(card)
    assert found == expected, f"{found} is not {expected}"
    key = SigningKey(secrets.token_bytes(32))
    private, csr = certificate_key()
    csr = b64(csr)
    keys = key.public + csr.encode()
    asked = {
        "code": code,
        "csr": csr,
        "signing_key": b64(key.public),
        "proof": key.sign(b"latchd v1 bridge's keys\0", keys),
        "agent": "a stranger 1.0",
    }
    while True:
        status, answer = request(connection, "POST", "/bridge/v1/pair", asked)
        if status != 202:
            break
    assert status == 200, answer
    known = {key_id(unb64(each)): unb64(each) for each in card["cloud_keys"]}
    signature = unb64(answer["signature"])
    assert is_signed(known[answer["key_id"]], b"latchd v1 admission\0", answer["body"].encode(), signature)
    admission = json.loads(answer["body"])
    assert admission["keys"] == hashlib.sha256(keys).hexdigest()
    return admission, key, private, fingerprint_of_bridge(key.public, csr)


class Websocket:
    """Text messages over TLS in which both sides show certificates (RFC 6455, from the client's side)."""

    def __init__(self, host, port, tls):
        self.stream = tls.wrap_socket(socket.create_connection((host, port), timeout=60), server_hostname=host)
        asked = [
            "GET /bridge/v1 HTTP/1.1",
            f"Host: {host}:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {b64(secrets.token_bytes(16))}",
        ]
        self.stream.sendall("\r\n".join(asked + ["", ""]).encode())
        self.bytes = b""
        while b"\r\n\r\n" not in self.bytes:
            self.more()
        head, _, self.bytes = self.bytes.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        assert first.split(" ")[1] == "101", first
        self.fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}

    def more(self):
        some = self.stream.recv(65536)
        assert some, "the cloud hung up"
        self.bytes += some

    def take(self, count):
        while len(self.bytes) < count:
            self.more()
        some, self.bytes = self.bytes[:count], self.bytes[count:]
        return some

    def send(self, text, opcode=1):
        some = text if isinstance(text, bytes) else text.encode()
        mask = secrets.token_bytes(4)
        if len(some) < 126:
            head = struct.pack(">BB", 128 | opcode, 128 | len(some))
        elif len(some) < 1 << 16:
            head = struct.pack(">BBH", 128 | opcode, 128 | 126, len(some))
        else:
            head = struct.pack(">BBQ", 128 | opcode, 128 | 127, len(some))
        self.stream.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(some)))

    def next(self):
        """The next text."""
        text = b""
        while True:
            first, length = self.take(2)
            if length == 126:
                (length,) = struct.unpack(">H", self.take(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.take(8))
            some = self.take(length)
            opcode = first & 15
            if opcode == 9:
                self.send(some, 10)
            elif opcode == 8:
                raise AssertionError(f"the cloud closed: {some!r}")
            elif opcode in (0, 1):
                text += some
                if first & 128:
                    return text.decode()


ABILITIES = ["override", "join", "future_start", "checkout", "modify_stay", "read_card", "open_end", "slots", "unlock"]
SYSTEM = {
    "name": "house",
    "kind": "salto_is",
    "time_zone": "Europe/Oslo",
    "capabilities": {
        **{ability: None for ability in ABILITIES},
        "override": "simulator",
        "join": "simulator",
        "max_rooms": 1,
        "max_common": 0,
        "answer_means_written": True,
        "parallel_encoders": False,
    },
    "checkout_on_last_grant": False,
    "doors": [{"name": "301", "kind": "room"}],
    "encoders": [{"name": "1"}],
    "devices": [],
}


def work(address, code, expected, folder):
    host, port = address.rsplit(":", 1)
    port = int(port)
    admission, key, private, own = pair(host, port, code, expected)
    bridge_id = admission["bridge_id"]
    say(paired=bridge_id, fingerprint=own)

    tls = ssl.create_default_context(cadata=admission.get("authority"))
    chain = os.path.join(folder, "bridge.pem")
    with open(os.open(chain, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(private + admission["certificate"])
    tls.load_cert_chain(chain)
    websocket = Websocket(host, port, tls)

    keys = [unb64(each) for each in admission["cloud_keys"]]
    nothing = {"epoch": 0, "n": 0}
    hello = {
        "type": "hello",
        "versions": [1],
        "agent": "a stranger 1.0",
        "orders_received": nothing,
        "reports_sent": {"epoch": 1, "n": 0},
        "reports_acknowledged": {"epoch": 1, "n": 0},
        "orders_limit": 8,
        "nonce": b64(secrets.token_bytes(16)),
        "cloud_keys": [key_id(each) for each in keys],
    }
    voice = Voice(TO_CLOUD, key, bridge_id, websocket.fields["latchd-nonce"])
    packet, body = voice.say(hello)
    websocket.send(packet)
    session = session_of(body)
    voice, ear = Voice(TO_CLOUD, key, bridge_id, session), Ear(TO_BRIDGE, keys, bridge_id, session)
    welcome, _ = ear.hear(websocket.next(), None)
    assert welcome["type"] == "welcome" and welcome["version"] == 1, welcome
    assert welcome["reports_limit"] >= 1 and welcome["bridge_id"] == bridge_id, welcome
    # The cloud has never had a report of ours.
    assert welcome["reports_received"] in (nothing, {"epoch": 1, "n": 0}), welcome
    began = time.monotonic()

    def now():
        return seconds(welcome["time"]) + time.monotonic() - began

    def tell(frame):
        websocket.send(voice.say(frame, now() + 600)[0])

    def envelope(message, position=None):
        at = {} if position is None else {"position": position}
        tell({"type": "envelope", **at, "body": json.dumps(message)})

    tell({"type": "inventory", "systems": [SYSTEM]})
    tell({"type": "status", "conditions": []})
    say(welcomed=welcome["workspace"])

    held, reports = welcome["orders_resume_after"], {"epoch": 1, "n": 0}
    while True:
        frame, _ = ear.hear(websocket.next(), now())
        kind = frame["type"]
        if kind == "ping":
            websocket.send(json.dumps({"type": "pong", "nonce": frame["nonce"]}))
        elif kind == "refused":
            raise AssertionError(f"refused: {frame}")
        elif kind == "envelope":
            message, position = json.loads(frame["body"]), frame.get("position")
            if message["message"] == "job":
                assert position == {"epoch": held["epoch"], "n": held["n"] + 1}, (held, position)
                held = position
                envelope({"message": "acknowledgement", "stream": "orders", "position": held})
                say(job=message)
                assert seconds(message["expires_at"]) > now(), message
                reports = {"epoch": reports["epoch"], "n": reports["n"] + 1}
                done = {"state": "succeeded", "written": "proven", "card": {"overrode": True}}
                outcome = {
                    "message": "outcome",
                    "job_id": message["job_id"],
                    "revision": 1,
                    "at": timestamp(now()),
                    "outcome": done,
                }
                envelope(outcome, reports)
            elif message["message"] == "acknowledgement" and message["stream"] == "reports":
                assert message["position"] == reports, message
                say(held=message["position"])
                return


def say(**what):
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    {"hear": hear, "work": work}[sys.argv[1]](*sys.argv[2:])
