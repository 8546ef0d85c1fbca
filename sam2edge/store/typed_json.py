"""Dataclasses from JSON, checked against the types of their fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def parse_as(kind: type[T], content: object) -> T:
    """The dataclass `kind` that `content`, parsed from JSON, holds. Raises ValueError naming the entry at fault.

    Fields are str, int, float, bool, Path, None, other dataclasses, unions of these, and `dict[str, X]`.
    """
    return typing.cast(T, _parse(kind, content, ""))


def _parse(kind: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(typing.get_args(kind), value, name)
    if origin is dict and isinstance(value, Mapping):
        inner = typing.get_args(kind)[1]
        return {str(key): _parse(inner, entry, _join(name, key)) for key, entry in value.items()}
    if is_dataclass(kind) and isinstance(value, Mapping):
        return _parse_dataclass(kind, value, name)
    if kind is Path and isinstance(value, str):
        return Path(value)
    plain = origin is None and not is_dataclass(kind)
    if (
        plain
        and isinstance(value, (int, float) if kind is float else kind)
        and (kind is bool) == isinstance(value, bool)
    ):
        return value
    raise ValueError(f"{name} = {value!r}" if name else f"not an object but {value!r}")


def _parse_union(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    for kind in rest[:-1]:
        try:
            return _parse(kind, value, name)
        except ValueError:
            continue
    return _parse(rest[-1], value, name)


def _parse_dataclass(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"unknown entry {_join(name, unknown[0])}")
    required = (n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING)
    missing = [field for field in required if field not in value]
    if missing:
        raise ValueError(f"no entry {_join(name, missing[0])}")
    return kind(**{key: _parse(hints[key], entry, _join(name, key)) for key, entry in value.items()})


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)
