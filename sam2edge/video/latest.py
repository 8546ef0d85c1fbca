"""The newest frame of a live source: a model that is slower than the camera drops frames instead of falling behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from sam2edge.errors import Sam2EdgeError
from sam2edge.video.sources import FrameSource

DEFAULT_PATIENCE_SECONDS = 10.0
_LAST_FRAME_SECONDS = 2.0  # for the frame that the thread is reading when it is to end


class LatestFrames:
    """Reads a source in a thread of its own and hands over the newest frame; what was not fetched is dropped.

    One frame waits at most. An error of the source is raised where frames are fetched; a source that gives nothing for
    `patience_seconds` is an error too. Leaving the iteration, for whatever reason, ends the thread with the frame that
    it is reading.

    `frame_number` is that of the frame handed over last, counted at the source from the first one handed over, and
    `dropped` how many were passed over between the two.
    """

    num_frames: int | None = None  # how many will be handed over is not known

    def __init__(self, source: FrameSource, patience_seconds: float = DEFAULT_PATIENCE_SECONDS) -> None:
        self.fps = source.fps
        self.frame_number = -1
        self.dropped = 0
        self._source = source
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._waiting: np.ndarray | None = None
        self._skipped = 0  # since the last one handed over
        self._error: BaseException | None = None
        self._ended = False
        self._stopped = False
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Begins to read, which the iteration does otherwise: what comes until then is not kept, and not counted."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="sam2edge-frames", daemon=True)
            self._reader.start()

    def __iter__(self) -> Iterator[np.ndarray]:
        self.start()
        try:
            while (frame := self._fetch()) is not None:
                yield frame
        finally:
            self._stop()

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
                    self._skipped += self._waiting is not None
                    self._waiting = frame
                    self._changed.notify()
        except BaseException as error:  # raised again by the thread that fetches
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _fetch(self) -> np.ndarray | None:
        with self._changed:
            answered = self._changed.wait_for(lambda: self._waiting is not None or self._ended, self._patience_seconds)
            if not answered:
                raise Sam2EdgeError(
                    "source stopped giving frames",
                    expected=f"one within {self._patience_seconds:g} s",
                    got="none",
                    remedy="check the camera or the connection",
                )
            frame, self._waiting = self._waiting, None
            if frame is not None:
                if self.frame_number >= 0:
                    self.dropped += self._skipped
                    self.frame_number += self._skipped
                self.frame_number += 1
                self._skipped = 0
        if frame is None and self._error is not None:
            raise self._error
        return frame

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
