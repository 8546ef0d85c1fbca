"""A server on a model of bookkeeping alone, in this process, and its addresses."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from websockets.sync.client import ClientConnection, connect

from sam2edge.automodel import AutoModel
from sam2edge.serve.run import listen, make_server, open_service
from sam2edge.serve.service import Service
from sam2edge.serve.settings import Settings
from tests.fake_backend import bright_square, fake_model
from tests.rtsp_server import wait_until

SQUARE_POINT = [30.0, 25.0]  # inside the bright square wherever it is


@dataclass
class Server:
    """A running server."""

    address: str
    service: Service
    token: str | None

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON (or bytes) of an answer."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        if self.token is not None and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.token}"
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, kind, content = answer.status, answer.headers["content-type"], answer.read()
        except urllib.error.HTTPError as error:
            status, kind, content = error.code, error.headers["content-type"], error.read()
        return status, json.loads(content) if kind == "application/json" else content

    @contextlib.contextmanager
    def channel(self, token: str | None = None, **options: Any) -> Iterator[ClientConnection]:
        """A WebSocket that has said hello."""
        address = self.address.replace("http", "ws", 1) + "/api/ws"
        with connect(address, max_size=2**24, **options) as connection:
            connection.send(json.dumps({"type": "hello", "token": token or self.token}))
            yield connection


def ask(connection: ClientConnection, kind: str, **rest: Any) -> dict[str, Any]:
    """Sends a command and returns the answer to it."""
    connection.send(json.dumps({"type": kind, "request": kind, **rest}))
    while True:
        message = connection.recv(timeout=30)
        found: dict[str, Any] = json.loads(message) if isinstance(message, str) else {}
        if found.get("type") == "reply" and found["request"] == kind:
            return found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A recording of 40 frames, a bright square that moves by a pixel a frame."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(40):
        assert cv2.imwrite(str(folder / f"{number}.png"), bright_square(4 + number % 25))
    return folder


Serve = Callable[..., contextlib.AbstractContextManager[Server]]


@pytest.fixture
def serve(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Starts a server: `serve(token=..., loop=...)`, any of the settings."""
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: fake_model())

    @contextlib.contextmanager
    def start(token: str | None = None, **settings: Any) -> Iterator[Server]:
        options = {"source": str(pictures), "loop": True, "port": 0, "recordings": str(tmp_path / "recordings")}
        chosen = Settings(**{**options, **settings})
        with contextlib.closing(listen(chosen)) as listener, open_service(chosen, lambda line: None) as service:
            server = make_server(service, chosen, token)
            thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
            thread.start()
            try:
                wait_until(lambda: server.started)
                wait_until(lambda: service.session.last_step is not None)
                scheme = "https" if chosen.tls_cert else "http"
                yield Server(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", service, token)
            finally:
                server.should_exit = True
                thread.join(20)
                assert not thread.is_alive()

    return start
