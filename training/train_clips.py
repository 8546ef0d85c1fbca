"""Trains the embedded model on clips, pictures beside them: what it remembers of an object, how it finds it again.

python -m training.train_clips --run runs/clips --from WEIGHTS --photos PHOTOS --made MADE --minutes 60
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.contract import NUM_POINTER_SLOTS, PADDING
from sam2edge.imaging.frame import LOGIT_LIMIT
from training.batches import Batch, draw_batch, drawn
from training.clip_batches import ClipBatch, draw_clip_batch
from training.corrections import best_of_three, error_clicks, masks_to_hand_back
from training.evaluate_clips import evaluate_clips
from training.losses import Weights, total_loss
from training.train import Options, Trainer, by_image, first_scene, run_command

_HIDDEN_LOGIT = -1024.0
# Few frames tell of a long clip; SA-V, which SAM 2 was trained on, has masks for every fourth frame (6 of 24 a second).
_LEAPS = (1, 2, 1, 3)


@dataclass(frozen=True)
class ClipOptions(Options):
    """Beside `images` pictures with `prompts` prompts each, `clips` clips of `frames` frames with `objects` objects.

    `given`: share of the steps in which the first frame's masks are handed over as they are; `told`: share of the steps
    in which memories are told truly whether the object is there; `correct`: share of the steps in which one tracked
    frame is corrected by a click on each object's largest error.
    """

    images: int = 6
    prompts: int = 10
    clips: int = 1
    objects: int = 3
    frames: int = 6
    given: float = 0.3
    told: float = 0.5
    correct: float = 0.3
    eval_scenes: int = 6


@dataclass(frozen=True)
class MixedBatch:
    """What a step is trained on."""

    clips: ClipBatch
    pictures: Batch


@dataclass
class Memories:
    """What is remembered so far, a list entry a frame: memories (K, E*E, M), pointers (K, D).

    `conditioning`: the frames that were prompted, the first one and those that were corrected.
    """

    memories: list[Tensor] = field(default_factory=list)
    pointers: list[Tensor] = field(default_factory=list)
    conditioning: list[int] = field(default_factory=list)


class ClipTrainer(Trainer):
    """Unrolls the model over each clip as the tracker does, and trains on every frame's masks."""

    options: ClipOptions

    def draw(self, first_step: int) -> Iterator[MixedBatch]:
        o, material = self.options, self.material
        seed = first_scene(o.seed, o.size)

        def draw_step(step: int) -> MixedBatch:
            number = first_step + step
            clips = draw_clip_batch(material, seed + number * o.clips, o.clips, o.objects, o.size, o.frames, _LEAPS)
            first = seed + number * o.images
            return MixedBatch(clips, draw_batch(material, first, o.images, o.prompts, o.size, o.large_share))

        return drawn(draw_step, o.steps - first_step, o.workers)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        clips = evaluate_clips(model, self.options.eval_scenes, frames=16)
        return {"clips": clips, "scenes": super().evaluate(model)}

    def loss(self, batch: MixedBatch) -> tuple[Tensor, dict[str, float]]:
        loss, figures = super().loss(batch.pictures)
        clip_loss, found = self.clip_loss(batch.clips)
        return loss + clip_loss, figures | {f"clip_{name}": value for name, value in found.items()}

    def clip_loss(self, batch: ClipBatch) -> tuple[Tensor, dict[str, float]]:
        """Of the clips alone."""
        o, draw = self.options, np.random.default_rng((self.options.seed, self.step))
        given, told, correct = (draw.random() < share for share in (o.given, o.told, o.correct))
        corrected = int(draw.integers(1, o.frames)) if correct else None
        frames = self.encode(batch.frames)
        known = Memories()
        clips, objects = batch.given.shape[:2]
        losses: list[Tensor] = []
        figures: list[dict[str, float]] = []

        def judge(out: Any, time: int, weights: Weights) -> dict[str, float]:
            loss, found = total_loss(*by_image(out, (clips, objects)), batch.targets[time], weights)
            losses.append(loss)
            return found

        for time, features in enumerate(frames):
            embed = self.attend(features, known)
            out, binary = self.decode(batch, features, embed, given)
            # Without a prompt the object's score says whether it is there at all.
            figures.append(judge(out, time, Weights(present=0.1 if time == 0 else 0.5)))
            if time == corrected:
                out = self.correct(batch, features, embed, out, time)
                judge(out, time, Weights(present=0.1))
            self.remember(out, features, known, batch, time, binary, told, prompted=time in (0, corrected))
        return torch.stack(losses).mean(), _means(figures)

    def encode(self, pictures: Tensor) -> list[Any]:
        """Features of every frame: a list entry a frame, tensors of K = B * P rows."""
        clips, frames = pictures.shape[:2]
        prompts = self.options.objects
        flat = [self.model.encode_image(part) for part in pictures.flatten(0, 1).split(8)]  # type: ignore[operator]
        tensors = [torch.cat(parts).unflatten(0, (clips, frames)) for parts in zip(*flat, strict=True)]
        return [tuple(t[:, i].repeat_interleave(prompts, 0) for t in tensors) for i in range(frames)]

    def decode(self, batch: ClipBatch, features: Any, embed: Tensor | None, given: bool) -> tuple[Any, Tensor | None]:
        """The decoder's answer for a frame, and the masks (K, 1, S, S) that were given in place of it, if any.

        `embed` is what `attend` gave: None on the first frame.
        """
        no_memory, high_res_0, high_res_1, vision = features
        if embed is not None:
            return self.model.decode(embed, high_res_0, high_res_1, *_no_points(vision)), None  # type: ignore[operator]
        if not given:
            coords, labels = batch.coords.flatten(0, 1), batch.labels.flatten(0, 1)
            return self.model.decode(no_memory, high_res_0, high_res_1, coords, labels), None  # type: ignore[operator]
        masks = batch.given.flatten(0, 1)[:, None] * 20.0 - 10.0
        prompt = self.model.mask_prompt(masks)  # type: ignore[operator]
        out = self.model.decode(vision, high_res_0, high_res_1, *_no_points(vision), prompt)  # type: ignore[operator]
        side = masks.shape[-1]
        # What is remembered comes from the masks at the size of the decoder's.
        small = F.interpolate(masks, size=side // 4, mode="bilinear", antialias=True)
        return out, F.interpolate(small, size=side, mode="bilinear")

    def correct(self, batch: ClipBatch, features: Any, embed: Tensor | None, out: Any, time: int) -> Any:
        """The decoder's answer to a click on each object's largest error in `out`, with `out`'s masks handed back."""
        with torch.no_grad():
            masks = masks_to_hand_back(out)
            masks = torch.where(out.object_score[:, :, None, None] > 0, masks, -LOGIT_LIMIT)
            coords, labels = error_clicks(masks, batch.targets[time].masks.flatten(0, 1))
        has_mask = masks.new_ones(len(masks))
        return self.model.decode(embed, features[1], features[2], coords[:, None], labels[:, None], masks, has_mask)  # type: ignore[operator]

    def attend(self, features: Any, known: Memories) -> Tensor | None:
        """A frame's features with what is remembered, as tracking/memory_bank.py recalls it; None where nothing is."""
        frame, vision = len(known.memories), features[3]
        if frame == 0:
            return None
        rows, slots = len(vision), int(self.model.variant.num_mask_slots)  # type: ignore[union-attr, arg-type]
        recent = [f for f in range(frame - 1, -1, -1) if f not in known.conditioning]
        near = [(f, frame - f) for f in recent if frame - f < slots]
        ages = [*((f, 0) for f in known.conditioning), *near][:slots]
        memory = torch.stack([known.memories[f] for f, _ in ages], dim=1)
        memory_ages = torch.tensor([age for _, age in ages], device=vision.device).expand(rows, -1)
        pointed = [*known.conditioning, *recent][:NUM_POINTER_SLOTS]
        pointers = torch.stack([known.pointers[f] for f in pointed], dim=1)
        pointer_ages = vision.new_tensor([(frame - f) / (NUM_POINTER_SLOTS - 1) for f in pointed]).expand(rows, -1)
        return self.model.attend_memory(vision, memory, memory_ages, pointers, pointer_ages, None)  # type: ignore[operator, no-any-return]

    def remember(
        self, out: Any, features: Any, known: Memories, batch: ClipBatch, time: int, given: Tensor | None, told: bool,
        prompted: bool,
    ) -> None:  # fmt: skip
        """Puts this frame's best-scored masks into the memory, as the tracker does; no gradient passes them."""
        present = batch.targets[time].present.flatten()[:, None] * 2.0 - 1.0
        score = present if told else out.object_score.detach()
        rows, best = best_of_three(out)
        if given is None:
            low = out.low_res_masks[rows, best][:, None].detach().float()
            masks = F.interpolate(low, size=batch.frames.shape[-2:], mode="bilinear", align_corners=False)
            masks = torch.where(score[:, :, None, None] > 0, masks, masks.new_tensor(_HIDDEN_LOGIT))
            tokens = out.mask_tokens[rows, best]
        else:
            masks, tokens, score = given, out.mask_tokens[:, 0], torch.ones_like(score)
        if prompted:
            known.conditioning.append(time)
        entered = self.model.memory_input(masks, score.new_full((len(score), 1, 1, 1), float(prompted)))  # type: ignore[operator]
        known.memories.append(self.model.encode_memory(features[3], entered, score))  # type: ignore[operator]
        known.pointers.append(self.model.object_pointers(tokens[:, None], score)[:, 0])  # type: ignore[operator]


def _no_points(vision: Tensor) -> tuple[Tensor, Tensor]:
    """The tracker's prompt: one point that is labelled as none."""
    rows = len(vision)
    return vision.new_zeros(rows, 1, 2), torch.full((rows, 1), PADDING, device=vision.device)


def _means(frames: list[dict[str, float]]) -> dict[str, float]:
    """Means over the tracked frames, and the first and last frame's IoU."""
    tracked = frames[1:]
    means = {name: sum(f[name] for f in tracked) / len(tracked) for name in tracked[0]}
    ends = {"iou_prompted": frames[0]["iou_by_score"], "iou_last": frames[-1]["iou_by_score"]}
    return means | ends


if __name__ == "__main__":
    run_command(ClipTrainer, ClipOptions(), __doc__)
