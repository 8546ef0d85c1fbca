"""Reads which arithmetic the processor has."""

from __future__ import annotations

from pathlib import Path

from sam2edge.machine.sysfs import read_text

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def has_bfloat16(root: Path = Path("/")) -> bool:
    """Whether an x86 processor multiplies bfloat16, as /proc/cpuinfo below `root` lists its abilities."""
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _BFLOAT16.isdisjoint(flags.split())
