"""What others published for the boards that sam2edge runs on: the neighbours of `sam2edge bench`'s own figures."""

from __future__ import annotations

from dataclasses import dataclass

from sam2edge.machine.board import Board


@dataclass(frozen=True)
class Published:
    """One figure: `milliseconds` for one photo and one prompt, as `source` gives it for boards called `board`..."""

    board: str
    what: str
    milliseconds: float
    source: str


_NANOSAM = "https://github.com/NVIDIA-AI-IOT/nanosam"
_EFFICIENTVIT = "https://github.com/mit-han-lab/efficientvit/blob/master/applications/sam.md"
_ISAAC = "https://github.com/NVIDIA-ISAAC-ROS/isaac_ros_benchmark/tree/release-4.2"

PUBLISHED = (
    Published("Jetson Orin Nano", "NanoSAM (ResNet18) at 1024, TensorRT fp16", 27.0, _NANOSAM),
    Published("Jetson Orin Nano", "MobileSAM at 1024, TensorRT fp32 encoder", 146.0, _NANOSAM),
    Published("Jetson AGX Orin", "NanoSAM (ResNet18) at 1024, TensorRT fp16", 8.1, _NANOSAM),
    Published("Jetson AGX Orin", "MobileSAM at 1024, TensorRT fp32 encoder", 39.0, _NANOSAM),
    Published("Jetson AGX Orin", "EfficientViT-SAM-L0 at 512, TensorRT fp16", 8.2, _EFFICIENTVIT),
    Published("Jetson AGX Orin", "EfficientViT-SAM-XL1 at 1024, TensorRT fp16", 37.2, _EFFICIENTVIT),
    # Given as 15.0 and 2.26 frames a second of the whole graph.
    Published("Jetson T5000", "MobileSAM in Isaac ROS, 720p", 66.7, _ISAAC),
    Published("Jetson T5000", "SAM in Isaac ROS, 720p", 442.0, _ISAAC),
)


def find_published(board: Board) -> list[Published]:
    """The figures for this board; none where nothing was found, or the board is not known."""
    module = board.module or ""
    return [figure for figure in PUBLISHED if module.startswith(figure.board)]
