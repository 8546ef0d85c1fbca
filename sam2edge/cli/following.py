"""The loop of `sam2edge track`: reads frames, gives prompts on their frames, writes results to every sink."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sam2edge.cli.prompt_file import FramePrompt
from sam2edge.cli.terminal import frame_progress, quiet_native_stderr
from sam2edge.datatypes import TrackResult
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.mask_formats import mask_box, mask_centroid
from sam2edge.video.frame import Frame, FrameSource
from sam2edge.video.result_sink import ResultSink


@dataclass
class Run:
    """The numbers of a run so far; they do not grow with an endless source.

    `frames` describes each frame if that is asked for; `tracker_seconds` is the model's time, `seconds` the whole time
    with reading, drawing and writing; `error` is what ended the run after its first frame, also Ctrl-C and signals.
    """

    unused: list[FramePrompt]
    frames: list[dict[str, Any]] | None
    num_frames: int = 0
    tracker_seconds: float = 0.0
    seconds: float = 0.0
    asking_seconds: float = 0.0
    object_ids: set[int] = field(default_factory=set)
    error: BaseException | None = None

    def count(self, step: _Step) -> None:
        self.num_frames += 1
        self.tracker_seconds += step.seconds
        self.object_ids.update(() if step.result is None else step.result.object_ids)


@dataclass(frozen=True)
class _Step:
    """A frame and its result (None before the first prompt).

    `seconds` is the model's time: 0 if it did not run and the result is that of an earlier frame.
    """

    frame: Frame
    result: TrackResult | None
    seconds: float


def follow(
    tracker: Any,
    frames: FrameSource,
    prompts: list[FramePrompt] | Callable[[np.ndarray], list[FramePrompt]],
    every: int,
    sinks: Sequence[ResultSink],
    describe: bool,
    tell: Callable[[dict[str, Any]], None] | None = None,
    backwards: bool = False,
) -> Run:
    """Tracks until the source ends or an error stops it; a frame counts once it has reached every sink.

    `prompts` may be a function, which is called with the first frame's pixels; the time that it takes is not counted.
    The model runs on every `every`-th frame and on prompted frames. `describe` fills `Run.frames`; `tell` is called
    with the description of each frame. `backwards`: frames come from the last to the first, and prompts likewise.
    """
    run = Run([] if callable(prompts) else list(prompts), [] if describe else None)
    started = time.perf_counter()
    try:
        with frame_progress(frames.num_frames) as advance:
            for step in _steps(tracker, frames, run, every, prompts if callable(prompts) else None, backwards):
                for sink in sinks:
                    sink.write(step.frame, step.result)
                run.count(step)
                if describe or tell is not None:
                    description = _describe(step)
                    if run.frames is not None:
                        run.frames.append(description)
                    if tell is not None:
                        tell(description)
                run.seconds = time.perf_counter() - started - run.asking_seconds
                advance()
    except (Exception, KeyboardInterrupt) as error:
        if not run.num_frames and not isinstance(error, KeyboardInterrupt):
            raise
        run.error = error
    if run.unused and not run.object_ids and run.error is None:
        raise InvalidInputError(
            "source ends before the first prompt",
            expected=f"a frame {run.unused[0].frame}",
            got=f"{run.num_frames} frames",
            remedy="prompt an earlier frame; the first is 0",
        )
    return run


def _steps(
    tracker: Any,
    frames: FrameSource,
    run: Run,
    every: int,
    ask: Callable[[np.ndarray], list[FramePrompt]] | None,
    backwards: bool,
) -> Iterator[_Step]:
    result: TrackResult | None = None
    tracked, ahead = 0, -1 if backwards else 1
    passed_over = 0  # by a camera while prompts were asked for
    for count, frame in enumerate(frames if frames.live else _read_quietly(frames)):
        if count == 1 and ask is not None and frames.live:
            passed_over = frame.index - 1
        if passed_over:
            frame = replace(frame, index=frame.index - passed_over)
        if count == 0:
            if ask is not None:
                started = time.perf_counter()
                run.unused = [replace(prompt, frame=frame.index) for prompt in ask(frame.pixels)]
                run.asking_seconds = time.perf_counter() - started
            for prompt in run.unused:
                prompt.check(*frame.size_hw)
        due = [prompt for prompt in run.unused if ahead * prompt.frame <= ahead * frame.index]
        run.unused = run.unused[len(due) :]
        seconds = 0.0
        # Objects that were dropped leave nothing to track.
        if due or (tracker.object_ids and ahead * (frame.index - tracked) >= every):
            started = time.perf_counter()
            result = _track(tracker, frame, due)
            seconds, tracked = time.perf_counter() - started, frame.index
        yield _Step(frame, result, seconds)


def _read_quietly(frames: FrameSource) -> Iterator[Frame]:
    """The frames, without what libjpeg and others print of damaged ones."""
    found = iter(frames)
    while True:
        with quiet_native_stderr():
            frame = next(found, None)
        if frame is None:
            return
        yield frame


def _track(tracker: Any, frame: Frame, due: list[FramePrompt]) -> TrackResult:
    result = tracker.track(frame.pixels) if tracker.object_ids else None
    events = result.events if result is not None else ()
    for prompt in due:
        result = tracker.prompt(frame.pixels, prompt.object_id, **prompt.arguments)
    assert result is not None
    return replace(result, events=events)


def _describe(step: _Step) -> dict[str, Any]:
    """A frame for JSON: its number, its time stamp in seconds, and each object in pixels."""
    objects = []
    if step.result is not None:
        found = step.result
        rows = zip(found.object_ids, found.masks, found.scores.tolist(), found.object_scores.tolist(), strict=True)
        for object_id, mask, score, visible in rows:
            box, centroid = mask_box(mask), mask_centroid(mask)
            objects.append(
                {
                    "object": object_id,
                    "state": "visible" if visible > 0 else "hidden",
                    "area_pixels": int(np.count_nonzero(mask)),
                    "box_xyxy": None if box is None else list(box),
                    "centroid_xy": None if centroid is None else [round(value, 1) for value in centroid],
                    "score": round(score, 4),
                    "object_score": round(visible, 4),
                }
            )
    known = {
        "frame": step.frame.index,
        "seconds": round(step.frame.time_ns / 1e9, 6),
        "tracked": step.seconds > 0,
        "milliseconds": round(step.seconds * 1000, 2),
        "objects": objects,
    }
    # A frame without a run of the model repeats the last result, whose events were reported before.
    events = step.result.events if step.result is not None and step.seconds > 0 else ()
    told = [{"kind": e.kind, "object": e.object_id, "other": e.other_id, "time": round(e.time_s, 3)} for e in events]
    return {**known, "events": told} if told else known
