from __future__ import annotations

import json

import pytest

from sam2edge.cli.main import main
from sam2edge.variants import VARIANTS, find_variant


def test_the_list_has_every_model_and_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 1 + len(VARIANTS)
    for line, variant in zip(lines[1:], VARIANTS.values(), strict=True):
        assert line.startswith(variant.model_id + " ")
        assert line.endswith(variant.checkpoint.url if variant.checkpoint else "embedded")


def test_without_a_command_it_lists(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "list"])
    listed = capsys.readouterr().out
    assert main(["models"]) == 0
    assert capsys.readouterr().out == listed


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert len(rows) == len(VARIANTS)
    for row in rows:
        assert 0 < row["photo_cpu_ms"] <= row["frame_cpu_ms"]
        assert row["licence"] == "Apache-2.0"
        for name in (row["id"], *row["aliases"]):
            assert find_variant(name).model_id == row["id"]
        assert row["installed"] or row["checkpoint_url"] or row["size"] == "micro"
    assert [row["size"] for row in rows if row["checkpoint_url"] is None] == ["micro"]
