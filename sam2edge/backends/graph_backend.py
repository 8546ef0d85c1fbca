"""A model as the static graphs of `sam2edge.contract`: every call of a backend, built on `run`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.backends.base import (
    NO_POINT_LABEL,
    NO_POINT_XY,
    Backend,
    DecodedPrompts,
    FloatArray,
    IntArray,
    MemoryInputs,
)
from sam2edge.variants import Variant


class GraphBackend(Backend):
    """Runs the four graphs; a library that executes them implements `run`, and `fetch` and `load` for device memory.

    A graph takes one prompt or one object at a time, in slots of a fixed number.
    """

    def __init__(self, variant: Variant, image_size: int, prompt_slots: int, memory_slots: int | None = None) -> None:
        self.variant = variant
        self.image_size = image_size
        self.specs = contract.graph_specs(variant, image_size, prompt_slots, memory_slots)
        self._prompt_slots = prompt_slots
        self.memory_slots = memory_slots or variant.num_mask_slots
        # Given to the memory encoder where no mask was prompted; a constant, which need not be sent twice.
        self._no_mask = np.zeros((1, 1, image_size, image_size), np.float32)
        self._no_mask.flags.writeable = False

    @property
    def max_points(self) -> int | None:
        return self._prompt_slots

    @abstractmethod
    def run(self, graph: str, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Any:
        """Runs one graph on a feed by contract name; inputs that the graph does not have are left out.

        A value is a numpy array, or a tensor that `load` or `run` gave. Returns features with the graph's `outputs`
        (None: all of them), in memory of their own.
        """

    def fetch(self, graph: str, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, NDArray[Any]]]:
        """As `run` on each feed, with all outputs as numpy arrays."""
        return [dict(self.run(graph, feed).to_host().tensors) for feed in feeds]

    def load(self, features: Any) -> Any:
        """Features of any backend as features of this one, whose tensors `run` takes."""
        return features.to_host()

    def encode_impl(self, image: FloatArray) -> Any:
        return self.run(contract.IMAGE_ENCODER, {"image": image})

    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        embedding = self.load(features).tensors
        masks: Sequence[FloatArray | None] = [None] * len(point_coords) if mask_input is None else list(mask_input)
        prompts = zip(point_coords, point_labels, masks, strict=True)
        rows = self.fetch(contract.MASK_DECODER, [{**embedding, **self._prompt_feed(*prompt)} for prompt in prompts])
        return DecodedPrompts(*(np.concatenate([row[name] for row in rows]) for name in DecodedPrompts._fields))

    def decode_each_impl(self, features: Sequence[Any]) -> list[DecodedPrompts]:
        prompt = self._prompt_feed(NO_POINT_XY[0], NO_POINT_LABEL[0], None)
        rows = self.fetch(contract.MASK_DECODER, [{**self.load(one).tensors, **prompt} for one in features])
        return [DecodedPrompts(*(row[name] for name in DecodedPrompts._fields)) for row in rows]

    def _prompt_feed(self, coords: FloatArray, labels: IntArray, mask: FloatArray | None) -> dict[str, NDArray[Any]]:
        """One prompt in the decoder's slots; those that it leaves out are absent."""
        used, side = labels > contract.ABSENT, self.image_size // 4
        slots_xy = np.zeros((1, self._prompt_slots, 2), np.float32)
        slots_label = np.full((1, self._prompt_slots), contract.ABSENT, np.int32)
        count = int(used.sum())
        slots_xy[0, :count], slots_label[0, :count] = coords[used], labels[used]
        return {
            "point_coords": slots_xy,
            "point_labels": slots_label,
            "mask_input": np.zeros((1, 1, side, side), np.float32) if mask is None else mask[None, None],
            "has_mask": np.array([mask is not None], np.float32),
        }

    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> Any:
        own, pointers, slots = self.load(features), contract.NUM_POINTER_SLOTS, self.memory_slots
        memories = [self.load(memory).tensors["memory"] for memory in memory_inputs.memories]
        feed = {
            # A slot that is not used reads the first memory, which its mask leaves out.
            **{contract.memory_input(k): memories[k if k < len(memories) else 0] for k in range(slots)},
            "memory_age": _fill_slots(memory_inputs.memory_ages, slots),
            "memory_mask": _mask_slots(len(memories), slots),
            "pointers": _fill_slots(memory_inputs.obj_ptrs, pointers),
            "pointer_mask": _mask_slots(len(memory_inputs.obj_ptrs), pointers),
            "pointer_age": _fill_slots(memory_inputs.obj_ptr_ages, pointers),
        }
        attended = self.run(contract.MEMORY_ATTENTION, {**own.tensors, **feed})
        return own.with_image_embed(attended.tensors["image_embed"])

    def encode_memories_impl(
        self, features: Any, logits: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[Any]:
        own = self.load(features).tensors
        feeds = [
            {**own, **_mask_feed(plane[None, None], self._no_mask, score, flag)}
            for plane, score, flag in zip(logits, object_scores, binarise, strict=True)
        ]
        return [self.run(contract.MEMORY_ENCODER, feed, ("memory",)) for feed in feeds]

    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        side = self.image_size // 4
        feed = _mask_feed(np.zeros((1, 1, side, side), np.float32), mask[None, None], 1.0, True)
        found = self.run(contract.MEMORY_ENCODER, {**self.load(features).tensors, **feed}, ("mask_prompt",)).to_host()
        prompt: FloatArray = found.tensors["mask_prompt"][0, 0]
        return prompt


def _mask_feed(logits: FloatArray, given: FloatArray, object_score: float, binarise: bool) -> dict[str, FloatArray]:
    score, flag = np.array([[object_score]], np.float32), np.array([binarise], np.float32)
    return {"mask_logits": logits, "given_mask": given, "object_score": score, "binarise": flag}


def _fill_slots(values: Any, slots: int) -> Any:
    """(N, ...) -> (1, slots, ...), the rest filled with zeros."""
    filled = np.zeros((1, slots, *values.shape[1:]), values.dtype)
    filled[0, : len(values)] = values
    return filled


def _mask_slots(used: int, slots: int) -> FloatArray:
    return np.where(np.arange(slots) < used, 0, contract.MASKED_OUT).astype(np.float32)[None]
