"""The CPU times that `models list` shows: every model has some, as measured, and the page says the same."""

from __future__ import annotations

import json
from pathlib import Path

from sam2edge.selection.cpu_time import CPU_MS, find_cpu_ms
from sam2edge.selection.select import _SIZE_ORDER
from sam2edge.variants import VARIANTS, find_variant

ROOT = Path(__file__).parent.parent.parent


def test_every_model_has_the_times_that_were_measured() -> None:
    rows = json.loads((ROOT / "bench" / "results" / "cpu_time.json").read_text())["measured"]["models"]
    assert {r["model"]: (round(r["photo_ms"]), round(r["frame_ms"])) for r in rows} == CPU_MS
    for variant in VARIANTS.values():
        assert find_cpu_ms(variant) in CPU_MS.values()
    assert find_cpu_ms(find_variant("sam2.0_hiera_base_plus")) == CPU_MS["sam2/hiera_b_plus"]


def test_the_table_for_choosing_says_the_same_and_goes_in_the_order_of_auto() -> None:
    rows = [line.split("|") for line in (ROOT / "docs" / "choosing.md").read_text().splitlines() if "| `sam2/" in line]
    sizes = []
    for _, model, *_, seconds, _, _, _, _ in rows:
        ids = [part.strip(" `") for part in model.split(";")[0].split(",")[:1]]
        photo_ms, frame_ms = CPU_MS[ids[0]]
        assert seconds.split(";")[0].strip() == f"{photo_ms / 1e3:.2f} / {frame_ms / 1e3:.2f}", ids
        sizes.append(find_variant(ids[0]).size)
    assert list(dict.fromkeys(sizes)) == list(_SIZE_ORDER)
