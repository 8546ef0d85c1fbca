"""Writes the tables of docs/benchmarks.md from bench/results: `python -m bench.table`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness import RESULTS
from bench.machine import ROOT
from bench.memory import FIGURES

PAGE = ROOT / "docs" / "benchmarks.md"
MARK = "<!-- Everything below is written by python -m bench.table. -->\n"
MIB = 1 << 20
MEMORY_COLUMNS = {"size", "image_size", "backend", *FIGURES}
RESULTS_SHOWN = (
    "photo_micro",
    "photo_tiny",
    "photo_cache",
    "photo_everything",
    "cpu_time",
    "video_tiny",
    "video_edgetam",
    "video_objects",
    "video_memory",
    "tracking_events",
    "tracking_selection",
    "resize",
    "memory",
    "memory_promises",
    "quality_photos",
    "quality_options",
    "quality_precision",
    "export_cost",
    "export_all",
    "gpu",
)


def main() -> None:
    prose = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(prose + MARK + write_tables(), encoding="utf-8")


def write_tables() -> str:
    """The page's generated part."""
    paths = [RESULTS / f"{name}.json" for name in RESULTS_SHOWN]
    return "".join(f"\n{line}" for path in paths if path.exists() for line in _write_section(path)) + "\n"


def print_result(path: Path) -> None:
    print("\n".join(_write_section(path)))


def _write_section(path: Path) -> Iterator[str]:
    result = json.loads(path.read_text(encoding="utf-8"))
    yield f"## {path.stem}\n"
    if "machine" in result:
        yield _describe_conditions(result)
    steps = [
        (name, step["status"], step.get("seconds", ""), step.get("reason") or (step.get("said") or [""])[-1])
        for name, step in result.get("steps", {}).items()
    ]
    yield from _write_table(("step", "status", "s", ""), steps)
    targets = [
        (target["what"], f"{target['at_most']:g}", f"{target['value']:.3g}", "met" if target["met"] else "**missed**")
        for target in result.get("targets", [])
    ]
    yield from _write_table(("target", "at most", "measured", ""), targets)
    runs = result.get("runs", {})
    times = [
        (name, case, side, f"{t['median_ms']:.4g}", f"{t['p99_ms']:.4g}", t["count"])
        for name, run in runs.items()
        for case, sides in run["cases"].items()
        for side, t in sides.items()
    ]
    yield from _write_table(("run", "case", "side", "median ms", "p99 ms", "times"), times)
    ratios = [(what, f"{ratio:.3g}") for what, ratio in result.get("ratios", {}).items()]
    yield from _write_table(("ratio of medians", ""), ratios)
    peaks = [
        (f"{side} ({name})", f"{facts['peak_rss_mib']:.0f}")
        for name, run in runs.items()
        for side, facts in run["sides"].items()
    ]
    yield from _write_table(("process", "peak MiB"), peaks)
    yield from _write_figures(result)


def _write_figures(result: dict[str, Any]) -> Iterator[str]:
    """Figures that are no time of a side: rows of one kind as a table, all else as a list."""
    figures = {**result.get("measured", {}), "mean IoU": result.get("mean_iou", {}), "picks": result.get("picks", [])}
    if result["bench"] == "memory":
        figures["rows"] = [{k: row[k] for k in row if k in MEMORY_COLUMNS} for row in result["rows"]]
    for name, value in figures.items():
        if isinstance(value, dict) and "frames" in value:
            value = [{"backend": name, **row} for row in value["frames"]]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            head = tuple(key.replace("_bytes", " MiB").replace("_", " ") for key in value[0])
            yield from _write_table(head, [tuple(map(_write_cell, row.items())) for row in value])
        elif value not in ([], {}):
            yield f"- {name}: {json.dumps(value)}"


def _write_cell(entry: tuple[str, Any]) -> str:
    name, value = entry
    return f"{value / MIB:.4g}" if "_bytes" in name else str(value)


def _write_table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    if rows:
        lines = [" | ".join(head), "|".join("---" for _ in head)]
        lines += [" | ".join(str(cell).replace("|", "/") for cell in row) for row in rows]
        yield "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines) + "\n"


def _describe_conditions(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions: dict[str, str] = {}
    for run in result.get("runs", {}).values():
        for facts in run["sides"].values():
            versions.update(facts.get("versions", {}))
    where = [
        f"{result['date'][:10]}, {machine['cores_used']} of {machine['cores']} cores of {machine['cpu']}",
        f"({machine['architecture']}), {machine['memory_gib']} GiB, {machine['os']},",
        *([f"{result['gpu']['name']},"] if result.get("gpu") else []),
        f"power mode {machine['power_mode']},",
    ]
    if "load_average_before" in result:
        where.append(f"load {result['load_average_before'][0]} before and {result['load_average_after'][0]} after,")
    where.append(f"commit {machine['sam2edge_commit']};" if versions else f"commit {machine['sam2edge_commit']}.")
    if versions:
        where.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return "\n".join(where) + "\n"


if __name__ == "__main__":
    main()
