"""What a frame takes at the least on each device, from the model's own operations: arithmetic and memory traffic.

    python -m bench.roofline [--models micro,tiny,...] [--sizes 512,1024]        # needs torch; computes nothing

The graphs run on torch's "meta" device, which knows shapes and no values. Arithmetic is that of matrix products and
convolutions, two operations a multiply-add. Memory traffic is counted in float16, twice: fused, where only products and
whole attentions read and write memory, and unfused, where every operation does and an attention's scores are written
and read. The time is the longer of both divided by the device's peaks. No kernel reaches those: the one published
figure that can be set beside it (base_plus at 512 on an Orin NX, 61 ms) is 4.4 times the fused bound.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sam2edge import contract
from sam2edge.export.graphs import GRAPHS
from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import Variant, find_variant

BYTES = 2
MODELS = "micro,edgetam,efficienttam_ti,efficienttam_ti_1,efficienttam_s,efficienttam_s_1,tiny,small,b_plus,large"


@dataclass(frozen=True)
class Device:
    """Peaks: dense float16 products of the tensor cores in operations a second, memory in bytes a second.

    `source` names the publication of NVIDIA and where its figures were read.
    """

    name: str
    operations: float
    bandwidth: float
    source: str


# For Jetsons NVIDIA gives sparse INT8 or FP4. Half of either is dense, and float16 has half the rate of INT8 and FP8, a
# quarter of FP4's.
DEVICES = (
    Device(
        "Orin Nano Super",
        67e12 / 4,
        102e9,
        "Jetson Orin Nano Super Developer Kit data sheet: 67 sparse INT8 TOPS, 102 GB/s; "
        "https://www.brojogopalsapui.com/ai-foundations/sub_contents/AI_hardware/jetson_orin_nano_light.html",
    ),
    Device(
        "Orin NX 16 GB",
        60e12 / 4,
        102.4e9,
        "Jetson Orin NX Series data sheet: 100 sparse INT8 TOPS with its two accelerators. The GPU's part is computed: "
        "32 tensor cores at 918 MHz, where AGX Orin has 64 at 1.3 GHz for 170; "
        "https://github.com/icub-tech-iit/cad-libraries/files/13056089/JETSON-ORIN-NX-DATASHEET.pdf",
    ),
    Device(
        "AGX Orin 64 GB",
        170e12 / 4,
        204.8e9,
        "Jetson AGX Orin Series technical brief: the GPU's 170 sparse INT8 TOPS, 204.8 GB/s; "
        "http://mzph.cn/web/30785.shtml",
    ),
    Device(
        "Thor T5000",
        2070e12 / 8,
        273e9,
        "Jetson T5000: 2,070 sparse FP4 TFLOPS, 258.5 dense in float16, 273 GB/s; "
        "https://huggingface.co/hardware/jetson-t5000",
    ),
    Device(
        "H200",
        1979e12 / 2,
        4.8e12,
        "H200 SXM data sheet: 1,979 sparse float16 TFLOPS, 4.8 TB/s; https://aiwiki.ai/wiki/nvidia_h200",
    ),
)


@dataclass
class Work:
    """Of one graph: operations of its products, bytes read and written fused and unfused."""

    operations: float = 0
    fused_bytes: float = 0
    unfused_bytes: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.operations + other.operations,
            self.fused_bytes + other.fused_bytes,
            self.unfused_bytes + other.unfused_bytes,
        )

    def seconds(self, device: Device, fused: bool = True) -> float:
        traffic = self.fused_bytes if fused else self.unfused_bytes
        return max(self.operations / device.operations, traffic / device.bandwidth)


class _Counter(TorchFunctionMode):
    """Counts what each call of a torch function computes and moves."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            out = func(*args, **(kwargs or {}))
        inputs = [x for x in args if isinstance(x, Tensor)]
        operations = _count_operations(func, inputs, out)
        # A product's result may be a view too; other views move nothing.
        if operations or (isinstance(out, Tensor) and not out._is_view()):
            moved = BYTES * sum(x.numel() for x in (*inputs, out))
            self.work.operations += operations
            self.work.unfused_bytes += moved
            self.work.fused_bytes += moved if operations else 0
            if func is F.scaled_dot_product_attention:  # written by the product, read and written by softmax, read
                self.work.unfused_bytes += 4 * BYTES * math.prod(inputs[0].shape[:-1]) * inputs[1].shape[-2]
        return out


def _count_operations(func: Any, inputs: list[Tensor], out: Tensor) -> float:
    if func is F.scaled_dot_product_attention:
        q, k, v = inputs[:3]
        return 2.0 * math.prod(q.shape[:-1]) * k.shape[-2] * (k.shape[-1] + v.shape[-1])
    if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__, F.linear):
        return 2.0 * out.numel() * inputs[0].shape[-1]
    if func in (F.conv2d, torch.conv2d):
        return 2.0 * out.numel() * math.prod(inputs[1].shape[1:])
    if func in (F.conv_transpose2d, torch.conv_transpose2d):
        return 2.0 * inputs[0].numel() * math.prod(inputs[1].shape[1:])
    return 0.0


def count_work(variant: Variant, image_size: int, memory_slots: int | None = None) -> dict[str, Work]:
    """The work of each graph, as it is made for a GPU: values of the memory attention are projected first."""
    with torch.device("meta"):
        model = Sam2(variant, image_size)
        model.image_encoder.trunk.bake_position()  # as graphs are made: convolutions with their norms in them
    found = {}
    for name, spec in contract.graph_specs(variant, image_size, memory_slots=memory_slots).items():
        feed = [torch.empty(t.shape, dtype=getattr(torch, t.dtype), device="meta") for t in spec.inputs]
        with torch.enable_grad(), _Counter() as counter:
            GRAPHS[name](model)(*feed)
        found[name] = counter.work
    return found


def make_table(variants: Iterable[Variant], sizes: Iterable[int] | None, memory_slots: int | None) -> list[str]:
    """Lines of a Markdown table: a row for a model and size."""
    heads = [f"{d.name}, ms" for d in DEVICES]
    lines = [
        f"| model | size | GFLOP | MB fused / not | {' | '.join(heads)} | ruled by, on Nano |",
        f"|---|---:|---:|---:|{'---:|' * len(heads)}---|",
    ]
    for variant in variants:
        for size in sizes or (variant.image_size,):
            frame = sum(count_work(variant, size, memory_slots).values(), Work())
            times = [f"{1e3 * frame.seconds(d):.1f} / {1e3 * frame.seconds(d, fused=False):.1f}" for d in DEVICES]
            nano = DEVICES[0]
            ruled = (
                "arithmetic" if frame.operations / nano.operations > frame.fused_bytes / nano.bandwidth else "memory"
            )
            moved = f"{frame.fused_bytes / 1e6:.0f} / {frame.unfused_bytes / 1e6:.0f}"
            cells = [
                variant.size if variant.is_2_1 else variant.name,
                str(size),
                f"{frame.operations / 1e9:.0f}",
                moved,
                *times,
                ruled,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="The least time of a tracked frame, fused / unfused attention.")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--sizes", default="512,1024")
    parser.add_argument("--memory-slots", type=int, help="memories that a frame attends to; default: all seven")
    args = parser.parse_args()
    variants = [find_variant(name) for name in args.models.split(",")]
    print("\n".join(make_table(variants, [int(size) for size in args.sizes.split(",")], args.memory_slots)))


if __name__ == "__main__":
    main()
