"""`sam2edge segment`: a photo and a click in, a mask and a picture of it out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from sam2edge.cli.model_options import FileName, model_options
from sam2edge.cli.prompt_options import Box, BoxType, Point, PointType
from sam2edge.cli.terminal import printable, progress, quiet_native_stderr, tell_new_name, tell_skipped_engine
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.imaging.overlay import draw_masks
from sam2edge.imaging.photo import read_photo, write_pngs
from sam2edge.outputs import try_output
from sam2edge.variants import EMBEDDED, find_variant


@dataclass(frozen=True)
class _Prompts:
    """What was asked for: points (N, 2) with labels (N,), a box (4,), in pixels; None where there is none."""

    points: np.ndarray | None
    labels: np.ndarray | None
    box: np.ndarray | None

    @classmethod
    def of(cls, points: tuple[Point, ...], box: Box | None) -> _Prompts:
        return cls(
            np.array([(p.x, p.y) for p in points]) if points else None,
            np.array([p.label for p in points]) if points else None,
            None if box is None else np.array(box),
        )


@click.command(no_args_is_help=True)
@click.argument("photo", type=FileName("PHOTO"), metavar="PHOTO")
@click.option("--point", "points", type=PointType(), multiple=True, help="On the thing; with ,- beside it. Repeatable.")
@click.option("--box", type=BoxType(), help="Around the thing.")
@model_options
@click.option("--out", metavar="DIR", default=".", help="Where the pictures go; made if missing. Default: here.")
@click.option(
    "--multi/--single", default=None, help="Best of three masks, or the one. Default: three for a lone click."
)
@click.option("--force", is_flag=True, help="Write over pictures that are there; else new ones get a number.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def segment(
    photo: str,
    points: tuple[Point, ...],
    box: Box | None,
    model_id: str,
    backend: str,
    checkpoint: str | None,
    out: str,
    multi: bool | None,
    force: bool,
    as_json: bool,
) -> None:
    """Mask the thing in PHOTO that the clicks or the box point at.

    Writes <name>.mask.png (0 and 255, the photo's size) and <name>.overlay.png.
    """
    if not points and box is None:
        raise click.UsageError("Nothing to segment: give --point X,Y or --box X1,Y1,X2,Y2.")
    out_dir = Path(out)
    if out_dir.exists() and not out_dir.is_dir():
        raise InvalidInputError("--out is not a folder", expected="a folder", got=f"file {out}", remedy="name another")
    try_output(out_dir / f"{Path(photo).stem}.overlay.png")
    with quiet_native_stderr():
        image_bgr = read_photo(photo)
    prompts = _Prompts.of(points, box)
    # One click can mean a part or the whole, so the best of three is taken; more clicks, or a box, say which.
    multi = len(points) == 1 and box is None if multi is None else multi
    with progress(f"segmenting {click.format_filename(photo, shorten=True)}"):
        model = _load_model(model_id, backend, checkpoint)
        mask, score = _best_mask(model, image_bgr, prompts, multi)
    overlay = draw_masks(image_bgr, mask, points=prompts.points, point_labels=prompts.labels, boxes=prompts.box)
    paths = _write(out_dir, Path(photo).stem, mask, overlay, force)
    report = _report(photo, model, mask, score, paths)
    click.echo(json.dumps(report) if as_json else printable(_summary(report)))
    tell_skipped_engine(model)
    if model_id == "auto" and model.variant.name == EMBEDDED:
        larger = find_variant("hiera_tiny").model_id
        click.echo(
            f"hint: {model.variant.model_id} is the small embedded model; for a larger one run "
            f"`sam2edge models pull {larger}` and add --model {larger}",
            err=True,
        )


def _load_model(model_id: str, backend: str, checkpoint: str | None) -> Any:
    from sam2edge import AutoModel  # here, so that bad usage and bad photos are told without loading it

    return AutoModel.from_pretrained(model_id, backend=backend, checkpoint=checkpoint)


def _best_mask(model: Any, image_bgr: np.ndarray, prompts: _Prompts, multi: bool) -> tuple[np.ndarray, float]:
    """The mask (H, W) bool with the best score, and that score."""
    prediction = model.segment_images(
        image_bgr,
        point_coordinates=prompts.points,
        point_labels=prompts.labels,
        boxes=prompts.box,
        multi_mask_output=multi,
    )[0]
    best = int(np.argmax(prediction.scores))
    return prediction.masks[best], float(prediction.scores[best])


def _write(out_dir: Path, stem: str, mask: np.ndarray, overlay: np.ndarray, force: bool) -> list[Path]:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Sam2EdgeError(
            f"cannot make the folder {out_dir}", got=error.strerror, remedy="name another with --out"
        ) from error
    pictures = {out_dir / f"{stem}.mask.png": mask.astype(np.uint8) * 255, out_dir / f"{stem}.overlay.png": overlay}
    written = write_pngs(pictures, replace=force)
    tell_new_name(next(iter(pictures)), written[0])
    return written


def _report(photo: str, model: Any, mask: np.ndarray, score: float, paths: list[Path]) -> dict[str, Any]:
    """What `--json` prints; `box_xyxy` is the mask's own, right and bottom exclusive, None when it is empty."""
    height, width = mask.shape
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if columns.size else None
    return {
        "photo": photo,
        "size_hw": [height, width],
        "model": model.variant.model_id,
        "backend": model.backend_name,
        "report": str(model.report).splitlines(),
        "score": round(score, 4),
        "area_pixels": int(np.count_nonzero(mask)),
        "box_xyxy": box,
        "mask": str(paths[0]),
        "overlay": str(paths[1]),
    }


def _summary(report: dict[str, Any]) -> str:
    height, width = report["size_hw"]
    share = report["area_pixels"] / (height * width)
    files = " ".join(click.format_filename(report[name]) for name in ("mask", "overlay"))
    return f"score {report['score']:.2f}, area {report['area_pixels']} pixels ({share:.1%}): {files}"
