"""Power mode and clocks, from nvpmodel's files and the kernel's frequency governors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sam2edge.machine.sysfs import list_children, read_int, read_text

_STATUS = "var/lib/nvpmodel/status"
_MODE = re.compile(r"pmode:\s*(\d{1,6})")
_MODEL = re.compile(r"<\s*POWER_MODEL\s+ID=(\d{1,6})\s+NAME=(\S+)\s*>")
# Names of GPUs in /sys/class/devfreq: Thor's graphics cluster, Orin, Xavier, older Tegras.
_GPU = re.compile(r"gpu-gpc|ga10b|gv11b|gp10b|gm20b|\.gpu$|^gpu$")


@dataclass(frozen=True)
class PowerMode:
    """nvpmodel's mode: its number, its name ("MAXN_SUPER"), and the source."""

    number: int | None
    name: str | None
    source: str


@dataclass(frozen=True)
class Clock:
    """One clock in MHz; None if unknown. Pinned: its least and greatest value are the same."""

    name: str
    current_mhz: int | None
    least_mhz: int | None
    greatest_mhz: int | None
    governor: str | None

    @property
    def is_pinned(self) -> bool:
        return self.least_mhz is not None and self.least_mhz == self.greatest_mhz


def read_power_mode(root: Path = Path("/")) -> PowerMode | None:
    """The mode that nvpmodel set last; None where there is no nvpmodel, or it never set one."""
    found = _MODE.search(read_text(root / _STATUS))
    if not found:
        return None
    number = int(found[1])
    names = {int(n): name for n, name in _MODEL.findall(read_text(root / "etc/nvpmodel.conf", 1 << 20))}
    return PowerMode(number, names.get(number), f"/{_STATUS}")


def read_clocks(root: Path = Path("/")) -> list[Clock]:
    """The GPU's clock, where it is a Tegra's, and one for each group of processor cores."""
    gpus = [folder for folder in list_children(root / "sys/class/devfreq") if _GPU.search(folder.name)]
    clocks = [_read_clock(f"GPU ({folder.name})", folder, 1_000_000, "%s_freq") for folder in gpus[:1]]
    for policy in list_children(root / "sys/devices/system/cpu/cpufreq", "policy*"):
        cores = read_text(policy / "affected_cpus") or policy.name.removeprefix("policy")
        clocks.append(_read_clock(f"CPU {cores}", policy, 1_000, "scaling_%s_freq"))
    return clocks


def _read_clock(name: str, folder: Path, per_mhz: int, files: str) -> Clock:
    def in_mhz(which: str) -> int | None:
        value = read_int(folder / (files % which))
        return None if value is None else value // per_mhz

    governor = "scaling_governor" if "scaling" in files else "governor"
    return Clock(name, in_mhz("cur"), in_mhz("min"), in_mhz("max"), read_text(folder / governor) or None)
