"""Finds what "auto" would load here, why, and which larger model would fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam2edge.diagnosis.findings import BROKEN, NOTE, Finding
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.machine.software import Libraries
from sam2edge.selection.budget import VARIABLE, read_memory_cap
from sam2edge.selection.memory_estimate import estimate_on_cpu, estimate_torch_cuda, table_source
from sam2edge.selection.select import RULES, Candidate, Selection, choose, select
from sam2edge.variants import VARIANTS, Variant


@dataclass(frozen=True)
class Picking:
    """What would be picked, or `problem` why nothing would; the largest model that would fit if it were installed."""

    choice: Selection | None
    problem: str | None = None
    larger: Candidate | None = None
    larger_command: str | None = None


def check_memory_cap() -> Finding | None:
    """A finding on $SAM2EDGE_MAX_MEMORY where it is set: an unusable value keeps every model from loading."""
    try:
        cap = read_memory_cap(None)
    except InvalidInputError as error:
        return Finding(VARIABLE, BROKEN, str(error), f"unset {VARIABLE}")
    return None if cap is None else Finding(VARIABLE, NOTE, f"{cap / 2**20:.0f} MiB")


def find_auto_pick(libraries: Libraries, has_gpu: bool, root: Path = Path("/")) -> Picking:
    """What "auto" would load; `libraries` are those that work."""
    try:
        choice = select(root=root, libraries=libraries)
    except Sam2EdgeError as error:
        return Picking(None, str(error))
    if choice is None:
        return Picking(None, "no backend works that could run an installed model")
    larger = _find_larger(choice, libraries, has_gpu)
    if larger is None:
        return Picking(choice)
    return Picking(choice, None, larger, f"sam2edge models install {larger.variant.model_id}")


def explanation(picking: Picking) -> list[str]:
    """A line for each rule and each candidate."""
    lines = [f"{number}. {rule}" for number, rule in enumerate(RULES, 1)]
    lines.append(f"Measured figures: {table_source()}.")
    if picking.choice is not None:
        for candidate, verdict in picking.choice.verdicts:
            needs = candidate.needs
            amount = f"{needs.total_bytes / 2**20:.0f} MiB ({needs.source})"
            picked = " <- picked" if candidate == picking.choice.picked else ""
            lines.append(f"{candidate}: {amount}: {verdict}{picked}")
    return lines


def _find_larger(choice: Selection, libraries: Libraries, has_gpu: bool) -> Candidate | None:
    """The largest official model that is larger than the pick, is not installed, and would fit with torch."""
    installed = {candidate.variant for candidate, _ in choice.verdicts}
    candidates = [
        _make_torch_candidate(variant, libraries, has_gpu)
        for variant in VARIANTS.values()
        if variant.is_2_1 and variant not in installed
    ]
    fitting = [c for c in candidates if c.rank[0] > choice.picked.rank[0] and _fits(c, choice)]
    return max(fitting, key=lambda c: c.rank, default=None)


def _make_torch_candidate(variant: Variant, libraries: Libraries, has_gpu: bool) -> Candidate:
    size = variant.image_size
    if has_gpu and libraries.torch_cuda:
        return Candidate(variant, size, "fp32", "torch", "cuda", estimate_torch_cuda(variant, size, False))
    return Candidate(variant, size, "fp32", "torch", "cpu", estimate_on_cpu(variant, size, "torch", False))


def _fits(candidate: Candidate, choice: Selection) -> bool:
    try:
        choose([candidate], choice.budgets)
    except Sam2EdgeError:
        return False
    return True
