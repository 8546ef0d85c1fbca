"""How people who know `inference-models` call the predictor, on a stand-in for the backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache
from sam2edge.datatypes import BackendReport
from sam2edge.errors import InvalidInputError
from sam2edge.predictor import ImagePredictor
from sam2edge.tracker import VideoTracker
from tests.fake_backend import FakeBackend, bright_square, fake_model

IMAGE = bright_square(8)
POINT: dict[str, Any] = {"point_coordinates": np.array([[20, 20]]), "point_labels": np.array([1])}


@pytest.fixture
def model() -> ImagePredictor:
    return ImagePredictor(FakeBackend(), BackendReport("fake"), Sam2ImageEmbeddingsInMemoryCache.init())


def test_tensors_come_back_where_tensors_went_in(model: ImagePredictor) -> None:
    torch = pytest.importorskip("torch")
    image = torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())
    expected = model.segment_images(IMAGE, **POINT)[0]
    tensors: dict[str, Any] = {name: torch.from_numpy(value) for name, value in POINT.items()}
    for found in (
        model.segment_images(image, **POINT)[0],
        model.segment_images([image], **POINT)[0],
        model.segment_images(IMAGE, **tensors)[0],
        model.segment_images(IMAGE, as_torch=True, **POINT)[0],
    ):
        assert all(isinstance(part, torch.Tensor) for part in (found.masks, found.scores, found.logits))
        np.testing.assert_array_equal(found.masks, expected.masks)
    plain = model.segment_images(image, as_torch=False, **POINT)[0]
    assert isinstance(plain.masks, np.ndarray) and isinstance(expected.masks, np.ndarray)
    refined = model.segment_images(image, mask_input=found, **POINT)[0]
    assert isinstance(refined.logits, torch.Tensor)


def test_hashes_alone_stand_for_images_that_are_cached(model: ImagePredictor) -> None:
    (embedding,) = model.embed_images(IMAGE, image_hashes="shelf-1")
    expected = model.segment_images(IMAGE, **POINT)[0]
    for image_hash in ("shelf-1", embedding.image_hash, ["shelf-1"]):
        found = model.segment_images(image_hashes=image_hash, **POINT)[0]
        np.testing.assert_array_equal(found.masks, expected.masks)
    assert model.retrieve_embeddings("shelf-1")[0] is not None
    for unknown in ("helf-1", "shelf-2"):
        with pytest.raises(InvalidInputError, match=f"not in the embeddings cache.*'{unknown}'"):
            model.segment_images(image_hashes=unknown, **POINT)
    with pytest.raises(InvalidInputError, match="not in the embeddings cache"):
        fake_model().segment_images(image_hashes="shelf-1", **POINT)
    with pytest.raises(InvalidInputError, match="neither"):
        model.segment_images(image_hashes="shelf-1", use_embeddings_cache=False, **POINT)


def test_the_caches_own_names(model: ImagePredictor) -> None:
    (embedding,) = model.embed_images(IMAGE)
    cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=5)
    assert cache.send_to_cpu
    cache.save_embeddings(key=embedding.image_hash, embeddings=embedding)
    kept = cache.retrieve_embeddings(key=embedding.image_hash)
    assert kept is not None and kept.image_hash == embedding.image_hash
    assert cache.retrieve_embeddings(key="other") is None
    assert cache.list_keys() == [embedding.image_hash]


def test_one_prompt_for_all_images(model: ImagePredictor) -> None:
    images = [IMAGE, bright_square(20), bright_square(40)]
    one = model.segment_images(
        images, point_coordinates=[POINT["point_coordinates"]], point_labels=[POINT["point_labels"]]
    )
    each = model.segment_images(images, **POINT)
    assert len(one) == 3
    for found, expected in zip(one, each, strict=True):
        np.testing.assert_array_equal(found.masks, expected.masks)


def test_no_threshold_is_zero(model: ImagePredictor) -> None:
    found = model.segment_images(IMAGE, mask_threshold=None, **POINT)[0]
    np.testing.assert_array_equal(found.masks, model.segment_images(IMAGE, **POINT)[0].masks)


def test_models_and_trackers_print_in_one_line_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_model() as model:
        assert repr(model) == "ImagePredictor(sam2/micro at 64 on fake)"
        with VideoTracker(model) as tracker:
            tracker.prompt(IMAGE, 3, box=[8, 10, 38, 40])
            assert repr(tracker) == f"VideoTracker({model!r}, frame 0, objects [3])"
        assert tracker.object_ids == ()
    closed: list[bool] = []
    model = fake_model()
    monkeypatch.setattr("sam2edge.automodel.AutoModel.from_pretrained", lambda *_, **__: model)
    monkeypatch.setattr(model, "close", lambda: closed.append(True))
    with VideoTracker(model):
        pass
    assert not closed  # it is someone else's
    with VideoTracker.from_pretrained():
        pass
    assert closed
