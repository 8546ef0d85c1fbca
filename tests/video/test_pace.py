from __future__ import annotations

import threading
import time

from sam2edge.video.latest import LatestFrames
from sam2edge.video.pace import Paced
from tests.video.clips import CountingSource, numbers


def test_frames_come_at_the_rate_of_the_recording() -> None:
    started = time.monotonic()
    frames = list(Paced(CountingSource(5, fps=20.0)))
    assert time.monotonic() - started >= 4 / 20
    assert numbers(frames) == list(range(5))
    assert abs(time.time_ns() - frames[-1].time_ns) < 5e9


def test_a_loop_goes_on_counting() -> None:
    opened: list[CountingSource] = []

    def open_again() -> CountingSource:
        opened.append(CountingSource(3, fps=1000.0))
        return opened[-1]

    source = Paced(open_again(), open_again)
    seen = []
    for frame in source:
        seen.append((frame.index, int(frame.pixels[0, 0, 0])))
        if len(seen) == 8:
            break
    source.close()
    assert seen == [(i, i % 3) for i in range(8)]
    assert source.num_frames is None
    assert [one.closed for one in opened] == [True] * 3


def test_a_pause_stops_the_clock_and_steps_give_one_frame_each() -> None:
    inner = CountingSource(50, fps=100.0)
    paced = Paced(inner)
    frames = LatestFrames(paced)
    paced.pause()
    frames.start()
    assert frames.fetch(0.1) is None
    for expected in range(3):
        paced.step()
        frame = frames.fetch(5.0)
        assert frame is not None and frame.index == expected
        assert frames.fetch(0.05) is None
    paced.resume()
    rest = list(frames)
    assert rest[0].index == 3 and rest[-1].index == 49
    frames.close()


def test_closing_ends_a_pause() -> None:
    paced = Paced(CountingSource(9))
    paced.pause()
    thread = threading.Thread(target=lambda: list(paced))
    thread.start()
    paced.close()
    thread.join(5)
    assert not thread.is_alive()
