"""Images: embed once, segment with any number of prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
from sam2edge.datatypes import BackendReport, FloatArray, ImagePrompt, Sam2ImageEmbedding, Sam2Prediction, ScoredLogits
from sam2edge.errors import InvalidInputError
from sam2edge.everything import EverythingOptions, FoundMasks, segment_everything
from sam2edge.imaging.frame import frame_to_uint8, is_torch_tensor
from sam2edge.imaging.postprocess import LOGIT_LIMIT, logits_to_masks, select_masks
from sam2edge.imaging.preprocess import image_to_input, prompts_to_model, shrunk_frame
from sam2edge.imaging.prompts import read_prompts
from sam2edge.observe.stats import CallTimes, ModelStats, read_machine_metrics
from sam2edge.selection.budget import MemoryWatch
from sam2edge.variants import Variant


class ImagePredictor:
    """One loaded model with its caches. Safe to call from several threads."""

    def __init__(
        self,
        backend: Backend,
        report: BackendReport,
        embeddings_cache: Sam2ImageEmbeddingsInMemoryCache | None = None,
        masks_cache: Sam2LowResolutionMasksInMemoryCache | None = None,
        memory_watch: MemoryWatch | None = None,
    ) -> None:
        self.backend = backend
        self._report = report
        self._memory_watch = memory_watch
        self.embeddings_cache = embeddings_cache
        self.masks_cache = masks_cache
        self.times = CallTimes()
        """When what was called, for `stats`."""
        backend.set_oom_handler(self.clear_cache)
        self._tag = f"{backend.variant.name}/{backend.image_size}/{backend.precision}/{backend.name}"

    @property
    def report(self) -> BackendReport:
        """Which backend was taken, and why every better one was not."""
        return self.backend.report or self._report

    @property
    def variant(self) -> Variant:
        """The model that was loaded."""
        return self.backend.variant

    @property
    def image_size(self) -> int:
        """Side of the square model input in pixels."""
        return self.backend.image_size

    @property
    def backend_name(self) -> str:
        """Name of the backend in use."""
        return self.backend.name

    @property
    def low_res_hw(self) -> tuple[int, int]:
        """Height and width of the logits that predictions return and `mask_input` takes."""
        return (self.image_size // 4, self.image_size // 4)

    def embed_images(
        self,
        images: Any,
        use_embeddings_cache: bool = True,
        image_hashes: str | Sequence[str] | None = None,
        input_color_format: str | None = None,
    ) -> list[Sam2ImageEmbedding]:
        """Encodes one image or a list of images.

        Args:
            images: numpy (H, W, 3) as OpenCV gives it (also grey, with alpha, uint16, or floating point in 0..1), a
                torch tensor (3, H, W) or a batch (B, 3, H, W), or a list of such.
            use_embeddings_cache: look the images up in the embeddings cache, and keep them there.
            image_hashes: what identifies the images, one string each, instead of a hash of their pixels (saves
                reading them). Model, size, and colour order enter the key all the same.
            input_color_format: "bgr" or "rgb"; None is BGR for numpy and RGB for torch.

        Returns:
            One embedding an image, reusable with `segment_images`.

        Raises:
            InvalidInputError: an image of an unusable shape, type or range; hashes of another number than images.
        """
        frames = _as_list(images)
        hashes = _check_hashes(image_hashes, len(frames))
        embeddings = []
        for frame, given in zip(frames, hashes, strict=True):
            with self.times.timed("frame"):
                embeddings.append(self._embed_one(frame, given, input_color_format, use_embeddings_cache))
        return embeddings

    def segment_images(
        self,
        images: Any = None,
        embeddings: Sam2ImageEmbedding | Sequence[Sam2ImageEmbedding] | None = None,
        image_hashes: str | Sequence[str] | None = None,
        point_coordinates: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multi_mask_output: bool = True,
        return_logits: bool = False,
        input_color_format: str | None = None,
        mask_threshold: float = 0.0,
        use_embeddings_cache: bool = True,
        use_mask_input_cache: bool = False,
        load_from_mask_input_cache: bool = False,
        save_to_mask_input_cache: bool = False,
    ) -> list[Sam2Prediction]:
        """Masks for the prompts, one prediction an image.

        Args:
            images, image_hashes, input_color_format, use_embeddings_cache: as for `embed_images`.
            embeddings: what `embed_images` returned, instead of `images`.
            point_coordinates: (N, 2) points [x, y] in photo pixels, or (K, N, 2) for K objects. A list holds one such
                array an image; an array goes to every image.
            point_labels: (N,) or (K, N): 1 foreground, 0 background.
            boxes: (4,) or (1, 4) [x_min, y_min, x_max, y_max] in photo pixels, or (K, 4) for K objects.
            mask_input: an earlier prediction of the same image or its `logits`, to refine; of several masks the best.
            multi_mask_output: three alternatives a prompt instead of one mask.
            return_logits: masks as float32 logits instead of bool.
            mask_threshold: logit above which a pixel belongs to the mask.
            use_mask_input_cache: both of the next two.
            load_from_mask_input_cache: refine from the cached logits of the largest earlier prompt on this image that
                is part of this one, where `mask_input` gives none.
            save_to_mask_input_cache: keep the best logits for that.

        Returns:
            For one object masks (C, H, W), scores (C,), logits (C, 4E, 4E), for K objects with a leading K; C is 3,
            or 1 without `multi_mask_output`.

        Raises:
            InvalidInputError: unusable images or prompts; images and embeddings both or neither; an embedding of
                another model; the masks cache asked for where the model was loaded without one.
        """
        self._check_masks_cache(use_mask_input_cache, load_from_mask_input_cache, save_to_mask_input_cache)
        if (images is None) == (embeddings is None):
            raise InvalidInputError(
                "nothing to segment" if images is None else "both images and embeddings given",
                expected="images or embeddings",
                got="neither" if images is None else "both",
                remedy="pass embeddings=model.embed_images(image), or the image itself",
            )
        if embeddings is None:
            embeddings = self.embed_images(images, use_embeddings_cache, image_hashes, input_color_format)
        found = self._check_embeddings(embeddings)
        sizes_hw = [e.image_size_hw for e in found]
        prompts = read_prompts(sizes_hw, point_coordinates, point_labels, boxes, mask_input, self.low_res_hw)
        load = use_mask_input_cache or load_from_mask_input_cache
        save = use_mask_input_cache or save_to_mask_input_cache
        predictions = []
        for embedding, prompt in zip(found, prompts, strict=True):
            with self.times.timed("segment"):
                predictions.append(
                    self._segment_one(
                        embedding, prompt, multi_mask_output, return_logits, float(mask_threshold), load, save
                    )
                )
        return predictions

    def segment_everything(self, image: Any, *, input_color_format: str | None = None, **options: Any) -> FoundMasks:
        """Masks of everything on one image, found by a grid of clicks; takes a decode a click.

        Args:
            image, input_color_format: as for `embed_images`, one image.
            options: those of `EverythingOptions`, such as points_per_side=32, min_score=0.8, crop_layers=0.

        Returns:
            The masks, the largest first, each with area, box, score and stability.

        Raises:
            InvalidInputError: an unusable image, an unknown option or one out of range.
        """
        known = {field.name for field in fields(EverythingOptions)}
        if not known >= options.keys():
            unknown = ", ".join(sorted(options.keys() - known))
            raise InvalidInputError("unknown option", expected=f"one of {', '.join(sorted(known))}", got=unknown)
        pixels, order = frame_to_uint8(image, input_color_format)

        def embed(part: NDArray[np.uint8], color_order: str) -> Sam2ImageEmbedding:
            return self.embed_images(part, input_color_format=color_order)[0]

        return segment_everything(embed, self.backend, pixels, order, EverythingOptions(**options))

    def stats(self) -> ModelStats:
        """What this model has done since it was loaded, and how the machine fares; takes a few milliseconds.

        `stats().to_prometheus()` is the same in Prometheus' text format.
        """
        caches = {"embeddings": self.embeddings_cache, "masks": self.masks_cache}
        watch, before, now = self._memory_watch, self._report.skipped, self.report.skipped
        return ModelStats(
            model=self.variant.model_id,
            backend=self.backend_name,
            image_size=self.image_size,
            precision=self.backend.precision,
            calls=self.times.latencies(),
            caches={name: cache.statistics for name, cache in caches.items() if cache is not None},
            fallbacks=now[len(before) :],
            **read_machine_metrics(watch.gpu if watch is not None else None),
        )

    def close(self) -> None:
        """Gives the model's memory and its caches back; the model is not used afterwards."""
        if self.embeddings_cache is not None:
            self.embeddings_cache.clear()
        if self.masks_cache is not None:
            self.masks_cache.clear()
        self.backend.close()

    def clear_cache(self) -> None:
        """Empties the embeddings cache, for a device that has run out of memory."""
        if self.embeddings_cache is not None:
            self.embeddings_cache.clear()

    def _shrink_cache_under_pressure(self) -> None:
        """Lets the cache make up for what the machine has come to lack, before more memory is taken."""
        if self._memory_watch is not None and self.embeddings_cache:
            missing = self._memory_watch.shortfall_bytes()
            if missing:
                self.embeddings_cache.release(missing)

    def _embed_one(
        self, image: Any, given_hash: str | None, color_format: str | None, use_cache: bool
    ) -> Sam2ImageEmbedding:
        pixels, order = frame_to_uint8(image, color_format)
        key = f"{self._tag}/{_image_key(pixels, order, given_hash)}"

        def encode() -> Sam2ImageEmbedding:
            self._shrink_cache_under_pressure()
            frame = shrunk_frame(pixels, self.image_size) if self.backend.accepts_uint8 else None
            with self.times.timed("embed"):
                if frame is not None:
                    features = self.backend.encode_frame(frame, order)
                else:
                    features = self.backend.encode(image_to_input(pixels, order, self.image_size))
            return Sam2ImageEmbedding(features, (pixels.shape[0], pixels.shape[1]), key, self._tag)

        if self.embeddings_cache is None or not use_cache:
            return encode()
        embedding: Sam2ImageEmbedding = self.embeddings_cache.get_or_compute(key, encode)
        return embedding

    def _segment_one(
        self,
        embedding: Sam2ImageEmbedding,
        prompt: ImagePrompt,
        multi_mask_output: bool,
        return_logits: bool,
        mask_threshold: float,
        load_cached: bool,
        save_cached: bool,
    ) -> Sam2Prediction:
        mask_input = prompt.mask_input
        if mask_input is None and load_cached:
            mask_input = self._cached_logits(embedding, prompt)
        coords, labels = prompts_to_model(prompt, embedding.image_size_hw, self.image_size)
        out = self.backend.decode(embedding.features, coords, labels, mask_input)
        logits, scores = select_masks(out.low_res_masks, out.iou_scores, multi_mask_output)
        if save_cached and self.masks_cache is not None:
            best = logits[np.arange(len(logits)), scores.argmax(axis=1)]
            self.masks_cache.put((embedding.key, prompt.items()), np.clip(best, -LOGIT_LIMIT, LOGIT_LIMIT))
        if not prompt.per_object:
            logits, scores = logits[0], scores[0]
        masks = logits_to_masks(logits, embedding.image_size_hw, mask_threshold, return_logits)
        returned = ScoredLogits(np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT), scores)
        return Sam2Prediction(masks, scores, returned)

    def _cached_logits(self, embedding: Sam2ImageEmbedding, prompt: ImagePrompt) -> FloatArray | None:
        assert self.masks_cache is not None
        cached = self.masks_cache.latest_for(embedding.key, prompt.items())
        return cached if cached is not None and len(cached) == prompt.num_objects else None

    def _check_masks_cache(self, *asked: bool) -> None:
        if any(asked) and self.masks_cache is None:
            raise InvalidInputError(
                "mask cache asked for, but the model has none",
                expected="a model loaded with sam2_low_resolution_masks_cache",
                got="no cache",
                remedy="from_pretrained(..., sam2_low_resolution_masks_cache="
                "Sam2LowResolutionMasksInMemoryCache.init(size_limit=500))",
            )

    def _check_embeddings(
        self, embeddings: Sam2ImageEmbedding | Sequence[Sam2ImageEmbedding]
    ) -> list[Sam2ImageEmbedding]:
        found = [embeddings] if isinstance(embeddings, Sam2ImageEmbedding) else list(embeddings)
        for i, embedding in enumerate(found):
            if not isinstance(embedding, Sam2ImageEmbedding):
                raise InvalidInputError(
                    f"embeddings[{i}] is not an embedding",
                    expected="what embed_images returned",
                    got=type(embedding).__name__,
                )
            if embedding.model_tag != self._tag:
                raise InvalidInputError(
                    f"embeddings[{i}] was made by another model",
                    expected=self._tag,
                    got=embedding.model_tag,
                    remedy="embed the image again with this model",
                )
        return found


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, (list, tuple)):
        return list(images)
    if is_torch_tensor(images) and images.ndim == 4:
        return list(images)
    return [images]


def _check_hashes(image_hashes: str | Sequence[str] | None, count: int) -> list[str | None]:
    if image_hashes is None:
        return [None] * count
    hashes: list[str | None] = [image_hashes] if isinstance(image_hashes, str) else list(image_hashes)
    if len(hashes) != count:
        raise InvalidInputError("image_hashes do not match the images", expected=f"{count} strings", got=len(hashes))
    return hashes


def _image_key(pixels: NDArray[np.uint8], order: str, given_hash: str | None) -> str:
    digest = given_hash if given_hash is not None else hashlib.sha256(pixels.data).hexdigest()
    height, width = pixels.shape[:2]
    return f"{height}x{width}/{order}/{digest}"
