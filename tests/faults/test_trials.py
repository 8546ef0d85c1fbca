"""A few trials of the long suite (`python -m tests.faults`) of each kind that is quick."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from sam2edge.errors import BundleError, Sam2EdgeError
from tests.faults.trials import TRIALS, damage

QUICK = [kind for kind in TRIALS if kind not in ("kill", "video", "server")]


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("seed", range(3))
def test_a_hostile_input_ends_well_or_with_an_error_of_ours(kind: str, seed: int, tmp_path: Path) -> None:
    with suppress(Sam2EdgeError):
        TRIALS[kind](Random(f"{kind} {seed}"), tmp_path)


def test_a_bundle_whose_member_begins_before_the_file(tmp_path: Path) -> None:
    """Found by the long suite: the reader's own OSError came out of it."""
    with pytest.raises(BundleError, match="damaged"):
        TRIALS["bundle"](Random("bundle 2223"), tmp_path)


def test_damage_is_the_same_for_a_seed_and_is_damage() -> None:
    data = bytes(range(256)) * 20
    damaged = [damage(data, Random(seed)) for seed in range(20)]
    assert damaged == [damage(data, Random(seed)) for seed in range(20)]
    assert len(set(damaged) - {data}) > 15
