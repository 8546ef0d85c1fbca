"""Bundles of a few kilobytes: real in all but their wheels, which stand for sam2edge and what it needs."""

from __future__ import annotations

import ensurepip
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sam2edge.bundle import create
from sam2edge.bundle.wheels import Target
from sam2edge.variants import Variant

HERE = Target(platform.machine(), (sys.version_info[0], sys.version_info[1]))
MODULES = ("click", "cv2", "numpy", "onnxruntime", "platformdirs", "rich")
_MAIN = "def main():\n    import sam2edge\n    print('sam2edge', sam2edge.__version__)\n"


# Takes two seconds less than pip: all wheels beside it, as they are, into the environment or the target.
_QUICK_PIP = """
import sys, sysconfig, zipfile
from pathlib import Path
words = sys.argv
target = words[words.index("--target") + 1] if "--target" in words else sysconfig.get_path("purelib")
for wheel in Path(words[words.index("--find-links") + 1]).glob("[!p]*.whl"):
    zipfile.ZipFile(wheel).extractall(target)
"""


def real_pip(folder: Path) -> Path:
    """The pip that comes with Python; Debian's Python has none, there it is fetched."""
    found = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if found:
        return Path(shutil.copy(found[-1], folder))
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "pip"], check=True)
    return next(folder.glob("pip-*.whl"))


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    files: dict[str, str],
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
) -> Path:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content = {
        **files,
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {line}\n" for line in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if name == "sam2edge":
        content[f"{info}/entry_points.txt"] = "[console_scripts]\nsam2edge = sam2edge.cli.main:main\n"
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"]))
    return wheel


def _sam2edge_files(version: str, main: str) -> dict[str, str]:
    return {
        "sam2edge/__init__.py": f"__version__ = {version!r}\n",
        "sam2edge/cli/__init__.py": "",
        "sam2edge/cli/main.py": main,
        "sam2edge/bundle/__init__.py": "",
        "sam2edge/bundle/engine_fit.py": "import json, sys\nprint(json.dumps({n: 'no GPU' for n in sys.argv[1:]}))\n",
    }


def make_bundle(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = "0.1.0",
    main: str = _MAIN,
    variants: tuple[Variant, ...] = (),
    target: Target = HERE,
    engines: bool = False,
    library: str = "1.0",
    pip: bool = False,
    quick_pip: str = _QUICK_PIP,
) -> Path:
    """`library` is the version of the one wheel with all other modules; `pip` is whether the real one is in it.

    `quick_pip` is the program that stands for it otherwise.
    """

    def gather(folder: Path, target: Target, extra: tuple[Path, ...] = ()) -> list[str]:
        if pip:
            real_pip(folder)
        else:
            write_wheel(folder, "pip", "1.0", {"pip/__main__.py": quick_pip})
        modules = {f"{name}.py": f"version = {library!r}\n" for name in MODULES}
        write_wheel(folder, "stand_ins", library, modules)
        needs = (f"stand-ins=={library}",)
        write_wheel(folder, "sam2edge", version, _sam2edge_files(version, main), needs)
        return [f"sam2edge=={version}"]

    monkeypatch.setattr(create, "gather_wheels", gather)
    create.create_bundle(path, target, variants, engines=engines)
    return path
