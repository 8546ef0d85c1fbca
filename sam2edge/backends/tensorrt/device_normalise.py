"""Frames are normalised on the device: a quarter of the bytes to upload, and none of the CPU's time.

Off unless SAM2EDGE_DEVICE_NORMALISE=1 is in the environment: whether it is faster was not measured yet. The kernel is
PTX, which CUDA's driver compiles, so that neither a compiler nor its library is needed on the device.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import TensorSpec
from sam2edge.imaging.frame import MEAN_RGB, STD_RGB

if TYPE_CHECKING:  # it imports pycuda, which this file does without
    from sam2edge.backends.tensorrt.memory import CudaDevice, DeviceTensor

VARIABLE = "SAM2EDGE_DEVICE_NORMALISE"
_NAME = "normalise_frame"

# One thread a pixel: three bytes become a float in each of the three planes.
_HEAD = f"""
.version 6.4
.target sm_75
.address_size 64

.visible .entry {_NAME}(.param .u64 planes, .param .u64 frame, .param .u32 count, .param .u32 red)
{{
    .reg .pred %outside;
    .reg .b32 %block, %size, %thread, %pixel, %count, %red, %blue, %byte;
    .reg .b64 %planes, %frame, %target, %source, %place, %step;
    .reg .f32 %value;

    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %thread, %tid.x;
    mad.lo.u32 %pixel, %block, %size, %thread;
    ld.param.u32 %count, [count];
    setp.ge.u32 %outside, %pixel, %count;
    @%outside ret;
    ld.param.u64 %planes, [planes];
    ld.param.u64 %frame, [frame];
    ld.param.u32 %red, [red];
    cvta.to.global.u64 %planes, %planes;
    cvta.to.global.u64 %frame, %frame;
    mul.wide.u32 %source, %pixel, 3;
    add.u64 %source, %frame, %source;
    mul.wide.u32 %target, %pixel, 4;
    add.u64 %target, %planes, %target;
    mul.wide.u32 %step, %count, 4;
    sub.u32 %blue, 2, %red;
"""
_CHANNEL = """
    cvt.u64.u32 %place, {byte};
    add.u64 %place, %source, %place;
    ld.global.u8 %byte, [%place];
    cvt.rn.f32.u32 %value, %byte;
    fma.rn.f32 %value, %value, {scale}, {offset};
    st.global.f32 [%target], %value;
    add.u64 %target, %target, %step;
"""


def wanted() -> bool:
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def kernel_text() -> str:
    """The kernel with SAM 2's mean and standard deviation in it."""
    channels = (
        _CHANNEL.format(byte=byte, scale=_hex(1 / (255 * std)), offset=_hex(-mean / std))
        for byte, mean, std in zip(("%red", "1", "%blue"), MEAN_RGB, STD_RGB, strict=True)
    )
    return f"{_HEAD}{''.join(channels)}    ret;\n}}\n"


class FrameNormaliser:
    """Normalises frames of one size on one device."""

    def __init__(self, device: CudaDevice, image_size: int) -> None:
        self._device = device
        self._kernel = device.load_kernel(kernel_text(), _NAME)
        spec = TensorSpec("frame", (image_size, image_size, 3), "uint8")
        self._frame = device.tensors([spec])[spec.name]

    def __call__(self, frame: NDArray[np.uint8], color_order: str, image: DeviceTensor) -> None:
        """frame (S, S, 3) uint8 on the host -> image (1, 3, S, S) float32 on the device; not waited for."""
        pixels = frame.shape[0] * frame.shape[1]
        with self._device.active():
            self._device.upload(frame, self._frame)
            red = np.uint32(0 if color_order == "rgb" else 2)
            planes, source = np.uint64(image.address), np.uint64(self._frame.address)
            self._kernel(pixels, planes, source, np.uint32(pixels), red)


def _hex(value: float) -> str:
    """A float32 as PTX writes it."""
    return f"0f{struct.pack('>f', value).hex().upper()}"
