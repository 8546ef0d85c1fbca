"""SAM 2 in plain torch, on the CPU or on CUDA: the path that works wherever the weights can be read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch

from sam2edge.backends.base import (
    NO_POINT_LABEL,
    NO_POINT_XY,
    Backend,
    BackendRequest,
    DecodedPrompts,
    FloatArray,
    HostFeatures,
    IntArray,
    MemoryInputs,
)
from sam2edge.errors import BackendUnavailableError, CheckpointError, OutOfMemoryError
from sam2edge.store.integrity import check_unchanged
from sam2edge.torch_sam2.checkpoint import load_model
from sam2edge.torch_sam2.model import Sam2

TOGETHER_UP_TO = 2**17
"""Values of an image embedding (D*E*E) up to which several objects are computed together: 512 pixels with micro. With
more, data leaves the cache of a CPU between two layers, and one after another is quicker."""


class TorchFeatures:
    """Encoded image, or a memory, as torch tensors on the model's device, by contract name."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.tensors.values())

    def to_host(self) -> HostFeatures:
        return HostFeatures({name: t.float().cpu().numpy() for name, t in self.tensors.items()})

    def with_image_embed(self, image_embed: torch.Tensor) -> TorchFeatures:
        return TorchFeatures({**self.tensors, "image_embed": image_embed})


_Call = TypeVar("_Call", bound=Callable[..., Any])


def _computes(call: _Call) -> _Call:
    """Without gradients; a GPU that has no memory left is told as the other backends tell it."""

    @functools.wraps(call)
    @torch.inference_mode()
    def compute(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemoryError("torch ran out of device memory", remedy="use a smaller model or size") from error

    return cast(_Call, compute)


class TorchBackend(Backend):
    """One model on one torch device."""

    name = "torch"

    def __init__(self, model: Sam2, device: torch.device) -> None:
        self.variant = model.variant
        self.image_size = model.image_size
        self.device = device
        self._together = model.variant.d_model * (model.image_size // 16) ** 2 <= TOGETHER_UP_TO
        self._model = model.to(device).bake(tiled=device.type == "cpu")

    @classmethod
    def open(cls, request: BackendRequest) -> TorchBackend:
        device = torch.device(request.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and not torch.cuda.is_available():
            raise BackendUnavailableError(
                "torch finds no CUDA device", expected="an NVIDIA GPU and a CUDA build of torch", got="none"
            )
        if request.precision not in ("auto", "fp32"):
            raise BackendUnavailableError(
                "the torch backend computes in fp32 alone",
                expected="precision 'auto' or 'fp32'",
                got=repr(request.precision),
            )
        if request.checkpoint is None:
            raise CheckpointError(
                f"no weights of {request.variant.model_id} on this machine",
                expected="a checkpoint file",
                got="none",
                remedy=_where_to_get(request),
            )
        check_unchanged(request.checkpoint)
        return cls(load_model(request.variant, request.checkpoint, request.image_size), device)

    @property
    def max_points(self) -> int | None:
        return None

    @_computes
    def encode_impl(self, image: FloatArray) -> TorchFeatures:
        features = self._model.encode_image(torch.from_numpy(image).to(self.device))._asdict()
        return TorchFeatures({name: tensor for name, tensor in features.items() if tensor is not None})

    @_computes
    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        mask = None if mask_input is None else self._to_device(np.ascontiguousarray(mask_input[:, None]))
        tensors = self._load(features)
        return self._decode(tensors, tensors["image_embed"], point_coords, point_labels, mask)

    @_computes
    def decode_each_impl(self, features: Sequence[Any]) -> list[DecodedPrompts]:
        if not self._together:
            return super().decode_each_impl(features)
        loaded = [self._load(one) for one in features]
        embeds = torch.cat([tensors["image_embed"] for tensors in loaded])
        coords, labels = np.repeat(NO_POINT_XY, len(loaded), axis=0), np.repeat(NO_POINT_LABEL, len(loaded), axis=0)
        found = self._decode(loaded[0], embeds, coords, labels, None)
        return [DecodedPrompts(*(part[k : k + 1] for part in found)) for k in range(len(loaded))]

    def _decode(
        self,
        tensors: dict[str, torch.Tensor],
        embeds: torch.Tensor,
        coords: FloatArray,
        labels: IntArray,
        mask: torch.Tensor | None,
    ) -> DecodedPrompts:
        high_res = tensors.get("high_res_0"), tensors.get("high_res_1")
        out = self._model.decode(embeds, *high_res, self._to_device(coords), self._to_device(labels), mask)
        pointers = self._model.object_pointers(out.mask_tokens, out.object_score)
        parts = (out.low_res_masks, out.iou_scores, out.object_score, pointers)
        return DecodedPrompts(*(p.float().cpu().numpy() for p in parts))

    @_computes
    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> TorchFeatures:
        tensors = self._load(features)
        image_embed = self._model.attend_memory(
            tensors["vision_features"],
            torch.stack([self._load(memory)["memory"] for memory in memory_inputs.memories], dim=1),
            self._to_device(memory_inputs.memory_ages)[None],
            self._to_device(memory_inputs.obj_ptrs)[None],
            self._to_device(memory_inputs.obj_ptr_ages)[None],
        )
        return TorchFeatures(tensors).with_image_embed(image_embed)

    @_computes
    def encode_memories_impl(
        self, features: Any, logits: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[TorchFeatures]:
        vision_features = self._load(features)["vision_features"]
        flags = vision_features.new_tensor(binarise)[:, None, None, None]
        scores = vision_features.new_tensor(object_scores)[:, None]
        memory_input = self._model.memory_input(self._model.enlarge(self._to_device(logits)[:, None]), flags)
        count = len(logits) if self._together else 1
        memories = [
            self._model.encode_memory(vision_features, memory_input[k : k + count], scores[k : k + count])
            for k in range(0, len(logits), count)
        ]
        # Copies: a part of the whole would keep all of it from being freed.
        return [TorchFeatures({"memory": one.clone()}) for part in memories for one in part.split(1)]

    @_computes
    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        prompt: FloatArray = self._model.mask_prompt(self._to_device(mask)[None, None])[0, 0].float().cpu().numpy()
        return prompt

    @_computes
    def load(self, features: Any) -> TorchFeatures:
        return TorchFeatures(self._load(features))

    def _load(self, features: Any) -> dict[str, torch.Tensor]:
        """The tensors of features on this device; those of another backend come by way of the host."""
        tensors = features.tensors if isinstance(features, TorchFeatures) else features.to_host().tensors
        return {name: self._to_device(tensor) for name, tensor in tensors.items()}

    def _to_device(self, value: torch.Tensor | FloatArray | IntArray) -> torch.Tensor:
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(value)
        return tensor.to(self.device)


def _where_to_get(request: BackendRequest) -> str:
    source = request.variant.checkpoint
    if source is None:
        return "reinstall sam2edge: the embedded model comes with it"
    return f"sam2edge models install {request.variant.model_id}, or pass checkpoint='{source.file_name}'"
