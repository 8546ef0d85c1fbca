"""The newest frame of a live source: a model that is slower than the camera drops frames instead of falling behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from sam2edge.errors import Sam2EdgeError
from sam2edge.video.frame import Frame, FrameSource

DEFAULT_PATIENCE_SECONDS = 10.0
_LAST_FRAME_SECONDS = 2.0  # for the frame that the thread is reading when it is to end


class LatestFrames:
    """Reads a source in a thread of its own and hands over the newest frame; what was not fetched is dropped.

    One frame waits at most. An error of the source is raised where frames are fetched; when iterating, a source that
    gives nothing for `patience_seconds` is an error too. Leaving the iteration, for whatever reason, ends the thread
    with the frame that it is reading.

    Frames are counted from the first one handed over, which has index 0; `dropped` is how many were passed over since.
    """

    live = True
    num_frames: int | None = None  # how many will be handed over is not known

    def __init__(self, source: FrameSource, patience_seconds: float = DEFAULT_PATIENCE_SECONDS) -> None:
        self.fps = source.fps
        self.dropped = 0
        self.last_index = -1
        self._source = source
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._waiting: Frame | None = None
        self._first_index: int | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._stopped = False
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Begins to read, which the iteration does otherwise: what comes until then is not kept, and not counted."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="sam2edge-frames", daemon=True)
            self._reader.start()

    def __iter__(self) -> Iterator[Frame]:
        self.start()
        try:
            while True:
                frame = self.fetch(self._patience_seconds)
                if frame is not None:
                    yield frame
                elif self.ended:
                    return
                else:
                    raise Sam2EdgeError(
                        "source stopped giving frames",
                        expected=f"one within {self._patience_seconds:g} s",
                        got="none",
                        remedy="check the camera or the connection",
                    )
        finally:
            self._stop()

    @property
    def ended(self) -> bool:
        """Whether the source has no more frames, and the last was fetched."""
        return self._ended and self._waiting is None

    @property
    def has_frame(self) -> bool:
        """Whether a frame waits to be fetched."""
        return self._waiting is not None

    def fetch(self, timeout_seconds: float) -> Frame | None:
        """The newest frame, once there is one; None where none came in time, or the source has ended (see `ended`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._ended, timeout_seconds)
            frame, self._waiting = self._waiting, None
        if frame is None:
            if self._ended and self._error is not None:
                raise self._error
            return None
        if self._first_index is None:
            self._first_index = frame.index
        index = frame.index - self._first_index
        self.dropped += index - self.last_index - 1
        self.last_index = index
        return Frame(index, frame.pixels, frame.time_ns)

    def close(self) -> None:
        """Ends the reading and closes the source, if its thread has let go of it."""
        self._stop()
        if self._reader is not None:
            self._reader.join(_LAST_FRAME_SECONDS)
        if self._reader is None or not self._reader.is_alive():
            self._source.close()

    def _read(self) -> None:
        try:
            for frame in self._source:
                with self._changed:
                    if self._stopped:
                        return
                    self._waiting = frame
                    self._changed.notify()
        except BaseException as error:  # raised again by the thread that fetches
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
