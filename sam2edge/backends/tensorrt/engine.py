"""One engine of TensorRT or TensorRT-RTX: read, checked, deserialised, run. The library itself is an argument."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sam2edge.backends.tensorrt import cuda_graphs
from sam2edge.backends.tensorrt.runtime_cache import RuntimeCache, has_runtime_cache
from sam2edge.contract import GraphSpec, TensorSpec
from sam2edge.errors import GraphError
from sam2edge.store.engine_checks import check_content, engine_spec
from sam2edge.store.manifest import Manifest
from sam2edge.store.paths import ENGINE_SUFFIX

if TYPE_CHECKING:  # it imports pycuda, which this file does without
    from sam2edge.backends.tensorrt.memory import DeviceBuffer


class Engine:
    """One deserialised engine and its execution context."""

    def __init__(
        self,
        library: ModuleType,
        runtime: Any,
        folder: Path,
        manifest: Manifest,
        spec: GraphSpec,
        log: deque[str],
    ) -> None:
        self.spec = engine_spec(spec, manifest.build.compiler)
        self._log = log
        self._runtime = runtime
        self._engine = runtime.deserialize_cuda_engine(_read_content(folder, manifest))
        if self._engine is None:
            raise self._failure("cannot be loaded", "build it again: sam2edge build")
        self._check_tensors(library)
        self._cache = RuntimeCache(library, manifest) if has_runtime_cache(library) else None
        self._context = self._create_context(library)
        if self._context is None:
            raise self._failure("gave no execution context", "free memory, or build it again: sam2edge build")
        self.scratch_bytes = int(self._engine.device_memory_size_v2)
        self._addresses: dict[str, int] = {}
        self._recorded = cuda_graphs.CudaGraphCache() if cuda_graphs.wanted() else None

    def use_scratch(self, scratch: DeviceBuffer) -> None:
        """Scratch memory that this engine shares with others; it is kept alive."""
        self._scratch = scratch
        self._context.set_device_memory(scratch.address, scratch.nbytes)

    def bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._failure(f"refused the address of {name}")
        self._addresses[name] = address

    def execute(self, stream_handle: int) -> None:
        def launch() -> bool:
            return bool(self._context.execute_async_v3(stream_handle))

        addresses = tuple(self._addresses.values())  # in the order of the first call, which every call has
        done = launch() if self._recorded is None else self._recorded.run(addresses, stream_handle, launch)
        if not done:
            raise self._failure("could not be run")
        if self._cache is not None:
            self._cache.keep()
            self._cache = None

    def close(self) -> None:
        """Frees the context, then the engine, then their runtime."""
        if self._recorded is not None:
            self._recorded.close()
        self._context = self._engine = self._runtime = None

    def _create_context(self, library: ModuleType) -> Any:
        strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._cache is None:
            return self._engine.create_execution_context(strategy)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        self._cache.use(config)
        return self._engine.create_execution_context(config)

    def _check_tensors(self, library: ModuleType) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        dtypes = {library.float32: "float32", library.int32: "int32", getattr(library, "uint8", None): "uint8"}
        for kind, mode, wanted in (
            ("inputs", library.TensorIOMode.INPUT, self.spec.inputs),
            ("outputs", library.TensorIOMode.OUTPUT, self.spec.outputs),
        ):
            found = {
                TensorSpec(n, tuple(engine.get_tensor_shape(n)), dtypes.get(engine.get_tensor_dtype(n), "other"))
                for n in names
                if engine.get_tensor_mode(n) == mode
            }
            if found != set(wanted):
                raise GraphError(
                    f"{kind} of engine {self.spec.name} break the contract",
                    expected=", ".join(map(str, wanted)),
                    got=", ".join(sorted(map(str, found))),
                    remedy="build it again with this version of sam2edge: sam2edge build",
                )

    def _failure(self, problem: str, remedy: str | None = None) -> GraphError:
        said = " | ".join(self._log) or "nothing in the log"
        return GraphError(f"engine {self.spec.name} {problem}", got=said, remedy=remedy)


def _read_content(folder: Path, manifest: Manifest) -> bytes:
    """The engine's bytes, read and hashed once; what they hold is executed, so nothing else may be loaded."""
    engine = folder / f"{manifest.graph}{ENGINE_SUFFIX}"
    try:
        content = engine.read_bytes()
    except OSError as error:
        raise GraphError(f"{engine.name} cannot be read", got=error.strerror, remedy="sam2edge build") from error
    check_content(engine, manifest, content)
    return content
