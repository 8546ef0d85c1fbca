"""Tries whether each backend is installed and segments a picture, each in a process of its own, all at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sam2edge.backends.registry import BACKENDS
from sam2edge.diagnosis.findings import BROKEN, MISSING, NOTE, WORKS, Finding
from sam2edge.errors import name_status
from sam2edge.machine.software import (
    TENSORRT_LIBRARIES,
    TENSORRT_UPGRADE,
    Libraries,
    find_old_pycuda,
    find_old_tensorrt,
    find_pycuda_install,
    library_version,
)
from sam2edge.selection.budget import VARIABLE
from sam2edge.selection.select import Constraints, list_candidates
from sam2edge.variants import EMBEDDED, VARIANTS

TIMEOUT_S = 120.0
"""For one trial; torch takes 20 seconds to load from an SD card."""

Trial = tuple[str, int, str, str]
"""Model, image size, backend, device."""


def run_trial(trial: Trial, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The answer of `sam2edge.diagnosis.trial`, or how its process ended."""
    command = [sys.executable, "-m", "sam2edge.diagnosis.trial", *map(str, trial)]
    # Without the cap on memory, which is not a fault of a backend.
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        remedy = "close other programs, and try again"
        return {"ok": False, "problem": f"no answer within {timeout_s:.0f} s", "remedy": remedy}
    except OSError as error:
        return {"ok": False, "problem": f"cannot be tried: {error.strerror}"}
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return answer if isinstance(answer, dict) else {"ok": False, "problem": "no answer"}
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return {"ok": False, "problem": f"the process ended with {name_status(done.returncode)}: {last[:200]}"}


def try_backends(
    libraries: Libraries,
    has_gpu: bool,
    on_jetson: bool = False,
    cuda: str | None = None,
    run: Callable[[Trial], dict[str, Any]] = run_trial,
) -> list[Finding]:
    """A finding for each way of running a model, the fastest first. `on_jetson` changes the remedies."""
    trials: dict[str, Trial] = {}
    micro = VARIANTS[EMBEDDED]
    engines = list_candidates(Constraints(backend="tensorrt"), libraries, has_gpu)
    if engines:
        best = max(engines, key=lambda c: c.rank)
        trials["tensorrt"] = (best.variant.model_id, best.image_size, "tensorrt", "cuda")
    if libraries.has("torch") and libraries.torch_cuda and has_gpu:
        trials["torch on cuda"] = (micro.model_id, micro.image_size, "torch", "cuda")
    if libraries.has("openvino"):
        trials["openvino"] = (micro.model_id, micro.image_size, "openvino", "cpu")
    if libraries.has("onnxruntime"):
        trials["onnxruntime"] = (micro.model_id, micro.image_size, "onnxruntime", "cpu")
    if libraries.has("torch"):
        trials["torch on cpu"] = (micro.model_id, micro.image_size, "torch", "cpu")
    with ThreadPoolExecutor() as pool:
        answers = dict(zip(trials, pool.map(run, trials.values()), strict=True))
    return [
        _judge_tensorrt(libraries, has_gpu, on_jetson, trials, answers, cuda),
        _judge_torch_cuda(libraries, has_gpu, answers),
        *([_judge_cpu("openvino", "openvino", answers)] if "openvino" in answers else []),
        _judge_cpu("onnxruntime", "onnxruntime", answers),
        _judge_cpu("torch on cpu", "torch", answers),
    ]


def drop_broken(libraries: Libraries, findings: Iterable[Finding]) -> Libraries:
    """The libraries without those whose trial failed: what "auto" can use."""
    state = {finding.name: finding.state for finding in findings}
    gone = {name for name in ("openvino", "onnxruntime") if state.get(name) == BROKEN}
    if state.get("tensorrt") == BROKEN:
        gone |= {"tensorrt", "tensorrt_rtx"}
    if state.get("torch on cpu") == BROKEN:
        gone.add("torch")
    torch_cuda = libraries.torch_cuda if state.get("torch on cuda") == WORKS else None
    return Libraries(libraries.names - gone, torch_cuda)


def _judge_tensorrt(
    libraries: Libraries,
    has_gpu: bool,
    on_jetson: bool,
    trials: dict[str, Trial],
    answers: dict[str, dict[str, Any]],
    cuda: str | None,
) -> Finding:
    installed = [name for name in TENSORRT_LIBRARIES if libraries.has(name)]
    versions = ", ".join(f"{name} {library_version(name) or ''}".strip() for name in installed)
    if "tensorrt" in answers:
        model, size, *_ = trials["tensorrt"]
        again = f"sam2edge build {model} --size {size}"
        return _judge_answer("tensorrt", f"{versions}, {model} at {size}", answers["tensorrt"], again)
    if not has_gpu:
        return Finding("tensorrt", MISSING, "no NVIDIA GPU on this machine" + (f" ({versions})" if versions else ""))
    if not installed:
        install = "sudo apt install python3-libnvinfer" if on_jetson else "pip install tensorrt"
        return Finding("tensorrt", MISSING, "TensorRT is not installed for Python", install)
    too_old = find_old_tensorrt(library_version("tensorrt")) if installed == ["tensorrt"] else None
    if too_old is not None:
        return Finding("tensorrt", MISSING, too_old, TENSORRT_UPGRADE)
    if not libraries.has("pycuda"):
        return Finding("tensorrt", MISSING, f"{versions}; pycuda is not installed", find_pycuda_install())
    unfit = find_old_pycuda(library_version("pycuda"), library_version("numpy"), cuda)
    if unfit is not None:
        detail, _, remedy = unfit.partition("; ")
        return Finding("tensorrt", MISSING, f"{versions}; {detail}", remedy)
    return Finding(
        "tensorrt", MISSING, f"{versions}; no usable engine was built", f"sam2edge build {VARIANTS[EMBEDDED].model_id}"
    )


def _judge_torch_cuda(libraries: Libraries, has_gpu: bool, answers: dict[str, dict[str, Any]]) -> Finding:
    name = "torch on cuda"
    if name in answers:
        return _judge_answer(name, f"torch {library_version('torch') or ''}", answers[name], None)
    if not has_gpu:
        return Finding(name, MISSING, "no NVIDIA GPU on this machine")
    if not libraries.has("torch"):
        return Finding(name, MISSING, "torch is not installed", BACKENDS["torch"].install)
    return Finding(name, NOTE, "torch is built for the CPU; a build for this machine's CUDA would use the GPU")


def _judge_cpu(name: str, library: str, answers: dict[str, dict[str, Any]]) -> Finding:
    if name not in answers:
        return Finding(name, MISSING, f"{library} is not installed", BACKENDS[library].install)
    again = f"pip install --force-reinstall {library}"
    return _judge_answer(name, f"{library} {library_version(library) or ''}".strip(), answers[name], again)


def _judge_answer(name: str, what: str, answer: dict[str, Any], remedy: str | None) -> Finding:
    if answer.get("ok"):
        return Finding(name, WORKS, f"{what}: segmented a picture")
    return Finding(name, BROKEN, f"{what}: {answer.get('problem')}", answer.get("remedy") or remedy)
