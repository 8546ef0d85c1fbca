"""What "auto" promised to take is more than what is taken: the embedded model in a fresh process."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.harness import run_alone

CAP_BYTES = 400 << 20


@pytest.mark.parametrize(("work", "least_bytes"), [("photos", 20 << 20), ("video", 50 << 20)])
def test_what_is_taken_stays_below_the_promise(work: str, least_bytes: int, tmp_path: Path) -> None:
    found = run_alone("bench.memory:use_pick", tmp_path, work=work, cap_bytes=CAP_BYTES)["result"]
    assert "onnxruntime" in found["pick"]
    assert least_bytes < found["taken_bytes"] <= found["promised_bytes"] <= CAP_BYTES, found
