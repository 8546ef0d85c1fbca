"""float16 beside float32 over clips: the figures are those of two trackers on the same clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import EMBEDDED, VARIANTS
from tests.training.test_train_clips import SMALL, _seen_throughout
from training import evaluate_precision as subject
from training.evaluate_clips import tracker_of


def test_both_follow_the_same_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    def tracker_on(graphs: Path, precision: str) -> object:
        torch.manual_seed(0 if precision == "fp32" else chosen)
        model = Sam2(SMALL, image_size=64).eval()
        _seen_throughout(model)
        return tracker_of(model)

    monkeypatch.setattr(subject, "tracker_on", tracker_on)
    monkeypatch.setattr(subject, "VARIANT", replace(VARIANTS[EMBEDDED], image_size=64))
    chosen = 0
    same = subject.evaluate_precision(Path(), clips=2, frames=3)
    assert same["difference"] == same["largest_difference"] == 0.0
    assert same["objects"] >= 2
    chosen = 1
    other = subject.evaluate_precision(Path(), clips=2, frames=3)
    assert other["j_fp32"] == same["j_fp32"]
    assert other["largest_difference"] != 0.0
    assert abs(other["j_fp32"] - other["j_fp16"] - other["difference"]) < 2e-5
