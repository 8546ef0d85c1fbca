"""Results as JSON lines, as a bag and as a stream; from the command line, with the times of the source."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.automodel import AutoModel
from sam2edge.cli.main import main
from sam2edge.datatypes import TrackResult
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.choose_sink import open_result_sink
from sam2edge.video.frame import Frame
from sam2edge.video.sources.choose import open_source
from tests.fake_backend import bright_square, fake_model
from tests.rtsp_server import rtsp_recorder, wait_until


def frame_and_result(index: int, ids: tuple[int, ...] = (3,)) -> tuple[Frame, TrackResult]:
    masks = np.zeros((len(ids), 60, 80), bool)
    masks[:, 10:40, 5 + index : 35 + index] = True
    scores = np.full(len(ids), 0.5, np.float32)
    logits = np.zeros((len(ids), 4, 4), np.float32)
    result = TrackResult(index, ids, masks, scores, scores, logits)
    return Frame(index, bright_square(5 + index), 10**9 + index * 40_000_000), result


def test_json_lines(tmp_path: Path) -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    sink = open_result_sink(str(tmp_path / "out.jsonl"), 25)
    sink.write(Frame(0, bright_square(0), 7), None)
    frame, result = frame_and_result(4)
    sink.write(frame, result)
    assert not (tmp_path / "out.jsonl").exists()
    assert sink.close() == tmp_path / "out.jsonl"
    sink.discard()
    first, second = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert first == {"frame": 0, "time_ns": 7, "objects": []}
    (found,) = second["objects"]
    assert (second["time_ns"], found["object"], found["box"]) == (frame.time_ns, 3, [9, 10, 39, 40])
    assert np.array_equal(mask_tools.decode(found["mask"]), result.masks[0])
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("ending", ["jsonl", "mcap", "mp4"])
def test_what_is_discarded_leaves_nothing(tmp_path: Path, ending: str) -> None:
    sink = open_result_sink(str(tmp_path / f"out.{ending}"), 25)
    sink.write(*frame_and_result(0))
    sink.discard()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInputError):
        open_result_sink(str(tmp_path), 25)


def test_a_bag_round_trips_the_times_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rosbags")
    from sam2edge.video.ros_images import image_fields
    from tests.video.sources.test_bag import ROS2, header, write_bag

    stamps = [5_000_000_123, 6_000_000_456, 5_500_000_789, 2 * 10**18 + 1]  # one goes back
    kind = ROS2.types["sensor_msgs/msg/Image"]
    images = [kind(header=header(ROS2, stamp), **image_fields(bright_square(5 + n))) for n, stamp in enumerate(stamps)]
    write_bag(tmp_path / "run", "mcap", {"/camera": images})
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: fake_model())
    monkeypatch.chdir(tmp_path)
    assert main(["track", "bag://run?topic=/camera", "--box", "4,9,36,41", "--out", "masks.mcap"]) == 0, (
        capsys.readouterr()
    )
    frames = list(open_source("bag://masks.mcap"))
    assert [frame.time_ns for frame in frames] == stamps
    for number, frame in enumerate(frames):
        assert set(np.unique(frame.pixels)) == {0, 1}
        assert np.abs(frame.pixels[..., 0].astype(bool) ^ (bright_square(5 + number)[..., 0] > 0)).mean() < 0.08
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.mcap", "run"]


def test_objects_that_do_not_fit_a_label_image(tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    sink = open_result_sink(str(tmp_path / "out.mcap"), 25)
    with pytest.raises(InvalidInputError, match=r"1\.\.255"):
        sink.write(*frame_and_result(0, (256,)))
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_stream_reaches_an_rtsp_server(tmp_path: Path) -> None:
    pytest.importorskip("av")
    target = tmp_path / "received.mkv"
    with rtsp_recorder(target) as address:
        sink = open_result_sink(address, 25)
        for index in range(40):
            sink.write(*frame_and_result(index % 30))
            time.sleep(0.01)
        assert sink.close() is None
        sink.discard()
        wait_until(lambda: target.exists() and target.stat().st_size > 1000)
        time.sleep(0.5)
    there, picture = cv2.VideoCapture(str(target)).read()
    assert there and picture.shape == (60, 80, 3)
    assert picture[20:30, 15:30, 0].mean() > picture[20:30, 15:30, 2].mean() + 40  # tinted


def test_a_stream_that_nobody_takes() -> None:
    pytest.importorskip("av")
    sink = open_result_sink("rtsp://me:secret@127.0.0.1:9/x", 25)  # FFmpeg connects with the first frame
    with pytest.raises(Sam2EdgeError, match="stream was cut off") as raised:
        sink.write(*frame_and_result(0))
    sink.discard()
    assert "secret" not in str(raised.value)
