"""SAM 2 in plain torch, on the CPU or on CUDA: the path that works wherever the weights can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sam2edge.backends.base import (
    Backend,
    BackendRequest,
    DecodedPrompts,
    FloatArray,
    HostFeatures,
    IntArray,
    MemoryInputs,
)
from sam2edge.errors import BackendUnavailableError, CheckpointError, OutOfMemoryError
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
        if request.precision == "fp16":
            raise BackendUnavailableError(
                "the torch backend computes in fp32 alone", expected="precision 'auto' or 'fp32'", got="'fp16'"
            )
        if request.checkpoint is None:
            raise CheckpointError(
                f"no weights of {request.variant.model_id} on this machine",
                expected="a checkpoint file",
                got="none",
                remedy=_where_to_get(request),
            )
        request.check_versions()
        return cls(load_model(request.variant, request.checkpoint, request.image_size), device)

    @property
    def max_points(self) -> int | None:
        return None

    @torch.inference_mode()
    def encode_impl(self, image: FloatArray) -> TorchFeatures:
        try:
            features = self._model.encode_image(torch.from_numpy(image).to(self.device))
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemoryError("torch ran out of device memory", remedy="use a smaller model or size") from error
        return TorchFeatures(features._asdict())

    @torch.inference_mode()
    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        mask = None if mask_input is None else self._to_device(np.ascontiguousarray(mask_input[:, None]))
        embed = self._to_device(features.tensors["image_embed"])
        return self._decoded(features, embed, point_coords, point_labels, mask)

    @torch.inference_mode()
    def decode_each_impl(
        self, features: Sequence[Any], point_coords: FloatArray, point_labels: IntArray
    ) -> list[DecodedPrompts]:
        if not self._together:
            return super().decode_each_impl(features, point_coords, point_labels)
        embeds = torch.cat([self._to_device(one.tensors["image_embed"]) for one in features])
        count = len(features)
        coords, labels = np.repeat(point_coords, count, axis=0), np.repeat(point_labels, count, axis=0)
        found = self._decoded(features[0], embeds, coords, labels, None)
        return [DecodedPrompts(*(part[k : k + 1] for part in found)) for k in range(count)]

    def _decoded(
        self, features: Any, embeds: torch.Tensor, coords: FloatArray, labels: IntArray, mask: torch.Tensor | None
    ) -> DecodedPrompts:
        high_0, high_1 = (self._to_device(features.tensors[name]) for name in ("high_res_0", "high_res_1"))
        out = self._model.decode(embeds, high_0, high_1, self._to_device(coords), self._to_device(labels), mask)
        pointers = self._model.object_pointers(out.mask_tokens, out.object_score)
        parts = (out.low_res_masks, out.iou_scores, out.object_score, pointers)
        return DecodedPrompts(*(p.float().cpu().numpy() for p in parts))

    @torch.inference_mode()
    def attend_memory_impl(self, features: Any, recalled: MemoryInputs) -> TorchFeatures:
        memory = torch.stack([self._to_device(m.tensors["memory"]) for m in recalled.memories], dim=1)
        pointers = self._to_device(recalled.pointers)[None]
        image_embed = self._model.attend_memory(
            self._to_device(features.tensors["vision_features"]),
            memory,
            self._to_device(recalled.memory_ages)[None],
            pointers,
            self._to_device(recalled.pointer_ages)[None],
        )
        on_device = {name: self._to_device(tensor) for name, tensor in features.tensors.items()}
        return TorchFeatures(on_device).with_image_embed(image_embed)

    def encode_memory_impl(self, features: Any, mask: FloatArray, object_score: float, binarise: bool) -> TorchFeatures:
        return TorchFeatures({"memory": self._memories(features, mask[None], [object_score], [binarise])})

    def encode_memories_impl(
        self, features: Any, masks: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[TorchFeatures]:
        if not self._together:
            return super().encode_memories_impl(features, masks, object_scores, binarise)
        memories = self._memories(features, masks, object_scores, binarise)
        # Copies: a part of the whole would keep all of it from being freed.
        return [TorchFeatures({"memory": memory.clone()}) for memory in memories.split(1)]

    @torch.inference_mode()
    def _memories(
        self, features: Any, masks: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> torch.Tensor:
        vision_features = self._to_device(features.tensors["vision_features"])
        flags = vision_features.new_tensor(binarise)[:, None, None, None]
        scores = vision_features.new_tensor(object_scores)[:, None]
        memory_input = self._model.memory_input(self._to_device(masks)[:, None], flags)
        return self._model.encode_memory(vision_features, memory_input, scores)

    @torch.inference_mode()
    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        prompt: FloatArray = self._model.mask_prompt(self._to_device(mask)[None, None])[0, 0].float().cpu().numpy()
        return prompt

    def _to_device(self, value: torch.Tensor | FloatArray | IntArray) -> torch.Tensor:
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(value)
        return tensor.to(self.device)


def _where_to_get(request: BackendRequest) -> str:
    source = request.variant.checkpoint
    if source is None:
        return "reinstall sam2edge: the embedded model comes with it"
    return f"fetch {source.url} and pass checkpoint='{source.file_name}'"
