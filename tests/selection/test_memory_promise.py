"""What "auto" promised to take is more than what is taken: the embedded model in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CAP_BYTES = 400 << 20


@pytest.mark.parametrize(("work", "least_bytes"), [("photos", 20 << 20), ("video", 50 << 20)])
def test_what_is_taken_stays_below_the_promise(work: str, least_bytes: int, tmp_path: Path) -> None:
    environment = {**os.environ, "SAM2EDGE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bench.promises_worker", work, str(CAP_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "onnxruntime" in found["pick"]
    assert least_bytes < found["taken_bytes"] <= found["promised_bytes"] <= CAP_BYTES, found
