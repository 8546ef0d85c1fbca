"""The memory modules: the graphs against torch on the embedded model, sizes of the embedded files, missing graphs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge.backends.base import Backend, MemoryInputs
from sam2edge.contract import IMAGE_GRAPHS, MEMORY_GRAPHS, PADDING, graph_specs
from sam2edge.errors import BackendUnavailableError, GraphError, InvalidInputError
from sam2edge.variants import VARIANTS, Variant, find_variant
from tests.conftest import ROOT, load_micro
from tests.fake_backend import FakeBackend, bright_square

ASSETS = ROOT / "sam2edge" / "assets"
MICRO = find_variant("sam2/micro")


@pytest.fixture(scope="module")
def backends() -> tuple[Backend, Backend]:
    pytest.importorskip("torch")
    return load_micro("onnxruntime").backend, load_micro("torch").backend


@pytest.fixture(scope="module")
def disc() -> np.ndarray:
    """(S, S) float32, positive inside."""
    y, x = np.mgrid[: MICRO.image_size, : MICRO.image_size].astype(np.float32)
    return (90 - np.hypot(x - 200, y - 260)) / 20


@pytest.fixture(scope="module")
def logits(disc: np.ndarray) -> np.ndarray:
    """(S/4, S/4), the same."""
    return disc[::4, ::4].copy()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, MICRO.image_size, MICRO.image_size)).astype(np.float32)


def _recalled(backend: Backend, features: Any, logits: np.ndarray, count: int) -> MemoryInputs:
    random = np.random.default_rng(count)
    memories = [backend.encode_memory(features, logits - i, 3.0 - i, binarise=i == 0) for i in range(count)]
    pointers = random.standard_normal((count + 2, MICRO.d_model)).astype(np.float32)
    ages = np.linspace(0, (count + 1) / 15, count + 2, dtype=np.float32)
    return MemoryInputs(memories, np.arange(count, dtype=np.int32), pointers, ages)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_graphs_and_torch_agree_however_many_slots_are_used(
    backends: tuple[Backend, Backend], image: np.ndarray, logits: np.ndarray, count: int
) -> None:
    found = []
    for backend in backends:
        features = backend.encode(image)
        found.append(backend.attend_memory(features, _recalled(backend, features, logits, count)).to_host())
    onnx, torch = (f.tensors for f in found)
    np.testing.assert_allclose(onnx["image_embed"], torch["image_embed"], atol=2e-3)
    np.testing.assert_allclose(onnx["high_res_0"], torch["high_res_0"], atol=2e-3)


@pytest.mark.parametrize("score", [2.0, 0.0, -2.0])
@pytest.mark.parametrize("binarise", [True, False])
def test_memories_agree_and_are_opaque_values(
    backends: tuple[Backend, Backend], image: np.ndarray, logits: np.ndarray, score: float, binarise: bool
) -> None:
    memories = [b.encode_memory(b.encode(image), logits, score, binarise) for b in backends]
    cells = (MICRO.image_size // 16) ** 2
    for memory in memories:
        assert memory.nbytes == 4 * cells * MICRO.memory_dim
        assert memory.to_host().tensors["memory"].shape == (1, cells, MICRO.memory_dim)
    onnx, torch = (m.to_host().tensors["memory"] for m in memories)
    np.testing.assert_allclose(onnx, torch, atol=2e-3)


def test_several_objects_at_once_are_as_one_at_a_time(
    backends: tuple[Backend, Backend], image: np.ndarray, logits: np.ndarray
) -> None:
    prompt = np.zeros((1, 1, 2), np.float32), np.full((1, 1), PADDING, np.int32)
    masks = np.stack([logits, -logits, logits - 3])
    scores, flags = [2.0, -1.0, 0.5], [True, False, False]
    for backend in backends:
        features = backend.encode(image)
        conditioned = [backend.attend_memory(features, _recalled(backend, features, logits, n)) for n in (1, 2, 3)]
        for one, together in zip(conditioned, backend.decode_each(conditioned), strict=True):
            for alone, row in zip(backend.decode(one, *prompt), together, strict=True):
                np.testing.assert_allclose(row, alone, atol=1e-4)
        memories = backend.encode_memories(features, masks, scores, flags)
        for k, memory in enumerate(memories):
            alone = backend.encode_memory(features, masks[k], scores[k], flags[k])
            assert memory.nbytes == alone.nbytes
            np.testing.assert_allclose(memory.to_host().tensors["memory"], alone.to_host().tensors["memory"], atol=1e-4)
        with pytest.raises(InvalidInputError, match="mask for the memory"):
            backend.encode_memories(features, masks[:, :-1], scores, flags)


def test_mask_prompts_agree(backends: tuple[Backend, Backend], image: np.ndarray, disc: np.ndarray) -> None:
    onnx, torch = (b.mask_prompt(b.encode(image), disc) for b in backends)
    assert onnx.shape == (MICRO.image_size // 4,) * 2
    np.testing.assert_allclose(onnx, torch, atol=1e-4)


def test_what_does_not_fit_the_slots_is_refused(
    backends: tuple[Backend, Backend], image: np.ndarray, logits: np.ndarray
) -> None:
    for backend in backends:
        features = backend.encode(image)
        recalled = _recalled(backend, features, logits, 2)
        for wrong in (
            recalled._replace(memories=[]),
            recalled._replace(memories=[*recalled.memories] * 4),
            recalled._replace(obj_ptr_ages=recalled.obj_ptr_ages[:1]),
            recalled._replace(obj_ptrs=np.zeros((17, MICRO.d_model), np.float32)),
        ):
            with pytest.raises(InvalidInputError, match="slots"):
                backend.attend_memory(features, wrong)
        with pytest.raises(InvalidInputError, match="mask for the memory"):
            backend.encode_memory(features, logits[:-1], 1.0, False)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
def test_sam_2_0_has_no_ages_of_pointers(variant: Variant) -> None:
    specs = graph_specs(variant, variant.image_size)
    assert tuple(specs) == (*IMAGE_GRAPHS, *MEMORY_GRAPHS)
    names = {tensor.name for spec in specs.values() for tensor in spec.inputs}
    assert ("pointer_age" in names) == ("object_score" in names) == variant.is_2_1


def test_images_need_no_memory_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo_bgr: np.ndarray) -> None:
    from sam2edge import AutoModel

    folder = tmp_path / "graphs" / MICRO.name / f"{MICRO.image_size}-fp32"
    folder.mkdir(parents=True)
    for name in IMAGE_GRAPHS:
        shutil.copy(ASSETS / f"{name}.onnx", folder)
    monkeypatch.setenv("SAM2EDGE_HOME", str(tmp_path))
    model = AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")
    embedding = model.embed_images(photo_bgr)[0]
    assert model.segment_images(embeddings=embedding, boxes=np.array([75, 20, 480, 385]))[0].masks.any()
    mask = np.zeros((MICRO.image_size // 4,) * 2, np.float32)
    with pytest.raises(GraphError, match=r"cannot track.*memory_encoder\.onnx.*export"):
        model.backend.encode_memory(embedding.features, mask, 1.0, False)


def test_exported_graphs_of_sam_2_0_track_as_torch_does(
    golden_checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    from sam2edge import AutoModel, VideoTracker
    from sam2edge.export.to_onnx import export_graphs

    model_id, size = "sam2.0_hiera_tiny", 128
    variant, checkpoint = find_variant(model_id), golden_checkpoint(model_id)
    folder = tmp_path / "graphs" / variant.name / f"{size}-fp32"
    paths = export_graphs(variant, checkpoint, size, folder)  # checks each graph against its spec
    assert [path.stem for path in paths] == [*IMAGE_GRAPHS, *MEMORY_GRAPHS]
    monkeypatch.setenv("SAM2EDGE_HOME", str(tmp_path))
    found = []
    for backend in ("onnxruntime", "torch"):
        model = AutoModel.from_pretrained(model_id, backend=backend, checkpoint=checkpoint, image_size=size)
        tracker = VideoTracker(model)
        tracker.prompt(bright_square(8), 1, mask=bright_square(8)[..., 0] > 0)
        tracker.prompt(None, 2, points=[[20, 20]], labels=[1])
        found.append([tracker.track(bright_square(10 + 2 * i)) for i in range(3)])
        found[-1].append(tracker.prompt(None, 1, box=[5, 5, 60, 50]))
        found[-1].append(tracker.track(bright_square(30)))
    for onnx, torch in zip(*found, strict=True):
        np.testing.assert_allclose(onnx.logits, torch.logits, atol=5e-3)
        np.testing.assert_allclose(onnx.scores, torch.scores, atol=1e-3)


def test_a_backend_without_memory_says_so(image: np.ndarray, disc: np.ndarray, logits: np.ndarray) -> None:
    class ImagesAlone(FakeBackend):
        attend_memory_impl = Backend.attend_memory_impl
        encode_memories_impl = Backend.encode_memories_impl
        mask_prompt_impl = Backend.mask_prompt_impl

    backend = ImagesAlone(MICRO.image_size)
    features = backend.encode(image)
    with pytest.raises(BackendUnavailableError, match="images alone"):
        backend.encode_memory(features, logits, 1.0, True)
    with pytest.raises(BackendUnavailableError, match="images alone"):
        backend.mask_prompt(features, disc)


def test_the_embedded_files_are_small() -> None:
    graphs = [ASSETS / f"{name}.onnx" for name in (*IMAGE_GRAPHS, *MEMORY_GRAPHS)]
    assert sum(path.stat().st_size for path in [*graphs, ASSETS / f"{MICRO.name}.safetensors"]) <= 24_000_000
