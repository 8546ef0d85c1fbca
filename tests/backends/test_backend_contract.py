"""What every backend does, tested on each with the same weights."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from sam2edge import contract
from sam2edge.backends.base import Backend
from sam2edge.errors import InvalidInputError
from sam2edge.predictor import ImagePredictor
from tests.conftest import load_micro


@pytest.fixture
def backend(micro: ImagePredictor) -> Backend:
    return micro.backend


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, 384, 384)).astype(np.float32)


POINTS = np.array([[[100.0, 200.0], [300.0, 50.0]]], np.float32)
LABELS = np.array([[1, 0]], np.int32)


def test_outputs_keep_the_contract(backend: Backend, image: np.ndarray) -> None:
    features = backend.encode(image)
    specs = contract.graph_specs(backend.variant, 384)
    host = features.to_host().tensors
    for spec in specs[contract.IMAGE_ENCODER].outputs:
        assert (host[spec.name].shape, host[spec.name].dtype.name) == (spec.shape, spec.dtype)
    assert features.nbytes == sum(t.nbytes for t in host.values())
    decoded = backend.decode(features, POINTS, LABELS)
    for spec in specs[contract.MASK_DECODER].outputs:
        assert (getattr(decoded, spec.name).shape, getattr(decoded, spec.name).dtype.name) == (spec.shape, spec.dtype)
    assert ((decoded.iou_scores >= 0) & (decoded.iou_scores <= 1)).all()


def test_host_features_decode_like_device_features(backend: Backend, image: np.ndarray) -> None:
    features = backend.encode(image)
    direct, through_host = (backend.decode(f, POINTS, LABELS) for f in (features, features.to_host()))
    np.testing.assert_array_equal(direct.low_res_masks, through_host.low_res_masks)


def test_absent_slots_change_nothing(backend: Backend, image: np.ndarray) -> None:
    features = backend.encode(image)
    plain = backend.decode(features, POINTS, LABELS)
    coords = np.concatenate((POINTS, np.full((1, 4, 2), 9, np.float32)), axis=1)
    labels = np.concatenate((LABELS, np.full((1, 4), contract.ABSENT, np.int32)), axis=1)
    padded = backend.decode(features, coords, labels)
    np.testing.assert_allclose(padded.low_res_masks, plain.low_res_masks, atol=1e-4)


def test_a_mask_prompt_counts(backend: Backend, image: np.ndarray) -> None:
    features = backend.encode(image)
    mask = np.full((1, 96, 96), -8.0, np.float32)
    mask[:, 32:96, 32:96] = 8.0
    plain, with_mask = backend.decode(features, POINTS, LABELS), backend.decode(features, POINTS, LABELS, mask)
    assert not np.allclose(plain.low_res_masks, with_mask.low_res_masks, atol=1e-3)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 3, 256, 256), np.float32),
        np.zeros((1, 3, 384, 384), np.float64),
        np.zeros((2, 3, 384, 384), np.float32),
        np.zeros((3, 384, 384), np.float32),
    ],
)
def test_model_inputs_of_another_shape_are_refused(backend: Backend, bad: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match=r"float32 \(1, 3, 384, 384\)"):
        backend.encode(bad)


@pytest.mark.parametrize(
    ("coords", "labels", "mask"),
    [
        (POINTS[0], LABELS, None),
        (POINTS, LABELS[:, :1], None),
        (POINTS[:, :0], LABELS[:, :0], None),
        (POINTS, LABELS, np.zeros((1, 64, 64), np.float32)),
        (POINTS, LABELS, np.zeros((2, 96, 96), np.float32)),
    ],
)
def test_prompt_tensors_of_another_shape_are_refused(
    backend: Backend, image: np.ndarray, coords: np.ndarray, labels: np.ndarray, mask: np.ndarray
) -> None:
    with pytest.raises(InvalidInputError, match="unusable shapes"):
        backend.decode(backend.encode(image), coords, labels, mask)


def test_two_threads_get_the_same_answer(backend: Backend, image: np.ndarray) -> None:
    features = backend.encode(image)
    expected = backend.decode(features, POINTS, LABELS).low_res_masks
    found: list[np.ndarray] = []

    def work() -> None:
        found.append(backend.decode(backend.encode(image), POINTS, LABELS).low_res_masks)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for masks in found:
        np.testing.assert_allclose(masks, expected, atol=1e-4)


def test_both_backends_give_the_same_masks(photo_bgr: np.ndarray) -> None:
    pytest.importorskip("torch")
    # The graphs hold the position tables as float16, like the weights; torch computes them in float32.
    one, other = (
        load_micro(name).segment_images(photo_bgr, boxes=np.array([75, 20, 480, 385]))[0]
        for name in ("torch", "onnxruntime")
    )
    np.testing.assert_allclose(one.scores, other.scores, atol=5e-3)
    joined = np.count_nonzero(one.masks | other.masks, axis=(1, 2))
    shared = np.count_nonzero(one.masks & other.masks, axis=(1, 2))
    assert (shared >= 0.995 * joined).all()
