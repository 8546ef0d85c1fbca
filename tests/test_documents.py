"""What the pages say runs: their code blocks, the commands they name, their links and environment variables.

A block that cannot run here says why in its first line, ```sh no-test: needs a camera; pytest lists those as skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import pytest

from bench import table
from sam2edge.cli.main import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("bench", "training", "examples") if (ROOT / folder).is_dir()]
PAGES = [page for page in PAGES if page.exists()]
CI = [line.strip() for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]
TIMEOUT_S = 300
CLIP_FRAMES = 4

# What a page's Python may use without making it: the embedded model, a photo and its embedding.
PRELUDE = """
import cv2
from sam2edge import AutoModel
model = AutoModel.from_pretrained("sam2/micro")
image = cv2.imread("examples/coins.png")
embeddings = model.embed_images(image)
"""
# `sam2edge` and `python` are those under test, whatever is installed. Without torch: loading it takes most of the time.
SHELL_PRELUDE = """
set -euo pipefail
python() { "$PYTHON" "$@"; }
sam2edge() { echo "+ sam2edge $*" >&2; python -m sam2edge.cli.main "$@"; }
"""


class Block(NamedTuple):
    """A fenced block: the language and what else its first line says, and its lines."""

    page: Path
    line: int
    language: str
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)[ ]*(.*)\n((?:.*\n)*?)^```$", text, re.MULTILINE)
    return [Block(page, text.count("\n", 0, m.start()) + 1, m[1], m[2], m[3]) for m in found]


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
TESTED = [block for block in BLOCKS if not block.note.startswith("no-test")]


def _select(language: str) -> dict[Path, list[Block]]:
    """Blocks to run by their page."""
    pages = {block.page for block in TESTED if block.language == language}
    return {page: [b for b in TESTED if (b.page, b.language) == (page, language)] for page in sorted(pages)}


SHELL, PYTHON = _select("sh"), _select("python")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples; of the clip the first frames alone, so that the pages take seconds."""
    folder = tmp_path_factory.mktemp("documents") / "examples"
    folder.mkdir()
    for path in (ROOT / "examples").iterdir():
        (folder / path.name).symlink_to(path)
    clip = folder / "bunny.mp4"
    capture = cv2.VideoCapture(str(clip))
    frames = [capture.read()[1] for _ in range(CLIP_FRAMES)]
    clip.unlink()
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 24, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return folder


@pytest.fixture
def folder(examples: Path, tmp_path: Path) -> Path:
    """A folder to run in, with the examples beside it, so that results do not fall into the working tree."""
    (tmp_path / "examples").symlink_to(examples)
    return tmp_path


@pytest.mark.parametrize("page", SHELL, ids=_name)
def test_shell_blocks_run(page: Path, folder: Path) -> None:
    lines = [line for block in SHELL[page] for line in _leave_out_what_ci_runs(block)]
    if lines:
        (folder / "sitecustomize.py").write_text('import sys; sys.modules["torch"] = None')
        _run(["bash", "-c", SHELL_PRELUDE + "\n".join(lines)], folder)


def _leave_out_what_ci_runs(block: Block) -> list[str]:
    """The lines of a block; of one that installs, which .ci/run must run, only the `sam2edge` command at its end."""
    lines = block.text.splitlines()
    if not any("pip install" in line for line in lines):
        return lines
    assert lines[-1] in CI, f"{block}: .ci/run does not run {lines[-1]!r}"
    last = lines[-1].rpartition(" && ")[2]
    return [last] if last.startswith("sam2edge ") else []


@pytest.mark.parametrize("page", PYTHON, ids=_name)
def test_python_blocks_run(page: Path, folder: Path) -> None:
    program = PRELUDE + "\n".join(block.text for block in PYTHON[page])
    _run([sys.executable, "-c", program], folder)


@pytest.mark.parametrize("block", [b for b in TESTED if b.language == "json"], ids=str)
def test_json_blocks_can_be_read(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.note.startswith("no-test")], ids=str)
def test_blocks_that_cannot_run_here(block: Block) -> None:
    reason = block.note.removeprefix("no-test:").strip()
    assert reason, f"{block}: say why it cannot run, as in ```sh no-test: needs a camera"
    for line in block.text.splitlines():
        _check_command(line)
    pytest.skip(reason)


def test_languages_are_known() -> None:
    known = ("", "sh", "python", "json", "text", "toml")
    assert {str(block) for block in BLOCKS if block.language not in known} == set()


def test_commands_in_sentences_exist() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for command in re.findall(r"`([^`\n]+)`", text):
            try:
                _check_command(command)
            except AssertionError as error:
                raise AssertionError(f"{_name(page)}: `{command}`: {error}") from None


def _check_command(command: str) -> None:
    """Commands, options, modules and test files that a line names are there."""
    words = re.sub(r"[\[\]]|#.*", " ", command).split()
    if words[:1] == ["sam2edge"]:
        _check_options(words[1:])
    elif words[1:2] == ["-m"] and words[0].startswith("python"):
        name = words[2].replace("sam2edge.export", "export")
        assert importlib.util.find_spec(name) is not None, f"no module {words[2]}"
    elif words[:1] == ["pytest"]:
        for path in (word for word in words if "/" in word):
            assert (ROOT / path.partition("::")[0]).exists(), f"no {path}"


def _check_options(words: list[str]) -> None:
    command: click.Command = cli
    known = {"-h", "--help"}
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-") and not word.isupper():
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"no command {word}"
            command = found
        elif word.startswith("--"):
            known |= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            assert word.partition("=")[0].rstrip(",") in known, f"{command.name} has no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_linked_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#:]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_tables_of_benchmarks_are_those_of_the_results() -> None:
    tables = table.PAGE.read_text(encoding="utf-8").partition(table.MARK)[2]
    assert tables == table.write_tables(), "run python -m bench.table"


def test_every_environment_variable_is_documented() -> None:
    sources = [path for folder in ("sam2edge", "export", "docker") for path in (ROOT / folder).rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    used = set(re.findall(r"(?<!_)SAM2EDGE_[A-Z_]+", text))  # _SAM2EDGE_COMPLETE is the shell's own
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert {name for name in used if f"| `{name}` |" not in page} == set()


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PYTHON": sys.executable}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
