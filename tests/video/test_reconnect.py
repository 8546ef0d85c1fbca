from __future__ import annotations

import threading
import time

import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.video import reconnect
from sam2edge.video.reconnect import Reconnecting
from tests.video.clips import CountingSource


def test_pauses_grow_until_the_camera_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(reconnect, "LONGEST_PAUSE_SECONDS", 0.004)
    failures = iter([True] * 4 + [False, True, False])
    losses: list[tuple[str, float]] = []

    def open_again() -> CountingSource:
        if next(failures):
            raise InvalidInputError("camera cannot be opened")
        return CountingSource(2)

    source = Reconnecting(CountingSource(3), open_again, lambda e, pause: losses.append((e.problem, pause)))
    seen = []
    for frame in source:
        seen.append(frame.index)
        if len(seen) == 7:
            source.close()
    assert seen == list(range(7))  # 3, then 2 twice
    assert [pause for _, pause in losses] == [0.001, 0.002, 0.004, 0.004, 0.004, 0.001, 0.002]
    assert losses[0][0] == "source stopped giving frames"


def test_closing_ends_a_pause() -> None:
    source = Reconnecting(CountingSource(1), lambda: CountingSource(0), lambda *_: None)
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    time.sleep(0.05)
    source.close()
    thread.join(5)
    assert not thread.is_alive()
