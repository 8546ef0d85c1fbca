"""Names and shapes of the official checkpoints, other resolutions, absent prompt slots."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from sam2edge.errors import InvalidInputError  # noqa: E402
from sam2edge.torch_sam2.checkpoint import parameter_shapes  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.variants import VARIANTS, Variant, find_variant, recognise_shapes, siblings  # noqa: E402

MICRO = find_variant("sam2/micro")


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
def test_names_and_shapes_are_those_of_the_checkpoint(variant: Variant) -> None:
    assert recognise_shapes(parameter_shapes(variant)) == siblings(variant)[0]


def test_the_embedded_model_is_small() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Sam2(MICRO).parameters()) <= 6_000_000


@pytest.mark.parametrize("image_size", [96, 224, 512])
@pytest.mark.parametrize("model_id", ["sam2/micro", "sam2/hiera_tiny"])
def test_other_resolutions_give_finite_outputs_of_the_right_shape(model_id: str, image_size: int) -> None:
    variant = find_variant(model_id)
    torch.manual_seed(0)
    model = Sam2(variant, image_size).eval()
    grid, d = image_size // 16, variant.d_model
    with torch.inference_mode():
        features = model.encode_image(torch.randn(1, 3, image_size, image_size))
        out = model.decode(*features[:3], torch.tensor([[[5.0, 9.0]]]), torch.tensor([[1]]))
    assert features.image_embed.shape == features.vision_features.shape == (1, d, grid, grid)
    assert features.high_res_0 is not None and features.high_res_1 is not None
    assert features.high_res_0.shape == (1, d // 8, 4 * grid, 4 * grid)
    assert features.high_res_1.shape == (1, d // 4, 2 * grid, 2 * grid)
    assert out.low_res_masks.shape == (1, 4, 4 * grid, 4 * grid)
    assert out.low_res_masks.isfinite().all()


@pytest.mark.parametrize("image_size", [0, 32, 100, 1000])
def test_impossible_resolutions_are_refused(image_size: int) -> None:
    with pytest.raises(InvalidInputError, match="multiple of 32"):
        Sam2(MICRO, image_size)


def test_absent_slots_change_nothing() -> None:
    torch.manual_seed(1)
    model = Sam2(MICRO, 128).eval()
    with torch.inference_mode():
        features = model.encode_image(torch.randn(1, 3, 128, 128))[:3]
        coords, labels = torch.rand(2, 3, 2) * 128, torch.tensor([[1, 0, 1], [2, 3, 1]])
        plain = model.decode(*features, coords, labels)
        padded_coords = torch.cat((coords, torch.full((2, 5, 2), 77.0)), dim=1)
        padded_labels = torch.cat((labels, torch.full((2, 5), -2)), dim=1)
        padded = model.decode(*features, padded_coords, padded_labels)
    torch.testing.assert_close(padded.low_res_masks, plain.low_res_masks, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(padded.iou_scores, plain.iou_scores)


def test_the_padding_token_is_a_real_one() -> None:
    torch.manual_seed(1)
    model = Sam2(MICRO, 128).eval()
    with torch.inference_mode():
        features = model.encode_image(torch.randn(1, 3, 128, 128))[:3]
        one = model.decode(*features, torch.tensor([[[9.0, 9.0]]]), torch.tensor([[1]]))
        two = model.decode(*features, torch.tensor([[[9.0, 9.0], [0.0, 0.0]]]), torch.tensor([[1, -1]]))
    assert not torch.allclose(one.low_res_masks, two.low_res_masks, atol=1e-6)


def test_baked_positions_follow_the_weights() -> None:
    torch.manual_seed(2)
    model = Sam2(find_variant("sam2/hiera_tiny"), 128)
    torch.nn.init.normal_(model.image_encoder.trunk.pos_embed)
    image = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        fresh = model.eval().encode_image(image).image_embed
        baked = model.bake().encode_image(image).image_embed
    torch.testing.assert_close(fresh, baked)


def test_a_halved_model_encodes_as_the_whole_one() -> None:
    torch.manual_seed(4)
    model, image = Sam2(MICRO, 128), torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        whole = model.bake().encode_image(image).image_embed
        halved = model.half().bake().encode_image(image.half()).image_embed
    assert halved.dtype == torch.float16
    assert torch.cosine_similarity(halved.float().flatten(), whole.flatten(), dim=0) > 0.9995


def test_memory_slots_that_are_masked_out_change_nothing() -> None:
    torch.manual_seed(3)
    model = Sam2(MICRO, 128).eval()
    cells, m, d = 64, MICRO.memory_dim, MICRO.d_model
    with torch.inference_mode():
        vision = model.encode_image(torch.randn(1, 3, 128, 128)).vision_features
        memory = torch.randn(1, 3, cells, m)
        pointers = torch.randn(1, 2, d)
        args = (vision, memory[:, :2], torch.tensor([[0, 1]]), pointers[:, :1], torch.tensor([[0.1]]))
        keys = 2 * cells + d // m
        short = model.attend_memory(*args, torch.zeros(1, 1, keys))
        mask = torch.zeros(1, 1, 3 * cells + 2 * d // m)
        mask[..., 2 * cells : 3 * cells] = mask[..., 3 * cells + d // m :] = -30000.0
        full = (vision, memory, torch.tensor([[0, 1, 2]]), pointers, torch.tensor([[0.1, 0.5]]))
        padded = model.attend_memory(*full, mask)
    torch.testing.assert_close(short, padded, atol=1e-5, rtol=1e-5)


def test_scores_of_the_embedded_model_count_its_masks_stability() -> None:
    from sam2edge.imaging.frame import stability
    from sam2edge.torch_sam2.mask_decoder import stability as stability_of_tensors

    torch.manual_seed(2)
    model = Sam2(MICRO, 64).eval()
    for head in model.sam_mask_decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.data *= 50.0  # type: ignore[index, union-attr]  # logits to both sides of the offset
    prompt = torch.tensor([[[30.0, 20.0]], [[5.0, 50.0]]]), torch.ones(2, 1, dtype=torch.int64)
    with torch.inference_mode():
        features = model.encode_image(torch.randn(1, 3, 64, 64))[:3]
        weighed = model.decode(*features, *prompt)
        model.sam_mask_decoder.weigh_by_stability = False
        plain = model.decode(*features, *prompt)
    by_hand = torch.from_numpy(stability(plain.low_res_masks.numpy(), 1.0)).float()
    assert 0 < float(by_hand.min()) < float(by_hand.max()) <= 1
    torch.testing.assert_close(weighed.iou_scores, plain.iou_scores * by_hand)
    empty = torch.full((1, 1, 16, 16), -9.0)
    assert float(stability_of_tensors(empty)) == 0.0
    half = stability_of_tensors(torch.randn(2, 4, 256, 256).half() * 3)
    assert half.dtype == torch.float16 and half.isfinite().all()
    assert not any(v.weigh_by_stability for v in VARIANTS.values() if v != MICRO)
