"""`sam2edge track`: a video and a prompt in, the followed objects drawn onto it out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from sam2edge.cli.prompt_file import FramePrompt, prompt_of_options, read_prompt_file
from sam2edge.cli.prompt_options import Box, BoxType, Point, PointType
from sam2edge.cli.terminal import frame_progress, progress
from sam2edge.datatypes import TrackResult
from sam2edge.errors import InvalidInputError
from sam2edge.overlay import draw_masks
from sam2edge.video.sinks import MaskSink, VideoSink
from sam2edge.video.sources import FrameSource, open_source


@dataclass
class _Run:
    """What is known of a run so far."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    unused: list[FramePrompt] = field(default_factory=list)
    interrupted: bool = False


@click.command(no_args_is_help=True)
@click.argument("source", metavar="SOURCE")
@click.option("--point", "points", type=PointType(), multiple=True, help="On the thing; with ,- beside it. Repeatable.")
@click.option("--box", type=BoxType(), help="Around the thing on the first frame.")
@click.option("--prompts", "prompt_file", metavar="FILE.json", help="Several objects, later frames; see the docs.")
@click.option("--out", metavar="FILE.mp4", help="Default: <name>.tracked.mp4 here.")
@click.option("--masks", metavar="DIR", help="One index PNG a frame, as in the DAVIS data set.")
@click.option(
    "--model", "model_id", metavar="ID", default="auto", show_default=True, help="See `sam2edge models list`."
)
@click.option("--backend", metavar="NAME", default="auto", show_default=True, help="onnxruntime, torch, ...")
@click.option("--checkpoint", metavar="FILE", help="Official weights, .pt or .safetensors, of the model.")
@click.option("--size", "image_size", type=int, metavar="PIXELS", help="Side of the model's input; default: its own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: times, areas and scores a frame.")
def track(
    source: str,
    points: tuple[Point, ...],
    box: Box | None,
    prompt_file: str | None,
    out: str | None,
    masks: str | None,
    model_id: str,
    backend: str,
    checkpoint: str | None,
    image_size: int | None,
    as_json: bool,
) -> None:
    """Follow a thing through SOURCE, a video file or a folder of pictures.

    Writes the video with the thing outlined. Ctrl-C ends it early and leaves a video of the frames so far.
    """
    prompts = _prompts(points, box, prompt_file)
    out_path = Path(out) if out is not None else Path(f"{Path(source).stem or 'video'}.tracked.mp4")
    if out_path.exists() and Path(source).exists() and out_path.samefile(source):
        raise InvalidInputError("--out is the source itself", expected="another file", got=out_path)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its complaints come out as one line of ours
    frames = open_source(source)
    video, mask_sink = VideoSink(out_path, frames.fps), None if masks is None else MaskSink(Path(masks))
    try:
        with progress(f"loading {model_id}"):
            tracker = _load_tracker(model_id, backend, checkpoint, image_size, frames.num_frames)
        run = _follow(tracker, frames, prompts, video, mask_sink)
        video.close()
    finally:
        video.discard()
        frames.close()
    report = _report(source, tracker, run, out_path, masks)
    click.echo(json.dumps(report) if as_json else _summary(report))
    if run.interrupted:
        raise KeyboardInterrupt
    for prompt in run.unused:
        click.echo(f"warning: no frame {prompt.frame}, so its prompt was not used", err=True)


def _prompts(points: tuple[Point, ...], box: Box | None, prompt_file: str | None) -> list[FramePrompt]:
    by_option = bool(points) or box is not None
    if by_option and prompt_file is not None:
        raise click.UsageError("Give --prompts FILE.json, or --point and --box, not both.")
    if prompt_file is not None:
        return read_prompt_file(Path(prompt_file))
    if not by_option:
        raise click.UsageError("Nothing to track: give --box X1,Y1,X2,Y2, --point X,Y or --prompts FILE.json.")
    return [prompt_of_options(points, box)]


def _load_tracker(
    model_id: str, backend: str, checkpoint: str | None, image_size: int | None, num_frames: int | None
) -> Any:
    from sam2edge import VideoTracker  # here, so that bad usage and bad videos are told without loading it
    from sam2edge.automodel import AutoModel

    model = AutoModel.from_pretrained(
        model_id, backend=backend, checkpoint=checkpoint, image_size=image_size, tracking=True
    )
    return VideoTracker(model, num_frames=num_frames)


def _follow(
    tracker: Any, frames: FrameSource, prompts: list[FramePrompt], video: VideoSink, mask_sink: MaskSink | None
) -> _Run:
    """Tracks to the end, or to Ctrl-C; a frame reaches every sink or is not counted."""
    run = _Run(unused=list(prompts))
    try:
        with frame_progress(frames.num_frames) as advance:
            for number, (frame, result, seconds) in enumerate(_results(tracker, frames, run)):
                objects = np.zeros((0, *frame.shape[:2]), bool) if result is None else result.masks
                video.write(draw_masks(frame, objects))
                if mask_sink is not None:
                    ids = () if result is None else result.object_ids
                    mask_sink.write(number, (frame.shape[0], frame.shape[1]), ids, objects)
                run.frames.append(_described(number, result, seconds))
                advance()
    except KeyboardInterrupt:
        run.interrupted = True
    if len(run.unused) == len(prompts) and not run.interrupted:
        raise InvalidInputError(
            "source ends before the first prompt",
            expected=f"a frame {prompts[0].frame}",
            got=f"{len(run.frames)} frames",
            remedy="prompt an earlier frame; the first is 0",
        )
    return run


def _results(tracker: Any, frames: FrameSource, run: _Run) -> Iterator[tuple[np.ndarray, TrackResult | None, float]]:
    """(frame, what was found on it or None before the first prompt, seconds that took)."""
    for number, frame in enumerate(frames):
        started = time.perf_counter()
        result = tracker.track(frame) if tracker.object_ids else None
        while run.unused and run.unused[0].frame == number:
            prompt = run.unused.pop(0)
            result = tracker.prompt(frame, prompt.object_id, **prompt.arguments)
        yield frame, result, time.perf_counter() - started


def _described(number: int, result: TrackResult | None, seconds: float) -> dict[str, Any]:
    objects = []
    if result is not None:
        areas = result.masks.sum(axis=(1, 2)).tolist()
        rows = zip(result.object_ids, areas, result.scores.tolist(), result.object_scores.tolist(), strict=True)
        objects = [
            {"object": i, "area_pixels": area, "score": round(score, 4), "object_score": round(visible, 4)}
            for i, area, score, visible in rows
        ]
    return {"frame": number, "milliseconds": round(seconds * 1000, 2), "objects": objects}


def _report(source: str, tracker: Any, run: _Run, out_path: Path, masks: str | None) -> dict[str, Any]:
    """What `--json` prints; `frames_per_second` counts the tracker alone, without reading, drawing and writing."""
    seconds = sum(frame["milliseconds"] for frame in run.frames) / 1000
    return {
        "source": source,
        "model": tracker.model.variant.model_id,
        "backend": tracker.model.backend_name,
        "image_size": tracker.model.image_size,
        "report": str(tracker.model.report).splitlines(),
        "num_frames": len(run.frames),
        "interrupted": run.interrupted,
        "frames_per_second": round(len(run.frames) / seconds, 3) if seconds else None,
        "memory_bytes": tracker.memory_nbytes,
        "out": str(out_path) if run.frames else None,
        "masks": masks,
        "frames": run.frames,
    }


def _summary(report: dict[str, Any]) -> str:
    speed = report["frames_per_second"]
    ids = sorted({described["object"] for frame in report["frames"] for described in frame["objects"]})
    files = " ".join(click.format_filename(report[name]) for name in ("out", "masks") if report[name])
    return f"{report['num_frames']} frames, {len(ids)} objects, {speed or 0:.1f} frames a second: {files}"
