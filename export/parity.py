"""Exported graphs against the torch model they were made of, and the gate that keeps a wrong one from being loaded.

    python -m sam2edge.export.parity sam2/hiera_tiny --precision fp16 --photo PHOTO

measures every graph in ONNX Runtime, first on torch's own intermediate tensors, then graph after graph, and writes
the figures into `<graph>.onnx.json` beside it. A graph over its bound is moved aside as `<graph>.failed.onnx`, with
the first layer that went wrong in its manifest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from sam2edge import contract, store
from sam2edge.contract import GraphSpec, TensorSpec
from sam2edge.errors import CheckpointError, GraphError, Sam2EdgeError
from sam2edge.export.by_hand import exit_with
from sam2edge.export.figures import BOUNDS, Figures, GraphParity, Tensors, compare, require_passed
from sam2edge.export.graphs import GRAPHS
from sam2edge.export.wrong_layer import first_bad_layer
from sam2edge.photo import read_photo
from sam2edge.preprocess import image_to_input
from sam2edge.torch_sam2.checkpoint import load_model
from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import Variant, find_variant

Runner = Callable[[str, Tensors], dict[str, NDArray[Any]]]
"""(graph, inputs by name) -> outputs by name."""


def check_graphs(
    model: Sam2, folder: Path, precision: str, photos: Sequence[NDArray[np.uint8]] = ()
) -> dict[str, GraphParity]:
    """Measures the model's graphs in `folder`, writes their manifests, moves those that fail aside.

    `photos` are (H, W, 3) uint8 BGR; without any, a drawn scene stands for them. Raises GraphError where a graph is
    missing or cannot be loaded.
    """
    sessions = {name: _open(folder / f"{name}.onnx") for name in GRAPHS}
    slots = next(t.shape[1] for t in sessions[contract.MASK_DECODER].get_inputs() if t.name == "point_labels")
    specs = contract.graph_specs(model.variant, model.image_size, slots)
    cases = list(example_cases(model.image_size, slots, photos or (drawn_scene(),)))
    measured = measure(specs, cases, _remembering(_torch_runner(model)), _remembering(_session_runner(sessions)))
    del sessions
    outcomes = {}
    for name, figures in measured.items():
        outcome = GraphParity(name, figures, BOUNDS[precision])
        if not outcome.passed:
            feed = _feeds(specs, cases[0], _torch_runner(model))[name]
            layer = first_bad_layer(model, folder / f"{name}.onnx", specs[name], feed, outcome.bounds)
            outcome = GraphParity(name, figures, outcome.bounds, layer)
        outcomes[name] = outcome
        _record(folder / f"{name}.onnx", outcome, len(cases))
    return outcomes


def measure(
    specs: Mapping[str, GraphSpec], cases: Sequence[Tensors], reference: Runner, found: Runner
) -> dict[str, Figures]:
    """Figures of each graph: alone on the reference's tensors, and in the chain on what the graphs before it gave."""
    figures = {name: Figures() for name in specs}
    for case in cases:
        expected, chained = dict(case), dict(case)
        for name, spec in specs.items():
            feed = {t.name: _tensor(t, expected) for t in spec.inputs}
            wanted = reference(name, feed)
            chained_outputs = found(name, {t.name: _tensor(t, chained) for t in spec.inputs})
            for outputs in (found(name, feed), chained_outputs):
                figures[name] = figures[name].worse_of(compare(wanted, outputs))
            expected.update(wanted)
            chained.update(chained_outputs)
    return figures


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
                "mask": blob.repeat(4, axis=2).repeat(4, axis=3),
            }


def drawn_scene(height: int = 360, width: int = 480) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 with shapes, shades and grain, the same every time."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.stack((90 + x / 8, 120 + y / 10, 100 + 20 * np.sin(x / 40)), axis=-1)
    disc = (x - 0.5 * width) ** 2 + (y - 0.52 * height) ** 2 < (0.24 * height) ** 2
    picture[disc] = (40, 60, 190)
    picture[(np.abs(x - 0.2 * width) < 40) & (np.abs(y - 0.3 * height) < 60)] = (200, 190, 60)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def _feeds(specs: Mapping[str, GraphSpec], case: Tensors, reference: Runner) -> Mapping[str, Tensors]:
    known: dict[str, NDArray[Any]] = dict(case)
    feeds: dict[str, Tensors] = {}
    for name, spec in specs.items():
        feeds[name] = {t.name: _tensor(t, known) for t in spec.inputs}
        known.update(reference(name, feeds[name]))
    return feeds


def _tensor(spec: TensorSpec, known: Tensors) -> NDArray[Any]:
    """The tensor of that name; noise for what no case and no graph before gives, zeros for masks and whole numbers."""
    if spec.name in known and known[spec.name].shape == spec.shape:
        return known[spec.name]
    if spec.dtype != "float32" or "mask" in spec.name:
        return np.zeros(spec.shape, spec.dtype)
    return np.random.default_rng(len(spec.name)).normal(0, 0.5, spec.shape).astype(np.float32)


def _torch_runner(model: Sam2) -> Runner:
    modules = {name: graph(model).eval() for name, graph in GRAPHS.items()}
    specs = contract.graph_specs(model.variant, model.image_size)

    @torch.inference_mode()
    def run(name: str, feed: Tensors) -> dict[str, NDArray[Any]]:
        outputs = modules[name](*(torch.from_numpy(np.ascontiguousarray(v)) for v in feed.values()))
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return {t.name: value.numpy() for t, value in zip(specs[name].outputs, outputs, strict=True)}

    return run


def _remembering(run: Runner) -> Runner:
    """Runs a graph once on the same tensors: the cases of one photo share its image."""
    last: dict[str, tuple[Tensors, dict[str, NDArray[Any]]]] = {}

    def remembered(name: str, feed: Tensors) -> dict[str, NDArray[Any]]:
        if name not in last or any(last[name][0][key] is not value for key, value in feed.items()):
            last[name] = (feed, run(name, feed))
        return last[name][1]

    return remembered


def _session_runner(sessions: Mapping[str, ort.InferenceSession]) -> Runner:
    def run(name: str, feed: Tensors) -> dict[str, NDArray[Any]]:
        outputs = [output.name for output in sessions[name].get_outputs()]
        return dict(zip(outputs, sessions[name].run(outputs, dict(feed)), strict=True))

    return run


def _open(path: Path) -> ort.InferenceSession:
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


def _record(path: Path, outcome: GraphParity, num_cases: int) -> None:
    """Writes `<graph>.onnx.json`; the graph is moved aside first if it failed, or freed of an earlier failure."""
    failed = path.with_suffix(".failed.onnx")
    if outcome.passed:
        failed.unlink(missing_ok=True)
    else:
        path.replace(failed)
        path = failed
    stated = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    manifest = {
        "graph": outcome.graph,
        "file": path.name,
        "sha256": store.file_sha256(path),
        "model": stated.get("sam2edge_model"),
        "image_size": int(stated.get("sam2edge_image_size", 0)),
        "precision": stated.get("sam2edge_precision"),
        "contract_version": int(stated.get("sam2edge_contract", 0)),
        "checkpoint_sha256": stated.get("sam2edge_checkpoint_sha256"),
        "parity": {
            "against": "torch float32",
            "runtime": f"onnxruntime {ort.__version__} on cpu",
            "cases": num_cases,
            "passed": outcome.passed,
            "figures": asdict(outcome.figures),
            "bounds": asdict(outcome.bounds),
            "first_bad_layer": outcome.first_bad_layer,
        },
    }
    store.write_json(path.with_name(f"{outcome.graph}.onnx.json"), manifest)


def chosen_checkpoint(variant: Variant, given: Path | None) -> Path:
    """The weights that a command line names, or those in the store. Raises CheckpointError where there are none."""
    checkpoint = given or store.find_checkpoint(variant)
    if checkpoint is None:
        raise CheckpointError(f"no weights of {variant.model_id}", expected="--checkpoint FILE", got="none")
    return checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare exported graphs with the torch model.")
    parser.add_argument("model", help="model id, such as sam2/hiera_tiny")
    parser.add_argument("--checkpoint", type=Path, help="the weights they were made of; default: those in the store")
    parser.add_argument("--size", type=int, help="side of the model input in pixels; default: the model's own")
    parser.add_argument("--precision", choices=store.PRECISIONS, default="fp32", help="which graphs; default: fp32")
    parser.add_argument("--folder", type=Path, help="where the graphs are; default: the store")
    parser.add_argument("--photo", type=Path, action="append", default=[], help="compare on this; repeatable")
    chosen = parser.parse_args(arguments)
    try:
        variant = find_variant(chosen.model)
        size = chosen.size or variant.image_size
        checkpoint = chosen_checkpoint(variant, chosen.checkpoint)
        folder = chosen.folder or store.graph_dir(variant, size, chosen.precision)
        photos = [read_photo(path) for path in chosen.photo]
        outcomes = check_graphs(load_model(variant, checkpoint, size), folder, chosen.precision, photos)
        print("\n".join(map(str, outcomes.values())))
        require_passed(outcomes)
    except (Sam2EdgeError, OSError) as error:
        print(f"sam2edge: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_with(main)
