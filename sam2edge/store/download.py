"""Downloads a file over http(s), resuming where it stopped, or copies it. The caller compares its checksum."""

from __future__ import annotations

import base64
import http.client
import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from sam2edge.errors import StoreError
from sam2edge.store import paths

ATTEMPTS = 5
OTHER_WAYS = "set SAM2EDGE_MIRROR to a mirror or a folder, or copy the file here and run `sam2edge models add FILE`"
_BLOCK_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and those of the whole file."""


class _Dropped(Exception):
    """The connection ended or stalled before the file was whole; what was received is kept."""


def download(url: str, part: Path, size_bytes: int, progress: Progress, timeout_seconds: float) -> None:
    """Downloads into `part` until it has `size_bytes`, resuming from what it holds where the server allows that.

    `timeout_seconds` limits connecting and each wait for data. A dropped connection is made again while it brings
    data, five times at most. Raises StoreError; what was received stays in `part` unless it is unusable. Raises OSError
    where the disk fails.
    """
    for _ in range(ATTEMPTS):
        before = size_of(part)
        try:
            return _receive(url, part, size_bytes, progress, timeout_seconds)
        except _Dropped as dropped:
            reason = dropped
        if before == size_of(part):
            break
    raise StoreError(
        f"the download of {without_credentials(url)} broke off",
        expected=f"{size_bytes} bytes",
        got=f"{size_of(part)} ({reason})",
        remedy=f"run it again: it goes on where it broke off; or {OTHER_WAYS}",
    )


def ask_size(url: str, timeout_seconds: float) -> int:
    """Bytes of the file at an address, as the server states them; raises StoreError if it does not."""
    try:
        response = _open(_request(url), timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        raise _unusable_error(url, "the file", f"HTTP status {error.code} ({error.reason})") from error
    with response:
        _check_kind(url, response)
        size_bytes = _read_total_bytes(response, 0)
    if size_bytes is None:
        raise _unusable_error(url, "its size, as Content-Length", "an answer without it")
    return size_bytes


def copy_file(source: Path, part: Path, progress: Progress = lambda done, total: None) -> None:
    """Copies a file. Raises StoreError where `source` cannot be read, OSError where `part` cannot be written."""
    try:
        stream = open(source, "rb", opener=_open_at_once)  # noqa: SIM115  # closed below
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(None, "a pipe, a device or a folder, not a file")
    except OSError as error:
        raise _unreadable_error(source, error) from error
    total = found.st_size
    with stream, part.open("wb") as out:
        while True:
            try:
                block = stream.read(_BLOCK_BYTES)
            except OSError as error:
                raise _unreadable_error(source, error) from error
            if not block:
                return
            out.write(block)
            progress(out.tell(), total)


def _open_at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # or a FIFO without a writer would block


def split_credentials(url: str) -> tuple[str, str | None]:
    """The address without user and password, and the `Authorization` header made of them (RFC 7617)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    encoded = base64.b64encode(unquote(user).encode()).decode()
    return parts._replace(netloc=host).geturl(), f"Basic {encoded}"


def without_credentials(url: str) -> str:
    """The address as messages and files may show it; works on any text."""
    return re.sub(r"//[^/]*@", "//", url)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def validator_path(part: Path) -> Path:
    """The file with what a later request needs to resume `part`."""
    return part.with_name(f"{part.name}.json")


def _receive(
    url: str, part: Path, size_bytes: int, progress: Progress, timeout_seconds: float, from_start: bool = False
) -> None:
    """One request for what is missing. Raises _Dropped if the file is not whole afterwards.

    An answer that does not continue `part` goes to a second file, and replaces `part` only once it is longer.
    """
    if size_of(part) > size_bytes:
        part.unlink()
    there = size_of(part)
    if there == size_bytes:
        return
    wanted = 0 if from_start else there
    try:
        response = _open(_request(url, part, wanted), timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and wanted:
            return _receive(url, part, size_bytes, progress, timeout_seconds, from_start=True)
        raise _unusable_error(url, "the file", f"HTTP status {error.code} ({error.reason})") from error
    with response:
        _check_kind(url, response)
        start = _read_first_byte(response)
        if start not in (0, wanted):
            if not wanted:
                raise _unusable_error(url, "bytes from 0 on", f"bytes from {start} on")
            return _receive(url, part, size_bytes, progress, timeout_seconds, from_start=True)
        total = _read_total_bytes(response, start)
        if total not in (None, size_bytes):
            raise _unusable_error(url, f"bytes {start} to {size_bytes}", f"bytes {start} to {total}")
        gathered = part if start or not there else part.with_name(f"{part.name}.anew")
        if gathered == part:
            _keep_validator(part, url, response)
        with gathered.open("r+b" if start else "wb") as out:
            out.seek(start)
            try:
                _write_all(response, out, size_bytes, progress)
            finally:
                out.flush()
                _keep_the_longer(gathered, part, size_bytes)
        if gathered != part and not gathered.exists():
            _keep_validator(part, url, response)
    if size_of(part) > size_bytes:
        part.unlink()
        raise _unusable_error(url, f"{size_bytes} bytes", "more")
    if size_of(part) < size_bytes:
        raise _Dropped("the connection was closed")


def _keep_the_longer(gathered: Path, part: Path, size_bytes: int) -> None:
    if gathered == part:
        return
    if size_of(part) < size_of(gathered) <= size_bytes:
        gathered.replace(part)
    else:
        gathered.unlink()


def _check_kind(url: str, response: http.client.HTTPResponse) -> None:
    """Refuses the page of a captive portal and the compressed answer of a proxy: neither is part of the file."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity" or response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        got = "a web page (is a login needed on this network?)" if encoding == "identity" else f"{encoding} data"
        raise _unusable_error(url, "the file as it is", got)


def _write_all(response: http.client.HTTPResponse, out: IO[bytes], size_bytes: int, progress: Progress) -> None:
    while out.tell() <= size_bytes:
        try:
            block = response.read1(_BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _Dropped(str(error) or type(error).__name__) from error
        if not block:
            return
        out.write(block)
        progress(min(out.tell(), size_bytes), size_bytes)


def _request(url: str, part: Path | None = None, there: int = 0) -> urllib.request.Request:
    """A request for the file, without its first `there` bytes, which are in `part`."""
    address, authorization = split_credentials(url)
    headers = {"User-Agent": "sam2edge", "Accept-Encoding": "identity"}
    if there and part is not None:
        headers["Range"] = f"bytes={there}-"
        saved = paths.read_json(validator_path(part))
        if saved.get("url") == address and saved.get("validator"):
            headers["If-Range"] = str(saved["validator"])
    request = urllib.request.Request(address, headers=headers)
    if authorization is not None:
        request.add_unredirected_header("Authorization", authorization)  # for this server alone
    return request


class _HttpsStays(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to an address that others can read or change on the way."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            before, after = (urlsplit(address).scheme for address in (req.full_url, newurl))
        except ValueError:
            before, after = "https", "not an address"
        if after != "https" and (before, after) != ("http", "http"):
            raise StoreError(
                "the server redirects to an unsafe address; it was not followed",
                expected="https",
                got=without_credentials(newurl),
                remedy=f"check the network (a login page?); or {OTHER_WAYS}",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request, timeout_seconds: float) -> http.client.HTTPResponse:
    """The response. Raises HTTPError for an error status, StoreError if there is no response."""
    opener = urllib.request.build_opener(_HttpsStays)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout_seconds)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise StoreError(
            f"{request.full_url} cannot be reached",
            got=str(reason) or type(reason).__name__,
            remedy=f"check the network; or {OTHER_WAYS}",
        ) from error
    return response


def _read_first_byte(response: http.client.HTTPResponse) -> int:
    """The position in the file at which the response starts: 0 if the server sends all of it."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    stated = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(stated[1]) if stated else -1


def _read_total_bytes(response: http.client.HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _keep_validator(part: Path, url: str, response: http.client.HTTPResponse) -> None:
    """Saves what If-Range needs to resume: a strong ETag, else the date (RFC 9110, section 13.1.5)."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    paths.write_json(validator_path(part), {"url": without_credentials(url), "validator": validator})


def _unusable_error(url: str, expected: str, got: object) -> StoreError:
    return StoreError(
        f"{without_credentials(url)} does not give the official file",
        expected=expected,
        got=got,
        remedy=f"try again; or {OTHER_WAYS}",
    )


def _unreadable_error(source: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{source} cannot be read", got=error.strerror or str(error), remedy="check the path and the disk"
    )
