"""Engines are refused by what stands beside them, before anything reads them."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam2edge import contract
from sam2edge.errors import GraphError
from sam2edge.machine.device import Gpu
from sam2edge.store import paths
from sam2edge.store.engine_checks import check_content, check_files, check_machine
from sam2edge.store.manifest import Manifest, read_engine_manifest, read_manifest, stated_sha256
from sam2edge.variants import find_variant
from tests.boards import ORIN

MICRO = find_variant("sam2/micro")
GRAPHS = tuple(contract.graph_specs(MICRO, 384))


FAILED = {"engine": {"against": "torch", "runtime": "x", "passed": False}}


def test_what_was_built_is_taken(written_engines: Path) -> None:
    manifests = check_files(written_engines, GRAPHS, MICRO, 384, stated_sha256(paths.find_checkpoint(MICRO)))
    assert set(manifests) == set(GRAPHS)
    read_and_check(written_engines)
    for name, manifest in manifests.items():
        assert manifest == read_manifest(written_engines / f"{name}.engine")
        check_machine(manifest, "tensorrt", "10.3.0", ORIN)


def read_and_check(folder: Path) -> None:
    """What opening engines does before any is deserialised."""
    for name, manifest in check_files(folder, GRAPHS, MICRO, 384).items():
        engine = folder / f"{name}.engine"
        check_content(engine, manifest, engine.read_bytes())


def _entry(name: str, value: Any) -> Callable[[Path], None]:
    def change(engine: Path) -> None:
        path = engine.with_name(f"{engine.name}.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


def _without(name: str) -> Callable[[Path], None]:
    def change(engine: Path) -> None:
        path = engine.with_name(f"{engine.name}.json")
        content = json.loads(path.read_text())
        del content[name]
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda engine: engine.unlink(), "mask_decoder.engine was refused.*No such file.*sam2edge build"),
        (lambda engine: engine.write_bytes(engine.read_bytes()[:-1]), "changed or cut short"),
        (lambda engine: engine.write_bytes(b""), "got 0 bytes"),
        (lambda engine: engine.write_bytes(engine.read_bytes()[:-1] + b"!"), "changed or cut short"),
        (lambda engine: shutil.copy(engine.with_name("image_encoder.engine"), engine), "changed or cut short"),
        (lambda engine: engine.with_name(f"{engine.name}.json").unlink(), "engine.json is not usable.*No such file"),
        (lambda engine: engine.with_name(f"{engine.name}.json").write_text("{"), "no JSON"),
        (lambda engine: engine.with_name(f"{engine.name}.json").write_bytes(b"\xff\xfe"), "no JSON"),
        (lambda engine: engine.with_name(f"{engine.name}.json").write_text("[]"), "not an object but"),
        (lambda engine: engine.with_name(f"{engine.name}.json").write_text("[" * 10**5), "not usable"),
        (_without("sha256"), "no entry sha256"),
        (_without("engine"), "expected the manifest of an engine; got no entry engine"),
        (_entry("surprise", 1), "unknown entry surprise"),
        (_entry("engine", {"builder": "tensorrt"}), "no entry engine.builder_version"),
        (_entry("image_size", "512"), "image_size = '512'"),
        (_entry("image_size", True), "image_size = True"),
        (_entry("image_size", 1024), "mask_decoder of sam2.1_micro at 384.*at 1024"),
        (_entry("contract_version", 99), "contract 99"),
        (_entry("model", "sam2.1_hiera_tiny"), "sam2.1_hiera_tiny at 384"),
        (_entry("graph", "image_encoder"), "got image_encoder"),
        (_entry("checkpoint_sha256", "2" * 64), "different weights"),
        (_entry("size_bytes", 7), r"expected 7 bytes; got 1\d+ bytes"),
        (_entry("sha256", "0" * 64), "with SHA-256 0000000000000000.*changed or cut short since"),
        (
            _entry("parity", {"engine": {"against": "torch", "runtime": "x", "passed": False}}),
            "computes what its model does.*mask_decoder.failed.engine",
        ),
        (_entry("precision", "fp32"), "different precisions|different weights or in different precisions"),
    ],
)
def test_damaged_engines(written_engines: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(written_engines / "mask_decoder.engine")
    with pytest.raises(GraphError, match=message) as caught:
        read_and_check(written_engines)
    assert caught.value.remedy is not None and "sam2edge build" in caught.value.remedy


def test_engines_of_another_checkpoint(written_engines: Path) -> None:
    with pytest.raises(GraphError, match="made of another checkpoint.*--checkpoint FILE"):
        check_files(written_engines, GRAPHS, MICRO, 384, "3" * 64)


@pytest.mark.parametrize(
    ("library", "version", "gpu", "message"),
    [
        ("tensorrt", "10.7.0", ORIN, "expected an engine of tensorrt 10.7.0; got tensorrt 10.3.0"),
        ("tensorrt_rtx", "10.3.0", ORIN, "expected an engine of tensorrt_rtx"),
        ("tensorrt", "10.3.0", dataclasses.replace(ORIN, compute_capability="8.9"), r"8\.9.*Orin \(compute.* 8\.7"),
        ("tensorrt", "10.3.0", dataclasses.replace(ORIN, name="Orin Nano"), "Orin Nano.*got one for Orin"),
        # Boards that have the same name: AGX Orin, Orin NX 16 GB, Orin NX 8 GB.
        ("tensorrt", "10.3.0", dataclasses.replace(ORIN, sm_count=16, part=""), "16 multiprocessors.*8 multiproc"),
        ("tensorrt", "10.3.0", dataclasses.replace(ORIN, total_bytes=16 << 30, part=""), "16.0 GiB.*8.0 GiB"),
        ("tensorrt", "10.3.0", dataclasses.replace(ORIN, part="p3767-0001"), "p3767-0001.*p3767-0003"),
    ],
)
def test_another_machine(written_engines: Path, library: str, version: str, gpu: Gpu, message: str) -> None:
    manifest = read_engine_manifest(written_engines / "mask_decoder.engine")
    with pytest.raises(GraphError, match=f"{message}.*remedy: build it here: sam2edge build"):
        check_machine(manifest, library, version, gpu)
    with pytest.raises(GraphError, match=f"an engine for {platform.machine()}; got riscv64"):
        check_machine(_with_build(manifest, architecture="riscv64"), "tensorrt", "10.3.0", ORIN)


def test_the_same_board_with_another_release(written_engines: Path) -> None:
    """Another L4T keeps some more memory for itself, a container may not see the device tree."""
    manifest = read_engine_manifest(written_engines / "mask_decoder.engine")
    here = dataclasses.replace(ORIN, total_bytes=int(7.4 * 2**30), part="", driver_cuda="13.2")
    check_machine(manifest, "tensorrt", "10.3.0", here)


def _with_build(manifest: Manifest, **facts: Any) -> Manifest:
    return dataclasses.replace(manifest, engine=dataclasses.replace(manifest.build, **facts))


def test_engines_built_without_a_gpu(written_engines: Path) -> None:
    anywhere = _with_build(read_engine_manifest(written_engines / "mask_decoder.engine"), gpu=None)
    with pytest.raises(GraphError, match="one built without a GPU"):
        check_machine(anywhere, "tensorrt", "10.3.0", ORIN)
    portable = _with_build(anywhere, builder="tensorrt_rtx")
    check_machine(portable, "tensorrt_rtx", "10.3.0", ORIN)


def test_engines_are_found_as_long_as_anything_of_them_is_left(written_engines: Path) -> None:
    assert paths.find_engines(MICRO, 384) == paths.find_engines(MICRO, 384, "fp16") == written_engines
    assert paths.find_engines(MICRO, 384, "fp32") is None
    assert paths.find_engines(MICRO, 1024) is None
    for engine in written_engines.glob("*.engine"):
        engine.unlink()
    assert paths.find_engines(MICRO, 384) == written_engines
    for path in written_engines.iterdir():
        path.unlink()
    (written_engines / ".mask_decoder.engine.lock").touch()
    assert paths.find_engines(MICRO, 384) is None
