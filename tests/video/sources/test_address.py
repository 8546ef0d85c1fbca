from __future__ import annotations

from pathlib import Path

import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.video.sources.address import is_live, kind_of, read_options, short_name, without_password
from sam2edge.video.sources.csi import csi_pipeline


@pytest.mark.parametrize(
    ("source", "kind", "live"),
    [
        ("0", "camera", True),
        ("0?width=640", "camera", True),
        ("/dev/video0", "camera", True),
        ("rtsp://camera/stream", "rtsp", True),
        ("HTTP://camera/x.mjpg", "http", True),
        ("csi://0", "csi", True),
        ("gst://videotestsrc", "gst", True),
        ("videotestsrc ! appsink", "pipeline", True),
        ("bag://run.mcap?topic=/camera", "bag", False),
        ("clip.mp4", "file", False),
        ("none.mp4", "file", False),
        ("0?", "camera", True),
        ("0?.mp4", "file", False),
        ("12", "file", False),
        ("a ! b.mp4", "file", False),
    ],
)
def test_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: str, live: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "12", "a ! b.mp4"):
        Path(name).touch()
    assert (kind_of(source), is_live(source)) == (kind, live)


def test_names_for_files() -> None:
    names = ["clips/run 1.mp4", "bag://x/run.mcap?topic=/a", "rtsp://camera/a.mp4", ".", "0"]
    assert [short_name(name) for name in names] == ["run 1", "run", "live", "video", "live"]


def test_passwords_are_not_told() -> None:
    assert without_password("rtsp://me:pa:ss@camera:554/a?b=c@d") == "rtsp://camera:554/a?b=c@d"
    assert without_password("clip@home.mp4") == "clip@home.mp4"


def test_options() -> None:
    known = {"width": int, "fps": float, "format": str}
    assert read_options("/dev/video0?width=64&fps=7.5&format=MJPG", known) == (
        "/dev/video0",
        {"width": 64, "fps": 7.5, "format": "MJPG"},
    )
    for query in (
        "size=3",
        "width=0",
        "width=-1",
        "width=a",
        "width=",
        "fps=nan",
        "fps=inf",
        "format=",
        "width=9999999999",
    ):
        with pytest.raises(InvalidInputError, match="option"):
            read_options(f"/dev/video0?{query}", known)


def test_csi_cameras() -> None:
    assert csi_pipeline("csi://1?width=1280&height=720&fps=60&flip=2") == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,format=NV12"
    )
    assert "sensor-id=0 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1 ! nvvidconv !" in csi_pipeline(
        "csi://0"
    )
    for source in ("csi://", "csi://front", "csi://0?width=1 ! fakesink", "csi://0 ! fakesink"):
        with pytest.raises(InvalidInputError, match=r"CSI camera|option"):
            csi_pipeline(source)
