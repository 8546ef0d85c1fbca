"""A recorded source from its last frame to its first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from sam2edge.video.frame import Frame, FrameSource

_BLOCK_BYTES = 256 * 2**20  # of frames held at a time


class ReversedFrames:
    """The frames of a source backwards, their numbers and times as they are.

    Videos cannot be read backwards, so that it is read once for each block of frames that fits into 256 MiB: up to that
    block, and in the first round to the end.
    """

    live = False

    def __init__(self, source: FrameSource, open_again: Callable[[], FrameSource]) -> None:
        self.fps, self.num_frames = source.fps, source.num_frames
        self._source, self._open_again = source, open_again

    def __iter__(self) -> Iterator[Frame]:
        stop: int | None = None
        while stop is None or stop > 0:
            block: deque[Frame] = deque()
            count = 0
            for frame in islice(self._source, stop):
                count += 1
                most = max(_BLOCK_BYTES // frame.pixels.nbytes, 1)
                block.append(frame)
                if len(block) > most:
                    block.popleft()
            if not block:
                return
            stop = count - len(block)
            self._source.close()
            while block:
                yield block.pop()
            if stop:
                self._source = self._open_again()

    def close(self) -> None:
        self._source.close()
