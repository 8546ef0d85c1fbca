"""Runs a straight-line PTX kernel with numpy, all threads at once: the few instructions that ours has.

Whether real PTX compilers take the text is not known from this.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Memory = Callable[[int, int], memoryview]


def run_kernel(ptx: str, name: str, arguments: tuple[Any, ...], threads: int, block: int, memory: Memory) -> None:
    """`memory` gives the bytes (address, size) of a buffer; `threads` counts all, those that leave early included."""
    head, _, body = ptx.partition("{")
    assert f".entry {name}(" in head
    names = re.findall(r"\.param \.u\d+ (\w+)", head)
    values: dict[str, Any] = dict(zip(names, (int(a) for a in arguments), strict=True))
    index = np.arange(threads, dtype=np.int64)
    registers: dict[str, Any] = {"%ctaid.x": index // block, "%ntid.x": block, "%tid.x": index % block}
    active = np.ones(threads, bool)

    def value(operand: str) -> Any:
        if operand.startswith("%"):
            return registers[operand]
        if operand.startswith("0f"):
            return np.float32(struct.unpack(">f", bytes.fromhex(operand[2:]))[0])
        return int(operand)

    for line in (line.strip().rstrip(";") for line in body.splitlines()):
        if not line or line.startswith((".reg", "}", "ret")):
            continue
        if line.startswith("@"):
            active &= ~registers[line.split()[0][1:]]
            continue
        operation, _, rest = line.partition(" ")
        target, *sources = (part.strip() for part in rest.split(","))
        if operation.startswith("ld.param"):
            registers[target] = values[sources[0].strip("[]")]
        elif operation == "ld.global.u8":
            registers[target] = _gather(memory, registers[sources[0].strip("[]")], active)
        elif operation == "st.global.f32":
            _scatter(memory, registers[target.strip("[]")], value(sources[0]), active)
        else:
            registers[target] = _OPERATIONS[operation](*map(value, sources))


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "mov.u32": lambda a: a,
    "cvta.to.global.u64": lambda a: a,
    "cvt.u64.u32": lambda a: a,
    "add.u64": lambda a, b: a + b,
    "sub.u32": lambda a, b: a - b,
    "mul.wide.u32": lambda a, b: a * b,
    "mad.lo.u32": lambda a, b, c: a * b + c,
    "setp.ge.u32": lambda a, b: a >= b,
    "cvt.rn.f32.u32": lambda a: a.astype(np.float32),
    # In float64 the product is exact, and the sum is rounded once more than an fma rounds it: never by much.
    "fma.rn.f32": lambda a, b, c: (a.astype(np.float64) * float(b) + float(c)).astype(np.float32),
}


def _gather(memory: Memory, addresses: np.ndarray, active: np.ndarray) -> np.ndarray:
    used = addresses[active]
    block = np.frombuffer(memory(int(used.min()), int(np.ptp(used)) + 1), np.uint8)
    found = np.zeros(len(addresses), np.uint32)
    found[active] = block[used - used.min()]
    return found


def _scatter(memory: Memory, addresses: np.ndarray, values: np.ndarray, active: np.ndarray) -> None:
    used = addresses[active]
    block = np.frombuffer(memory(int(used.min()), int(np.ptp(used)) + 4), np.float32)
    block[(used - used.min()) // 4] = values[active]
