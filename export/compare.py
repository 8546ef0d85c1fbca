"""Two ways to compute a model's graphs, run beside each other on the same inputs. Neither torch nor onnx is needed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.contract import GraphSpec, TensorSpec
from sam2edge.errors import GraphError
from sam2edge.export.metrics import Metrics, Tensors, compare
from sam2edge.imaging.frame import image_to_input

Runner = Callable[[str, Tensors], dict[str, NDArray[Any]]]
"""(graph, inputs by name) -> outputs by name."""


@dataclass(frozen=True)
class ReferenceRun:
    """One case as the reference computes it: by graph, what it is fed with and what it gives."""

    case: Tensors
    feeds: Mapping[str, Tensors]
    outputs: Mapping[str, Tensors]


def run_reference(specs: Mapping[str, GraphSpec], cases: Iterable[Tensors], reference: Runner) -> list[ReferenceRun]:
    """Every case through every graph, each fed with what the graphs before it gave. Afterwards, nothing of the
    reference is needed any more: a model and the engines built of it need not lie in memory at the same time."""
    return [_run_case(specs, case, reference) for case in cases]


def _run_case(specs: Mapping[str, GraphSpec], case: Tensors, reference: Runner) -> ReferenceRun:
    known: dict[str, NDArray[Any]] = dict(case)
    feeds: dict[str, Tensors] = {}
    outputs: dict[str, Tensors] = {}
    for name, spec in specs.items():
        feeds[name] = {t.name: _tensor(t, known) for t in spec.inputs}
        outputs[name] = reference(name, feeds[name])
        known.update(outputs[name])
    return ReferenceRun(case, feeds, outputs)


def measure(specs: Mapping[str, GraphSpec], references: Sequence[ReferenceRun], found: Runner) -> dict[str, Metrics]:
    """Metrics of each graph: alone on the reference's tensors, and in the chain on what the graphs before it gave."""
    metrics = {name: Metrics() for name in specs}
    for reference in references:
        chained: dict[str, NDArray[Any]] = dict(reference.case)
        for name, spec in specs.items():
            chained_outputs = found(name, {t.name: _tensor(t, chained) for t in spec.inputs})
            for outputs in (found(name, reference.feeds[name]), chained_outputs):
                metrics[name] = metrics[name].worse_of(compare(reference.outputs[name], outputs))
            chained.update(chained_outputs)
    return metrics


UNDECIDED_SHARE = 0.0125
"""Share of a mask's pixels that may be undecided. Measured medians: 0.004 with the embedded model's weights, 0.02 to
0.03 with random ones."""
UNDECIDED_LOGIT = 0.03
"""A pixel is undecided where its logit is below this part of the mask's root mean square: the relative error that a
float16 graph may have is enough to turn it over."""


def bounds_for(bounds: Metrics, references: Sequence[ReferenceRun]) -> Metrics:
    """The bounds that can be judged: without that of mask IoU where the reference's masks are undecided.

    Logits of random weights lie around zero: any rounding turns pixels over, and their IoU says nothing of a graph.
    """
    return bounds if _median_undecided(references) <= UNDECIDED_SHARE else replace(bounds, mask_iou=0.0)


def _median_undecided(references: Sequence[ReferenceRun]) -> float:
    shares = []
    for reference in references:
        outputs = reference.outputs[contract.MASK_DECODER]
        best = outputs["low_res_masks"][0, int(outputs["iou_scores"][0].argmax())]
        margin = UNDECIDED_LOGIT * float(np.sqrt(np.mean(best**2)))
        shares.append(float(np.mean(np.abs(best) < margin)))
    return float(np.median(shares))


def example_cases(image_size: int, slots: int, photos: Sequence[NDArray[np.uint8]]) -> Iterator[Tensors]:
    """Inputs that no graph gives: for each photo a click, a box, and a click with a mask to refine."""
    side = image_size // 4
    blob = np.full((1, 1, side, side), -10.0, np.float32)
    blob[..., side // 4 : -side // 4, side // 4 : -side // 4] = 10.0
    points: tuple[tuple[list[list[float]], list[int], bool], ...] = (
        ([[0.5, 0.5]], [contract.FOREGROUND], False),
        ([[0.2, 0.2], [0.8, 0.8]], [contract.BOX_TOP_LEFT, contract.BOX_BOTTOM_RIGHT], False),
        ([[0.45, 0.6], [0.1, 0.1]], [contract.FOREGROUND, contract.BACKGROUND], True),
    )
    for photo in photos:
        image = image_to_input(photo, "bgr", image_size)
        for places, kinds, with_mask in points:
            coords = np.zeros((1, slots, 2), np.float32)
            labels = np.full((1, slots), contract.ABSENT, np.int32)
            coords[0, : len(places)], labels[0, : len(kinds)] = np.array(places) * image_size, kinds
            yield {
                "image": image,
                "point_coords": coords,
                "point_labels": labels,
                "mask_input": blob if with_mask else np.zeros_like(blob),
                "has_mask": np.array([with_mask], np.float32),
                "mask_logits": blob,
                "given_mask": blob.repeat(4, axis=2).repeat(4, axis=3),
            }


def drawn_scene(height: int = 360, width: int = 480) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 with shapes, shades and grain, the same every time.

    The disc stands out: where a model is undecided, logits near zero turn over with any rounding, and the IoU of two
    masks measures the model and not its graph.
    """
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.stack((90 + x / 8, 120 + y / 10, 100 + 20 * np.sin(x / 40)), axis=-1)
    disc = (x - 0.5 * width) ** 2 + (y - 0.52 * height) ** 2 < (0.24 * height) ** 2
    picture[disc] = (20, 25, 30)
    picture[(np.abs(x - 0.2 * width) < 40) & (np.abs(y - 0.3 * height) < 60)] = (200, 190, 60)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def _tensor(spec: TensorSpec, known: Tensors) -> NDArray[Any]:
    """The tensor of that name, or what stands in for one that no case and no graph before gives."""
    if spec.name in known and known[spec.name].shape == spec.shape:
        return known[spec.name]
    return _stand_in(spec)


@lru_cache
def _stand_in(spec: TensorSpec) -> NDArray[Any]:
    """Noise, zeros for masks and whole numbers; the same array each time, so that a graph's run can be kept."""
    if spec.dtype != "float32" or "mask" in spec.name:
        return np.zeros(spec.shape, spec.dtype)
    return np.random.default_rng(sum(spec.name.encode())).normal(0, 0.5, spec.shape).astype(np.float32)


def cache_runs(run: Runner) -> Runner:
    """Runs a graph once on the same tensors: the cases of one photo share its image, and the memories.

    The last two runs of each graph are kept, for `measure` asks for each alone and in the chain, by turns.
    """
    runs: defaultdict[str, deque[tuple[Tensors, dict[str, NDArray[Any]]]]] = defaultdict(lambda: deque(maxlen=2))

    def run_cached(name: str, feed: Tensors) -> dict[str, NDArray[Any]]:
        for known, outputs in runs[name]:
            if all(known[key] is value for key, value in feed.items()):
                return outputs
        runs[name].append((feed, run(name, feed)))
        return runs[name][-1][1]

    return run_cached


def session_runner(sessions: Mapping[str, ort.InferenceSession]) -> Runner:
    def run(name: str, feed: Tensors) -> dict[str, NDArray[Any]]:
        outputs = [output.name for output in sessions[name].get_outputs()]
        return dict(zip(outputs, sessions[name].run(outputs, dict(feed)), strict=True))

    return run


def open_session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own native module
        raise GraphError(
            f"graph {path.name} cannot be loaded",
            expected="an ONNX file written by sam2edge.export",
            got=str(error).splitlines()[0][:160] if str(error) else type(error).__name__,
            remedy="export it again",
        ) from error
