"""Two-way transformer and mask heads: image embedding and prompt tokens -> four masks with their scores."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.contract import MASKED_OUT
from sam2edge.torch_sam2.layers import MLP, LayerNorm2d, attention, run_side_by_side
from sam2edge.variants import Variant

NUM_MASK_TOKENS = 4
_STABILITY_OFFSET = 1.0


class DecodedMasks(NamedTuple):
    """Masks of K prompts: token 0 is the single mask, 1..3 the alternatives.

    low_res_masks (K, 4, 4E, 4E) logits, not gated by the object score; iou_scores (K, 4) in [0, 1];
    object_score (K, 1) logit; mask_tokens (K, 4, D).
    """

    low_res_masks: Tensor
    iou_scores: Tensor
    object_score: Tensor
    mask_tokens: Tensor


class Attention(nn.Module):
    """Multi-head attention whose inner width is `d_model / downsample`."""

    def __init__(self, d_model: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = d_model // downsample
        self.split = (heads, inner // heads)
        self.q_proj = nn.Linear(d_model, inner)
        self.k_proj = nn.Linear(d_model, inner)
        self.v_proj = nn.Linear(d_model, inner)
        self.out_proj = nn.Linear(inner, d_model)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """q (K, Tq, D), k and v (K, Tk, D), key_mask (K, 1, 1, Tk) added to the scores -> (K, Tq, D)."""
        q, k, v = (self._split(p(x)) for p, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v)))
        out = attention(q, k, v, key_mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, self.split).transpose(1, 2)


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, the image attends back to the tokens."""

    def __init__(self, d_model: int, heads: int, mlp_dim: int, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(d_model, heads)
        self.norm1 = nn.LayerNorm(d_model)
        self.cross_attn_token_to_image = Attention(d_model, heads, downsample=2)
        self.norm2 = nn.LayerNorm(d_model)
        self.mlp = MLP(d_model, mlp_dim, d_model, 2)
        self.norm3 = nn.LayerNorm(d_model)
        self.norm4 = nn.LayerNorm(d_model)
        self.cross_attn_image_to_token = Attention(d_model, heads, downsample=2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pos: Tensor, image_pos: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.is_first:
            tokens = self.self_attn(tokens, tokens, tokens, key_mask)
        else:
            placed = tokens + token_pos
            tokens = tokens + self.self_attn(placed, placed, tokens, key_mask)
        tokens = self.norm1(tokens)
        placed_image = image + image_pos
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pos, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(placed_image, tokens + token_pos, tokens, key_mask)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    def __init__(self, d_model: int, heads: int, mlp_dim: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(d_model, heads, mlp_dim, i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(d_model, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(d_model)

    def forward(
        self, image: Tensor, image_pos: Tensor, tokens: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """image (K, E*E, D), image_pos (1, E*E, D), tokens (K, T, D), key_mask (K, 1, 1, T) or None."""
        token_pos = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pos, image_pos, key_mask)
        read = self.final_attn_token_to_image(tokens + token_pos, image + image_pos, image)
        return self.norm_final_attn(tokens + read), image


class MaskDecoder(nn.Module):
    """`grid` is the side E of the embedding grid."""

    def __init__(self, variant: Variant, grid: int) -> None:
        super().__init__()
        self.grid, self.weigh_by_stability = grid, variant.weigh_by_stability
        d = variant.d_model
        self.transformer = TwoWayTransformer(d, variant.decoder_heads, variant.decoder_mlp_dim)
        self.iou_token = nn.Embedding(1, d)
        self.mask_tokens = nn.Embedding(NUM_MASK_TOKENS, d)
        self.obj_score_token = nn.Embedding(1, d)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(d, d // 4, kernel_size=2, stride=2),
            LayerNorm2d(d // 4),
            nn.GELU(),
            nn.ConvTranspose2d(d // 4, d // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        if variant.has_high_res:
            self.conv_s0 = nn.Conv2d(d, d // 8, kernel_size=1)
            self.conv_s1 = nn.Conv2d(d, d // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(d, d, d // 8, 3) for _ in range(NUM_MASK_TOKENS))
        self.iou_prediction_head = MLP(d, d, NUM_MASK_TOKENS, 3)
        self.pred_obj_score_head = MLP(d, d, 1, 3)

    def forward(
        self,
        image_embed: Tensor,
        image_pos: Tensor,
        high_res_0: Tensor | None,
        high_res_1: Tensor | None,
        prompt_tokens: Tensor,
        dense: Tensor,
        absent: Tensor | None,
    ) -> DecodedMasks:
        """image_embed (K or 1, D, E, E), prompt_tokens (K, N, D), dense broadcasts to (K, D, E, E).

        absent (K, N) bool, or None where every token is there.
        """
        prompts = prompt_tokens.shape[0]
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own[None].expand(prompts, -1, -1), prompt_tokens), dim=1)
        key_mask = None
        if absent is not None:
            key_mask = F.pad(absent.to(tokens.dtype) * MASKED_OUT, (own.shape[0], 0))[:, None, None, :]
        image = (image_embed + dense).flatten(2).transpose(1, 2)
        if not torch.onnx.is_in_onnx_export():
            image = image.contiguous()  # linear layers are fused with their bias then; a graph has no strides
        tokens, image = self.transformer(image, image_pos.flatten(2).transpose(1, 2), tokens, key_mask)
        image = image.transpose(1, 2).unflatten(-1, (self.grid, self.grid))
        return self._heads(tokens, image, high_res_0, high_res_1)

    def _heads(
        self, tokens: Tensor, image: Tensor, high_res_0: Tensor | None, high_res_1: Tensor | None
    ) -> DecodedMasks:
        up_1, norm, activation, up_2, _ = self.output_upscaling
        detail = up_1(image) if high_res_1 is None else up_1(image) + high_res_1
        detail = up_2(activation(norm(detail)))
        detail = activation(detail if high_res_0 is None else detail + high_res_0)
        mask_tokens = tokens[:, 2 : 2 + NUM_MASK_TOKENS]
        kernels = run_side_by_side([cast(MLP, m) for m in self.output_hypernetworks_mlps], mask_tokens)
        masks = torch.matmul(kernels, detail.flatten(2)).unflatten(-1, (4 * self.grid, 4 * self.grid))
        scores = run_side_by_side([self.pred_obj_score_head, self.iou_prediction_head], tokens[:, :2])
        iou_scores = scores[:, 1].sigmoid()
        if self.weigh_by_stability:
            iou_scores = iou_scores * stability(masks)
        return DecodedMasks(masks, iou_scores, scores[:, 0, :1], mask_tokens)


def stability(logits: Tensor) -> Tensor:
    """(K, M) IoU of masks (K, M, h, w) thresholded at 1 with themselves at -1: low where a mask's edge is vague.

    Rows are summed before columns, so that float16 counts them right.
    """
    inner, outer = ((logits > at).to(logits.dtype).sum(3).sum(2) for at in (_STABILITY_OFFSET, -_STABILITY_OFFSET))
    return inner / outer.clamp(min=1.0)
