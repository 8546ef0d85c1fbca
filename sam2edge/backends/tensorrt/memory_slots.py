"""Where the memories of tracked objects lie side by side for the memory attention, each copied there once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2edge.backends.base import MemoryInputs
from sam2edge.contract import TensorSpec

if TYPE_CHECKING:  # it imports pycuda, which this file does without
    from sam2edge.backends.tensorrt.memory import CudaDevice, DeviceTensor

MAX_SETS = 4
"""Objects whose memories keep their slots; those of more objects are copied again in every frame."""


class MemorySlots:
    """Sets of slots on one device, one set for each object that is tracked; the least recently used goes first.

    The attention does not depend on the order of memories, only on their ages: from one frame to the next all but one
    memory of an object stay where they are.
    """

    def __init__(self, device: CudaDevice, spec: TensorSpec) -> None:
        self._device = device
        self._spec = spec
        self._one = TensorSpec("memory", (1, *spec.shape[2:]))
        self._slot_bytes = math.prod(self._one.shape) * np.dtype(self._one.dtype).itemsize
        self._sets: list[_Set] = []

    def order(self, inputs: MemoryInputs) -> MemoryInputs:
        """The same memories in the order of the slots that hold most of them."""
        keys = [_find_key(memory) for memory in inputs.memories]
        found = self._find(keys)
        if found is None:
            return inputs
        kept = [keys.index(key) if key in keys else None for key in found.keys[: len(keys)]]
        kept += [None] * (len(keys) - len(kept))
        rest = iter([number for number in range(len(keys)) if number not in kept])
        order = [next(rest) if number is None else number for number in kept]
        memories = [inputs.memories[number] for number in order]
        return inputs._replace(memories=memories, memory_ages=inputs.memory_ages[order])

    def place(self, memories: Sequence[Any]) -> DeviceTensor:
        """The `memory` input of the attention, with those memories that do not lie in it copied into it."""
        keys = [_find_key(memory) for memory in memories]
        found = self._find(keys) or self._make_set()
        self._sets = [*(one for one in self._sets if one is not found), found]  # the most recently used comes last
        for slot, (key, memory) in enumerate(zip(keys, memories, strict=True)):
            if slot >= len(found.keys) or found.keys[slot] != key:
                offset = found.tensor.offset + slot * self._slot_bytes
                place = replace(found.tensor, spec=self._one, offset=offset)
                self._device.copy(memory.tensors["memory"], place)
                found.keys[slot : slot + 1] = [key]
                found.held[slot : slot + 1] = [memory]
        return found.tensor

    def clear(self) -> None:
        self._sets.clear()

    def _find(self, keys: Sequence[int]) -> _Set | None:
        """The set that holds most of these memories, if one holds any."""
        best = max(self._sets, key=lambda one: len(set(keys) & set(one.keys)), default=None)
        return best if best is not None and set(keys) & set(best.keys) else None

    def _make_set(self) -> _Set:
        if len(self._sets) >= MAX_SETS:
            return _Set(self._sets.pop(0).tensor)
        tensor = self._device.tensors([self._spec])[self._spec.name]
        self._device.upload(np.float32(0), tensor)  # anything finite, which new memory may not be
        return _Set(tensor)


class _Set:
    """One `memory` input, and which memory lies in each slot; memories are held, so that a key stays theirs."""

    def __init__(self, tensor: DeviceTensor) -> None:
        self.tensor = tensor
        self.keys: list[int] = []
        self.held: list[Any] = []


def _find_key(memory: Any) -> int:
    tensor = memory.tensors["memory"]
    return int(getattr(tensor, "address", id(tensor)))
