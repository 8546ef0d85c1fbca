"""Training on clips: a clip is unrolled as the tracker does it, the loss falls, the image encoder stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import EMBEDDED, find_variant
from training.batches import draw_batch
from training.clip_batches import draw_clip_batch
from training.clips import draw_clip
from training.corrections import next_click
from training.evaluate_clips import after_correction, evaluate_clips, follow, overlap, tracker_of
from training.init_weights import set_initial_values
from training.pictures import Material
from training.train import FROZEN
from training.train_clips import ClipOptions, ClipTrainer, Memories, MixedBatch

SMALL = replace(
    find_variant(EMBEDDED), d_model=32, decoder_mlp_dim=32,
    memory_dim=16, memory_layers=1, memory_mlp_dim=16,
)  # fmt: skip
OPTIONS = ClipOptions(size=64, steps=100, images=2, prompts=3, clips=2, objects=2, frames=4, lr=3e-3, warmup=1)


def _model() -> Sam2:
    torch.manual_seed(0)
    model = Sam2(SMALL, image_size=64)
    set_initial_values(model, 0)
    return model


@torch.no_grad()
def _seen_throughout(model: Sam2) -> None:
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(50.0)  # type: ignore[operator, union-attr]


def _batch() -> MixedBatch:
    return MixedBatch(draw_clip_batch(Material(), 0, 2, 2, 64, 4), draw_batch(Material(), 0, 2, 3, 64))


def test_the_loss_falls_on_one_batch_and_all_but_the_fine_features_is_trained() -> None:
    model = _model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer, batch = ClipTrainer(model, replace(OPTIONS, refine=0.0)), _batch()
    figures = [trainer.train_step(batch) for _ in range(20)]
    for name in ("mask", "clip_mask"):
        losses = [found[name] for found in figures]
        assert sum(losses[-3:]) < 0.9 * sum(losses[:3]), name
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    unused = {"no_mem_pos_enc", "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}
    assert {name for name in still if not name.startswith(FROZEN)} <= unused
    assert {name for name in before if name.startswith(FROZEN)} <= still


def test_clips_train_the_image_encoder() -> None:
    trainer = ClipTrainer(_model().train(), OPTIONS)
    loss, _ = trainer.clip_loss(_batch().clips)
    loss.backward()  # type: ignore[no-untyped-call]
    trunk = [p for n, p in trainer.model.named_parameters() if n.startswith("image_encoder.trunk.blocks.12.")]
    assert all(p.grad is not None and bool(p.grad.any()) for p in trunk)


@pytest.mark.parametrize("corrected", [None, 3])
@torch.no_grad()
def test_a_clip_is_unrolled_as_the_tracker_follows_it(corrected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = _model().eval(), 10
    _seen_throughout(model)  # so that what is compared is not the logits of a hidden object
    clicks: list[tuple[float, float, int]] = []

    def noted(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float, int]:
        clicks.append(next_click(found, wanted))
        return clicks[-1]

    monkeypatch.setattr("training.corrections.next_click", noted)
    clip = draw_clip(3, 64, frames)
    batch = draw_clip_batch(Material(), 3, 1, 1, 64, frames)
    trainer = ClipTrainer(model, replace(OPTIONS, clips=1, objects=1, frames=frames))
    known, unrolled = Memories(), []
    for time, features in enumerate(trainer.encode(batch.frames)):
        embed = trainer.attend(features, known)
        out, given = trainer.decode(batch, features, embed, given=True)
        if time == corrected:
            out = trainer.correct(batch, features, embed, out, time)
        unrolled.append(out.low_res_masks[0, 1 + int(out.iou_scores[0, 1:].argmax())].numpy())
        prompted = time in (0, corrected)
        trainer.remember(out, features, known, batch, time, given, told=False, prompted=prompted)
    tracker = tracker_of(model)
    tracker.prompt(clip.frames[0], mask=batch.given[0, 0].numpy())
    for time in range(1, frames):
        found = tracker.track(clip.frames[time])
        if time == corrected:
            x, y, label = clicks[0]  # in cells of the masks
            found = tracker.prompt(points=[[4 * x + 2, 4 * y + 2]], labels=[label])
        assert np.allclose(found.logits[0], np.clip(unrolled[time], -32, 32), atol=1e-5), time
    assert len(clicks) == (corrected is not None)


def test_steps_with_a_correction_train_on_it() -> None:
    trainer = ClipTrainer(_model().train(), replace(OPTIONS, correct=1.0))
    batch = draw_clip_batch(Material(), 0, 2, 2, 64, 4)
    calls: list[int] = []
    correct = trainer.correct
    trainer.correct = lambda *a: (calls.append(a[-1]), correct(*a))[1]  # type: ignore[method-assign, func-returns-value]
    loss, _ = trainer.clip_loss(batch)
    loss.backward()
    assert len(calls) == 1 and 1 <= calls[0] < 4
    assert torch.isfinite(loss)
    assert any(
        p.grad is not None and p.grad.any() for n, p in trainer.model.named_parameters() if "mask_downscaling" in n
    )


def test_figures_of_clips() -> None:
    figures = evaluate_clips(_model().eval(), clips=2, frames=4)
    assert figures["clips"] == 2
    assert 0 <= figures["j"] <= 1
    assert 0.1 < figures["first_frame_kept"] <= 1
    assert "j_after_hidden" not in figures


def test_a_correction_is_given_once_to_the_object_that_is_worst_off() -> None:
    model, pairs = _model().eval(), []
    _seen_throughout(model)
    tracker = tracker_of(model)
    for seed in range(3):
        clip = draw_clip(seed, 64, 8)
        asked = list(clip.objects[:2])
        found = follow(tracker, clip, asked)
        pairs += after_correction(tracker, clip, asked, found, at=4)
        assert not after_correction(tracker, clip, asked, np.ones_like(found), at=4)  # nothing to mend
    assert pairs
    assert all(0 <= value <= 1 for pair in pairs for value in pair)
    assert any(without != corrected for without, corrected in pairs)


def test_following_counts_every_frame_but_the_first() -> None:
    clip = draw_clip(2, 64, 4)
    found = follow(tracker_of(_model().eval()), clip, list(clip.objects[:2]))
    assert found.shape == (3, len(clip.objects[:2]))


def test_overlap_counts_rightly_absent_as_right() -> None:
    none, some = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    assert overlap(none, none) == 1.0
    assert overlap(some, none) == 0.0
    assert overlap(some, some) == 1.0
