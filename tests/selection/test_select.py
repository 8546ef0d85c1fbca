"""What "auto" picks: on captured machines, under every amount of memory, where nothing fits."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2edge import AutoModel
from sam2edge.errors import InvalidInputError, OutOfMemoryError
from sam2edge.machine.software import Libraries
from sam2edge.selection import memory_estimate
from sam2edge.selection.budget import Budget
from sam2edge.selection.memory_estimate import estimate_engines, estimate_on_cpu, estimate_torch_cuda
from sam2edge.selection.select import Candidate, Constraints, Selection, choose, select
from sam2edge.store import paths
from sam2edge.store.manifest import EngineBuild, Manifest
from sam2edge.variants import VARIANTS, Variant, find_variant
from tests.trees import GIB, TREES, write_tree

MIB = 1 << 20
ONNX = Libraries(frozenset({"onnxruntime"}))
CPU = Libraries(frozenset({"onnxruntime", "torch"}))
CUDA = Libraries(frozenset({"onnxruntime", "torch"}), torch_cuda="12.6")
ENGINES = Libraries(frozenset({"onnxruntime", "tensorrt", "pycuda"}))
OFFICIAL = ("tiny", "small", "base_plus", "large")


def _install_graphs(*models: str, size: int = 1024, precision: str = "fp32") -> None:
    for model in models:
        folder = paths.graph_dir(find_variant(f"hiera_{model}"), size, precision)
        write_tree(folder, {f"{name}.onnx": "" for name in ("image_encoder", "mask_decoder", "memory_attention")})


def _install_checkpoints(*models: str) -> None:
    for model in models:
        checkpoint = find_variant(f"hiera_{model}").checkpoint
        assert checkpoint is not None
        write_tree(paths.root() / "checkpoints", {checkpoint.file_name: ""})


def _install_engines(model: str, scratch_bytes: int | None, size: int = 1024) -> None:
    variant = find_variant(f"hiera_{model}")
    build = EngineBuild("tensorrt", "10.3.0", "aarch64", "", 1.0, device_memory_bytes=scratch_bytes)
    manifest = Manifest("", 80 * MIB, variant.name, "image_encoder", size, "fp16", engine=build)
    files = {"image_encoder.engine": "", "image_encoder.engine.json": manifest.to_text()}
    write_tree(paths.engine_dir(variant, size, "fp16"), files)


def _pick(tree: str, folder: Path, libraries: Libraries, **options: object) -> str:
    choice = select(Constraints(**options), root=write_tree(folder, TREES[tree]), libraries=libraries)  # type: ignore[arg-type]
    assert choice is not None
    return f"{choice.picked.variant.size} {choice.picked.image_size} {choice.picked.backend} {choice.picked.device}"


# Usable memory of each captured machine in MiB, by hand: available less a tenth of all of it, at most 1 GiB.
USABLE_MIB = {
    "Orin Nano 8 GB": 5120 - 762,
    "Orin NX 16 GB": 12288 - 1024,
    "AGX Orin 64 GB": 57344 - 1024,
    "Xavier": 24576 - 1024,
    "Thor": 117760 - 1024,
    "desktop GPU": 49152 - 1024,
    "CPU container": 1536 - 204,
}


def _largest_by_the_table(usable_mib: float) -> str:
    """The largest official model whose measured peak, with a fifth on top, and one photo fit, on onnxruntime."""
    table = json.loads((paths.ASSETS / "memory_estimate.json").read_text())
    fitting = [
        row["size"]
        for row in table["rows"]
        if (row["backend"], row["image_size"]) == ("onnxruntime", 1024)
        and (1.2 * row["images_peak_bytes"] + row["embedding_bytes"]) / MIB <= usable_mib
    ]
    return max(fitting, key=("micro", *OFFICIAL).index)


@pytest.mark.parametrize("tree", TREES)
def test_captured_machines_get_what_the_table_says(tree: str, tmp_path: Path) -> None:
    _install_graphs(*OFFICIAL)
    expected = _largest_by_the_table(USABLE_MIB[tree])
    assert _pick(tree, tmp_path, ONNX) == f"{expected} 1024 onnxruntime cpu"


@pytest.mark.parametrize("tree", sorted(set(TREES) - {"CPU container"}))
def test_a_gpu_is_preferred_where_one_can_run_something(tree: str, tmp_path: Path) -> None:
    """Also on the desktop's tree, whose driver cannot be asked: its GPU is then taken to share the memory."""
    _install_graphs(*OFFICIAL)
    _install_checkpoints("tiny")
    assert _pick(tree, tmp_path, CPU) != "tiny 1024 torch cpu"
    assert _pick(tree, tmp_path, CUDA) == "tiny 1024 torch cuda"


def test_a_container_without_a_gpu_uses_none(tmp_path: Path) -> None:
    _install_checkpoints("tiny")
    assert _pick("CPU container", tmp_path, CUDA) == "tiny 1024 torch cpu"


def test_engines_before_torch_and_their_manifest_counts(tmp_path: Path) -> None:
    _install_checkpoints("tiny")
    _install_engines("tiny", 300 * MIB)
    libraries = replace(CUDA, names=CUDA.names | ENGINES.names)
    assert _pick("Orin Nano 8 GB", tmp_path, libraries) == "tiny 1024 tensorrt cuda"
    _install_engines("tiny", 6000 * MIB)  # more scratch than there is memory
    assert _pick("Orin Nano 8 GB", tmp_path, libraries) == "tiny 1024 torch cuda"
    assert _pick("AGX Orin 64 GB", tmp_path, libraries) == "tiny 1024 tensorrt cuda"


def test_a_damaged_manifest_is_skipped(tmp_path: Path) -> None:
    _install_engines("tiny", None)
    (paths.engine_dir(find_variant("hiera_tiny"), 1024, "fp16") / "image_encoder.engine.json").write_text("{")
    assert _pick("Orin Nano 8 GB", tmp_path, ENGINES) == "micro 384 onnxruntime cpu"


def test_a_fresh_machine_gets_the_embedded_model_and_no_driver_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2edge.selection.select.find_gpu", lambda: pytest.fail("the driver was asked"))
    for tree in TREES:
        assert _pick(tree, tmp_path / tree, ENGINES) == "micro 384 onnxruntime cpu"


def test_what_the_caller_fixed(tmp_path: Path) -> None:
    _install_graphs("small")
    _install_graphs("tiny", size=512, precision="fp16")
    _install_checkpoints("large")
    tree = "AGX Orin 64 GB"
    assert _pick(tree, tmp_path, CUDA, device="cpu") == "large 1024 torch cpu"
    assert _pick(tree, tmp_path, CUDA, backend="onnxruntime") == "small 1024 onnxruntime cpu"
    assert _pick(tree, tmp_path, CUDA, precision="fp16") == "tiny 512 onnxruntime cpu"
    assert _pick(tree, tmp_path, ONNX, image_size=512) == "tiny 512 onnxruntime cpu"
    assert _pick(tree, tmp_path, CUDA, image_size=768) == "large 768 torch cuda"
    assert select(Constraints(backend="tensorrt"), root=tmp_path, libraries=CUDA) is None


def test_tracking_needs_the_graphs_and_the_memory_for_it(tmp_path: Path) -> None:
    _install_graphs("tiny", "small")
    (paths.graph_dir(find_variant("hiera_small"), 1024) / "memory_attention.onnx").unlink()
    assert _pick("Thor", tmp_path, ONNX) == "small 1024 onnxruntime cpu"
    assert _pick("Thor", tmp_path, ONNX, tracking=True) == "tiny 1024 onnxruntime cpu"
    tiny = find_variant("hiera_tiny")
    images, video = (estimate_on_cpu(tiny, 1024, "onnxruntime", tracking) for tracking in (False, True))
    assert video.total_bytes > images.total_bytes + 40 * MIB  # four objects remember 10 MiB each


def test_where_nothing_fits_the_error_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path, {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 850000 kB\n"})
    message = r"no installed model fits.*MiB for sam2/micro at 384.*49 MiB usable of host memory.*SAM2EDGE_MAX"
    with pytest.raises(OutOfMemoryError, match=message):
        select(root=root, libraries=ONNX)
    monkeypatch.setenv("SAM2EDGE_MAX_MEMORY", "64M")
    with pytest.raises(OutOfMemoryError, match="64 MiB usable"):
        AutoModel.from_pretrained()
    assert AutoModel.from_pretrained("sam2/micro").embeddings_cache.max_bytes == 64 * MIB // 10  # type: ignore[union-attr]
    monkeypatch.setenv("SAM2EDGE_MAX_MEMORY", "64 apples")
    with pytest.raises(InvalidInputError, match="SAM2EDGE_MAX_MEMORY"):
        AutoModel.from_pretrained("sam2/micro")


def test_where_the_memory_is_not_known_the_embedded_model_is_taken(tmp_path: Path) -> None:
    _install_graphs("tiny")
    choice = select(root=tmp_path, libraries=ONNX)
    assert choice is not None
    assert (choice.picked.variant.size, choice.cache_bytes) == ("micro", None)
    capped = select(root=tmp_path, libraries=ONNX, max_memory="4GiB")
    assert capped is not None and capped.picked.variant.size == "tiny"


def test_what_auto_picked_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModel.from_pretrained(max_memory="1GiB", backend="onnxruntime")
    assert (model.variant.model_id, model.image_size) == ("sam2/micro", 384)
    assert model.embeddings_cache is not None and model.embeddings_cache.max_bytes == GIB // 10


# The properties: over every set of installed models, on every kind of machine.

SIZES = ("micro", *OFFICIAL)
WAYS = (("tensorrt", "cuda"), ("torch", "cuda"), ("onnxruntime", "cpu"), ("torch", "cpu"))


def test_edgetam_ranks_between_micro_and_tiny_and_has_an_estimate() -> None:
    edgetam = find_variant("sam2/edgetam")
    needs = estimate_on_cpu(edgetam, 1024, "torch", True)
    assert "tiny, which takes more" in needs.source
    assert needs.total_bytes == estimate_on_cpu(find_variant("tiny"), 1024, "torch", True).total_bytes
    candidate = Candidate(edgetam, 1024, "fp32", "torch", "cpu", needs)
    way = ("torch", "cpu")
    assert _candidate("micro", 1024, way).rank < candidate.rank < _candidate("tiny", 512, way).rank


def _candidate(size: str, image_size: int, way: tuple[str, str]) -> Candidate:
    variant = next(v for v in VARIANTS.values() if v.size == size and v.is_2_1)
    needs = {
        "tensorrt": lambda: estimate_engines(variant, image_size, "fp16", 100 * MIB, None, False),
        "torch": lambda: (estimate_torch_cuda if way[1] == "cuda" else _on_cpu)(variant, image_size, False),
        "onnxruntime": lambda: estimate_on_cpu(variant, image_size, "onnxruntime", False),
    }[way[0]]()
    return Candidate(variant, image_size, "fp32", *way, needs)


def _on_cpu(variant: Variant, image_size: Any, tracking: Any) -> Any:
    return estimate_on_cpu(variant, image_size, "torch", tracking)


CANDIDATES = st.lists(
    st.builds(_candidate, st.sampled_from(SIZES), st.sampled_from((512, 640, 1024, 1280)), st.sampled_from(WAYS)),
    min_size=1,
    max_size=8,
)
AMOUNTS = st.integers(0, 16 * GIB)


def _budgets(host: int, gpu: int | None, cap: int | None) -> dict[str, Budget]:
    budgets = {"host": Budget("host" if gpu is not None else "shared", 16 * GIB, host, cap)}
    return budgets if gpu is None else {**budgets, "gpu": Budget("gpu", 16 * GIB, gpu, cap)}


def _chosen(candidates: list[Candidate], budgets: dict[str, Budget]) -> Selection | None:
    try:
        return choose(candidates, budgets)
    except OutOfMemoryError:
        return None


@given(CANDIDATES, AMOUNTS, st.none() | AMOUNTS, st.none() | AMOUNTS)
def test_the_pick_always_fits(candidates: list[Candidate], host: int, gpu: int | None, cap: int | None) -> None:
    choice = _chosen(candidates, _budgets(host, gpu, cap))
    if choice is None:
        return
    needs, cache = choice.picked.needs, choice.cache_bytes
    assert cache is not None and cache >= needs.embedding_bytes
    on_gpu = gpu is not None and choice.picked.device == "cuda"
    limits: list[tuple[int | None, int]] = [(host, needs.host_bytes + (0 if on_gpu else needs.gpu_bytes + cache))]
    limits += [(gpu, needs.gpu_bytes + cache)] if on_gpu else []
    for available, taken in limits:
        assert available is not None and taken <= available - GIB  # the reserve of 16 GiB
        assert cap is None or taken <= cap


@given(CANDIDATES, AMOUNTS, st.none() | AMOUNTS, st.none() | AMOUNTS, AMOUNTS)
def test_more_memory_never_picks_a_smaller_model(
    candidates: list[Candidate], host: int, gpu: int | None, cap: int | None, more: int
) -> None:
    first = _chosen(candidates, _budgets(host, gpu, cap))
    grown = [
        _budgets(host + more, gpu, cap),
        _budgets(host, None if gpu is None else gpu + more, cap),
        _budgets(host, gpu, None if cap is None else cap + more),
    ]
    for second in (_chosen(candidates, budgets) for budgets in grown):
        if first is not None:
            assert second is not None and second.picked.rank >= first.picked.rank


@given(st.sampled_from(sorted(VARIANTS)), st.sampled_from(("onnxruntime", "torch")), st.booleans())
def test_needs_grow_with_the_image_size(variant: str, backend: str, tracking: bool) -> None:
    needs = [estimate_on_cpu(VARIANTS[variant], size, backend, tracking) for size in range(256, 2049, 128)]
    totals = [n.total_bytes for n in needs]
    # Measured peaks may differ by what allocators round, no more.
    assert all(later >= 0.97 * earlier for earlier, later in itertools.pairwise(totals))
    assert needs[2].source == "measured" or needs[2].source.startswith("estimate: scaled from ")
    assert needs[-1].source.startswith("estimate")


def test_the_table_has_every_model_size_and_backend() -> None:
    rows = memory_estimate._read_table()["rows"]
    assert len(rows) == (len(SIZES) * 3 + 1) * 2  # three sizes, and the own one of micro
    measured = {(row["size"], row["backend"]) for row in rows if "estimated_from" not in row}
    assert measured >= {(size, backend) for size in ("micro", "tiny", "small") for backend in ("onnxruntime", "torch")}
    for row in rows:
        assert row["tracking_peak_bytes"] >= row["images_peak_bytes"] > row["library_bytes"] + row["weights_bytes"] / 2


def test_a_table_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_estimate, "_TABLE", tmp_path / "none.json")
    memory_estimate._read_table.cache_clear()
    with pytest.raises(Exception, match="reinstall sam2edge"):
        estimate_on_cpu(find_variant("hiera_tiny"), 1024, "torch", False)
    monkeypatch.undo()
    memory_estimate._read_table.cache_clear()
