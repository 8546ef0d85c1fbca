"""`sam2edge bench` on the model that comes with the package; times are looked at for being there alone."""

from __future__ import annotations

import json

import pytest

from sam2edge.cli.main import main


def test_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rounds", "3", "--json", "--model", "micro", "--model", "tiny"]) == 0
    out, err = capsys.readouterr()
    micro, tiny = json.loads(out)["models"]
    assert (micro["backend"], micro["image_size"]) == ("onnxruntime", 384)
    for kind in ("embed", "prompt", "frame"):
        assert 0 < micro[kind]["median_ms"] <= micro[kind]["p99_ms"]
    assert micro["peak_bytes"] > 50_000_000
    assert "models install" in tiny["error"] and "tiny" in err  # the others go on


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"median_ms": 1.25, "p99_ms": 2.5}
    row = {"model": "sam2/micro", "backend": "onnxruntime", "image_size": 512, "load_seconds": 0.5}
    row |= {"embed": times, "prompt": times, "frame": None, "peak_bytes": 123_000_000}
    monkeypatch.setattr("sam2edge.cli.bench._measure", lambda *_: row)
    assert main(["bench"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "MODEL BACKEND SIZE LOAD S EMBED MS PROMPT MS FRAME MS PEAK MB"
    assert " ".join(line.split()) == "sam2/micro onnxruntime 512 0.5 1.2 / 2.5 1.2 / 2.5 - 123"


def test_nothing_can_be_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2edge.cli.bench._measure", lambda *_: {"model": "x", "error": "broken"})
    assert main(["bench"]) == 1
    assert "no model could be measured" in capsys.readouterr().err
