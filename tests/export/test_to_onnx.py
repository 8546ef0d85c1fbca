"""The exporter: contract, standard operators, halved weights, whole files or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnxruntime as ort  # noqa: E402

from sam2edge import AutoModel, VideoTracker, contract  # noqa: E402
from sam2edge.errors import GraphError, InvalidInputError  # noqa: E402
from sam2edge.export import to_onnx  # noqa: E402
from sam2edge.export.to_onnx import check_tensors, export_graphs, main  # noqa: E402
from sam2edge.files import file_sha256  # noqa: E402
from sam2edge.store import paths  # noqa: E402
from sam2edge.store.manifest import read_manifest  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402
from tests.fake_backend import bright_square  # noqa: E402

MICRO = find_variant("sam2/micro")
WEIGHTS = paths.ASSETS / "sam2.1_micro.safetensors"


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = export_graphs(MICRO, WEIGHTS, 256, tmp_path_factory.mktemp("graphs"), prompt_slots=5)
    return {path.stem: path for path in files}


def test_graphs_are_static_standard_and_stamped(graphs: dict[str, Path]) -> None:
    specs = contract.graph_specs(MICRO, 256, 5)
    assert set(graphs) == set(specs)
    for name, path in graphs.items():
        graph = onnx.load(path)
        onnx.checker.check_model(graph, full_check=True)
        check_tensors(graph, specs[name])
        assert [(o.domain, o.version) for o in graph.opset_import] == [("", 17)]
        stamp = {p.key: p.value for p in graph.metadata_props}
        assert stamp["sam2edge_contract"] == str(contract.CONTRACT_VERSION)
        assert stamp["sam2edge_model"] == MICRO.name
        assert stamp["sam2edge_checkpoint_sha256"] == file_sha256(WEIGHTS)
        manifest = read_manifest(path)
        assert (manifest.sha256, manifest.checkpoint_sha256) == (file_sha256(path), file_sha256(WEIGHTS))
        assert (manifest.graph, manifest.prompt_slots, manifest.precision) == (name, 5, "fp32")


def test_no_shape_is_computed_at_run_time(graphs: dict[str, Path]) -> None:
    for path in graphs.values():
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        assert not kinds & {"Shape", "If", "Loop", "OneHot", "NonZero", "ScatterND"}


def test_small_mlps_run_side_by_side(graphs: dict[str, Path]) -> None:
    # Two matrix-vector products in a row are what TensorRT 10 computes wrongly at batch 1 (TensorRT issue 3969).
    # The two blocks' token MLPs and attention projections see all tokens at once; what sees one token is batched.
    inferred = onnx.shape_inference.infer_shapes(onnx.load(graphs[contract.MASK_DECODER]))
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*inferred.graph.value_info, *inferred.graph.output]
    }
    for node in inferred.graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            rows = shapes[node.output[0]][:-1]
            assert int(np.prod(rows)) > 1, f"{node.name} is a matrix-vector product of shape {rows}"


def test_halved_weights_change_little(graphs: dict[str, Path], tmp_path: Path) -> None:
    halved = export_graphs(MICRO, WEIGHTS, 256, tmp_path, prompt_slots=5, half_weights=True)[0]
    assert halved.stat().st_size < 0.6 * graphs[contract.IMAGE_ENCODER].stat().st_size
    image = np.random.default_rng(0).normal(size=(1, 3, 256, 256)).astype(np.float32)
    outputs = [
        ort.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(["image_embed"], {"image": image})[0]
        for p in (graphs[contract.IMAGE_ENCODER], halved)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.02 * np.abs(outputs[0]).max()


def test_graphs_for_fewer_memories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame attends to the newest ones, as torch does when it is given no others."""
    export_graphs(MICRO, WEIGHTS, 256, tmp_path / "graphs" / MICRO.name / "256-fp32", memory_slots=3)
    monkeypatch.setenv("SAM2EDGE_HOME", str(tmp_path))
    few, all_of_them = (
        AutoModel.from_pretrained("sam2/micro", backend=backend, image_size=256) for backend in ("onnxruntime", "torch")
    )
    assert (few.backend.memory_slots, all_of_them.backend.memory_slots) == (3, 7)
    all_of_them.backend.memory_slots = 3
    trackers = [VideoTracker(model) for model in (few, all_of_them)]
    for tracker in trackers:
        tracker.prompt(bright_square(8), box=[8, 10, 38, 40])
    for left in range(9, 15):
        found, wanted = (tracker.track(bright_square(left)) for tracker in trackers)
        np.testing.assert_allclose(found.logits, wanted.logits, atol=5e-3)
    with pytest.raises(InvalidInputError, match="memory slots.*expected 1 to 7; got 8"):
        export_graphs(MICRO, WEIGHTS, 256, tmp_path, memory_slots=8)


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise GraphError("not today")

    monkeypatch.setattr(to_onnx, "check_tensors", refuse)
    with pytest.raises(GraphError, match="not today"):
        export_graphs(MICRO, WEIGHTS, 256, tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_script_writes_into_the_store(empty_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sam2/micro", "--size", "128", "--slots", "3"]) == 0
    written = re.findall(r"^(\S+\.onnx) \(", capsys.readouterr().out, re.MULTILINE)
    assert [Path(p).parent for p in written] == [paths.graph_dir(MICRO, 128)] * len(written)
    assert paths.find_graphs(MICRO, 128) == paths.graph_dir(MICRO, 128)


def test_a_store_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["sam2/micro", "--size", "128", "--out", str(tmp_path / "file" / "graphs")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sam2/nothing"], "unknown model id"),
        (["sam2/hiera_tiny"], "no weights of sam2/hiera_tiny"),
        (["sam2/micro", "--size", "100"], "multiple of 32"),
        (["sam2/micro", "--checkpoint", "/no/file.pt"], "not found"),
    ],
)
def test_the_script_fails_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_float32_graphs_for_engines_are_not_made_in_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden_checkpoint: Callable[[str], Path]
) -> None:
    """A CPU is faster with attention in tiles that its cache holds, a GPU with one product."""
    specs = contract.graph_specs
    only = contract.IMAGE_ENCODER
    monkeypatch.setattr(contract, "graph_specs", lambda *options: {only: specs(*options)[only]})
    tiny, checkpoint = find_variant("sam2/hiera_tiny"), golden_checkpoint("sam2/hiera_tiny")
    (whole,) = export_graphs(tiny, checkpoint, 512, tmp_path / "engines", for_engines=True)
    (tiled,) = export_graphs(tiny, checkpoint, 512, tmp_path / "cpu")
    assert len(onnx.load(whole).graph.node) < len(onnx.load(tiled).graph.node) / 2
