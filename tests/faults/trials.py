"""One hostile or unlucky input each. A trial ends well, or with an error of ours; anything else is a fault."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np

from sam2edge.bundle.archive import extract, read_bundle, write_bundle
from sam2edge.cli.prompt_file import read_prompt_file
from sam2edge.errors import Sam2EdgeError
from sam2edge.imaging.photo import read_photo
from sam2edge.outputs import write_files
from sam2edge.store import paths
from sam2edge.store.importer import read_safetensors_shapes
from sam2edge.store.integrity import check_unchanged
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.store.pull import pull_checkpoint
from sam2edge.tracker import VideoTracker
from sam2edge.video.sinks import VideoSink, rescue_videos
from sam2edge.video.sources.choose import open_source
from tests.conftest import ROOT
from tests.fake_backend import bright_square, fake_model
from tests.file_server import FileServer

Trial = Callable[[Random, Path], None]
"""Raises AssertionError where something was wrong without an error; an error of ours is a clean end."""

_FORMATS = [f for f in (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pfm", ".hdr", ".gif", ".avif")]
_EXAMPLES = [ROOT / "examples" / "coffee.png", ROOT / "examples" / "coins.png"]


def damage(data: bytes, random: Random) -> bytes:
    """Cut short, bytes changed (often in the header), a part twice, or a part of zeros."""
    changed = bytearray(data)
    kind = random.randrange(4)
    if kind == 0:
        return bytes(changed[: random.randrange(len(changed) + 1)])
    for _ in range(random.choice((1, 2, 8, 64))):
        end = random.choice((32, 512, len(changed)))
        changed[random.randrange(min(end, len(changed)))] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
    start = random.randrange(len(changed))
    length = random.randrange(1, 4096)
    if kind == 2:
        changed[start:start] = changed[start : start + length]
    elif kind == 3:
        changed[start : start + length] = bytes(min(length, len(changed) - start))
    return bytes(changed)


def picture(random: Random, folder: Path) -> None:
    suffix = random.choice(_FORMATS)
    size_hw = random.choice(((1, 1), (3, 200), (60, 80)))
    pixels = np.random.default_rng(random.randrange(2**32)).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    encoded = pixels / np.float32(255) if suffix in (".pfm", ".hdr") or random.random() < 0.1 else pixels
    if not cv2.haveImageWriter(f"a{suffix}"):
        return
    path = folder / f"a{suffix}"
    path.write_bytes(damage(cv2.imencode(suffix, encoded)[1].tobytes(), random))
    found = read_photo(path)
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size


def video(random: Random, folder: Path) -> None:
    path = folder / "a.mp4"
    path.write_bytes(damage((ROOT / "examples" / "bunny.mp4").read_bytes(), random))
    source = open_source(path)
    try:
        for number, frame in enumerate(source):
            assert frame.pixels.dtype == np.uint8 and frame.pixels.ndim == 3
            if number > 30:
                break
    finally:
        source.close()


def _anything(random: Random, depth: int = 0) -> Any:
    """A JSON value of any kind, numbers and lists of numbers most of all."""
    kind = random.randrange(9 if depth < 4 else 6)
    if kind < 3:
        return random.choice((0, 1, -1, 0.5, 1e400, -1e400, 10**400, 2**63, 40, 300, random.uniform(-1e3, 1e3)))
    if kind < 6:
        return random.choice((None, True, "", "x", "\x1b[2J", "\ud800"))
    if kind == 8:
        return {random.choice(("x", "points", "frame")): _anything(random, depth + 1)}
    return [_anything(random, depth + 1) for _ in range(random.randrange(5))]


def prompts(random: Random, folder: Path) -> None:
    def entry() -> Any:
        if random.random() < 0.1:
            return _anything(random)
        plain = {"frame": random.randrange(9), "object": 1, "box": [1, 1, 30, 30], "points": [[5, 5]], "labels": [1]}
        kept = {name: value for name, value in plain.items() if random.random() < 0.8}
        changed = random.choice([*plain, "other"])
        return {**kept, changed: _anything(random)} if random.random() < 0.8 else kept

    path = folder / "prompts.json"
    path.write_text(json.dumps([entry() for _ in range(random.randrange(4))]), encoding="utf-8")
    tracker = VideoTracker(fake_model())
    frame = bright_square(8)
    for prompt in read_prompt_file(path):
        prompt.check(frame.shape[0], frame.shape[1])
        try:
            found = tracker.prompt(frame, prompt.object_id, **prompt.arguments)
        except Sam2EdgeError as error:
            raise AssertionError(f"{prompt} passed the check and was refused later: {error}") from error
        assert np.isfinite(found.scores).all()


def session(random: Random, folder: Path) -> None:
    tracker, path = VideoTracker(fake_model()), folder / "a.session"
    tracker.prompt(bright_square(8), 1, box=[8, 10, 38, 40])
    for shift in range(3):
        tracker.track(bright_square(8 + shift))
    tracker.save(path)
    path.write_bytes(damage(path.read_bytes(), random))
    other = VideoTracker(fake_model())
    other.load(path)
    assert np.isfinite(other.track(bright_square(12)).scores).all()


def weights(random: Random, folder: Path) -> None:
    names = ["".join(random.choices(string.ascii_lowercase, k=5)) for _ in range(4)]
    entries = {n: {"dtype": "F32", "shape": [2, 3], "data_offsets": [24 * i, 24 * i + 24]} for i, n in enumerate(names)}
    header = damage(json.dumps(entries).encode(), random) if random.random() < 0.7 else json.dumps(entries).encode()
    length = random.choice((len(header), len(header), 2**63, 0))
    path = folder / "a.safetensors"
    path.write_bytes(damage(length.to_bytes(8, "little") + header + bytes(96), random))
    shapes = read_safetensors_shapes(path)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) <= path.stat().st_size


def stored_file(random: Random, folder: Path) -> None:
    """A byte of a graph in the store is another: it must not be opened."""
    os.environ["SAM2EDGE_HOME"] = str(folder)
    path = folder / "graphs" / "sam2.1_hiera_tiny" / "512-fp32" / "image_encoder.onnx"
    path.parent.mkdir(parents=True)
    content = bytearray(random.randbytes(random.randrange(1, 5000)))
    path.write_bytes(content)
    write_manifest(path, describe_file(path, graph="image_encoder"))
    check_unchanged(path)
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    try:
        check_unchanged(path)
    except Sam2EdgeError:
        return
    raise AssertionError("a changed graph was let pass")


def server(random: Random, folder: Path) -> None:
    """What comes is right or is not kept, and what came before is not lost to an answer that is no part of it."""
    os.environ["SAM2EDGE_HOME"] = str(folder)
    content = random.randbytes(random.randrange(1, 200_000))
    before = content[: random.randrange(len(content))] if random.random() < 0.5 else b""
    vices: dict[str, Any] = {
        "status": random.choice((200, 200, 200, 204, 206, 301, 403, 404, 416, 500, 503)),
        "drop_after": random.choice((None, None, 0, 1, 1000, 50_000)),
        "ranges": random.random() < 0.7,
        "etag": random.choice(('"abc"', "W/weak", "", "\x7f")),
        "stated_length": random.choice((None, None, None, 1, len(content) * 2)),
        "no_length": random.random() < 0.3,
        "wrong_range": random.random() < 0.2,
        "headers": random.choice(({}, {}, {"Content-Type": "text/html"}, {"Content-Encoding": "gzip"})),
    }
    lies = random.random() < 0.3
    served = damage(content, random) if lies else content
    with FileServer(served, **vices) as running:
        variant = running.variant(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        target = paths.checkpoint_dir() / "weights.pt"
        part = target.with_name(".weights.pt.partial")
        part.parent.mkdir(parents=True)
        if before:
            part.write_bytes(before)
        try:
            pull_checkpoint(variant, timeout_seconds=5)
        except Sam2EdgeError:
            assert not target.exists()
            if vices["headers"] or vices["status"] not in (200, 206):
                assert not before or part.read_bytes() == before
            return
        assert target.read_bytes() == content


def bundle(random: Random, folder: Path) -> None:
    member = folder / "member"
    member.write_bytes(random.randbytes(3000))
    facts = {"version": "0.1.0", "target": "linux-x86_64-cp310", "requirements": ["sam2edge==0.1.0"], "models": []}
    path = folder / "a.zip"
    write_bundle(path, facts, [("wheels/a.whl", member), ("store/checkpoints/a.pt", member)])
    path.write_bytes(damage(path.read_bytes(), random))
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    extract(read_bundle(path), unpacked)
    assert {p.relative_to(unpacked).parts[0] for p in unpacked.rglob("*")} <= {"wheels", "store"}


def disk(random: Random, folder: Path) -> None:
    """Files may grow to a random size only, as on a disk that fills up: old results stay, new ones are whole."""
    (folder / "a.png").write_bytes(_EXAMPLES[0].read_bytes())
    before = (folder / "a.png").read_bytes()
    noise = np.random.default_rng(random.randrange(2**32)).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (random.randrange(1, 40_000), limits[1]))
    try:
        if random.random() < 0.5:
            pictures = {folder / "a.png": noise, folder / "b.png": noise[:4]}
            write_files({path: cv2.imencode(".png", one)[1].tobytes() for path, one in pictures.items()}, replace=True)
            before = b""
        else:
            sink = VideoSink(folder / "a.mp4", 25)
            try:
                for shift in range(random.randrange(1, 40)):
                    sink.write(np.roll(noise, shift, axis=1))
                sink.close()
            finally:
                sink.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not before or (folder / "a.png").read_bytes() == before
        for path in folder.iterdir():
            assert not path.name.startswith("."), f"{path.name} was left behind"
            assert cv2.VideoCapture(str(path)).read()[0] if path.suffix in (".mp4", ".mkv") else read_photo(path).size


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from sam2edge.imaging.photo import write_png
from sam2edge.video.sinks import VideoSink
folder, noise = Path(sys.argv[1]), np.random.default_rng(0).integers(0, 256, (192, 256, 3)).astype(np.uint8)
sink = VideoSink(folder / "a.mp4", 25)
print("started", flush=True)
for shift in range(200):
    sink.write(np.roll(noise, shift, axis=1))
    write_png(folder / "a.png", np.roll(noise, shift, axis=0))
sink.close()
"""


def kill(random: Random, folder: Path) -> None:
    """Killed at some moment: results are whole, and the next run finds what there was of the video."""
    command = [sys.executable, "-c", _WRITER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "started\n"
            time.sleep(random.uniform(0, 1.5))
        finally:
            process.send_signal(signal.SIGKILL)
    rescue_videos(folder)
    for path in folder.iterdir():
        if path.suffix in (".mp4", ".mkv"):
            assert cv2.VideoCapture(str(path)).read()[0], f"{path.name} does not play"
        elif not path.name.startswith("."):  # a hidden one of the last ten minutes may be of a run that goes on
            read_photo(path)
    assert not list(folder.glob(".*.mkv"))


TRIALS: dict[str, Trial] = {
    trial.__name__: trial
    for trial in (picture, video, prompts, session, weights, stored_file, server, bundle, disk, kill)
}
