"""Records what transformers' EdgeTAM gives under golden weights: edgetam_reference.npz.

Run by hand, in an environment of its own, from the root of the repository:

    python -m venv hf && source hf/bin/activate
    pip install torch==2.13.0 transformers==5.24 opencv-python-headless && pip install --no-deps timm==1.0.15
    python -m tests.data.make_edgetam_reference
"""

from __future__ import annotations

import importlib.machinery
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers.image_utils  # before the stand-in: it looks for torchvision
import transformers.modeling_utils
from transformers.models.edgetam.configuration_edgetam import EdgeTamVisionConfig
from transformers.models.edgetam_video import configuration_edgetam_video as configs
from transformers.models.edgetam_video import modeling_edgetam_video as modeling

from sam2edge.torch_sam2.checkpoint import parameter_shapes
from sam2edge.variants import find_variant
from tests.data import tracked_inputs as given

TARGET = Path(__file__).with_name("edgetam_reference.npz")
SIZE = given.IMAGE_SIZE

# Official names -> those of transformers, in this order.
RENAMES = (
    (r"^image_encoder\.trunk\.body\.", "vision_encoder.backbone.timm_model."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(mask_decoder\.transformer\.layers\.\d\.mlp)\.layers\.0\.", r"\1.proj_in."),
    (r"(mask_decoder\.transformer\.layers\.\d\.mlp)\.layers\.1\.", r"\1.proj_out."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"(mlps\.\d|_head|object_pointer_proj)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|_head|object_pointer_proj)\.layers\.2\.", r"\1.proj_out."),
    (r"(mlps\.\d|_head|object_pointer_proj)\.layers\.1\.", r"\1.layers.0."),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"(layers\.\d)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^memory_attention\.norm\.", "memory_attention.layer_norm."),
    (r"\.linear1\.", ".mlp.up_proj."),
    (r"\.linear2\.", ".mlp.down_proj."),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    *((rf"mask_downsampler\.encoder\.{3 * i}\.", f"mask_downsampler.layers.{i}.conv.") for i in range(4)),
    *((rf"mask_downsampler\.encoder\.{3 * i + 1}\.", f"mask_downsampler.layers.{i}.layer_norm.") for i in range(4)),
    (r"pix_feat_proj", "feature_projection"),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"memory_encoder\.fuser\.layers\.(\d)\.", r"memory_encoder.memory_fuser.layers.\1."),
    (r"\.gamma$", ".scale"),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"(memory_fuser\.layers\.\d)\.norm\.", r"\1.layer_norm."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^spatial_perceiver\.latents$", "spatial_perceiver.latents_1d"),
    (r"^spatial_perceiver\.norm\.", "spatial_perceiver.layer_norm."),
    (r"\.attn\.norm_x\.", ".layer_norm_input."),
    (r"\.attn\.norm_latents\.", ".layer_norm_latents."),
    (r"\.self_attn\.norm\.", ".layer_norm_self."),
    (r"(perceiver\.layers\.\d)\.attn\.", r"\1.cross_attention."),
    (r"(perceiver\.layers\.\d)\.self_attn\.", r"\1.self_attention."),
    (r"(perceiver\.layers\.\d)\.(self_)?ff\.0\.", r"\1.\2mlp.layer_norm."),
    (r"(perceiver\.layers\.\d)\.(self_)?ff\.1\.", r"\1.\2mlp.up_proj."),
    (r"(perceiver\.layers\.\d)\.(self_)?ff\.3\.", r"\1.\2mlp.down_proj."),
    (r"\.to_(q|out)\.", r".\1_proj."),
    (r"\.out_proj\.", ".o_proj."),
)


def install_torchvision_standin() -> None:
    """timm imports torchvision for what RepViT does not use."""
    for name in (
        "",
        ".transforms",
        ".transforms.functional",
        ".ops",
        ".ops.misc",
        ".models",
        ".models.feature_extraction",
        ".datasets",
    ):
        module = ModuleType(f"torchvision{name}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.__path__ = []
        module.__dict__["__getattr__"] = _make_class
        sys.modules[module.__name__] = module
        parent, _, own = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
    transformers.utils.is_timm_available = lambda: True
    transformers.utils.import_utils.BACKENDS_MAPPING["timm"] = (lambda: True, "")


class _Anything(type):
    """A class that has every attribute."""

    def __getattr__(cls, name: str) -> str:
        return f"{cls.__name__}.{name}"


def _make_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything(name, (), {})


def make_model() -> Any:
    grid = SIZE // 16
    options = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    vision = EdgeTamVisionConfig(
        backbone_config=transformers.TimmWrapperConfig(architecture="repvit_m1", model_args=options),
        backbone_feature_sizes=[[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
    )
    config = configs.EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config=configs.EdgeTamVideoPromptEncoderConfig(image_size=SIZE),
        image_size=SIZE,
        memory_attention_rope_feat_sizes=[grid, grid],
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
    )
    model = modeling.EdgeTamVideoModel(config).eval()
    shapes = parameter_shapes(find_variant("edgetam"), SIZE)
    model.load_state_dict(rename({name: torch.from_numpy(given.tensor(name, s)) for name, s in shapes.items()}))
    return model


def rename(official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = {}
    points = [official.pop(f"sam_prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    state["prompt_encoder.point_embed.weight"] = torch.cat(points)
    gaussian = official.pop("sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix")
    state["shared_image_embedding.positional_embedding"] = gaussian
    state["prompt_encoder.shared_embedding.positional_embedding"] = gaussian
    for name, value in official.items():
        for pattern, new in RENAMES:
            name = re.sub(pattern, new, name)
        if name.endswith(".to_kv.weight"):
            for part, half in zip("kv", value.chunk(2), strict=True):
                state[name.replace("to_kv", f"{part}_proj")] = half
        else:
            state[name.replace("q_proj_proj", "q_proj").replace("out_proj", "o_proj")] = value
    return state


def main() -> None:
    install_torchvision_standin()
    model = make_model()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    video = (torch.from_numpy(given.frames_rgb()).permute(0, 3, 1, 2).float() / 255 - mean) / std
    session = modeling.EdgeTamVideoInferenceSession(video, SIZE, SIZE, dtype=torch.float32)
    index = session.obj_id_to_idx(1)
    point = {"point_coords": torch.tensor([[[given.POINT_XY]]]), "point_labels": torch.tensor([[[1]]], dtype=torch.int)}
    session.add_point_inputs(index, 0, point)
    session.obj_with_new_inputs = [1]
    recorded = {}
    with torch.inference_mode():
        recorded["vision_features"] = model.get_image_features(video[:1]).fpn_hidden_states[-1]
        for frame in range(given.NUM_FRAMES):
            out = model(session, frame_idx=frame)
            recorded[f"logits_{frame}"] = out.pred_masks[0, 0]
            recorded[f"object_score_{frame}"] = out.object_score_logits.reshape(-1)
        memory = session.output_dict_per_obj[index]["cond_frame_outputs"][0]["maskmem_features"]
    recorded["memory"] = memory
    np.savez_compressed(TARGET, **{n: np.asarray(v, np.float32) for n, v in recorded.items()})  # type: ignore[arg-type]
    print({name: tuple(value.shape) for name, value in recorded.items()}, TARGET.stat().st_size)


if __name__ == "__main__":
    main()
