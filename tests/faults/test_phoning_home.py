"""No command but `pull` opens a network connection, and none writes outside the folders it was given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Traced = Callable[..., list[str]]
ROOT = Path(__file__).parent.parent.parent
COINS, BUNNY = ROOT / "examples" / "coins.png", ROOT / "examples" / "bunny.mp4"

# Of strace's lines: sockets that leave the machine, and files opened for writing with the path they were opened under.
_NETWORK = re.compile(r"^\d+ +(?:socket\(AF_INET6?|connect\(.*AF_INET6?|sendto\(.*AF_INET)")
_WRITTEN = re.compile(r'^\d+ +(?:openat\((\S+), "([^"]*)", [^)]*O_(?:WRONLY|RDWR)|(mkdir)\("([^"]*)", \d+\) += 0)')


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    """Runs a command under strace in a folder of its own with an empty home; gives what it did."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "true"], capture_output=True).returncode != 0:
        pytest.skip("needs strace, and leave to trace")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    environment |= {"HOME": str(home), "SAM2EDGE_HOME": str(tmp_path / "store")}

    def run(*arguments: object) -> list[str]:
        log = tmp_path / "strace.log"
        calls = ["-f", "-qq", "-e", "trace=%network,openat,mkdir", "-o", str(log)]
        command = [sys.executable, "-m", "sam2edge.cli.main", *map(str, arguments)]
        result = subprocess.run(
            [strace, *calls, *command], cwd=work, env=environment, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr
        assert "[Telemetry]" not in result.stderr
        return log.read_text(errors="replace").splitlines()

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", COINS, "--point", "46,264"),
        ("track", BUNNY, "--box", "100,60,222,228", "--every", "20", "--masks", "masks", "--json"),
    ],
    ids=["segment", "track"],
)
def test_the_main_commands_reach_nobody_and_write_nothing_elsewhere(
    traced: Traced, arguments: tuple[object, ...], tmp_path: Path
) -> None:
    lines = traced(*arguments)
    assert [line for line in lines if _NETWORK.match(line)] == []
    assert list((tmp_path / "home").rglob("*")) == []
    ours = (str(tmp_path), "/dev/", "/proc/")
    written = [found for line in lines if (found := _written_path(line)) is not None]
    assert any(path.endswith((".sam2edge", ".mkv")) for path in written)  # the lines are read rightly
    assert [path for path in written if path.startswith("/") and not path.startswith(ours)] == []


@pytest.mark.parametrize("arguments", [("models", "list"), ("models", "verify"), ("--version",)], ids=" ".join)
def test_the_small_commands_reach_nobody(traced: Traced, arguments: tuple[str, ...]) -> None:
    assert [line for line in traced(*arguments) if _NETWORK.match(line)] == []


def _written_path(line: str) -> str | None:
    found = _WRITTEN.match(line)
    if found is None or "ENOENT" in line:
        return None
    folder, path = found[1], found[2] if found[2] is not None else found[4]
    return path if folder in (None, "AT_FDCWD") else f"/descriptor {folder}/{path}"
