"""Prometheus' text format, version 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PREFIX = "sam2edge_"

Sample = tuple[str, Mapping[str, str], float]
"""Suffix to the metric's name ("" or, of a summary, "_sum" and "_count"), labels, value."""


class Metric(NamedTuple):
    """One metric: its name without the prefix, its type, what it means, its samples."""

    name: str
    kind: str
    text: str
    samples: Sequence[Sample]


def format_exposition(metrics: Iterable[Metric]) -> str:
    """The metrics as text, each with HELP and TYPE before its samples; those without a sample are left out."""
    lines = []
    for metric in metrics:
        if not metric.samples:
            continue
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {_escape(metric.text)}", f"# TYPE {name} {metric.kind}"]
        lines += [
            f"{name}{suffix}{_format_labels(labels)} {_format_number(value)}"
            for suffix, labels, value in metric.samples
        ]
    return "".join(f"{line}\n" for line in lines)


def _format_labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value, quote=True)}"' for name, value in labels.items()) + "}"


def _escape(text: str, quote: bool = False) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quote else escaped


def _format_number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
