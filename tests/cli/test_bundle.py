"""`sam2edge bundle` as it is typed; what it does is in tests/bundle/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam2edge.bundle import create
from sam2edge.cli.main import main
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.variants import find_variant
from tests.bundle.small_bundle import make_bundle, write_wheel

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "other.zip", monkeypatch)  # leaves its wheels in place of the real ones


def test_create_tells_what_it_made(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bundle.zip"
    assert main(["bundle", "create", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sha256"] == file_sha256(path)
    assert (facts["target"], facts["files"]) == ("linux-aarch64-cp310", [])
    assert main(["bundle", "verify", str(path)]) == 0
    assert "for linux-aarch64-cp310" in capsys.readouterr().out
    assert main(["bundle", "create", str(path)]) == 1
    assert "there already" in capsys.readouterr().err


def test_the_name_says_what_it_is(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", "create", "--target", "linux-x86_64-cp312"]) == 0
    out = capsys.readouterr().out
    assert "python3 sam2edge-0.1.0-linux-x86_64-cp312.zip install --venv DIR" in out
    assert (tmp_path / "sam2edge-0.1.0-linux-x86_64-cp312.zip").is_file()


def test_models_go_in_with_what_the_store_has(tmp_path: Path, written_engines: Path, capsys: Capture) -> None:
    tiny = find_variant("sam2/hiera_tiny")
    weights = paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    write_manifest(weights, describe_file(weights))
    command = ["bundle", "create", "--model", "sam2/hiera_tiny", "--model", "sam2/micro", "--json"]
    assert main([*command, str(tmp_path / "a.zip")]) == 1
    assert "sam2edge models install sam2/hiera_tiny" in capsys.readouterr().err
    assert not (tmp_path / "a.zip").exists()
    torch = write_wheel(tmp_path, "torch", "2.4.0", {})
    assert main([*command, "--wheel", str(torch), str(tmp_path / "a.zip")]) == 0
    out, _ = capsys.readouterr()
    assert json.loads(out)["files"] == ["checkpoints/sam2.1_hiera_tiny.pt", "checkpoints/sam2.1_hiera_tiny.pt.json"]
    command += ["--wheel", str(torch)]
    assert main([*command, "--engines", str(tmp_path / "b.zip")]) == 0
    assert sum(name.endswith(".engine") for name in json.loads(capsys.readouterr().out)["files"]) == 4
    assert main([*command, "--no-weights", str(tmp_path / "c.zip")]) == 1
    assert f"nothing of {tiny.model_id} to put into a bundle" in capsys.readouterr().err
    weights.write_bytes(b"damaged")
    assert main([*command, str(tmp_path / "d.zip")]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["a.zip", "b.zip", "other.zip"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["create", "x.zip", "--target", "windows"], 1, "no such target"),
        (["create", "x.zip", "--model", "sam3"], 1, "unknown model id"),
        (["create", "x.zip", "--model", "sam2/hiera_large"], 1, "nothing of sam2/hiera_large"),
        (["create", "no/such/folder/x.zip", "--nope"], 2, "No such option"),
        (["install"], 2, "bundle"),
        (["install", "missing.zip"], 1, "bundle not found"),
        (["verify", "missing.zip"], 1, "bundle not found"),
        (["verify", "."], 1, "not a bundle"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err and err.count("\n") == 1


def test_a_disk_that_is_full_leaves_no_half_bundle(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(create, "write_bundle", fail)
    assert main(["bundle", "create", str(tmp_path / "bundle.zip")]) == 1
    assert "bundle.zip cannot be written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.zip"]


def test_install_has_its_own_help(capsys: Capture) -> None:
    assert main(["bundle", "install", "--help"]) == 0
    assert "--venv DIR" in capsys.readouterr().out
