"""The exported graphs as torch modules: thin wrappers that keep tracing concerns out of the model.

Inputs and outputs are those of `sam2edge.contract`, in its order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2edge import contract
from sam2edge.torch_sam2.model import Sam2


class ImageEncoderGraph(nn.Module):
    """image (1, 3, S, S) -> image_embed, high_res_0 and high_res_1 where the variant has them, vision_features."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(part for part in self.model.encode_image(image) if part is not None)


class MaskDecoderGraph(nn.Module):
    """Embedding and prompt slots -> low_res_masks, iou_scores, object_score, object_pointers."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(self, image_embed: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`others`: high_res_0 and high_res_1 where the variant has them, then the prompt."""
        high_res = others[:-4] or (None, None)
        out = self.model.decode(image_embed, *high_res, *others[-4:])
        pointers = self.model.object_pointers(out.mask_tokens, out.object_score)
        return out.low_res_masks, out.iou_scores, out.object_score, pointers


class MemoryAttentionGraph(nn.Module):
    """The frame's features and the slots -> image_embed, conditioned on the slots in use."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(self, vision_features: Tensor, *slots_and_rest: Tensor) -> Tensor:
        """A memory (1, N, M) for each slot; then memory_age, memory_mask, pointers, pointer_mask, 2.1: pointer_age."""
        first = -5 if self.model.variant.is_2_1 else -4
        memory_age, memory_mask, pointers, pointer_mask, *age = slots_and_rest[first:]
        memory = torch.stack(slots_and_rest[:first], dim=1)
        _, slots, cells, width = memory.shape
        split = pointers.shape[-1] // width
        mask = torch.cat(
            (
                memory_mask[..., None].expand(1, slots, cells).flatten(1),
                pointer_mask[..., None].expand(1, pointers.shape[1], split).flatten(1),
            ),
            dim=1,
        )
        ages = age[0] if age else torch.zeros_like(pointer_mask)
        return self.model.attend_memory(vision_features, memory, memory_age, pointers, ages, mask[:, None])


class MemoryEncoderGraph(nn.Module):
    """A frame's features and a mask's logits -> memory; a given mask -> mask_prompt."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        vision_features: Tensor,
        mask_logits: Tensor,
        given_mask: Tensor,
        binarise: Tensor,
        object_score: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        score = torch.ones_like(binarise)[:, None] if object_score is None else object_score
        memory_input = self.model.memory_input(self.model.enlarge(mask_logits), binarise.reshape(1, 1, 1, 1))
        return self.model.encode_memory(vision_features, memory_input, score), self.model.mask_prompt(given_mask)


GRAPHS: dict[str, type[nn.Module]] = {
    contract.IMAGE_ENCODER: ImageEncoderGraph,
    contract.MASK_DECODER: MaskDecoderGraph,
    contract.MEMORY_ATTENTION: MemoryAttentionGraph,
    contract.MEMORY_ENCODER: MemoryEncoderGraph,
}

TABLE_SOURCES = ("pos_embed", "pos_embed_window", "positional_encoding_gaussian_matrix", "_axis")
"""Ends of the names of the tensors that position tables are computed from; see `to_onnx.fold`."""
