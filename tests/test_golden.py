"""Both backends against the recorded outputs of Meta's release, through the public API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel
from tests.conftest import BACKENDS, GOLDEN

CASES = {"sam2/hiera_tiny": "sam2.1_hiera_tiny_image.npz", "sam2.0_hiera_small": "sam2_hiera_small_image.npz"}
LOGITS_WITHIN, SCORES_WITHIN, AREA_WITHIN = 2e-3, 1e-4, 1e-3


@pytest.mark.parametrize("model_id", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_outputs(
    backend: str,
    model_id: str,
    golden_checkpoint: Callable[[str], Path],
    golden_store: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    photo_bgr: np.ndarray,
) -> None:
    checkpoint = golden_checkpoint(model_id)
    monkeypatch.setenv("SAM2EDGE_HOME", str(golden_store(model_id)))
    model = AutoModel.from_pretrained(model_id, backend=backend, checkpoint=checkpoint)
    golden = np.load(GOLDEN / CASES[model_id])
    embedding = model.embed_images(photo_bgr)[0]
    names = {"image_embed": "image_embed", "high_res_0": "high_res_feats_0", "high_res_1": "high_res_feats_1"}
    for name, recorded in names.items():
        found = embedding.to_host().features.tensors[name]
        assert list(found.shape) == golden[f"{recorded}_shape"].tolist()
        np.testing.assert_allclose(found.ravel()[golden[f"{recorded}_index"]], golden[f"{recorded}_value"], atol=1e-3)
    prompts = json.loads(str(golden["prompts_json"]))
    for name, prompt in prompts.items():
        multi = prompt.get("multimask_output", True)
        found = model.segment_images(embeddings=embedding, multi_mask_output=multi, **_arguments(prompt))[0]
        _compare(found, golden, name)
        bits = np.unpackbits(golden[f"{name}_best_mask_bits"])[: found.best_masks.size].astype(bool)
        assert np.count_nonzero(found.best_masks.ravel() != bits) <= AREA_WITHIN * bits.size
    refined = model.segment_images(
        embeddings=embedding,
        multi_mask_output=False,
        mask_input=golden["refined_mask_input"],
        **_arguments(prompts["point"]),
    )[0]
    np.testing.assert_allclose(refined.logits[:, ::2, ::2], golden["refined_logits"], atol=LOGITS_WITHIN)
    np.testing.assert_allclose(refined.scores, golden["refined_scores"], atol=SCORES_WITHIN)


def _arguments(prompt: dict[str, Any]) -> dict[str, Any]:
    names = {"point_coords": "point_coordinates", "point_labels": "point_labels", "box": "boxes"}
    return {names[key]: np.array(value) for key, value in prompt.items() if key in names}


def _compare(found: Any, golden: Any, name: str) -> None:
    np.testing.assert_allclose(found.logits[:, ::2, ::2], golden[f"{name}_logits"], atol=LOGITS_WITHIN)
    np.testing.assert_allclose(found.scores, golden[f"{name}_scores"], atol=SCORES_WITHIN)
    np.testing.assert_allclose(found.masks.sum(axis=(1, 2)), golden[f"{name}_mask_area"], rtol=AREA_WITHIN)
