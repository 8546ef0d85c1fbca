"""Prints results/gpu.json as Markdown: `python -m bench.gpu_table`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.harness import RESULTS


def print_table(path: Path) -> None:
    result = json.loads(path.read_text())
    print(f"\n{result['date'][:10]}, {result['gpu']['name'] if result['gpu'] else 'no GPU'}\n")
    print("| step | status | s | |\n|---|---|---:|---|")
    for name, step in result["steps"].items():
        said = step.get("reason") or (step.get("said") or [""])[-1]
        print(f"| {name} | {step['status']} | {step.get('seconds', '')} | {said.replace('|', '/')} |")
    print("\n| measured | case | side | median ms | p99 ms |\n|---|---|---|---:|---:|")
    for name, run in result["runs"].items():
        for case, sides in run["cases"].items():
            for side, times in sides.items():
                print(f"| {name} | {case} | {side} | {times['median_ms']:.4g} | {times['p99_ms']:.4g} |")
    print("\n| ratio of medians | |\n|---|---:|")
    for what, ratio in result["ratios"].items():
        print(f"| {what} | {ratio:.3g} |")
    print("\n| target | at most | measured | |\n|---|---:|---:|---|")
    for target in result["targets"]:
        outcome = "met" if target["met"] else "**missed**"
        print(f"| {target['what']} | {target['at_most']:g} | {target['value']:.4g} | {outcome} |")


if __name__ == "__main__":
    print_table(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "gpu.json")
