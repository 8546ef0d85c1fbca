"""The real thing: a bundle for this machine, from the package index, into an empty environment with the network off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2

from tests.bundle.small_bundle import HERE
from tests.conftest import ROOT


def _no_network() -> list[str]:
    """A network namespace of its own where the system permits it; pip is told to use no index in any case."""
    allowed = subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0
    return ["unshare", "--net"] if allowed else []


def test_a_bundle_segments_a_photo_with_the_network_off(tmp_path: Path) -> None:
    bundle, env = tmp_path / "bundle.zip", tmp_path / "env"
    made = subprocess.run(
        [sys.executable, "-m", "sam2edge.cli.main", "bundle", "create", bundle, "--target", HERE.name, "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["size_bytes"] == bundle.stat().st_size

    clean = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:1"}
    clean["https_proxy"] = clean["http_proxy"]
    alone: dict[str, Any] = {"env": clean, "cwd": tmp_path, "capture_output": True, "text": True}
    command = [*_no_network(), sys.executable, "-I", "-S", str(bundle), "install", "--venv", str(env), "--isolated"]
    installed = subprocess.run(command, **alone)
    assert installed.returncode == 0, installed.stderr

    photo = str(ROOT / "examples" / "coins.png")
    program = [*_no_network(), str(env / "bin" / "sam2edge"), "segment", photo, "--point", "46,264", "--json"]
    segmented = subprocess.run(program, **alone)
    assert segmented.returncode == 0, segmented.stderr
    mask = cv2.imread(str(tmp_path / "coins.mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None and mask[264, 46] == 255 and mask[5, 5] == 0

    # The installed package gives the very wheel it came from, so that such a machine can make bundles too.
    again = "from pathlib import Path; from sam2edge.bundle.wheels import make_own_wheel; make_own_wheel(Path('.'))"
    packed = subprocess.run([env / "bin" / "python", "-c", again], **alone)
    assert packed.returncode == 0, packed.stderr
    name = next(tmp_path.glob("sam2edge-*.whl")).name
    with zipfile.ZipFile(bundle) as archive:
        (tmp_path / "first.whl").write_bytes(archive.read(f"wheels/{name}"))
    assert _contents(tmp_path / name) == _contents(tmp_path / "first.whl")


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}
