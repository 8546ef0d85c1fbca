"""How far two runs of a graph are apart, and how far they may be. Numpy alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import GraphError
from sam2edge.store.manifest import Parity

Tensors = Mapping[str, NDArray[Any]]

FEW = 16
"""An output of at most so many elements is a handful of scores: its direction says nothing, and its error is taken
relative to 1 where the scores themselves are smaller."""


UNDECIDED = 0.005
"""Part of a mask's root mean square below which a pixel's logit is no decision: float16 may turn it over. With the
embedded weights, 1 of 180 masks of 60 photos loses more than 0.005 of IoU by such pixels, and none by others."""


@dataclass(frozen=True)
class Metrics:
    """The worst of all outputs and cases: cosine similarity, |error| / |reference| (L2), IoU of the best mask.

    A figure that no output has is perfect: 1, 0, 1.
    """

    cosine: float = 1.0
    relative_error: float = 0.0
    mask_iou: float = 1.0

    def worse_of(self, other: Metrics) -> Metrics:
        # max and min let a NaN through or not by the order of their arguments; a NaN must win.
        return Metrics(
            _worst(min, self.cosine, other.cosine),
            _worst(max, self.relative_error, other.relative_error),
            _worst(min, self.mask_iou, other.mask_iou),
        )

    def within(self, bounds: Metrics) -> bool:
        """Whether every figure is at least as good as its bound; a NaN is not."""
        return (
            self.cosine >= bounds.cosine
            and self.relative_error <= bounds.relative_error
            and self.mask_iou >= bounds.mask_iou
        )


BOUNDS = {
    "fp32": Metrics(cosine=0.99999, relative_error=2e-3, mask_iou=0.999),
    "fp16": Metrics(cosine=0.9995, relative_error=3e-2, mask_iou=0.995),
    "int8": Metrics(cosine=0.998, relative_error=6e-2, mask_iou=0.97),
}


ENGINE_BOUNDS = BOUNDS["fp16"]
"""Of engines in both precisions: float32 products of a GPU are TF32, with no more mantissa than float16."""


@dataclass(frozen=True)
class GraphParity:
    """What was measured of one graph, and the layer where its error starts if it failed."""

    graph: str
    metrics: Metrics
    bounds: Metrics
    first_bad_layer: str | None = None

    @property
    def passed(self) -> bool:
        return self.metrics.within(self.bounds)

    def to_parity(self, against: str, runtime: str, cases: int) -> Parity:
        """The comparison as a manifest has it."""
        bounds = asdict(self.bounds)
        return Parity(against, runtime, cases, self.passed, asdict(self.metrics), bounds, self.first_bad_layer)

    def __str__(self) -> str:
        m, b = self.metrics, self.bounds
        return (
            f"{self.graph}: cosine {m.cosine:.6f} (at least {b.cosine}), relative error {m.relative_error:.2e} "
            f"(at most {b.relative_error}), mask IoU {m.mask_iou:.4f} "
            f"({f'at least {b.mask_iou}' if b.mask_iou else 'not judged: the masks of these weights are undecided'})"
        )


def compare(reference: Tensors, found: Tensors) -> Metrics:
    """Figures of one graph's outputs, by contract name."""
    worst = Metrics()
    for name, wanted in reference.items():
        a, b = wanted.astype(np.float64).ravel(), found[name].astype(np.float64).ravel()
        size = float(np.linalg.norm(a))
        scale = max(size, math.sqrt(a.size)) if a.size <= FEW else size
        error = float(np.linalg.norm(a - b)) / scale if scale else float(np.abs(b).max(initial=0.0))
        both = size * float(np.linalg.norm(b))
        cosine = 1.0 if a.size <= FEW or not (size or b.any()) else float(a @ b) / both if both else 0.0
        worst = worst.worse_of(Metrics(cosine, error))
    # Alone, as when the wrong layer is looked for, masks come without the scores that choose one.
    if {"low_res_masks", "iou_scores"} <= reference.keys():
        worst = worst.worse_of(Metrics(mask_iou=_best_mask_iou(reference, found)))
    return worst


def require_passed(outcomes: Mapping[str, GraphParity], what: str = "exported graphs", suffix: str = ".onnx") -> None:
    """Raises GraphError naming every one that failed, its figures and the layer where its error starts, if known."""
    failed = [outcome for outcome in outcomes.values() if not outcome.passed]
    if failed:
        raise GraphError(
            f"{what} differ from the model they were made of",
            got="; ".join(f"{o}{f', from layer {o.first_bad_layer} on' if o.first_bad_layer else ''}" for o in failed),
            remedy=f"kept aside as {', '.join(f'{o.graph}.failed{suffix}' for o in failed)}; try --precision fp32",
        )


def _best_mask_iou(reference: Tensors, found: Tensors) -> float:
    """IoU of the mask that the reference scores best, (K, 4, h, w) logits above 0, over the pixels that it is decided
    on; 1 where both are empty."""
    rows = np.arange(len(reference["iou_scores"])), reference["iou_scores"].argmax(axis=1)
    wanted = reference["low_res_masks"][rows]
    scale = np.sqrt(np.mean(wanted.astype(np.float64) ** 2, axis=(-2, -1), keepdims=True))
    # A NaN is no less than anything: such a mask is compared whole.
    decided = ~(np.abs(wanted) < UNDECIDED * scale)
    a, b = ((masks > 0) & decided for masks in (wanted, found["low_res_masks"][rows]))
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def _worst(choose: Callable[[float, float], float], a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else choose(a, b)
