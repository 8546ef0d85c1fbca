"""The calls of Meta's example notebook for its image predictor, in their order and with their shapes.

https://github.com/facebookresearch/sam2/blob/main/notebooks/image_predictor_example.ipynb
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge.automodel import AutoModel
from sam2edge.compat import SAM2ImagePredictor, build_sam2
from sam2edge.errors import InvalidInputError, UnknownModelError
from sam2edge.predictor import ImagePredictor


@pytest.fixture
def image(photo_bgr: np.ndarray) -> np.ndarray:
    """As the notebook has it: RGB."""
    return cv2.cvtColor(photo_bgr, cv2.COLOR_BGR2RGB)


@pytest.fixture
def predictor(micro_onnx: ImagePredictor) -> SAM2ImagePredictor:
    return SAM2ImagePredictor(micro_onnx)


def test_the_notebook(predictor: SAM2ImagePredictor, image: np.ndarray) -> None:
    predictor.set_image(image)
    input_point = np.array([[300, 190]])
    input_label = np.array([1])
    assert predictor._features is not None and predictor._features["image_embed"].shape[0] == 1

    masks, scores, logits = predictor.predict(
        point_coords=input_point,
        point_labels=input_label,
        multimask_output=True,
    )
    sorted_ind = np.argsort(scores)[::-1]
    masks = masks[sorted_ind]
    scores = scores[sorted_ind]
    logits = logits[sorted_ind]
    assert masks.shape == (3, *image.shape[:2]) and masks.dtype == np.float32 and set(np.unique(masks)) == {0, 1}
    assert scores.shape == (3,) and logits.shape[0] == 3

    input_point = np.array([[300, 190], [360, 250]])
    input_label = np.array([1, 1])
    mask_input = logits[np.argmax(scores), :, :]  # Choose the model's best mask
    masks, scores, _ = predictor.predict(
        point_coords=input_point,
        point_labels=input_label,
        mask_input=mask_input[None, :, :],
        multimask_output=False,
    )
    assert masks.shape == (1, *image.shape[:2]) and scores.shape == (1,)

    input_box = np.array([225, 55, 425, 330])
    masks, scores, _ = predictor.predict(
        point_coords=None,
        point_labels=None,
        box=input_box[None, :],
        multimask_output=False,
    )
    assert masks.shape == (1, *image.shape[:2]) and masks.any()
    masks, scores, logits = predictor.predict(
        point_coords=np.array([[300, 300]]),
        point_labels=np.array([0]),
        box=input_box,
        multimask_output=False,
    )
    assert masks.shape == (1, *image.shape[:2])

    input_boxes = np.array([[225, 55, 425, 330], [20, 20, 200, 200], [300, 20, 500, 200], [10, 200, 150, 380]])
    masks, scores, _ = predictor.predict(
        point_coords=None,
        point_labels=None,
        box=input_boxes,
        multimask_output=False,
    )
    assert masks.shape == (4, 1, *image.shape[:2])
    for mask in masks:
        assert mask.squeeze(0).shape == image.shape[:2]

    predictor.reset_predictor()
    with pytest.raises(InvalidInputError, match="set_image"):
        predictor.predict(box=input_box)


def test_the_notebooks_batches(predictor: SAM2ImagePredictor, image: np.ndarray) -> None:
    image1, image1_boxes = image, np.array([[225, 55, 425, 330], [20, 20, 200, 200]])
    image2, image2_boxes = image[:300, :500], np.array([[225, 55, 425, 290]])
    img_batch = [image1, image2]
    boxes_batch = [image1_boxes, image2_boxes]
    predictor.set_image_batch(img_batch)
    masks_batch, scores_batch, _ = predictor.predict_batch(None, None, box_batch=boxes_batch, multimask_output=False)
    assert masks_batch[0].shape == (2, 1, *image1.shape[:2]) and masks_batch[1].shape == (1, *image2.shape[:2])
    assert [scores.shape for scores in scores_batch] == [(2, 1), (1,)]

    pts_batch = [np.array([[[300, 190]], [[100, 100]]]), np.array([[[300, 190]]])]
    labels_batch = [np.array([[1], [1]]), np.array([[1]])]
    masks_batch, scores_batch, _ = predictor.predict_batch(
        pts_batch, labels_batch, box_batch=None, multimask_output=True
    )
    assert masks_batch[0].shape == (2, 3, *image1.shape[:2]) and scores_batch[1].shape == (3,)
    best_masks = [m[range(len(m)), np.argmax(s, axis=-1)] for m, s in zip(masks_batch[:1], scores_batch, strict=False)]
    assert best_masks[0].shape == (2, *image1.shape[:2])


def test_colours_and_shares(
    predictor: SAM2ImagePredictor, micro_onnx: ImagePredictor, image: np.ndarray, photo_bgr: np.ndarray
) -> None:
    box = np.array([225, 55, 425, 330])
    expected = micro_onnx.segment_images(photo_bgr, boxes=box, multi_mask_output=False)[0].masks
    predictor.set_image(image)
    masks, _, _ = predictor.predict(box=box, multimask_output=False)
    np.testing.assert_array_equal(masks.astype(bool), expected)
    shares = box / (image.shape[1], image.shape[0], image.shape[1], image.shape[0])
    masks, _, _ = predictor.predict(box=shares, multimask_output=False, normalize_coords=False)
    np.testing.assert_array_equal(masks.astype(bool), expected)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("facebook/sam2-hiera-large", "sam2.0_hiera_large"),
        ("facebook/sam2.1-hiera-base-plus", "sam2.1_hiera_base_plus"),
        ("tiny", "sam2.1_hiera_tiny"),
    ],
)
def test_names_of_the_hub(name: str, variant: str, micro_onnx: ImagePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *a, **options: asked.append((*a, options)) or micro_onnx)
    SAM2ImagePredictor.from_pretrained(name, device="cpu")
    assert asked == [(variant, {"device": "cpu"})]


@pytest.mark.parametrize(
    ("config", "variant"),
    [
        ("configs/sam2.1/sam2.1_hiera_l.yaml", "sam2.1_hiera_large"),
        ("configs/sam2/sam2_hiera_b+.yaml", "sam2.0_hiera_base_plus"),
        ("sam2_hiera_t.yaml", "sam2.0_hiera_tiny"),
    ],
)
def test_metas_configurations(
    config: str, variant: str, micro_onnx: ImagePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    asked: list[Any] = []
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *a, **options: asked.append((*a, options)) or micro_onnx)
    assert build_sam2(config, "weights.pt", device=torch.device("cpu")) is micro_onnx
    assert asked == [(variant, {"checkpoint": "weights.pt", "device": "cpu"})]
    with pytest.raises(UnknownModelError, match="sam2_hiera"):
        build_sam2("configs/sam3.yaml")
