"""Pipelines through gi, and the layouts of memory that they give."""

from __future__ import annotations

import itertools
import sys
import time

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.frame import Frame
from sam2edge.video.sources import gstreamer
from sam2edge.video.sources.choose import open_source
from sam2edge.video.sources.gstreamer import to_bgr


@pytest.fixture
def gst(monkeypatch: pytest.MonkeyPatch) -> None:
    """gi, which is often the system Python's alone."""
    if "gi" not in sys.modules:
        monkeypatch.setattr(sys, "path", [*sys.path, "/usr/lib/python3/dist-packages"])
    try:
        gstreamer._load_gst()
    except (ImportError, ValueError) as error:
        pytest.skip(f"no GStreamer for this Python (python3-gi, gir1.2-gst-plugins-base-1.0): {error}")


@pytest.mark.parametrize("layout", ["NV12", "I420", "BGR", "RGB", "BGRx", "YUY2", "UYVY"])
def test_a_live_pipeline_in_each_layout(gst: None, layout: str) -> None:
    source = open_source(
        f"gst://videotestsrc is-live=true ! video/x-raw,format={layout},width=162,height=121,framerate=50/1"
        ",colorimetry=bt601"
    )
    frames = list(itertools.islice(source, 4))
    now = time.time_ns()
    source.close()
    assert source.fps == 50
    assert [frame.pixels.shape for frame in frames] == [(121, 162, 3)] * 4
    bars = frames[0].pixels[20, 11:150:23].astype(int)  # the colour bars of SMPTE, blue first
    expected = [(255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 0, 255), (255, 0, 0)]
    assert np.abs(bars - expected).max() < 40
    steps = np.diff([frame.time_ns for frame in frames])
    assert (steps > 0).all() and 0 <= now - frames[-1].time_ns < 5e9


def test_a_pipeline_that_ends_is_an_error_after_its_frames(gst: None) -> None:
    source = open_source("videotestsrc num-buffers=3 ! video/x-raw,width=64,height=48 ! appsink")
    seen: list[Frame] = []
    with pytest.raises(Sam2EdgeError, match="stopped giving frames"):
        seen.extend(source)
    source.close()
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("nonesuch ! appsink", "nonesuch"),
        ("videotestsrc ! fakesink", "could not link"),
        ("filesrc location=/none ! jpegdec", "(?i)no such file|not found|none"),
        ("audiotestsrc", "could not link|not-negotiated|no frame|negotiat"),
        ("!", "GStreamer pipeline cannot be opened"),
        ("", "GStreamer pipeline cannot be opened"),
    ],
)
def test_pipelines_that_cannot_be_used(gst: None, monkeypatch: pytest.MonkeyPatch, pipeline: str, message: str) -> None:
    monkeypatch.setattr(gstreamer, "TIMEOUT_SECONDS", 2.0)
    with pytest.raises(InvalidInputError, match=message):
        gstreamer.open_pipeline(pipeline)


def test_without_gstreamer_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(gstreamer, "_load_gst", missing)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "GStreamer:   NO")
    with pytest.raises(InvalidInputError, match="apt install python3-gi"):
        open_source("videotestsrc ! appsink")


def test_padded_rows_and_odd_sizes() -> None:
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    yuv = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    luma, u, v = yuv[:48], yuv[48:60].reshape(24, 32), yuv[60:].reshape(24, 32)
    interleaved = np.stack([u, v], -1).reshape(24, 64)
    stride = 80
    data = np.full(stride * 48 + 16 + stride * 24, 77, np.uint8)
    for row in range(47):
        data[row * stride : row * stride + 64] = luma[row]
    start = stride * 48 + 16
    for row in range(24):
        data[start + row * stride : start + row * stride + 64] = interleaved[row]
    whole = cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR_I420)
    found = to_bgr(data, "NV12", (47, 63), [stride, stride], [0, start])
    assert found.shape == (47, 63, 3)
    assert np.array_equal(found, whole[:47, :63])
