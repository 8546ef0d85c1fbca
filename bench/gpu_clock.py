"""Milliseconds of work on a device by the device's own events, in torch. Needs torch alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from bench.worker import Timed


class TorchClock:
    """Times what a function queues on the current stream; on the CPU, for trying a benchmark out, by the wall clock."""

    def __init__(self, device: str) -> None:
        self._on_gpu = torch.device(device).type == "cuda"

    def time(self, work: Callable[[], Any]) -> Timed:
        with torch.inference_mode():
            if not self._on_gpu:
                start = time.perf_counter()
                work()
                return Timed((time.perf_counter() - start) * 1e3)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            return Timed(begin.elapsed_time(end))
