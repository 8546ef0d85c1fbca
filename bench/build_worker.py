"""A build of all engines of a model as a measured side: what memory the process that asks for it keeps.

python -m bench.build_worker --model ID --graphs DIR --out DIR    serves "build" to the harness
"""

from __future__ import annotations

import argparse
import gc
import resource
from pathlib import Path

from bench.worker import serve
from sam2edge.export.build_process import BuildOptions
from sam2edge.export.to_engine import build_engines
from sam2edge.store.manifest import EngineManifest
from sam2edge.variants import find_variant

MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    variant = find_variant(args.model)

    def build() -> dict[str, float]:
        before = _rss_mib()
        options = BuildOptions("tensorrt_rtx")
        outcomes = build_engines(args.graphs, args.out, variant, variant.image_size, options)
        manifests = [outcome for outcome in outcomes.values() if isinstance(outcome, EngineManifest)]
        assert len(manifests) == len(outcomes), outcomes
        gc.collect()
        return {
            "kept_mib": round(_rss_mib() - before, 1),
            "builder_peak_mib": round(max(m.builder_peak_bytes or 0 for m in manifests) / MIB, 1),
            "processes_left": len(_children()),
        }

    serve({"build": build}, ["sam2edge", "onnxruntime", "tensorrt-rtx-cu12"])


def _children() -> list[str]:
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


if __name__ == "__main__":
    main()
