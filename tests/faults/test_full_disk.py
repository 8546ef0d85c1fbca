"""A disk that is really full: a small tmpfs that only the command sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.bundle.small_bundle import make_bundle
from tests.conftest import ROOT, read_video

SmallDisk = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def small_disk(tmp_path: Path) -> SmallDisk:
    """Runs a command in a folder on a disk of so many KiB; what is on it at the end lies in `kept` then."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o "size=$1k" tmpfs disk'
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "sh", "-c", mount, "sh", "64"], cwd=tmp_path, capture_output=True).returncode
    ):
        pytest.skip("needs unshare, and leave to mount a tmpfs in a namespace")
    script = f'{mount}; cd disk; shift; "$@"; status=$?; cp -r . ../kept; exit $status'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SAM2EDGE_HOME": str(tmp_path / "store")}

    def run(kib: int, *command: object) -> subprocess.CompletedProcess[str]:
        words = [*unshare, "sh", "-c", script, "sh", str(kib), *map(str, command)]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


SAM2EDGE = (sys.executable, "-m", "sam2edge")


def test_track_keeps_the_frames_so_far(small_disk: SmallDisk, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.mkdir()
    for number in range(30):
        noise = np.random.default_rng(number).integers(0, 256, (360, 480, 3), np.uint8)
        assert cv2.imwrite(str(clip / f"{number}.png"), noise)
    done = small_disk(4096, *SAM2EDGE, "track", clip, "--box", "8,10,38,40", "--every", "30")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line and "could be written is in clip.tracked.mkv" in line
    (video,) = (tmp_path / "kept").iterdir()
    assert video.name == "clip.tracked.mkv" and 1 <= len(read_video(video)) <= 30


def test_segment_leaves_nothing_half_written(small_disk: SmallDisk, tmp_path: Path) -> None:
    photo = ROOT / "examples" / "coins.png"
    done = small_disk(32, *SAM2EDGE, "segment", photo, "--point", "46,264")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_bundle_is_not_installed_in_part(
    small_disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    done = small_disk(8, sys.executable, "-I", "-S", bundle, "install", "--target", "packages", "--store", "store")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "no room to unpack" in line or "nothing of it is there" in line
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file() and ".locks" not in path.parts]
