"""No command but `pull` opens a network connection, and none writes outside the folders it was given."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundle.small_bundle import make_bundle

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

    def run(*arguments: object, status: int = 0, visit: str = "") -> list[str]:
        log = tmp_path / "strace.log"
        calls = ["-f", "-qq", "-e", "trace=%network,openat,mkdir", "-o", str(log)]
        command = [strace, *calls, sys.executable, "-m", "sam2edge.cli.main", *map(str, arguments)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=work, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                errors = _visit(process, visit) if visit else ""
                errors += process.communicate(timeout=300)[1]
            finally:
                process.kill()
        assert process.returncode == status, errors
        assert "[Telemetry]" not in errors
        return log.read_text(errors="replace").splitlines()

    return run


def _visit(process: subprocess.Popen[str], path: str) -> str:
    """Asks the server for `path` once it says where it is, and ends it; what it said."""
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"open (http://\S+)/", line)
    assert found is not None, line
    with urllib.request.urlopen(found[1] + path, timeout=60) as answer:
        assert answer.status == 200
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGINT)
    return line


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


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("models list", 0),
        ("models verify", 0),
        ("--version", 0),
        ("completion bash", 0),
        ("doctor", 0),
        ("bench --model micro --rounds 3", 0),
        ("build tiny", 1),  # no GPU here, and no graphs
    ],
)
def test_the_other_commands_reach_nobody(traced: Traced, arguments: str, status: int) -> None:
    assert [line for line in traced(*arguments.split(), status=status) if _NETWORK.match(line)] == []


def test_a_bundle_is_verified_and_installed_with_nobody_asked(
    traced: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    for arguments in (("verify", bundle), ("install", bundle, "--target", tmp_path / "packages")):
        assert [line for line in traced("bundle", *arguments) if _NETWORK.match(line)] == []
    assert (tmp_path / "packages" / "sam2edge").is_dir()


def test_serve_listens_on_this_machine_and_reaches_nobody(traced: Traced) -> None:
    pytest.importorskip("uvicorn")
    lines = traced("serve", BUNNY, "--port", "0", visit="/healthz")
    bound = [line for line in lines if "bind(" in line and "AF_INET" in line]
    assert bound and all('inet_addr("127.0.0.1")' in line for line in bound)
    assert [line for line in lines if _NETWORK.match(line) and "socket(" not in line] == []


def _written_path(line: str) -> str | None:
    found = _WRITTEN.match(line)
    if found is None or "ENOENT" in line:
        return None
    folder, path = found[1], found[2] if found[2] is not None else found[4]
    return path if folder in (None, "AT_FDCWD") else f"/descriptor {folder}/{path}"
