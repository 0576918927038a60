#!/usr/bin/python3
"""A client of tedge-p11-server in plain Python, written from PROTOCOL.md alone.

    protocol1.py SOCKET URI [PIN]

opens the key and signs a message with each of its schemes. It prints the public key, then a line
for each signature: scheme, message, signature; byte strings in hexadecimal.

It needs the package msgpack (Debian: python3-msgpack).
"""

import hashlib
import socket
import struct
import sys

import msgpack

MARK = b"P11"
VERSION = 1
MAX_BODY = 1_048_576
TIMEOUT = 35  # seconds; the server gives up on a token after 30


class Failure(Exception):
    """An `Error` that the server answered with."""

    def __init__(self, fields):
        super().__init__(f"{fields['code']}: {fields['message']}")
        self.code = fields["code"]


class Client:
    """One connection: requests go out one after the other, each waits for its response."""

    def __init__(self, path, version=VERSION):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(path)
        self.socket.sendall(MARK + bytes([version]))

    def call(self, name, **fields):
        """Sends one request and returns the name and the fields of the response."""
        self.send_body(msgpack.packb({name: fields}, use_bin_type=True))
        return self.receive()

    def send_body(self, body):
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def receive(self):
        (length,) = struct.unpack(">I", self.read(4))
        if length > MAX_BODY:
            raise ValueError(f"a frame of {length} bytes")
        message = msgpack.unpackb(self.read(length), raw=False)
        ((name, fields),) = message.items()
        if name == "Error":
            raise Failure(fields)
        return name, fields

    def read(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise EOFError("the server closed the connection")
            data += more
        return data


def expect(name, response):
    """The fields of a response that must have this name."""
    assert response[0] == name, f"{name} expected, not {response[0]}"
    return response[1]


def open_and_sign(path, uri, pin=None):
    """What a TLS client does: opens the key once, then signs as often as it likes."""
    client = Client(path)
    key = expect("Key", client.call("OpenKey", uri=uri, pin=pin))
    assert key["identity"] == hashlib.sha256(key["spki"]).digest()
    print(key["spki"].hex())
    for scheme in key["schemes"]:
        message = f"signed with scheme {scheme:#06x}".encode()
        answer = client.call(
            "Sign",
            uri=key["uri"],
            pin=pin,
            scheme=scheme,
            message=message,
            identity=key["identity"],
        )
        print(scheme, message.hex(), expect("Signature", answer)["signature"].hex())


if __name__ == "__main__":
    open_and_sign(*sys.argv[1:])
