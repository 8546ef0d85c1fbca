"""Muon for the weight matrices, AdamW for everything else, as one optimiser.

On the embedded model's scenes at 256 pixels, from trained weights and with the same batches, 100 steps with Muon have
a lower mean loss than 100 with AdamW alone at the same rate, in the same time (1.18 and 1.21; training/README.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_NARROWEST = 16  # tables of a few tokens are no matrices to Muon


def decayed(parameters: list[nn.Parameter], weight_decay: float, share: float = 1.0) -> list[dict[str, Any]]:
    """The optimiser's groups, those that are not empty: matrices, convolutions and tables, vectors without decay.

    "share" is their part of the learning rate, "matrices" says whether Muon takes them.
    """
    matrices = [p for p in parameters if p.ndim == 2 and min(p.shape) >= _NARROWEST]
    taken = {id(p) for p in matrices}
    wide = [p for p in parameters if p.ndim > 1 and id(p) not in taken]
    rest = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay, "share": share, "matrices": True},
        {"params": wide, "weight_decay": weight_decay, "share": share, "matrices": False},
        {"params": rest, "weight_decay": 0.0, "share": share, "matrices": False},
    ]
    return [group for group in groups if group["params"]]


class MuonAdamW:
    """Both optimisers behind the calls of one; learning rates are set in `param_groups`.

    Muon's steps are scaled to the size of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so that one
    learning rate serves both.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        matrices = [group for group in groups if group["matrices"]]
        rest = [group for group in groups if not group["matrices"]]
        self._parts = {
            "muon": torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"),
            "adamw": torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98)),
        }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups themselves, of both."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where `state` is another optimiser's."""
        if set(state) != set(self._parts):
            raise ValueError(
                f"the checkpoint was written with another optimiser: expected {sorted(self._parts)}, got "
                f"{sorted(state)}; start a new run with --from"
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
