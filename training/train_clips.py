"""Trains the embedded model's memory modules on drawn clips: what it remembers of an object, and how it finds it again.

    python -m training.train_clips --run runs/m256 --from WEIGHTS --size 256 --steps 1000

The image encoder stays as it is unless scenes are trained on beside the clips; the mask decoder goes along slowly,
with the prompted frames beside the tracked ones.
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
from training.batches import Batch, draw_batch, drawn, normalise
from training.clip_batches import ClipBatch, draw_clip_batch
from training.corrections import best_of_three, error_clicks, masks_to_hand_back
from training.evaluate_clips import evaluate_clips
from training.losses import Weights, total_loss
from training.optimisers import decayed
from training.scenes import draw_scene
from training.train import Options, Trainer, by_image, first_scene, run_command

_FROZEN = ("image_encoder.", "sam_mask_decoder.conv_s", "no_mem_embed")
_SLOW = ("sam_mask_decoder.", "sam_prompt_encoder.")
_HIDDEN_LOGIT = -1024.0
# Few frames tell of a long clip; SA-V, which SAM 2 was trained on, has masks for every fourth frame (6 of 24 a second).
_LEAPS = (1, 2, 1, 3)


@dataclass(frozen=True)
class ClipOptions(Options):
    """`images` clips of `frames` frames with `prompts` objects each.

    `given`: share of the steps in which the first frame's masks are handed over as they are; `slow`: the decoder's
    part of the rate; `told`: share of the steps in which memories are told truly whether the object is there;
    `correct`: share of the steps in which one tracked frame is corrected by a click on each object's largest error;
    `fresh`: the memory modules to start from were never trained. With `scenes` above 0 each step has as many scenes
    beside its clips, with `scene_prompts` prompts each, and the whole model is trained on those.
    """

    images: int = 4
    prompts: int = 3
    frames: int = 6
    given: float = 0.3
    slow: float = 0.2
    told: float = 0.5
    correct: float = 0.3
    fresh: bool = False
    scenes: int = 0
    scene_prompts: int = 6
    eval_scenes: int = 6


@dataclass(frozen=True)
class MixedBatch:
    """What a step is trained on."""

    clips: ClipBatch
    scenes: Batch | None


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

    @staticmethod
    def prepare(model: nn.Module, options: ClipOptions) -> None:
        if options.fresh:
            scenes = range(first_scene(options.seed, options.size), first_scene(options.seed, options.size) + 8)
            start_memory(model, torch.stack([normalise(draw_scene(seed, options.size).image) for seed in scenes]))

    def groups(self) -> list[dict[str, Any]]:
        frozen = () if self.options.scenes else _FROZEN
        named = [(n, p) for n, p in self.model.named_parameters() if not n.startswith(frozen)]
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        slow = [p for n, p in named if n.startswith(_SLOW)]
        quick = [p for n, p in named if not n.startswith(_SLOW)]
        decay = self.options.decay
        return [*decayed(quick, decay), *decayed(slow, decay, self.options.slow)]

    def draw(self, first_step: int) -> Iterator[MixedBatch]:
        o = self.options
        seed = first_scene(o.seed, o.size)

        def draw_step(step: int) -> MixedBatch:
            number = first_step + step
            clips = draw_clip_batch(seed + number * o.images, o.images, o.prompts, o.size, o.frames, _LEAPS)
            if not o.scenes:
                return MixedBatch(clips, None)
            scenes = draw_batch(seed + number * o.scenes, o.scenes, o.scene_prompts, o.size, o.large_share)
            return MixedBatch(clips, scenes)

        return drawn(draw_step, o.steps - first_step, o.workers)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        clips = evaluate_clips(model, self.options.eval_scenes, frames=16)
        return {"clips": clips, "scenes": super().evaluate(model)} if self.options.scenes else clips

    def loss(self, batch: MixedBatch) -> tuple[Tensor, dict[str, float]]:
        loss, figures = self.clip_loss(batch.clips)
        if batch.scenes is None:
            return loss, figures
        scene_loss, found = super().loss(batch.scenes)
        return loss + scene_loss, figures | {f"scene_{name}": value for name, value in found.items()}

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
        """Features of every frame: a list entry a frame, tensors of K = B * P rows.

        Gradients pass to the image encoder only where scenes beside the clips keep it what it was.
        """
        clips, frames = pictures.shape[:2]
        prompts = self.options.prompts
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.options.scenes > 0):
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


@torch.no_grad()
def start_memory(model: nn.Module, pictures: Tensor) -> None:
    """Sets the memory attention's last norm so that what it passes on has the scale that the decoder was trained on.

    pictures (B, 3, S, S). For each channel the line from the normalised features to the decoder's usual input.
    """
    features = model.encode_image(pictures)  # type: ignore[operator]
    plain = features.vision_features.flatten(2).transpose(1, 2)
    usual = features.image_embed.flatten(2).transpose(1, 2).flatten(0, 1)
    normed = F.layer_norm(plain, plain.shape[-1:]).flatten(0, 1)
    centred = normed - normed.mean(0)
    slope = (centred * (usual - usual.mean(0))).mean(0) / centred.square().mean(0)
    norm: Any = model.memory_attention.norm  # type: ignore[union-attr]
    norm.weight.copy_(slope)
    norm.bias.copy_(usual.mean(0) - slope * normed.mean(0))


if __name__ == "__main__":
    run_command(ClipTrainer, ClipOptions(rate=5e-4, last_rate=5e-5, warmup=50), __doc__)
