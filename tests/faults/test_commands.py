"""What users, service managers and full disks do to a command: nothing is lost, and one line says what it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge.automodel import AutoModel
from sam2edge.cli.main import main
from tests.conftest import ROOT, read_video, write_clip
from tests.fake_backend import bright_square

BOX = "8,10,38,40"


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 200 pictures, the working folder beside it."""
    monkeypatch.chdir(tmp_path)
    return write_clip(tmp_path / "clip", 200)


def _signalled(clip: Path, number: int) -> tuple[int, str, str]:
    """Sends a signal to a run of `track` that has written two frames; its exit status and what it printed."""
    command = [sys.executable, "-m", "sam2edge.cli.main", "track", "clip", "--box", BOX, "--masks", "masks", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=clip.parent,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # ignored where these tests run under nohup
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not (clip.parent / "masks" / "00001.png").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_stopped_run_finishes_its_video(clip: Path, name: str) -> None:
    number = signal.Signals[name]
    status, out, err = _signalled(clip, number)
    assert status == 128 + number
    assert err.strip() == ("sam2edge: interrupted" if name == "SIGINT" else f"sam2edge: stopped by {name}")
    report = json.loads(out)
    assert report["interrupted"] and report["num_frames"] == len(read_video(clip.parent / "clip.tracked.mp4")) >= 2
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip", "clip.tracked.mp4", "masks"]


def test_the_next_run_clears_up_after_a_kill(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert _signalled(clip, signal.SIGKILL)[0] == -signal.SIGKILL
    assert [path.suffix for path in clip.parent.glob(".*")] == [".mkv"]
    assert main(["track", "clip", "--box", BOX]) == 0
    assert list(clip.parent.glob(".*")) == []
    rescued = Path("rescued.mkv")
    assert not rescued.exists() or len(read_video(rescued))  # two small frames may still have been in the writer
    assert ("its video so far is rescued.mkv" in capsys.readouterr().err) == rescued.exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"box": [1, 1, 9, "x"]}, "boxes are not numbers"),
        ({"box": [1, 1, 9, 10**400]}, "boxes are not numbers"),
        ({"box": [[1, 1, 9, 9], [2, 2, 8, 8]]}, "several objects"),
        ({"points": [[1, 2], [3]]}, "not numbers"),
        ({"points": {"x": 1}}, "point_labels missing"),
        ({"points": [[1, 2]], "labels": [7]}, "unknown point label"),
        ({"points": [[1, 2]], "labels": None}, "point_labels missing"),
        ({"points": [], "labels": []}, "unusable shape"),
        ({"points": [[500, 2]]}, "point lies outside the photo"),
        ({"box": [500, 500, 600, 600]}, "box lies outside the photo"),
    ],
)
def test_every_prompt_is_checked_before_the_first_frame(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str], entry: dict[str, Any], message: str
) -> None:
    Path("prompts.json").write_text(json.dumps([{"frame": 0, "box": [8, 10, 38, 40]}, {"frame": 6, **entry}]))
    assert main(["track", "clip", "--prompts", "prompts.json", "--masks", "masks"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "prompt of object 1 on frame 6" in err and message in err
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip", "prompts.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "/proc/x.mp4"], "--out cannot be written"),
        (["--out", f"{'x' * 296}.mp4"], "name too long"),
        (["--masks", "/proc/masks"], "--masks cannot be written"),
        (["--masks", "clip"], "among the frames of the source"),
        (["--out", "there.mp4"], "--out is there already"),
    ],
)
def test_output_places_are_tried_before_a_model_is_loaded(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    Path("there.mp4").write_text("earlier")
    before = sorted(clip.iterdir())
    assert main(["track", "clip", "--box", BOX, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "remedy" in err and message.lower() in err.lower()
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip", "there.mp4"]
    assert sorted(clip.iterdir()) == before and Path("there.mp4").read_text() == "earlier"


def test_pictures_of_jpeg_frames_do_not_double_the_source(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("jp").mkdir()
    for number in range(3):
        assert cv2.imwrite(f"jp/{number}.jpg", bright_square(number))
    assert main(["track", "jp", "--box", BOX, "--masks", "jp"]) == 1
    assert sorted(path.name for path in Path("jp").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]


def test_results_are_never_written_over_without_a_word(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["track", "clip", "--box", BOX]) == 0
    out, err = capsys.readouterr()
    assert "clip.tracked-2.mp4" in out and "clip.tracked.mp4 is there already: written as clip.tracked-2.mp4" in err
    Path("other").mkdir()
    for place in ("clip", "other"):
        assert cv2.imwrite(f"{place}/cup.png", bright_square(3))
        assert main(["segment", f"{place}/cup.png", "--box", BOX, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["mask"], second["mask"]) == ("cup.mask.png", "cup.mask-2.png")


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "none.png", "--point", "1,2"],
        ["segment", "none.png", "--point", "nothing"],
        ["track", "none.mp4", "--point", "1,2"],
        ["models", "add", "none.pt"],
        ["models", "pull", "none"],
    ],
    ids=" ".join,
)
def test_errors_are_json_where_json_is_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["status"] == status > 0 and err == f"sam2edge: {said['error']}\n"
    assert status == 2 or {"problem", "expected", "got", "remedy"} < set(said)


def test_control_characters_in_names_do_not_reach_the_terminal(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a\x1b]0;owned\x07\r\n.png"
    assert main(["segment", name, "--point", "1,2"]) == 1
    assert cv2.imwrite("plain.png", bright_square(3))
    Path("plain.png").rename(name)
    assert main(["segment", name, "--box", BOX]) == 0
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x07", "\r"} & set(out + err)
    assert "\\x1b]0;owned\\x07" in err and "\\x1b]0;owned\\x07" in out


def test_what_opencv_says_does_not_show(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + os.urandom(4000))
    picture = cv2.imencode(".png", np.zeros((60, 80, 3), np.uint8))[1].tobytes()
    (tmp_path / "broken.png").write_bytes(picture[:60] + os.urandom(30) + picture[60:])
    for arguments in (["track", "broken.mp4"], ["segment", "broken.png"]):
        command = [sys.executable, "-m", "sam2edge.cli.main", *arguments, "--point", "1,2"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1 and result.stdout == ""
        assert result.stderr.startswith("sam2edge: ") and result.stderr.count("\n") == 1


def test_what_libjpeg_says_of_a_picture_in_a_folder_does_not_show(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("jp").mkdir()
    for number in range(3):
        data = bytearray(cv2.imencode(".jpg", bright_square(number))[1].tobytes())
        if number == 1:
            data[-40:-2] = bytes(38)
        Path(f"jp/{number}.jpg").write_bytes(data)
    cv2.imread("jp/1.jpg")
    assert "Corrupt JPEG data" in capfd.readouterr().err  # which is what is to be hidden
    assert main(["track", "jp", "--box", BOX]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("3 frames") and err == ""


@pytest.mark.parametrize("size", ["0", "-32", "7", "99999999"])
def test_sizes_that_no_model_takes(clip: Path, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "clip", "--box", BOX, "--size", size]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "image size cannot be used" in err and f"got {size}" in err
    assert [path.name for path in clip.parent.iterdir()] == ["clip"]
