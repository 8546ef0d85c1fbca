"""What a measurement ran on. Standard library alone."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
UNKNOWN = "unknown"


def describe_machine() -> dict[str, Any]:
    """Hardware, system, power mode, temperature and commit; what cannot be read is "unknown"."""
    return {
        "board": _text("/proc/device-tree/model"),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "architecture": platform.machine(),
        "cores_used": len(os.sched_getaffinity(0)),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": _os_name(),
        "kernel": platform.release().partition("-")[0],
        "l4t": _text("/etc/nv_tegra_release").splitlines()[0],
        "power_mode": _power_mode(),
        "temperature_c": _temperature_c(),
        "sam2edge_commit": _command("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "uncommitted_changes": _has_changes(),
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ") or UNKNOWN
    except OSError:
        return UNKNOWN


def _field(path: str, name: str) -> str:
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return UNKNOWN


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return UNKNOWN


def _power_mode() -> str:
    if shutil.which("nvpmodel"):
        return _command("nvpmodel", "-q").replace("\n", ", ")
    return _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def _temperature_c() -> float | str:
    millidegrees = [_text(str(zone / "temp")) for zone in Path("/sys/class/thermal").glob("thermal_zone*")]
    known = [int(value) / 1000 for value in millidegrees if value.lstrip("-").isdigit()]
    return max(known) if known else UNKNOWN


def _has_changes() -> bool | str:
    answer = _command("git", "-C", str(ROOT), "status", "--porcelain", "--", "sam2edge", "export", empty="")
    return answer if answer == UNKNOWN else bool(answer)


def _command(*words: str, empty: str = UNKNOWN) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return (done.stdout.strip() or empty) if done.returncode == 0 else UNKNOWN
