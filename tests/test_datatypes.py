"""Values that refuse to be made of parts that do not fit."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sam2edge.datatypes import BackendReport, ImagePrompt, Sam2ImageEmbedding, Sam2Prediction, ScoredLogits
from sam2edge.errors import BackendUnavailableError, InvalidInputError


def test_prompt_parts_must_fit() -> None:
    with pytest.raises(InvalidInputError, match=r"points \(K, N, 2\).*labels \(1, 2\)"):
        ImagePrompt(np.zeros((1, 1, 2), np.float32), np.ones((1, 2), np.int32))
    with pytest.raises(InvalidInputError, match="no object"):
        ImagePrompt(np.zeros((0, 1, 2), np.float32), np.ones((0, 1), np.int32))


def test_prompt_items_tell_objects_apart_and_leave_padding_out() -> None:
    coords = np.array([[[1, 2], [0, 0]], [[1, 2], [3, 4]]], np.float32)
    items = ImagePrompt(coords, np.array([[1, -2], [1, 0]], np.int32)).items()
    assert items == {("point", 0, 1.0, 2.0, 1), ("point", 1, 1.0, 2.0, 1), ("point", 1, 3.0, 4.0, 0)}


def test_prediction_parts_must_fit() -> None:
    logits = ScoredLogits(np.zeros((3, 4, 4), np.float32))
    with pytest.raises(InvalidInputError, match="do not fit"):
        Sam2Prediction(np.zeros((2, 8, 8), bool), np.zeros(3, np.float32), logits)


def test_an_embedding_needs_an_image() -> None:
    with pytest.raises(InvalidInputError, match="1x1"):
        Sam2ImageEmbedding(None, (0, 5), "key", "tag")  # type: ignore[arg-type]


def test_tensors_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    prediction = Sam2Prediction(
        np.zeros((1, 8, 8), bool), np.zeros(1, np.float32), ScoredLogits(np.zeros((1, 4, 4), np.float32))
    )
    with pytest.raises(BackendUnavailableError, match=r"pip install 'sam2edge\[torch\]'"):
        prediction.to_torch()


def test_a_report_reads_as_lines() -> None:
    report = BackendReport("torch on cpu", (("onnxruntime on cpu", "no graphs"),))
    assert str(report) == "torch on cpu: in use\nonnxruntime on cpu: no graphs"
