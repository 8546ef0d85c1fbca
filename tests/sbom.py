"""What is in the wheel and in a bundle, as CycloneDX: `python -m tests.sbom FOLDER [--bundle FILE]`.

Of the wheel: sam2edge and what it needs as it is installed here, with versions and licences. Of a bundle: every wheel
and model file in it, with its SHA-256.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

from sam2edge.bundle.archive import STORE, WHEELS, extract, read_bundle


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sbom", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the lists go")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="list this bundle too; it is verified first")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(_write(bom_of_wheel(), arguments.folder / "sam2edge.cdx.json"))
    if arguments.bundle is not None:
        print(_write(bom_of_bundle(arguments.bundle), arguments.folder / f"{arguments.bundle.stem}.cdx.json"))
    return 0


def bom_of_wheel() -> Bom:
    """sam2edge and, by name, all that its base install needs, down to the last."""
    parts = {name: _installed(name) for name in sorted(_needed("sam2edge"))}
    bom = Bom(components=parts.values())
    bom.metadata.component = root = _installed("sam2edge")
    for name in ("sam2edge", *parts):
        known = [parts[need] for need in _direct_needs(name) if need in parts]
        bom.register_dependency(root if name == "sam2edge" else parts[name], known)
    return bom


def bom_of_bundle(path: Path) -> Bom:
    """Every wheel and file for the store in a bundle. Raises BundleError for a damaged one."""
    bundle = read_bundle(path)
    extract(bundle, None)
    names = [*bundle.names(WHEELS), *bundle.names(STORE)]
    bom = Bom(components=[_member(name, bundle.files[name][1]) for name in names])
    root = Component(name=path.name, version=bundle.version, type=ComponentType.APPLICATION, bom_ref=path.name)
    bom.metadata.component = root
    bom.register_dependency(root, bom.components)
    return bom


def _member(name: str, sha256: str) -> Component:
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]
    if name.startswith(STORE):
        return Component(name=name, type=ComponentType.MACHINE_LEARNING_MODEL, hashes=hashes, bom_ref=name)
    project, version = Path(name).name.split("-")[:2]
    purl = PackageURL("pypi", None, _normal(project), version)
    return Component(name=_normal(project), version=version, purl=purl, hashes=hashes, bom_ref=name)


def _installed(name: str) -> Component:
    facts = importlib.metadata.metadata(name)
    stated = next((facts[key] for key in ("License-Expression", "License") if key in facts), "")
    licences = [LicenseFactory().make_from_string(stated)] if stated and "\n" not in stated else []
    version = facts["Version"]
    return Component(
        name=name, version=version, licenses=licences, purl=PackageURL("pypi", None, name, version), bom_ref=name
    )


def _needed(name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for need in _direct_needs(waiting.pop()):
            if need not in found:
                found.add(need)
                waiting.append(need)
    return found


def _direct_needs(name: str) -> Iterable[str]:
    for line in importlib.metadata.requires(name) or ():
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield _normal(need.name)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _write(bom: Bom, path: Path) -> str:
    make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_to_file(str(path), allow_overwrite=True, indent=1)
    return f"{path}: {len(bom.components)} components"


if __name__ == "__main__":
    sys.exit(main())
