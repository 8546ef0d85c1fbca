"""SAM 2 as one module, its methods cut where the exported graphs are cut."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.errors import InvalidInputError
from sam2edge.torch_sam2.layers import MLP
from sam2edge.torch_sam2.mask_decoder import DecodedMasks, MaskDecoder
from sam2edge.torch_sam2.memory_attention import MemoryAttention
from sam2edge.torch_sam2.memory_encoder import MemoryEncoder
from sam2edge.torch_sam2.neck import FpnNeck, ImageEncoder
from sam2edge.torch_sam2.perceiver import SpatialPerceiver, output_position
from sam2edge.torch_sam2.position import sine_1d, sine_axis, spread
from sam2edge.torch_sam2.prompt_encoder import PromptEncoder
from sam2edge.variants import Variant


class ImageFeatures(NamedTuple):
    """One encoded batch; E = S/16, D = d_model.

    image_embed (B, D, E, E) with the "no memory" embedding added, vision_features (B, D, E, E) without it;
    high_res_0 (B, D/8, 4E, 4E) and high_res_1 (B, D/4, 2E, 2E), or None where the variant has neither.
    """

    image_embed: Tensor
    high_res_0: Tensor | None
    high_res_1: Tensor | None
    vision_features: Tensor


class Sam2(nn.Module):
    """The model of one variant at one image size (a multiple of 32, in pixels).

    Weights do not depend on the image size: the same state dict fits any.
    """

    def __init__(self, variant: Variant, image_size: int | None = None) -> None:
        super().__init__()
        size = variant.image_size if image_size is None else image_size
        check_image_size(size, variant.image_size_step)
        d, m = variant.d_model, variant.memory_dim
        self.variant = variant
        self.image_size = size
        self.image_encoder = ImageEncoder(variant, size)
        self.sam_prompt_encoder = PromptEncoder(d, size)
        self.sam_mask_decoder = MaskDecoder(variant, size // 16)
        self.memory_attention = MemoryAttention(variant, size)
        self.memory_encoder = MemoryEncoder(variant)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.obj_ptr_proj = MLP(d, d, d, 3)
        self.maskmem_tpos_enc = _make_parameter(variant.num_mask_slots, 1, 1, m)
        self.no_mem_embed = _make_parameter(1, 1, d)
        self.no_mem_pos_enc = _make_parameter(1, 1, d)  # in every checkpoint, used by none of its configurations
        self.no_obj_ptr = _make_parameter(1, d)
        if variant.is_2_1:
            self.no_obj_embed_spatial = _make_parameter(1, m)
            self.obj_ptr_tpos_proj = nn.Linear(d, m)
        self.memory_position_axis: Tensor
        self.register_buffer("memory_position_axis", sine_axis(m // 2, size // 16), persistent=False)
        if variant.memory_latents:
            self.spatial_perceiver = SpatialPerceiver(m, size // 16)

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """image (B, 3, S, S) float, RGB, normalised by ImageNet's mean and standard deviation."""
        features = self.image_encoder.trunk(image)
        neck, decoder = self.image_encoder.neck, self.sam_mask_decoder
        vision = neck.fuse(features)
        high_res_0 = high_res_1 = None
        if isinstance(neck, FpnNeck):
            high_res_0 = neck.detail(features[0], 0, decoder.conv_s0)
            high_res_1 = neck.detail(features[1], 1, decoder.conv_s1)
        return ImageFeatures(vision + self.no_mem_embed.reshape(1, -1, 1, 1), high_res_0, high_res_1, vision)

    def decode(
        self,
        image_embed: Tensor,
        high_res_0: Tensor | None,
        high_res_1: Tensor | None,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> DecodedMasks:
        """Masks of K prompts on their images (K or 1 of them).

        point_coords (K, N, 2) model pixels; point_labels (K, N): 1 foreground, 0 background, 2 and 3 box corners,
        -1 "not a point", -2 absent (masked out of attention: for ragged prompts). Corners of a box come before
        clicks. The one "not a point" token that the official predictor appends to points and boxes is appended here
        (to a mask alone there is none). mask_input (K, 1, 4E, 4E) logits, counted where has_mask (K,) is 1.
        """
        if mask_input is not None and has_mask is None:
            has_mask = point_coords.new_ones(point_coords.shape[0])
        tokens, dense, absent = self.sam_prompt_encoder(point_coords, point_labels, mask_input, has_mask)
        position = self.sam_prompt_encoder.current_position()
        padded = absent if _may_hold(absent) else None
        return self.sam_mask_decoder(image_embed, position, high_res_0, high_res_1, tokens, dense, padded)

    def object_pointers(self, mask_tokens: Tensor, object_score: Tensor) -> Tensor:
        """mask_tokens (K, 4, D), object_score (K, 1) -> pointers (K, 4, D); a hidden object has its own pointer."""
        visible = (object_score > 0).to(mask_tokens.dtype)[..., None]
        return visible * self.obj_ptr_proj(mask_tokens) + (1 - visible) * self.no_obj_ptr

    def encode_memory(self, vision_features: Tensor, mask: Tensor, object_score: Tensor) -> Tensor:
        """vision_features (K or 1, D, E, E), mask (K, 1, S, S) as the memory encoder takes it, object_score (K, 1).

        Returns memory (K, E*E, M), or (K, 512, M) with a perceiver.
        """
        memory = self.memory_encoder(vision_features, mask)
        if self.variant.memory_latents:
            return self.spatial_perceiver(memory)
        memory = memory.flatten(2).transpose(1, 2)
        if not self.variant.is_2_1:
            return memory
        hidden = (object_score <= 0).to(memory.dtype)[..., None]
        return memory + hidden * self.no_obj_embed_spatial

    def attend_memory(
        self,
        vision_features: Tensor,
        memory: Tensor,
        memory_age: Tensor,
        pointers: Tensor,
        pointer_age: Tensor,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """The frame's embedding, conditioned on T memories and P object pointers.

        vision_features (K or 1, D, E, E); memory (K, T, N, M) as `encode_memory` gave it; memory_age (K, T) int, 0
        for a cond_frame, 1..6 for how many frames ago; pointers (K, P, D); pointer_age (K, P) float, signed distance in
        frames over the greatest distance in use (2.1; ignored by others); key_mask (K, 1, T*N + P*D/M), 0 or
        MASKED_OUT, or None where every slot is in use.
        Returns (K, D, E, E).
        """
        prompts, slots, _, width = memory.shape
        frame = vision_features.flatten(2).transpose(1, 2).expand(prompts, -1, -1)
        # The table runs from the frame before to conditioning frames, its last row.
        table = self.maskmem_tpos_enc[:, 0, 0]
        age = torch.cat((table[-1:], table[:-1]))[memory_age][:, :, None]
        placed_at = self._memory_position()
        memory_pos = (placed_at + age).flatten(1, 2)
        split = pointers.shape[-1] // width
        pointer_tokens = pointers.unflatten(-1, (split, width)).flatten(1, 2)
        pointer_pos = torch.zeros_like(pointer_tokens)
        if self.variant.is_2_1:
            placed = self.obj_ptr_tpos_proj(sine_1d(pointer_age.flatten(), pointers.shape[-1]))
            pointer_pos = placed.reshape(prompts, -1, 1, width).expand(-1, -1, split, -1).flatten(1, 2)
        out = self.memory_attention(
            frame,
            torch.cat((memory.flatten(1, 2), pointer_tokens), dim=1),
            torch.cat((memory_pos, pointer_pos), dim=1),
            slots,
            key_mask,
        )
        side = self.image_size // 16
        return out.transpose(1, 2).unflatten(-1, (side, side))

    def _memory_position(self) -> Tensor:
        """(N, M) position code of one memory's tokens."""
        if self.variant.memory_latents:
            return output_position(self.variant.memory_dim).to(self.memory_position_axis)
        return spread(self.memory_position_axis)

    def enlarge(self, logits: Tensor) -> Tensor:
        """Low-resolution logits (K, 1, 4E, 4E) -> (K, 1, S, S), as `memory_input` takes them."""
        return F.interpolate(logits, size=(self.image_size,) * 2, mode="bilinear", align_corners=False)

    def memory_input(self, mask: Tensor, binarise: Tensor) -> Tensor:
        """Mask logits -> what the memory encoder takes, in -10..10; binarise (K, 1, 1, 1) is 1 for prompted frames."""
        inside = binarise * (mask > 0).to(mask.dtype) + (1 - binarise) * mask.sigmoid()
        return inside * 20.0 - 10.0

    def mask_prompt(self, mask: Tensor) -> Tensor:
        """Mask logits (K, 1, S, S) -> (K, 1, 4E, 4E), what the decoder takes to find a given mask's pointer."""
        return self.mask_downsample((mask > 0).to(mask.dtype))

    def bake(self, tiled: bool = False) -> Sam2:
        """For inference with fixed weights: evaluation mode, positions computed once, `set_tiled` for a CPU."""
        self.eval()
        self.set_tiled(tiled)
        self.image_encoder.trunk.bake_position()
        self.sam_prompt_encoder.bake_position()
        return self

    def set_tiled(self, tiled: bool) -> None:
        """Whether modules that can work in tiles do so: quicker and smaller on a CPU, and not for a GPU."""
        for module in self.modules():
            if hasattr(module, "tiled"):
                module.tiled = tiled  # type: ignore[assignment]  # torch types every attribute as a tensor


def check_image_size(image_size: int, step: int = 32) -> None:
    """Raises InvalidInputError unless `image_size` is a multiple of `step`, at least 64."""
    if image_size < 64 or image_size % step:
        raise InvalidInputError(
            "image size cannot be used",
            expected=f"a multiple of {step}, at least 64, in pixels",
            got=image_size,
            remedy="use 1024, 768 or 512",
        )


def _may_hold(flags: Tensor) -> bool:
    """Whether any of `flags` is set, where that is known at no cost: in a graph, or on a GPU, it may."""
    return torch.onnx.is_in_onnx_export() or flags.device.type != "cpu" or bool(flags.any())


def _make_parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.nn.init.trunc_normal_(torch.empty(shape), std=0.02))
