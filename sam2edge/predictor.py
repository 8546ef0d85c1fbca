"""Images: embed once, segment with any number of prompts."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend
from sam2edge.datatypes import (
    Features,
    FloatArray,
    ImagePrompt,
    Sam2ImageEmbedding,
    Sam2Prediction,
    ScoredLogits,
)
from sam2edge.errors import InvalidInputError
from sam2edge.everything import EverythingOptions, FoundMasks, segment_everything
from sam2edge.imaging.frame import (
    LOGIT_LIMIT,
    frame_to_uint8,
    is_torch_tensor,
    logits_to_masks,
    select_masks,
)
from sam2edge.imaging.prompts import prompts_to_model, read_prompts
from sam2edge.imaging.refine import CROP, NONE, WAYS, PhotoMasks, cut_at_boxes, look_again, refine_logits
from sam2edge.imaging.regions import clean_logits
from sam2edge.loaded_model import LoadedModel

_PLAIN = (np.ndarray, type(None))


class MaskOptions(NamedTuple):
    """How low-resolution logits become masks: three or one, as logits or bool, cleaned, refined in one of `WAYS`."""

    several: bool
    return_logits: bool
    threshold: float
    max_hole_area: float
    max_sprinkle_area: float
    refine: str


class ImagePredictor(LoadedModel):
    """Photos on a loaded model. Safe to call from several threads."""

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
        return [
            self._embed(image, image_hash, input_color_format, use_embeddings_cache)
            for image, image_hash in _pair_with_hashes(images, image_hashes)
        ]

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
        mask_threshold: float | None = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        use_embeddings_cache: bool = True,
        use_mask_input_cache: bool = False,
        load_from_mask_input_cache: bool = False,
        save_to_mask_input_cache: bool = False,
        as_torch: bool | None = None,
        refine: str | None = None,
    ) -> list[Sam2Prediction]:
        """Masks for the prompts, one prediction an image.

        Args:
            images, image_hashes, input_color_format, use_embeddings_cache: as for `embed_images`.
                `image_hashes` alone stand for images that the embeddings cache holds, see `retrieve_embeddings`.
            embeddings: what `embed_images` returned, instead of `images`.
            point_coordinates: (N, 2) points [x, y] in photo pixels, or (K, N, 2) for K objects. A list holds one such
                array an image; an array, or a list of one, goes to every image.
            point_labels: (N,) or (K, N): 1 foreground, 0 background.
            boxes: (4,) or (1, 4) [x_min, y_min, x_max, y_max] in photo pixels, or (K, 4) for K objects.
            mask_input: an earlier prediction of the same image or its `logits`, to refine; of several masks the best.
            multi_mask_output: three alternatives a prompt instead of one mask.
            return_logits: masks as float32 logits instead of bool.
            mask_threshold: logit above which a pixel belongs to the mask; None is 0.
            max_hole_area, max_sprinkle_area: holes and specks of at most so many pixels of the low-resolution mask are
                filled and removed, 0: none are. The returned `logits` keep them.
            use_mask_input_cache: both of the next two.
            load_from_mask_input_cache: refine from the cached logits of the largest earlier prompt on this image that
                is part of this one, where `mask_input` gives none.
            save_to_mask_input_cache: keep the best logits for that.
            as_torch: predictions hold torch tensors; None: where images or prompts are torch tensors, on their device.
            refine: "clean" removes specks and small holes and cuts a box's mask at its box (not from logits); "crop"
                besides encodes a crop around each box and takes its masks from there, for objects that are small in
                the picture (one more encoding a box; needs `images`); "none" gives the masks as the model made them.
                None is "clean" for the embedded model and "none" for the others.

        Returns:
            For one object masks (C, H, W), scores (C,), logits (C, 4E, 4E), for K objects with a leading K; C is 3,
            or 1 without `multi_mask_output`.

        Raises:
            InvalidInputError: unusable images or prompts; images and embeddings both or neither; an embedding of
                another model; the masks cache asked for where the model was loaded without one.
        """
        load = use_mask_input_cache or load_from_mask_input_cache
        save = use_mask_input_cache or save_to_mask_input_cache
        if (load or save) and self.masks_cache is None:
            raise InvalidInputError(
                "mask cache asked for, but the model has none",
                expected="a model loaded with sam2_low_resolution_masks_cache",
                got="no cache",
                remedy="from_pretrained(..., sam2_low_resolution_masks_cache="
                "Sam2LowResolutionMasksInMemoryCache.init(size_limit=500))",
            )
        if images is None and embeddings is None and image_hashes is not None and use_embeddings_cache:
            embeddings = self.retrieve_embeddings(image_hashes)
        if (images is None) == (embeddings is None):
            raise InvalidInputError(
                "nothing to segment" if images is None else "both images and embeddings given",
                expected="images or embeddings",
                got="neither" if images is None else "both",
                remedy="pass embeddings=model.embed_images(image), or the image itself",
            )
        pairs = list(_pair_with_hashes(images, image_hashes))
        if embeddings is not None:
            found = self._check_embeddings(embeddings)
        else:
            found = [self._embed(image, key, input_color_format, use_embeddings_cache) for image, key in pairs]
        sizes_hw = [e.image_size_hw for e in found]
        low_res_hw = (self.backend.image_size // 4,) * 2
        prompts = read_prompts(sizes_hw, point_coordinates, point_labels, boxes, mask_input, low_res_hw)
        options = read_mask_options(
            multi_mask_output,
            return_logits,
            mask_threshold,
            max_hole_area,
            max_sprinkle_area,
            self.backend.variant.refine if refine is None else refine,
            has_images=images is not None,
        )
        is_cropped = options.refine == CROP
        frames = [frame_to_uint8(image, input_color_format) if is_cropped else None for image, _ in pairs]
        predictions = [
            self.retry_on_next_backend(self._segment, embedding, prompt, options, load, save, frame)
            for embedding, prompt, frame in zip(found, prompts, frames or [None] * len(found), strict=True)
        ]
        tensor = _first_tensor(images, point_coordinates, point_labels, boxes, mask_input)
        if as_torch or (as_torch is None and tensor is not None):
            return [prediction.as_torch(getattr(tensor, "device", None)) for prediction in predictions]
        return predictions

    def retrieve_embeddings(self, image_hashes: str | Sequence[str]) -> list[Sam2ImageEmbedding]:
        """The embeddings that the cache holds of images, by the hashes that `embed_images` was given, or by those that
        the embeddings have (`image_hash`).

        Raises InvalidInputError, naming it, for an image that is not in the cache (any more).
        """
        hashes = [image_hashes] if isinstance(image_hashes, str) else list(image_hashes)
        keys = [] if self.embeddings_cache is None else [str(key) for key in self.embeddings_cache.list_keys()]
        found: list[Sam2ImageEmbedding] = []
        for wanted in hashes:
            ends = (wanted if wanted.startswith(f"{self._tag}/") else f"/{wanted}",)
            key = next((k for k in reversed(keys) if k.startswith(f"{self._tag}/") and k.endswith(ends)), None)
            embedding = None if key is None or self.embeddings_cache is None else self.embeddings_cache.get(key)
            if embedding is None:
                raise InvalidInputError(
                    "image is not in the embeddings cache",
                    expected="the hash of an image that was embedded and is still kept",
                    got=repr(wanted),
                    remedy="pass the image, or embed_images(image, image_hashes=...) first",
                )
            found.append(embedding)
        return found

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

        return segment_everything(
            embed, self.backend, pixels, order, EverythingOptions.for_model(self.variant, **options)
        )

    def _embed(
        self, image: Any, image_hash: str | None, color_format: str | None, use_cache: bool
    ) -> Sam2ImageEmbedding:
        started = time.perf_counter()
        pixels, order = frame_to_uint8(image, color_format)
        size_hw = (pixels.shape[0], pixels.shape[1])
        digest = hashlib.sha256(pixels.data).hexdigest() if image_hash is None else image_hash
        key = f"{self._tag}/{size_hw[0]}x{size_hw[1]}/{order}/{digest}"
        encode = partial(self.retry_on_next_backend, self.encode, pixels, order)
        if self.embeddings_cache is None or not use_cache:
            embedding = Sam2ImageEmbedding(encode(), size_hw, key, self._tag)
        else:
            embedding = self.embeddings_cache.get_or_compute(
                key, lambda: Sam2ImageEmbedding(encode(), size_hw, key, self._tag)
            )
        self.count_call("frame", started)
        return embedding

    def _segment(
        self,
        embedding: Sam2ImageEmbedding,
        prompt: ImagePrompt,
        options: MaskOptions,
        load_cached: bool,
        save_cached: bool,
        frame: tuple[NDArray[np.uint8], str] | None,
    ) -> Sam2Prediction:
        started = time.perf_counter()
        if prompt.mask_input is None and load_cached:
            prompt = replace(prompt, mask_input=self._find_cached_logits(embedding, prompt))
        found = find_masks(self.backend, embedding.features, embedding.image_size_hw, prompt, options)
        if save_cached and self.masks_cache is not None:
            best = found.logits[np.arange(len(found.logits)), found.scores.argmax(axis=1)]
            self.masks_cache.put((embedding.key, prompt.items()), np.clip(best, -LOGIT_LIMIT, LOGIT_LIMIT))
        if frame is not None and prompt.boxes_xyxy is not None:
            pixels, order = frame

            def find_in_crop(crop: NDArray[np.uint8], inner: ImagePrompt) -> PhotoMasks:
                return find_masks(self.backend, self.encode(crop, order), crop.shape[:2], inner, options)

            look_again(found, pixels, prompt, find_in_crop)
        masks, scores, logits = found if prompt.per_object else (part[0] for part in found)
        limited = ScoredLogits(np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT), scores)
        self.count_call("segment", started)
        return Sam2Prediction(masks, scores, limited)

    def _find_cached_logits(self, embedding: Sam2ImageEmbedding, prompt: ImagePrompt) -> FloatArray | None:
        assert self.masks_cache is not None
        cached = self.masks_cache.latest_for(embedding.key, prompt.items())
        return cached if cached is not None and len(cached) == prompt.num_objects else None

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


def _pair_with_hashes(images: Any, image_hashes: str | Sequence[str] | None) -> Iterable[tuple[Any, str | None]]:
    """Each image with the hash that the caller gave for it, or None; nothing for no images."""
    if images is None:
        return []
    is_batch = isinstance(images, (list, tuple)) or (getattr(images, "ndim", 0) == 4 and is_torch_tensor(images))
    frames = list(images) if is_batch else [images]
    if image_hashes is None:
        return [(frame, None) for frame in frames]
    hashes = [image_hashes] if isinstance(image_hashes, str) else list(image_hashes)
    if len(hashes) != len(frames):
        raise InvalidInputError(
            "image_hashes do not match the images", expected=f"{len(frames)} strings", got=len(hashes)
        )
    return zip(frames, hashes, strict=True)


def _first_tensor(*inputs: Any) -> Any:
    """The first torch tensor among what was passed, also in lists; None where there is none."""
    flat = (part for value in inputs for part in (value if isinstance(value, (list, tuple)) else (value,)))
    return next((part for part in flat if not isinstance(part, _PLAIN) and is_torch_tensor(part)), None)


def read_mask_options(
    several: bool,
    return_logits: bool,
    threshold: Any,
    max_hole_area: float,
    max_sprinkle_area: float,
    refine: str,
    has_images: bool,
) -> MaskOptions:
    """Options as a caller gave them. Raises InvalidInputError for a threshold that is no number, and a `refine` that is
    unknown or, without images, cannot be done."""
    try:
        level = 0.0 if threshold is None else float(threshold)
    except (TypeError, ValueError, OverflowError):
        level = math.nan
    if not math.isfinite(level):
        got = repr(threshold)[:80]
        raise InvalidInputError("mask_threshold cannot be used", expected="a finite number, or None", got=got)
    if refine not in WAYS:
        raise InvalidInputError("unknown way to refine", expected=f"one of {', '.join(WAYS)}", got=repr(refine))
    if refine == CROP and not has_images:
        raise InvalidInputError(
            'refine="crop" looks at the image again',
            expected="images",
            got="embeddings",
            remedy='pass the image itself, or refine="clean"',
        )
    return MaskOptions(several, return_logits, level, float(max_hole_area), float(max_sprinkle_area), refine)


def find_masks(
    backend: Backend, features: Features, size_hw: tuple[int, int], prompt: ImagePrompt, options: MaskOptions
) -> PhotoMasks:
    """The masks of one prompt on the encoded photo of `size_hw` pixels."""
    coords, labels = prompts_to_model(prompt, size_hw, backend.image_size)
    out = backend.decode(features, coords, labels, prompt.mask_input)
    logits, scores = select_masks(out.low_res_masks, out.iou_scores, options.several)
    cleaned = logits
    if options.max_hole_area > 0 or options.max_sprinkle_area > 0:
        cleaned = clean_logits(logits, options.threshold, options.max_hole_area, options.max_sprinkle_area)
    is_refined = not (options.return_logits or options.refine == NONE)
    if is_refined:
        cells = coords * (logits.shape[-1] / backend.image_size)
        cleaned = refine_logits(cleaned, cells, labels, options.threshold)
    masks = logits_to_masks(cleaned, size_hw, options.threshold, options.return_logits)
    if is_refined and prompt.boxes_xyxy is not None:
        cut_at_boxes(masks, prompt.boxes_xyxy)
    return PhotoMasks(masks, scores, logits)
