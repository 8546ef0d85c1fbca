"""Live sources on a stream served here, on files played at their rate, and on cameras that are not there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video import live
from sam2edge.video.live import LiveCapture, Paced, is_live, open_live, without_password
from sam2edge.video.sources import VideoFile
from tests.fake_backend import bright_square
from tests.mjpeg_server import jpegs, served


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("0", True),
        ("/dev/video0", True),
        ("rtsp://camera/stream", True),
        ("HTTP://camera/x.mjpg", True),
        ("videotestsrc ! appsink", True),
        ("clip.mp4", False),
        ("none.mp4", False),
        ("12", False),
        ("a ! b.mp4", False),
    ],
)
def test_what_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "12", "a ! b.mp4"):
        Path(name).touch()
    assert is_live(source) == expected


def test_a_network_camera() -> None:
    with served(jpegs()) as address:
        source = open_live(address)
        frames = list(itertools.islice(source, 5))
        source.close()
    assert [frame.shape for frame in frames] == [(60, 80, 3)] * 5
    assert source.num_frames is None


def test_a_camera_whose_stream_ends_is_an_error_after_its_frames() -> None:
    with served(jpegs(30)) as address:
        source = open_live(address)
        seen: list[np.ndarray] = []
        with pytest.raises(Sam2EdgeError, match=r"stopped giving frames.*http://127"):
            seen.extend(source)  # extend keeps what came before
        source.close()


def test_frames_that_change_their_size_come_at_the_first_one() -> None:
    wide = cv2.imencode(".jpg", bright_square(3, size_hw=(60, 100)))[1].tobytes()
    with served(itertools.chain(jpegs(20), itertools.repeat(wide, 20))) as address:
        source = open_live(address)
        seen: list[np.ndarray] = []
        with pytest.raises(Sam2EdgeError, match="stopped giving frames"):
            seen.extend(source)
        source.close()
    assert {frame.shape for frame in seen} == {(60, 80, 3)}  # OpenCV scales them
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/dev/no-such-camera", "camera cannot be opened.*no /dev/no-such-camera"),
        ("97", "camera cannot be opened.*no /dev/video97"),
        ("http://127.0.0.1:9/none", "stream cannot be opened"),
        ("rtsp://user:secret@127.0.0.1:9/none", "stream cannot be opened.*rtsp://127.0.0.1:9/none"),
        ("videotestsrc ! appsink", "GStreamer"),
    ],
)
def test_what_cannot_be_opened(source: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        open_live(source)
    assert "secret" not in str(raised.value)


def test_a_server_that_never_answers_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def silence() -> Iterator[bytes]:
        time.sleep(8)
        yield b""

    monkeypatch.setattr(live, "TIMEOUT_SECONDS", 0.5)
    started = time.monotonic()
    with served(silence()) as address, pytest.raises(InvalidInputError, match="cannot be opened"):
        open_live(address)
    assert time.monotonic() - started < 6


class _Capture:
    """A camera of OpenCV's that gives three frames and is unplugged then."""

    def __init__(self, *_: object) -> None:
        self.left = 3

    def isOpened(self) -> bool:
        return True

    def get(self, prop: int) -> float:
        return -1.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, bright_square(5)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.left = 0


def test_a_camera_that_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Capture)
    source = LiveCapture("0")
    seen: list[np.ndarray] = []
    assert source.fps == 25.0
    with pytest.raises(Sam2EdgeError, match="stopped giving frames"):
        seen.extend(source)
    monkeypatch.setattr(_Capture, "read", lambda self: (False, None))
    with pytest.raises(Sam2EdgeError, match="gave no frame"):
        list(LiveCapture("0"))


def test_a_file_is_played_at_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (80, 60))
    for number in range(5):
        writer.write(bright_square(number))
    writer.release()
    started = time.monotonic()
    assert len(list(Paced(VideoFile(path)))) == 5
    assert time.monotonic() - started >= 4 / 20


def test_passwords_are_not_told() -> None:
    assert without_password("rtsp://me:pa:ss@camera:554/a?b=c@d") == "rtsp://camera:554/a?b=c@d"
    assert without_password("clip@home.mp4") == "clip@home.mp4"
