"""One engine of a build: kept where it is right, else built in a process of its own and put in place."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2edge import contract
from sam2edge.contract import TensorSpec
from sam2edge.engine_build.library import Library
from sam2edge.engine_build.memory import check_free_memory, workspace_bytes
from sam2edge.engine_build.options import BuildOptions, BuildTask
from sam2edge.engine_build.processes import run_worker
from sam2edge.engine_build.progress import Progress
from sam2edge.errors import GraphError
from sam2edge.machine.device import Gpu
from sam2edge.store import paths
from sam2edge.store.engine_checks import engine_spec, failed_path, is_same_gpu
from sam2edge.store.manifest import EngineBuild, Manifest, describe_file, read_engine_manifest

NO_TIMING_CACHE = {"tensorrt_rtx"}
"""Libraries that time nothing while they build: their timing-cache calls do nothing and say so in a warning."""


@dataclass(frozen=True)
class EngineToBuild:
    """One engine: the graph it is built from, with its manifest, and the file it is to be."""

    name: str
    onnx: Path
    graph: Manifest
    engine: Path
    options: BuildOptions
    library: Library
    gpu: Gpu | None

    def build_or_keep(self, progress: Progress) -> Manifest:
        """Builds the engine; with `skip_built` only where that would give something else than what is there."""
        kept = self._find_same() if self.options.skip_built else None
        if kept is not None:
            progress.note(f"{self.name}: built already")
            return kept
        check_free_memory(self.onnx, self.library, self.gpu)
        part = self.engine.with_name(f".{self.engine.name}.{secrets.token_hex(4)}.part")
        try:  # from before the file is there: an interrupt may come at any moment
            part.touch()
            started = time.monotonic()
            facts = run_worker(self._task(part), progress)
            manifest = self._describe(part, facts, time.monotonic() - started)
            self._put_in_place(part, manifest)
        finally:
            part.unlink(missing_ok=True)
        progress.note(f"{self.name}: {manifest.size_bytes / 1e6:.1f} MB in {manifest.build.seconds:.0f} s")
        return manifest

    def _find_same(self) -> Manifest | None:
        """The manifest of what is there, if a build would give the same. Raises GraphError if that has failed."""
        try:
            manifest = read_engine_manifest(self.engine)
        except GraphError:
            return None
        if not self._is_same(manifest):
            return None
        if manifest.has_failed:
            raise GraphError(
                f"engine of {self.name} was built before and differs from its model",
                got=manifest.parity["engine"].metrics,
                remedy="build the other precision; without --skip-built it is tried again",
            )
        try:
            whole = describe_file(self.engine).sha256 == manifest.sha256
        except OSError:
            return None
        return manifest if whole else None

    def _is_same(self, manifest: Manifest) -> bool:
        build = manifest.build
        same_gpu = build.gpu is self.gpu if self.gpu is None or build.gpu is None else is_same_gpu(self.gpu, build.gpu)
        return (
            same_gpu
            and build.graph_sha256 == self.graph.sha256
            and manifest.contract_version == contract.CONTRACT_VERSION
            and (build.builder, build.builder_version) == (self.library.name, self.library.version)
            and build.compiler == self.options.compiler
        )

    def _task(self, part: Path) -> BuildTask:
        return BuildTask(
            self.options,
            self.library.name,
            self.name,
            self.onnx,
            part,
            self.graph.prompt_slots or contract.NUM_PROMPT_SLOTS,
            self.graph.memory_slots,
            workspace_bytes(self.gpu) if self.gpu else 0,
            None if self.library.name in NO_TIMING_CACHE else _timing_cache(self.library, self.gpu),
            load_engine=self.gpu is not None,
        )

    def _describe(self, part: Path, facts: Mapping[str, Any], seconds: float) -> Manifest:
        """The manifest of what was built, once its tensors have been found to be the contract's."""
        graph, slots = self.graph, self.graph.prompt_slots or contract.NUM_PROMPT_SLOTS
        specs = contract.graph_specs(self.options.variant, self.options.image_size, slots, graph.memory_slots)
        if self.options.frame is not None:
            frame = contract.frame_spec(contract.read_frame_size(self.options.frame), self.options.image_size)
            specs[frame.name] = frame
        spec = engine_spec(specs[self.name], self.options.compiler)
        for kind, wanted in (("inputs", spec.inputs), ("outputs", spec.outputs)):
            found = tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in facts[kind])
            if found != wanted:
                raise GraphError(
                    f"{kind} of the built {spec.name} break the contract",
                    expected=", ".join(map(str, wanted)),
                    got=", ".join(map(str, found)),
                )
        build = EngineBuild(
            builder=self.library.name,
            builder_version=facts["version"],
            architecture=platform.machine(),
            graph_sha256=graph.sha256,
            seconds=round(seconds, 1),
            compiler=self.options.compiler,
            gpu=self.gpu,
            peak_bytes=facts["peak_bytes"],
            device_memory_bytes=facts["device_memory_bytes"],
        )
        return describe_file(
            part,
            model=graph.model,
            graph=graph.graph,
            image_size=graph.image_size,
            precision=graph.precision,
            prompt_slots=graph.prompt_slots,
            memory_slots=graph.memory_slots,
            contract_version=contract.CONTRACT_VERSION,
            checkpoint_sha256=graph.checkpoint_sha256,
            parity={name: parity for name, parity in graph.parity.items() if name == "graph"},
            engine=build,
        )

    def _put_in_place(self, part: Path, manifest: Manifest) -> None:
        """Moves the engine and its manifest in; between the moves the engine has no manifest, and would be refused."""
        target = paths.manifest_path(self.engine)

        def swap(written: Path) -> None:
            written.write_text(manifest.to_text(), encoding="utf-8")
            target.unlink(missing_ok=True)
            part.chmod(0o644)
            part.replace(self.engine)
            failed_path(self.engine).unlink(missing_ok=True)

        paths.write_atomically(target, swap)


def _timing_cache(library: Library, gpu: Gpu | None) -> Path:
    """A file for each library and board: its timings hold for no other."""
    device = "no-gpu"
    if gpu is not None:
        facts = (gpu.name, gpu.compute_capability, f"{gpu.sm_count}sm", f"{gpu.total_bytes / 2**30:.0f}GiB", gpu.part)
        device = "-".join(fact for fact in facts if fact)
    name = f"{library.name}-{library.version}-{device}.cache"
    return paths.root() / "timing" / name.replace(" ", "_").replace("/", "_")
