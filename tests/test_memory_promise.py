"""What "auto" promised to take is more than what is taken: the embedded model in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, re, sys
import cv2, numpy as np
from sam2edge import AutoModel, VideoTracker
from sam2edge.selection import Wanted, select

def status(name):
    text = open("/proc/self/status").read()
    return int(re.search(rf"^{name}:\\s+(\\d+) kB", text, re.MULTILINE)[1]) * 1024

frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
before = status("VmRSS")
tracking = sys.argv[1] == "video"
choice = select(Wanted(backend="onnxruntime", tracking=tracking), max_memory="400MiB")
options = {"backend": "onnxruntime", "max_memory": "400MiB"}
if tracking:
    tracker = VideoTracker.from_pretrained(**options)
    tracker.prompt(frame, object_id=1, box=[100, 100, 900, 900])
    tracker.prompt(None, object_id=2, box=[900, 100, 1500, 900])
    for shift in range(1, 4):
        tracker.track(np.roll(frame, shift, axis=1))
else:
    model = AutoModel.from_pretrained(**options)
    for shift in range(20):  # more than the cache holds
        model.segment_images(np.roll(frame, shift, axis=1), boxes=np.array([100, 100, 900, 900]))
frames = 2 * frame.nbytes  # what this program itself holds besides
promised = choice.picked.needs.total_bytes + choice.cache_bytes
print(json.dumps({"promised": promised, "taken": status("VmHWM") - before - frames, "cap": 400 << 20}))
"""


def _measured(what: str) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, what], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures: dict[str, int] = json.loads(done.stdout)
    return figures


def test_photos_stay_below_the_promise() -> None:
    figures = _measured("photos")
    assert 20 << 20 < figures["taken"] <= figures["promised"] <= figures["cap"], figures


def test_a_tracked_video_stays_below_the_promise() -> None:
    figures = _measured("video")
    assert 50 << 20 < figures["taken"] <= figures["promised"] <= figures["cap"], figures
