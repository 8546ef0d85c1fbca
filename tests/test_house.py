"""The house rules: which room may import which, who may name a heavy library, and what imports without any."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sam2edge"

# Rooms from the ground up: a file, or a folder with a slash. A room imports from rooms above it in this list only.
ROOMS = (
    "errors.py",
    "files.py",
    "outputs.py",
    "variants.py",
    "contract.py",
    "machine/",
    # What results do with their masks needs these files of imaging/; the rest of it takes and makes datatypes.
    "imaging/image_header.py",
    "imaging/photo.py",
    "imaging/frame.py",
    "imaging/overlay.py",
    "imaging/mask_formats.py",
    "imaging/packed_mask.py",
    "imaging/object_masks.py",
    "datatypes.py",
    "cache.py",
    "observe/",
    "imaging/",
    "torch_sam2/",
    "video/",
    "store/",
    "backends/",
    "backends/tensorrt/",
    "bundle/",
    "engine_build/",
    "model_install.py",
    "selection/",
    "tracking/",
    "everything.py",
    "loaded_model.py",
    "predictor.py",
    "automodel.py",
    "compat.py",
    "diagnosis/",
    "tracker.py",
    "serve/",
    "__init__.py",
    "cli/",
    "__main__.py",
)
WITHOUT_ARRAYS = (
    "errors.py",
    "files.py",
    "outputs.py",
    "variants.py",
    "contract.py",
    "machine/",
)  # the standard library alone
ARRAYS = {"numpy", "cv2"}
# Everything else from outside the standard library, and the only places that may name it.
HOMES = {
    "click": {"cli/"},
    "rich": {"cli/"},
    "packaging": {"bundle/wheels.py"},
    "platformdirs": {"store/paths.py"},
    "torch": {"torch_sam2/", "backends/torch.py"},
    "safetensors": {"torch_sam2/"},
    "onnxruntime": {"backends/onnxruntime.py"},
    "openvino": {"backends/openvino.py"},
    "tensorrt": {"backends/tensorrt/backend.py"},
    "tensorrt_rtx": {"backends/tensorrt/backend.py"},
    "pycuda": {"backends/tensorrt/memory.py"},
    "av": {"video/h264.py", "video/sources/pyav.py", "video/rtsp_push.py"},
    "rosbags": {"video/sources/bag.py", "video/mask_bag.py"},
    "gi": {"video/sources/gstreamer.py"},
    "fastapi": {"serve/app.py", "serve/channel.py", "cli/serve.py"},
    "pydantic": {"serve/service.py", "serve/channel.py"},
    "uvicorn": {"serve/run.py", "cli/serve.py"},
    "websockets": {"cli/serve.py"},
    "tomli": {"serve/settings.py"},
    "jtop": set(),
    "supervision": set(),
}
# These name a heavy library inside a function, for the caller who has it, and import without it.
NAMED_IN_A_FUNCTION = {
    "datatypes.py": "torch",
    "machine/jetson_stats.py": "jtop",
    "imaging/object_masks.py": "supervision",
}
HEAVY = [
    "torch",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "onnxruntime",
    "openvino",
    "jtop",
    "av",
    "rosbags",
    "fastapi",
    "uvicorn",
]

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_a_room_imports_only_from_rooms_below(file: str) -> None:
    for imported, name in _internal_imports(file):
        same_room = _room(imported) == _room(file) or imported == "__init__.py"
        assert same_room or ROOMS.index(_room(imported)) < ROOMS.index(_room(file)), f"{file} imports {name}"


@pytest.mark.parametrize("file", FILES)
def test_a_file_names_only_the_libraries_it_may(file: str) -> None:
    for name in _external_imports(file):
        if name in ARRAYS:
            assert _room(file) not in WITHOUT_ARRAYS, f"{file} may import the standard library alone, and has {name}"
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


def test_the_embedded_model_is_as_it_was_published() -> None:
    """`training/publish.py` writes the manifests with the files; others are refused when a model is loaded."""
    for path in (PACKAGE / "assets").iterdir():
        if path.suffix in (".onnx", ".safetensors"):
            stated = json.loads(path.with_name(f"{path.name}.json").read_text())["sha256"]
            assert stated == hashlib.sha256(path.read_bytes()).hexdigest(), path.name


def _covers(places: set[str], file: str) -> bool:
    return any(file == place or (place.endswith("/") and file.startswith(place)) for place in places)


def _room(file: str) -> str:
    """The room of `file`: the deepest folder that ROOMS names, or the file itself."""
    rooms = [room for room in ROOMS if file == room or (room.endswith("/") and file.startswith(room))]
    assert rooms, f"{file} is in no room; add it to ROOMS"
    return max(rooms, key=len)


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
