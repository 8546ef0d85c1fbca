"""Cameras on a Jetson's CSI connector: `csi://0?width=1920&height=1080&fps=30&flip=2`."""

from __future__ import annotations

from sam2edge.errors import InvalidInputError
from sam2edge.video.sources.address import read_options


def csi_pipeline(source: str) -> str:
    """The GStreamer pipeline that reads the camera: NVIDIA's `nvarguscamerasrc`, its frames brought into host memory.

    `flip` is nvvidconv's flip-method: 2 turns by 180 degrees. Raises InvalidInputError for options that cannot be used.
    """
    name, options = read_options(source, {"width": int, "height": int, "fps": int, "flip": int})
    sensor = name.partition("://")[2]
    if not sensor.isdecimal():
        raise InvalidInputError("CSI camera cannot be used", expected="its number, as in csi://0", got=source)
    size = f"width={options.get('width', 1920)},height={options.get('height', 1080)}"
    caps = f"video/x-raw(memory:NVMM),{size},framerate={options.get('fps', 30)}/1"
    flip = f" flip-method={options['flip']}" if "flip" in options else ""
    return f"nvarguscamerasrc sensor-id={sensor} ! {caps} ! nvvidconv{flip} ! video/x-raw,format=NV12"
