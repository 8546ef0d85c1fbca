"""Reads `--prompts FILE.json`: prompts by frame and object."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2edge.cli.prompt_options import Box, Point, group_prompts
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.photo import read_photo
from sam2edge.imaging.prompts import read_prompts

_KEYS = {"frame", "object", "points", "labels", "box", "mask", "clear_old_points"}
_MAX_OBJECT = 255  # what an index PNG holds
_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class FramePrompt:
    """One prompt: `arguments` are points, labels and box, or a mask, as VideoTracker.prompt takes them."""

    frame: int
    object_id: int
    arguments: dict[str, Any]

    def check(self, height: float, width: float) -> None:
        """Raises InvalidInputError, naming the frame, where it cannot be used on frames of this size in pixels."""
        mask = self.arguments.get("mask")
        if mask is not None:
            if math.isfinite(height) and mask.shape != (height, width):
                raise InvalidInputError(
                    f"mask of object {self.object_id} on frame {self.frame} does not fit the frames",
                    expected=f"{width:.0f}x{height:.0f}",
                    got=f"{mask.shape[1]}x{mask.shape[0]}",
                )
            return
        points, labels, box = (
            None if value is None else _to_array(value)
            for value in map(self.arguments.get, ("points", "labels", "box"))
        )
        try:
            (read,) = read_prompts([(height, width)], points, labels, box)  # type: ignore[list-item]
            if read.num_objects != 1:
                raise InvalidInputError("prompt names several objects", expected="one object", got=read.num_objects)
        except InvalidInputError as error:
            problem = f"prompt of object {self.object_id} on frame {self.frame}: {error.problem}"
            raise InvalidInputError(
                problem.replace("image 0: ", ""), expected=error.expected, got=error.got, remedy=error.remedy
            ) from error


def read_prompt_options(points: Sequence[tuple[Point, ...]], boxes: Sequence[Box]) -> list[FramePrompt]:
    """Objects 1, 2, ... on the first frame, see `group_prompts`."""
    grouped = enumerate(group_prompts(points, boxes), 1)
    return [FramePrompt(0, number, prompt.arguments()) for number, prompt in grouped]


def read_prompt_file(path: Path) -> list[FramePrompt]:
    """A JSON list of {"frame": 0, "object": 1, "points": [[x, y]], "labels": [1], "box": [x1, y1, x2, y2]}.

    "mask" in place of points and box names a picture in the same folder, not 0 inside.

    Raises InvalidInputError, naming the entry, for anything else.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            "prompts cannot be read", expected="a JSON file", got=f"{path}: {error}", remedy="see docs/tracking.md"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise _error("the prompts are not a list", "a JSON list of at least one prompt", str(path))
    prompts = [_read(i, entry, path.parent) for i, entry in enumerate(entries)]
    for prompt in prompts:
        prompt.check(math.inf, math.inf)  # the frames' size is not known yet
    return sorted(prompts, key=lambda prompt: prompt.frame)


def _read(index: int, entry: Any, folder: Path) -> FramePrompt:
    if not isinstance(entry, dict) or not set(entry) <= _KEYS:
        raise _error(f"prompt {index} has unknown keys", f"an object with {sorted(_KEYS)}", json.dumps(entry)[:80])
    frame, object_id = entry.get("frame", 0), entry.get("object", 1)
    if type(frame) is not int or frame < 0:
        raise _error(f"prompt {index} has no usable frame", "a whole number from 0", repr(frame))
    if type(object_id) is not int or not 1 <= object_id <= _MAX_OBJECT:
        raise _error(f"prompt {index} has no usable object", f"a whole number 1..{_MAX_OBJECT}", repr(object_id))
    arguments = {key: entry[key] for key in ("points", "labels", "box") if key in entry}
    if "points" in arguments and "labels" not in arguments and isinstance(arguments["points"], list):
        arguments["labels"] = [1] * len(arguments["points"])
    clear = entry.get("clear_old_points", False)
    if not isinstance(clear, bool):
        raise _error(f"prompt {index} has no usable clear_old_points", "true or false", repr(clear))
    arguments |= {"clear_old_points": True} if clear else {}
    if "mask" in entry:
        if "points" in arguments or "box" in arguments or not isinstance(entry["mask"], str):
            raise _error(f"prompt {index} has no usable mask", "a file name alone", json.dumps(entry)[:80])
        arguments["mask"] = read_photo(folder / entry["mask"]).any(axis=2)
        if not arguments["mask"].any():
            raise _error(f"mask of prompt {index} is empty", "at least one pixel that is not 0", entry["mask"])
    elif "points" not in arguments and "box" not in arguments:
        raise _error(f"prompt {index} marks nothing", "points, a box or a mask", json.dumps(entry)[:80])
    return FramePrompt(frame, object_id, arguments)


def _to_array(value: Any) -> Any:
    """An array, of numbers if possible: `read_prompts` takes a list for one element an image, and names faults."""
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        return np.asarray(None if isinstance(value, str) else value, object)


def _error(problem: str, expected: str, got: str) -> InvalidInputError:
    return InvalidInputError(problem, expected=expected, got=got, remedy="see docs/tracking.md")
