"""The WebSocket: frames, commands, and clients that do not behave."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from typing import Any

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from sam2edge.serve import channel
from tests.rtsp_server import wait_until
from tests.serve.conftest import SQUARE_POINT, Serve, Server, ask


def read_frame(connection: ClientConnection) -> tuple[dict[str, Any], np.ndarray]:
    """The next frame: its header, and its picture."""
    while True:
        message = connection.recv(timeout=30)
        if isinstance(message, bytes):
            (length,) = struct.unpack_from("<I", message)
            picture = cv2.imdecode(np.frombuffer(message, np.uint8, offset=4 + length), cv2.IMREAD_COLOR)
            assert picture is not None
            return json.loads(message[4 : 4 + length]), picture


def test_frames_and_commands(serve: Serve) -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    with serve() as server, server.channel() as connection:
        header, picture = read_frame(connection)
        assert picture.shape == (60, 80, 3) and header["objects"] == []
        reply = ask(connection, "prompt", points=[SQUARE_POINT], frame=header["frame"])
        assert reply == {"type": "reply", "request": "prompt", "ok": True, "object": 1}
        for _ in range(10):
            header, picture = read_frame(connection)
            (found,) = header["objects"]
            mask = mask_tools.decode(found["mask"])
            bright = picture[..., 1] > 128
            assert np.logical_and(mask, bright).sum() / np.logical_or(mask, bright).sum() > 0.75
        assert ask(connection, "pause")["ok"] and ask(connection, "step")["ok"]
        assert ask(connection, "rename", object=1, name="mug")["ok"]
        assert ask(connection, "resume")["ok"]
        assert ask(connection, "record", on=True)["recorder"]["recording"]
        assert not ask(connection, "record", on=False)["recorder"]["recording"]
        assert ask(connection, "remove", object=1)["ok"] and ask(connection, "reset")["ok"]


def test_what_somebody_sees_who_comes_while_paused(serve: Serve) -> None:
    with serve() as server:
        server.call("POST", "/api/pause")
        with server.channel() as connection:
            assert read_frame(connection)[0]["paused"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[" * 30_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "unknown type"),
        ('{"type": "prompt"}', "marks nothing"),
        ('{"type": "prompt", "points": [[1]]}', "points"),
        ('{"type": "prompt", "points": [[1, 1]], "path": "/etc"}', "path"),
        ('{"type": "remove", "object": "x"}', "integer"),
        ('{"type": "rename", "object": 1, "name": ""}', "at least 1 character"),
        ('{"type": "__class__"}', "unknown type"),
        ('{"type": {"a": 1}}', "unknown type"),
    ],
)
def test_messages_that_cannot_be_used(serve: Serve, text: str, words: str) -> None:
    with serve() as server, server.channel() as connection:
        connection.send(text)
        while True:
            message = connection.recv(timeout=30)
            if isinstance(message, str) and json.loads(message)["type"] == "reply":
                break
        assert not json.loads(message)["ok"] and words in json.loads(message)["error"]
        connection.send(b"\x00\x01")
        assert ask(connection, "reset")["ok"]


def test_who_is_let_in(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "HELLO_SECONDS", 0.3)
    with serve(token="0123456789abcdef0123", max_clients=2) as server:
        address = server.address.replace("http", "ws") + "/api/ws"
        for hello in ('{"type": "hello"}', '{"type": "hello", "token": "wrong"}', "hello", "[]", None):
            with connect(address) as connection:
                if hello is not None:
                    connection.send(hello)
                with pytest.raises(ConnectionClosed) as closed:
                    connection.recv(timeout=10)
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
        for options in ({"origin": "https://evil.example"}, {"additional_headers": {"Host": "evil.example"}}):
            with pytest.raises(InvalidStatus), connect(address, **options):  # type: ignore[arg-type]
                pass
        wait_until(lambda: server.service.clients == 0)
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                read_frame(stack.enter_context(server.channel()))
            with connect(address) as third, pytest.raises(ConnectionClosed) as closed:
                third.recv(timeout=10)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013


def test_an_oversized_message_ends_the_connection(serve: Serve) -> None:
    with serve() as server:
        with server.channel() as connection:
            with contextlib.suppress(ConnectionClosed):
                connection.send(" " * 100_000)
            with pytest.raises(ConnectionClosed):
                _read_to_the_end(connection)
        with server.channel() as connection:
            assert ask(connection, "reset")["ok"]


def test_a_thousand_messages_at_once(serve: Serve) -> None:
    """They are answered at the rate that is allowed; the others and the tracker notice nothing."""
    with serve() as server, server.channel(close_timeout=1) as flood, server.channel() as other:
        started = time.monotonic()
        for number in range(1000):
            flood.send(json.dumps({"type": "pause" if number % 2 else "resume", "request": number}))
        time.sleep(1.0)
        assert ask(other, "resume")["ok"]
        first = read_frame(other)[0]["frame"]
        wait_until(lambda: read_frame(other)[0]["frame"] > first)
        answered = 0
        with contextlib.suppress(TimeoutError):
            while time.monotonic() - started < 3.0:
                answered += isinstance(flood.recv(timeout=0.5), str)
        assert 1 < answered < 400
        assert server.service.session._commands.qsize() <= 2


def _read_to_the_end(connection: ClientConnection) -> None:
    while True:
        connection.recv(timeout=30)


def _open_and_never_read(server: Server) -> socket.socket:
    """A client that says hello and reads nothing more, with as small a buffer as can be."""
    host, port = server.address.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13"
    head = f"GET /api/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n"
    connection.sendall(head.encode())
    hello = b'{"type": "hello"}'
    connection.sendall(bytes([0x81, 0x80 | len(hello), 0, 0, 0, 0]) + hello)
    return connection


def test_nine_clients_that_never_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenth gets every frame all the same, nothing piles up, and the nine are let go of."""
    monkeypatch.setattr(channel, "SEND_SECONDS", 4.0)
    with serve(max_clients=10) as server, contextlib.ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(contextlib.closing(_open_and_never_read(server)))
        wait_until(lambda: server.service.clients == 9)
        # Pictures that do not compress fill the buffers of the kernel soon.
        noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
        big = cv2.imencode(".jpg", cv2.resize(noise, (640, 480)), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        monkeypatch.setattr("sam2edge.serve.publisher.encode_message", lambda *_: struct.pack("<I", 2) + b"{}" + big)
        with server.channel() as reader:
            for _ in range(10):
                read_frame(reader)
            wait_until(lambda: read_frame(reader) and server.service.clients == 1, 40)
