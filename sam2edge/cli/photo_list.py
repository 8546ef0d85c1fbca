"""Lists and reads the photos for `sam2edge segment`: files, folders of files, standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sam2edge.cli.mask_files import FORMATS
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.photo import decode_photo, read_photo
from sam2edge.video.sources.files import VIDEO_SUFFIXES, list_pictures

STANDARD_INPUT = "-"


def list_photos(given: Sequence[str]) -> list[str]:
    """The photos named, and those of the folders named in the order of their names (2 before 10).

    Pictures in a folder that an earlier run wrote are left out. Raises InvalidInputError for a web address, a video,
    and a folder without photos.
    """
    found: list[str] = []
    for name in given:
        if re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE):
            raise InvalidInputError(
                "photos are not downloaded",
                expected="a file, a folder or -",
                got=name,
                remedy="download it first, or pipe it in: curl ADDRESS | sam2edge segment - ...",
            )
        path = Path(name)
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            raise InvalidInputError(
                "this is a video, not a photo",
                expected="a photo",
                got=name,
                remedy=f"sam2edge track {name} --box X1,Y1,X2,Y2",
            )
        if name != STANDARD_INPUT and path.is_dir():
            photos = [photo for photo in list_pictures(path) if Path(photo.stem).suffix[1:] not in FORMATS]
            if not photos:
                raise InvalidInputError(
                    "folder has no photos",
                    expected="JPEG, PNG, ... files",
                    got=name,
                    remedy="name a folder that holds photos, or the photos",
                )
            found += map(str, photos)
        else:
            found.append(name)
    return found


def read_given_photo(path: str) -> np.ndarray:
    """(H, W, 3) uint8, BGR. Raises InvalidInputError for anything but a photo."""
    if path == STANDARD_INPUT:
        data = sys.stdin.buffer.read() if sys.stdin is not None else b""
        if not data:
            raise InvalidInputError(
                "standard input is empty", expected="a photo's bytes", got="nothing", remedy="< photo.jpg"
            )
        return decode_photo(data, Path("standard input"))
    return read_photo(path)
