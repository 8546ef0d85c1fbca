"""A camera that goes away and comes back: opened again, with pauses that grow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from sam2edge.errors import Sam2EdgeError
from sam2edge.video.frame import Frame, FrameSource

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0


class Reconnecting:
    """A live source that is opened again when it fails or ends, until it is closed. Indices go on.

    `on_loss` is told of each failure and the pause in seconds before the next attempt; pauses double up to
    LONGEST_PAUSE_SECONDS, and begin anew with the first frame.
    """

    live = True
    num_frames: int | None = None

    def __init__(
        self,
        source: FrameSource,
        open_again: Callable[[], FrameSource],
        on_loss: Callable[[Sam2EdgeError, float], None],
    ) -> None:
        self.fps = source.fps
        self._source: FrameSource | None = source
        self._open_again = open_again
        self._on_loss = on_loss
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        pause, index = FIRST_PAUSE_SECONDS, -1
        while not self._closed.is_set():
            first = index + 1
            try:
                self._source = self._source or self._open_again()
                for frame in self._source:
                    pause, index = FIRST_PAUSE_SECONDS, first + frame.index
                    yield Frame(index, frame.pixels, frame.time_ns)
                    if self._closed.is_set():
                        return
                error = Sam2EdgeError("source stopped giving frames")
            except Sam2EdgeError as lost:
                error = lost
            if self._source is not None:
                self._source.close()
                self._source = None
            if self._closed.is_set():
                return
            self._on_loss(error, pause)
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def close(self) -> None:
        """Ends the attempts. The source itself is closed by the thread that reads, when its frame is there."""
        self._closed.set()
