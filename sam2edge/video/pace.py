"""Recordings played at their rate, as if a camera gave them: once or again and again, with a pause button."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from sam2edge.video.frame import Frame, FrameSource


class Paced:
    """A source whose frames come no sooner than its rate says, counted from when the first was asked for.

    A frame's time is the one at which it comes. `open_again` starts the recording anew at its end; indices go on.
    """

    live = True

    def __init__(self, source: FrameSource, open_again: Callable[[], FrameSource] | None = None) -> None:
        self.fps = source.fps
        self.num_frames = None if open_again else source.num_frames
        self._source = source
        self._open_again = open_again
        self._changed = threading.Condition()
        self._paused = False
        self._closed = False
        self._steps = 0

    def __iter__(self) -> Iterator[Frame]:
        due, index, first = time.monotonic(), 0, 0
        while True:
            for frame in self._source:
                index = first + frame.index
                waited = self._wait(due)
                if self._closed:
                    return
                due += waited + 1 / self.fps
                yield Frame(index, frame.pixels, time.time_ns())
            self._source.close()
            if self._open_again is None:
                return
            self._source, first = self._open_again(), index + 1

    def pause(self) -> None:
        """Gives no more frames until `resume`, but for one a `step`. From any thread."""
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        with self._changed:
            self._paused, self._steps = False, 0
            self._changed.notify_all()

    def step(self) -> None:
        """Lets the next frame come while paused."""
        with self._changed:
            self._steps += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._source.close()

    def _wait(self, due: float) -> float:
        """Waits for the frame's time, and through a pause; returns by how many seconds a pause moves the next ones."""
        with self._changed:
            if not self._paused:
                self._changed.wait_for(lambda: self._closed or self._paused, max(0.0, due - time.monotonic()))
            if not self._paused:
                return 0.0
            self._changed.wait_for(lambda: self._closed or not self._paused or self._steps > 0)
            self._steps = max(0, self._steps - 1)
            return time.monotonic() - due
