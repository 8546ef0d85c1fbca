"""The image API on every backend: shapes, batches, refinement, thresholds, both caches, colour order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel, Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
from sam2edge.errors import InvalidInputError
from sam2edge.predictor import ImagePredictor
from tests.conftest import BACKENDS
from tests.fake_backend import fake_model

POINT: dict[str, Any] = {"point_coordinates": np.array([[300, 200]]), "point_labels": np.array([1])}
BOX = np.array([75, 20, 480, 385])


def test_one_object_gives_three_masks_at_photo_size(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    prediction = micro.segment_images(photo_bgr, **POINT)[0]
    assert prediction.masks.shape == (3, 400, 600)
    assert prediction.masks.dtype == np.bool_
    assert prediction.scores.shape == (3,)
    assert prediction.logits.shape == (3, *micro.low_res_hw)
    assert np.array_equal(prediction.best_masks, prediction.masks[prediction.scores.argmax()])


def test_single_mask_output(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    prediction = micro.segment_images(photo_bgr, boxes=BOX, multi_mask_output=False)[0]
    assert prediction.masks.shape == (1, 400, 600)


def test_several_objects_equal_one_at_a_time(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    embeddings = micro.embed_images(photo_bgr)
    points = np.array([[[300, 200]], [[60, 60]], [[500, 330]]])
    together = micro.segment_images(embeddings=embeddings, point_coordinates=points, point_labels=np.ones((3, 1)))[0]
    assert together.masks.shape == (3, 3, 400, 600)
    assert together.best_masks.shape == (3, 400, 600)
    for k, point in enumerate(points):
        alone = micro.segment_images(embeddings=embeddings, point_coordinates=point, point_labels=np.ones(1))[0]
        np.testing.assert_allclose(together.logits[k], alone.logits, atol=1e-3)


def test_ragged_points_equal_unpadded_ones(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    embeddings = micro.embed_images(photo_bgr)
    rows = [np.array([[300, 200], [350, 220], [60, 60]]), np.array([[500, 330]])]
    labels = [np.array([1, 1, 0]), np.array([1])]
    ragged = micro.segment_images(embeddings=embeddings, point_coordinates=[rows], point_labels=[labels])[0]
    for k in range(2):
        alone = micro.segment_images(embeddings=embeddings, point_coordinates=rows[k], point_labels=labels[k])[0]
        np.testing.assert_allclose(ragged.logits[k], alone.logits, atol=1e-3)


def test_several_boxes(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    boxes = np.array([BOX, [10, 10, 100, 100]])
    assert micro.segment_images(photo_bgr, boxes=boxes)[0].scores.shape == (2, 3)
    assert micro.segment_images(photo_bgr, boxes=BOX[None])[0].scores.shape == (3,)


def test_a_batch_takes_prompts_by_image_or_for_all(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    images = [photo_bgr, photo_bgr[:200, :300].copy()]
    embeddings = micro.embed_images(images)
    point, label = np.array([[100, 150]]), np.array([1])
    same = micro.segment_images(embeddings=embeddings, point_coordinates=point, point_labels=label)
    listed = micro.segment_images(embeddings=embeddings, point_coordinates=[point] * 2, point_labels=[label] * 2)
    assert [p.masks.shape for p in same] == [(3, 400, 600), (3, 200, 300)]
    for a, b in zip(same, listed, strict=True):
        assert np.array_equal(a.masks, b.masks)
    mixed = micro.segment_images(
        embeddings=embeddings, point_coordinates=[point, None], point_labels=[label, None], boxes=[None, [9, 9, 99, 99]]
    )
    assert np.array_equal(mixed[0].masks, same[0].masks)
    assert not np.array_equal(mixed[1].masks, same[1].masks)


def test_logits_go_back_as_they_came(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    embeddings = micro.embed_images(photo_bgr)
    first = micro.segment_images(embeddings=embeddings, **POINT)[0]
    best = int(first.scores.argmax())
    forms = [first, first.logits, first.logits[best], first.logits[best : best + 1], np.asarray(first.logits)[best]]
    refined = [micro.segment_images(embeddings=embeddings, mask_input=f, **POINT)[0].logits for f in forms]
    for other in refined[1:]:
        np.testing.assert_array_equal(refined[0], other)
    assert not np.allclose(refined[0], first.logits, atol=1e-3)


def test_a_mask_alone_is_a_prompt(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    first = micro.segment_images(photo_bgr, **POINT)[0]
    assert micro.segment_images(photo_bgr, mask_input=first)[0].masks.shape == (3, 400, 600)


def test_masks_of_several_objects_go_back_too(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    prompt: dict[str, Any] = {
        "point_coordinates": np.array([[[300, 200]], [[60, 60]]]),
        "point_labels": np.ones((2, 1)),
    }
    first = micro.segment_images(photo_bgr, **prompt)[0]
    assert micro.segment_images(photo_bgr, mask_input=first, **prompt)[0].masks.shape == (2, 3, 400, 600)
    assert micro.segment_images(photo_bgr, mask_input=first)[0].masks.shape == (2, 3, 400, 600)


def test_threshold_and_returned_logits_agree(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    raw = micro.segment_images(photo_bgr, return_logits=True, **POINT)[0]
    cut = micro.segment_images(photo_bgr, mask_threshold=1.5, refine="none", **POINT)[0]
    assert raw.masks.dtype == np.float32
    assert np.array_equal(raw.masks > 1.5, cut.masks)


def test_colour_order_is_honoured(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    rgb = np.ascontiguousarray(photo_bgr[..., ::-1])
    plain = micro.segment_images(photo_bgr, **POINT)[0].logits
    np.testing.assert_array_equal(plain, micro.segment_images(rgb, input_color_format="rgb", **POINT)[0].logits)
    assert not np.allclose(plain, micro.segment_images(rgb, **POINT)[0].logits, atol=1e-3)


def test_torch_images_are_rgb_and_results_become_tensors(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(np.ascontiguousarray(photo_bgr[..., ::-1].transpose(2, 0, 1)))
    plain = micro.segment_images(photo_bgr, **POINT)[0]
    np.testing.assert_array_equal(plain.logits, micro.segment_images(tensor, **POINT)[0].logits)
    assert len(micro.embed_images(torch.stack([tensor, tensor]))) == 2
    masks, scores, logits = plain.to_torch()
    assert (masks.dtype, tuple(scores.shape), tuple(logits.shape[1:])) == (torch.bool, (3,), micro.low_res_hw)


def test_other_image_forms(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    base = micro_onnx.segment_images(photo_bgr, **POINT)[0].logits
    with_alpha = np.dstack([photo_bgr, np.full(photo_bgr.shape[:2], 7, np.uint8)])
    for same in (with_alpha, photo_bgr.astype(np.uint16) * 257, photo_bgr / 255.0, photo_bgr.astype(np.float32) / 255):
        np.testing.assert_array_equal(base, micro_onnx.segment_images(same, **POINT)[0].logits)
    grey = photo_bgr[..., 0]
    repeated = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        micro_onnx.segment_images(grey, **POINT)[0].logits, micro_onnx.segment_images(repeated, **POINT)[0].logits
    )
    pixel = micro_onnx.segment_images(
        photo_bgr[:1, :1], point_coordinates=np.array([[0, 0]]), point_labels=np.array([1])
    )
    assert pixel[0].masks.shape == (3, 1, 1)


def test_a_very_wide_photo(micro_onnx: ImagePredictor) -> None:
    wide = np.zeros((50, 20_000, 3), np.uint8)
    wide[:, 9_000:11_000] = 255
    found = micro_onnx.segment_images(wide, boxes=np.array([9_000, 0, 11_000, 50]), multi_mask_output=False)[0]
    assert found.masks.shape == (1, 50, 20_000)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "unusable shape"),
        (np.zeros((5, 5, 2), np.uint8), "unusable shape"),
        (np.zeros((5, 5, 5, 3), np.uint8), "unusable shape"),
        (np.zeros((5, 5, 3), np.int64), "unusable type"),
        (np.zeros((5, 5, 3), bool), "unusable type"),
        (np.full((5, 5, 3), np.nan), "out of range"),
        (np.full((5, 5, 3), 300.0), "out of range.*0..1.*300"),
        (None, "neither"),
        ("photo.jpg", "photo not found"),
    ],
)
def test_unusable_images(micro_onnx: ImagePredictor, image: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        micro_onnx.segment_images(image, **POINT)


def test_unknown_colour_order(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="'bgr', 'rgb' or None.*'hsv'"):
        micro_onnx.embed_images(photo_bgr, input_color_format="hsv")


def test_images_and_embeddings_both(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="both"):
        micro_onnx.segment_images(photo_bgr, embeddings=micro_onnx.embed_images(photo_bgr), **POINT)


def test_embeddings_of_another_model_are_refused(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    from dataclasses import replace

    other = replace(micro_onnx.embed_images(photo_bgr)[0], model_tag="sam2.1_hiera_tiny/1024/fp32/torch")
    with pytest.raises(InvalidInputError, match="made by another model.*embed the image again"):
        micro_onnx.segment_images(embeddings=other, **POINT)
    with pytest.raises(InvalidInputError, match="is not an embedding.*got str"):
        micro_onnx.segment_images(embeddings=["x"], **POINT)  # type: ignore[list-item]


def test_too_many_points_for_the_graph(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    limit = micro_onnx.backend.max_points
    assert limit is not None
    points = np.full((limit + 1, 2), 50.0)
    with pytest.raises(InvalidInputError, match=f"at most {limit} points.*torch backend"):
        micro_onnx.segment_images(photo_bgr, point_coordinates=points, point_labels=np.ones(limit + 1))
    full = micro_onnx.segment_images(photo_bgr, point_coordinates=points[:limit], point_labels=np.ones(limit))
    assert full[0].masks.shape[0] == 3


class CountingModel:
    """A model whose encoder calls are counted."""

    def __init__(self, backend: str, **caches: object) -> None:
        self.model = AutoModel.from_pretrained("sam2/micro", backend=backend, **caches)  # type: ignore[arg-type]
        self.encoded = 0
        inner = self.model.backend.encode

        def encode(image: np.ndarray, wait: bool = True) -> object:
            self.encoded += 1
            return inner(image, wait)

        self.model.backend.encode = encode  # type: ignore[method-assign]


@pytest.fixture(params=BACKENDS)
def counting(request: pytest.FixtureRequest) -> CountingModel:
    pytest.importorskip(request.param)
    return CountingModel(request.param)


def test_the_same_photo_is_encoded_once(counting: CountingModel, photo_bgr: np.ndarray) -> None:
    model = counting.model
    first, second = model.embed_images(photo_bgr)[0], model.embed_images(photo_bgr.copy())[0]
    assert counting.encoded == 1
    assert first is second
    model.embed_images(photo_bgr, use_embeddings_cache=False)
    assert counting.encoded == 2


def test_the_key_covers_pixels_shape_and_colour_order(counting: CountingModel, photo_bgr: np.ndarray) -> None:
    model = counting.model
    changed = photo_bgr.copy()
    changed[0, 0, 0] ^= 1
    for image in (photo_bgr, changed, photo_bgr.reshape(600, 400, 3)):
        model.embed_images(image)
    model.embed_images(photo_bgr, input_color_format="rgb")
    assert counting.encoded == 4


def test_given_hashes_stand_for_the_pixels(counting: CountingModel, photo_bgr: np.ndarray) -> None:
    model = counting.model
    model.embed_images([photo_bgr, photo_bgr], image_hashes=["a", "b"])
    model.embed_images(photo_bgr, image_hashes="a")
    assert counting.encoded == 2
    with pytest.raises(InvalidInputError, match="image_hashes"):
        model.embed_images([photo_bgr, photo_bgr], image_hashes=["a"])


def test_models_may_share_a_cache_without_mixing(photo_bgr: np.ndarray) -> None:
    pytest.importorskip("torch")
    cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=10)
    models = [CountingModel(b, sam2_image_embeddings_cache=cache) for b in BACKENDS]
    for each in models:
        each.model.segment_images(photo_bgr, **POINT)
    assert [each.encoded for each in models] == [1, 1]
    assert len(cache) == 2


def test_an_embedding_outlives_its_eviction(photo_bgr: np.ndarray) -> None:
    cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=1)
    model = AutoModel.from_pretrained("sam2/micro", backend="onnxruntime", sam2_image_embeddings_cache=cache)
    held = model.embed_images(photo_bgr)[0]
    before = model.segment_images(embeddings=held, **POINT)[0].logits
    model.embed_images(photo_bgr[::-1])
    assert held.key not in cache
    np.testing.assert_array_equal(before, model.segment_images(embeddings=held, **POINT)[0].logits)


def test_encoder_outputs_do_not_alias(micro: ImagePredictor, photo_bgr: np.ndarray) -> None:
    first = micro.embed_images(photo_bgr)[0].to_host().features.tensors["image_embed"].copy()
    embedding = micro.embed_images(photo_bgr)[0]
    micro.embed_images(photo_bgr[::-1])
    np.testing.assert_array_equal(first, embedding.to_host().features.tensors["image_embed"])


def test_embeddings_kept_on_the_host_work(photo_bgr: np.ndarray) -> None:
    pytest.importorskip("torch")
    cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=3, send_to_cpu=True)
    model = AutoModel.from_pretrained("sam2/micro", backend="torch", sam2_image_embeddings_cache=cache)
    first = model.segment_images(photo_bgr, **POINT)[0]
    second = model.segment_images(photo_bgr, **POINT)[0]
    np.testing.assert_array_equal(first.logits, second.logits)


def test_the_default_cache_is_bounded_in_bytes(photo_bgr: np.ndarray) -> None:
    model = AutoModel.from_pretrained("sam2/micro", backend="onnxruntime", max_memory=50_000_000)
    assert model.embeddings_cache is not None
    assert model.embeddings_cache.max_bytes == 5_000_000
    one = model.embed_images(photo_bgr)[0].nbytes
    for shift in range(4):
        model.embed_images(np.roll(photo_bgr, shift, axis=0))
    assert one <= model.embeddings_cache.statistics.num_bytes <= 5_000_000


def test_masks_are_refined_from_the_cache(photo_bgr: np.ndarray) -> None:
    cache = Sam2LowResolutionMasksInMemoryCache.init(size_limit=500, send_to_cpu=True)
    model = AutoModel.from_pretrained("sam2/micro", sam2_low_resolution_masks_cache=cache)
    more: dict[str, Any] = {"point_coordinates": np.array([[300, 200], [320, 210]]), "point_labels": np.array([1, 1])}
    plain = model.segment_images(photo_bgr, **more)[0]
    first = model.segment_images(photo_bgr, use_mask_input_cache=True, **POINT)[0]
    assert len(cache) == 1
    refined = model.segment_images(photo_bgr, load_from_mask_input_cache=True, **more)[0]
    by_hand = model.segment_images(photo_bgr, mask_input=first, **more)[0]
    np.testing.assert_array_equal(refined.logits, by_hand.logits)
    assert not np.allclose(refined.logits, plain.logits, atol=1e-3)
    assert len(cache) == 1
    model.segment_images(photo_bgr, save_to_mask_input_cache=True, **more)
    assert len(cache) == 2
    other = model.segment_images(photo_bgr[::-1], load_from_mask_input_cache=True, **more)[0]
    np.testing.assert_array_equal(other.logits, model.segment_images(photo_bgr[::-1], **more)[0].logits)


def test_boxes_that_share_a_corner_are_not_mixed_up(photo_bgr: np.ndarray) -> None:
    cache = Sam2LowResolutionMasksInMemoryCache.init(size_limit=5)
    model = AutoModel.from_pretrained("sam2/micro", sam2_low_resolution_masks_cache=cache)
    model.segment_images(photo_bgr, boxes=np.array([75, 20, 480, 385]), use_mask_input_cache=True)
    small: dict[str, Any] = {"boxes": np.array([75, 20, 200, 100])}
    cached = model.segment_images(photo_bgr, use_mask_input_cache=True, **small)[0]
    np.testing.assert_array_equal(cached.logits, model.segment_images(photo_bgr, **small)[0].logits)


def test_the_mask_cache_asked_for_without_one(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="sam2_low_resolution_masks_cache"):
        micro_onnx.segment_images(photo_bgr, use_mask_input_cache=True, **POINT)


def test_closing_empties_the_caches(photo_bgr: np.ndarray) -> None:
    model = AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")
    model.embed_images(photo_bgr)
    model.close()
    assert model.embeddings_cache is not None
    assert len(model.embeddings_cache) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", [1, 2], object()])
def test_a_threshold_that_is_no_number(value: object, photo_bgr: np.ndarray) -> None:
    model = fake_model()
    point: dict[str, Any] = {"point_coordinates": np.array([[9, 9]]), "point_labels": np.array([1])}
    with pytest.raises(InvalidInputError, match="mask_threshold cannot be used; expected a finite number"):
        model.segment_images(photo_bgr, mask_threshold=value, **point)  # type: ignore[arg-type]


def test_logits_that_no_model_gives(photo_bgr: np.ndarray) -> None:
    model = fake_model()
    with pytest.raises(InvalidInputError, match="mask_input is too large"):
        model.segment_images(photo_bgr, mask_input=np.full(model.low_res_hw, 3e38, np.float32))
