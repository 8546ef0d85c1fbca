"""Picks the model that `AutoModel.from_pretrained("auto")` loads, by the memory. `RULES` are all the rules.

Candidates are the installed models on every backend that could run them here; the largest that fits is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sam2edge.backends.registry import AUTO_ORDER, openvino_is_faster
from sam2edge.contract import MEMORY_ATTENTION
from sam2edge.errors import GraphError, OutOfMemoryError
from sam2edge.machine.board import read_board
from sam2edge.machine.device import find_gpu, has_nvidia_gpu, read_host_memory
from sam2edge.machine.gpu_state import GpuMonitor
from sam2edge.machine.processor import has_bfloat16
from sam2edge.machine.software import Libraries, find_libraries
from sam2edge.machine.sysfs import list_children, parse_int
from sam2edge.selection.budget import CACHE_SHARE, Budget, gpu_budget, host_budget, read_memory_cap
from sam2edge.selection.memory_estimate import MemoryEstimate, estimate_engines, estimate_on_cpu, estimate_torch_cuda
from sam2edge.store.manifest import read_engine_manifest
from sam2edge.store.paths import (
    ENGINE_SUFFIX,
    GRAPH_PRECISIONS,
    engine_dir,
    find_checkpoint,
    find_engines,
    find_graphs,
    graph_dir,
)
from sam2edge.variants import EMBEDDED, VARIANTS, Variant

RULES = (
    "Only models that are installed are picked: weights, graphs or engines in the store, or the embedded one.",
    "Usable memory is what is available now less a reserve of a tenth of all memory (64 MiB to 1 GiB), and at most "
    "max_memory and SAM2EDGE_MAX_MEMORY. CPU and GPU of a Jetson share one memory; a discrete GPU has its own, and "
    "then both must suffice. A container's limit counts as its memory.",
    "A model fits if its measured peak (on a CPU, with a fifth on top; on a GPU an estimate, or the engine's manifest) "
    "and one cached photo fit into the usable memory.",
    "Where a GPU can run an installed model besides the embedded one, only such models are picked, or that one.",
    "Of those that fit the largest model is taken, SAM 2.1 before 2.0, then the largest image size; another size than "
    "the model's own only where graphs or engines of it were made. Of several ways to run it the fastest: engines, "
    "torch on a GPU, openvino where the processor has bfloat16, onnxruntime, torch on the CPU.",
    "The cache of embeddings gets a tenth of the usable memory, or what the model leaves of it; when the memory "
    "available falls below the reserve later, the cache shrinks first.",
    "Where nothing fits, loading fails and says what is missing; a model asked for by name is loaded unchecked.",
)

_SIZE_ORDER = ("micro", "edgetam", "efficienttam_ti", "efficienttam_s", "tiny", "small", "base_plus", "large")


@dataclass(frozen=True)
class Candidate:
    """One model in one way of running it, with what it takes."""

    variant: Variant
    image_size: int
    precision: str
    backend: str
    device: str
    needs: MemoryEstimate

    @property
    def rank(self) -> tuple[int, bool, int, int]:
        """Larger is better; independent of memory, so that more memory never picks a smaller model."""
        way = AUTO_ORDER.index((self.backend, self.device))
        return (_SIZE_ORDER.index(self.variant.size), self.variant.is_2_1, self.image_size, -way)

    def __str__(self) -> str:
        return f"{self.variant.model_id} at {self.image_size} on {self.backend}, {self.device}, {self.precision}"


@dataclass(frozen=True)
class Constraints:
    """What the caller fixed; None and "auto" leave it open. `tracking` counts the memory of a tracked video."""

    backend: str = "auto"
    device: str | None = None
    precision: str = "auto"
    image_size: int | None = None
    tracking: bool = False

    def allows(self, backend: str, device: str) -> bool:
        fits_device = self.device is None or self.device.startswith(device)
        return self.backend in ("auto", backend) and fits_device


@dataclass(frozen=True)
class Selection:
    """What was picked, the bytes its cache may fill (None: unknown), and the verdict on each candidate."""

    picked: Candidate
    cache_bytes: int | None
    budgets: Mapping[str, Budget]
    verdicts: tuple[tuple[Candidate, str], ...]

    @property
    def leaves_gpu(self) -> bool:
        """Whether the model runs on the CPU only because the GPU's memory is too small."""
        p = self.picked
        return p.device == "cpu" and any(c.device == "cuda" and c.variant == p.variant for c, _ in self.verdicts)


def select(
    wanted: Constraints | None = None,
    max_memory: int | str | None = None,
    root: Path = Path("/"),
    libraries: Libraries | None = None,
) -> Selection | None:
    """Picks a model for this machine, or for a captured one below `root`. None if nothing installed could run.

    Raises OutOfMemoryError where nothing fits, InvalidInputError for an unusable cap.
    """
    wanted = wanted or Constraints()
    cap = read_memory_cap(max_memory)
    libraries = libraries or find_libraries()
    candidates = list_candidates(wanted, libraries, has_nvidia_gpu(root))
    if not candidates:
        return None
    return choose(candidates, read_budgets(candidates, cap, root))


def choose(candidates: Iterable[Candidate], budgets: Mapping[str, Budget]) -> Selection:
    """The best candidate that fits. `budgets` has "host" and, for a GPU with memory of its own, "gpu"."""
    pool = _limit_to_gpu(list(candidates))
    verdicts = tuple((c, _judge(c, budgets)) for c in sorted(pool, key=lambda c: c.rank, reverse=True))
    picked = next((c for c, verdict in verdicts if verdict == FITS), None)
    if picked is None:
        least = min(pool, key=lambda c: c.needs.total_bytes)
        raise OutOfMemoryError(
            "no installed model fits into the memory that may be used",
            expected=f"{_format_mib(least.needs.total_bytes + least.needs.embedding_bytes)} for {least}",
            got="; ".join(_describe(budget) for budget in budgets.values()),
            remedy="close other programs, raise max_memory or SAM2EDGE_MAX_MEMORY, or name the model "
            f"({least.variant.model_id}), which is then loaded unchecked",
        )
    return Selection(picked, _size_cache(picked, budgets), dict(budgets), verdicts)


def read_budgets(candidates: Iterable[Candidate], cap: int | None, root: Path = Path("/")) -> dict[str, Budget]:
    """The memories of the machine. The driver, which is slow, is asked only if a candidate would run on a GPU."""
    memory = read_host_memory(root)
    if not any(c.device == "cuda" for c in candidates):
        return {"host": host_budget(memory, cap)}
    if read_board(root).soc is not None:
        return {"host": host_budget(memory, cap, shared=True)}
    gpu = find_gpu() if root == Path("/") else None
    if gpu is None or gpu.integrated:
        return {"host": host_budget(memory, cap, shared=True)}
    return {"host": host_budget(memory, cap), "gpu": gpu_budget(GpuMonitor(gpu).read(), cap)}


def list_candidates(wanted: Constraints, libraries: Libraries, has_gpu: bool) -> list[Candidate]:
    """Every installed model on every backend that `wanted`, libraries and machine allow, whatever the memory."""
    found: list[Candidate] = []
    for variant in VARIANTS.values():
        sizes = {variant.image_size, *_find_made_sizes(variant)} if wanted.image_size is None else {wanted.image_size}
        for size in sorted(sizes):
            found += _list_ways(variant, size, wanted, libraries, has_gpu)
    return found


def _find_made_sizes(variant: Variant) -> set[int]:
    """Image sizes of stored graphs or engines, by the names of their folders."""
    folders = (graph_dir(variant, 0).parent, engine_dir(variant, 0, "fp16").parent)
    names = [child.name for folder in folders for child in list_children(folder)]
    made = [name.partition("-") for name in names]
    found = [parse_int(size) for size, _, precision in made if precision in GRAPH_PRECISIONS]
    return {size for size in found if size}


def _list_ways(
    variant: Variant, size: int, wanted: Constraints, libraries: Libraries, has_gpu: bool
) -> Iterator[Candidate]:
    if has_gpu and wanted.allows("tensorrt", "cuda") and libraries.has("pycuda"):
        yield from _list_engines(variant, size, wanted, libraries)
    if wanted.allows("openvino", "cpu") and libraries.has("openvino"):
        chosen = wanted.backend == "openvino" or (wanted.precision == "auto" and openvino_is_faster())
        graphs = find_graphs(variant, size, "fp32")
        if chosen and graphs is not None and _can_track(graphs, wanted):
            needs = estimate_on_cpu(variant, size, "openvino", wanted.tracking)
            precision = "bf16" if wanted.precision == "auto" and has_bfloat16() else "fp32"
            yield Candidate(variant, size, precision, "openvino", "cpu", needs)
    if wanted.allows("onnxruntime", "cpu") and libraries.has("onnxruntime"):
        graphs = find_graphs(variant, size, wanted.precision)
        if graphs is not None and _can_track(graphs, wanted):
            precision = next((p for p in GRAPH_PRECISIONS if graphs.name.endswith(f"-{p}")), "fp32")
            needs = estimate_on_cpu(variant, size, "onnxruntime", wanted.tracking)
            yield Candidate(variant, size, precision, "onnxruntime", "cpu", needs)
    own_size = size in (variant.image_size, wanted.image_size)
    if (
        libraries.has("torch")
        and own_size
        and wanted.precision in ("auto", "fp32")
        and find_checkpoint(variant) is not None
    ):
        if has_gpu and libraries.torch_cuda and wanted.allows("torch", "cuda"):
            needs = estimate_torch_cuda(variant, size, wanted.tracking)
            yield Candidate(variant, size, "fp32", "torch", "cuda", needs)
        if wanted.allows("torch", "cpu"):
            yield Candidate(
                variant, size, "fp32", "torch", "cpu", estimate_on_cpu(variant, size, "torch", wanted.tracking)
            )


def _can_track(graphs: Path, wanted: Constraints) -> bool:
    return not wanted.tracking or (graphs / f"{MEMORY_ATTENTION}.onnx").is_file()


def _list_engines(variant: Variant, size: int, wanted: Constraints, libraries: Libraries) -> Iterator[Candidate]:
    folder = find_engines(variant, size, wanted.precision)
    if folder is None:
        return
    paths = sorted(folder.glob(f"[!.]*{ENGINE_SUFFIX}"))
    try:
        manifests = [read_engine_manifest(path) for path in paths]
    except GraphError:
        return  # the backend refuses them too, and says why
    if not manifests or not libraries.has(manifests[0].build.builder):
        return
    known = [m.build.device_memory_bytes for m in manifests if m.build.device_memory_bytes is not None]
    scratch = max(known) if len(known) == len(manifests) else None
    precision = str(manifests[0].precision)
    sizes = sum(m.size_bytes for m in manifests)
    needs = estimate_engines(variant, size, precision, sizes, scratch, wanted.tracking)
    yield Candidate(variant, size, precision, "tensorrt", "cuda", needs)


FITS = "fits"


def _limit_to_gpu(candidates: list[Candidate]) -> list[Candidate]:
    """If a GPU can run some: only those and the embedded model, or more memory could pick a smaller model."""
    if not any(c.device == "cuda" and c.variant.name != EMBEDDED for c in candidates):
        return candidates
    return [c for c in candidates if c.device == "cuda" or c.variant.name == EMBEDDED]


def _judge(candidate: Candidate, budgets: Mapping[str, Budget]) -> str:
    for budget, needed in _list_demands(candidate, budgets):
        usable = budget.usable_bytes
        if usable is None:
            return FITS if candidate.variant.name == EMBEDDED else f"the {budget.kind} memory is not known"
        if needed > usable:
            return f"takes {_format_mib(needed)} of {budget.kind} memory, {_format_mib(usable)} usable"
    return FITS


def _list_demands(candidate: Candidate, budgets: Mapping[str, Budget]) -> Iterator[tuple[Budget, int]]:
    """Each memory with the bytes of it that the model and one cached photo take."""
    needs = candidate.needs
    if "gpu" in budgets and candidate.device == "cuda":
        yield budgets["host"], needs.host_bytes
        yield budgets["gpu"], needs.gpu_bytes + needs.embedding_bytes
    else:
        yield budgets["host"], needs.total_bytes + needs.embedding_bytes


def _size_cache(candidate: Candidate, budgets: Mapping[str, Budget]) -> int | None:
    """A tenth of the memory that holds embeddings, or what the model leaves, at least one photo."""
    budget, needed = list(_list_demands(candidate, budgets))[-1]
    usable = budget.usable_bytes
    if usable is None:
        return None
    one = candidate.needs.embedding_bytes
    return min(max(int(CACHE_SHARE * usable), one), usable - needed + one)


def _describe(budget: Budget) -> str:
    usable = budget.usable_bytes
    return f"{'unknown' if usable is None else _format_mib(usable)} usable of {budget.kind} memory"


def _format_mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.0f} MiB"
