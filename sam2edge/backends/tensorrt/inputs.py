"""Where the arrays of the host lie while graphs read them: small ones in the host's memory, large ones in copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import TensorSpec

if TYPE_CHECKING:  # it imports pycuda, which this file does without
    from sam2edge.backends.tensorrt.memory import CudaDevice, DeviceTensor, MappedTensor

MAPPED_BYTES = 1 << 19
"""Inputs up to this size stay on the host, where the device reads them once; the logits of a mask take 256 KiB at 1024
pixels. Larger ones are copied."""

AT_ONCE = 8
"""Runs of one graph that may be under way at a time: each has its own small inputs."""


class _SmallInputs:
    """Those of one run of a graph, by name; `read_at` is `CudaDevice.waits` when work that reads them was started."""

    def __init__(self) -> None:
        self.places: dict[str, MappedTensor] = {}
        self.read_at = -1


class InputPlaces:
    """The inputs of one model's graphs. All calls within `CudaDevice.active()`."""

    def __init__(self, device: CudaDevice, constant: NDArray[Any]) -> None:
        """`constant` is an array that never changes: where it lies already it is not sent again."""
        self._device = device
        self._constant = constant
        self._holding_constant: set[str] = set()
        self._small: dict[str, list[_SmallInputs]] = {}
        self._places: dict[str, DeviceTensor] = {}

    def put(self, graph: str, specs: Sequence[TensorSpec], feed: Mapping[str, Any]) -> dict[str, int]:
        """Addresses of the graph's inputs by name, once arrays of the feed are where the device reads them.

        They stay as they are until the run that is started next has been waited for.
        """
        small, addresses = self._take_small(graph), {}
        for spec in specs:
            value = feed[spec.name]
            if not isinstance(value, np.ndarray):  # a DeviceTensor
                addresses[spec.name] = value.address
            elif value.nbytes > MAPPED_BYTES:
                addresses[spec.name] = self._send(graph, spec, value).address
            else:
                if spec.name not in small.places:
                    small.places[spec.name] = self._device.map_host(spec)
                array, addresses[spec.name] = small.places[spec.name]
                array[...] = value
        small.read_at = self._device.waits
        return addresses

    def find_place(self, graph: str, spec: TensorSpec) -> DeviceTensor:
        """Where a tensor of a graph lies on the device, the same in every call."""
        key = f"{graph}/{spec.name}"
        if key not in self._places:
            self._places[key] = self._device.tensors([spec])[spec.name]
        return self._places[key]

    def clear(self) -> None:
        self._small.clear()
        self._places.clear()
        self._holding_constant.clear()

    def _take_small(self, graph: str) -> _SmallInputs:
        """Places for the small inputs of a run, which no work under way reads."""
        found = self._small.setdefault(graph, [])
        free = next((one for one in found if one.read_at < self._device.waits), None)
        if free is not None:
            return free
        if len(found) >= AT_ONCE:
            self._device.synchronize()
            return found[0]
        found.append(_SmallInputs())
        return found[-1]

    def _send(self, graph: str, spec: TensorSpec, value: NDArray[Any]) -> DeviceTensor:
        """A copy of an array in its place on the device."""
        place, key = self.find_place(graph, spec), f"{graph}/{spec.name}"
        is_constant = value is self._constant
        if is_constant and key in self._holding_constant:
            return place
        self._device.upload(value, place)
        (self._holding_constant.add if is_constant else self._holding_constant.discard)(key)
        return place
