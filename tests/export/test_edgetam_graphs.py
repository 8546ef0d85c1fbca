"""EdgeTAM's four graphs: as torch computes them, and what NVIDIA's compiler makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from sam2edge.contract import MEMORY_ATTENTION, graph_specs  # noqa: E402
from sam2edge.export.parity import check_graphs  # noqa: E402
from sam2edge.export.precision import expected_islands  # noqa: E402
from sam2edge.export.to_onnx import write_graphs  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402
from tests.data import tracked_inputs as given  # noqa: E402
from tests.export.compile_rtx import compile_plan, count_fused  # noqa: E402

EDGETAM = find_variant("sam2/edgetam")


def _model(image_size: int) -> Sam2:
    model = Sam2(EDGETAM, image_size)
    state = {name: torch.from_numpy(given.tensor(name, tuple(v.shape))) for name, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.bake()


def test_onnxruntime_gives_what_torch_gives(tmp_path: Path) -> None:
    model = _model(512)  # at 256 a window of the perceiver is one token, and no attention
    write_graphs(model, "0" * 64, tmp_path)
    outcomes = check_graphs(model, tmp_path, "fp32")
    assert len(outcomes) == 4
    assert all(outcome.passed for outcome in outcomes.values()), list(map(str, outcomes.values()))
    memory = graph_specs(EDGETAM, 1024)[MEMORY_ATTENTION].inputs[1]
    assert memory.shape == (1, 512, 64)  # 3,648 keys with the pointers, for SAM 2 it is 28,736


def test_all_four_compile_with_every_attention_one_kernel(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    for path in write_graphs(_model(512), "0" * 64, tmp_path, precision="fp16"):
        softmaxes = Counter(node.op_type for node in onnx.load(path).graph.node)["Softmax"]
        assert softmaxes >= expected_islands(EDGETAM, path.stem)["attention"], path.stem
        assert count_fused(compile_plan(path)) == softmaxes, path.stem
