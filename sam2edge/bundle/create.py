"""Makes a bundle: wheels from the package index, models from the store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from sam2edge import errors
from sam2edge.bundle.archive import STORE, WHEELS, write_bundle
from sam2edge.bundle.wheels import Target, gather_wheels
from sam2edge.errors import BundleError
from sam2edge.store import paths
from sam2edge.store.inventory import DAMAGED, ENGINE, GRAPH, RECORD, WEIGHTS, StoredFile, check_file, list_stored_files
from sam2edge.variants import Variant

# The part of the package that runs from the bundle itself, on a Python without packages.
_CODE = (
    "__init__.py",
    "errors.py",
    "files.py",
    *(f"bundle/{name}.py" for name in ("__init__", "archive", "environment", "install", "journal")),
)
_MAIN = """\
import sys
from pathlib import Path

if sys.version_info < (3, 10):
    sys.exit("sam2edge: this needs Python 3.10 or later, got {}.{}".format(*sys.version_info))

from sam2edge.bundle.install import main

sys.exit(main(sys.argv[1:], Path(__file__).parent))
"""


def create_bundle(
    path: Path,
    target: Target,
    variants: Iterable[Variant] = (),
    weights: bool = True,
    engines: bool = False,
    wheels: tuple[Path, ...] = (),
) -> list[StoredFile]:
    """Writes the bundle `path` for a machine such as `target`; returns the files of the store that are in it.

    `variants` are the models whose graphs go in, with their weights and engines if wanted; the embedded model is in
    the wheel. `wheels` are further wheels to install, with what they need. Raises BundleError, also for a model that
    could not run there: weights without graphs need torch, which can be added as a wheel.
    """
    if path.exists():
        raise BundleError("the file is there already", expected="a new name", got=str(path), remedy="remove it first")
    files = []
    for variant in variants:
        found = _files_of(variant, weights, engines)
        _require_runnable(variant, found, wheels)
        files += found
    package = Path(errors.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        gathered, main = Path(folder) / "wheels", Path(folder) / "main.py"
        gathered.mkdir()
        requirements = gather_wheels(gathered, target, wheels)
        main.write_text(_MAIN, encoding="utf-8")
        members = [("__main__.py", main), *((f"sam2edge/{name}", package / name) for name in _CODE)]
        members += [(f"{WHEELS}{wheel.name}", wheel) for wheel in gathered.glob("*.whl")]
        members += [(f"{STORE}{file.path.relative_to(paths.root()).as_posix()}", file.path) for file in files]
        facts = {
            "version": requirements[0].rpartition("=")[2],
            "target": target.name,
            "requirements": requirements,
            "models": sorted({file.variant.model_id for file in files if file.variant}),
        }
        try:
            paths.write_atomically(path, lambda part: write_bundle(part, facts, members))
        except OSError as error:
            raise BundleError(
                f"{path} cannot be written",
                expected="room for the bundle, in a folder that may be written to",
                got=error.strerror or str(error),
                remedy="make room, or name another folder",
            ) from error
    return files


def _require_runnable(variant: Variant, files: list[StoredFile], wheels: tuple[Path, ...]) -> None:
    runs = variant.checkpoint is None or any(file.kind in (GRAPH, ENGINE) for file in files)
    if not runs and not any(wheel.name.startswith("torch-") for wheel in wheels):
        raise BundleError(
            f"{variant.model_id} could not run from this bundle",
            expected="its graphs in the store, or a wheel of torch for the target",
            got="weights alone",
            remedy=f"sam2edge models install {variant.model_id}, then run this again; or --wheel TORCH.whl",
        )


def _files_of(variant: Variant, weights: bool, engines: bool) -> list[StoredFile]:
    """The model's files in the store, with their records; each is compared with its checksum first."""
    kinds = {GRAPH, *([WEIGHTS] if weights else []), *([ENGINE] if engines else [])}
    files = [file for file in list_stored_files(variant) if file.kind in kinds]
    if not files and variant.checkpoint is not None:
        raise BundleError(
            f"the store has nothing of {variant.model_id} to put into a bundle",
            expected=", ".join(sorted(kinds)),
            got=str(paths.root()),
            remedy=f"sam2edge models install {variant.model_id}",
        )
    for finding in map(check_file, files):
        if finding.state == DAMAGED:
            raise BundleError(f"{finding.file.path} is damaged", got=finding.reason, remedy=finding.remedy)
    records = {paths.manifest_path(file.path) for file in files}
    return [*files, *(f for f in list_stored_files(variant) if f.kind == RECORD and f.path in records)]
