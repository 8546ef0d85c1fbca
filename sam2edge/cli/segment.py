"""`sam2edge segment`: photos and clicks in, masks and pictures of them out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from sam2edge.cli.hints import hint_once, note
from sam2edge.cli.mask_files import (
    DEFAULT_FORMATS,
    FORMATS,
    FoundMask,
    PhotoResult,
    describe_mask,
    make_coco_entry,
    make_files,
)
from sam2edge.cli.model_options import FileName, model_options
from sam2edge.cli.photo_list import STANDARD_INPUT, list_photos, read_given_photo
from sam2edge.cli.prompt_options import Box, ObjectPrompt, Point, box_option, group_prompts, point_option
from sam2edge.cli.terminal import printable, progress, quiet_native_stderr, tell_new_name, tell_skipped_engine
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.imaging.mask_formats import coco_dataset
from sam2edge.imaging.refine import CROP, WAYS
from sam2edge.outputs import try_output, write_files
from sam2edge.variants import EMBEDDED

EVERYTHING_FORMATS = ("overlay", "rle")
"""What --everything writes by default: one file for all masks, of which there may be hundreds."""

MOST_SCORES_SHOWN = 8

UNCERTAIN_BELOW = 0.5
"""Of the embedded model's masks after a click on the 138 objects of docs/micro.md, three in ten of those with a score
below it have a true IoU under 0.5, and one in a hundred of those above."""


@dataclass
class _Output:
    """Where files go: a folder, or standard output for the one file of a run. `taken` are those of this run."""

    folder: Path | None
    formats: tuple[str, ...]
    force: bool
    quiet: bool
    taken: set[Path]

    def write(self, files: dict[str, bytes]) -> list[Path]:
        """Writes them together and returns where they lie: under other names where these are taken."""
        if self.folder is None:
            if len(files) != 1:
                raise click.UsageError("--out - takes one file: one photo, one object and one --format.")
            sys.stdout.buffer.write(next(iter(files.values())))
            return []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Sam2EdgeError(
                f"cannot make the folder {self.folder}", got=error.strerror, remedy="name another with --out"
            ) from error
        targets = {self.folder / name: content for name, content in files.items()}
        written = write_files(targets, replace=self.force and not self.taken & set(targets))
        self.taken |= set(written)
        if written and not self.quiet:
            tell_new_name(next(iter(targets)), written[0])
        return written


@click.command(no_args_is_help=True)
@click.argument("photos", type=FileName("PHOTO"), metavar="PHOTO...", nargs=-1, required=True)
@point_option
@box_option
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="What to write. Repeatable. Default: mask and overlay.",
)
@click.option("--cutout", is_flag=True, help="Write the object on a transparent background, as --format cutout.")
@click.option("--multi/--single", default=None, help="All three masks of an object, or one. Default: the best.")
@click.option(
    "--refine",
    type=click.Choice(WAYS),
    help="clean: remove specks and small holes, and cut at the box. crop: also look at each box enlarged, for small "
    "objects. Default: depends on the model.",
)
@click.option("--everything", is_flag=True, help="Instead of points and boxes: every object, by a grid of clicks.")
@click.option(
    "--points-per-side",
    type=click.IntRange(1, 256),
    help="Clicks along each side of the grid of --everything. Default: 32; more find smaller objects.",
)
@click.option("--label", metavar="NAME", help="Name of the objects in pictures and COCO.")
@click.option("--out", metavar="DIR", default=".", help="Folder for the files; - is standard output. Default: here.")
@click.option("--force", is_flag=True, help="Overwrite files that are there; otherwise new ones get a number.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def segment(
    photos: tuple[str, ...],
    points: tuple[tuple[Point, ...], ...],
    boxes: tuple[Box, ...],
    formats: tuple[str, ...],
    cutout: bool,
    multi: bool | None,
    refine: str | None,
    everything: bool,
    points_per_side: int | None,
    label: str | None,
    out: str,
    force: bool,
    model_id: str,
    backend: str,
    checkpoint: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Cut out the objects that points and boxes mark in each PHOTO.

    PHOTO is a file, a folder of photos, or - for standard input. Writes NAME.mask.png (255 inside, 0 outside, of the
    photo's size) and NAME.overlay.png, or what --format says; with --everything NAME.overlay.png and NAME.rle.json.
    """
    prompts = group_prompts(points, boxes)
    if everything and (prompts or multi is not None or refine):
        raise click.UsageError("--everything cannot be combined with --point, --box, --multi, --single or --refine.")
    if points_per_side is not None and not everything:
        raise click.UsageError("--points-per-side needs --everything.")
    if not prompts and not everything:
        raise click.UsageError("Nothing to segment: give --point X,Y, --box X1,Y1,X2,Y2 or --everything.")
    paths = list_photos(photos)
    chosen = (*formats, *(["cutout"] if cutout else [])) or (EVERYTHING_FORMATS if everything and out != "-" else ())
    output = _open_output(out, chosen, force, quiet, paths)
    # A lone photo is read before the model is loaded, so that a bad one is told at once.
    first = _read(paths[0]) if len(paths) == 1 else None
    with progress(f"loading {model_id}"):
        model = _load_model(model_id, backend, checkpoint)
    reports, entries, failures = [], [], []
    for path in paths:
        try:
            image = _read(path) if first is None else first
            with progress(f"segmenting {click.format_filename(path, shorten=True)}"):
                if everything:
                    masks = _find_everything(model, image, points_per_side or 32)
                else:
                    masks = list(_find_masks(model, image, prompts, multi, refine))
                result = PhotoResult(path, image, masks, label)
        except Sam2EdgeError as error:
            if len(paths) == 1:
                raise
            failures.append(path)
            note(printable(f"{path}: {error}"))
            continue
        stem = "stdin" if path == STANDARD_INPUT else Path(path).stem
        files = make_files(result, stem, output.formats)
        if "coco" in output.formats:
            entries.append(make_coco_entry(result))
            if len(paths) == 1:
                files[f"{stem}.coco.json"] = _encode_coco(entries, label)
        written = output.write(files)
        reports.append(_describe(result, model, written))
        if not (as_json or quiet or output.folder is None):
            click.echo(printable(_summarise(reports[-1])))
        _warn_if_uncertain(result, quiet)
    coco = output.write({"annotations.coco.json": _encode_coco(entries, label)}) if entries and len(paths) > 1 else []
    if as_json:
        alone = len(photos) == 1 and not Path(photos[0]).is_dir()
        click.echo(json.dumps(reports[0] if alone else {"photos": reports, "coco": [str(path) for path in coco]}))
    elif coco and not quiet:
        click.echo(printable(f"{len(entries)} photos: {coco[0]}"))
    if not quiet:
        _tell_about_the_model(model, model_id)
    if failures:
        raise InvalidInputError(
            f"{len(failures)} of {len(paths)} photos could not be segmented",
            got=", ".join(failures[:5]),
            remedy="see the notes above",
        )


def _open_output(out: str, formats: tuple[str, ...], force: bool, quiet: bool, paths: Sequence[str]) -> _Output:
    """Raises an error for an output that cannot be used, before any work."""
    if out == "-":
        chosen = tuple(dict.fromkeys(formats)) or ("mask",)
        if len(chosen) > 1 or len(paths) > 1:
            raise click.UsageError("--out - takes one file: one photo, one object and one --format.")
        return _Output(None, chosen, force, quiet, set())
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError("--out is not a folder", expected="a folder", got=f"file {out}", remedy="name another")
    chosen = tuple(dict.fromkeys(formats)) or DEFAULT_FORMATS
    try_output(folder / f"{Path(paths[0]).stem}.{chosen[-1]}.png")
    return _Output(folder, chosen, force, quiet, set())


def _read(path: str) -> np.ndarray:
    with quiet_native_stderr():
        return read_given_photo(path)


def _load_model(model_id: str, backend: str, checkpoint: str | None) -> Any:
    from sam2edge import AutoModel  # here, so that bad usage and bad photos are told without loading it

    return AutoModel.from_pretrained(model_id, backend=backend, checkpoint=checkpoint)


def _find_masks(
    model: Any, image_bgr: np.ndarray, prompts: list[ObjectPrompt], multi: bool | None, refine: str | None
) -> Iterator[FoundMask]:
    """The best mask of each object, or with `multi` all three, best first."""
    pictured = {"images": image_bgr} if refine == CROP else {"embeddings": model.embed_images(image_bgr)}
    for number, prompt in enumerate(prompts, 1):
        given = prompt.arguments()
        # One click can mean a part or the whole, so the best of three is taken; more clicks, or a box, say which.
        ambiguous = len(prompt.points) == 1 and prompt.box is None
        prediction = model.segment_images(
            **pictured,
            point_coordinates=np.array(given["points"]) if prompt.points else None,
            point_labels=np.array(given["labels"]) if prompt.points else None,
            boxes=None if prompt.box is None else np.array(given["box"]),
            multi_mask_output=ambiguous if multi is None else multi,
            refine=refine,
        )[0]
        order = np.argsort(-prediction.scores, kind="stable")[: 3 if multi else 1]
        for rank, index in enumerate(order):
            yield FoundMask(number, rank, prediction.masks[index], float(prediction.scores[index]), prompt)


def _find_everything(model: Any, image_bgr: np.ndarray, points_per_side: int) -> list[FoundMask]:
    """The masks of a grid of clicks, the largest first. Raises InvalidInputError where there is none."""
    found = model.segment_everything(image_bgr, points_per_side=points_per_side)
    if not found:
        raise InvalidInputError(
            "no object was found",
            got=f"{points_per_side}x{points_per_side} clicks",
            remedy="give more --points-per-side, a larger --model, or a --point",
        )
    return [FoundMask(number, 0, one.packed, one.score, ObjectPrompt()) for number, one in enumerate(found, 1)]


def _encode_coco(entries: list[Any], label: str | None) -> bytes:
    return (json.dumps(coco_dataset(entries, label or "object")) + "\n").encode()


def _describe(result: PhotoResult, model: Any, written: list[Path]) -> dict[str, Any]:
    """What `--json` prints of a photo; `score`, `area_pixels` and `box_xyxy` are of the first object."""
    first = describe_mask(result.masks[0])
    named = {form: str(path) for form in DEFAULT_FORMATS for path in reversed(written) if f".{form}" in path.name}
    return {
        "photo": result.path,
        "size_hw": list(result.image_bgr.shape[:2]),
        "model": model.variant.model_id,
        "backend": model.backend_name,
        "report": str(model.report).splitlines(),
        **{key: first[key] for key in ("score", "area_pixels", "box_xyxy")},
        **named,
        "objects": [{**describe_mask(found), "uncertain": found.score < UNCERTAIN_BELOW} for found in result.masks],
        "files": [str(path) for path in written],
    }


def _summarise(report: dict[str, Any]) -> str:
    files = " ".join(click.format_filename(name) for name in report["files"])
    height, width = report["size_hw"]
    if len(report["objects"]) > MOST_SCORES_SHOWN:
        least, most = (f(found["score"] for found in report["objects"]) for f in (min, max))
        return f"{len(report['objects'])} masks, scores {least:.2f} to {most:.2f}: {files}"
    if len(report["objects"]) > 1:
        scores = " ".join(f"{found['score']:.2f}" for found in report["objects"])
        return f"{len(report['objects'])} masks, scores {scores}: {files}"
    share = report["area_pixels"] / (height * width)
    return f"score {report['score']:.2f}, area {report['area_pixels']} pixels ({share:.1%}): {files}"


def _warn_if_uncertain(result: PhotoResult, quiet: bool) -> None:
    for found in result.best:
        if found.score < UNCERTAIN_BELOW:
            which = f"object {found.number}" if len(result.best) > 1 else "the mask"
            helps = "points inside the box" if found.prompt.box is not None else "a --box, or another click"
            note(f"{which} is uncertain (score {found.score:.2f}); {helps}, or a larger model, helps", quiet)


def _tell_about_the_model(model: Any, model_id: str) -> None:
    tell_skipped_engine(model)
    if model_id == "auto" and model.variant.name == EMBEDDED:
        hint_once(
            "larger-model",
            "this was the small model that comes with sam2edge; for better masks run `sam2edge models install tiny`, "
            "then add --model tiny",
        )
