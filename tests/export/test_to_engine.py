"""Building engines: with a stand-in for the builder whatever can go wrong, with TensorRT-RTX the real thing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam2edge import contract
from sam2edge.errors import BackendUnavailableError, GraphError, OutOfMemoryError
from sam2edge.export import build_process
from sam2edge.export.build_process import BuildOptions, check_free_memory, find_library
from sam2edge.export.to_engine import build_engines, main
from sam2edge.files import file_sha256
from sam2edge.machine.device import Gpu
from sam2edge.store import paths
from sam2edge.store.manifest import EngineManifest, check_files, read_manifest
from sam2edge.variants import find_variant

MICRO = find_variant("sam2/hiera_micro")
ASSETS = paths.ASSETS
GRAPHS = tuple(contract.graph_specs(MICRO, 512))
ORIN = Gpu("Orin", "8.7", 8 << 30, "12.6", True)


def _build(out: Path, skip_built: bool = False, gpu: Gpu | None = None) -> Any:
    options = BuildOptions("tensorrt", skip_built=skip_built, gpu=gpu)
    return build_engines(ASSETS, out, MICRO, 512, options)


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_engines_come_with_manifests(builder: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path) -> None:
    outcomes = _build(tmp_path / "out", gpu=ORIN)
    assert set(outcomes) == set(GRAPHS)
    for name, manifest in check_files(tmp_path / "out", GRAPHS, MICRO, 512).items():
        assert manifest == outcomes[name]
        assert (manifest.builder, manifest.builder_version, manifest.precision) == ("tensorrt", "10.3.0", "fp32")
        assert (manifest.gpu, manifest.compute_capability, manifest.driver_cuda) == ("Orin", "8.7", "12.6")
        assert manifest.device_memory_bytes == 12345
        assert manifest.checkpoint_sha256 == file_sha256(ASSETS / "sam2.1_hiera_micro.safetensors")
        assert manifest.graph_sha256 == file_sha256(ASSETS / f"{name}.onnx")
        assert manifest.builder_peak_bytes and manifest.builder_peak_bytes > 1 << 20
    cache = empty_store / "timing" / "tensorrt-10.3.0-Orin.cache"
    assert cache.read_bytes() == b"timed" * len(GRAPHS)
    cache.write_bytes(b"of another version")
    _build(tmp_path / "out", gpu=ORIN)
    assert cache.read_bytes() == b"timed" * len(GRAPHS)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("killed", OutOfMemoryError, "ended by SIGKILL.*likely memory ran out: .* MiB were available"),
        ("crash", GraphError, "ended by SIGSEGV"),
        ("no memory", OutOfMemoryError, "built no engine.*Could not find any implementation.*were available"),
        ("refuses", GraphError, "cannot parse image_encoder.onnx; got node Einsum is not supported"),
        ("full", GraphError, "No space left on device"),
    ],
)
def test_a_build_that_fails(builder: pytest.MonkeyPatch, tmp_path: Path, how: str, kind: type, message: str) -> None:
    builder.setenv("FAKE_TENSORRT", how)
    outcomes = _build(tmp_path)
    for outcome in outcomes.values():
        assert isinstance(outcome, kind)
    with pytest.raises(kind, match=message):
        raise outcomes["image_encoder"]  # type: ignore[misc]
    assert _visible(tmp_path) == ["libraries"]


def test_what_was_built_before_stays_when_a_new_build_fails(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = _build(tmp_path)
    builder.setenv("FAKE_TENSORRT", "killed")
    assert all(isinstance(outcome, OutOfMemoryError) for outcome in _build(tmp_path).values())
    assert check_files(tmp_path, GRAPHS, MICRO, 512) == before


def test_skip_built_builds_what_is_not_right(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = _build(tmp_path)
    assert _build(tmp_path, skip_built=True) == before
    (tmp_path / "mask_decoder.engine").write_bytes(b"changed")
    after = _build(tmp_path, skip_built=True)
    assert after["image_encoder"] == before["image_encoder"]
    assert after["mask_decoder"] != before["mask_decoder"]
    assert _build(tmp_path, skip_built=True, gpu=ORIN)["image_encoder"] != before["image_encoder"]
    check_files(tmp_path, GRAPHS, MICRO, 512)


def test_a_graph_that_cannot_be_built_does_not_stop_the_others(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graphs = shutil.copytree(ASSETS, tmp_path / "graphs")
    (graphs / "image_encoder.onnx").write_bytes(b"")
    outcomes = build_engines(graphs, tmp_path / "out", MICRO, 512, BuildOptions("tensorrt"))
    assert isinstance(outcomes["image_encoder"], GraphError)
    assert isinstance(outcomes["mask_decoder"], EngineManifest)
    shutil.copy(ASSETS / "mask_decoder.onnx", graphs / "image_encoder.onnx")
    outcome = build_engines(graphs, tmp_path / "out", MICRO, 512, BuildOptions("tensorrt"))["image_encoder"]
    assert "break the contract" in str(outcome)


def test_torch2trt_is_another_compiler(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    shutil.copy(Path(__file__).parent / "fake_torch2trt.py", tmp_path / "libraries" / "torch2trt.py")
    command = ["sam2/hiera_micro", "--precision", "fp32", "--compiler", "torch2trt", "--out", str(tmp_path / "out")]
    assert main(command) == 0, capsys.readouterr().err
    for name, manifest in check_files(tmp_path / "out", GRAPHS, MICRO, 512).items():
        assert (manifest.compiler, manifest.builder, manifest.device_memory_bytes) == ("torch2trt", "tensorrt", 777)
        assert (tmp_path / "out" / f"{name}.engine").read_bytes() == b"engine of torch2trt in fp32"
    (tmp_path / "libraries" / "torch2trt.py").write_text("def torch2trt(*a, **k): raise ValueError('no such layer')")
    assert main(command) == 1
    assert "image_encoder was not built; got ValueError: no such layer" in capsys.readouterr().err


def test_two_builds_at_once(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder.setenv("FAKE_TENSORRT", "slow")
    command = [sys.executable, "-m", "sam2edge.export.to_engine", "sam2/hiera_micro", "--precision", "fp32"]
    command += ["--graphs", str(ASSETS), "--out", str(tmp_path / "out")]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(180) for process in both] == [0, 0]
    check_files(tmp_path / "out", GRAPHS, MICRO, 512)
    assert len(_visible(tmp_path / "out")) == 2 * len(GRAPHS)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing_that_counts(
    builder: pytest.MonkeyPatch, tmp_path: Path, how: signal.Signals
) -> None:
    builder.setenv("FAKE_TENSORRT", "slow")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sam2edge.export.to_engine", "sam2/hiera_micro", "--precision", "fp32"]
    command += ["--graphs", str(ASSETS), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    words = process.communicate(timeout=120)[1]
    assert paths.find_engines(MICRO, 512) is None
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert words.splitlines()[-1] == "sam2edge: interrupted"
        assert _visible(out) == []
    builder.setenv("FAKE_TENSORRT", "ok")
    _build(out)
    assert len(_visible(out)) == 2 * len(GRAPHS), "what the killed build left is cleared away"


def test_memory_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_process, "available_memory_bytes", lambda: 1000 << 20)
    check_free_memory(ASSETS / "mask_decoder.onnx", BuildOptions("tensorrt"))
    with pytest.raises(OutOfMemoryError, match=r"expected 1\d{3} MiB available; got 1000 MiB; remedy: stop other"):
        check_free_memory(ASSETS / "mask_decoder.onnx", BuildOptions("tensorrt", gpu=ORIN))


def test_a_folder_that_cannot_be_written(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    assert main(["sam2/hiera_micro", "--precision", "fp32", "--out", str(tmp_path / "out" / "in")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sam2edge: 0 of 2 engines built") or "engines built; got engine of" in last


def test_a_timing_cache_that_cannot_be_kept_costs_no_engine(
    builder: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path
) -> None:
    (empty_store / "timing").write_text("a file")
    assert all(isinstance(outcome, EngineManifest) for outcome in _build(tmp_path / "out").values())


DISK_FULL = """
mount -t tmpfs -o size=5m small "$1" || exit 77
"$2" -m sam2edge.export.to_engine sam2/hiera_micro --precision fp32 --graphs "$3" --out "$1" > /dev/null 2> "$4"
echo $?
ls -A "$1"
"""


def test_a_disk_that_fills_up_in_the_middle(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder.setenv("FAKE_TENSORRT", "large")
    out, errors = tmp_path / "out", tmp_path / "errors"
    out.mkdir()
    # A file system of 5 MB in a mount namespace of its own, gone with the shell.
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", DISK_FULL, "sh"]
    given = [str(out), sys.executable, str(ASSETS), str(errors)]
    try:
        done = subprocess.run([*unshare, *given], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount namespace may be made here")
    status, *names = done.stdout.splitlines()
    assert status == "1"
    assert sorted(name for name in names if not name.endswith(".lock")) == [
        f"{name}.engine{suffix}" for name in GRAPHS[:2] for suffix in ("", ".json")
    ]
    last = errors.read_text().splitlines()[-1]
    assert last.startswith("sam2edge: 2 of 4 engines built")
    assert "No space left on device" in last


def test_no_library_and_no_graphs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(build_process, "LIBRARIES", ("no_such_library",))
    with pytest.raises(BackendUnavailableError, match=r"no TensorRT is installed.*python3-libnvinfer.*sam2edge\[rtx\]"):
        find_library()
    assert main(["sam2/hiera_tiny"]) == 1
    assert "no fp16 graphs of sam2/hiera_tiny at image size 1024" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_tensorrt_rtx_compiles_every_graph(precision: str, half_graphs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    graphs = half_graphs if precision == "fp16" else ASSETS
    outcomes = build_engines(graphs, tmp_path, MICRO, 512, BuildOptions("tensorrt_rtx"))
    for name in GRAPHS:
        assert outcomes[name] == read_manifest(tmp_path / f"{name}.engine"), outcomes[name]
    assert {m.precision for m in check_files(tmp_path, GRAPHS, MICRO, 512).values()} == {precision}


def test_the_builder_needs_neither_torch_nor_onnx(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
from sam2edge.export.to_engine import main
assert main(["sam2/hiera_micro", "--precision", "fp32", "--out", {str(tmp_path / "out")!r}]) == 0
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_manifest_is_json(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _build(tmp_path)
    content = json.loads((tmp_path / "mask_decoder.engine.json").read_text())
    assert content["parity"] == {}
    assert content["gpu"] is None


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_tensorrt_rtx_compiles_tiny_at_full_size(
    precision: str, golden_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    pytest.importorskip("onnx")
    from sam2edge.export.to_onnx import export_graphs

    tiny = find_variant("sam2/hiera_tiny")
    export_graphs(tiny, golden_checkpoint("sam2/hiera_tiny"), 1024, tmp_path / "graphs", precision=precision)
    outcomes = build_engines(tmp_path / "graphs", tmp_path / "engines", tiny, 1024, BuildOptions("tensorrt_rtx"))
    for name, outcome in outcomes.items():
        assert isinstance(outcome, EngineManifest), f"{name}: {outcome}"
        assert outcome.builder_peak_bytes is not None
        assert outcome.builder_peak_bytes < 4 << 30
