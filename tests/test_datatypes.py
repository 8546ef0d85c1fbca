"""Values that refuse to be made of parts that do not fit."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sam2edge.datatypes import BackendReport, ImagePrompt, Sam2Prediction, ScoredLogits, TrackResult
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


def _two_objects() -> Sam2Prediction:
    masks = np.zeros((2, 3, 60, 80), bool)
    masks[0, 1, 10:30, 5:25] = masks[1, 2, 40:50, 60:70] = True
    scores = np.array([[0.1, 0.9, 0.2], [0.3, 0.1, 0.8]], np.float32)
    return Sam2Prediction(masks, scores, ScoredLogits(np.zeros((2, 3, 4, 4), np.float32), scores))


def _tracked() -> TrackResult:
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 10:30, 5:25] = True
    scores, seen = np.array([0.9, 0.4], np.float32), np.array([3, -2], np.float32)
    return TrackResult(12, (1, 7), masks, scores, seen, np.zeros((2, 4, 4), np.float32))


def test_results_print_in_one_short_line() -> None:
    one = Sam2Prediction(*(part[0] for part in (_two_objects().masks, _two_objects().scores, _two_objects().logits)))
    assert repr(one) == "Sam2Prediction(3 masks of 80x60, best score 0.90)"
    assert repr(_two_objects()) == "Sam2Prediction(2 objects, 3 masks each of 80x60, best score 0.90 0.80)"
    assert repr(_tracked()) == "TrackResult(frame 12, 80x60, objects 1 0.90, 7 hidden)"


def test_boxes_and_areas_are_of_the_best_masks() -> None:
    assert _two_objects().boxes_xyxy.tolist() == [[5, 10, 25, 30], [60, 40, 70, 50]]
    assert _two_objects().areas.tolist() == [400, 100]
    assert _tracked().boxes_xyxy.tolist() == [[5, 10, 25, 30], [0, 0, 0, 0]]
    assert _tracked().areas.tolist() == [400, 0]
    masks, scores, logits = (part[0] for part in (_two_objects().masks, _two_objects().scores, _two_objects().logits))
    lone = Sam2Prediction(np.where(masks, 3.0, -3.0).astype(np.float32), scores, logits)  # return_logits=True
    assert lone.areas.tolist() == [400]


def test_results_in_other_tools_forms() -> None:
    found = _two_objects()
    assert [len(polygons) for polygons in found.to_polygons()] == [1, 1]
    assert [rle["size"] for rle in found.to_rle()] == [[60, 80], [60, 80]]
    assert [a["bbox"] for a in found.to_coco(image_id=4)] == [[5, 10, 20, 20], [60, 40, 10, 10]]
    assert [a["id"] for a in _tracked().to_coco()] == [1]  # what is hidden is no annotation
    assert isinstance(found.to_coco(as_rle=True)[0]["segmentation"]["counts"], str)


def test_supervision_draws_a_result() -> None:
    supervision = pytest.importorskip("supervision")
    found = _tracked().to_supervision()
    assert (found.xyxy.tolist(), found.tracker_id.tolist()) == ([[5, 10, 25, 30]], [1])
    photo = np.full((60, 80, 3), 90, np.uint8)
    drawn = supervision.MaskAnnotator().annotate(photo.copy(), _two_objects().to_supervision())
    assert ((drawn != photo).any(axis=-1) == _two_objects().best_masks.any(axis=0)).all()


def test_without_supervision_an_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(BackendUnavailableError, match="pip install supervision"):
        _tracked().to_supervision()


def test_pictures_keep_the_colour_order_of_the_image() -> None:
    bgr = np.full((60, 80, 3), (10, 90, 200), np.uint8)
    cutout, drawn = _two_objects().cutout(bgr), _two_objects().draw(bgr)
    assert (cutout[..., 3] > 0).sum() == 500 and (cutout[..., :3] == bgr).all()
    image_module = pytest.importorskip("PIL.Image")
    rgb = image_module.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    np.testing.assert_array_equal(_two_objects().draw(rgb)[..., ::-1], drawn)
    assert _two_objects().labels() == ["1 0.90", "2 0.80"] and (drawn != _two_objects().draw(bgr, labels=[])).any()
    with pytest.raises(InvalidInputError, match="do not fit the image.*80x60"):
        _tracked().draw(bgr[:50])


def test_torch_tensors_in_place_of_arrays() -> None:
    torch = pytest.importorskip("torch")
    found = _two_objects().as_torch()
    assert all(isinstance(part, torch.Tensor) for part in (found.masks, found.scores, found.logits, found.best_masks))
    assert found.areas.tolist() == [400, 100] and repr(found) == repr(_two_objects())
