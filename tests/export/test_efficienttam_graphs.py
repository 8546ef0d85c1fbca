"""EfficientTAM's four graphs: as torch computes them, and what NVIDIA's compiler makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from sam2edge.backends.base import BackendRequest, MemoryInputs  # noqa: E402
from sam2edge.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from sam2edge.backends.torch import TorchBackend  # noqa: E402
from sam2edge.export.precision import expected_islands  # noqa: E402
from sam2edge.export.to_onnx import write_graphs  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.variants import Variant, find_variant  # noqa: E402
from tests.data import tracked_inputs as given  # noqa: E402
from tests.export.compile_rtx import compile_plan, count_fused  # noqa: E402

KINDS = ["efficienttam_ti_1", "efficienttam_ti_2"]


def _model(variant: Variant, image_size: int) -> Sam2:
    model = Sam2(variant, image_size)
    state = {name: torch.from_numpy(given.tensor(name, tuple(v.shape))) for name, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.bake()


@pytest.mark.parametrize("name", KINDS)
def test_onnxruntime_gives_what_torch_gives(name: str, tmp_path: Path) -> None:
    """Also with one memory alone, which is not pooled: the graph is the same."""
    variant, size = find_variant(name), given.IMAGE_SIZE
    model = _model(variant, size)
    write_graphs(model, "0" * 64, tmp_path)
    graphs = OnnxRuntimeBackend.open(BackendRequest(variant, size, graph_dir=tmp_path))
    peer = TorchBackend(model, torch.device("cpu"))
    image = (given.frames_rgb()[:1].transpose(0, 3, 1, 2) / 128 - 1).astype(np.float32)
    found, expected = graphs.encode(image), peer.encode(image)
    for key, tensor in expected.to_host().tensors.items():
        np.testing.assert_allclose(found.tensors[key], tensor, atol=2e-3)
    coords, labels = np.array([[given.CENTRE_XY]], np.float32), np.ones((1, 1), np.int32)
    for one, other in zip(graphs.decode(found, coords, labels), peer.decode(expected, coords, labels), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    random = np.random.default_rng(0)
    side = size // 4
    logits = random.normal(0, 4, (3, side, side)).astype(np.float32)
    memories = peer.encode_memories(expected, logits, [1.0, 1.0, 1.0], [True, False, False])
    for one, other in zip(
        graphs.encode_memories(found, logits, [1.0] * 3, [True, False, False]), memories, strict=True
    ):
        np.testing.assert_allclose(one.tensors["memory"], other.to_host().tensors["memory"], atol=2e-3)
    for count in (1, 2, 3):
        remembered = MemoryInputs(
            memories[:count],
            np.arange(count, dtype=np.int32),
            random.normal(size=(count, variant.d_model)).astype(np.float32),
            np.zeros(count, np.float32),
        )
        attended = graphs.attend_memory(found, remembered).tensors["image_embed"]
        wanted = peer.attend_memory(expected, remembered).to_host().tensors["image_embed"]
        np.testing.assert_allclose(attended, wanted, atol=2e-3)


@pytest.mark.parametrize("name", KINDS)
def test_all_four_compile_with_every_attention_one_kernel(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    variant = find_variant(name)
    for path in write_graphs(_model(variant, 256), "0" * 64, tmp_path, precision="fp16"):
        softmaxes = Counter(node.op_type for node in onnx.load(path).graph.node)["Softmax"]
        assert softmaxes >= expected_islands(variant, path.stem)["attention"], path.stem
        assert count_fused(compile_plan(path)) == softmaxes, path.stem
