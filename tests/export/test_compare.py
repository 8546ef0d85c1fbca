"""Two runners beside each other: nothing is computed twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from sam2edge import contract
from sam2edge.export.compare import cache_runs, drawn_scene, example_cases, measure, run_reference
from sam2edge.variants import find_variant


def test_graphs_that_no_case_changes_run_once() -> None:
    specs = contract.graph_specs(find_variant("sam2/micro"), 64, 4)
    runs: Counter[tuple[str, str]] = Counter()

    def runner(side: str) -> Any:
        def run(name: str, feed: Any) -> Any:
            runs[side, name] += 1
            return {t.name: np.ones(t.shape, t.dtype) for t in specs[name].outputs}

        return cache_runs(run)

    references = run_reference(specs, example_cases(64, 4, [drawn_scene()]), runner("reference"))
    assert set(measure(specs, references, runner("found"))) == set(specs)
    assert runs["reference", contract.IMAGE_ENCODER] == runs["found", contract.IMAGE_ENCODER] == 1
    assert runs["reference", contract.MEMORY_ATTENTION] == 1
    assert runs["found", contract.MEMORY_ATTENTION] == 2  # alone on the reference's tensors, and in the chain
    assert runs["reference", contract.MASK_DECODER] == 3
