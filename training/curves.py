"""Draws the curves of a run's stages: loss, IoU of the training batches, figures on held-out seeds.

    python -m training.curves training/log/m128.jsonl training/log/m256.jsonl --out docs/training-curves.png
    python -m training.curves runs/*/log.jsonl --keep training/log

Stages stand side by side in the order given, each as wide as its steps, with its name and their number below. `--keep`
writes the few columns that the picture needs into a folder, a file a stage.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Line = dict[str, float]
Colour = tuple[int, int, int]  # BGR

# Names in the log, a panel's series; "held." those measured on held-out seeds.
_PANELS: tuple[tuple[str, dict[str, Colour]], ...] = (
    ("loss", {"loss": (60, 60, 60), "scene_loss": (200, 130, 40)}),
    ("IoU of the mask with the best score, training batches",
     {"iou_by_score": (60, 60, 60), "scene_iou_by_score": (200, 130, 40), "iou_prompted": (60, 140, 60)}),
    ("held-out seeds: J of clips; IoU after a click, three clicks, a box",
     {"held.j": (60, 60, 60), "held.one_click": (200, 130, 40), "held.three_clicks": (60, 140, 60),
      "held.box": (60, 60, 200)}),
)  # fmt: skip
_COLUMNS = {name for _, series in _PANELS for name in series}
_WIDTH, _HEIGHT, _LEFT, _TOP, _BELOW = 1000, 210, 50, 34, 42
_FONT, _INK, _FAINT = cv2.FONT_HERSHEY_SIMPLEX, (40, 40, 40), (215, 215, 215)


@dataclass(frozen=True)
class StageLog:
    """A stage's name and lines: "step" and some of the picture's columns each."""

    name: str
    lines: list[Line]

    @property
    def steps(self) -> float:
        return max((line["step"] for line in self.lines), default=0)

    def column(self, series: str) -> str | None:
        """Where a series stands in the lines: a stage on scenes alone has no clips' columns, and no prefix."""
        if series.startswith("held.") or any("iou_prompted" in line for line in self.lines):
            return series
        return series.removeprefix("scene_") if series.startswith("scene_") else None


def read_log(path: Path) -> StageLog:
    """A stage's log as `training.train` wrote it, or as `--keep` did; its name is its file's, or its folder's."""
    lines: dict[float, Line] = {}
    for text in path.read_text().splitlines():
        line = _columns(json.loads(text))
        if len(line) > 1:
            # A run that was cut goes back to its checkpoint: what it did after that is done again.
            lines = {step: known for step, known in lines.items() if step <= line["step"]}
            lines[line["step"]] = {**lines.get(line["step"], {}), **line}
    return StageLog(path.parent.name if path.stem == "log" else path.stem, list(lines.values()))


def _columns(line: dict[str, Any]) -> Line:
    found = {name: value for name, value in line.items() if name == "step" or name in _COLUMNS}
    held = line.get("held_out", {})
    # Of scenes alone, of clips alone, or of both in two tables.
    for table in [held, *(part for part in held.values() if isinstance(part, dict))]:
        if "j" in table:
            found["held.j"] = table["j"]
        for name in ("one_click", "three_clicks", "box"):
            if name in table:
                found[f"held.{name}"] = table[name]["by_score"]
    return found


def keep(stage: StageLog, folder: Path) -> Path:
    """Writes the picture's columns of a stage as `<folder>/<stage>.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage.name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in stage.lines))
    return path


def draw_curves(stages: list[StageLog]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) BGR: one panel above the other."""
    return np.concatenate([_panel(title, series, stages) for title, series in _PANELS])


def _panel(title: str, series: dict[str, Colour], stages: list[StageLog]) -> NDArray[np.uint8]:
    picture = np.full((_TOP + _HEIGHT + _BELOW, _WIDTH, 3), 255, np.uint8)
    points = {name: _points(name, stages) for name in series}
    values = [y for stage in points.values() for line in stage for _, y in line]
    top = 1.0 if "IoU" in title else _nice(float(np.percentile(values, 95)) if values else 1.0)
    total = max(1.0, sum(stage.steps for stage in stages))
    for share in np.linspace(0, 1, 6):
        row = int(_TOP + _HEIGHT * (1 - share))
        cv2.line(picture, (_LEFT, row), (_WIDTH - 10, row), _FAINT, 1)
        _write(picture, f"{share * top:.3g}", (8, row + 4))
    before = 0.0
    for stage in stages:
        column = _column(before, total)
        cv2.line(picture, (column, _TOP), (column, _TOP + _HEIGHT + 8), _FAINT, 1)
        for row, text in enumerate((stage.name, f"{stage.steps:.0f}")):
            _write(picture, text, (column + 4, _TOP + _HEIGHT + 18 + 14 * row))
        before += stage.steps
    _write(picture, title, (_LEFT, 20))
    right = _WIDTH - 10
    for name, colour in reversed(series.items()):
        label = name.replace("held.", "").replace("_", " ")
        right -= cv2.getTextSize(label, _FONT, 0.4, 1)[0][0] + 14
        _write(picture, label, (right + 10, 20), colour)
        for line in points[name]:
            fixed = [(_column(x, total), int(_TOP + _HEIGHT * (1 - min(y / top, 1.0)))) for x, y in line]
            cv2.polylines(picture, [np.array(fixed, np.int32).reshape(-1, 1, 2)], False, colour, 1, cv2.LINE_AA)
            for at in fixed if len(fixed) < 12 else []:
                cv2.circle(picture, at, 3, colour, -1, cv2.LINE_AA)
    return picture


def _points(name: str, stages: list[StageLog]) -> list[list[tuple[float, float]]]:
    """Step since the first stage's start, and value: a list a stage that has any."""
    found, before = [], 0.0
    for stage in stages:
        column = stage.column(name)
        found.append([(before + line["step"], line[column]) for line in stage.lines if column in line])
        before += stage.steps
    return [line for line in found if line]


def _column(step: float, total: float) -> int:
    return int(_LEFT + (_WIDTH - 10 - _LEFT) * step / total)


def _nice(value: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below `value`."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-6)))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= value))


def _write(picture: NDArray[np.uint8], text: str, at: tuple[int, int], colour: Colour = _INK) -> None:
    cv2.putText(picture, text, at, _FONT, 0.4, colour, 1, cv2.LINE_AA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+", help="log.jsonl of each stage, in their order")
    parser.add_argument("--out", type=Path, default=Path("docs/training-curves.png"), help="the picture")
    parser.add_argument("--keep", type=Path, help="folder for the columns that the picture needs")
    args = parser.parse_args()
    stages = [read_log(path) for path in args.logs]
    for stage in stages if args.keep else []:
        print(keep(stage, args.keep))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.out), draw_curves(stages)):
        raise SystemExit(f"{args.out} cannot be written")
    print(args.out)


if __name__ == "__main__":
    main()
