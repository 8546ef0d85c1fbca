"""Which reader a SOURCE gets. Each is imported when it is needed, for some need libraries that are not always there."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from sam2edge.errors import BackendUnavailableError, InvalidInputError
from sam2edge.video.frame import FrameSource
from sam2edge.video.pace import Paced
from sam2edge.video.sources.address import kind_of, without_password


def open_source(source: str | Path) -> FrameSource:
    """The frames of a file, folder, camera (0, /dev/video0), `csi://`, `rtsp://`, `http://`, `gst://` or `bag://`.

    docs/sources.md lists them with their options. A URL that turns out to be a file is played at its rate.

    Raises InvalidInputError where there is nothing, or nothing that can be read as frames; a live source has some ten
    seconds to answer.
    """
    source = str(source)
    kind = kind_of(source)
    if kind == "file":
        return _open_file(Path(source))
    if kind == "camera":
        return _reader("v4l2", "open_camera")(source)
    if kind in ("gst", "pipeline"):
        return _reader("gstreamer", "open_pipeline")(source.removeprefix("gst://"))
    if kind == "csi":
        return _reader("gstreamer", "open_pipeline")(_reader("csi", "csi_pipeline")(source))
    if kind == "bag":
        if importlib.util.find_spec("rosbags") is None:
            raise BackendUnavailableError(
                "bags cannot be read", expected="rosbags", got="none", remedy="pip install 'sam2edge[ros]'"
            )
        return _reader("bag", "BagImages")(source)
    if not source.partition("://")[2]:
        raise InvalidInputError(
            "address is incomplete", expected="as in rtsp://HOST/PATH", got=without_password(source)
        )
    stream = _reader("pyav", "AvStream")(source) if _has_pyav() else _reader("network", "open_stream")(source)
    return stream if stream.num_frames is None else Paced(stream)


def _open_file(path: Path) -> FrameSource:
    if path.is_dir():
        return _reader("files", "PictureFolder")(path)
    if not path.is_file():
        raise InvalidInputError(
            "source not found", expected="a video file or a folder of pictures", got=str(path), remedy="check the path"
        )
    return _reader("pyav", "AvFile")(path) if _has_pyav() else _reader("files", "VideoFile")(path)


def _has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None


def _reader(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"sam2edge.video.sources.{module}"), name)
