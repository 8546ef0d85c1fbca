"""`sam2edge segment --everything`: what it asks the model, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from sam2edge.cli.main import main
from tests.cli.conftest import PHOTO, Model, found_mask


def test_an_overlay_and_all_masks_in_one_file(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    model.everything = [found_mask(left=60, score=0.9), found_mask(left=20, score=0.85)]
    assert main(["segment", "cup.png", "--everything", "--points-per-side", "4", "--json"]) == 0
    assert model.asked["points_per_side"] == 4
    assert model.asked["image"].shape == PHOTO.shape
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["cup.overlay.png", "cup.rle.json"]
    assert [(o["area_pixels"], o["box_xyxy"]) for o in report["objects"]] == [
        (2400, [20, 10, 80, 50]),
        (800, [60, 10, 80, 50]),
    ]
    masks = json.loads(Path("cup.rle.json").read_text())
    assert [(one["object"], one["score"]) for one in masks] == [(1, 0.85), (2, 0.9)]
    overlay = cv2.imread("cup.overlay.png")
    assert overlay is not None
    assert (overlay != PHOTO).any()


def test_the_other_formats_and_a_short_summary(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    model.everything = [found_mask(left=left, score=0.8 + left / 1000) for left in range(0, 70, 7)]
    assert main(["segment", "cup.png", "--everything", "--format", "coco", "--format", "yolo"]) == 0
    assert model.asked["points_per_side"] == 32
    assert capsys.readouterr().out == "10 masks, scores 0.80 to 0.86: cup.txt cup.coco.json\n"
    assert len(json.loads(Path("cup.coco.json").read_text())["annotations"]) == 10


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--everything", "--point", "1,2"], 2, "cannot be combined with --point"),
        (["--everything", "--multi"], 2, "cannot be combined with"),
        (["--everything", "--points-per-side", "0"], 2, "0 is not in the range"),
        (["--points-per-side", "8", "--point", "1,2"], 2, "--points-per-side needs --everything"),
        (["--everything"], 1, "no object was found"),
    ],
)
def test_what_is_refused(
    arguments: list[str], status: int, message: str, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", "cup.png", *arguments]) == status
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["cup.png"]
