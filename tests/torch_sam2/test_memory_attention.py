"""The ways to compute the attention to memories, against the formula."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from sam2edge.contract import MASKED_OUT  # noqa: E402
from sam2edge.torch_sam2.position import rotary_axis, rotate_pairs, spread  # noqa: E402
from sam2edge.torch_sam2.rotary_attention import KeyGrids, RotaryAttention  # noqa: E402

SIDE, WIDTH, NARROW = 6, 16, 8


def _inputs(batch: int) -> Any:
    random = torch.Generator().manual_seed(0)
    q = 3 * torch.randn(batch, SIDE * SIDE, WIDTH, generator=random)
    memory = 3 * torch.randn(batch, 3 * SIDE * SIDE + 5, NARROW, generator=random)
    cos, sin = (spread(axis, x_first=True) for axis in rotary_axis(WIDTH // 2, SIDE))
    return q, memory + 0.5, memory, cos, sin, KeyGrids(3, 0, cos, sin)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("block", [(2048, 512), (7, 10)])
def test_values_averaged_in_blocks_and_projected_then(
    monkeypatch: pytest.MonkeyPatch, batch: int, masked: bool, block: Any
) -> None:
    monkeypatch.setattr("sam2edge.torch_sam2.chunked_attention.SCORES_AT_ONCE", block)
    monkeypatch.setattr("sam2edge.torch_sam2.chunked_attention.FIRST_KEYS", 3)  # all of them masked, at times
    torch.manual_seed(1)
    layer, inputs = RotaryAttention(WIDTH, NARROW), _inputs(batch)
    mask = torch.zeros(batch, 1, inputs[1].shape[1])
    mask[:, :, 20:60] = MASKED_OUT if masked else 0  # whole blocks of it, and the first keys of one
    mask[:, :, :3] = MASKED_OUT if masked else 0
    fused = layer(*inputs, mask)  # with gradients, as in training
    assert fused.requires_grad
    with torch.inference_mode():
        streamed = layer(*inputs, mask)
        without = layer(*inputs)
    torch.testing.assert_close(streamed, fused.detach(), atol=1e-5, rtol=1e-5)
    assert torch.allclose(without, streamed, atol=1e-5) != masked


def test_scores_too_large_for_exp_give_the_same_as_the_fused_kernel() -> None:
    layer, (q, *rest) = RotaryAttention(WIDTH, NARROW), _inputs(1)
    fused = layer(100 * q, *rest)
    with torch.inference_mode():
        streamed = layer(100 * q, *rest)
    torch.testing.assert_close(streamed, fused.detach(), atol=1e-3, rtol=1e-3)


def test_rotation_by_complex_numbers_is_the_one_of_the_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    q, *_, cos, sin, _ = _inputs(2)
    turned = rotate_pairs(q, cos, sin)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    torch.testing.assert_close(turned, rotate_pairs(q, cos, sin), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(turned, q, atol=0.1)


def test_rotation_of_bfloat16() -> None:
    q, *_, cos, sin, _ = _inputs(1)
    turned = rotate_pairs(q.bfloat16(), cos.bfloat16(), sin.bfloat16())
    torch.testing.assert_close(turned.float(), rotate_pairs(q, cos, sin), atol=0.1, rtol=0.05)
