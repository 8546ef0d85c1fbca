"""A model as the static graphs of `sam2edge.contract`: every call of a backend, built on `run`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.backends.base import Backend, DecodedPrompts, FloatArray, IntArray, MemoryInputs
from sam2edge.variants import Variant


class GraphBackend(Backend):
    """Runs the four graphs; a library that executes them implements `run`, and `fetch` and `load` for device memory.

    A graph takes one prompt or one object at a time, in slots of a fixed number.
    """

    def __init__(self, variant: Variant, image_size: int, prompt_slots: int) -> None:
        self.variant = variant
        self.image_size = image_size
        self.specs = contract.graph_specs(variant, image_size, prompt_slots)
        self._prompt_slots = prompt_slots

    @property
    def max_points(self) -> int | None:
        return self._prompt_slots

    @abstractmethod
    def run(self, graph: str, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Any:
        """Runs one graph on a feed by contract name; inputs that the graph does not have are left out.

        A value is a numpy array, or a tensor that `load` or `run` gave. Returns features with the graph's `outputs`
        (None: all of them), in memory of their own.
        """

    def fetch(self, graph: str, feed: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """As `run`, with all outputs as numpy arrays."""
        return dict(self.run(graph, feed).to_host().tensors)

    def load(self, features: Any) -> Any:
        """Features of any backend as features of this one, whose tensors `run` takes."""
        return features.to_host()

    def stack_memories(self, memories: Sequence[Any]) -> Any:
        """Memories as the `memory` input of the memory attention; slots that are not used hold zeros."""
        spec = next(t for t in self.specs[contract.MEMORY_ATTENTION].inputs if t.name == "memory")
        stacked = np.zeros(spec.shape, np.float32)
        for slot, memory in enumerate(memories):
            stacked[0, slot] = memory.to_host().tensors["memory"][0]
        return stacked

    def encode_impl(self, image: FloatArray) -> Any:
        return self.run(contract.IMAGE_ENCODER, {"image": image})

    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        embedding = self.load(features).tensors
        side = self.image_size // 4
        masks = np.zeros((len(point_coords), side, side), np.float32) if mask_input is None else mask_input
        has_mask = np.array([mask_input is not None], np.float32)
        rows = []
        for coords, labels, mask in zip(point_coords, point_labels, masks, strict=True):
            used = labels > contract.ABSENT
            slots_xy = np.zeros((1, self._prompt_slots, 2), np.float32)
            slots_label = np.full((1, self._prompt_slots), contract.ABSENT, np.int32)
            count = int(used.sum())
            slots_xy[0, :count], slots_label[0, :count] = coords[used], labels[used]
            prompt = {"point_coords": slots_xy, "point_labels": slots_label, "mask_input": mask[None, None]}
            found = self.fetch(contract.MASK_DECODER, {**embedding, **prompt, "has_mask": has_mask})
            rows.append([found[name] for name in DecodedPrompts._fields])
        return DecodedPrompts(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))

    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> Any:
        own = self.load(features)
        memories, slots = memory_inputs.memories, self.variant.num_mask_slots
        pointers = contract.NUM_POINTER_SLOTS
        feed = {
            "memory": self.stack_memories(memories),
            "memory_age": _fill_slots(memory_inputs.memory_ages, slots),
            "memory_mask": _mask_slots(len(memories), slots),
            "pointers": _fill_slots(memory_inputs.obj_ptrs, pointers),
            "pointer_mask": _mask_slots(len(memory_inputs.obj_ptrs), pointers),
            "pointer_age": _fill_slots(memory_inputs.obj_ptr_ages, pointers),
        }
        attended = self.run(contract.MEMORY_ATTENTION, {**own.tensors, **feed})
        return own.with_image_embed(attended.tensors["image_embed"])

    def encode_memories_impl(
        self, features: Any, masks: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[Any]:
        own = self.load(features).tensors
        rows = zip(masks, object_scores, binarise, strict=True)
        return [self.run(contract.MEMORY_ENCODER, {**own, **_mask_feed(*row)}, ("memory",)) for row in rows]

    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        feed = {**self.load(features).tensors, **_mask_feed(mask, 1.0, True)}
        found = self.run(contract.MEMORY_ENCODER, feed, ("mask_prompt",)).to_host()
        prompt: FloatArray = found.tensors["mask_prompt"][0, 0]
        return prompt


def _mask_feed(mask: FloatArray, object_score: float, binarise: bool) -> dict[str, FloatArray]:
    score, flag = np.array([[object_score]], np.float32), np.array([binarise], np.float32)
    return {"mask": mask[None, None], "object_score": score, "binarise": flag}


def _fill_slots(values: Any, slots: int) -> Any:
    """(N, ...) -> (1, slots, ...), the rest filled with zeros."""
    filled = np.zeros((1, slots, *values.shape[1:]), values.dtype)
    filled[0, : len(values)] = values
    return filled


def _mask_slots(used: int, slots: int) -> FloatArray:
    return np.where(np.arange(slots) < used, 0, contract.MASKED_OUT).astype(np.float32)[None]
