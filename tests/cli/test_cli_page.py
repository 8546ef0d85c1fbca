"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

import importlib.util

from tests.conftest import ROOT


def test_the_page_is_generated() -> None:
    spec = importlib.util.spec_from_file_location("make_cli_page", ROOT / "docs" / "make_cli_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.make_page(), "run python docs/make_cli_page.py"
    for command in ("segment", "track", "models install", "bundle create", "completion"):
        assert f"## sam2edge {command}\n" in page
