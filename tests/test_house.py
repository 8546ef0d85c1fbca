"""The house rules of docs/design.md: which file may import what, and that the runtime imports with nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sam2edge"

# Folders stand for every file in them that is not named itself. A file imports from floors below its own only, but for
# three: the files of one folder, and those of F0, may import one another, and F1 may use the values of datatypes.py.
FLOORS = {
    "errors.py": 0,
    "variants.py": 0,
    "contract.py": 0,
    "readings.py": 0,
    "prometheus.py": 0,
    "files.py": 0,
    "weights_version.py": 0,
    "datatypes.py": 1,
    "preprocess.py": 1,
    "postprocess.py": 1,
    "overlay.py": 1,
    "photo.py": 1,
    "cache.py": 1,
    "device.py": 1,
    "store.py": 1,
    "manifest.py": 2,
    "download.py": 2,
    "store_contents.py": 2,
    "engine_build.py": 2,
    "backends/base.py": 1,
    "session_file.py": 2,
    "memory_bank.py": 2,
    "prompts.py": 2,
    "machine/": 2,
    "memory_needs.py": 2,
    "budget.py": 3,
    "stats.py": 3,
    "selection.py": 4,
    "torch_sam2/": 2,
    "backends/": 3,
    "pull.py": 3,
    "recognition.py": 3,
    "tracked_object.py": 3,
    "bundle/": 4,
    "predictor.py": 4,
    "session_state.py": 4,
    "video/": 4,
    "automodel.py": 5,
    "tracker.py": 6,
    "diagnosis/": 6,
    "__init__.py": 7,
    "cli/": 8,
}
ARRAYS = {"numpy", "cv2"}  # F1 and up
# Everything else from outside the standard library, and the only files that may name it.
HOMES = {
    "click": {"cli/"},
    "rich": {"cli/"},
    "packaging": {"bundle/wheels.py"},
    "platformdirs": {"store.py"},
    "torch": {"torch_sam2/", "backends/torch_backend.py"},
    "safetensors": {"torch_sam2/"},
    "onnxruntime": {"backends/onnxruntime_backend.py"},
    "tensorrt": {"backends/tensorrt_backend.py"},
    "tensorrt_rtx": {"backends/tensorrt_backend.py"},
    "pycuda": {"backends/cuda_memory.py"},
    "jtop": set(),
}
# These name a heavy library inside a function, for the caller who has it, and import without it.
NAMED_IN_A_FUNCTION = {"datatypes.py": "torch", "machine/jetson_stats.py": "jtop"}
HEAVY = ["torch", "tensorrt", "tensorrt_rtx", "pycuda", "onnxruntime", "jtop"]

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_a_floor(file: str) -> None:
    assert _floor(file) is not None, f"{file} stands on no floor; give it one here and in docs/design.md"


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_from_floors_below(file: str) -> None:
    for imported, name in _internal_imports(file):
        assert _may_import(file, imported), f"{file} (F{_floor(file)}) imports {name} (F{_floor(imported)})"


@pytest.mark.parametrize("file", FILES)
def test_a_file_names_only_the_libraries_it_may(file: str) -> None:
    floor = _floor(file) or 0
    for name in _external_imports(file):
        if name in ARRAYS:
            assert floor >= 1, f"{file} is on F0, the standard library alone, and imports {name}"
        else:
            assert name in HOMES, f"{file} imports {name}, which is no dependency of the runtime"
            allowed = _covers(HOMES[name], file) or NAMED_IN_A_FUNCTION.get(file) == name
            assert allowed, f"{file} imports {name}; only {sorted(HOMES[name])} may"


@pytest.mark.parametrize("file", FILES)
def test_nothing_in_the_runtime_imports_the_exporter(file: str) -> None:
    # By `python -m` in a subprocess is how the command line starts it, and that is no import.
    assert not [name for name in _imported_names(file) if name.startswith("sam2edge.export")]


def test_no_import_cycles() -> None:
    graph = {file: {imported for imported, _ in _internal_imports(file)} - {file} for file in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError naming the files


def test_every_folder_with_code_is_installed() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    expected = {"sam2edge.export", *(".".join(folder.relative_to(ROOT).parts) for folder in folders)}
    project = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^packages = \[(.*?)\]", project, re.DOTALL | re.MULTILINE)
    assert listed is not None
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == expected
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_the_runtime_imports_where_nothing_heavy_is_installed() -> None:
    light = [_module(file) for file in FILES if not any(_covers(HOMES[name], file) for name in HEAVY)]
    program = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError("blocked by the test: " + name, name=name)
sys.meta_path.insert(0, Blocker())
for name in {light}:
    importlib.import_module(name)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_help_comes_without_arrays_or_models() -> None:
    program = """
import sys
from sam2edge.cli.main import main
main(["--help"])
assert not {"numpy", "cv2", "onnxruntime", "rich", "torch"} & set(sys.modules), sorted(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _covers(places: set[str], file: str) -> bool:
    return any(file == place or (place.endswith("/") and file.startswith(place)) for place in places)


def _floor(file: str) -> int | None:
    folder = file.split("/")[0] + "/"
    return FLOORS.get(file, FLOORS.get(folder))


def _may_import(file: str, imported: str) -> bool:
    if imported == file or _is_own_folder(file, imported):
        return True
    if _floor(imported) == 0 or (imported == "datatypes.py" and _floor(file) == 1):
        return True
    return (_floor(imported) or 0) < (_floor(file) or 0)


def _is_own_folder(file: str, imported: str) -> bool:
    """The same folder below sam2edge/, or the `__init__` above it, which every import of a sibling runs."""
    return "/" in file and file.split("/")[0] == imported.split("/")[0]


def _module(file: str) -> str:
    return ".".join(("sam2edge", *Path(file).with_suffix("").parts)).removesuffix(".__init__")


def _file(name: str) -> str | None:
    """The file of module `name`, or None if it is not a module of the runtime."""
    return next((file for file in FILES if _module(file) == name), None)


def _internal_imports(file: str) -> Iterator[tuple[str, str]]:
    """(file, what was written) for each import of this package; `from a import b` is module a.b where that exists."""
    for name in _imported_names(file):
        if name.partition(".")[0] == "sam2edge":
            imported = _file(name) or _file(name.rpartition(".")[0])
            if imported is not None:
                yield imported, name


def _external_imports(file: str) -> set[str]:
    tops = {name.partition(".")[0] for name in _imported_names(file)}
    return tops - {"sam2edge", "__future__"} - sys.stdlib_module_names


def _imported_names(file: str) -> Iterator[str]:
    """Full dotted names, wherever in the file; also those given to `import_module` and `__import__` as a literal."""
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value
