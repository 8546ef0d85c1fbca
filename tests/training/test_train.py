"""A few steps on a small model: the loss falls, a run resumed is the run unbroken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import EMBEDDED, find_variant
from training.batches import draw_batch
from training.checkpoints import load_checkpoint, load_weights, save_checkpoint, save_weights
from training.init_weights import set_initial_values
from training.pictures import Material
from training.train import Options, Trainer, run_stage

SMALL = replace(
    find_variant(EMBEDDED), d_model=32, decoder_mlp_dim=32,
    memory_dim=16, memory_layers=1, memory_mlp_dim=16,
)  # fmt: skip
OPTIONS = Options(size=64, steps=100, images=2, prompts=4, lr=3e-3, cooldown=1.0, warmup=1, refine=0.5, corrected=2)


def _trainer(seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    model = Sam2(SMALL, image_size=64).train()
    set_initial_values(model, seed)
    return Trainer(model, OPTIONS)


def test_the_loss_falls_on_one_batch() -> None:
    trainer, batch = _trainer(), draw_batch(Material(), 0, 2, 4, 64)
    losses = [trainer.train_step(batch)["loss"] for _ in range(25)]
    assert all(loss == loss for loss in losses)
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    drawn = [draw_batch(Material(), 2 * i, 2, 4, 64) for i in range(4)]
    unbroken, first = _trainer(), _trainer()
    for batch in drawn:
        unbroken.train_step(batch)
    for batch in drawn[:2]:
        first.train_step(batch)
    save_checkpoint(tmp_path / "checkpoint.pt", first.state())
    second = _trainer(seed=1)
    second.resume(load_checkpoint(tmp_path / "checkpoint.pt"))
    for batch in drawn[2:]:
        second.train_step(batch)
    assert second.step == unbroken.step == 4
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
        assert torch.equal(unbroken.average[name], second.average[name]), name


def test_a_stage_logs_evaluates_and_leaves_weights_to_ship(tmp_path: Path) -> None:
    trainer = _trainer()
    trainer.options = replace(OPTIONS, steps=2, log_every=1, eval_every=2, eval_scenes=1, workers=0)
    run_stage(trainer, tmp_path, lambda size: Sam2(SMALL, image_size=size))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert lines[0]["lr"] > lines[1]["lr"]
    assert 0 <= lines[-1]["held_out"]["one_click"]["by_score"] <= 1
    weights = load_weights(tmp_path / "weights.safetensors")
    assert weights.keys() == trainer.model.state_dict().keys()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2


def test_the_start_is_a_function_of_its_seed_and_ties_the_cross_attentions() -> None:
    first, again = _trainer().model, _trainer().model
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    values = first.state_dict()
    attention = "sam_mask_decoder.transformer.layers.0.cross_attn_token_to_image"
    assert torch.equal(values[f"{attention}.q_proj.weight"], values[f"{attention}.k_proj.weight"])
    assert torch.equal(values[f"{attention}.out_proj.weight"], values[f"{attention}.v_proj.weight"].T)


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    weights = _trainer().average
    path = tmp_path / "run" / "weights.safetensors"
    save_weights(path, weights, {"step": "0"})
    assert load_weights(path).keys() == weights.keys()
    with pytest.raises(AttributeError):
        save_checkpoint(path, {"bad": lambda: None})  # a lambda cannot be written
    assert load_weights(path).keys() == weights.keys()
    assert [p.name for p in path.parent.iterdir()] == ["weights.safetensors"]
