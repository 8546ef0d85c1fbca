"""The recipe in pieces: cut after every step it ends with the weights of a run that was never cut."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from sam2edge.torch_sam2.model import Sam2
from tests.training.test_train import SMALL
from training import recipe
from training.checkpoints import load_weights
from training.recipe import STAGES, run_recipe, steps_done, what_is_left
from training.train import first_scene
from training.train_clips import ClipOptions

TOY_STAGES = tuple(replace(s, options=replace(s.options, workers=0)) for s in recipe.TOY_STAGES)


def _small(size: int) -> nn.Module:
    return Sam2(SMALL, image_size=size)


def test_cut_after_every_step_it_ends_alike(tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert run_recipe(whole, TOY_STAGES, None, math.inf, _small)
    left = [what_is_left(pieces, TOY_STAGES)]
    while not run_recipe(pieces, TOY_STAGES, None, 0.0, _small):
        left.append(what_is_left(pieces, TOY_STAGES))
    assert left[0] == ["a: 0 of 2 steps", "m: 0 of 2 steps"]
    assert left[1] == ["a: 1 of 2 steps", "m: 0 of 2 steps"]
    assert not what_is_left(pieces, TOY_STAGES)
    first, second = (load_weights(run / "weights.safetensors") for run in (whole, pieces))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_weights_lost_between_two_files_are_written_again(tmp_path: Path) -> None:
    stages = TOY_STAGES[:1]
    assert run_recipe(tmp_path, stages, None, math.inf, _small)
    weights = tmp_path / "a" / "weights.safetensors"
    weights.write_bytes(b"cut short")
    assert steps_done(weights) == 0
    assert run_recipe(tmp_path, stages, None, math.inf, _small)
    assert steps_done(weights) == 2


def test_the_command_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "make_embedded", _small)
    monkeypatch.setattr(recipe, "run_recipe", partial(run_recipe, make_model=_small))
    arguments = [
        "--run",
        str(tmp_path),
        "--toy",
        "--workers",
        "0",
        "--minutes",
        "0",
        "--scenes",
        "1",
        "--clips",
        "1",
        "--frames",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    ends = []
    for _ in range(8):
        recipe.main()
        ends.append(capsys.readouterr().out.strip().splitlines()[-1])
        if ends[-1].startswith("done"):
            break
    assert ends[0] == "left: a: 1 of 2 steps; m: 0 of 2 steps; the figures"
    assert ends[-2] == "left: the figures"
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["scenes"]["objects"] >= 1
    assert 0 <= figures["clips"]["j"] <= 1


def test_no_picture_and_no_clip_of_the_stages_comes_twice() -> None:
    pictures, clips = [], []
    for stage in STAGES:
        o, first = stage.options, first_scene(stage.options.seed, stage.options.size)
        pictures.append((first, first + o.steps * o.images))
        if isinstance(o, ClipOptions):
            clips.append((first, first + o.steps * o.clips))
    for ranges in (pictures, clips):
        ordered = sorted(ranges)
        assert all(end <= start for (_, end), (start, _) in pairwise(ordered))
        assert ordered[-1][1] <= 1 << 31
