"""A linear layer with its activation in one operator, against the plain functions."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from sam2edge.torch_sam2.linear import linear  # noqa: E402


@pytest.mark.parametrize("activation", [None, F.relu, F.gelu, torch.tanh])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_same_with_gradients_and_without(activation: Any, with_bias: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 5, 24, requires_grad=True), torch.randn(40, 24)
    bias = torch.randn(40) if with_bias else None
    plain = linear(x, weight, bias, activation)
    assert plain.requires_grad
    with torch.inference_mode():
        fused = linear(x, weight, bias, activation)
    torch.testing.assert_close(fused, plain.detach(), atol=1e-4, rtol=1e-4)


def test_torch_without_the_operator_uses_the_plain_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(4, 8), torch.randn(3, 8)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.inference_mode():
        assert torch.equal(linear(x, weight, None, F.relu), F.relu(F.linear(x, weight)))
