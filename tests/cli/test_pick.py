"""`sam2edge track --pick`, in a window on a screen without a monitor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge.cli.main import main
from sam2edge.errors import BackendUnavailableError, InvalidInputError
from tests.conftest import read_video, write_clip
from tests.mjpeg_server import jpegs, served
from tests.rtsp_server import wait_until

SIZE_HW = (60, 80)


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """The number of a screen of 640x480, as in ":1"."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("no Xvfb (apt install xvfb)")
    reading, writing = os.pipe()
    command = [program, "-displayfd", str(writing), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with open(reading) as told:
        server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
        os.close(writing)
        try:
            yield f":{told.readline().strip()}"
        finally:
            server.kill()
            server.wait()


class Hand:
    """Clicks and types in the window as a person does."""

    def __init__(self, window: Any) -> None:
        self._window = window
        (self._canvas,) = (child for child in window.winfo_children() if child.winfo_class() == "Canvas")
        (self._label,) = (child for child in window.winfo_children() if child.winfo_class() == "Label")

    def click(self, x: int, y: int, button: int = 1, shift: bool = False) -> None:
        self._canvas.event_generate(f"<ButtonPress-{button}>", x=x, y=y)
        self._canvas.event_generate(f"<ButtonRelease-{button}>", x=x, y=y, state=0x101 if shift else 0x100)

    def drag(self, x1: int, y1: int, x2: int, y2: int) -> None:
        self._canvas.event_generate("<ButtonPress-1>", x=x1, y=y1)
        self._canvas.event_generate("<B1-Motion>", x=x2, y=y2)
        self._canvas.event_generate("<ButtonRelease-1>", x=x2, y=y2, state=0x100)

    def type(self, *keys: str) -> None:
        for key in keys:
            self._window.focus_force()
            wait_until(lambda: self._window.update() or self._window.focus_get() is not None)
            self._window.event_generate(f"<{key}>")

    def close(self) -> None:
        self._window.tk.call(self._window.protocol("WM_DELETE_WINDOW"))

    @property
    def text(self) -> str:
        return str(self._label["text"])


Drive = Callable[[Callable[[Hand], None]], None]


@pytest.fixture
def drive(screen: str, monkeypatch: pytest.MonkeyPatch) -> Drive:
    """Has a function do what a person does, once the window is shown."""
    tkinter = pytest.importorskip("tkinter", reason="needs tkinter (apt install python3-tk)")
    monkeypatch.setenv("DISPLAY", screen)

    def start(act: Callable[[Hand], None]) -> None:
        show = tkinter.Misc.focus_force

        def shown(window: Any) -> None:
            show(window)
            if not hasattr(window, "hand_comes"):
                window.hand_comes = window.after(50, lambda: act(Hand(window)))
                window.after(60_000, window.destroy)  # a window that nobody closes fails the test

        monkeypatch.setattr(tkinter.Tk, "focus_force", shown)

    return start


def _pick(size_hw: tuple[int, int] = SIZE_HW) -> list[dict[str, Any]]:
    from sam2edge.cli.pick import pick_objects

    return [found.arguments() for found in pick_objects(np.full((*size_hw, 3), 90, np.uint8))]


def test_clicks_and_a_box_mark_objects(drive: Drive) -> None:
    said = []

    def act(hand: Hand) -> None:
        hand.click(20, 25)
        hand.click(40, 30, shift=True)
        hand.type("n")
        said.append(hand.text)
        hand.drag(70, 50, 10, 5)
        hand.click(3, 3, button=3)
        hand.drag(5, 5, 30, 30)  # an object has one box: this is the next one
        hand.type("Return")

    drive(act)
    assert _pick() == [
        {"points": [[20, 25], [40, 30]], "labels": [1, 0]},
        {"points": [[3, 3]], "labels": [0], "box": [10, 5, 70, 50]},
        {"box": [5, 5, 30, 30]},
    ]
    assert said[0].startswith("Object 2.")


def test_a_step_back_and_background_alone(drive: Drive) -> None:
    said = []

    def act(hand: Hand) -> None:
        hand.type("BackSpace")  # of nothing
        hand.click(20, 25)
        hand.type("n")
        hand.click(50, 50, button=3)
        hand.type("Return")
        said.append(hand.text)
        hand.type("BackSpace", "KP_Enter")

    drive(act)
    assert _pick() == [{"points": [[20, 25]], "labels": [1]}]
    assert "Object 2 is background alone" in said[0]


def test_a_frame_larger_than_the_screen_is_shown_smaller(drive: Drive) -> None:
    def act(hand: Hand) -> None:
        hand.click(272, 204)
        hand.drag(-20, -20, 5000, 5000)  # beyond the picture
        hand.type("Return")

    drive(act)
    (found,) = _pick((1500, 2000))
    assert found["points"] == [[1000.0, 750.0]] and found["box"] == [0, 0, 1999, 1499]


@pytest.mark.parametrize("leave", [lambda hand: hand.type("Escape"), Hand.close, lambda hand: hand.type("Return")])
def test_nothing_is_picked(drive: Drive, leave: Callable[[Hand], None]) -> None:
    drive(leave)
    with pytest.raises(InvalidInputError, match="nothing was picked"):
        _pick()


def test_track_follows_what_was_picked(
    drive: Drive, fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip", 6)

    def act(hand: Hand) -> None:
        hand.click(20, 20)
        hand.type("n")
        hand.drag(8, 10, 38, 40)
        hand.type("Return")

    drive(act)
    assert main(["track", "clip", "--pick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_frames"] == 6 and len(report["frames"]) == 6
    assert all([found["object"] for found in frame["objects"]] == [1, 2] for frame in report["frames"])
    drive(lambda hand: hand.type("Escape"))
    assert main(["track", "clip", "--pick"]) == 1
    assert "nothing was picked" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "clip.tracked.mp4"]


def test_a_camera_waits_while_one_picks(
    drive: Drive, fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drive(lambda hand: hand.drag(2, 5, 60, 45) or hand.type("Return"))  # type: ignore[func-returns-value]
    with served(jpegs(600)) as address:
        assert main(["track", address, "--pick", "--json"]) == 1  # at the end of the stream
    report = json.loads(capsys.readouterr().out)
    assert "stopped giving frames" in report["error"] and report["num_frames"] >= 3
    assert all(len(frame["objects"]) == 1 for frame in report["frames"])
    assert [frame["frame"] for frame in report["frames"][:2]] == [0, 1]  # what passed meanwhile is not counted
    assert len(read_video("live.tracked.mp4")) == report["frames"][-1]["frame"] + 1


def test_where_there_is_no_display(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tkinter")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip", 2)
    for display in (None, ":9999"):
        monkeypatch.delenv("DISPLAY", raising=False)
        if display:
            monkeypatch.setenv("DISPLAY", display)
        assert main(["track", "clip", "--pick"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"got {f'DISPLAY={display}' if display else 'no DISPLAY'}" in line and "sam2edge serve SOURCE" in line
    assert main(["track", "clip", "--pick", "--point", "1,2"]) == 2
    assert "--pick goes with none of" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tkinter", None)
    from sam2edge.cli.pick import check_display

    with pytest.raises(BackendUnavailableError, match=r"expected tkinter.*apt install python3-tk"):
        check_display()


def test_control_c_ends_the_window(drive: Drive) -> None:
    import _thread

    drive(lambda _: threading.Timer(0.2, _thread.interrupt_main).start())
    with pytest.raises(KeyboardInterrupt):
        _pick()
