"""Runs the sides of a benchmark in fresh processes, one call of each in turn, and writes what came out.

Standard library alone: the harness stays small, so that no child inherits a large peak memory from it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.machine import ROOT, describe_machine
from bench.worker import MARK

RESULTS = Path(__file__).parent / "results"
PHOTO = ROOT / "examples" / "coffee.png"
MB_PER_MIB = 2**20 / 1e6
LINE_LENGTH, ROW_LENGTH = 160, 480
LOADS_BEFORE = os.getloadavg()
SETTLE_S = 0.05
"""Pause before each call, in which the threads of the other side stop spinning."""


@dataclass(frozen=True)
class Side:
    """One thing that is measured: its name in the report and the command that serves its cases."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What the sides of one run gave.

    `times_ms[case][side]` in order of measurement, warm-up left out; `results[case][side]` of the last call;
    `facts[side]` as the worker tells them (peak_rss_mib, versions).
    """

    times_ms: dict[str, dict[str, list[float]]]
    results: dict[str, dict[str, Any]]
    facts: dict[str, dict[str, Any]]

    def median_ms(self, case: str, side: str) -> float:
        return statistics.median(self.times_ms[case][side])

    def ratio(self, case: str, side: str, peer: str) -> float:
        """Median of `side` over median of `peer`."""
        return self.median_ms(case, side) / self.median_ms(case, peer)


@dataclass(frozen=True)
class Target:
    """A bound, and what was measured against it."""

    what: str
    at_most: float
    value: float

    @property
    def met(self) -> bool:
        return bool(self.value <= self.at_most)  # numpy's own is no JSON

    def report(self) -> dict[str, Any]:
        return {"what": self.what, "at_most": self.at_most, "value": round(self.value, 4), "met": self.met}


class _Worker:
    """A running side."""

    def __init__(self, side: Side) -> None:
        environment = {**os.environ, **side.environment}
        self._process = subprocess.Popen(
            side.command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._name = side.name
        self._read()

    def run(self, case: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        time.sleep(SETTLE_S)
        print(case, file=self._process.stdin, flush=True)
        return self._read()

    def finish(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        facts = self._read()
        self._process.wait()
        return facts

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return answer
        raise RuntimeError(f"side {self._name!r} ended early with status {self._process.wait()}; see its messages")


def alternate(sides: Sequence[Side], rounds: Mapping[str, int], warmup: int = 2) -> Outcome:
    """Measures every case `rounds[case]` times on each side, A B A B ..., after `warmup` calls that do not count."""
    workers: dict[str, _Worker] = {}
    times: dict[str, dict[str, list[float]]] = {case: {side.name: [] for side in sides} for case in rounds}
    results: dict[str, dict[str, Any]] = {case: {} for case in rounds}
    try:
        for side in sides:
            workers[side.name] = _Worker(side)
        for case, count in rounds.items():
            for i in range(-warmup, count):
                for name, worker in workers.items():
                    answer = worker.run(case)
                    results[case][name] = answer["result"]
                    if i >= 0:
                        times[case][name].append(answer["ms"])
        return Outcome(times, results, {name: worker.finish() for name, worker in workers.items()})
    finally:
        for worker in workers.values():
            worker.stop()


def alternate_commands(sides: Sequence[Side], rounds: int, warmup: int = 1) -> Outcome:
    """Measures whole commands from process start to exit, A B A B ...; the case is called "command"."""
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    peaks_mib: dict[str, float] = {side.name: 0.0 for side in sides}
    for i in range(-warmup, rounds):
        for side in sides:
            time.sleep(SETTLE_S)
            elapsed_ms, peak = _run_whole(side)
            peaks_mib[side.name] = max(peaks_mib[side.name], peak)
            if i >= 0:
                times[side.name].append(elapsed_ms)
    facts = {name: {"peak_rss_mib": peak} for name, peak in peaks_mib.items()}
    return Outcome({"command": times}, {}, facts)


def _run_whole(side: Side) -> tuple[float, float]:
    """Milliseconds and peak MiB of one run of the command; RuntimeError if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        side.command,
        cwd=ROOT,
        env={**os.environ, **side.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, status, usage = os.wait4(process.pid, 0)
    elapsed_ms = (time.perf_counter() - start) * 1e3
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as stream:
        message = stream.read().decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{side.name!r} failed with status {process.returncode}: {message[-500:]}")
    return elapsed_ms, usage.ru_maxrss / 1024


def statistics_ms(times: Sequence[float]) -> dict[str, Any]:
    """Median, p99 (the largest, below 100 samples) and least, in milliseconds."""
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[math.ceil(0.99 * len(ordered)) - 1], 3),
        "least_ms": round(ordered[0], 3),
        "count": len(ordered),
    }


def use_cores(count: int) -> None:
    """Confines this process and its children to the first `count` of the cores it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def report(
    name: str,
    outcomes: Mapping[str, Outcome],
    targets: Sequence[Target],
    ratios: Mapping[str, float],
    settings: Mapping[str, Any],
    measured: Mapping[str, Any] | None = None,
    **found: Any,
) -> Path:
    """Prints the targets and writes `results/<name>.json`.

    `measured` is what is no time of a side, `found` further entries of the file.
    """
    content = {
        "bench": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "load_average_before": [round(x, 2) for x in LOADS_BEFORE],
        "load_average_after": [round(x, 2) for x in os.getloadavg()],
        "settings": dict(settings),
        "targets": [target.report() for target in targets],
        "ratios": {what: round(value, 4) for what, value in ratios.items()},
        "runs": {what: _outcome_report(outcome) for what, outcome in outcomes.items()},
        **({} if measured is None else {"measured": dict(measured)}),
        **found,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(format_json(content) + "\n")
    for target in targets:
        print(f"{'met   ' if target.met else 'MISSED'} {target.what}: {target.value:.4g} (at most {target.at_most:g})")
    print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return path


def format_json(value: Any, indent: str = "", longest: int = LINE_LENGTH) -> str:
    """JSON that breaks a line only where it would grow too long; rows of a list may be longer."""
    flat = json.dumps(value)
    if len(indent) + len(flat) <= longest or not isinstance(value, (dict, list)):
        return flat
    deeper = indent + " "
    if isinstance(value, dict):
        entries = [f"{json.dumps(key)}: {format_json(entry, deeper)}" for key, entry in value.items()]
    else:
        entries = [format_json(entry, deeper, ROW_LENGTH) for entry in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return first + "\n" + ",\n".join(deeper + entry for entry in entries) + "\n" + indent + last


def _outcome_report(outcome: Outcome) -> dict[str, Any]:
    cases = {
        case: {side: statistics_ms(times) for side, times in sides.items()} for case, sides in outcome.times_ms.items()
    }
    facts = {
        side: {key: round(value, 1) if isinstance(value, float) else value for key, value in facts.items()}
        for side, facts in outcome.facts.items()
    }
    return {"cases": cases, "results": outcome.results, "sides": facts}


def make_side(name: str, location: str, python: str = sys.executable, home: str | Path = "", **given: Any) -> Side:
    """The side whose cases the function at "module:function" makes of what is given.

    `python` is the interpreter that runs it, `home` the store that it reads.
    """
    return Side(name, worker_command(location, python, **given), _store(home))


def worker_command(location: str, python: str = sys.executable, **given: Any) -> list[str]:
    """The command that serves the cases of "module:function", or with --once after it calls it; see bench/worker.py."""
    return [python, "-m", "bench.worker", location, json.dumps(given, default=str)]


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def run_alone(location: str, home: str | Path = "", **given: Any) -> dict[str, Any]:
    """Calls "module:function" in a process of its own: {"result", "seconds", "peak_rss_mib", "versions"}.

    Raises RuntimeError where it fails.
    """
    command = [*worker_command(location, **given), "--once"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **_store(home)}, capture_output=True, text=True)
    answers = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode != 0 or not answers:
        raise RuntimeError(f"{location} failed with status {done.returncode}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(answers[-1])
    return {**answer, "seconds": round(time.monotonic() - started, 1)}


def _store(home: str | Path) -> dict[str, str]:
    return {"SAM2EDGE_HOME": str(home)} if home else {}


def make_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """With the options that benchmarks share; `use_cores` reads --cores."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="timed calls on each side")
    parser.add_argument("--cores", type=int, default=2, help="cores that all sides share")
    parser.add_argument("--meta-python", default=sys.executable, help="interpreter of the environment with sam2 1.1.0")
    parser.add_argument("--checkpoint", help="official file of the model; default: golden weights")
    return parser
