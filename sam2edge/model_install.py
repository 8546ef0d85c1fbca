"""Makes an official model run on this machine: its weights, its graphs, and where there is a GPU its engines.

Graphs are exported by torch. Where torch is missing, it is fetched into a temporary folder that only the exporter sees.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sam2edge.errors import BackendUnavailableError, GraphError, InvalidInputError, StoreError
from sam2edge.files import locked
from sam2edge.machine.device import has_nvidia_gpu
from sam2edge.store import paths
from sam2edge.store.download import Progress
from sam2edge.store.pull import pull_checkpoint
from sam2edge.variants import Variant

# What the exporter imports, with the versions of the extra `export`.
EXPORT_PACKAGES = {"torch": "torch>=2.4", "onnx": "onnx>=1.16", "safetensors": "safetensors>=0.4"}
# torch's CPU wheels, 200 MB in place of 2.5 GB with CUDA on x86-64; taken where the user has no index of their own.
_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
_FREE_BYTES = {"torch": 1_500_000_000, "onnx": 150_000_000, "safetensors": 5_000_000}  # unpacked, with what they need
_TENSORRT = ("tensorrt", "tensorrt_rtx")

Run = Callable[[list[str], dict[str, str]], int]
"""(command, environment) -> exit status."""


@dataclass(frozen=True)
class InstallPlan:
    """What is still to be done, and what it takes."""

    variant: Variant
    image_size: int
    downloads: bool
    download_bytes: int | None
    needs_graphs: bool
    missing_packages: tuple[str, ...]
    needs_engines: bool

    def steps(self) -> list[str]:
        """A line for each step."""
        found = []
        if self.downloads:
            size = "size not known" if self.download_bytes is None else f"{self.download_bytes / 1e6:.0f} MB"
            found.append(f"download the weights, {size}")
        if self.missing_packages:
            room = sum(_FREE_BYTES[name] for name in self.missing_packages)
            names = ", ".join(self.missing_packages)
            found.append(f"fetch {names} into a temporary folder, at most {room / 1e9:.1f} GB, removed afterwards")
        if self.needs_graphs:
            found.append("export the graphs and compare them with the weights, some minutes")
        if self.needs_engines:
            found.append("build TensorRT engines, some minutes each")
        return found


def plan_install(variant: Variant, image_size: int | None = None, again: bool = False) -> InstallPlan:
    """What `install_model` would do. `again` exports graphs that are there already.

    Raises InvalidInputError for the embedded model at its own size, and for a size that no model takes.
    """
    size = variant.image_size if image_size is None else image_size
    if variant.checkpoint is None and size == variant.image_size:
        raise InvalidInputError(
            f"{variant.model_id} comes with the package", remedy=f"use it: --model {variant.model_id}"
        )
    step = variant.image_size_step
    if size < 64 or size % step:
        raise InvalidInputError("image size cannot be used", expected=f"a multiple of {step}, at least 64", got=size)
    needs_graphs = again or paths.find_graphs(variant, size, "fp32") is None
    has_weights = paths.find_checkpoint(variant) is not None
    can_build = has_nvidia_gpu() and any(importlib.util.find_spec(name) for name in _TENSORRT)
    needs_engines = can_build and paths.find_engines(variant, size) is None
    exports = needs_graphs or (needs_engines and paths.find_graphs(variant, size, "fp16") is None)
    missing = [name for name in EXPORT_PACKAGES if exports and importlib.util.find_spec(name) is None]
    source = variant.checkpoint if exports and not has_weights else None
    download = 0 if source is None else source.size_bytes
    return InstallPlan(variant, size, source is not None, download, needs_graphs, tuple(missing), needs_engines)


def install_model(plan: InstallPlan, progress: Progress = lambda done, total: None, run: Run | None = None) -> None:
    """Does what the plan says; what was done stays when a later step fails, and the next call goes on from there.

    Raises StoreError, BackendUnavailableError or GraphError with the step that failed; the scripts that were started
    have told why on standard error.
    """
    run = run or _run
    if plan.downloads:
        pull_checkpoint(plan.variant, progress)
    options = ["--size", str(plan.image_size)]
    with locked(paths.lock_path("install")), _export_environment(plan.missing_packages, run) as environment:
        if plan.needs_graphs:
            command = [sys.executable, "-m", "sam2edge.export.to_onnx", plan.variant.name, *options]
            _require(run(command, environment), f"graphs of {plan.variant.model_id} were not exported")
        if plan.needs_engines:
            command = [sys.executable, "-m", "sam2edge", "build", plan.variant.name, *options]
            _require(run(command, environment), f"engines of {plan.variant.model_id} were not built; its graphs run")


@contextmanager
def _export_environment(packages: tuple[str, ...], run: Run) -> Iterator[dict[str, str]]:
    """The process's environment, with a folder in front of the path of modules that holds `packages` while it runs."""
    if not packages:
        yield dict(os.environ)
        return
    for left in paths.root().glob(".export-*"):  # of a run that was killed; the caller holds the lock
        shutil.rmtree(left, ignore_errors=True)
    if importlib.util.find_spec("pip") is None:
        raise BackendUnavailableError(
            f"{', '.join(packages)} must be fetched, and there is no pip", remedy=f"{sys.executable} -m ensurepip"
        )
    paths.root().mkdir(parents=True, exist_ok=True)
    needed_bytes = sum(_FREE_BYTES[name] for name in packages)
    paths.require_room(paths.root(), needed_bytes, f"to fetch {', '.join(packages)}")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=paths.root(), ignore_cleanup_errors=True) as folder:
        constraints = Path(folder).absolute() / "constraints.txt"
        constraints.write_text(f"numpy=={importlib.metadata.version('numpy')}\n")  # OpenCV was built for this one
        modules = str(Path(folder).absolute() / "modules")
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--target", modules]
        command += ["--constraint", str(constraints), *_index_options(), *(EXPORT_PACKAGES[p] for p in packages)]
        if run(command, dict(os.environ)) != 0:
            raise StoreError(
                f"{', '.join(packages)} could not be fetched",
                remedy="see what pip says above; or export the graphs on another machine, copy them here and run "
                "sam2edge models add FOLDER",
            )
        search = os.pathsep.join(filter(None, (modules, os.environ.get("PYTHONPATH"))))
        yield {**os.environ, "PYTHONPATH": search}


def _index_options() -> list[str]:
    """Where pip shall look besides: nowhere, if the user has set an index."""
    if any(os.environ.get(f"PIP_{name}") for name in ("INDEX_URL", "NO_INDEX", "EXTRA_INDEX_URL", "FIND_LINKS")):
        return []
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    chosen = any(word in listed.stdout for word in ("index-url", "no-index", "find-links"))
    return [] if chosen else ["--extra-index-url", _CPU_WHEELS]


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Runs a command with what it prints on standard error, so that standard output stays the caller's.

    In the store's folder: `python -m` looks into the working folder first, which may be a clone of sam2edge.
    """
    store = paths.root().absolute()
    store.mkdir(parents=True, exist_ok=True)
    environment = {**environment, "SAM2EDGE_HOME": str(store)}
    return subprocess.run(command, env=environment, cwd=store, stdout=sys.stderr).returncode


def _require(status: int, problem: str) -> None:
    if status != 0:
        raise GraphError(problem, got=f"exit status {status}", remedy="see the messages above, then run it again")
