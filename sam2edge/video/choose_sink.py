"""Which sink a target gets. Those that need libraries which are not always there are imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from sam2edge.errors import BackendUnavailableError
from sam2edge.video.result_sink import JsonLines, OverlayVideo, ResultSink


def open_result_sink(target: str, fps: float, replace: bool = False, sound_from: Path | None = None) -> ResultSink:
    """FILE.mp4, FILE.jsonl, FILE.mcap or rtsp://... ; `replace` lets it write over a file that is there.

    An MP4 gets the sound of the video `sound_from`, where PyAV is installed.

    Raises InvalidInputError where nothing can be written there, BackendUnavailableError where a library is missing.
    """
    if target.startswith(("rtsp://", "rtsps://")):
        _require("av", "a stream cannot be sent", "video")
        push: ResultSink = importlib.import_module("sam2edge.video.rtsp_push").RtspPush(target, fps)
        return push
    path = Path(target)
    if path.suffix.lower() == ".jsonl":
        return JsonLines(path, replace)
    if path.suffix.lower() == ".mcap":
        _require("rosbags", "a bag cannot be written", "ros")
        bag: ResultSink = importlib.import_module("sam2edge.video.mask_bag").MaskBag(path, replace)
        return bag
    return OverlayVideo(path, fps, replace, sound_from)


def _require(library: str, problem: str, extra: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise BackendUnavailableError(problem, expected=library, got="none", remedy=f"pip install 'sam2edge[{extra}]'")
