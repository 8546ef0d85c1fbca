"""Building engines: with a stand-in for the builder whatever can go wrong, with TensorRT-RTX the real thing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sam2edge import contract
from sam2edge.cli.main import main
from sam2edge.engine_build import build, library, memory
from sam2edge.engine_build.build import build_engines
from sam2edge.engine_build.graphs import find_or_export_graphs
from sam2edge.engine_build.library import Library, find_library
from sam2edge.engine_build.memory import check_free_memory
from sam2edge.engine_build.options import BuildOptions
from sam2edge.engine_build.progress import LineProgress
from sam2edge.errors import BackendUnavailableError, GraphError, InvalidInputError, OutOfMemoryError
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.store.engine_checks import check_files
from sam2edge.store.manifest import Manifest, read_manifest
from sam2edge.variants import find_variant
from tests.boards import ORIN

MICRO = find_variant("sam2/micro")
ASSETS = paths.ASSETS
GRAPHS = tuple(contract.graph_specs(MICRO, 384))


TENSORRT = Library("tensorrt", "10.3.0")


def _build(out: Path, skip_built: bool = False, graphs: Path = ASSETS) -> dict[str, Manifest]:
    return build_engines(
        BuildOptions(MICRO.name, 384, "fp32", skip_built=skip_built, graphs=graphs, out=out), LineProgress()
    )


def _on_orin(builder: pytest.MonkeyPatch) -> None:
    """A GPU, and no library to compare engines on it."""
    builder.setattr(build, "find_gpu", lambda: ORIN)
    builder.setattr(build, "compare_with_model", lambda options, graphs, built, progress: built)


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_engines_come_with_manifests(builder: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path) -> None:
    _on_orin(builder)
    outcomes = _build(tmp_path / "out")
    assert set(outcomes) == set(GRAPHS)
    for name, manifest in check_files(tmp_path / "out", GRAPHS, MICRO, 384).items():
        assert manifest == outcomes[name]
        made = manifest.build
        assert (made.builder, made.builder_version, manifest.precision) == ("tensorrt", "10.3.0", "fp32")
        assert (made.gpu, made.device_memory_bytes) == (ORIN, 12345)
        assert manifest.checkpoint_sha256 == file_sha256(ASSETS / "sam2.1_micro.safetensors")
        assert made.graph_sha256 == file_sha256(ASSETS / f"{name}.onnx")
        assert made.peak_bytes and made.peak_bytes > 1 << 20
    cache = empty_store / "timing" / "tensorrt-10.3.0-Orin-8.7-8sm-8GiB-p3767-0003.cache"
    assert cache.read_bytes() == b"timed" * len(GRAPHS)
    cache.write_bytes(b"of another version")
    _build(tmp_path / "out")
    assert cache.read_bytes() == b"timed" * len(GRAPHS)


def test_an_engine_for_a_cameras_frames(builder: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path) -> None:
    _on_orin(builder)
    options = BuildOptions(MICRO.name, 384, "fp32", graphs=ASSETS, out=tmp_path / "out", frame="640x480")
    assert set(build_engines(options, LineProgress())) == {*GRAPHS, "frame_640x480"}
    assert set(check_files(tmp_path / "out", ("frame_640x480",), MICRO, 384)) == {"frame_640x480"}
    with pytest.raises(InvalidInputError, match="frame size cannot be used.*1920x1080"):
        BuildOptions(MICRO.name, 384, frame="large")


def test_graphs_for_another_number_of_memories_are_made_anew(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("sam2edge.engine_build.graphs.run_script", lambda script, *_: started.append(script))
    folder = paths.graph_dir(MICRO, 384, paths.FP32_FOR_ENGINES)
    shutil.copytree(ASSETS, folder)
    for slots in (None, 7, 3):
        options = BuildOptions(MICRO.name, 384, "fp32", memory_slots=slots)
        assert find_or_export_graphs(options, print, False) == folder
    assert [script[-3:] for script in started] == [["--memory-slots", "3", "--for-engines"]]
    with pytest.raises(InvalidInputError, match="expected graphs or memory slots; got both"):
        BuildOptions(MICRO.name, 384, graphs=ASSETS, memory_slots=3)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", "ended by SIGKILL.*likely memory ran out: .* MiB were available"),
        ("crash", "ended by SIGSEGV"),
        ("no memory", "built no engine.*Could not find any implementation.*were available"),
        ("refuses", "cannot parse image_encoder.onnx; got node Einsum is not supported"),
        ("full", "No space left on device"),
    ],
)
def test_a_build_that_fails(builder: pytest.MonkeyPatch, tmp_path: Path, how: str, message: str) -> None:
    builder.setenv("FAKE_TENSORRT", how)
    with pytest.raises(GraphError, match=f"0 of 4 engines built; got engine of image_encoder.*{message}"):
        _build(tmp_path)
    assert _visible(tmp_path) == ["libraries"]


def test_what_was_built_before_stays_when_a_new_build_fails(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = _build(tmp_path)
    builder.setenv("FAKE_TENSORRT", "killed")
    with pytest.raises(GraphError, match="0 of 4 engines built"):
        _build(tmp_path)
    assert check_files(tmp_path, GRAPHS, MICRO, 384) == before


def test_skip_built_builds_what_is_not_right(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = _build(tmp_path)
    assert _build(tmp_path, skip_built=True) == before
    (tmp_path / "mask_decoder.engine").write_bytes(b"changed")
    after = _build(tmp_path, skip_built=True)
    assert after["image_encoder"] == before["image_encoder"]
    assert after["mask_decoder"] != before["mask_decoder"]
    _on_orin(builder)
    assert _build(tmp_path, skip_built=True)["image_encoder"] != before["image_encoder"]
    check_files(tmp_path, GRAPHS, MICRO, 384)


def test_a_graph_that_cannot_be_built_does_not_stop_the_others(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graphs = shutil.copytree(ASSETS, tmp_path / "graphs")
    (graphs / "image_encoder.onnx").write_bytes(b"")
    with pytest.raises(GraphError, match=r"3 of 4 engines built; got image_encoder\.onnx is damaged"):
        _build(tmp_path / "out", graphs=graphs)
    assert read_manifest(tmp_path / "out" / "mask_decoder.engine").engine is not None
    for suffix in ("", ".json"):
        shutil.copy(ASSETS / f"mask_decoder.onnx{suffix}", graphs / f"image_encoder.onnx{suffix}")
    with pytest.raises(GraphError, match="was made for something else"):
        _build(tmp_path / "out", graphs=graphs)


def test_torch2trt_is_another_compiler(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    shutil.copy(Path(__file__).parent / "fake_torch2trt.py", tmp_path / "libraries" / "torch2trt.py")
    for needed in ("onnx_graphsurgeon",):
        (tmp_path / "libraries" / f"{needed}.py").touch()
    command = ["build", "sam2/micro", "--precision", "fp32", "--compiler", "torch2trt"]
    command += ["--out", str(tmp_path / "out")]
    assert main(command) == 0, capsys.readouterr().err
    for name, manifest in check_files(tmp_path / "out", GRAPHS, MICRO, 384).items():
        made = manifest.build
        assert (made.compiler, made.builder, made.device_memory_bytes) == ("torch2trt", "tensorrt", 777)
        assert (tmp_path / "out" / f"{name}.engine").read_bytes() == b"engine of torch2trt in fp32"
    (tmp_path / "libraries" / "torch2trt.py").write_text("def torch2trt(*a, **k): raise ValueError('no such layer')")
    assert main(command) == 1
    assert "image_encoder was not built; got ValueError: no such layer" in capsys.readouterr().err


def test_two_builds_at_once(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder.setenv("FAKE_TENSORRT", "slow")
    command = [sys.executable, "-m", "sam2edge.cli.main", "build", "sam2/micro", "--precision", "fp32"]
    command += ["--graphs", str(ASSETS), "--out", str(tmp_path / "out")]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(180) for process in both] == [0, 0]
    check_files(tmp_path / "out", GRAPHS, MICRO, 384)
    assert len(_visible(tmp_path / "out")) == 2 * len(GRAPHS)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing_that_counts(
    builder: pytest.MonkeyPatch, tmp_path: Path, how: signal.Signals
) -> None:
    builder.setenv("FAKE_TENSORRT", "slow")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sam2edge.cli.main", "build", "sam2/micro", "--precision", "fp32"]
    command += ["--graphs", str(ASSETS), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    words = process.communicate(timeout=120)[1]
    assert paths.find_engines(MICRO, 384) is None
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert words.splitlines()[-1] == "sam2edge: interrupted"
        assert _visible(out) == []
    builder.setenv("FAKE_TENSORRT", "ok")
    _build(out)
    assert len(_visible(out)) == 2 * len(GRAPHS), "what the killed build left is cleared away"


def test_memory_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 1000 << 20)
    check_free_memory(ASSETS / "mask_decoder.onnx", TENSORRT, None)
    with pytest.raises(OutOfMemoryError, match=r"expected 1\d{3} MiB available; got 1000 MiB; remedy: close other"):
        check_free_memory(ASSETS / "mask_decoder.onnx", TENSORRT, ORIN)


def test_a_folder_that_cannot_be_written(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    command = ["build", "sam2/micro", "--precision", "fp32", "--graphs", str(ASSETS)]
    assert main([*command, "--out", str(tmp_path / "out" / "in")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sam2edge: 0 of 4 engines built; got engine of image_encoder cannot be written")


def test_a_timing_cache_that_cannot_be_kept_costs_no_engine(
    builder: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path
) -> None:
    (empty_store / "timing").write_text("a file")
    assert set(_build(tmp_path / "out")) == set(GRAPHS)


DISK_FULL = """
mount -t tmpfs -o size=5m small "$1" || exit 77
"$2" -m sam2edge.cli.main build sam2/micro --precision fp32 --graphs "$3" --out "$1" > /dev/null 2> "$4"
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
    monkeypatch.setattr(library, "TENSORRT_LIBRARIES", ("no_such_library",))
    with pytest.raises(BackendUnavailableError, match=r"no TensorRT is installed.*python3-libnvinfer.*sam2edge\[rtx\]"):
        find_library()
    assert main(["build", "sam2/hiera_tiny"]) == 1
    assert "no TensorRT is installed" in capsys.readouterr().err


def test_tensorrt_of_jetpack_6_0_is_refused_before_the_build(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its 8.6 has no strongly typed networks; told before graphs are exported, which takes minutes."""
    fake = tmp_path / "libraries" / "tensorrt.py"
    fake.write_text(fake.read_text().replace('"10.3.0"', '"8.6.2"').replace("STRONGLY_TYPED=1", "EXPLICIT_BATCH=0"))
    assert main(["build", "sam2/micro"]) == 1
    err = capsys.readouterr().err
    assert "tensorrt 8.6.2 is too old to build engines" in err
    assert "JetPack 6.1 or later on a Jetson" in err


def test_a_library_that_cannot_be_imported(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "libraries" / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
    assert main(["build", "sam2/micro"]) == 1
    assert "tensorrt cannot be imported; got ImportError: libnvinfer.so.10" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_tensorrt_rtx_compiles_every_graph(precision: str, half_graphs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    graphs = half_graphs if precision == "fp16" else ASSETS
    built = build_engines(BuildOptions(MICRO.name, 384, precision, graphs=graphs, out=tmp_path), LineProgress())
    for name in GRAPHS:
        assert built[name] == read_manifest(tmp_path / f"{name}.engine")
    assert {m.precision for m in check_files(tmp_path, GRAPHS, MICRO, 384).values()} == {precision}


def test_the_builder_needs_neither_torch_nor_onnx(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
from sam2edge.cli.main import main
assert main(["build", "sam2/micro", "--precision", "fp32", "--out", {str(tmp_path / "out")!r}]) == 0
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_tensorrt_rtx_compiles_tiny_at_full_size(
    precision: str, golden_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    pytest.importorskip("onnx")
    from sam2edge.export.to_onnx import export_graphs

    tiny = find_variant("sam2/hiera_tiny")
    export_graphs(tiny, golden_checkpoint("sam2/hiera_tiny"), 1024, tmp_path / "graphs", precision=precision)
    options = BuildOptions(tiny.name, 1024, precision, graphs=tmp_path / "graphs", out=tmp_path / "engines")
    for manifest in build_engines(options, LineProgress()).values():
        assert manifest.build.peak_bytes is not None
        assert manifest.build.peak_bytes < 4 << 30
