"""From engines down to the CPU: the right mask whatever fails, and the reason where it can be seen."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge import AutoModel, VideoTracker
from sam2edge.backends import registry
from sam2edge.backends.base import BackendRequest, HostFeatures
from sam2edge.backends.onnxruntime import OnnxRuntimeBackend
from sam2edge.cli.main import main
from sam2edge.errors import BackendUnavailableError, GraphError, InvalidInputError, OutOfMemoryError
from tests.conftest import ROOT

BOX = np.array([75, 20, 480, 385])


class _Failing(OnnxRuntimeBackend):
    """Stands for an engine: computes as onnxruntime does, and fails where a test says so."""

    name = "tensorrt"
    fails: dict[str, Exception]
    closed = 0

    @classmethod
    def open(cls, request: BackendRequest) -> _Failing:
        backend = cls(request)
        backend._perhaps("open")
        return backend

    def encode_impl(self, image: Any) -> Any:
        self._perhaps("encode")
        return _OnDevice(super().encode_impl(image).tensors)

    def decode_impl(self, features: Any, *prompt: Any) -> Any:
        self._perhaps("decode")
        return super().decode_impl(features, *prompt)

    def decode_each_impl(self, *given: Any) -> Any:
        self._perhaps("decode")
        return super().decode_each_impl(*given)

    def attend_memory_impl(self, *given: Any) -> Any:
        self._perhaps("attend")
        return super().attend_memory_impl(*given)

    def encode_memories_impl(self, *given: Any) -> Any:
        self._perhaps("remember")
        return [_OnDevice(memory.tensors) for memory in super().encode_memories_impl(*given)]

    def close(self) -> None:
        type(self).closed += 1

    def _perhaps(self, kind: str) -> None:
        if kind in self.fails:
            raise self.fails[kind]


class _OnDevice(HostFeatures):
    """Features that another backend can only read by way of the host."""

    def to_host(self) -> HostFeatures:
        return HostFeatures(self.tensors)

    def with_image_embed(self, image_embed: Any) -> _OnDevice:
        return _OnDevice({**self.tensors, "image_embed": image_embed})


@pytest.fixture
def failing(written_engines: Path, monkeypatch: pytest.MonkeyPatch) -> type[_Failing]:
    """The engine backend on a machine with a GPU and no torch."""
    module = ModuleType("engines_that_fail")
    module.Class = _Failing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "engines_that_fail", module)
    entry = registry.BACKENDS["tensorrt"]._replace(location="engines_that_fail:Class")
    monkeypatch.setitem(registry.BACKENDS, "tensorrt", entry)
    monkeypatch.setitem(registry.BACKENDS, "torch", registry.BACKENDS["torch"]._replace(location="no_torch:Class"))
    monkeypatch.setattr(registry, "has_nvidia_gpu", lambda: True)
    _Failing.fails, _Failing.closed = {}, 0
    return _Failing


@pytest.fixture(scope="module")
def expected_mask(photo_bgr: np.ndarray) -> np.ndarray:
    model = AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")
    return model.segment_images(photo_bgr, boxes=BOX)[0].best_masks


def test_engines_are_the_first_choice(failing: type[_Failing]) -> None:
    model = AutoModel.from_pretrained()
    assert (model.backend_name, str(model.report)) == ("tensorrt", "tensorrt on cuda: in use")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("no memory"), "no memory"),
        (GraphError("bad plan"), "bad plan"),
        (TypeError("pybind11::init():\n factory function returned nullptr"), "TypeError: pybind11::init(): factory"),
    ],
)
@pytest.mark.parametrize("kind", ["open", "encode", "decode"])
def test_a_candidate_that_fails_is_not_taken(
    failing: type[_Failing], kind: str, error: Exception, reason: str, photo_bgr: np.ndarray, expected_mask: np.ndarray
) -> None:
    failing.fails = {kind: error}
    model = AutoModel.from_pretrained()
    assert (model.backend_name, model.report.chosen) == ("onnxruntime", "onnxruntime on cpu")
    label, told = model.report.skipped[0]
    assert label == "tensorrt on cuda" and told.startswith(reason)
    assert failing.closed == (kind != "open")
    assert model.stats().fallbacks == ()
    np.testing.assert_array_equal(model.segment_images(photo_bgr, boxes=BOX)[0].best_masks, expected_mask)


@pytest.mark.parametrize("part", ["attend", "remember"])
def test_one_that_cannot_track_is_not_taken_for_tracking(failing: type[_Failing], part: str) -> None:
    failing.fails = {part: GraphError("bad plan")}
    assert AutoModel.from_pretrained().backend_name == "tensorrt"
    assert AutoModel.from_pretrained(tracking=True).backend_name == "onnxruntime"


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_memory_that_runs_out_later(
    failing: type[_Failing], kind: str, photo_bgr: np.ndarray, expected_mask: np.ndarray, caplog: Any
) -> None:
    model = AutoModel.from_pretrained()
    before = model.embed_images(photo_bgr)[0]
    failing.fails = {kind: OutOfMemoryError("no device memory for 20 MiB")}
    after = model.embed_images(255 - photo_bgr)[0]
    for _ in range(2):
        found = model.segment_images(embeddings=before, boxes=BOX)[0]
        np.testing.assert_array_equal(found.best_masks, expected_mask)
    model.segment_images(embeddings=after, boxes=BOX)
    assert model.backend_name == "onnxruntime"
    assert model.report.chosen == "onnxruntime on cpu"
    assert caplog.text.count("tensorrt has no memory left (no device memory for 20 MiB)") == 1
    assert model.stats().fallbacks[0] == ("tensorrt on cuda", "no device memory for 20 MiB")
    assert failing.closed == 1


def test_memory_that_runs_out_in_several_threads(
    failing: type[_Failing], photo_bgr: np.ndarray, expected_mask: np.ndarray
) -> None:
    model = AutoModel.from_pretrained()
    failing.fails = {"encode": OutOfMemoryError("no memory")}
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: model.segment_images(photo_bgr, boxes=BOX)[0].best_masks, range(3)))
    for mask in found:
        np.testing.assert_array_equal(mask, expected_mask)
    assert failing.closed == 1
    assert len(model.report.skipped) == 2  # engines and torch, once each


def test_a_tracker_goes_on_where_memory_runs_out(failing: type[_Failing], photo_bgr: np.ndarray) -> None:
    results = []
    for part in ("", "encode", "remember", "attend", "decode"):
        failing.fails = {}
        tracker = VideoTracker.from_pretrained()
        tracker.prompt(photo_bgr, box=BOX)
        tracker.track(np.roll(photo_bgr, 3, axis=1))
        failing.fails = {part: OutOfMemoryError("no memory")}
        results.append(tracker.track(np.roll(photo_bgr, 6, axis=1)))
        assert (tracker.frame_index, tracker.model.backend_name) == (2, "onnxruntime" if part else "tensorrt")
    for result in results[1:]:
        np.testing.assert_array_equal(result.logits, results[0].logits)


def test_other_failures_later_are_raised(failing: type[_Failing], photo_bgr: np.ndarray) -> None:
    model = AutoModel.from_pretrained()
    model.segment_images(photo_bgr, boxes=BOX)
    failing.fails = {"decode": GraphError("a cosmic ray")}
    with pytest.raises(GraphError, match="cosmic ray"):
        model.segment_images(photo_bgr, boxes=BOX)
    assert model.backend_name == "tensorrt"


def test_bad_input_is_no_reason(failing: type[_Failing], photo_bgr: np.ndarray) -> None:
    model = AutoModel.from_pretrained()
    points = np.ones((40, 2)), np.ones(40)
    with pytest.raises(InvalidInputError, match="too many points"):
        model.segment_images(photo_bgr, point_coordinates=points[0], point_labels=points[1])
    assert model.backend_name == "tensorrt"


def test_with_nothing_left_the_failure_is_raised(
    failing: Any, monkeypatch: pytest.MonkeyPatch, photo_bgr: np.ndarray
) -> None:
    entry = registry.BACKENDS["onnxruntime"]._replace(location="no_onnxruntime:Class")
    monkeypatch.setitem(registry.BACKENDS, "onnxruntime", entry)
    model = AutoModel.from_pretrained()
    failing.fails = {"encode": OutOfMemoryError("no memory")}
    with pytest.raises(OutOfMemoryError, match="no memory"):
        model.embed_images(photo_bgr)
    with pytest.raises(
        BackendUnavailableError, match="no backend can run.*tensorrt on cuda: no memory | torch on cuda"
    ):
        AutoModel.from_pretrained()


def test_by_name_there_is_no_fallback(failing: type[_Failing], written_engines: Path, photo_bgr: np.ndarray) -> None:
    failing.fails = {"encode": GraphError("bad plan")}
    with pytest.raises(GraphError, match="bad plan"):
        AutoModel.from_pretrained(backend="tensorrt").embed_images(photo_bgr)
    (written_engines / "mask_decoder.engine").unlink()
    with pytest.raises(GraphError, match="mask_decoder.engine was refused"):
        AutoModel.from_pretrained(backend="tensorrt")
    shutil.rmtree(written_engines)
    with pytest.raises(BackendUnavailableError, match="no engine of sam2/micro.*sam2edge build"):
        AutoModel.from_pretrained(backend="tensorrt")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "image_encoder.engine").unlink(), "image_encoder.engine was refused"),
        (lambda folder: (folder / "mask_decoder.engine").write_bytes(b"\0" * 99), "mask_decoder.engine was refused"),
        (lambda folder: (folder / "mask_decoder.engine.json").unlink(), "mask_decoder.engine.json is not usable"),
        (lambda folder: None, "no NVIDIA GPU on this machine"),
    ],
)
def test_segment_gives_the_right_mask_and_the_reason(
    written_engines: Path,
    damage: Callable[[Path], None],
    reason: str,
    expected_mask: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(registry, "has_nvidia_gpu", lambda: False)
    damage(written_engines)
    box = ",".join(map(str, BOX))
    photo = str(ROOT / "examples" / "coffee.png")
    arguments = ["segment", photo, "--box", box, "--multi", "--model", "sam2/micro", "--out", str(tmp_path)]
    assert main(arguments) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "uncertain" not in line]
    assert len(notes) == 1
    assert notes[0].startswith(f"note: the built engine was not used: {reason}")
    mask = cv2.imread(str(tmp_path / "coffee.a.mask.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask > 0, expected_mask)  # type: ignore[operator]
