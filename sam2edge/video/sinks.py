"""Results into files: a video that appears when it is finished and outlives a kill, and a folder of index PNGs."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.outputs import clear_abandoned, make_write_error, place, temporary_beside, try_output
from sam2edge.video.index_png import MAX_INDEX, encode_index_png, index_picture
from sam2edge.video.remux import remux

_RUNNING = ".sam2edge.mkv"
_LEAST_FREE_BYTES = 2**21  # what the writer holds back, and the end of a file


class VideoSink:
    """An MP4 file of frames of one size: H.264 where PyAV is installed, which browsers play, else MPEG-4 part 2.

    Both know even sizes alone: an odd frame gets its last row or column twice, so that none is lost.

    While it runs, frames go to a hidden Matroska file beside the target, which plays also when the process is killed:
    `rescue_videos` gives it a name then. `close` makes the target of it, `discard` removes it.
    """

    def __init__(self, path: Path, fps: float, replace: bool = False, sound_from: Path | None = None) -> None:
        """`replace` lets `close` write over what stands at `path`; without, a number is added to the name.

        `sound_from` is the video whose sound H.264 gets, as far as the frames go.

        Raises InvalidInputError where no video can be written there.
        """
        if path.suffix.lower() != ".mp4":
            raise InvalidInputError(
                "video cannot be written in this format", expected="a name ending in .mp4", got=str(path)
            )
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise InvalidInputError(
                "video cannot be written there", expected="a file in a folder that exists", got=str(path)
            )
        try_output(path)
        _require_room(path)
        self._path = path
        self._fps = fps
        self._replace = replace
        self._running = temporary_beside(path, ".mkv")
        self._held = self._running.open("xb")
        with contextlib.suppress(OSError):  # a network disk may know no locks
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._writer: Any = None
        self._sound_from = sound_from
        self._h264 = _find_h264()
        self._count = 0

    def write(self, frame: np.ndarray) -> None:
        """frame (H, W, 3) uint8, BGR. Raises Sam2EdgeError where the file cannot be begun, or the disk is full."""
        odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
        if odd_rows or odd_columns:
            frame = cv2.copyMakeBorder(frame, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE)
        if self._writer is None:
            height, width = frame.shape[:2]
            self._writer = self._open_writer((width, height))
            if self._writer is None:
                self.discard()
                raise Sam2EdgeError(
                    f"cannot write {self._path}",
                    expected="a folder that can be written, and an OpenCV with FFmpeg",
                    got=f"no video of {width}x{height}",
                    remedy="choose another folder, or write --masks alone",
                )
        _require_room(self._path)  # the writer itself does not tell of a full disk
        self._writer.write(frame)
        self._count += 1

    def close(self) -> Path | None:
        """Finishes the file and returns where it lies; None where no frame was written.

        Raises Sam2EdgeError where frames are missing in it; those that are there are kept, and it says where.
        """
        if self._writer is None:
            self.discard()
            return None
        self._writer.release()
        self._writer = None
        finished = temporary_beside(self._path, ".mp4")
        try:
            if self._h264 is not None:
                count = self._h264.remux_h264(self._running, finished, self._sound_from)
            else:
                count = remux(self._running, finished, self._fps)
            if not count:
                raise OSError(None, "no frame could be read back; is the disk full?")
            (path,) = place({finished: self._path}, self._replace)
        except OSError as error:
            raise self._failure(error.strerror or str(error), self._keep_running()) from error
        except BaseException:  # a second Ctrl-C
            self._keep_running()
            raise
        finally:
            finished.unlink(missing_ok=True)
            self.discard()
        if count < self._count:
            raise self._failure(f"{count} of {self._count} frames; is the disk full?", path)
        return path

    def discard(self) -> None:
        """Removes what was written; nothing where `close` came before."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._running.unlink(missing_ok=True)
        self._held.close()

    def _open_writer(self, size_wh: tuple[int, int]) -> Any:
        """What writes frames into the running file; None where nothing can."""
        if self._h264 is not None:
            with contextlib.suppress(*self._h264.FAILURES):  # an FFmpeg without an H.264 encoder
                return self._h264.H264Writer(self._running, self._fps, size_wh)
            self._h264 = None
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self._running), cv2.CAP_FFMPEG, fourcc, self._fps, size_wh)
        return writer if writer.isOpened() else None

    def _keep_running(self) -> Path | None:
        """The Matroska file under a name of its own, where it has a frame."""
        if not _plays(self._running):
            return None
        try:
            return place({self._running: self._path.with_suffix(".mkv")})[0]
        except OSError:
            return None

    def _failure(self, reason: str, kept: Path | None) -> Sam2EdgeError:
        where = "" if kept is None else f"; what could be written is in {kept}"
        return Sam2EdgeError(
            f"cannot write {self._path} whole",
            got=reason + where,
            remedy="choose a folder that can be written and has space left",
        )


def _find_h264() -> Any:
    """The module that writes H.264, or None without PyAV."""
    return None if importlib.util.find_spec("av") is None else importlib.import_module("sam2edge.video.h264")


def rescue_videos(folder: Path) -> list[Path]:
    """Gives a name to the videos in `folder` whose process was killed, and returns them; empty ones are removed."""
    rescued = []
    for path in sorted(folder.glob(f".*{_RUNNING}")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its process is still there
            if _plays(path):
                rescued += place({path: folder / "rescued.mkv"})
            else:
                path.unlink()
    clear_abandoned(folder)
    return rescued


def _plays(path: Path) -> bool:
    check = cv2.VideoCapture(str(path))
    plays: bool = check.read()[0]
    check.release()
    return plays


def _require_room(path: Path) -> None:
    disk = os.statvfs(path.absolute().parent)
    free = disk.f_bavail * disk.f_frsize
    if free < _LEAST_FREE_BYTES:
        raise Sam2EdgeError(
            f"the disk of {path} is full",
            expected=f"at least {_LEAST_FREE_BYTES} bytes free",
            got=free,
            remedy="make room, or name another folder",
        )


class MaskSink:
    """A folder of index PNGs, one a frame: 00000.png and on, as in the DAVIS data set."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        """`source` is the folder that frames are read from, into which no mask may go."""
        if folder.exists() and not folder.is_dir():
            raise InvalidInputError("masks cannot be written there", expected="a folder", got=f"file {folder}")
        if source is not None and folder.is_dir() and source.is_dir() and folder.samefile(source):
            raise InvalidInputError(
                "masks would go among the frames of the source",
                expected="another folder",
                got=str(folder),
                remedy="name a new folder with --masks",
            )
        if folder.is_dir() and next(folder.glob("*.png"), None) is not None:
            raise InvalidInputError(
                "masks would mix with those of an earlier run",
                expected="a folder without PNGs",
                got=str(folder),
                remedy="name another folder, or empty it",
            )
        try_output(folder / "00000.png", "--masks")
        self._folder = folder

    def write(
        self, frame_number: int, size_hw: tuple[int, int], object_ids: Sequence[int], masks: NDArray[np.bool_] | None
    ) -> Path:
        """Writes one frame, whole or not at all; masks (N, H, W) or None where nothing is followed yet."""
        outside = [object_id for object_id in object_ids if not 1 <= object_id <= MAX_INDEX]
        if outside:
            raise InvalidInputError("object id has no index", expected=f"1..{MAX_INDEX}", got=outside[0])
        picture = np.zeros(size_hw, np.uint8) if masks is None else index_picture(object_ids, masks)
        path = self._folder / f"{frame_number:05d}.png"
        temporary = temporary_beside(path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(encode_index_png(picture))
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise make_write_error(path, error) from error
        return path
