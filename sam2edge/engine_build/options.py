"""What to build and how: filled once, by the command line or by a model that is loaded, and read by every process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sam2edge.contract import read_frame_size
from sam2edge.errors import InvalidInputError
from sam2edge.store import paths
from sam2edge.store.typed_json import parse_as
from sam2edge.variants import VARIANTS, Variant

COMPILERS = ("tensorrt", "torch2trt")


@dataclass(frozen=True)
class BuildOptions:
    """A model's engines.

    `model` is a variant's name, `image_size` the side of its input in pixels. `compiler` "torch2trt" converts the torch
    module instead of parsing the graph. `level` 0..5 trades build time for speed. `skip_built` keeps engines that are
    still right. `checkpoint` names weights (None: those in the store), `graphs` a folder of exported graphs (None: the
    store or the package), `out` the folder to write engines to (None: the store). `frame`, such as "1920x1080", is the
    size of a camera's frames, for which one more engine is built. `memory_slots` is how many memories a tracked frame
    attends to (None: as many as the graphs that are there, else the model's own number).
    """

    model: str
    image_size: int
    precision: str = "fp16"
    compiler: str = "tensorrt"
    level: int = 3
    skip_built: bool = False
    checkpoint: Path | None = None
    graphs: Path | None = None
    out: Path | None = None
    frame: str | None = None
    memory_slots: int | None = None

    def __post_init__(self) -> None:
        if self.image_size < 64 or self.image_size % 32:
            raise InvalidInputError(
                "image size cannot be used", expected="a multiple of 32, at least 64", got=self.image_size
            )

        if self.frame is not None:
            read_frame_size(self.frame)
        if self.graphs is not None and self.memory_slots is not None:
            raise InvalidInputError(
                "graphs have their number of memory slots already", expected="graphs or memory slots", got="both"
            )

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.model]

    @property
    def engine_dir(self) -> Path:
        return self.out or paths.engine_dir(self.variant, self.image_size, self.precision)

    @property
    def arguments(self) -> list[str]:
        """The model as the scripts of `sam2edge.export` take it."""
        found = [self.model, "--size", str(self.image_size), "--precision", self.precision]
        return found if self.checkpoint is None else [*found, "--checkpoint", str(self.checkpoint)]


@dataclass(frozen=True)
class BuildTask:
    """One engine, for the process that builds it from the graph `onnx` into the file `engine`.

    `library` is the module to import, `workspace_bytes` the most scratch memory (0: the builder's own limit);
    `load_engine` has the engine deserialised once, which takes the GPU it was built for.
    """

    options: BuildOptions
    library: str
    graph: str
    onnx: Path
    engine: Path
    prompt_slots: int
    memory_slots: int | None = None
    workspace_bytes: int = 0
    timing_cache: Path | None = None
    load_engine: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> BuildTask:
        return parse_as(cls, json.loads(text))
