"""The code of the reference document for SAM 2 interactive segmentation, in its order, as its users write it.

Only its two import lines and the model id differ (its weights are not on a test machine); the photos are ours.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge import AutoModel
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
from tests.conftest import read_picture

MODEL_ID = "sam2/micro"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo_bgr: np.ndarray) -> Path:
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"image_{i}.jpg"), np.roll(photo_bgr, 40 * i, axis=1))
    cv2.imwrite(str(tmp_path / "image.jpg"), photo_bgr)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_usage_example_prompting_and_batch() -> None:
    model = AutoModel.from_pretrained(MODEL_ID, api_key="your_api_key")
    image = read_picture("image.jpg")
    embeddings = model.embed_images(image)
    point_coords = np.array([[100, 150]])
    point_labels = np.array([1])
    results = model.segment_images(embeddings=embeddings, point_coordinates=point_coords, point_labels=point_labels)
    masks = results[0].masks
    scores = results[0].scores
    logits = results[0].logits
    best_mask_idx = scores.argmax()
    best_mask = masks[best_mask_idx]
    assert best_mask.shape == image.shape[:2]

    boxes = np.array([[50, 50, 200, 200]])
    results = model.segment_images(embeddings=embeddings, boxes=boxes)
    assert results[0].masks.shape == (3, *image.shape[:2])

    previous_logits = logits
    results = model.segment_images(
        embeddings=embeddings, point_coordinates=point_coords, point_labels=point_labels, mask_input=previous_logits
    )
    assert results[0].masks.shape == (3, *image.shape[:2])

    images = [read_picture(f"image_{i}.jpg") for i in range(4)]
    embeddings = model.embed_images(images)
    coords, labels = [np.array([[100, 150]])] * 4, [np.array([1])] * 4
    results = model.segment_images(embeddings=embeddings, point_coordinates=coords, point_labels=labels)
    assert len(results) == 4


@pytest.mark.usefixtures("folder")
def test_both_caches() -> None:
    embeddings_cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=100, send_to_cpu=True)
    model = AutoModel.from_pretrained(MODEL_ID, api_key="your_api_key", sam2_image_embeddings_cache=embeddings_cache)
    image = read_picture("image.jpg")
    embeddings = model.embed_images(image, use_embeddings_cache=True)
    for point in [(100, 150), (200, 250), (300, 350)]:
        results = model.segment_images(
            embeddings=embeddings, point_coordinates=np.array([[point[0], point[1]]]), point_labels=np.array([1])
        )
        assert results[0].scores.shape == (3,)

    masks_cache = Sam2LowResolutionMasksInMemoryCache.init(size_limit=500, send_to_cpu=True)
    model = AutoModel.from_pretrained(
        MODEL_ID,
        api_key="your_api_key",
        sam2_image_embeddings_cache=embeddings_cache,
        sam2_low_resolution_masks_cache=masks_cache,
    )
    results = model.segment_images(
        image, point_coordinates=np.array([[100, 150]]), point_labels=np.array([1]), use_mask_input_cache=True
    )
    refined_results = model.segment_images(
        image,
        point_coordinates=np.array([[100, 150], [120, 160]]),
        point_labels=np.array([1, 1]),
        use_mask_input_cache=True,
    )
    assert embeddings_cache.statistics.misses == 1
    assert masks_cache.statistics.hits == 1
    assert len(masks_cache) == 2
    assert not np.array_equal(results[0].logits, refined_results[0].logits)
