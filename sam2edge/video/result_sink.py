"""Where results go, a kind by the ending of its name: a video with the masks drawn, JSON lines, a bag, a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np

from sam2edge.datatypes import TrackResult
from sam2edge.imaging.mask_formats import mask_box, mask_rle
from sam2edge.imaging.overlay import distinct_color, draw_masks
from sam2edge.outputs import make_write_error, place, temporary_beside, try_output
from sam2edge.video.frame import Frame
from sam2edge.video.sinks import MaskSink, VideoSink


class ResultSink(Protocol):
    """Takes each frame with what is known of it: the result of the frame, or of one before it; None before a prompt."""

    def write(self, frame: Frame, result: TrackResult | None) -> None: ...

    def close(self) -> Path | None:
        """Finishes what was written and returns where it lies; None where there is no such place."""

    def discard(self) -> None:
        """Removes what was written; nothing where `close` came before."""


class OverlayVideo:
    """A video with the masks drawn. A frame that a live source dropped is the one before it once more, so that it plays
    in the source's time.
    """

    def __init__(self, path: Path, fps: float, replace: bool = False, sound_from: Path | None = None) -> None:
        self._video = VideoSink(path, fps, replace, sound_from)
        self._last: tuple[int, np.ndarray] | None = None

    def write(self, frame: Frame, result: TrackResult | None) -> None:
        if self._last is not None:
            for _ in range(self._last[0] + 1, frame.index):
                self._video.write(self._last[1])
        self._last = frame.index, draw_result(frame, result)
        self._video.write(self._last[1])

    def close(self) -> Path | None:
        return self._video.close()

    def discard(self) -> None:
        self._video.discard()


class IndexPngs:
    """One index PNG a frame in a folder, see MaskSink; each is there as soon as it is written."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        self._folder, self._sink = folder, MaskSink(folder, source)

    def write(self, frame: Frame, result: TrackResult | None) -> None:
        if result is None:
            self._sink.write(frame.index, frame.size_hw, (), None)
        else:
            self._sink.write(frame.index, frame.size_hw, result.object_ids, result.masks)

    def close(self) -> Path | None:
        return self._folder

    def discard(self) -> None:
        """What was written stays."""


class JsonLines:
    """A line a frame: {"frame", "time_ns", "objects": [{"object", "score", "object_score", "box", "mask"}]}.

    `mask` is COCO's run-length encoding, `box` x_min, y_min, x_max, y_max in pixels, null where the object is hidden.
    """

    def __init__(self, path: Path, replace: bool = False) -> None:
        try_output(path)
        self._path, self._replace = path, replace
        self._running = temporary_beside(path, ".jsonl")
        self._file = self._running.open("x", encoding="utf-8")

    def write(self, frame: Frame, result: TrackResult | None) -> None:
        objects = []
        if result is not None:
            rows = zip(result.object_ids, result.masks, result.scores, result.object_scores, strict=True)
            for object_id, mask, score, visible in rows:
                found = {"object": object_id, "score": round(float(score), 4), "object_score": round(float(visible), 4)}
                objects.append({**found, "box": mask_box(mask), "mask": mask_rle(mask)})
        line = {"frame": frame.index, "time_ns": frame.time_ns, "objects": objects}
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            raise make_write_error(self._path, error) from error

    def close(self) -> Path | None:
        try:
            self._file.close()
            return place({self._running: self._path}, self._replace)[0]
        except OSError as error:
            raise make_write_error(self._path, error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        self._file.close()
        self._running.unlink(missing_ok=True)


def draw_result(frame: Frame, result: TrackResult | None) -> np.ndarray:
    """(H, W, 3) uint8, BGR: the frame with the masks of a result, each with its object's id and score."""
    if result is None:
        return draw_masks(frame.pixels, np.zeros((0, *frame.size_hw), bool))
    rows = zip(result.object_ids, result.scores.tolist(), strict=True)
    labels = [f"{object_id} {score:.2f}" for object_id, score in rows]
    # A colour for each id, so that it stays when others come and go.
    return draw_masks(frame.pixels, result.masks, labels=labels, colors=[distinct_color(i) for i in result.object_ids])
