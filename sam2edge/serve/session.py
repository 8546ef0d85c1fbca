"""The thread that follows: newest frame in, masks out, with the commands of all clients carried out between frames."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.datatypes import TrackResult
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.predictor import ImagePredictor
from sam2edge.serve.history import RecentFrames, SeenFrame
from sam2edge.tracker import VideoTracker
from sam2edge.video.frame import Frame
from sam2edge.video.latest import LatestFrames
from sam2edge.video.pace import Paced

MAX_WAITING_COMMANDS = 32
MAX_OBJECT_ID = 255  # what an index PNG and a mono8 label image hold

_log = logging.getLogger("sam2edge.serve")


@dataclass(frozen=True, eq=False)
class Step:
    """What is known after a frame, or after a command: goes to every client, recording and sink.

    `tracker_seconds` is what following took on this frame, 0 where nothing is followed. `names` has a name for each
    object of `result`; `problem` is what keeps frames from coming, or "".
    """

    frame: Frame
    result: TrackResult | None
    tracker_seconds: float
    names: dict[int, str]
    paused: bool
    dropped: int
    problem: str


@dataclass(frozen=True)
class Prompt:
    """Where an object is. `frame_index` None is the newest frame, `object_id` None a new object."""

    points: list[tuple[float, float]]
    labels: list[int]
    box: tuple[float, float, float, float] | None = None
    frame_index: int | None = None
    object_id: int | None = None
    name: str | None = None


class Session:
    """Follows objects through a source until it is stopped. Methods that change something are commands: they may be
    called from any thread, return a Future, and are carried out in order by the thread that follows.

    `on_step` is called by that thread with each Step; it must not block.
    """

    def __init__(
        self,
        model: ImagePredictor,
        frames: LatestFrames,
        playback: Paced | None,
        on_step: Callable[[Step], None],
        *,
        max_objects: int = 16,
        history: RecentFrames | None = None,
    ) -> None:
        self.model = model
        self._frames, self._playback, self._on_step = frames, playback, on_step
        self._max_objects = max_objects
        self._tracker = VideoTracker(model)
        self._history = history or RecentFrames()
        self._commands: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue(MAX_WAITING_COMMANDS)
        self._names: dict[int, str] = {}
        self._paused, self._steps_due = False, 0
        self._stopping = threading.Event()
        self._problem = ""
        self.last_step: Step | None = None
        self.alive_at = time.monotonic()
        self.frame_at = time.monotonic()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sam2edge-session", daemon=True)

    def start(self) -> None:
        self._frames.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the frame that it is at, and closes the source."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        self._frames.close()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    @property
    def source_problem(self) -> str:
        """What keeps frames from coming; "" while they come."""
        return self._problem

    def tell_source_problem(self, problem: str) -> None:
        """Notes that the source was lost, for all clients to see; the next frame clears it. From any thread."""
        self._problem = problem

    def prompt(self, prompt: Prompt) -> Future[int]:
        """Adds or corrects an object; the result is its id. The frame may be one that was shown a while ago."""
        return self._submit(lambda: self._prompt(prompt))

    def remove(self, object_id: int) -> Future[None]:
        return self._submit(lambda: self._remove(object_id))

    def rename(self, object_id: int, name: str) -> Future[None]:
        return self._submit(lambda: self._rename(object_id, name))

    def reset(self) -> Future[None]:
        """Forgets all objects."""
        return self._submit(self._reset)

    def pause(self) -> Future[None]:
        return self._submit(lambda: self._set_paused(True))

    def resume(self) -> Future[None]:
        return self._submit(lambda: self._set_paused(False))

    def step(self) -> Future[None]:
        """Takes one frame and pauses."""
        return self._submit(self._step)

    def _submit(self, command: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if not self._thread.is_alive():
            raise Sam2EdgeError("the tracker has stopped", remedy="start sam2edge serve again")
        try:
            self._commands.put_nowait((command, future))
        except queue.Full:
            raise BusyError(
                "too many commands are waiting", expected=f"at most {MAX_WAITING_COMMANDS}", remedy="try again"
            ) from None
        return future

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.alive_at = time.monotonic()
                self._carry_out()
                if self._paused and not self._steps_due:
                    self._wait_for_command()
                    continue
                frame = self._frames.fetch(0.05)
                if frame is not None:
                    self._steps_due = max(0, self._steps_due - 1)
                    self._follow(frame)
                elif self._frames.ended:
                    self._problem = "the recording has ended"
                    self._paused = True
                    self._tell(self.last_step)
        except BaseException as error:
            self.error = error
            self._problem = f"the tracker has stopped: {error}"
            _log.exception("the tracker has stopped")
            self._tell(self.last_step)
        finally:
            self._refuse_waiting()

    def _follow(self, frame: Frame) -> None:
        self.frame_at = time.monotonic()
        self._problem = ""
        if self.last_step is not None and self.last_step.frame.size_hw != frame.size_hw:
            self._reset()
            self._history.clear()
        result, seconds = None, 0.0
        if self._tracker.object_ids:
            started = time.perf_counter()
            result = self._tracker.track(frame.pixels)
            seconds = time.perf_counter() - started
        self._keep(frame, result, seconds)

    def _keep(self, frame: Frame, result: TrackResult | None, seconds: float) -> None:
        self._history.add(frame, result)
        self._tell(Step(frame, result, seconds, dict(self._names), self._paused, self._frames.dropped, self._problem))

    def _tell(self, step: Step | None) -> None:
        if step is None:
            return
        names, problem = dict(self._names), self._problem
        step = replace(step, names=names, paused=self._paused, dropped=self._frames.dropped, problem=problem)
        self.last_step = step
        self._on_step(step)

    def _carry_out(self) -> None:
        while True:
            try:
                command, future = self._commands.get_nowait()
            except queue.Empty:
                return
            self._answer(command, future)

    def _wait_for_command(self) -> None:
        try:
            command, future = self._commands.get(timeout=0.2)
        except queue.Empty:
            return
        self._answer(command, future)

    def _answer(self, command: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = command()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _refuse_waiting(self) -> None:
        while not self._commands.empty():
            _, future = self._commands.get_nowait()
            future.cancel()

    def _prompt(self, prompt: Prompt) -> int:
        seen, newest = self._history.get(prompt.frame_index), self._history.get(None)
        object_id = self._new_id() if prompt.object_id is None else prompt.object_id
        if prompt.object_id is not None and prompt.object_id not in self._tracker.object_ids:
            raise InvalidInputError("no such object", expected=f"one of {self._tracker.object_ids}", got=object_id)
        arguments: dict[str, Any] = {} if prompt.box is None else {"box": list(prompt.box)}
        if prompt.points:
            arguments.update(points=[list(point) for point in prompt.points], labels=prompt.labels)
        started = time.perf_counter()
        if seen is newest:
            result = self._tracker.prompt(newest.frame.pixels, object_id, **arguments)
        elif not self._tracker.object_ids:
            result = self._begin(seen, newest, object_id, arguments)
        else:
            mask = self._carry_over(seen, newest, object_id, arguments)
            result = self._tracker.prompt(newest.frame.pixels, object_id, mask=mask)
        if prompt.name or object_id not in self._names:
            self._names[object_id] = prompt.name or f"object {object_id}"
        self._keep(newest.frame, result, time.perf_counter() - started)
        return object_id

    def _begin(self, seen: SeenFrame, newest: SeenFrame, object_id: int, arguments: dict[str, Any]) -> TrackResult:
        """The first object: prompted on the frame that was clicked on, and followed to the newest."""
        self._tracker.reset()
        self._tracker.prompt(seen.frame.pixels, object_id, **arguments)
        return self._tracker.track(newest.frame.pixels)

    def _carry_over(
        self, seen: SeenFrame, newest: SeenFrame, object_id: int, arguments: dict[str, Any]
    ) -> NDArray[np.bool_]:
        """The mask on the newest frame of what was clicked on in an earlier one, where others are followed already.

        A tracker of its own goes from the one to the other, for the others' has passed that frame.
        """
        bridge = VideoTracker(self.model)
        earlier = seen.mask_of(object_id)
        if earlier is not None:
            bridge.prompt(seen.frame.pixels, 1, mask=earlier)
        bridge.prompt(seen.frame.pixels, 1, **arguments)
        mask: NDArray[np.bool_] = bridge.track(newest.frame.pixels).masks[0]
        if not mask.any():
            raise InvalidInputError(
                "what was clicked on is not found on the newest frame", remedy="pause, and click then"
            )
        return mask

    def _new_id(self) -> int:
        if len(self._tracker.object_ids) >= self._max_objects:
            raise InvalidInputError(
                "too many objects", expected=f"at most {self._max_objects}", remedy="remove one, or raise --max-objects"
            )
        return next(n for n in range(1, MAX_OBJECT_ID + 1) if n not in self._tracker.object_ids)

    def _remove(self, object_id: int) -> None:
        self._tracker.remove_object(object_id)
        self._names.pop(object_id, None)
        if self.last_step is not None:
            self._tell(replace(self.last_step, result=_without(self.last_step.result, object_id)))

    def _rename(self, object_id: int, name: str) -> None:
        if object_id not in self._names:
            raise InvalidInputError("no such object", expected=f"one of {list(self._names)}", got=object_id)
        self._names[object_id] = name
        self._tell(self.last_step)

    def _reset(self) -> None:
        self._tracker.reset()
        self._names.clear()
        if self.last_step is not None:
            self._tell(replace(self.last_step, result=None))

    def _set_paused(self, paused: bool) -> None:
        self._paused, self._steps_due = paused, 0
        if self._playback is not None:
            (self._playback.pause if paused else self._playback.resume)()
        self._tell(self.last_step)

    def _step(self) -> None:
        if not self._paused:
            self._set_paused(True)
        self._steps_due = 1
        if self._playback is not None and not self._frames.has_frame:
            self._playback.step()


class BusyError(Sam2EdgeError):
    """More commands than can wait."""


def _without(result: TrackResult | None, object_id: int) -> TrackResult | None:
    if result is None or object_id not in result.object_ids:
        return result
    kept = [row for row, one in enumerate(result.object_ids) if one != object_id]
    if not kept:
        return None
    ids = tuple(result.object_ids[row] for row in kept)
    return TrackResult(
        result.frame_index,
        ids,
        result.masks[kept],
        result.scores[kept],
        result.object_scores[kept],
        result.logits[kept],
    )
