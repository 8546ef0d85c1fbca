from __future__ import annotations

import threading
import time

import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.latest import LatestFrames
from tests.video.clips import CountingSource, numbers


def test_a_slow_reader_gets_the_newest_frame_and_the_last() -> None:
    source = LatestFrames(CountingSource(100, lambda number: time.sleep(0.002)))
    seen = []
    for frame in source:
        seen.append(int(frame.pixels[0, 0, 0]))
        time.sleep(0.03)
    assert seen == sorted(set(seen)) and seen[-1] == 99
    assert source.dropped == 100 - seen[0] - len(seen) > 0
    assert source.last_index == 99 - seen[0]


def test_a_quick_reader_gets_all() -> None:
    turn = threading.Semaphore(1)
    source = LatestFrames(CountingSource(20, lambda number: turn.acquire(timeout=5)))
    seen = []
    for frame in source:
        seen.append(int(frame.pixels[0, 0, 0]))
        turn.release()
    assert (seen, source.dropped) == (list(range(20)), 0)


def test_an_error_of_the_source_reaches_the_reader_after_its_frames() -> None:
    def fail(number: int) -> None:
        if number == 1:
            time.sleep(0.05)
            raise InvalidInputError("cable pulled")

    frames = iter(LatestFrames(CountingSource(9, fail)))
    assert next(frames).pixels[0, 0, 0] == 0
    with pytest.raises(InvalidInputError, match="cable pulled"):
        next(frames)


def test_a_source_that_stops_answering_is_an_error() -> None:
    hang = threading.Event()
    source = LatestFrames(CountingSource(9, lambda number: number and hang.wait(5)), patience_seconds=0.1)
    with pytest.raises(Sam2EdgeError, match="stopped giving frames"):
        numbers(source)
    hang.set()


def test_what_comes_before_the_first_fetch_is_not_counted() -> None:
    hold = threading.Semaphore(8)
    source = LatestFrames(CountingSource(10, lambda number: hold.acquire(timeout=5)))
    source.start()
    while source._waiting is None or source._waiting.index < 7:
        time.sleep(0.001)
    frames = iter(source)
    assert next(frames).pixels[0, 0, 0] == 7
    assert (source.last_index, source.dropped) == (0, 0)
    hold.release()
    assert next(frames).pixels[0, 0, 0] == 8
    assert (source.last_index, source.dropped) == (1, 0)
    hold.release()
    assert numbers(frames) == [9]


def test_a_source_that_hangs_does_not_hold_up_the_end() -> None:
    hang = threading.Event()
    inner = CountingSource(9, lambda number: number and hang.wait(30))
    source = LatestFrames(inner)
    for _ in source:
        break
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < 10
    assert not inner.closed  # its thread is still in it
    hang.set()


def test_a_reader_that_leaves_ends_the_thread() -> None:
    before = set(threading.enumerate())
    inner = CountingSource(10**6, lambda number: time.sleep(0.001))
    source = LatestFrames(inner)
    for _ in source:
        break
    source.close()
    assert inner.closed
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "sam2edge-frames"]


def test_an_empty_source_ends_at_once() -> None:
    assert numbers(LatestFrames(CountingSource(0))) == []
