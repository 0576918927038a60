#!/usr/bin/python3
"""Holds a running server against the rules of PROTOCOL.md: rules.py SOCKET URI"""

import sys

import msgpack

from protocol1 import Client, Failure, expect

ZERO_IDENTITY = bytes(32)


def code_of(call, *arguments, **fields):
    """The code of the error that a call must end in."""
    try:
        answer = call(*arguments, **fields)
    except Failure as failure:
        assert str(failure) != f"{failure.code}: ", "an error without a message"
        return failure.code
    raise AssertionError(f"no error but {answer}")


def is_closed(client):
    """Whether the server has closed the connection."""
    return client.socket.recv(1) == b""


def check(path, uri):
    client = Client(path)

    pong = expect("Pong", client.call("Ping"))
    assert pong["protocol"] >= 1 and "tedge-p11-server" in pong["server"], pong
    status = expect("Status", client.call("Status"))
    assert status["available"] is True, status
    assert status["details"]["module"]["path"].startswith("/"), status
    assert status["details"]["counters"]["failures"] == 0, status

    # Optional fields may be nil, and unknown fields are ignored.
    key = expect("Key", client.call("OpenKey", uri=uri, pin=None, spki=None, colour="red"))
    assert key["uri"].startswith("pkcs11:"), key
    again = expect("Key", client.call("OpenKey", uri=key["uri"], spki=key["spki"]))
    assert again["identity"] == key["identity"]

    # Errors leave the connection as it is.
    scheme = key["schemes"][0]
    sign = dict(uri=uri, scheme=scheme, message=b"x", identity=key["identity"])
    assert code_of(client.call, "MakeCoffee", milk=True) == "Unsupported"
    assert code_of(client.call, "OpenKey", uri="pkcs11:object=none-of-this-name") == "KeyNotFound"
    assert code_of(client.call, "OpenKey", uri="pkcs11:token=none") == "TokenNotFound"
    assert code_of(client.call, "OpenKey", uri="no uri") == "BadUri"
    assert code_of(client.call, "OpenKey", uri=uri + "?module-path=/x.so") == "BadUri"
    assert code_of(client.call, "OpenKey", uri=uri, spki=b"none") == "BadRequest"
    assert code_of(client.call, "OpenKey", uri=7) == "BadRequest"
    assert code_of(client.call, "Sign", **{**sign, "identity": ZERO_IDENTITY}) == "KeyChanged"
    assert code_of(client.call, "Sign", **{**sign, "scheme": 0x0201}) == "UnsupportedScheme"
    assert expect("Signature", client.call("Sign", **sign))["signature"]

    # What is no frame is answered once, and the connection is closed.
    ping = msgpack.packb({"Ping": {}})
    for body in [ping + b"\0", ping[:-1], b"", b"\xc1", msgpack.packb(["Ping"])]:
        client = Client(path)
        client.send_body(body)
        assert code_of(client.receive) == "BadFrame", body
        assert is_closed(client), body
    client = Client(path)
    client.socket.sendall(b"\xff\xff\xff\xff")
    assert code_of(client.receive) == "BadFrame"
    assert is_closed(client)
    client = Client(path, version=2)
    assert code_of(client.receive) == "UnsupportedVersion"
    assert is_closed(client)


if __name__ == "__main__":
    check(*sys.argv[1:])
