"""The one truth about the tensors that cross a graph boundary: their names, shapes, dtypes and special values.

The exporter names ONNX tensors from here and each backend checks what it loaded against it. Shapes are static:
S is the side of the square model input in pixels, E = S / 16 the side of the embedding grid, D the model width,
M the width of a memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from sam2edge.variants import Variant

CONTRACT_VERSION = 1

# Labels of point prompts. 2 and 3 are a box's corners; ABSENT marks a static slot that no prompt uses.
BACKGROUND = 0
FOREGROUND = 1
BOX_TOP_LEFT = 2
BOX_BOTTOM_RIGHT = 3
PADDING = -1
ABSENT = -2

# Added to attention scores of absent tokens: exp() of it is 0 in float32, and it still fits float16.
MASKED_OUT = -30000.0

NUM_MASKS = 4
"""Masks a decoder call gives: the single mask first, then three alternatives."""

NUM_PROMPT_SLOTS = 32
"""Points a static mask decoder takes; a box uses two."""

IMAGE_ENCODER = "image_encoder"
MASK_DECODER = "mask_decoder"


@dataclass(frozen=True)
class TensorSpec:
    """Name, static shape and dtype ("float32", "int32") of one graph input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph, in order."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def embedding_specs(variant: Variant, image_size: int) -> tuple[TensorSpec, ...]:
    """What one encoded image consists of.

    `image_embed` includes the embedding that says "no memory" (still images); `vision_features` is the same without
    it, for the memory modules.
    """
    d, e = variant.d_model, image_size // 16
    return (
        TensorSpec("image_embed", (1, d, e, e)),
        TensorSpec("high_res_0", (1, d // 8, 4 * e, 4 * e)),
        TensorSpec("high_res_1", (1, d // 4, 2 * e, 2 * e)),
        TensorSpec("vision_features", (1, d, e, e)),
    )


def graph_specs(variant: Variant, image_size: int, prompt_slots: int = NUM_PROMPT_SLOTS) -> dict[str, GraphSpec]:
    """The graphs of one model at one image size, by name.

    `image` is RGB, (x / 255 - mean) / std with ImageNet's figures; `point_coords` are model pixels (x, y);
    `mask_input` and `low_res_masks` are logits; `iou_scores` lie in 0..1; `object_score` is a logit.
    """
    d, side = variant.d_model, image_size // 4
    embedding = embedding_specs(variant, image_size)
    encoder = GraphSpec(IMAGE_ENCODER, (TensorSpec("image", (1, 3, image_size, image_size)),), embedding)
    decoder = GraphSpec(
        MASK_DECODER,
        (
            *embedding[:3],
            TensorSpec("point_coords", (1, prompt_slots, 2)),
            TensorSpec("point_labels", (1, prompt_slots), "int32"),
            TensorSpec("mask_input", (1, 1, side, side)),
            TensorSpec("has_mask", (1,)),
        ),
        (
            TensorSpec("low_res_masks", (1, NUM_MASKS, side, side)),
            TensorSpec("iou_scores", (1, NUM_MASKS)),
            TensorSpec("object_score", (1, 1)),
            TensorSpec("object_pointers", (1, NUM_MASKS, d)),
        ),
    )
    return {spec.name: spec for spec in (encoder, decoder)}
