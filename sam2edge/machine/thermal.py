"""Temperature, what slows clocks down now, and over-current events since the start."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sam2edge.machine.sysfs import list_children, read_int, read_text

# Cooling devices that slow something down; the others are fans.
_SLOWS_DOWN = re.compile(r"cpufreq|devfreq|throttle|^processor$|hot-surface", re.IGNORECASE)
_SENSIBLE_C = (-60.0, 200.0)
"""A value beyond is of a sensor that is off: Jetson's give -256."""


@dataclass(frozen=True)
class Heat:
    """Degrees Celsius by zone; cooling devices that slow clocks down now; over-current events since the start.

    `over_current` counts by line of the supervisor (Orin: 1 under voltage, 2 average, 3 instantaneous current).
    """

    zones_c: dict[str, float] = field(default_factory=dict)
    slowed_by: tuple[str, ...] = ()
    over_current: dict[str, int] = field(default_factory=dict)

    @property
    def hottest_c(self) -> float | None:
        return max(self.zones_c.values(), default=None)


def read_heat(root: Path = Path("/")) -> Heat:
    """What /sys/class/thermal and /sys/class/hwmon tell; never raises."""
    zones: dict[str, float] = {}
    for zone in list_children(root / "sys/class/thermal", "thermal_zone*"):
        millidegrees = read_int(zone / "temp")
        if millidegrees is not None and _SENSIBLE_C[0] < millidegrees / 1000 < _SENSIBLE_C[1]:
            name = read_text(zone / "type") or zone.name
            zones[name if name not in zones else f"{name} ({zone.name})"] = millidegrees / 1000
    slowed_by = []
    for device in list_children(root / "sys/class/thermal", "cooling_device*"):
        kind = read_text(device / "type")
        if _SLOWS_DOWN.search(kind) and (read_int(device / "cur_state") or 0) > 0:
            slowed_by.append(kind)
    return Heat(zones, tuple(dict.fromkeys(slowed_by)), _count_over_current(root))


def _count_over_current(root: Path) -> dict[str, int]:
    counts = {}
    for folder in list_children(root / "sys/class/hwmon", "hwmon*"):
        if read_text(folder / "name") == "soctherm_oc":
            for file in list_children(folder, "oc*_event_cnt"):
                count = read_int(file)
                if count:
                    counts[file.name.removesuffix("_event_cnt")] = count
    return counts
