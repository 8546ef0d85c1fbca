"""`sam2edge segment` with several objects and photos, in every format, through pipes; and what it refuses."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from sam2edge.cli.main import main
from sam2edge.cli.prompt_options import Box, ObjectPrompt, Point, group_prompts
from tests.cli.conftest import PHOTO, Model
from tests.conftest import ROOT

A, B, BACK = Point(12, 15, 1), Point(40, 40, 1), Point(70, 50, 0)
BOX, INNER = Box(0, 0, 30, 30), Box(10, 10, 20, 20)


@pytest.mark.parametrize(
    ("points", "boxes", "objects"),
    [
        ([(A,)], [], [ObjectPrompt((A,))]),
        ([(A,), (B,)], [], [ObjectPrompt((A,)), ObjectPrompt((B,))]),
        ([(A, B, BACK)], [], [ObjectPrompt((A, B, BACK))]),
        ([(A,), (BACK,), (B,)], [], [ObjectPrompt((A, BACK)), ObjectPrompt((B,))]),
        ([], [BOX, INNER], [ObjectPrompt((), BOX), ObjectPrompt((), INNER)]),
        ([(A,)], [BOX, INNER], [ObjectPrompt((), BOX), ObjectPrompt((A,), INNER)]),
        ([(B,)], [BOX], [ObjectPrompt((), BOX), ObjectPrompt((B,))]),
        ([(BACK,)], [BOX], [ObjectPrompt((BACK,), BOX)]),
        ([(A,), (BACK,)], [BOX, INNER], [ObjectPrompt((), BOX), ObjectPrompt((A, BACK), INNER)]),
    ],
)
def test_which_prompts_mark_one_object(
    points: list[tuple[Point, ...]], boxes: list[Box], objects: list[ObjectPrompt]
) -> None:
    assert group_prompts(points, boxes) == objects


@pytest.mark.parametrize("boxes", [[], [BOX, INNER]])
def test_background_of_nothing(boxes: list[Box]) -> None:
    with pytest.raises(click.UsageError, match="Background of which object"):
        group_prompts([(BACK,)], boxes)


def _names(folder: str | Path = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir() if path.name != "cup.png")


def _run(arguments: str) -> int:
    return main(["segment", *arguments.split()])


def test_repeated_boxes_are_several_objects(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("cup.png --box 1,2,30,40 --box 5,6,50,55 --json") == 0
    assert [prompts["boxes"].tolist() for prompts in model.prompts] == [[1, 2, 30, 40], [5, 6, 50, 55]]
    report = json.loads(capsys.readouterr().out)
    assert [found["object"] for found in report["objects"]] == [1, 2]
    assert _names() == ["cup.1.mask.png", "cup.2.mask.png", "cup.overlay.png"]


def test_clicks_in_one_option_are_one_object(model: Model) -> None:
    assert main(["segment", "cup.png", "--point", "12,15 20,20 70,50,-"]) == 0
    (prompts,) = model.prompts
    assert prompts["point_coordinates"].tolist() == [[12, 15], [20, 20], [70, 50]]
    assert prompts["point_labels"].tolist() == [1, 1, 0]


def test_all_three_masks(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("cup.png --point 12,15 --multi") == 0
    assert capsys.readouterr().out.startswith("3 masks, scores 0.90 0.50 0.20: ")
    names = [f"cup.{letter}.{form}.png" for letter in "abc" for form in ("mask", "overlay")]
    assert _names() == sorted(names)
    masks = [cv2.imread(f"cup.{letter}.mask.png", cv2.IMREAD_GRAYSCALE) for letter in "abc"]
    assert [0 if mask is None else np.count_nonzero(mask) for mask in masks] == [400, 600, 200]


def test_every_format(model: Model) -> None:
    formats = ("mask", "cutout", "polygons", "rle", "yolo", "coco")
    assert main(["segment", "cup.png", "--point", "12,15", "--label", "cup", *(f"--format={f}" for f in formats)]) == 0
    expected = ["cup.coco.json", "cup.cutout.png", "cup.mask.png", "cup.polygons.json", "cup.rle.json", "cup.txt"]
    assert _names() == expected
    cutout = cv2.imread("cup.cutout.png", cv2.IMREAD_UNCHANGED)
    assert cutout is not None and cutout.shape == (60, 80, 4) and np.count_nonzero(cutout[..., 3]) == 400
    (shape,) = json.loads(Path("cup.polygons.json").read_text())
    assert sorted(shape["polygons"][0]) == [[5, 10], [5, 30], [25, 10], [25, 30]]
    assert (shape["label"], shape["object"], shape["score"]) == ("cup", 1, 0.9)
    assert json.loads(Path("cup.rle.json").read_text())[0]["rle"]["size"] == [60, 80]
    words = Path("cup.txt").read_text().split()
    assert words[0] == "0" and len(words) == 9 and all(0 <= float(word) <= 1 for word in words[1:])
    coco = json.loads(Path("cup.coco.json").read_text())
    assert coco["categories"][0]["name"] == "cup" and coco["images"][0]["file_name"] == "cup.png"
    assert coco["annotations"][0]["bbox"] == [5, 10, 20, 20]


def test_a_cut_out_alone(model: Model) -> None:
    assert _run("cup.png --point 12,15 --cutout") == 0
    assert _names() == ["cup.cutout.png"]


def test_scores_and_labels_are_drawn(model: Model) -> None:
    assert _run("cup.png --box 5,10,25,30 --format overlay --out plain") == 0
    assert _run("cup.png --box 5,10,25,30 --format overlay --label cup --out named") == 0
    plain, named = cv2.imread("plain/cup.overlay.png"), cv2.imread("named/cup.overlay.png")
    assert plain is not None and named is not None
    assert (plain != named).any(axis=-1).sum() > 20  # the longer text


def test_a_folder_of_photos(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    Path("shelf").mkdir()
    for name in ("10.png", "9.jpg", "broken.png", "9.mask.png"):
        cv2.imwrite(f"shelf/{name}", PHOTO)
    Path("shelf/broken.png").write_bytes(b"no picture")
    assert _run("shelf --point 12,15 --format mask --format coco --out results --json") == 1
    out, err = capsys.readouterr()
    report = json.loads(out.splitlines()[0])
    assert [photo["photo"] for photo in report["photos"]] == ["shelf/9.jpg", "shelf/10.png"]
    assert _names("results") == ["10.mask.png", "9.mask.png", "annotations.coco.json"]
    coco = json.loads(Path("results/annotations.coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["9.jpg", "10.png"]
    assert "note: shelf/broken.png: not an image" in err and "1 of 3 photos" in err


def test_photos_of_one_name_do_not_overwrite_each_other(model: Model) -> None:
    Path("a").mkdir(), Path("b").mkdir()
    cv2.imwrite("a/cup.png", PHOTO), cv2.imwrite("b/cup.png", PHOTO)
    assert _run("a/cup.png b/cup.png --point 12,15 --format mask --out results --force") == 0
    assert _names("results") == ["cup.mask-2.png", "cup.mask.png"]


def test_standard_input_and_output(tmp_path: Path) -> None:
    photo = cv2.imencode(".png", PHOTO)[1].tobytes()
    command = [sys.executable, "-m", "sam2edge", "segment", "-", "--box", "10,10,40,40", "--cutout", "--out", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, input=photo, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr
    picture = cv2.imdecode(np.frombuffer(result.stdout, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None and picture.shape == (60, 80, 4)
    assert not list(tmp_path.iterdir())


def test_nothing_on_standard_input(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert _run("- --point 12,15") == 1
    assert "standard input is empty" in capsys.readouterr().err


@pytest.mark.parametrize("more", ["cup.png", "--format mask --format overlay", "--box 1,2,30,40"])
def test_standard_output_takes_one_file(model: Model, more: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(f"cup.png --point 50,50 --out - {more}") == 2
    assert "--out - takes one file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("https://example.org/cup.png", "not downloaded.*got https://example.org/cup.png.*curl"),
        ("clip.mp4", "this is a video, not a photo.*sam2edge track clip.mp4"),
        ("empty", "folder has no photos"),
    ],
)
def test_what_is_no_photo(model: Model, arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("clip.mp4").write_bytes(b"film")
    Path("empty").mkdir()
    assert _run(f"{arguments} --point 12,15") == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and not model.asked
    assert re.search(message, err), err


def test_an_uncertain_mask_is_told(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sam2edge.cli.segment.UNCERTAIN_BELOW", 0.95)
    assert _run("cup.png --point 12,15 --model micro") == 0
    err = capsys.readouterr().err
    assert err == "note: the mask is uncertain (score 0.90); a --box, or another click, or a larger model, helps\n"
    assert _run("cup.png --point 12,15 --box 1,2,30,40 --box 5,6,50,55 --model micro --force --json") == 0
    out, err = capsys.readouterr()
    assert "object 2 is uncertain" in err and "points inside the box" in err
    assert [found["uncertain"] for found in json.loads(out)["objects"]] == [True, True]
    for force in ("--force", ""):  # a new name is no error either
        assert _run(f"cup.png --point 12,15 --quiet {force}") == 0
        assert capsys.readouterr() == ("", "")
