"""Downloads official checkpoints into the store, from their server or a mirror, and checks them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sam2edge.errors import InvalidInputError, StoreError
from sam2edge.files import locked
from sam2edge.store import paths
from sam2edge.store.download import (
    OTHER_WAYS,
    Progress,
    ask_size,
    copy_file,
    download,
    size_of,
    validator_path,
    without_credentials,
)
from sam2edge.store.inventory import is_official, partial_path, read_digest
from sam2edge.variants import Checkpoint, Variant

MIRROR_VARIABLE = "SAM2EDGE_MIRROR"
TIMEOUT_SECONDS = 30.0
"""For connecting, and for each wait for data."""


def pull_checkpoint(
    variant: Variant,
    progress: Progress = lambda done, total: None,
    on_wait: Callable[[], None] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Path:
    """Downloads the model's official weights into the store, unless they are there, and returns their path.

    One process at a time downloads a file; another calls `on_wait` and waits. The next call resumes an interrupted
    download; a file with a wrong checksum is not kept.

    Raises InvalidInputError for the embedded model, StoreError where the download fails.
    """
    source = variant.checkpoint
    if source is None:
        raise InvalidInputError(
            f"{variant.model_id} comes with the package", remedy="use it; there is nothing to download"
        )
    if source.digest is None:
        raise StoreError(
            f"no checksum of {source.file_name} is published, so it is not fetched",
            expected="weights whose bytes can be checked",
            got=source.url,
            remedy=f"fetch it yourself, then: sam2edge models add {source.file_name}",
        )
    target = paths.checkpoint_dir() / source.file_name
    part = partial_path(target)
    try:
        with locked(paths.lock_path(source.file_name), on_wait):
            if not is_official(target, source):
                _refuse_to_replace(target, variant)
                _fetch_whole(source, part, progress, timeout_seconds)
                part.chmod(0o644)
                part.replace(target)
                validator_path(part).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{source.file_name} cannot be written",
            expected=f"room for {source.size_bytes or 'its'} bytes in {target.parent}",
            got=error.strerror or str(error),
            remedy="make room or set SAM2EDGE_HOME to another folder, then run it again: it goes on where it broke off",
        ) from error
    return target


def _refuse_to_replace(target: Path, variant: Variant) -> None:
    if target.is_file() and paths.manifest_path(target).is_file():
        raise StoreError(
            f"the store has other weights of {variant.model_id}, added by hand",
            got=str(target),
            remedy=f"sam2edge models remove {variant.model_id}",
        )


def _fetch_whole(source: Checkpoint, part: Path, progress: Progress, timeout_seconds: float) -> None:
    """Downloads the official file into `part`; if a resumed file is wrong, again from the start."""
    part.parent.mkdir(parents=True, exist_ok=True)
    place = _find_source(source)
    assert source.digest is not None
    size_bytes = source.size_bytes
    if size_bytes is None:
        size_bytes = size_of(place) if isinstance(place, Path) else ask_size(place, timeout_seconds)
    while True:
        continued = size_of(part) > 0
        paths.require_room(part.parent, size_bytes - size_of(part), f"for {source.file_name}")
        if isinstance(place, Path):
            _check_size(place, size_bytes)
            copy_file(place, part, progress)
        else:
            download(place, part, size_bytes, progress, timeout_seconds)
        digest = read_digest(part, source.digest)
        if digest == source.digest:
            return
        part.unlink()
        if not continued:
            raise StoreError(
                f"{source.file_name} from {without_credentials(str(place))} is not the official file; it was not kept",
                expected=source.digest,
                got=digest,
                remedy=f"try again; or {OTHER_WAYS}",
            )


def _find_source(source: Checkpoint) -> str | Path:
    """The address or file to read: the official one, or the one of the same name in the mirror."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    if not mirror:
        return source.url
    try:
        parts = urlsplit(mirror)
        usable = parts.scheme in ("", "file") or (parts.scheme in ("http", "https") and bool(parts.hostname))
        _ = parts.port
        folder = Path(unquote(parts.path)) if parts.scheme == "file" else Path(mirror).expanduser()
    except (ValueError, RuntimeError):  # "http://[::1", port "x", "~nobody"
        usable = False
    if not usable:
        raise InvalidInputError(
            f"{MIRROR_VARIABLE} cannot be used",
            expected="an http(s) address or a folder",
            got=repr(without_credentials(mirror)),
            remedy="correct it, or unset it for the official server",
        )
    return f"{mirror.rstrip('/')}/{source.file_name}" if parts.scheme.startswith("http") else folder / source.file_name


def _check_size(file: Path, size_bytes: int) -> None:
    """Checks a mirror's file before it is copied; whether it can be read, copying it shows."""
    if file.is_file() and file.stat().st_size != size_bytes:
        raise StoreError(
            f"{file} is not the official file",
            expected=f"{size_bytes} bytes",
            got=file.stat().st_size,
            remedy=f"copy it again; or {OTHER_WAYS}",
        )
