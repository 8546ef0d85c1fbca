"""The board that the stand-ins speak of."""

from __future__ import annotations

from sam2edge.machine.device import Gpu

ORIN = Gpu("Orin", "8.7", 8 << 30, "12.6", True, sm_count=8, part="p3767-0003")
