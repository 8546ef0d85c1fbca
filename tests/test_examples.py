"""Every example runs as its first lines say, on the model that comes with the package; none is long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
COFFEE = str(EXAMPLES / "coffee.png")
BOX = ["225", "55", "425", "330"]


def _run(folder: Path, script: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", ["photo", "folder", "camera", "pick_point", "batch"])
def test_examples_are_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 45


def test_photo(tmp_path: Path) -> None:
    assert "Sam2Prediction(1 mask of 600x400" in _run(tmp_path, "photo.py", COFFEE, *BOX)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.cutout.png", "photo.drawn.png"]


def test_folder(tmp_path: Path) -> None:
    coco = json.loads(_run(tmp_path, "folder.py", str(EXAMPLES), "100", "60", "222", "228"))
    assert [image["file_name"] for image in coco["images"]] == ["astronaut.jpg", "coffee.png", "coins.png"]
    assert [annotation["id"] for annotation in coco["annotations"]] == [1, 2, 3]


def test_camera(tmp_path: Path) -> None:
    import cv2

    clip = tmp_path / "clip"
    clip.mkdir()
    photo = cv2.imread(COFFEE)
    assert photo is not None
    for number in range(3):
        cv2.imwrite(str(clip / f"{number}.png"), np.roll(photo, 5 * number, axis=1))
    lines = _run(tmp_path, "camera.py", str(clip), *BOX).splitlines()
    assert len(lines) == 3 and lines[2].startswith("2 TrackResult(frame 2, 600x400")


def test_pick_point(tmp_path: Path) -> None:
    words = _run(tmp_path, "pick_point.py", COFFEE, *BOX).split()
    assert words[::2] == ["x", "y", "angle", "opening", "score"]
    assert 225 < int(words[1]) < 425 and 55 < int(words[3]) < 330
    assert (tmp_path / "pick.drawn.png").exists()


def test_a_grasp_is_across_the_length() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("pick_point", EXAMPLES / "pick_point.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bar = np.zeros((100, 100), bool)
    bar[45:55, 10:90] = True  # lies along x: the gripper closes along y
    (x, y), degrees, opening = module.find_grasp(bar)
    assert bar[y, x] and degrees == pytest.approx(90, abs=1) and opening == pytest.approx(10, abs=2)


def test_batch(tmp_path: Path) -> None:
    prompts = {COFFEE: [[225, 55, 425, 330], [20, 20, 200, 200]], "missing.jpg": [[1, 2, 3, 4]]}
    (tmp_path / "boxes.json").write_text(json.dumps(prompts))
    (line,) = _run(tmp_path, "batch.py", "boxes.json").splitlines()
    found = json.loads(line)
    assert len(found["areas"]) == len(found["rle"]) == 2


def test_the_notebook(tmp_path: Path) -> None:
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text())
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in notebook["cells"] if cell.get("outputs")]
    script = tmp_path / "tour.py"
    script.write_text("\n".join(code) + "\nassert picture.size == (384, 303) and result.frame_index == 3\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
