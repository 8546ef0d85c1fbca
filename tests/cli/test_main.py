from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sam2edge.cli import main as module
from sam2edge.cli.main import main
from sam2edge.errors import UnknownModelError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command `fail` that raises what is put into the list."""
    errors: list[BaseException] = []

    @click.command()
    def fail() -> None:
        raise errors[0]

    monkeypatch.setattr(module._LazyGroup, "get_command", lambda *_: fail)
    return errors


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            UnknownModelError("unknown model id", got="'x'", remedy="choose another"),
            1,
            "sam2edge: unknown model id; got 'x'; remedy: choose another",
        ),
        (ZeroDivisionError("by\nzero"), 1, "sam2edge: unexpected ZeroDivisionError: by zero; remedy: run again with"),
        (OSError(28, "No space left on device"), 1, "sam2edge: a file or the output cannot be used; got No space left"),
        (MemoryError(), 1, "sam2edge: out of memory; remedy: "),
        (KeyboardInterrupt(), 130, "sam2edge: interrupted"),
        (click.UsageError("two\nlines"), 2, "sam2edge: two lines See `sam2edge"),
    ],
)
def test_every_failure_is_one_line_and_a_status(
    failing: list[BaseException], error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(error)
    assert main(["fail"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().startswith(line)
    assert err.strip().count("\n") == 0


def test_the_traceback_is_there_for_who_asks(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing.append(ZeroDivisionError("by zero"))
    monkeypatch.setenv("SAM2EDGE_DEBUG", "1")
    assert main(["fail"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nope"], ["--nope"], ["models", "nope"], ["segment", "--nope"], ["segment"]])
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err


def test_nothing_to_do_shows_the_help_and_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "segment" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["segment", "--help"], ["models", "list", "-h"], ["--version"], ["-V"]]
)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "sam2edge" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    out = capsys.readouterr().out
    for name in module._COMMANDS:
        assert name in out


def _run(arguments: str, module: str = "sam2edge.cli.main", before: str = "") -> subprocess.CompletedProcess[str]:
    command = f"{before}{sys.executable} -m {module} {arguments}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_reader_that_goes_early_is_no_fault() -> None:
    assert _run("models list | true").stderr == ""


def test_standard_output_that_is_full() -> None:
    result = _run("models list > /dev/full")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "No space left" in result.stderr


def test_standard_streams_that_are_closed() -> None:
    assert _run("models list >&- 2>&-").returncode == 0
    assert _run("segment missing.png --point 1,2 >&- 2>&-").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [("segmnt", "segment"), ("models pul", "pull"), ("bundle crate", "create"), ("trak", "track")],
)
def test_a_mistyped_command_is_told_the_closest(arguments: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err
    assert main(["qqqq"]) == 2
    assert "Commands are segment, track" in capsys.readouterr().err


def test_python_m_is_the_command() -> None:
    result = _run("--version", module="sam2edge")
    assert result.stdout.startswith("sam2edge, version "), result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_SAM2EDGE_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("seg", ["segment"]),
        ("segment --model sam2/hiera_t", ["sam2/hiera_tiny"]),
        ("segment --model lar", ["large"]),
        ("track --backend on", ["onnxruntime"]),
        ("models pull sam2.0_hiera_s", ["sam2.0_hiera_small"]),
        ("build sam2/hiera_l", ["sam2/hiera_large"]),
    ],
)
def test_a_shell_completes_ids_and_backends(words: str, offered: list[str]) -> None:
    context = f"COMP_WORDS='sam2edge {words}' COMP_CWORD={len(words.split())} _SAM2EDGE_COMPLETE=bash_complete "
    result = _run("", before=context)
    assert [line.partition(",")[2] for line in result.stdout.split()] == offered, result.stderr


def test_a_shell_completes_files() -> None:
    result = _run("", before="COMP_WORDS='sam2edge segment cu' COMP_CWORD=2 _SAM2EDGE_COMPLETE=bash_complete ")
    assert result.stdout == "file,cu\n"
