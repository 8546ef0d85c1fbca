"""The one truth about the tensors that cross a graph boundary: their names, shapes, dtypes and special values.

The exporter names ONNX tensors from here and each backend checks what it loaded against it. Shapes are static:
S is the side of the square model input in pixels, E = S / 16 the side of the embedding grid, D the model width,
M the width of a memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from sam2edge.errors import InvalidInputError
from sam2edge.variants import Variant

CONTRACT_VERSION = 2

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

NUM_POINTER_SLOTS = 16
"""Object pointers that the memory attention takes."""

IMAGE_ENCODER = "image_encoder"
MASK_DECODER = "mask_decoder"
MEMORY_ATTENTION = "memory_attention"
MEMORY_ENCODER = "memory_encoder"

FRAME = "frame_"
"""Begins the name of a graph that is made for a camera's frames."""

IMAGE_GRAPHS = (IMAGE_ENCODER, MASK_DECODER)
MEMORY_GRAPHS = (MEMORY_ATTENTION, MEMORY_ENCODER)
"""What tracking needs besides; without them a model segments images all the same."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, static shape and dtype ("float32", "int32", "uint8") of one graph input or output."""

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

    `image_embed` includes the embedding that says "no memory" (still images); `vision_features`, the last, is the same
    without it, for the memory modules. Variants without `has_high_res` have these two alone.
    """
    d, e = variant.d_model, image_size // 16
    high_res = (
        TensorSpec("high_res_0", (1, d // 8, 4 * e, 4 * e)),
        TensorSpec("high_res_1", (1, d // 4, 2 * e, 2 * e)),
    )
    embed, vision = TensorSpec("image_embed", (1, d, e, e)), TensorSpec("vision_features", (1, d, e, e))
    return (embed, *(high_res if variant.has_high_res else ()), vision)


def graph_specs(
    variant: Variant, image_size: int, prompt_slots: int = NUM_PROMPT_SLOTS, memory_slots: int | None = None
) -> dict[str, GraphSpec]:
    """The graphs of one model at one image size, by name.

    `memory_slots` is how many memories the memory attention takes, 1 to the variant's own number (None).

    `image` is RGB, (x / 255 - mean) / std with ImageNet's figures; `point_coords` are model pixels (x, y);
    `mask_input` and `low_res_masks` are logits; `iou_scores` lie in 0..1; `object_score` is a logit.
    """
    d, side = variant.d_model, image_size // 4
    embedding = embedding_specs(variant, image_size)
    encoder = GraphSpec(IMAGE_ENCODER, (TensorSpec("image", (1, 3, image_size, image_size)),), embedding)
    decoder = GraphSpec(
        MASK_DECODER,
        (
            *embedding[:-1],
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
    attention = _memory_attention_spec(variant, image_size, memory_slots or variant.num_mask_slots)
    specs = (encoder, decoder, attention, _memory_encoder_spec(variant, image_size))
    return {spec.name: spec for spec in specs}


def read_frame_size(text: str) -> tuple[int, int]:
    """ "1920x1080" -> height and width in pixels. Raises InvalidInputError for anything else."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 16384 and 0 < int(height) <= 16384):
        raise InvalidInputError("frame size cannot be used", expected="WxH in pixels, such as 1920x1080", got=text)
    return int(height), int(width)


def frame_spec(frame_hw: tuple[int, int], image_size: int) -> GraphSpec:
    """The graph that makes the model's input of a camera's frames of one size, named `frame_<W>x<H>`.

    `frame` is as the camera gives it; `channels` says which of its planes are red, green and blue.
    """
    height, width = frame_hw
    inputs = TensorSpec("frame", (height, width, 3), "uint8"), TensorSpec("channels", (3,), "int32")
    return GraphSpec(f"{FRAME}{width}x{height}", inputs, (TensorSpec("image", (1, 3, image_size, image_size)),))


def memory_input(slot: int) -> str:
    """The memory attention's input for the memory in one slot."""
    return f"memory_{slot}"


def _memory_attention_spec(variant: Variant, image_size: int, slots: int) -> GraphSpec:
    """Each slot is an input of its own, so that a memory is read where it lies. Empty slots hold anything finite, and
    MASKED_OUT in their mask; slots in use hold 0 there.

    `memory_age` is 0 for a conditioning frame, else 1..6 frames ago; `pointer_age` the distance in frames over the
    greatest in use (SAM 2.0 has no such input).
    """
    d, memory = variant.d_model, (1, variant.memory_tokens(image_size), variant.memory_dim)
    features = embedding_specs(variant, image_size)
    inputs = (
        features[-1],
        *(TensorSpec(memory_input(slot), memory) for slot in range(slots)),
        TensorSpec("memory_age", (1, slots), "int32"),
        TensorSpec("memory_mask", (1, slots)),
        TensorSpec("pointers", (1, NUM_POINTER_SLOTS, d)),
        TensorSpec("pointer_mask", (1, NUM_POINTER_SLOTS)),
        TensorSpec("pointer_age", (1, NUM_POINTER_SLOTS)),
    )
    return GraphSpec(MEMORY_ATTENTION, inputs if variant.is_2_1 else inputs[:-1], (features[0],))


def _memory_encoder_spec(variant: Variant, image_size: int) -> GraphSpec:
    """`mask_logits` are the decoder's, enlarged here; `binarise` is 1 for a prompted frame's mask, 0 for a tracked one;
    `object_score` a logit.

    `memory` is what later frames attend to (SAM 2.0's does not depend on the score, and has no such input).
    `mask_prompt` is `given_mask`, positive inside, as the decoder takes it to find the pointer of an object that was
    given by its mask.
    """
    side, tokens = image_size // 4, variant.memory_tokens(image_size)
    inputs = (
        embedding_specs(variant, image_size)[-1],
        TensorSpec("mask_logits", (1, 1, side, side)),
        TensorSpec("given_mask", (1, 1, image_size, image_size)),
        TensorSpec("binarise", (1,)),
        TensorSpec("object_score", (1, 1)),
    )
    outputs = (TensorSpec("memory", (1, tokens, variant.memory_dim)), TensorSpec("mask_prompt", (1, 1, side, side)))
    return GraphSpec(MEMORY_ENCODER, inputs if variant.is_2_1 else inputs[:-1], outputs)
