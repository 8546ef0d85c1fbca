"""Who takes which weights, and whose state is taken back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.optimisers import MuonAdamW, decayed

MATRIX, TABLE, KERNEL, VECTOR = (32, 64), (4, 64), (32, 16, 3, 3), (64,)


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(shape)) for shape in (MATRIX, TABLE, KERNEL, VECTOR)]


def test_matrices_alone_go_to_muon_and_vectors_alone_do_not_decay() -> None:
    groups = decayed(_parameters(), 0.1, share=0.5)
    taken = [([tuple(p.shape) for p in g["params"]], g["matrices"], g["weight_decay"]) for g in groups]
    assert taken == [([MATRIX], True, 0.1), ([TABLE, KERNEL], False, 0.1), ([VECTOR], False, 0.0)]
    assert {g["share"] for g in groups} == {0.5}


def test_rates_set_in_the_groups_are_the_ones_that_are_used() -> None:
    parameters = _parameters()
    optimiser = MuonAdamW(decayed(parameters, 0.0), 1.0)
    for group in optimiser.param_groups:
        group["lr"] = 1e-3 if group["matrices"] else 0.0
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    optimiser.step()
    moved = [not torch.equal(p, torch.ones_like(p)) for p in parameters]
    assert moved == [True, False, False, False]
    steps = parameters[0].detach() - 1
    assert steps.square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.25)  # the size of AdamW's, as published
    optimiser.zero_grad()
    assert all(p.grad is None for p in parameters)


def test_another_optimisers_state_is_refused() -> None:
    optimiser = MuonAdamW(decayed(_parameters(), 0.0), 1.0)
    theirs = torch.optim.AdamW(_parameters(), lr=1.0).state_dict()
    with pytest.raises(ValueError, match="another optimiser.*--from"):
        optimiser.load_state_dict(theirs)
