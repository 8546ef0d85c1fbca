"""The README's commands run and are those of .ci/run; links and environment variables of all pages are right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


# The first command installs, then segments; the second is the one this test runs under.
INSTALL_AND_RUN, TEST, *OTHERS = _blocks("sh")
COMMANDS = [INSTALL_AND_RUN.strip().rpartition(" && ")[2], *(line for block in OTHERS for line in block.splitlines())]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder to run in, with the examples beside it, so that results do not fall into the working tree."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.parametrize("block", [INSTALL_AND_RUN, TEST])
def test_ci_runs_what_the_readme_says(block: str) -> None:
    assert block.splitlines()[-1] in [line.strip() for line in CI.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works(command: str, copy: Path) -> None:
    assert command.startswith("sam2edge ")
    command = command.replace("sam2edge", f"{sys.executable} -m sam2edge.cli.main", 1)
    result = _run(["bash", "-c", command], copy)
    assert result.returncode == 0, result.stderr
    if " segment " in command:
        assert [path.name for path in copy.rglob("coins.*.png")]


def test_the_python_works(copy: Path) -> None:
    program = "\n".join(_blocks("python")) + "\nassert best.shape == image.shape[:2] and best.any()\n"
    result = _run([sys.executable, "-c", program], copy)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_files_that_are_linked_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_environment_variable_is_documented() -> None:
    sources = [path for folder in ("sam2edge", "export", "docker") for path in (ROOT / folder).rglob("*.py")]
    used = {name for path in sources for name in re.findall(r"SAM2EDGE_[A-Z_]+", path.read_text(encoding="utf-8"))}
    table = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert {name for name in used if f"| `{name}` |" not in table} == set()


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
