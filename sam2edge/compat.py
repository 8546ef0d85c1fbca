"""For scripts written for Meta's image predictor: change the import, the rest runs as it is.

    from sam2edge.compat import SAM2ImagePredictor, build_sam2

in place of `sam2.sam2_image_predictor` and `sam2.build_sam`. Images are RGB here, as Meta's predictor has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.automodel import AutoModel
from sam2edge.datatypes import Sam2ImageEmbedding, Sam2Prediction
from sam2edge.errors import InvalidInputError, UnknownModelError
from sam2edge.predictor import ImagePredictor
from sam2edge.variants import find_variant

Results = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""masks, scores and low-resolution logits."""

_SIZES = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}


def build_sam2(
    config_file: str, ckpt_path: str | None = None, device: Any = None, mode: str = "eval", **unused: Any
) -> ImagePredictor:
    """The model that one of Meta's configuration files names, such as "configs/sam2.1/sam2.1_hiera_t.yaml".

    Without `ckpt_path` the weights, graphs or engines in the store are used. `device` is a name or a torch device;
    None and devices other than "cpu" and "cuda" take what works here. `mode` and further options are ignored.

    Raises UnknownModelError for another file, and what `AutoModel.from_pretrained` raises.
    """
    found = re.search(r"(sam2(?:\.1)?)_hiera_(t|s|b\+|l)(?:\.yaml)?$", str(config_file))
    if found is None:
        raise UnknownModelError(
            "unknown configuration", expected="sam2_hiera_{t,s,b+,l}.yaml or sam2.1_hiera_...", got=config_file
        )
    release = "sam2.1" if found[1] == "sam2.1" else "sam2.0"
    return AutoModel.from_pretrained(
        f"{release}_hiera_{_SIZES[found[2]]}", checkpoint=ckpt_path, device=_device_name(device)
    )


class SAM2ImagePredictor:
    """Meta's `SAM2ImagePredictor` on a model of sam2edge: set an image, then predict masks for its prompts."""

    def __init__(
        self,
        sam_model: ImagePredictor,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        **unused: Any,
    ) -> None:
        """`sam_model` is what `build_sam2` or `AutoModel.from_pretrained` gave.

        The options are those of `segment_images`.
        """
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self._max_hole_area, self._max_sprinkle_area = max_hole_area, max_sprinkle_area
        self._embeddings: list[Sam2ImageEmbedding] = []
        self._is_batch = False

    @classmethod
    def from_pretrained(cls, model_id: str, device: Any = None, **unused: Any) -> SAM2ImagePredictor:
        """By a name of the Hugging Face hub, "facebook/sam2.1-hiera-tiny", or by one of sam2edge.

        Nothing is downloaded: the model must be installed (`sam2edge models install tiny`).
        """
        name = model_id.removeprefix("facebook/").replace("-", "_")
        if name.startswith("sam2_"):
            name = name.replace("sam2_", "sam2.0_", 1)
        return cls(AutoModel.from_pretrained(find_variant(name).name, device=_device_name(device)))

    @property
    def device(self) -> str:
        """The device that computes: "cpu" or "cuda"."""
        return str(getattr(self.model.backend, "device", "cuda" if self.model.backend_name == "tensorrt" else "cpu"))

    @property
    def _features(self) -> Mapping[str, Any] | None:
        """What Meta's notebooks print: "image_embed" (1, D, E, E) and "high_res_feats", empty for EfficientTAM."""
        if not self._embeddings:
            return None
        tensors = self._embeddings[0].features.tensors
        return {
            "image_embed": tensors["image_embed"],
            "high_res_feats": [tensors[name] for name in ("high_res_0", "high_res_1") if name in tensors],
        }

    def set_image(self, image: Any) -> None:
        """Encodes an image: numpy (H, W, 3) RGB, or PIL."""
        self._embeddings, self._is_batch = self.model.embed_images(image, input_color_format="rgb"), False

    def set_image_batch(self, image_list: Sequence[Any]) -> None:
        """Encodes several images, for `predict_batch`."""
        self._embeddings = self.model.embed_images(list(image_list), input_color_format="rgb")
        self._is_batch = True

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Results:
        """Masks for the image that was set.

        Args:
            point_coords, point_labels: (N, 2) x, y in pixels with (N,), or (K, N, 2) with (K, N) for K objects.
            box: (4,) or (K, 4) x_min, y_min, x_max, y_max in pixels.
            mask_input: (1, h, w), one of the logits of an earlier prediction.
            multimask_output: three masks instead of one.
            return_logits: masks as logits instead of 0 and 1.
            normalize_coords: False where coordinates are shares of width and height, 0..1.

        Returns:
            masks (C, H, W) float32 of 0 and 1, scores (C,), logits (C, h, w), with a leading K for several objects.

        Raises:
            InvalidInputError: no image was set, or an unusable prompt.
        """
        if not self._embeddings or self._is_batch:
            raise InvalidInputError("no image", expected="a call of set_image(image) before", got="none")
        prompts = (point_coords, point_labels, box, mask_input)
        return self._predict_one(self._embeddings[0], prompts, multimask_output, return_logits, normalize_coords)

    def predict_batch(
        self,
        point_coords_batch: Sequence[Any] | None = None,
        point_labels_batch: Sequence[Any] | None = None,
        box_batch: Sequence[Any] | None = None,
        mask_input_batch: Sequence[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """As `predict`, for each image of `set_image_batch`; the arguments have one element an image."""
        if not self._is_batch:
            raise InvalidInputError("no images", expected="a call of set_image_batch(images) before", got="none")
        parts = (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)
        found = [
            self._predict_one(
                embedding,
                tuple(None if part is None else part[i] for part in parts),
                multimask_output,
                return_logits,
                normalize_coords,
            )
            for i, embedding in enumerate(self._embeddings)
        ]
        return [masks for masks, _, _ in found], [scores for _, scores, _ in found], [logits for _, _, logits in found]

    def get_image_embedding(self) -> Any:
        """(1, D, E, E): the embedding of the image that was set, in the backend's own memory."""
        if self._features is None:
            raise InvalidInputError("no image", expected="a call of set_image(image) before", got="none")
        return self._features["image_embed"]

    def reset_predictor(self) -> None:
        """Forgets the images."""
        self._embeddings, self._is_batch = [], False

    def _predict_one(
        self,
        embedding: Sam2ImageEmbedding,
        prompts: tuple[Any, ...],
        multimask_output: bool,
        return_logits: bool,
        normalize_coords: bool,
    ) -> Results:
        points, labels, box, mask_input = (None if part is None else np.asarray(part) for part in prompts)
        if not normalize_coords:
            height, width = embedding.image_size_hw
            points = None if points is None else points * (width, height)
            box = None if box is None else box.reshape(-1, 4) * (width, height, width, height)
        prediction: Sam2Prediction = self.model.segment_images(
            embeddings=embedding,
            point_coordinates=points,
            point_labels=labels,
            boxes=box,
            mask_input=mask_input,
            multi_mask_output=multimask_output,
            return_logits=return_logits,
            mask_threshold=self.mask_threshold,
            max_hole_area=self._max_hole_area,
            max_sprinkle_area=self._max_sprinkle_area,
        )[0]
        masks, scores, logits = (
            np.asarray(part, np.float32) for part in (prediction.masks, prediction.scores, prediction.logits)
        )
        return (masks[0], scores[0], logits[0]) if scores.shape[:-1] == (1,) else (masks, scores, logits)


def _device_name(device: Any) -> str | None:
    name = None if device is None else str(device).partition(":")[0]
    return name if name in ("cpu", "cuda") else None
