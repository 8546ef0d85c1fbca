"""What a SOURCE on the command line says: its kind, its options, and how it may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from sam2edge.errors import InvalidInputError

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def kind_of(source: str) -> str:
    """ "file", "camera" (0, /dev/video0), "pipeline" ("... ! appsink"), or a URL's scheme in lower case.

    A file or folder of that name is taken for what it is.
    """
    path, _, options = source.partition("?")
    if source.startswith("/dev/"):
        return "camera"
    if Path(source).exists():
        return "file"
    scheme = _URL.match(source)
    if scheme is not None:
        return scheme[1].lower()
    if "!" in source:
        return "pipeline"
    return "camera" if path.isdecimal() and (not options or "=" in options) else "file"


def is_live(source: str) -> bool:
    """Whether `source` names a camera, a stream or a pipeline, and not a recording."""
    return kind_of(source) not in ("file", "bag")


def short_name(source: str) -> str:
    """A word for the files that are made from it: the name of a recording without its ending, or "live"."""
    if is_live(source):
        return "live"
    path = source.removeprefix("bag://").partition("?")[0] if kind_of(source) == "bag" else source
    return Path(path).stem or "video"


def without_password(source: str) -> str:
    """`source` as it may stand in messages and reports: the user and password of a URL are left out."""
    return re.sub(r"(://)[^/@\s]*@", r"\1", source)


def read_options(source: str, known: Mapping[str, type]) -> tuple[str, dict[str, object]]:
    """What stands before "?", and the options after it ("?width=1280&fps=30") as the types in `known`.

    Numbers must be above 0. Raises InvalidInputError for an option that is not known, or a value of another type.
    """
    name, _, query = source.partition("?")
    options: dict[str, object] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise InvalidInputError(
                f"unknown option {key!r} of {without_password(name)}", expected=f"one of {', '.join(known)}", got=key
            )
        try:
            options[key] = known[key](value)
        except ValueError:
            options[key] = 0
        if not options[key] or (known[key] is not str and not 0 < options[key] < 2**31):  # type: ignore[operator]
            kind = {int: "a whole number above 0", float: "a number above 0", str: "a word"}[known[key]]
            raise InvalidInputError(f"option {key!r} cannot be used", expected=kind, got=repr(value))
    return name, options
