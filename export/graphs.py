"""The exported graphs as torch modules: thin wrappers that keep tracing concerns out of the model.

Inputs and outputs are those of `sam2edge.contract`, in its order.
"""

from __future__ import annotations

from torch import Tensor, nn

from sam2edge import contract
from sam2edge.torch_sam2.model import ImageFeatures, Sam2


class ImageEncoderGraph(nn.Module):
    """image (1, 3, S, S) -> image_embed, high_res_0, high_res_1, vision_features."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> ImageFeatures:
        return self.model.encode_image(image)


class MaskDecoderGraph(nn.Module):
    """Embedding and prompt slots -> low_res_masks, iou_scores, object_score, object_pointers."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        image_embed: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        out = self.model.decode(image_embed, high_res_0, high_res_1, point_coords, point_labels, mask_input, has_mask)
        pointers = self.model.object_pointers(out.mask_tokens, out.object_score)
        return out.low_res_masks, out.iou_scores, out.object_score, pointers


GRAPHS: dict[str, type[nn.Module]] = {
    contract.IMAGE_ENCODER: ImageEncoderGraph,
    contract.MASK_DECODER: MaskDecoderGraph,
}
