"""Ids, aliases and dimensions of the models."""

from __future__ import annotations

import pytest

from sam2edge.errors import UnknownModelError
from sam2edge.variants import EMBEDDED, VARIANTS, find_variant


@pytest.mark.parametrize(
    ("model_id", "name"),
    [
        ("sam2/micro", "sam2.1_micro"),
        ("sam2/hiera_tiny", "sam2.1_hiera_tiny"),
        ("sam2/hiera_small", "sam2.1_hiera_small"),
        ("sam2/hiera_b_plus", "sam2.1_hiera_base_plus"),
        ("sam2/hiera_base_plus", "sam2.1_hiera_base_plus"),
        ("sam2/hiera_large", "sam2.1_hiera_large"),
        ("sam2.0_hiera_b_plus", "sam2.0_hiera_base_plus"),
        ("SAM2.1_hiera_Large", "sam2.1_hiera_large"),
        ("tiny", "sam2.1_hiera_tiny"),
        ("micro", EMBEDDED),
        ("large", "sam2.1_hiera_large"),
        ("b_plus", "sam2.1_hiera_base_plus"),
    ],
)
def test_ids_and_aliases(model_id: str, name: str) -> None:
    assert find_variant(model_id).name == name


def test_every_variant_answers_to_its_own_ids() -> None:
    for variant in VARIANTS.values():
        assert find_variant(variant.name) is variant
        assert find_variant(variant.model_id) is variant


def test_unknown_ids_are_told_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="sam2/hiera_b_plus.*got 'sam3/huge'.*models list"):
        find_variant("sam3/huge")


@pytest.mark.parametrize(("model_id", "meant"), [("sam2/hiera_tinny", "tiny"), ("lage", "large"), ("smal", "small")])
def test_a_mistyped_id_is_told_the_closest(model_id: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=f"did you mean sam2/hiera_{meant}"):
        find_variant(model_id)


def test_official_checkpoints_have_distinct_sums_and_https() -> None:
    sources = [v.checkpoint for v in VARIANTS.values() if v.checkpoint]
    assert len(sources) == len({s.file_name for s in sources}) == 17
    assert all(s.url.startswith("https://") for s in sources)
    checked = [s for s in sources if len(s.sha256 or "") == 64 or len(s.git_blob or "") == 40]
    assert len(checked) == len({s.digest for s in checked}) == 13
    assert {s.file_name for s in sources if s not in checked} == {
        f"efficienttam_{size}_{kind}.pt" for size in ("ti", "s") for kind in (1, 2)
    }
