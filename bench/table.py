"""Prints the results as Markdown: `python -m bench.table`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bench.harness import RESULTS

NAMES = ("micro", "image_tiny", "video_tiny", "cache_hit", "observation")


def main() -> None:
    for path in (RESULTS / f"{name}.json" for name in NAMES):
        if path.exists():
            print("\n".join(_section(json.loads(path.read_text()))))


def _section(result: dict[str, Any]) -> Iterator[str]:
    yield f"## bench.{result['bench']}\n"
    yield from _conditions(result)
    yield "\n| target | at most | measured | |\n|---|---:|---:|---|"
    for target in result["targets"]:
        outcome = "met" if target["met"] else "**missed**"
        yield f"| {target['what']} | {target['at_most']:g} | {target['value']:.3g} | {outcome} |"
    yield "\n| measured | side | median ms | p99 ms | times |\n|---|---|---:|---:|---:|"
    for run in result["runs"].values():
        for case, sides in run["cases"].items():
            for side, times in sides.items():
                yield f"| {case} | {side} | {times['median_ms']:.4g} | {times['p99_ms']:.4g} | {times['count']} |"
    yield "\n| ratio of medians | |\n|---|---:|"
    yield from (f"| {what} | {ratio:.3g} |" for what, ratio in result["ratios"].items())
    yield "\n| process | peak MiB |\n|---|---:|"
    for name, run in result["runs"].items():
        yield from (f"| {side} ({name}) | {facts['peak_rss_mib']:.0f} |" for side, facts in run["sides"].items())
    yield ""


def _conditions(result: dict[str, Any]) -> Iterator[str]:
    machine, versions = result["machine"], _versions(result)
    yield f"{result['date'][:10]}, {machine['cores_used']} of {machine['cores']} cores of {machine['cpu']}"
    yield f"({machine['architecture']}), {machine['memory_gib']} GiB, {machine['os']},"
    yield f"power mode {machine['power_mode']},"
    loads = f"{result['load_average_before'][0]} before and {result['load_average_after'][0]} after"
    yield f"load {loads}, commit {machine['sam2edge_commit']};"
    yield ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


def _versions(result: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for run in result["runs"].values():
        for facts in run["sides"].values():
            found.update(facts.get("versions", {}))
            found.update({"cv2": facts["cv2"]} if "cv2" in facts else {})
    return found


if __name__ == "__main__":
    main()
