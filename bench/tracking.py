"""Tracking on drawn clips of known truth: python -m bench.tracking events|selection [options]

events: are "lost", "left", "found" and "merged" told when they happen, and only then? Precision and recall over clips
    in which objects are covered for ten frames, leave the picture, pass before one another, or are cut away from.
selection: what `memory_selection` brings where look-alikes cross: mean J (IoU, 1 where the object is rightly said to be
    gone) and how often an object's mask goes over to a look-alike. Frames are encoded once for all three rules.

Objects are prompted by their boxes on the first frame. Any model will do: --model, --checkpoint, --backend.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.clip import iou
from bench.harness import make_parser, report, use_cores
from sam2edge import AutoModel, ImagePredictor, VideoTracker
from sam2edge.datatypes import TrackEvent
from sam2edge.tracking.options import MEMORY_SELECTIONS
from training.actors import draw_actors, draw_camera, draw_motion
from training.canvas import Canvas, Placement
from training.clips import Clip, Cover, draw_clip
from training.photography import photograph
from training.prompts import box_of
from training.shots import Shot, draw_world, middle_of

MICRO = "sam2/micro"
SIZE = 384
FIRST_SEED = 3_000_000
MOST_OBJECTS = 2
COVERED = (8, 18)
"""Frames between which the largest object of a clip of events is hidden."""
LEAST_SHARE = 1e-3
"""Share of the picture below which an object does not count as seen."""
WITHIN = 4
"""Frames by which an event may be told before or after it happens."""
ALIKE = 4
KINDS = ("lost", "left", "lost or left", "found", "merged")


@dataclass(frozen=True)
class Happening:
    """An event, true or told."""

    kind: str
    object_id: int
    frame: int


def main() -> None:
    parser = make_parser(__doc__, rounds=1)
    parser.add_argument("what", choices=("events", "selection"))
    parser.add_argument("--model", default=MICRO)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    use_cores(args.cores)
    model = AutoModel.from_pretrained(args.model, backend=args.backend, checkpoint=args.checkpoint, tracking=True)
    {"events": measure_events, "selection": compare_selections}[args.what](args, model)


def measure_events(args: argparse.Namespace, model: ImagePredictor) -> None:
    tallies: Counter[tuple[str, str]] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + args.clips):
        clip = draw_clip(seed, SIZE, args.frames, Cover(0, *COVERED) if seed % 2 else None)
        asked = list(clip.objects[:MOST_OBJECTS])
        told, masks = follow(VideoTracker(model, input_color_format="rgb"), clip, asked)
        tallies.update(tally_events(told, find_true_events(clip, asked), find_double_masks(clip, asked, masks)))
    rows = [write_row(kind, tallies) for kind in KINDS]
    for row in rows:
        print(row)
    settings = {"model": args.model, "image_size": model.image_size, "clips": args.clips, "frames": args.frames}
    report("tracking_events", {}, [], {}, {**settings, "within_frames": WITHIN, "seed": FIRST_SEED}, {"events": rows})


def follow(tracker: VideoTracker, clip: Clip, asked: Sequence[int]) -> tuple[list[TrackEvent], NDArray[np.bool_]]:
    """The events of a clip, and masks (T, N, S, S)."""
    masks = []
    for number in asked:
        result = tracker.prompt(clip.frames[0], number, box=box_of(clip.labels[0] == number))
    masks.append(result.masks)
    events: list[TrackEvent] = []
    for frame in clip.frames[1:]:
        result = tracker.track(frame)
        masks.append(result.masks)
        events += result.events
    return events, np.stack(masks)


def find_true_events(clip: Clip, asked: Sequence[int]) -> list[Happening]:
    """When objects of a clip go and come; "left" where they were last seen at the picture's edge."""
    found = []
    for number in asked:
        last: NDArray[np.bool_] | None = None
        was_seen = True
        for frame, labels in enumerate(clip.labels):
            mask = labels == number
            is_seen = bool(mask.mean() >= LEAST_SHARE)
            if is_seen and not was_seen:
                found.append(Happening("found", number, frame))
            if was_seen and not is_seen and last is not None:
                at_edge = last[[0, -1]].any() or last[:, [0, -1]].any()
                found.append(Happening("left" if at_edge else "lost", number, frame))
            was_seen, last = is_seen, mask if is_seen else last
    return found


def find_double_masks(clip: Clip, asked: Sequence[int], masks: NDArray[np.bool_]) -> list[Happening]:
    """When two masks come to hold more than half of one object's pixels: the truth of "merged".

    They part when that was not so for WITHIN frames.
    """
    found = []
    for i, j in itertools.combinations(range(len(asked)), 2):
        last = -WITHIN - 1
        for frame, labels in enumerate(clip.labels):
            both = masks[frame, i] & masks[frame, j]
            shares = [(both & (labels == n)).sum() / max((labels == n).sum(), 1) for n in np.unique(labels) if n > 1]
            if max(shares, default=0.0) > 0.5:
                if frame - last > WITHIN:
                    found.append(Happening("merged", asked[i], frame))
                last = frame
    return found


def find_owner(labels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> int | None:
    """The label that most of a mask lies on; None where it is empty, or on the background (1) for the most part."""
    if not mask.any():
        return None
    owner = int(np.bincount(labels[mask]).argmax())
    return owner if owner > 1 else None


def tally_events(
    told: Sequence[TrackEvent], true: Sequence[Happening], double: Sequence[Happening]
) -> Counter[tuple[str, str]]:
    """(kind, "told" | "true" | "right") to how many; an event is right within WITHIN frames of a true one."""
    tally: Counter[tuple[str, str]] = Counter()
    heard = [Happening(event.kind, event.object_id, event.frame_index) for event in told]
    for kind in KINDS:
        kinds = kind.split(" or ")
        mine = [h for h in heard if h.kind in kinds]
        theirs = [h for h in (*true, *double) if h.kind in kinds]
        tally[kind, "told"], tally[kind, "true"] = len(mine), len(theirs)
        left = list(mine)
        for happening in theirs:
            near = [h for h in left if h.object_id == happening.object_id and abs(h.frame - happening.frame) <= WITHIN]
            if near:
                left.remove(min(near, key=lambda h: abs(h.frame - happening.frame)))
                tally[kind, "right"] += 1
    return tally


def write_row(kind: str, tallies: Counter[tuple[str, str]]) -> dict[str, Any]:
    told, true, right = (tallies[kind, what] for what in ("told", "true", "right"))
    precision, recall = (round(right / count, 2) if count else None for count in (told, true))
    return {"event": kind, "happened": true, "told": told, "right": right, "precision": precision, "recall": recall}


def compare_selections(args: argparse.Namespace, model: ImagePredictor) -> None:
    encode = model.encode
    last: list[Any] = [None, None]

    def encode_once(pixels: NDArray[np.uint8], *how: Any, **options: Any) -> Any:
        if last[0] is None or not np.array_equal(last[0], pixels):
            last[:] = pixels.copy(), encode(pixels, *how, **options)
        return last[1]

    model.encode = encode_once  # type: ignore[method-assign]
    rows: dict[str, list[dict[str, float]]] = {selection: [] for selection in MEMORY_SELECTIONS}
    for seed in range(FIRST_SEED, FIRST_SEED + args.clips):
        clip = draw_lookalikes(seed, SIZE, args.frames)
        asked = clip.objects[:MOST_OBJECTS]
        for selection, masks in follow_all(model, clip, asked).items():
            rows[selection] += [score_object(clip, number, masks[:, k]) for k, number in enumerate(asked)]
    table = [{"rule": name, "objects": len(found), **average(found)} for name, found in rows.items()]
    for row in table:
        print(row)
    settings = {"model": args.model, "image_size": model.image_size, "clips": args.clips, "frames": args.frames}
    report("tracking_selection", {}, [], {}, {**settings, "alike": ALIKE, "seed": FIRST_SEED}, {"rules": table})


def follow_all(model: ImagePredictor, clip: Clip, asked: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    """Masks (T, N, S, S) of a clip by each rule, frame by frame."""
    trackers = {s: VideoTracker(model, input_color_format="rgb", memory_selection=s) for s in MEMORY_SELECTIONS}
    boxes = [box_of(clip.labels[0] == number) for number in asked]
    found = {s: [t.prompt(clip.frames[0], asked, box=boxes).masks] for s, t in trackers.items()}
    for frame in clip.frames[1:]:
        for selection, tracker in trackers.items():
            found[selection].append(tracker.track(frame).masks)
    return {selection: np.stack(masks) for selection, masks in found.items()}


def score_object(clip: Clip, number: int, masks: NDArray[np.bool_]) -> dict[str, float]:
    """J over all frames but the first and on the last, and how often another object's pixels take the mask over."""
    ious = [iou(mask, labels == number) for mask, labels in zip(masks[1:], clip.labels[1:], strict=True)]
    owners = [find_owner(labels, mask) for mask, labels in zip(masks, clip.labels, strict=True)]
    is_other = [owner is not None and owner != number for owner in owners]
    switches = sum(now and not before for before, now in itertools.pairwise(is_other))
    return {"j": statistics.mean(ious), "j_last": ious[-1], "switches": switches, "frames_on_another": sum(is_other)}


def average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means of J, sums of the counts."""
    means = {name: round(float(statistics.mean(row[name] for row in rows)), 4) for name in ("j", "j_last")}
    return means | {name: int(sum(row[name] for row in rows)) for name in ("switches", "frames_on_another")}


def draw_lookalikes(seed: int, size: int, frames: int) -> Clip:
    """ALIKE objects of one shape and nearly one colour, each with a motion of its own, before one another at times."""
    rng = np.random.default_rng((seed, 7))
    world = draw_world(rng, size)
    model = draw_actors(rng, size, middle_of(world, size), 1.0)[0]
    actors = dict(enumerate(_draw_twins(rng, model), start=2))
    shot = Shot(0, world, actors, draw_camera(rng, 0.5))
    pictures, labels = [], []
    for time in range(frames):
        canvas = Canvas(size)
        canvas.pixels[:] = shot.background(time, size)
        canvas.labels[:] = 1
        for label, actor in actors.items():
            canvas.add(label, actor.bent(time), shot.camera.seen(actor.placed(time), time), actor.paint, -1.0, 0.3)
        pictures.append(
            photograph(np.random.default_rng((seed, 3)), canvas.pixels, np.random.default_rng((seed, time)))
        )
        labels.append(canvas.labels)
    shares = np.bincount(labels[0].ravel(), minlength=ALIKE + 2) / labels[0].size
    seen = sorted((n for n in actors if shares[n] > 10 * LEAST_SHARE), key=lambda n: -shares[n])
    if len(seen) < MOST_OBJECTS:
        return draw_lookalikes(seed + (1 << 40), size, frames)
    return Clip(np.stack(pictures), np.stack(labels), tuple(seen))


def _draw_twins(rng: np.random.Generator, model: Any) -> Iterator[Any]:
    for corner in ((0.3, 0.3), (0.7, 0.3), (0.3, 0.7), (0.7, 0.7)):
        centre = np.array(corner) + rng.uniform(-0.08, 0.08, 2)
        place = Placement(centre, float(rng.uniform(0.11, 0.14)), model.place.matrix)
        colour = model.paint.colour + rng.normal(0, 0.03, 3).astype(np.float32)
        motion = replace(draw_motion(rng, 1.5), drift=np.zeros(2), growth=0.0)
        swing = rng.normal(size=2)
        motion = replace(motion, swing=0.35 * swing / np.linalg.norm(swing), swing_rate=float(rng.uniform(0.06, 0.12)))
        yield replace(model, place=place, paint=replace(model.paint, colour=colour), motion=motion)


if __name__ == "__main__":
    main()
