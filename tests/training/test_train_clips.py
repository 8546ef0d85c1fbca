"""Training on clips: a clip is unrolled as the tracker does it, the loss falls, the image encoder stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import EMBEDDED, find_variant
from training.clip_batches import draw_clip_batch
from training.clips import draw_clip
from training.evaluate_clips import evaluate_clips, follow, overlap, tracker_of
from training.start import set_initial_values
from training.train_clips import ClipOptions, ClipTrainer, Memories, MixedBatch, start_memory

SMALL = replace(
    find_variant(EMBEDDED), embed_dim=8, stages=(1, 1, 1, 1), global_blocks=(2,), d_model=32, decoder_mlp_dim=32,
    memory_dim=16, memory_layers=1, memory_mlp_dim=16,
)  # fmt: skip
OPTIONS = ClipOptions(size=64, steps=100, images=2, prompts=2, frames=4, rate=3e-3, warmup=1, slow=1.0)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _model() -> Sam2:
    torch.manual_seed(0)
    model = Sam2(SMALL, image_size=64)
    set_initial_values(model, 0)
    return model


def test_the_loss_falls_on_one_batch_and_the_encoder_stays() -> None:
    model = _model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer, batch = ClipTrainer(model, OPTIONS), MixedBatch(draw_clip_batch(0, 2, 2, 64, 4), None)
    losses = [trainer.train_step(batch)["mask"] for _ in range(20)]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if name.startswith(("image_encoder.", "no_mem_embed"))]
    for part in ("memory_attention.", "memory_encoder.", "obj_ptr_proj.", "maskmem_tpos_enc", "sam_mask_decoder."):
        assert [name for name in moved if name.startswith(part)], part


def test_with_scenes_the_whole_model_is_trained() -> None:
    model = _model().train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = ClipTrainer(model, replace(OPTIONS, images=1, scenes=2, scene_prompts=3, workers=0))
    batch = next(iter(trainer.draw(0)))
    assert isinstance(batch, MixedBatch) and batch.scenes is not None
    figures = trainer.train_step(batch)
    assert {"iou_by_score", "scene_iou_by_score"} <= figures.keys()
    unused = {"no_mem_pos_enc"}  # in every checkpoint, used by none
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])} - unused
    assert not [name for name in still if name.startswith("image_encoder.trunk.blocks")]


@torch.no_grad()
def test_a_clip_is_unrolled_as_the_tracker_follows_it() -> None:
    model = _model().eval()
    # Seen throughout, so that what is compared is not the logits of a hidden object.
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(50.0)  # type: ignore[operator, union-attr]
    clip = draw_clip(3, 64, 5)
    batch = draw_clip_batch(3, 1, 1, 64, 5)
    trainer = ClipTrainer(model, replace(OPTIONS, images=1, prompts=1, frames=5))
    known, unrolled = Memories(), []
    for time, features in enumerate(trainer.encode(batch.frames)):
        out, given = trainer.decode(batch, features, known, given=True)
        unrolled.append(out.low_res_masks[0, 1 + int(out.iou_scores[0, 1:].argmax())].numpy())
        trainer.remember(out, features, known, batch, time, given, told=False)
    tracker = tracker_of(model)
    tracker.prompt(clip.frames[0], mask=batch.given[0, 0].numpy())
    for frame, logits in zip(clip.frames[1:], unrolled[1:], strict=True):
        assert np.allclose(tracker.track(frame).logits[0], np.clip(logits, -32, 32), atol=1e-5)


@torch.no_grad()
def test_the_decoder_gets_features_of_the_usual_scale_from_the_start() -> None:
    model = _model().eval()
    pictures = draw_clip_batch(0, 2, 1, 64, 2).frames.flatten(0, 1)
    start_memory(model, pictures)
    features = model.encode_image(pictures)
    plain = features.vision_features.flatten(2).transpose(1, 2)
    passed = model.memory_attention.norm(plain).transpose(1, 2)
    usual = features.image_embed.flatten(2)
    assert torch.allclose(passed.mean((0, 2)), usual.mean((0, 2)), atol=1e-4)
    assert (passed - usual).std() < 0.7 * usual.std()


def test_figures_of_clips() -> None:
    figures = evaluate_clips(_model().eval(), clips=2, frames=4)
    assert figures["clips"] == 2
    assert 0 <= figures["j"] <= 1
    assert 0.1 < figures["first_frame_kept"] <= 1
    assert "j_after_hidden" not in figures


def test_following_counts_every_frame_but_the_first() -> None:
    clip = draw_clip(2, 64, 4)
    found = follow(tracker_of(_model().eval()), clip, list(clip.objects[:2]))
    assert found.shape == (3, len(clip.objects[:2]))


def test_overlap_counts_rightly_absent_as_right() -> None:
    none, some = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    assert overlap(none, none) == 1.0
    assert overlap(some, none) == 0.0
    assert overlap(some, some) == 1.0
