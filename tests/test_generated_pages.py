"""The pages that are generated say what the code says."""

from __future__ import annotations

import importlib.util

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("make_cli_page", [f"## sam2edge {name}\n" for name in ("segment", "models install", "bundle create")]),
        ("make_error_table", ["### StoreError\n", "| photo is truncated | copy or download it again |\n"]),
    ],
)
def test_a_page_is_what_its_script_writes(script: str, told: list[str]) -> None:
    spec = importlib.util.spec_from_file_location(script, ROOT / "docs" / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.make_page(), f"run python docs/{script}.py"
    assert all(text in page for text in told)
