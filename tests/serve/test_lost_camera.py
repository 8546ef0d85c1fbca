"""A camera that is unplugged while it is served, and plugged in again."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.serve import run
from sam2edge.video import reconnect
from sam2edge.video.frame import Frame
from tests.fake_backend import bright_square
from tests.rtsp_server import wait_until
from tests.serve.conftest import SQUARE_POINT, Serve


class _Camera:
    """Gives frames until it is unplugged, and cannot be opened until it is plugged in."""

    live = True
    fps = 30.0
    num_frames: int | None = None
    plugged = threading.Event()
    openings = 0

    def __init__(self) -> None:
        if not _Camera.plugged.is_set():
            raise InvalidInputError("camera cannot be opened", got="no /dev/video0")
        _Camera.openings += 1
        self._ended: queue.Queue[None] = queue.Queue()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while _Camera.plugged.is_set():
            try:
                self._ended.get(timeout=0.02)
            except queue.Empty:
                yield Frame(index, bright_square(4 + index % 25), 1000 * index)
                index += 1
            else:
                return
        raise Sam2EdgeError("source stopped giving frames")

    def close(self) -> None:
        self._ended.put(None)


def test_the_page_is_told_and_the_object_is_followed_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "open_source", lambda _: _Camera())
    monkeypatch.setattr(reconnect, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(reconnect, "LONGEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(_Camera, "openings", 0)
    _Camera.plugged.set()
    with serve(source="0") as server:
        assert server.call("POST", "/api/prompt", {"points": [SQUARE_POINT]})[0] == 200
        for lives in (2, 3):
            wait_until(lambda: server.call("GET", "/api/frame")[1]["objects"])
            _Camera.plugged.clear()
            wait_until(lambda: "cannot be opened" in server.call("GET", "/api/status")[1]["problem"])
            seen = server.call("GET", "/api/frame")[1]["frame"]
            assert server.call("GET", "/healthz")[0] == 200  # a lost camera is no reason to start again
            assert server.call("PATCH", "/api/objects/1", {"name": "mug"})[0] == 200
            _Camera.plugged.set()
            wait_until(lambda seen=seen: server.call("GET", "/api/frame")[1]["frame"] > seen)  # type: ignore[misc]
            frame = server.call("GET", "/api/frame")[1]
            assert frame["problem"] == "" and [found["name"] for found in frame["objects"]] == ["mug"]
            assert _Camera.openings == lives
