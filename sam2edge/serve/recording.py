"""Recording on and off: the frames with what was found drawn onto them, as videos in one folder."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Any

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.serve.message import draw_step
from sam2edge.serve.session import Step
from sam2edge.video.sinks import VideoSink, rescue_videos

_MOST_WAITING = 8


class Recorder:
    """Writes a video at a time, in a thread of its own; frames that it is too slow for are left out and counted.

    Names are made here, of the time, and never come from a client. The video plays in the source's time: a frame is
    written once for each that the source gave since the last.
    """

    def __init__(self, folder: Path, fps: float, max_repeats: int = 250) -> None:
        self.folder = folder
        self._fps = fps
        self._max_repeats = max_repeats
        self._lock = threading.Lock()
        self._queue: queue.Queue[Step | None] | None = None
        self._thread: threading.Thread | None = None
        self._state: dict[str, Any] = {"recording": False, "file": None, "frames": 0, "left_out": 0, "problem": ""}

    @property
    def state(self) -> dict[str, Any]:
        """What is being recorded, or was recorded last."""
        return dict(self._state)

    def start(self) -> dict[str, Any]:
        """Begins a video. Raises Sam2EdgeError where none can be written; does nothing while one is being made."""
        with self._lock:
            if self._queue is not None:
                return self.state
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Sam2EdgeError(
                    "recording is not possible",
                    got=f"{self.folder}: {error.strerror}",
                    remedy="name another --recordings",
                ) from error
            rescue_videos(self.folder)
            path = self.folder / time.strftime("%Y%m%dT%H%M%SZ.mp4", time.gmtime())
            sink = VideoSink(path, self._fps)
            self._state = {"recording": True, "file": path.name, "frames": 0, "left_out": 0, "problem": ""}
            self._queue = queue.Queue(_MOST_WAITING)
            self._thread = threading.Thread(target=self._run, args=(self._queue, sink), name="sam2edge-recorder")
            self._thread.start()
            return self.state

    def stop(self) -> dict[str, Any]:
        """Finishes the video and waits for it."""
        with self._lock:
            if self._queue is not None and self._thread is not None:
                self._queue.put(None)
                self._thread.join()
                self._queue = self._thread = None
            return self.state

    def take(self, step: Step) -> None:
        """Takes a step where something is being recorded; never blocks."""
        waiting = self._queue
        if waiting is None:
            return
        try:
            waiting.put_nowait(step)
        except queue.Full:
            self._state["left_out"] += 1

    def list_files(self) -> list[dict[str, Any]]:
        """Name, bytes and time of each finished video, the newest first."""
        files = sorted(self.folder.glob("*.mp4"), reverse=True) if self.folder.is_dir() else []
        found = [(path, path.stat()) for path in files if not path.name.startswith(".")]
        return [{"file": p.name, "bytes": s.st_size, "modified": round(s.st_mtime)} for p, s in found]

    def find_file(self, name: str) -> Path:
        """The video of that name in the folder. Raises InvalidInputError for anything else, paths above all."""
        if name not in {entry["file"] for entry in self.list_files()}:
            raise InvalidInputError("no such recording", expected="a name from the list", got=name[:80])
        return self.folder / name

    def _run(self, steps: queue.Queue[Step | None], sink: VideoSink) -> None:
        last: Step | None = None
        try:
            while (step := steps.get()) is not None:
                if self._state["problem"]:
                    continue
                try:
                    gap = 1 if last is None else step.frame.index - last.frame.index
                    picture = draw_step(step)
                    for _ in range(min(gap, self._max_repeats)):  # 0 for a command on the same frame
                        sink.write(picture)
                        self._state["frames"] += 1
                    last = step
                except Sam2EdgeError as error:
                    self._state["problem"] = str(error)
            path = sink.close()
            self._state["file"] = None if path is None else path.name
        except Sam2EdgeError as error:
            self._state["problem"] = str(error)
        finally:
            sink.discard()
            self._state["recording"] = False
