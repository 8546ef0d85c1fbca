"""`sam2edge track` on a fake model, and once with the embedded one."""

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

from sam2edge.cli.main import main
from sam2edge.datatypes import TrackResult
from sam2edge.imaging.overlay import distinct_color, draw_masks
from sam2edge.tracker import VideoTracker
from sam2edge.video.frame import Frame
from sam2edge.video.result_sink import draw_result
from sam2edge.video.sources import files
from tests.conftest import ROOT, read_picture, read_video, write_clip
from tests.fake_backend import bright_square
from tests.mjpeg_server import jpegs, served

BOX = "8,10,38,40"


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of six pictures; the working folder is beside it."""
    monkeypatch.chdir(tmp_path)
    return write_clip(tmp_path / "clip", 6)


def _json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_video_comes_out(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "clip", "--box", BOX]) == 0
    assert capsys.readouterr().out.startswith("6 frames, 1 objects, ")
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip", "clip.tracked.mp4"]
    frames = read_video("clip.tracked.mp4")
    assert [frame.shape for frame in frames] == [(60, 80, 3)] * 6
    assert np.ptp(frames[0][20, 20]) > 40  # the white square is tinted
    assert main(["track", "clip.tracked.mp4", "--point", "20,20", "--out", "again.mp4"]) == 0
    assert len(read_video("again.mp4")) == 6


def test_json_and_masks(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "clip", "--box", BOX, "--masks", "masks", "--json"]) == 0
    report = _json(capsys)
    assert (report["num_frames"], report["interrupted"], report["out"]) == (6, False, "clip.tracked.mp4")
    assert [frame["frame"] for frame in report["frames"]] == list(range(6))
    assert 0 < report["frames_per_second"] < report["model_frames_per_second"]
    assert all(frame["milliseconds"] > 0 for frame in report["frames"])
    for number, frame in enumerate(report["frames"]):
        (found,) = frame["objects"]
        picture = read_picture(f"masks/{number:05d}.png")
        assert np.count_nonzero(picture[..., 2] == 128) == found["area_pixels"] > 0
        assert (found["object"], found["state"]) == (1, "visible")
        x1, y1, x2, y2 = found["box_xyxy"]
        assert x1 < found["centroid_xy"][0] < x2 and y1 < found["centroid_xy"][1] < y2


def test_prompts_from_a_file(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [
        {"frame": 4, "object": 1, "points": [[30, 20]]},
        {"frame": 2, "object": 1, "box": [8, 10, 38, 40]},
        {"frame": 3, "object": 7, "points": [[30, 20], [2, 2]], "labels": [1, 0]},
        {"frame": 99, "object": 8, "points": [[30, 20]]},
    ]
    Path("prompts.json").write_text(json.dumps(prompts))
    assert main(["track", "clip", "--prompts", "prompts.json", "--masks", "masks", "--json"]) == 0
    out, err = capsys.readouterr()
    ids = [[found["object"] for found in frame["objects"]] for frame in json.loads(out)["frames"]]
    assert ids == [[], [], [1], [1, 7], [1, 7], [1, 7]]
    assert "warning: no frame 99" in err
    assert not read_picture("masks/00000.png").any() and len(read_video("clip.tracked.mp4")) == 6


def test_a_mask_and_corrections_from_a_file(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    height, width = cv2.imread(str(next(clip.iterdir()))).shape[:2]  # type: ignore[union-attr]
    mask = np.zeros((height, width), np.uint8)
    mask[10:40, 8:38] = 255
    cv2.imwrite("object.png", mask)
    prompts: list[dict[str, Any]] = [
        {"mask": "object.png"},
        {"points": [[30, 20]]},
        {"object": 2, "mask": "object.png"},
        {"frame": 2, "points": [[30, 20]], "clear_old_points": True},
    ]
    Path("prompts.json").write_text(json.dumps(prompts))
    assert main(["track", "clip", "--prompts", "prompts.json", "--json"]) == 0
    frames = _json(capsys)["frames"]
    assert [len(frame["objects"]) for frame in frames] == [2] * 6
    # Both objects of the fake model are the bright square.
    assert [event["kind"] for frame in frames for event in frame.get("events", [])] == ["merged"]
    assert frames[1]["events"][0]["object"] == 1 and frames[1]["events"][0]["other"] == 2
    cv2.imwrite("object.png", mask[1:])
    assert main(["track", "clip", "--prompts", "prompts.json", "--force"]) == 1
    assert "mask of object 1 on frame 0 does not fit the frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"mask": "none.png"}]', "none.png"),
        ('[{"mask": "x.png", "box": [1, 1, 9, 9]}]', "no usable mask"),
        ('[{"box": [1, 1, 9, 9], "clear_old_points": 1}]', "no usable clear_old_points"),
        ("", "cannot be read"),
        ("{}", "not a list"),
        ("[]", "not a list"),
        ("[1]", "prompt 0 has unknown keys"),
        ('[{"frame": 0, "boxes": [1]}]', "prompt 0 has unknown keys"),
        ('[{"frame": -1, "box": [1, 1, 9, 9]}]', "no usable frame"),
        ('[{"frame": true, "box": [1, 1, 9, 9]}]', "no usable frame"),
        ('[{"object": 256, "box": [1, 1, 9, 9]}]', "no usable object"),
        ('[{"object": 1}]', "marks nothing"),
        ('[{"box": ["a", 1, 9, 9]}]', "boxes are not numbers"),
        ('[{"points": "x"}]', "point"),
        ('[{"points": [[5, 5]], "labels": [7]}]', "label"),
        ('[{"frame": 6, "box": [1, 1, 9, 9]}]', "before the first prompt"),
    ],
)
def test_prompt_files_that_cannot_be_used(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    Path("prompts.json").write_text(content)
    assert main(["track", "clip", "--prompts", "prompts.json"]) == 1
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip", "prompts.json"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["clip"], 2, "Nothing to track"),
        (["clip", "--box", BOX, "--prompts", "x.json"], 2, "not both"),
        (["clip", "--box", "1,2"], 2, "expected X1,Y1,X2,Y2"),
        (["clip", "--prompts", "x.json"], 1, "prompts cannot be read"),
        (["none.mp4", "--box", BOX], 1, "source not found"),
        (["clip", "--box", BOX, "--every", "0"], 2, "--every"),
        (["clip", "--box", BOX, "--out", "x.avi"], 1, ".mp4"),
        (["clip", "--box", BOX, "--out", "none/x.mp4"], 1, "folder that exists"),
        (["clip", "--box", BOX, "--masks", "clip"], 1, "among the frames of the source"),
        (["clip", "--box", "500,500,600,600"], 1, "outside"),
        (["clip/0.png", "--box", BOX], 1, "sam2edge segment clip/0.png"),
        (["clip", "--box", BOX, "--out", "clip/../clip.mp4", "--masks", "clip/0.png"], 1, "masks cannot be written"),
    ],
)
def test_bad_input(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert main(["track", *arguments]) == status
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""
    assert [path.name for path in clip.parent.iterdir()] == ["clip"]


def test_the_source_is_not_overwritten(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "clip", "--box", BOX, "--out", "a.mp4"]) == 0
    before = Path("a.mp4").read_bytes()
    assert main(["track", "a.mp4", "--box", BOX, "--out", "a.mp4"]) == 1
    assert "source itself" in capsys.readouterr().err
    assert Path("a.mp4").read_bytes() == before


def test_a_picture_that_fails_in_the_middle_leaves_the_video_so_far(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv2.imwrite(str(clip / "3.png"), bright_square(8, size_hw=(60, 90)))
    assert main(["track", "clip", "--box", BOX, "--json"]) == 1
    out, err = capsys.readouterr()
    assert "another size" in err and "another size" in json.loads(out)["error"]
    assert len(read_video("clip.tracked.mp4")) == 3
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip", "clip.tracked.mp4"]


def test_a_video_that_was_cut_off_is_told(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0)
    writer = cv2.VideoWriter("long.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (80, 60))
    for _ in range(40):
        writer.write(noise.integers(0, 256, (60, 80, 3), np.uint8))
    writer.release()
    whole = Path("long.avi").read_bytes()
    Path("cut.avi").write_bytes(whole[: len(whole) // 2])
    assert main(["track", "cut.avi", "--box", BOX, "--json"]) == 0
    out, err = capsys.readouterr()
    assert 10 < json.loads(out)["num_frames"] < 30
    assert "may be damaged: it announces 40 frames" in err


def test_every_third_frame(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    track = VideoTracker.track
    calls: list[Any] = []
    monkeypatch.setattr(VideoTracker, "track", lambda self, frame: calls.append(frame) or track(self, frame))
    prompts = [{"frame": 1, "box": [8, 10, 38, 40]}, {"frame": 2, "object": 2, "points": [[20, 20]]}]
    Path("prompts.json").write_text(json.dumps(prompts))
    assert main(["track", "clip", "--prompts", "prompts.json", "--every", "3", "--masks", "masks", "--json"]) == 0
    report = _json(capsys)
    assert [frame["tracked"] for frame in report["frames"]] == [False, True, True, False, False, True]
    assert [len(frame["objects"]) for frame in report["frames"]] == [0, 1, 2, 2, 2, 2]
    assert len(calls) == 2  # on frames 2 and 5
    held = [Path(f"masks/{number:05d}.png").read_bytes() for number in range(2, 6)]
    assert held[0] == held[1] == held[2] != held[3]
    assert len(read_video("clip.tracked.mp4")) == 6


@pytest.mark.parametrize("block_bytes", [1, 60 * 80 * 3 * 4, 10**9])
def test_from_the_last_frame_to_the_first(
    block_bytes: int, clip: Path, fake: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2edge.video.reversed._BLOCK_BYTES", block_bytes)
    assert main(["track", "clip", "--box", BOX, "--reverse", "--masks", "masks", "--json"]) == 0
    frames = _json(capsys)["frames"]
    assert [frame["frame"] for frame in frames] == [5, 4, 3, 2, 1, 0]
    lefts = [frame["objects"][0]["box_xyxy"][0] for frame in frames]
    assert lefts == sorted(lefts, reverse=True) and len(set(lefts)) == 6
    prompts = [{"frame": 1, "object": 2, "points": [[20, 20]]}, {"frame": 4, "box": [8, 10, 38, 40]}]
    Path("prompts.json").write_text(json.dumps(prompts))
    assert main(["track", "clip", "--prompts", "prompts.json", "--reverse", "--json", "--force"]) == 0
    assert [len(frame["objects"]) for frame in _json(capsys)["frames"]] == [0, 1, 1, 1, 2, 2]
    assert main(["track", "clip", "--box", BOX, "--reverse", "--live"]) == 2


def test_hidden_objects_end(clip: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (2, 3, 4):
        assert cv2.imwrite(str(clip / f"{number}.png"), np.zeros((60, 80, 3), np.uint8))
    assert main(["track", "clip", "--box", BOX, "--drop-after", "2", "--json"]) == 0
    frames = _json(capsys)["frames"]
    assert [len(frame["objects"]) for frame in frames] == [1, 1, 1, 0, 0, 0]
    assert [event["kind"] for frame in frames for event in frame.get("events", [])] == ["lost", "dropped"]


def test_a_slow_model_on_a_live_source_keeps_up(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DEFAULT_FPS", 100.0)
    for number in range(6, 60):
        assert cv2.imwrite(str(clip / f"{number}.png"), bright_square(8))
    track = VideoTracker.track
    monkeypatch.setattr(VideoTracker, "track", lambda self, frame: time.sleep(0.1) or track(self, frame))
    assert main(["track", "clip", "--box", BOX, "--live", "--masks", "masks", "--json"]) == 0
    report = _json(capsys)
    numbers = [frame["frame"] for frame in report["frames"]]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0
    assert report["dropped_frames"] == numbers[-1] + 1 - len(numbers) > 0
    # The video keeps the source's time: dropped frames are made up for.
    assert len(read_video("clip.tracked.mp4")) == numbers[-1] + 1
    assert sorted(path.stem for path in Path("masks").iterdir()) == [f"{number:05d}" for number in numbers]


def test_a_live_source_that_fails_leaves_what_came_before(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv2.imwrite(str(clip / "4.png"), bright_square(8, size_hw=(60, 90)))
    assert main(["track", "clip", "--box", BOX, "--live", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "another size" in err and err.count("\n") == 1
    shown = json.loads(out)["frames"][-1]["frame"] + 1
    assert len(read_video("clip.tracked.mp4")) == shown <= 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("97", "camera cannot be opened"),
        ("/dev/no-such-camera", "camera cannot be opened"),
        ("rtsp://me:secret@127.0.0.1:9/stream", "stream cannot be opened"),
        ("videotestsrc ! appsink", "GStreamer"),
    ],
)
def test_a_live_source_that_is_not_there(
    clip: Path, fake: None, capsys: pytest.CaptureFixture[str], source: str, message: str
) -> None:
    assert main(["track", source, "--box", BOX]) == 1
    out, err = capsys.readouterr()
    assert message in err and "secret" not in err and err.count("\n") == 1 and out == ""
    assert [path.name for path in clip.parent.iterdir()] == ["clip"]


def test_ctrl_c_on_a_camera(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sam2edge.cli.main",
        "track",
        "ADDRESS",
        "--box",
        BOX,
        "--masks",
        "masks",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with served(jpegs()) as command[4]:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 60
            while len(list(tmp_path.glob("masks/*.png"))) < 3 and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    report = json.loads(out)
    assert report["interrupted"] and report["num_frames"] >= 3
    assert len(read_video(tmp_path / "live.tracked.mp4")) == report["frames"][-1]["frame"] + 1


@pytest.mark.usefixtures("clip", "fake")
def test_repeated_boxes_are_several_objects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "clip", "--box", BOX, "--box", "10,12,30,30", "--point", "60,50", "--json"]) == 0
    assert [found["object"] for found in _json(capsys)["frames"][0]["objects"]] == [1, 2, 3]


@pytest.mark.usefixtures("clip", "fake")
def test_json_lines_come_while_it_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[int] = []
    track = VideoTracker.track

    def count(self: VideoTracker, frame: np.ndarray) -> object:
        printed.append(len(capsys.readouterr().out.splitlines()))
        return track(self, frame)

    monkeypatch.setattr(VideoTracker, "track", count)
    assert main(["track", "clip", "--box", BOX, "--jsonl"]) == 0
    assert printed == [1] * 5  # each frame was told before the next one was tracked
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert (line["frame"], line["seconds"], line["objects"][0]["object"]) == (5, 0.2, 1)
    assert err.startswith("6 frames, 1 objects")
    assert main(["track", "clip", "--box", BOX, "--json", "--jsonl"]) == 2


def test_ids_and_scores_are_drawn() -> None:
    masks = np.zeros((1, 60, 80), bool)
    masks[0, 20:50, 10:60] = True
    numbers, logits = np.ones(1, np.float32), np.zeros((1, 4, 4), np.float32)
    frame = Frame(0, bright_square(8), 0)
    drawn = draw_result(frame, TrackResult(0, (7,), masks, numbers, numbers, logits))
    assert (drawn != draw_masks(frame.pixels, masks, colors=[distinct_color(7)])).any()
