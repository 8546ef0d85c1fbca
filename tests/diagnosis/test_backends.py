"""Which backends work: by trials that answer, fail, crash, hang."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sam2edge.diagnosis.backends import Trial, drop_broken, run_trial, try_backends
from sam2edge.diagnosis.findings import BROKEN, MISSING, NOTE, WORKS
from sam2edge.machine.software import Libraries

MICRO = ("sam2/micro", 384)
EVERYTHING = Libraries(frozenset({"onnxruntime", "torch", "tensorrt", "pycuda"}), "12.6")


def _answering(answers: dict[str, dict[str, Any]]) -> Any:
    def run(trial: Trial) -> dict[str, Any]:
        return answers.get(f"{trial[2]} on {trial[3]}", {"ok": True})

    return run


def _states(libraries: Libraries, has_gpu: bool, **answers: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    named = {name.replace("_", " "): answer for name, answer in answers.items()}
    return {f.name: (f.state, f.remedy) for f in try_backends(libraries, has_gpu, run=_answering(named))}


def test_a_bare_machine() -> None:
    states = _states(Libraries(frozenset()), has_gpu=False)
    assert states == {
        "tensorrt": (MISSING, None),
        "torch on cuda": (MISSING, None),
        "onnxruntime": (MISSING, "pip install onnxruntime"),
        "torch on cpu": (MISSING, "pip install 'sam2edge[torch]'"),
    }


def test_a_gpu_with_everything_but_engines() -> None:
    states = _states(EVERYTHING, has_gpu=True)
    assert states["tensorrt"] == (MISSING, "sam2edge build sam2/micro")
    assert {states[name][0] for name in ("torch on cuda", "onnxruntime", "torch on cpu")} == {WORKS}


def test_a_gpu_without_its_libraries() -> None:
    states = _states(Libraries(frozenset({"torch", "tensorrt"})), has_gpu=True)
    assert states["torch on cuda"] == (NOTE, None)
    assert states["tensorrt"][0] == MISSING and "pycuda" in str(states["tensorrt"][1])


def test_broken_libraries_and_what_auto_can_count_on() -> None:
    answers = {
        "onnxruntime on cpu": {
            "ok": False,
            "problem": "libgomp.so.1: cannot open",
            "remedy": "sudo apt install libgomp1",
        },
        "torch on cuda": {"ok": False, "problem": "no kernel image"},
    }
    findings = try_backends(EVERYTHING, True, run=_answering(answers))
    found = {f.name: f for f in findings}
    assert found["onnxruntime"].state == BROKEN and "libgomp" in found["onnxruntime"].detail
    assert found["onnxruntime"].remedy == "sudo apt install libgomp1"
    left = drop_broken(EVERYTHING, findings)
    assert not left.has("onnxruntime") and left.has("torch") and left.torch_cuda is None


def test_a_trial_for_real() -> None:
    assert run_trial((*MICRO, "onnxruntime", "cpu")) == {"ok": True}


def test_a_trial_that_fails_tells_problem_and_remedy() -> None:
    answer = run_trial((*MICRO, "tensorrt", "cuda"))
    assert not answer["ok"]
    assert "no engine" in answer["problem"] and answer["remedy"].startswith("sam2edge build")


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a shell script stand in for the interpreter that runs trials."""

    def stand_in(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return stand_in


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("kill -SEGV $$", "ended with SIGSEGV"),
        ("echo Illegal instruction >&2; exit 3", "exit status 3: Illegal instruction"),
        ("echo '[1]'", "no answer"),
        ("echo '{'", "exit status 0: it printed nothing"),
        ("exec sleep 30", "no answer within 1 s"),
    ],
)
def test_trials_that_go_wrong(interpreter: Any, script: str, problem: str) -> None:
    interpreter(script)
    answer = run_trial((*MICRO, "onnxruntime", "cpu"), timeout_s=1.0)
    assert not answer["ok"] and problem in answer["problem"]


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    assert "cannot be tried" in run_trial((*MICRO, "onnxruntime", "cpu"))["problem"]
