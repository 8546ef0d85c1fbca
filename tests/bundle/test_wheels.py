"""Which wheels go into a bundle, told for the target and not for the Python that makes it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from sam2edge.bundle import wheels
from sam2edge.bundle.wheels import Target, gather_wheels, read_target
from sam2edge.errors import BundleError, InvalidInputError
from tests.bundle.small_bundle import real_pip, write_wheel

ORIN = Target("aarch64", (3, 10))


@pytest.mark.parametrize("name", ["linux-aarch64-cp310", "linux-x86_64-cp313"])
def test_targets(name: str) -> None:
    assert read_target(name).name == name


@pytest.mark.parametrize(
    "name", ["", "linux", "linux-riscv64-cp310", "macos-aarch64-cp310", "linux-aarch64-cp39", "a-b-c"]
)
def test_targets_that_are_none(name: str) -> None:
    with pytest.raises(InvalidInputError, match="no such target; expected linux-MACHINE-cp3NN"):
        read_target(name)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all the package index there is; sam2edge's own wheel needs what the test puts there."""
    folder = tmp_path / "index"
    folder.mkdir()
    real_pip(folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def _gather(folder: Path, requires: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, *extra: Path) -> set[str]:
    own = {"sam2edge/__init__.py": ""}
    monkeypatch.setattr(wheels, "make_own_wheel", lambda there: write_wheel(there, "sam2edge", "0.1.0", own, requires))
    folder.mkdir()
    requirements = gather_wheels(folder, ORIN, extra)
    assert requirements[0] == "sam2edge==0.1.0"
    assert len(requirements) == 1 + len(extra)
    return {path.name.partition("-")[0] for path in folder.iterdir()} - {"pip", "sam2edge"}


def test_conditions_are_those_of_the_target(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only Python 3.10 on Arm needs comes along, also of what that needs; what only others need does not."""
    write_wheel(index, "backport", "1.0", {}, ("deeper; platform_machine == 'aarch64'",))
    write_wheel(index, "deeper", "1.0", {})
    write_wheel(index, "modern", "1.0", {})
    write_wheel(index, "windows_only", "1.0", {})
    requires = (
        'backport>=1; python_version < "3.11"',
        'modern; python_version >= "3.11"',
        'windows-only; sys_platform == "win32"',
        'optional; extra == "all"',
    )
    assert _gather(tmp_path / "wheels", requires, monkeypatch) == {"backport", "deeper"}


def test_wheels_are_those_of_the_target(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = ("cp310-cp310-manylinux_2_27_aarch64", "cp311-cp311-manylinux_2_27_x86_64")
    for tag in tags:
        write_wheel(index, "native", "1.0", {}, tag=tag)
    write_wheel(index, "native", "2.0", {}, tag="cp310-cp310-manylinux_2_35_aarch64")  # for a newer glibc
    _gather(tmp_path / "wheels", ("native",), monkeypatch)
    assert [path.name for path in (tmp_path / "wheels").glob("native*")] == [f"native-1.0-{tags[0]}.whl"]


def test_wheels_of_ones_own(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(index, "deeper", "1.0", {})
    extra = write_wheel(tmp_path, "pycuda", "2024.1", {}, ("deeper",), tag="cp310-cp310-linux_aarch64")
    assert _gather(tmp_path / "wheels", (), monkeypatch, extra) == {"pycuda", "deeper"}
    with pytest.raises(InvalidInputError, match="not a wheel"):
        gather_wheels(tmp_path / "wheels", ORIN, (Path(__file__),))


def test_a_wheel_that_is_not_to_be_had(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="pip download failed.*No matching distribution found for absent"):
        _gather(tmp_path / "wheels", ('absent; python_version < "3.11"',), monkeypatch)


class _Installed:
    """An installation as importlib.metadata describes it."""

    version = "0.1.0"

    def __init__(self, folder: Path) -> None:
        self.files = PathDistribution(folder / "sam2edge-0.1.0.dist-info").files


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip leaves of a wheel: its files, a list with hashes, and things of its own."""
    info = tmp_path / "site" / "sam2edge-0.1.0.dist-info"
    files = {"sam2edge/__init__.py": "x = 1\n", f"{info.name}/WHEEL": "Tag: py3-none-any\n"}
    files[f"{info.name}/INSTALLER"] = "pip"
    lines = [f"{info.name}/RECORD,,", "../../bin/sam2edge,sha256=x,3", "sam2edge/__pycache__/a.pyc,,"]
    for name, text in files.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}")
    (info / "RECORD").write_text("\n".join(lines))
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: _Installed(info.parent))
    return tmp_path / "site"


def test_an_installed_package_becomes_a_wheel_again(installed: Path, tmp_path: Path) -> None:
    wheel = wheels._pack_installed(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        info = "sam2edge-0.1.0.dist-info"
        assert sorted(archive.namelist()) == [f"{info}/RECORD", f"{info}/WHEEL", "sam2edge/__init__.py"]
        assert archive.read("sam2edge/__init__.py") == b"x = 1\n"
        assert archive.read(f"{info}/RECORD").decode().splitlines()[-1] == f"{info}/RECORD,,"


def test_a_package_that_was_changed_does_not(installed: Path, tmp_path: Path) -> None:
    (installed / "sam2edge" / "__init__.py").write_text("x = 2\n")
    with pytest.raises(BundleError, match="own wheel cannot be made here.*__init__.py, which was changed"):
        wheels._pack_installed(tmp_path)


def test_an_installation_without_a_list_does_not(installed: Path, tmp_path: Path) -> None:
    (installed / "sam2edge-0.1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(BundleError, match="without a list of its files"):
        wheels._pack_installed(tmp_path)
