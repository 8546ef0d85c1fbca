"""Stands for `tensorrt` where none is installed: has the calls that building makes, and ends as it is told to.

`FAKE_TENSORRT` in the environment says how: "ok", "killed", "crash", "no memory", "refuses", "full",
"slow", "large" (engines of 2 MB).
"""

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort

__version__ = "10.3.0"
float32, float16, int32, int64, uint8 = "f4", "f2", "i4", "i8", "u1"
NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
MemoryPoolType = SimpleNamespace(WORKSPACE=0)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = (SimpleNamespace(name=name) for name in ("INTERNAL_ERROR", "ERROR", "WARNING"))


class IProgressMonitor:
    pass


class _Network:
    def load(self, path: Any) -> None:
        self.path = path
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        kinds = {"tensor(float)": float32, "tensor(int32)": int32, "tensor(uint8)": uint8}
        self.inputs, self.outputs = (
            [SimpleNamespace(name=t.name, shape=tuple(t.shape), dtype=kinds[t.type]) for t in found]
            for found in (session.get_inputs(), session.get_outputs())
        )
        self.num_inputs, self.num_outputs = len(self.inputs), len(self.outputs)

    def get_input(self, index: Any) -> Any:
        return self.inputs[index]

    def get_output(self, index: Any) -> Any:
        return self.outputs[index]


class OnnxParser:
    num_errors = 1

    def __init__(self, network: Any, logger: Any) -> None:
        self.network = network

    def parse_from_file(self, path: Any) -> Any:
        if os.environ["FAKE_TENSORRT"] == "refuses":
            return False
        self.network.load(path)
        return True

    def get_error(self, index: Any) -> Any:
        return "node Einsum is not supported"


class _Config:
    def set_memory_pool_limit(self, pool: Any, limit: Any) -> None:
        assert limit > 0

    def create_timing_cache(self, content: Any) -> Any:
        return SimpleNamespace(content=content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: Any) -> Any:
        self.cache = cache
        return cache.content != b"of another version"

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.cache.content + b"timed")


class Builder:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: Any) -> Any:
        assert flags == 2
        return _Network()

    def create_builder_config(self) -> Any:
        return _Config()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        config.progress_monitor.phase_start("Building", None, 2)
        assert config.progress_monitor.step_complete("Building", 0)
        how = os.environ["FAKE_TENSORRT"]
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "no memory":
            self.logger.log(ILogger.ERROR, "Error Code 10: Could not find any implementation for node {Conv_0}")
            return None
        if how == "full":
            raise OSError(28, "No space left on device")
        if how == "slow":
            time.sleep(1)
        config.progress_monitor.phase_finish("Building")
        if how == "large":
            return bytes(2_000_000)
        # What tests/backends/fake_cuda.py runs, and the process, so that no two builds are alike.
        return f"{network.path}\nbuilt by process {os.getpid()}".encode()


class Runtime:
    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, engine: Any) -> Any:
        return SimpleNamespace(device_memory_size_v2=12345)
