"""Cameras and streams: one served here over HTTP, one over RTSP, and those that are not there."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.frame import Frame
from sam2edge.video.reconnect import Reconnecting
from sam2edge.video.sources import choose, network, pyav
from sam2edge.video.sources.choose import open_source
from sam2edge.video.sources.v4l2 import open_camera
from tests.fake_backend import bright_square
from tests.mjpeg_server import announce_size, jpegs, served
from tests.rtsp_server import rtsp_camera, wait_until


@pytest.fixture(params=["LiveCapture", "AvStream"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "AvStream":
        pytest.importorskip("av")
    monkeypatch.setattr(choose, "_has_pyav", lambda: request.param == "AvStream")
    return request.param


def test_a_network_camera(decoder: str) -> None:
    with served(jpegs()) as address:
        source = open_source(address)
        frames = list(itertools.islice(source, 5))
        source.close()
    assert type(source).__name__ == decoder
    assert [frame.pixels.shape for frame in frames] == [(60, 80, 3)] * 5
    assert [frame.index for frame in frames] == list(range(5))
    assert abs(time.time_ns() - frames[-1].time_ns) < 30e9
    assert (source.num_frames, source.live) == (None, True)


def test_a_camera_whose_stream_ends_is_an_error_after_its_frames(decoder: str) -> None:
    with served(jpegs(30)) as address:
        source = open_source(address)
        seen: list[Frame] = []
        with pytest.raises(Sam2EdgeError, match=r"stopped giving frames.*http://127"):
            seen.extend(source)  # extend keeps what came before
        source.close()
    assert seen


def test_frames_that_change_their_size_come_at_the_first_one(decoder: str) -> None:
    wide = cv2.imencode(".jpg", bright_square(3, size_hw=(60, 100)))[1].tobytes()
    with served(itertools.chain(jpegs(20), itertools.repeat(wide, 20))) as address:
        source = open_source(address)
        seen: list[Frame] = []
        with pytest.raises(Sam2EdgeError, match="stopped giving frames"):
            seen.extend(source)
        source.close()
    assert {frame.pixels.shape for frame in seen} == {(60, 80, 3)}
    assert len(seen) > 20


def test_small_pictures_that_announce_a_huge_size_are_not_decoded(decoder: str) -> None:
    huge = announce_size(next(jpegs()), 16_000)
    with served(itertools.repeat(huge, 40)) as address:
        source = open_source(address)
        # OpenCV's FFmpeg may see that there is too little for such a picture, and gives none.
        with pytest.raises(Sam2EdgeError, match=r"frames are too large.*16000x16000 in http://127|gave no frame"):
            next(iter(source))
        source.close()


def test_a_huge_picture_in_mid_stream_is_left_out() -> None:
    pytest.importorskip("av")
    huge = announce_size(next(jpegs()), 16_000)
    with served(itertools.chain(jpegs(20), [huge], jpegs(20))) as address:
        source = pyav.AvStream(address)
        seen: list[Frame] = []
        with pytest.raises(Sam2EdgeError, match="stopped giving frames"):
            seen.extend(source)
        source.close()
    assert len(seen) > 30 and {frame.pixels.shape for frame in seen} == {(60, 80, 3)}


def test_rtsp(decoder: str) -> None:
    with rtsp_camera() as address:
        source = open_source(address)
        frames = list(itertools.islice(source, 10))
        source.close()
    assert [frame.pixels.shape for frame in frames] == [(120, 160, 3)] * 10
    assert max(int(frame.pixels.max()) for frame in frames) > 150  # the ball
    assert abs(time.time_ns() - frames[-1].time_ns) < 30e9


def test_an_rtsp_server_that_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(pyav, "TIMEOUT_SECONDS", 2.0)
    losses: list[tuple[str, float]] = []
    with rtsp_camera() as address:
        first = open_source(address)
        source = Reconnecting(first, lambda: open_source(address), lambda e, pause: losses.append((e.problem, pause)))
        frames = iter(source)
        indices = [next(frames).index for _ in range(5)]
    with rtsp_camera(int(address.rpartition(":")[2].partition("/")[0])):
        while not losses:
            indices.append(next(frames).index)
        indices += [next(frames).index for _ in range(5)]
        source.close()
        assert list(frames) == []
    assert indices == list(range(len(indices)))
    assert losses[0] == ("source stopped giving frames", 0.5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/dev/no-such-camera", "camera cannot be opened.*no /dev/no-such-camera"),
        ("97", "camera cannot be opened.*no /dev/video97"),
        ("97?width=0", "option 'width' cannot be used"),
        ("97?format=MJPEG", "format cannot be used.*four letters"),
        ("http://127.0.0.1:9/none", "stream cannot be opened"),
        ("rtsp://user:secret@127.0.0.1:9/none", "stream cannot be opened.*rtsp://127.0.0.1:9/none"),
        ("rtsp://", "address is incomplete"),
    ],
)
def test_what_cannot_be_opened(source: str, message: str, decoder: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        open_source(source)
    assert "secret" not in str(raised.value)


def test_a_server_that_never_answers_does_not_hang(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def silence() -> Iterator[bytes]:
        time.sleep(8)
        yield b""

    monkeypatch.setattr(network, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(pyav, "TIMEOUT_SECONDS", 0.5)
    started = time.monotonic()
    with served(silence()) as address, pytest.raises(InvalidInputError, match="cannot be opened"):
        open_source(address)
    assert time.monotonic() - started < 6


def test_a_real_device() -> None:
    """A camera of v4l2loopback's, which shows what GStreamer puts into it."""
    names = Path("/sys/devices/virtual/video4linux").glob("video*")
    device = next((f"/dev/{path.name}" for path in sorted(names) if os.access(f"/dev/{path.name}", os.W_OK)), None)
    if device is None or shutil.which("gst-launch-1.0") is None:
        pytest.skip("needs v4l2loopback in the kernel (modprobe v4l2loopback) and gst-launch-1.0")
    picture = "video/x-raw,format=YUY2,width=160,height=120,framerate=25/1"
    command = f"gst-launch-1.0 -q videotestsrc pattern=ball is-live=true ! {picture} ! v4l2sink device={device}"
    with subprocess.Popen(command.split(), stderr=subprocess.DEVNULL) as camera:
        try:
            wait_until(lambda: cv2.VideoCapture(device, cv2.CAP_V4L2).read()[0])
            source = open_source(f"{device}?width=160&height=120")
            frames = list(itertools.islice(source, 10))
            source.close()
        finally:
            camera.kill()
    assert [frame.pixels.shape for frame in frames] == [(120, 160, 3)] * 10
    assert max(int(frame.pixels.max()) for frame in frames) > 150  # the ball


class _Capture:
    """A camera of OpenCV's that gives three frames and is unplugged then."""

    def __init__(self, *_: object) -> None:
        self.left = 3
        self.settings: dict[int, float] = {}

    def isOpened(self) -> bool:
        return True

    def set(self, prop: int, value: float) -> bool:
        self.settings[prop] = value
        return True

    def get(self, prop: int) -> float:
        return (time.monotonic() - 0.5) * 1000 if prop == cv2.CAP_PROP_POS_MSEC else self.settings.get(prop, -1.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, bright_square(5)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.left = 0


def test_a_camera_that_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Capture)
    source = open_camera("0")
    seen: list[Frame] = []
    assert source.fps == 25.0
    with pytest.raises(Sam2EdgeError, match="stopped giving frames"):
        seen.extend(source)
    assert len(seen) == 3
    monkeypatch.setattr(_Capture, "read", lambda self: (False, None))
    with pytest.raises(Sam2EdgeError, match="gave no frame"):
        list(open_camera("0"))


def test_a_camera_is_asked_for_its_format_and_gives_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Capture)
    source = open_camera("/dev/video2?width=1280&height=720&fps=60&format=MJPG")
    settings = source._capture.settings  # type: ignore[attr-defined]
    assert settings == {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"),
        cv2.CAP_PROP_FRAME_WIDTH: 1280,
        cv2.CAP_PROP_FRAME_HEIGHT: 720,
        cv2.CAP_PROP_FPS: 60,
    }
    assert next(iter(settings)) == cv2.CAP_PROP_FOURCC
    assert source.fps == 60
    age = time.time_ns() - next(iter(source)).time_ns
    assert 0.4e9 < age < 1.5e9  # the exposure, not the arrival
