"""Photographs and cut-outs to train on: what lies in the folder that the commands are given.

`clothing` and `grocery` hold photographs (.jpg), `cutouts_*` objects with alpha (.webp). Every tenth photograph is held
out: it is never trained on.
"""

from __future__ import annotations

from pathlib import Path

PHOTO_KINDS = ("clothing", "grocery")
_HELD_OUT_EVERY = 10


def list_photos(folder: Path, held_out: bool = False) -> list[Path]:
    """The photographs to train on, or those that are held out, sorted."""
    found = []
    for kind in PHOTO_KINDS:
        every = sorted((folder / kind).glob("*.jpg"))
        found += [f for i, f in enumerate(every) if (i % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1) == held_out]
    if not found:
        raise FileNotFoundError(f"{folder} has no photographs in {' or '.join(PHOTO_KINDS)}")
    return found


def list_cutouts(folder: Path) -> list[Path]:
    """Objects with alpha, of all kinds, sorted."""
    return sorted(folder.glob("cutouts_*/*.webp"))
