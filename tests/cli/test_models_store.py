"""`sam2edge models` on a store: pull, add, remove, verify, as they are typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sam2edge.cli.main import main
from sam2edge.store import paths
from sam2edge.variants import VARIANTS, find_variant
from tests.file_server import FileServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A mirror with tiny's file, whose bytes are as official as this test likes."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer(b"weights" * 1000) as running:
        tiny = find_variant("sam2/hiera_tiny")
        source = running.variant(url="https://nowhere.invalid/sam2.1_hiera_tiny.pt").checkpoint
        monkeypatch.setitem(VARIANTS, tiny.name, replace(tiny, checkpoint=source))
        monkeypatch.setenv("SAM2EDGE_MIRROR", running.address)
        yield running


class _Terminal:
    def isatty(self) -> bool:
        return True


def _row(capsys: Capture) -> dict:
    capsys.readouterr()
    assert main(["models", "list", "--json"]) == 0
    return next(r for r in json.loads(capsys.readouterr().out)["models"] if r["id"] == "sam2/hiera_tiny")


def test_pull_list_verify_remove(server: FileServer, capsys: Capture) -> None:
    assert main(["models", "pull", "sam2/hiera_tiny"]) == 0
    path = paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt"
    assert capsys.readouterr().out == f"{path} (0.0 MB), checksum as published\n"
    assert main(["models", "pull", "sam2/hiera_tiny"]) == 0
    assert "already there" in capsys.readouterr().out
    row = _row(capsys)
    assert (row["weights"], row["stored_bytes"], row["graphs"], row["installed"]) == (True, 7000, [], True)
    assert main(["models"]) == 0
    line = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("sam2/hiera_tiny")).split()
    assert line[:3] == ["sam2/hiera_tiny", "2.1", "1024"]
    assert "weights 0.0 MB" in " ".join(line)
    assert main(["models", "verify"]) == 0
    assert capsys.readouterr().out == "1 files, 0.0 MB, 0 damaged\n"
    path.write_bytes(b"x" * 7000)
    assert main(["models", "verify"]) == 1
    out = capsys.readouterr().out
    assert f"damaged: {path}: expected SHA-256" in out and "remedy: sam2edge models pull sam2/hiera_tiny" in out
    assert main(["models", "verify", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["damaged"], facts["files"][0]["state"]) == (1, "damaged")
    assert main(["models", "remove", "sam2/hiera_tiny", "--yes"]) == 0
    assert capsys.readouterr().out == "removed 1 files of sam2/hiera_tiny, 0.0 MB\n"
    assert not path.exists()


def test_json_of_the_others(server: FileServer, capsys: Capture) -> None:
    assert main(["models", "pull", "sam2/hiera_tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size_bytes"] == 7000
    assert main(["models", "remove", "sam2/hiera_tiny", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed_bytes"] == 7000


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pull", "sam2/micro"], 1, "comes with the package"),
        (["pull", "sam3"], 1, "unknown model id"),
        (["pull"], 2, "Missing argument"),
        (["add", "missing.pt"], 1, "checkpoint not found"),
        (["add", "."], 1, "is not there as the exporter wrote it"),
        (["remove", "sam2/hiera_small"], 1, "the store has nothing of sam2/hiera_small"),
        (["remove", "sam2/hiera_small", "--json"], 1, "the store has nothing"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["models", *arguments]) == status
    out, err = capsys.readouterr()
    assert message in (json.loads(out)["error"] if "--json" in arguments else err)
    assert (out == "" or "--json" in arguments) and err.count("\n") == 1


def test_a_broken_download_is_told_and_kept(server: FileServer, capsys: Capture) -> None:
    server.drop_after = 100
    assert main(["models", "pull", "sam2/hiera_tiny"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 2)
    assert err.startswith("note: downloading sam2.1_hiera_tiny.pt, 0.0 MB\n")
    assert "broke off" in err and "run it again" in err
    assert _row(capsys)["unfinished_bytes"] > 0
    assert main(["models", "verify"]) == 0
    assert "unknown: " in capsys.readouterr().out


def test_removing_asks(server: FileServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["models", "pull", "sam2/hiera_tiny"])
    path = paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt"
    assert main(["models", "remove", "sam2/hiera_tiny"]) == 2  # no terminal
    monkeypatch.setattr("sys.stdin", _Terminal())
    assert main(["models", "remove", "sam2/hiera_tiny", "--json"]) == 2
    answers = iter(["n", "y"])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(answers))
    capsys.readouterr()
    assert main(["models", "remove", "sam2/hiera_tiny"]) == 130
    out = capsys.readouterr().out
    assert str(path) in out
    assert path.exists()
    assert main(["models", "remove", "sam2/hiera_tiny"]) == 0
    assert not path.exists()
