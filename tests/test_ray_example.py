"""examples/ray_batch.py on a Ray of this machine: 500 pictures, an actor that is killed, a run that goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.conftest import ROOT
from tests.fake_backend import bright_square
from tests.rtsp_server import wait_until

PICTURES, ACTORS = 500, 2
MARK = "SAM2EDGE_TEST_RUN"

# Every process of Ray's runs this first: the model is one of bookkeeping alone, and each actor leaves its number.
STARTUP = f"""
import os, sys
if any("default_worker" in word for word in sys.argv + sys.orig_argv):
    import importlib.abc, importlib.util, time
    from pathlib import Path
    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == "sam2edge.automodel":
                sys.meta_path.remove(self)
                spec = importlib.util.find_spec(name)
                run = spec.loader.exec_module
                def exec_module(module):
                    run(module)
                    from tests.fake_backend import fake_model
                    def from_pretrained(*_, **__):
                        model = fake_model()
                        segment = model.segment_images
                        model.segment_images = lambda *a, **k: time.sleep(0.01) or segment(*a, **k)
                        Path(os.environ["{MARK}_ACTORS"], str(os.getpid())).touch()
                        return model
                    module.AutoModel.from_pretrained = from_pretrained
                spec.loader.exec_module = exec_module
                return spec
    sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """500 pictures and a prompt for each, one of which is not there."""
    pytest.importorskip("ray.data", reason="needs pip install 'ray[data]'")
    prompts = {f"pictures/{number}.png": [[5, 5, 45, 45]] for number in range(PICTURES - 1)}
    (tmp_path / "pictures").mkdir()
    for number, photo in enumerate(prompts):
        assert cv2.imwrite(str(tmp_path / photo), bright_square(number % 40))
    (tmp_path / "boxes.json").write_text(json.dumps({**prompts, "pictures/missing.png": [[1, 2, 3, 4]]}))
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "sitecustomize.py").write_text(STARTUP)
    return tmp_path


@contextlib.contextmanager
def running(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """The example, with a Ray of its own, all processes of which are ended with it."""
    actors = folder / name
    actors.mkdir()
    place = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets have short names
    mark = uuid.uuid4().hex
    environment = {
        **os.environ,
        MARK: mark,
        f"{MARK}_ACTORS": str(actors),
        "HOME": place,
        "PYTHONPATH": f"{folder / 'startup'}:{ROOT}",
        "RAY_TMPDIR": place,
        "RAY_worker_niceness": "0",
        "RAY_ADDRESS": "local",
    }
    command = [sys.executable, str(ROOT / "examples" / "ray_batch.py"), "boxes.json", "results", str(ACTORS)]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)
        try:
            yield process
        finally:
            for number in _marked(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            process.wait(30)
            shutil.rmtree(place, ignore_errors=True)


def _marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _finish(folder: Path, name: str, process: subprocess.Popen[str]) -> str:
    status = process.wait(300)
    said = (folder / f"{name}.log").read_text()
    assert status == 0, said[-3000:]
    return said


def test_nothing_is_lost_when_an_actor_and_then_the_whole_run_are_killed(folder: Path) -> None:
    results = folder / "results"

    def done() -> int:
        return len(list(results.glob("*.json")))

    with running(folder, "first") as process:
        wait_until(lambda: done() >= 50 or process.poll() is not None, 300)
        actors = [int(path.name) for path in (folder / "first").iterdir()]
        assert 1 <= len(actors) <= ACTORS, (folder / "first.log").read_text()[-3000:]
        os.kill(actors[0], signal.SIGKILL)
        wait_until(lambda: done() >= 200 or process.poll() is not None, 300)
        assert process.poll() is None and 200 <= done() < PICTURES
    before = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    with running(folder, "second") as process:
        wait_until(lambda: done() >= len(before) + 50 or process.poll() is not None, 300)
        os.kill(int(next((folder / "second").iterdir()).name), signal.SIGKILL)
        said = _finish(folder, "second", process)
    assert f"{PICTURES - len(before)} photos segmented, {len(before)} were there" in said
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    found = [json.loads(path.read_text()) for path in results.glob("*.json")]
    assert len({entry["photo"] for entry in found}) == PICTURES
    assert [entry["photo"] for entry in found if "error" in entry] == ["pictures/missing.png"]
    assert all(len(entry["rle"]) == 1 and entry["areas"][0] > 0 for entry in found if "rle" in entry)
