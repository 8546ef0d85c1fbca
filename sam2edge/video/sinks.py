"""Results into files: a video that appears whole or not at all, and a folder of index PNGs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.index_png import MAX_INDEX, encode_index_png, index_picture


class VideoSink:
    """An MP4 file (MPEG-4 part 2) of frames of one size.

    MPEG-4 knows even sizes alone: an odd frame gets its last row or column twice, so that none is lost.

    Frames go to a temporary file beside the target: `close` makes it the target, `discard` removes it.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() != ".mp4":
            raise InvalidInputError(
                "video cannot be written in this format", expected="a name ending in .mp4", got=str(path)
            )
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise InvalidInputError(
                "video cannot be written there", expected="a file in a folder that exists", got=str(path)
            )
        self._path = path
        self._fps = fps
        self._temporary = path.with_name(f".{secrets.token_hex(8)}.mp4")
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """frame (H, W, 3) uint8, BGR. Raises Sam2EdgeError where the file cannot be begun."""
        odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
        if odd_rows or odd_columns:
            frame = cv2.copyMakeBorder(frame, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE)
        if self._writer is None:
            height, width = frame.shape[:2]
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._temporary), fourcc, self._fps, (width, height))
            if not self._writer.isOpened():
                self.discard()
                raise Sam2EdgeError(
                    f"cannot write {self._path}",
                    expected="a folder that can be written, and an OpenCV with MPEG-4",
                    got=f"no video of {width}x{height}",
                    remedy="choose another folder, or write --masks alone",
                )
        self._writer.write(frame)

    def close(self) -> None:
        """Finishes the file, if a frame was written. Raises Sam2EdgeError where it cannot be read back."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        check = cv2.VideoCapture(str(self._temporary))
        whole = check.read()[0]
        check.release()
        try:
            if not whole:  # the writer itself does not tell of a full disk
                raise OSError(None, "what was written cannot be read back; is the disk full?")
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise Sam2EdgeError(
                f"cannot write {self._path}",
                got=error.strerror or str(error),
                remedy="choose a folder that can be written and has space left",
            ) from error
        finally:
            self._temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes what was written; nothing where `close` came before."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._temporary.unlink(missing_ok=True)


class MaskSink:
    """A folder of index PNGs, one a frame: 00000.png and on, as in the DAVIS data set."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise InvalidInputError("masks cannot be written there", expected="a folder", got=f"file {folder}")
        if folder.is_dir() and next(folder.glob("*.png"), None) is not None:
            raise InvalidInputError(
                "masks would mix with those of an earlier run",
                expected="a folder without PNGs",
                got=str(folder),
                remedy="name another folder, or empty it",
            )
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
        temporary = self._folder / f".{secrets.token_hex(8)}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(encode_index_png(picture))
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise Sam2EdgeError(
                f"cannot write {path}",
                got=error.strerror or str(error),
                remedy="choose a folder that can be written and has space left",
            ) from error
        return path
