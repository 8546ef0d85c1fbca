"""The thread that follows: prompts on frames of the past, objects, pauses, what goes wrong."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.serve.history import RecentFrames
from sam2edge.serve.session import MAX_WAITING_COMMANDS, BusyError, Prompt, Session, Step
from sam2edge.video.frame import Frame
from sam2edge.video.latest import LatestFrames
from tests.fake_backend import bright_square, fake_model
from tests.rtsp_server import wait_until


class _Pushed:
    """A source that gives the frames that the test pushes."""

    live = True

    def __init__(self) -> None:
        self.fps = 30.0
        self.num_frames: int | None = None
        self.frames: queue.Queue[Frame | None] = queue.Queue()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.frames.get()) is not None:
            yield frame

    def close(self) -> None:
        self.frames.put(None)


class _Bench:
    def __init__(self, **options: Any) -> None:
        self.source, self.steps = _Pushed(), list[Step]()
        self.model = fake_model()
        self.session = Session(self.model, LatestFrames(self.source), None, self.steps.append, **options)
        self.session.start()
        self.count = 0

    def push(self, left: int = 10, size_hw: tuple[int, int] = (60, 80)) -> Step:
        """Gives a frame and waits until it was followed."""
        self.source.frames.put(Frame(self.count, bright_square(left, size_hw=size_hw), self.count))
        self.count += 1
        wait_until(lambda: self.steps and self.steps[-1].frame.time_ns == self.count - 1)
        return self.steps[-1]

    def last(self) -> Step:
        return self.steps[-1]


@pytest.fixture
def bench() -> Iterator[_Bench]:
    with contextlib.ExitStack() as stack:
        made = _Bench(max_objects=3)
        stack.callback(made.session.stop)
        stack.callback(made.source.close)
        yield made


def _click(**more: Any) -> Prompt:
    return Prompt([(20.0, 20.0)], [1], **more)


def _columns(step: Step, row: int = 0) -> tuple[int, int]:
    assert step.result is not None
    columns = np.flatnonzero(step.result.masks[row].any(axis=0))
    return int(columns[0]), int(columns[-1])


def _ids(step: Step) -> tuple[int, ...]:
    return () if step.result is None else step.result.object_ids


def test_an_object_is_followed_from_the_newest_frame(bench: _Bench) -> None:
    bench.push(10)
    assert bench.last().result is None
    assert bench.session.prompt(_click(name="cup")).result(10) == 1
    assert bench.last().names == {1: "cup"} and abs(_columns(bench.last())[0] - 10) <= 4
    step = bench.push(30)
    assert abs(_columns(step)[0] - 30) <= 4 and step.tracker_seconds > 0


def test_a_click_belongs_to_the_frame_that_was_seen(bench: _Bench) -> None:
    for left in (5, 20, 35):
        bench.push(left)
    encoded = len(bench.model.backend.of("encode"))  # type: ignore[attr-defined]
    assert bench.session.prompt(_click(frame_index=0)).result(10) == 1
    assert len(bench.model.backend.of("encode")) == encoded + 2  # type: ignore[attr-defined]
    assert abs(_columns(bench.last())[0] - 35) <= 4  # shown on the newest frame
    assert bench.session.prompt(_click(frame_index=1)).result(10) == 2
    assert _ids(bench.last()) == (1, 2)
    bench.session.prompt(_click(frame_index=1, object_id=1)).result(10)
    given = [call[1] for call in bench.model.backend.of("decode")]  # type: ignore[attr-defined]
    assert any(mask is not None for mask in given)  # the correction began with the mask of that frame
    assert abs(_columns(bench.push(12), 1)[0] - 12) <= 4


def test_frames_that_are_not_kept(bench: _Bench) -> None:
    with pytest.raises(InvalidInputError, match="no frame yet"):
        bench.session.prompt(_click()).result(10)
    bench.push()
    for index in (1, 99):
        with pytest.raises(InvalidInputError, match=r"frame is not kept.*0\.\.0.*click again"):
            bench.session.prompt(_click(frame_index=index)).result(10)


def test_history_is_bounded() -> None:
    history = RecentFrames(max_bytes=10 * 60 * 80 * 3, max_frames=100)
    for index in range(50):
        history.add(Frame(index, bright_square(3), 0), None)
    assert history.nbytes <= 10 * 60 * 80 * 3
    assert history.get(40).frame.index == 40
    with pytest.raises(InvalidInputError):
        history.get(39)
    history.add(Frame(49, bright_square(3), 0), None)
    assert history.nbytes <= 10 * 60 * 80 * 3 and history.get(None).frame.index == 49


def test_objects_come_are_named_and_go(bench: _Bench) -> None:
    bench.push()
    ids = [bench.session.prompt(_click()).result(10) for _ in range(3)]
    assert ids == [1, 2, 3]
    with pytest.raises(InvalidInputError, match=r"too many objects.*at most 3"):
        bench.session.prompt(_click()).result(10)
    bench.session.rename(2, "mug").result(10)
    assert bench.last().names[2] == "mug"
    bench.session.remove(2).result(10)
    assert _ids(bench.last()) == (1, 3)
    assert bench.session.prompt(_click()).result(10) == 2
    for command in (bench.session.remove(9), bench.session.rename(9, "x"), bench.session.prompt(_click(object_id=9))):
        with pytest.raises(InvalidInputError, match="no such object"):
            command.result(10)
    bench.session.reset().result(10)
    assert bench.last().result is None
    assert bench.push().result is None


def test_pause_and_step(bench: _Bench) -> None:
    bench.push()
    bench.session.pause().result(10)
    assert bench.last().paused
    seen = bench.last().frame.index
    for left in (12, 14):
        bench.source.frames.put(Frame(bench.count, bright_square(left), bench.count))
        bench.count += 1
    bench.session.prompt(_click()).result(10)  # commands are carried out, on the frame that is shown
    assert bench.last().frame.index == seen
    bench.session.step().result(10)
    wait_until(lambda: bench.last().frame.index == 2)  # a camera's newest
    assert bench.last().paused and bench.last().dropped == 1
    bench.session.resume().result(10)
    assert not bench.push().paused


def test_frames_of_another_size_begin_anew(bench: _Bench) -> None:
    bench.push()
    bench.session.prompt(_click()).result(10)
    step = bench.push(10, (48, 64))
    assert step.result is None and step.frame.size_hw == (48, 64)
    assert bench.session.prompt(_click()).result(10) == 1
    with pytest.raises(InvalidInputError, match="not kept"):
        bench.session.prompt(_click(frame_index=0)).result(10)


def test_a_prompt_that_fails_leaves_the_rest_as_it_was(bench: _Bench) -> None:
    bench.push()
    bench.session.prompt(_click()).result(10)
    with pytest.raises(InvalidInputError, match="label"):
        bench.session.prompt(Prompt([(1.0, 1.0)], [7])).result(10)
    bench.model.backend.fail_in = "decode"  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        bench.session.prompt(_click()).result(10)
    assert bench.push().result is not None


def test_a_tracker_that_fails_says_so_and_takes_no_commands(bench: _Bench) -> None:
    bench.push()
    bench.session.prompt(_click()).result(10)
    bench.model.backend.fail_in = "attend"  # type: ignore[attr-defined]
    bench.source.frames.put(Frame(1, bright_square(9), 1))
    wait_until(lambda: not bench.session.is_running)
    assert "attend failed" in bench.session.source_problem and "attend failed" in bench.last().problem
    with pytest.raises(Exception, match="the tracker has stopped"):
        bench.session.pause()


def test_the_end_of_a_recording_is_told(bench: _Bench) -> None:
    bench.push()
    bench.source.close()
    wait_until(lambda: bench.last().problem == "the recording has ended")
    assert bench.last().paused
    assert bench.session.prompt(_click()).result(10) == 1  # the last frame can be worked on


def test_too_many_commands(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hold, held = threading.Event(), threading.Event()
    bench.push()
    bench.session._submit(lambda: held.set() or hold.wait(20))
    assert held.wait(10)
    for _ in range(MAX_WAITING_COMMANDS):
        bench.session.pause()
    with pytest.raises(BusyError, match="too many commands"):
        bench.session.pause()
    hold.set()
    wait_until(lambda: bench.last().paused)


def test_a_lost_camera_is_told_until_frames_come(bench: _Bench) -> None:
    bench.push()
    bench.session.tell_source_problem("the camera is gone")
    bench.session.rename(1, "x").exception(10)
    assert bench.session.source_problem == "the camera is gone"
    assert bench.push().problem == "" and bench.session.source_problem == ""
