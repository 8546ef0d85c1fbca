"""A client of `sam2edge serve`: asks for an object at a point, and prints where it is on each frame.

    python serve_client.py http://127.0.0.1:8000 240 135 [TOKEN]

Needs `pip install websockets`.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect


def open_channel(address: str, token: str | None = None) -> ClientConnection:
    """A connection that gets frames; `with` closes it."""
    connection = connect(address.rstrip("/").replace("http", "ws", 1) + "/api/ws", max_size=2**26)
    connection.send(json.dumps({"type": "hello", "token": token}))
    return connection


def send_command(connection: ClientConnection, kind: str, **fields: Any) -> None:
    """ "prompt", "remove", "rename", "reset", "pause", "resume", "step" or "record", with its fields."""
    connection.send(json.dumps({"type": kind, "request": kind, **fields}))


def read_frames(connection: ClientConnection) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each frame as it comes: what is known of it, and its JPEG. Refused commands are raised."""
    for message in connection:
        if isinstance(message, bytes):
            (length,) = struct.unpack_from("<I", message)
            yield json.loads(message[4 : 4 + length]), message[4 + length :]
        elif not json.loads(message).get("ok", True):
            raise RuntimeError(json.loads(message)["error"])


def main(address: str, x: str, y: str, token: str | None = None) -> None:
    with open_channel(address, token) as connection:
        send_command(connection, "prompt", points=[[float(x), float(y)]])
        for header, _ in read_frames(connection):
            for found in header["objects"]:
                print(header["frame"], found["name"], found["state"], found["box"], found["score"], flush=True)


if __name__ == "__main__":
    sys.exit(__doc__) if len(sys.argv) < 4 else main(*sys.argv[1:])
