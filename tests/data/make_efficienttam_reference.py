"""Records what the published EfficientTAM gives under golden weights: efficienttam_reference.npz.

Run by hand, in an environment of its own, from the root of the repository:

    python -m venv efficienttam && source efficienttam/bin/activate
    pip install torch==2.13.0 hydra-core iopath pillow tqdm pytest  # its package imports pytest
    pip install --no-deps efficient-track-anything==1.0
    python -m tests.data.make_efficienttam_reference

The release calls its package `sam2`, as Meta's does: the two cannot share an environment. It has no configurations;
those here state what its repository's say (efficient_track_anything/configs).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import meta
from sam2edge.torch_sam2.checkpoint import parameter_shapes
from sam2edge.variants import Variant, find_variant
from tests.data import tracked_inputs as given

meta.install_torchvision()

from sam2.modeling import sam2_base as base  # noqa: E402  # after the stand-in
from sam2.modeling.backbones.image_encoder import ImageEncoder, ViTDetNeck  # noqa: E402
from sam2.modeling.backbones.vitdet import ViT  # noqa: E402
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer  # noqa: E402
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder  # noqa: E402
from sam2.modeling.position_encoding import PositionEmbeddingSine  # noqa: E402
from sam2.modeling.sam import transformer  # noqa: E402

TARGET = Path(__file__).with_name("efficienttam_reference.npz")
CROSS_ATTENTION = {
    "none": transformer.RoPEAttention,
    "scores": transformer.EfficientRoPEAttention1,
    "keys": transformer.EfficientRoPEAttention2,
}
RECORDED = ("efficienttam_ti", "efficienttam_ti_1", "efficienttam_ti_2", "efficienttam_s_1")


def make_model(variant: Variant) -> Any:
    size = given.IMAGE_SIZE
    rotary = {"feat_sizes": (32, 32), "embedding_dim": 256, "num_heads": 1, "downsample_rate": 1, "dropout": 0.1}
    cross = CROSS_ATTENTION[variant.pooling](rope_k_repeat=True, kv_in_dim=64, **rotary)
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=2048,
        dropout=0.1,
        pos_enc_at_attn=False,
        self_attention=transformer.RoPEAttention(**rotary),
        d_model=256,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=cross,
    )
    trunk = ViT(
        img_size=size,
        embed_dim=variant.embed_dim,
        depth=12,
        num_heads=variant.trunk_heads,
        window_size=14,
        window_block_indexes=(0, 1, 3, 4, 6, 7, 9, 10),
    )
    neck = ViTDetNeck(
        PositionEmbeddingSine(num_pos_feats=256, normalize=True), 256, [variant.embed_dim], neck_norm="LN"
    )
    memory_encoder = MemoryEncoder(
        out_dim=64,
        position_encoding=PositionEmbeddingSine(num_pos_feats=64, normalize=True),
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(dim=256, kernel_size=7, padding=3, layer_scale_init_value=1e-6), num_layers=2),
    )
    model = base.SAM2Base(
        image_encoder=ImageEncoder(trunk, neck, scalp=0),
        memory_attention=MemoryAttention(d_model=256, pos_enc_at_input=True, layer=layer, num_layers=4),
        memory_encoder=memory_encoder,
        num_maskmem=7,
        image_size=size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        binarize_mask_from_pts_for_mem_enc=True,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=False,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=False,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
    ).eval()
    shapes = parameter_shapes(variant, size)
    model.load_state_dict({name: torch.from_numpy(given.tensor(name, s)) for name, s in shapes.items()}, strict=True)
    return model


def record(model: Any) -> dict[str, torch.Tensor]:
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    video = (torch.from_numpy(given.frames_rgb()).permute(0, 3, 1, 2).float() / 255 - mean) / std
    bank: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    point = {"point_coords": torch.tensor([[given.CENTRE_XY]]), "point_labels": torch.ones(1, 1, dtype=torch.int32)}
    recorded = {}
    for frame in range(given.NUM_FRAMES):
        features = model.forward_image(video[frame : frame + 1])
        _, vision, position, sizes = model._prepare_backbone_features(features)
        out = model.track_step(
            frame_idx=frame,
            is_init_cond_frame=frame == 0,
            current_vision_feats=vision,
            current_vision_pos_embeds=position,
            feat_sizes=sizes,
            point_inputs=point if frame == 0 else None,
            mask_inputs=None,
            output_dict=bank,
            num_frames=given.NUM_FRAMES,
        )
        bank["non_cond_frame_outputs" if frame else "cond_frame_outputs"][frame] = out
        recorded[f"logits_{frame}"] = out["pred_masks"][0, 0]
        if frame == 0:
            recorded["vision_features"] = features["vision_features"][0]
            recorded["memory"] = out["maskmem_features"][0]
    return recorded


def main() -> None:
    recorded = {}
    for name in RECORDED:
        with torch.inference_mode():
            found = record(make_model(find_variant(name)))
        recorded.update({f"{name}/{what}": np.asarray(value, np.float32) for what, value in found.items()})
    kept = {key: value[::4] for key, value in recorded.items() if key.endswith(("ti/vision_features", "ti/memory"))}
    kept |= {key: value[::2, ::2] for key, value in recorded.items() if "logits" in key}
    np.savez_compressed(TARGET, **kept)  # type: ignore[arg-type]
    print({key: value.shape for key, value in kept.items()}, TARGET.stat().st_size)


if __name__ == "__main__":
    main()
