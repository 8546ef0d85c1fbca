"""`sam2edge track`: follows prompted objects through a video and draws them onto it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np

from sam2edge.cli.following import Run, follow
from sam2edge.cli.hints import note
from sam2edge.cli.model_options import FileName, model_options
from sam2edge.cli.prompt_file import FramePrompt, read_prompt_file, read_prompt_options
from sam2edge.cli.prompt_options import Box, Point, box_option, point_option
from sam2edge.cli.terminal import Reported, printable, progress, tell_new_name
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.outputs import try_output
from sam2edge.video.choose_sink import open_result_sink
from sam2edge.video.frame import FrameSource
from sam2edge.video.latest import LatestFrames
from sam2edge.video.pace import Paced
from sam2edge.video.result_sink import IndexPngs, ResultSink
from sam2edge.video.reversed import ReversedFrames
from sam2edge.video.sinks import rescue_videos
from sam2edge.video.sources.address import short_name, without_password
from sam2edge.video.sources.choose import open_source
from sam2edge.video.sources.files import PICTURE_SUFFIXES

_WHOLE = 0.9  # of the frames that a video announces; their number is often an estimate


@click.command(no_args_is_help=True)
@click.argument("source", type=FileName("SOURCE"), metavar="SOURCE")
@point_option
@box_option
@click.option("--pick", is_flag=True, help="Choose the objects by clicking on the first frame, in a window.")
@click.option(
    "--prompts",
    "prompt_file",
    type=FileName("FILE.json"),
    help="Prompts on later frames too; see docs/tracking.md.",
)
@click.option("--out", metavar="FILE", help=".mp4, .jsonl, .mcap or rtsp://...; default: <name>.tracked.mp4 here.")
@click.option("--masks", metavar="DIR", help="Write an index PNG for each frame, as the DAVIS data set has them.")
@model_options
@click.option("--size", "image_size", type=int, metavar="PIXELS", help="Side of the model's input. Default: its own.")
@click.option("--every", type=click.IntRange(min=1), metavar="N", default=1, help="Run the model on every Nth frame.")
@click.option("--reverse", is_flag=True, help="From the last frame to the first; the video then plays backwards.")
@click.option(
    "--drop-after", type=click.IntRange(min=1), metavar="N", help="End an object that was hidden for N frames."
)
@click.option("--live", is_flag=True, help="Play a file at its own rate and drop frames where the model is slower.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there; otherwise the new one gets a number.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, with every frame in it.")
@click.option("--jsonl", "as_lines", is_flag=True, help="Print a JSON line for each frame while it runs.")
def track(
    source: str,
    points: tuple[tuple[Point, ...], ...],
    boxes: tuple[Box, ...],
    pick: bool,
    prompt_file: str | None,
    out: str | None,
    masks: str | None,
    model_id: str,
    backend: str,
    checkpoint: str | None,
    image_size: int | None,
    every: int,
    reverse: bool,
    drop_after: int | None,
    live: bool,
    force: bool,
    as_json: bool,
    as_lines: bool,
) -> None:
    """Follow objects through SOURCE: a video, a folder of pictures, a camera (0 or /dev/video0) or a URL.

    Points and boxes are on the first frame (the last with --reverse); --pick shows it, and a camera waits meanwhile.
    Writes the video with the objects outlined. Ctrl-C or SIGTERM ends it early and leaves a video of the frames so far.
    """
    if as_json and as_lines:
        raise click.UsageError("Give --json or --jsonl, not both.")
    if pick and (points or boxes or prompt_file is not None):
        raise click.UsageError("--pick goes with none of --point, --box and --prompts.")
    prompts = _ask_later() if pick else _read_prompts(points, boxes, prompt_file)
    out_path = Path(f"{short_name(source)}.tracked.mp4") if out is None else Path(out)
    if out_path.exists() and Path(source).exists() and out_path.samefile(source):
        raise InvalidInputError("--out is the source itself", expected="another file", got=out_path)
    if reverse and live:
        raise click.UsageError("Give --reverse or --live, not both.")
    if reverse and not callable(prompts):
        prompts = sorted(prompts, key=lambda prompt: -prompt.frame) if prompt_file else _answer_with(prompts)
    frames = _open(source, live, reverse)
    with closing(frames):
        _tell_rescued(out_path.parent)
        pngs = [] if masks is None else [IndexPngs(Path(masks), Path(source))]
        if out is not None and "://" not in out:
            try_output(out_path, replace=force)
        # A live run drops frames and begins late, so that the sound would not fit.
        sound_from = Path(source) if Path(source).is_file() and not (live or reverse) else None
        sink = open_result_sink(str(out_path) if out is None else out, frames.fps, force, sound_from)
        try:
            with progress(f"loading {model_id}"):
                tracker = _load_tracker(model_id, backend, checkpoint, image_size, frames.num_frames, drop_after)
            tell = _print_line if as_lines else None
            run = follow(tracker, frames, prompts, every, [sink, *pngs], as_json, tell, reverse)
            written = _finish(sink, run)
        finally:
            sink.discard()
    tell_new_name(out_path, written or out_path)
    report = _report(source, tracker, frames, run, written, masks)
    click.echo(json.dumps(report) if as_json else printable(_summarise(report, len(run.object_ids))), err=as_lines)
    if run.error is not None:
        raise Reported(run.error)
    _warn(frames, run)


def _ask_later() -> Callable[[np.ndarray], list[FramePrompt]]:
    """A function that asks for prompts on the first frame. Raises an error now where there is no display for it."""
    from sam2edge.cli.pick import check_display, pick_objects

    check_display()
    return lambda frame_bgr: [
        FramePrompt(0, number, found.arguments()) for number, found in enumerate(pick_objects(frame_bgr), 1)
    ]


def _answer_with(prompts: list[FramePrompt]) -> Callable[[np.ndarray], list[FramePrompt]]:
    """The prompts of the options, for whichever frame comes first."""
    return lambda _: prompts


def _print_line(description: dict[str, Any]) -> None:
    click.echo(json.dumps(description))
    sys.stdout.flush()


def _finish(sink: ResultSink, run: Run) -> Path | None:
    """The path of the result; an error while finishing it becomes the run's, unless it has one."""
    try:
        return sink.close()
    except Sam2EdgeError as error:
        run.error = run.error or error
        return None


def _tell_rescued(folder: Path) -> None:
    for path in rescue_videos(folder) if folder.is_dir() else ():
        note(f"an earlier run was killed; its video so far is {printable(path)}")


def _open(source: str, live: bool, reverse: bool) -> FrameSource:
    if Path(source).suffix.lower() in PICTURE_SUFFIXES and Path(source).is_file():
        raise InvalidInputError(
            "this is a photo, not a video",
            expected="a video, a folder of pictures, a camera or a URL",
            got=source,
            remedy=f"sam2edge segment {source} --box X1,Y1,X2,Y2",
        )
    frames = open_source(source)
    if reverse and not frames.live:
        return ReversedFrames(frames, lambda: open_source(source))
    if reverse:
        frames.close()
        raise InvalidInputError("--reverse of a live source", expected="a video file or a folder", got=source)
    if not frames.live:
        return LatestFrames(Paced(frames)) if live else frames
    latest = LatestFrames(frames)
    latest.start()  # so that its newest frame is used once the model is loaded
    return latest


def _warn(frames: FrameSource, run: Run) -> None:
    for prompt in run.unused:
        click.echo(f"warning: no frame {prompt.frame}, so its prompt was not used", err=True)
    if frames.num_frames is not None and run.num_frames < _WHOLE * frames.num_frames:
        announced = f"it announces {frames.num_frames} frames and gave {run.num_frames}"
        click.echo(f"warning: the video may be damaged: {announced}", err=True)


def _read_prompts(
    points: tuple[tuple[Point, ...], ...], boxes: tuple[Box, ...], prompt_file: str | None
) -> list[FramePrompt]:
    by_option = read_prompt_options(points, boxes)
    if by_option and prompt_file is not None:
        raise click.UsageError("Give --prompts FILE.json, or --point and --box, not both.")
    if prompt_file is not None:
        return read_prompt_file(Path(prompt_file))
    if not by_option:
        raise click.UsageError("Nothing to track: give --box X1,Y1,X2,Y2, --point X,Y or --prompts FILE.json.")
    return by_option


def _load_tracker(
    model_id: str,
    backend: str,
    checkpoint: str | None,
    image_size: int | None,
    num_frames: int | None,
    drop_after: int | None,
) -> Any:
    from sam2edge import VideoTracker  # here, so that bad usage and bad videos are told without loading it
    from sam2edge.automodel import AutoModel

    model = AutoModel.from_pretrained(
        model_id, backend=backend, checkpoint=checkpoint, image_size=image_size, tracking=True
    )
    return VideoTracker(model, num_frames=num_frames, drop_after=drop_after)


def _report(
    source: str, tracker: Any, frames: FrameSource, run: Run, written: Path | None, masks: str | None
) -> dict[str, Any]:
    """What `--json` prints; `frames_per_second` counts everything, `model_frames_per_second` the model alone."""
    return {
        "source": without_password(source),
        "model": tracker.model.variant.model_id,
        "backend": tracker.model.backend_name,
        "image_size": tracker.model.image_size,
        "report": str(tracker.model.report).splitlines(),
        "num_frames": run.num_frames,
        "dropped_frames": frames.dropped if isinstance(frames, LatestFrames) else 0,
        "interrupted": isinstance(run.error, KeyboardInterrupt),
        "error": None if run.error is None else str(run.error) or type(run.error).__name__,
        "frames_per_second": round(run.num_frames / run.seconds, 3) if run.seconds else None,
        "model_frames_per_second": round(run.num_frames / run.tracker_seconds, 3) if run.tracker_seconds else None,
        "memory_bytes": tracker.memory_nbytes,
        "out": None if written is None else str(written),
        "masks": masks,
        "frames": run.frames,
    }


def _summarise(report: dict[str, Any], objects: int) -> str:
    speed = report["frames_per_second"]
    files = " ".join(click.format_filename(report[name]) for name in ("out", "masks") if report[name])
    dropped = f", {report['dropped_frames']} dropped" if report["dropped_frames"] else ""
    return f"{report['num_frames']} frames{dropped}, {objects} objects, {speed or 0:.1f} frames a second: {files}"
