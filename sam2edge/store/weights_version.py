"""Which version of the embedded model's weights a file holds, and that its weights and graphs are of one.

The number stands in the metadata of the weight file and of each graph; it is read without torch, onnx or ONNX Runtime.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

from sam2edge.contract import IMAGE_GRAPHS, MEMORY_GRAPHS
from sam2edge.errors import GraphError
from sam2edge.variants import EMBEDDED, Variant

WEIGHTS_KEY = "version"
GRAPH_KEY = "sam2edge_weights_version"

# Fields of ModelProto and StringStringEntryProto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_METADATA, _KEY, _VALUE = 14, 1, 2
_NUMBER_FIELD, _BYTES_FIELD = 0, 2  # protobuf's wire types; text, bytes and messages have their length before them
_MOST_HEADER_BYTES = 1 << 22  # more is damage


def check_weights_version(variant: Variant, checkpoint: Path | None, graph_dir: Path | None) -> None:
    """Raises GraphError where the embedded model's weights and graphs at hand are not all of one version.

    Nothing is asked of other models, nor of files that are missing or cannot be read: who loads those says so.
    """
    if variant.name != EMBEDDED:
        return
    files = [] if checkpoint is None else [checkpoint]
    files += [] if graph_dir is None else [graph_dir / f"{name}.onnx" for name in IMAGE_GRAPHS + MEMORY_GRAPHS]
    stated = [(path, metadata) for path in files if (metadata := _metadata(path)) is not None]
    for path, metadata in stated[1:]:
        first, expected, got = stated[0][0], _version(stated[0][1]), _version(metadata)
        if got != expected:
            raise GraphError(
                f"{first.name} and {path.name} of {variant.model_id} are of different versions",
                expected=f"version {expected or 'none'} as in {first}",
                got=f"version {got or 'none'} in {path}",
                remedy="reinstall sam2edge; graphs in the store: export them again with "
                f"python -m sam2edge.export.to_onnx {variant.model_id}",
            )


def weights_version(path: Path) -> str | None:
    """The version that a weight file or graph states; None where it states none or cannot be read."""
    return _version(_metadata(path) or {})


def _version(metadata: dict[str, str]) -> str | None:
    return metadata.get(GRAPH_KEY, metadata.get(WEIGHTS_KEY))


def _metadata(path: Path) -> dict[str, str] | None:
    """What a file says of itself; None where it cannot be read."""
    readers = {".safetensors": _safetensors_metadata, ".onnx": _onnx_metadata}
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, AttributeError, KeyError, RecursionError):
        return None


def _safetensors_metadata(path: Path) -> dict[str, str]:
    """From the header: eight bytes of length, little-endian, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST_HEADER_BYTES:
            raise ValueError("no safetensors header")
        header = json.loads(file.read(length))
    return dict(header.get("__metadata__", {}))


def _onnx_metadata(path: Path) -> dict[str, str]:
    """From the file's own fields; the graph itself is stepped over."""
    entries = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number, start, end in _fields(content, 0, len(content)):
            if number == _METADATA:
                entry = {key: content[a:b].decode() for key, a, b in _fields(content, start, end)}
                entries[entry[_KEY]] = entry[_VALUE]
    return entries


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a protobuf message that has a length; plain numbers are stepped over."""
    while at < end:
        tag, at = _varint(content, at, end)
        length, after = _varint(content, at, end)
        if tag & 7 == _BYTES_FIELD:
            at, after = after, after + length
            if after > end:
                raise ValueError("cut short")
            yield tag >> 3, at, after
        elif tag & 7 != _NUMBER_FIELD:
            raise ValueError("no field of a model")
        at = after


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("cut short")
