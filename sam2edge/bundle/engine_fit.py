"""`python -m sam2edge.bundle.engine_fit FOLDER...`: which engines this machine cannot run, and why, as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from sam2edge.errors import GraphError
from sam2edge.machine.device import find_gpu
from sam2edge.machine.software import TENSORRT_LIBRARIES
from sam2edge.store.engine_checks import check_machine
from sam2edge.store.manifest import read_engine_manifest
from sam2edge.store.paths import ENGINE_SUFFIX


def explain_misfit(folder: Path) -> str | None:
    """Why the engines in a folder do not run here; None where they do, as far as their manifests tell."""
    gpu = find_gpu()
    if gpu is None:
        return "no NVIDIA GPU on this machine"
    try:
        for engine in sorted(folder.glob(f"*{ENGINE_SUFFIX}")):
            manifest = read_engine_manifest(engine)
            builder = manifest.build.builder
            if builder not in TENSORRT_LIBRARIES:
                return f"built by {builder}"
            check_machine(manifest, builder, importlib.import_module(builder).__version__, gpu)
    except ImportError as error:
        return str(error)
    except GraphError as error:
        return str(error)
    return None


if __name__ == "__main__":
    found = {name: explain_misfit(Path(name)) for name in sys.argv[1:]}
    print(json.dumps({name: reason for name, reason in found.items() if reason is not None}))
