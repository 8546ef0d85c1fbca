from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.cli import terminal
from sam2edge.cli.main import main
from tests.cli.conftest import PHOTO, Model


def _pictures(folder: Path = Path()) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "cup.png")


def test_a_click_gives_a_mask_and_an_overlay(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "cup.png", "--point", "12,15"]) == 0
    mask = cv2.imread("cup.mask.png", cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == PHOTO.shape[:2]
    assert set(np.unique(mask)) == {0, 255}
    assert np.count_nonzero(mask) == 20 * 20  # the best of the three
    overlay = cv2.imread("cup.overlay.png")
    assert overlay is not None
    assert overlay.shape == PHOTO.shape
    assert (overlay != PHOTO).any()
    assert _pictures() == ["cup.mask.png", "cup.overlay.png"]
    out, err = capsys.readouterr()
    assert out == "score 0.90, area 400 pixels (8.3%): cup.mask.png cup.overlay.png\n"
    assert err.count("\n") == 1
    assert "hint: this was the small model" in err
    assert "models install tiny" in err
    assert main(["segment", "cup.png", "--point", "12,15", "--force"]) == 0
    assert capsys.readouterr().err == ""  # a hint comes once


def test_what_is_asked_reaches_the_model(model: Model) -> None:
    arguments = "--point 12,15 --point 3.5,4,- --box 1,2,30,40 --backend torch --model hiera_tiny --checkpoint w.pt"
    assert main(["segment", "cup.png", *arguments.split()]) == 0
    asked = model.asked
    assert (asked["model_id"], asked["backend"], asked["checkpoint"]) == ("hiera_tiny", "torch", "w.pt")
    np.testing.assert_array_equal(asked["point_coordinates"], [[12, 15], [3.5, 4]])
    np.testing.assert_array_equal(asked["point_labels"], [1, 0])
    np.testing.assert_array_equal(asked["boxes"], [1, 2, 30, 40])
    np.testing.assert_array_equal(asked["image"], PHOTO)


def test_a_closer_look_needs_the_photo_itself(model: Model) -> None:
    assert main(["segment", "cup.png", "--box", "1,2,30,40", "--refine", "crop"]) == 0
    assert model.asked["refine"] == "crop"
    np.testing.assert_array_equal(model.asked["images"], PHOTO)


@pytest.mark.parametrize(
    ("prompt", "multi"),
    [
        ("--point 1,2", True),
        ("--point 1,2 --point 3,4,-", False),
        ("--point 1,2 --point 3,4", True),  # two objects
        ("--box 1,2,3,4", False),
        ("--point 1,2 --single", False),
        ("--box 1,2,3,4 --multi", True),
    ],
)
def test_the_best_of_three_is_for_what_may_mean_several_things(model: Model, prompt: str, multi: bool) -> None:
    assert main(["segment", "cup.png", *prompt.split()]) == 0
    assert model.asked["multi_mask_output"] is multi


def test_json_is_one_object_on_standard_output(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "cup.png", "--point", "12,15", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "photo": "cup.png",
        "size_hw": [60, 80],
        "model": "sam2/micro",
        "backend": "onnxruntime",
        "report": ["onnxruntime: taken", "torch: not installed"],
        "score": 0.9,
        "area_pixels": 400,
        "box_xyxy": [5, 10, 25, 30],
        "mask": "cup.mask.png",
        "overlay": "cup.overlay.png",
        "objects": [{"object": 1, "score": 0.9, "area_pixels": 400, "box_xyxy": [5, 10, 25, 30], "uncertain": False}],
        "files": ["cup.mask.png", "cup.overlay.png"],
    }


def test_no_hint_for_who_chose(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "cup.png", "--point", "12,15", "--model", "sam2/micro"]) == 0
    assert capsys.readouterr().err == ""


def test_the_folder_is_made_and_older_results_are_kept(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["segment", "cup.png", "--point", "1,2", "--out", "new/deep"]
    assert main(arguments) == 0
    Path("new/deep/cup.mask.png").write_text("earlier")
    assert main(arguments) == 0
    assert "note: new/deep/cup.mask.png is there already: written as cup.mask-2.png" in capsys.readouterr().err
    pictures = ["cup.mask-2.png", "cup.mask.png", "cup.overlay-2.png", "cup.overlay.png"]
    assert _pictures(Path("new/deep")) == pictures
    assert Path("new/deep/cup.mask.png").read_text() == "earlier"
    assert main([*arguments, "--force"]) == 0
    assert _pictures(Path("new/deep")) == pictures
    assert Path("new/deep/cup.mask.png").read_bytes() == Path("new/deep/cup.mask-2.png").read_bytes()


def test_names_that_are_no_text(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    Path("cup.png").rename(name)
    assert main(["segment", name, "--point", "1,2"]) == 0
    assert main(["segment", name, "--point", "1,2", "--json"]) == 0
    assert Path(b"caf\xe9.mask.png".decode(errors="surrogateescape")).exists()
    assert main(["segment", name + "x", "--point", "1,2"]) == 1
    assert "not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "--point 12",
        "--point 1,2,3",
        "--point 1,2,3,4",
        "--point a,b",
        "--point nan,1",
        "--point 1,inf",
        "--point ,",
        "--box 1,2,3",
        "--box 1,2,3,4,5",
        "--box 1,2,3,nan",
        "--point",
    ],
)
def test_a_prompt_that_is_none_is_bad_usage(model: Model, prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "cup.png", *prompt.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sam2edge: ")
    assert err.count("\n") == 1
    assert _pictures() == []


@pytest.mark.parametrize(
    ("name", "contents", "problem"),
    [
        ("missing.jpg", None, "not found"),
        ("empty.jpg", b"", "empty"),
        ("notes.jpg", b"no picture here\n" * 50, "not an image"),
        ("cut.png", cv2.imencode(".png", PHOTO)[1].tobytes()[:-20], "truncated"),
        ("cut.jpg", cv2.imencode(".jpg", PHOTO)[1].tobytes()[:-20], "truncated"),
        ("broken.png", cv2.imencode(".png", PHOTO)[1].tobytes()[:60] + bytes(8) + b"\0\0\0\0IEND\xaeB`\x82", ""),
        (".", None, "no photos"),
    ],
)
def test_a_photo_that_is_none(
    model: Model, name: str, contents: bytes | None, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if contents is not None:
        Path(name).write_bytes(contents)
    Path("cup.png").unlink()
    before = _pictures()
    assert main(["segment", name, "--point", "1,2"]) == 1
    _assert_one_line(capfd, problem)
    assert _pictures() == before
    assert not model.asked  # told before the model is loaded


@pytest.mark.parametrize("out", ["cup.png", "cup.png/below"])
def test_out_is_a_file(model: Model, out: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "cup.png", "--point", "1,2", "--out", out]) == 1
    _assert_one_line(capfd, "folder")
    assert not model.asked


def test_out_cannot_be_written(
    model: Model, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sam2edge.outputs.temporary_beside", lambda *_: Path("/proc/none"))  # root may write everywhere
    assert main(["segment", "cup.png", "--point", "1,2", "--out", "below/it"]) == 1
    _assert_one_line(capfd, "cannot be written.*permission")
    assert not model.asked


def test_a_result_that_cannot_be_written_leaves_nothing(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    Path("cup.overlay.png").mkdir()
    assert main(["segment", "cup.png", "--point", "1,2"]) == 1
    _assert_one_line(capfd, r"cannot be written.*cup\.overlay\.png: a folder")
    assert _pictures() == ["cup.overlay.png"]


def test_interrupted(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    model.error = KeyboardInterrupt()  # type: ignore[assignment]
    assert main(["segment", "cup.png", "--point", "1,2"]) == 130
    assert _pictures() == []


def test_progress_shows_on_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(terminal, "_spin", lambda message, done: shown.append(message))
    with terminal.progress("not a terminal"):
        pass
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with terminal.progress("a terminal"):
        pass
    assert shown == ["a terminal"]


def test_progress_is_quiet_when_it_is_quick(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with terminal.progress("quick"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "PATIENCE_SECONDS", 0.0)
    with terminal.progress("slow"):
        for _ in range(500):
            if "slow" in capsys.readouterr().err:
                return
            threading.Event().wait(0.01)
    raise AssertionError("no progress was shown")


def _assert_one_line(capfd: pytest.CaptureFixture[str], pattern: str) -> None:
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("sam2edge: ")
    assert re.search(pattern, err), err
    for word in ("expected", "got", "remedy"):
        assert word in err or "cannot write" in err


# The embedded model itself, no stand-in.
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--point 99,2", "outside the photo"),
        ("--point -1,2", "outside the photo"),
        ("--box 30,30,10,10", "turned round or empty"),
        ("--box 10,10,10,30", "turned round or empty"),
        ("--point 1,2 --backend nope", "unknown backend"),
        ("--point 1,2 --model sam3/huge", "unknown model id"),
        ("--point 1,2 --checkpoint missing.pt", "checkpoint not found"),
        ("--point 1,2 --backend torch --checkpoint cup.png", r"cup.png|\[torch\]"),
    ],
)
def test_what_the_real_model_refuses(
    arguments: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("cup.png", PHOTO)
    assert main(["segment", "cup.png", *arguments.split()]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert re.search(problem, err), err
    assert _pictures() == []


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (4, 20_000)])
def test_photos_at_the_edge_get_a_mask(
    size_hw: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("cup.png", np.full((*size_hw, 3), 90, np.uint8))
    assert main(["segment", "cup.png", "--point", "0,0"]) == 0
    mask = cv2.imread("cup.mask.png", cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == size_hw
