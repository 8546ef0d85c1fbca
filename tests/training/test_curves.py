"""Logs of a run become few columns and one picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import pytest

from training.curves import StageLog, draw_curves, keep, main, read_log

LINES = (
    {"step": 10, "seconds": 1.0, "loss": 4.0, "iou_by_score": 0.1, "spread": 0.3},
    {"step": 20, "seconds": 2.0, "loss": 3.0, "iou_by_score": 0.2, "spread": 0.3},
    {"step": 20, "held_out": {"clips": {"j": 0.4}, "scenes": {"one_click": {"by_score": 0.5, "oracle": 0.6}}}},
    {"step": 30, "loss": 9.0},
    {"step": 20, "loss": 2.5},  # cut and resumed
    {"step": 30, "loss": 2.0, "held_out": {"clips": 6, "j": 0.45}},
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "m128" / "log.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(map(json.dumps, LINES)) + "\n")
    return path


def test_a_log_is_read_by_step_and_what_was_done_twice_counts_once(log: Path) -> None:
    stage = read_log(log)
    assert (stage.name, stage.steps) == ("m128", 30)
    assert [(line["step"], line["loss"]) for line in stage.lines] == [(10, 4.0), (20, 2.5), (30, 2.0)]
    assert stage.lines[1]["held.one_click"] == 0.5
    assert [line.get("held.j") for line in stage.lines] == [None, 0.4, 0.45]


def test_a_stage_on_scenes_alone_counts_with_the_scenes() -> None:
    scenes, clips = StageLog("e", [{"step": 1, "loss": 1.0}]), StageLog("y", [{"step": 1, "iou_prompted": 0.5}])
    assert [scenes.column(name) for name in ("scene_loss", "loss", "held.box")] == ["loss", None, "held.box"]
    assert [clips.column(name) for name in ("scene_loss", "loss")] == ["scene_loss", "loss"]


def test_what_is_kept_draws_the_same_picture(log: Path, tmp_path: Path) -> None:
    kept = keep(read_log(log), tmp_path / "kept")
    assert "seconds" not in kept.read_text()
    assert (draw_curves([read_log(kept)]) == draw_curves([read_log(log)])).all()


def test_each_series_is_in_the_picture(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "curves.png"
    monkeypatch.setattr(sys, "argv", ["curves", str(log), str(log), "--out", str(out)])
    main()
    picture = cv2.imread(str(out))
    without = draw_curves([type(read_log(log))("m128", [{"step": 30}])] * 2)
    assert picture is not None
    assert picture.shape == without.shape
    panels = picture.shape[0] // 3
    for panel in range(3):
        rows = slice(panel * panels, (panel + 1) * panels)
        assert (picture[rows] != without[rows]).any(), panel
