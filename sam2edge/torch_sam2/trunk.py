"""What every trunk is to the rest of the model, and which one a variant has."""

from __future__ import annotations

from torch import Tensor, nn


class Trunk(nn.Module):
    """Image (B, 3, S, S), normalised as `Sam2.encode_image` takes it -> feature maps, the finest first.

    They are (B, C_i, S/s, S/s) for the strides s = 4, 8, 16, 32, with the channels C_i of `Variant.stage_dims`; of a
    variant without `has_high_res` one, of stride 16. The neck goes with the trunk.
    `tiled` may be set before a graph for a CPU is exported: many small operations for few large ones, where a trunk
    has a use for it.
    """

    tiled = False

    def forward(self, image: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def bake_position(self) -> None:
        """Computes once, for inference with fixed weights, what depends on them alone."""
