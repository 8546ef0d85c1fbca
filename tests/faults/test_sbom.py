from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclonedx")

from cyclonedx.model.bom import Bom
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion

from tests.bundle.small_bundle import make_bundle
from tests.sbom import bom_of_bundle, bom_of_wheel


def _parts(bom: Bom) -> dict[str, dict[str, Any]]:
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return {part["name"]: part for part in json.loads(text)["components"]}


def test_the_wheels_list_has_what_the_base_install_needs() -> None:
    parts = _parts(bom_of_wheel())
    assert {"click", "numpy", "onnxruntime", "opencv-python-headless", "packaging", "platformdirs", "rich"} <= set(
        parts
    )
    assert not {"torch", "pytest"} & set(parts)
    assert str(parts["numpy"]["purl"]).startswith("pkg:pypi/numpy@")


def test_a_bundles_list_has_its_members_with_their_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = _parts(bom_of_bundle(make_bundle(tmp_path / "bundle.zip", monkeypatch)))
    assert {"sam2edge", "stand-ins", "pip"} == set(parts)
    assert all(len(part["hashes"][0]["content"]) == 64 for part in parts.values())
