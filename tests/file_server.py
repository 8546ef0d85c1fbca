"""A web server on this machine with one file and every vice that a download meets."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from sam2edge.variants import Checkpoint, Variant, find_variant

ETAG = '"abc"'


@dataclass
class FileServer:
    """Serves `content` at /weights.pt. The fields are what it does wrong; `requests` are the headers that came."""

    content: bytes
    status: int = 200
    drop_after: int | None = None  # bytes, in each answer
    stall_after: int | None = None
    ranges: bool = True
    etag: str = ETAG
    stated_length: int | None = None
    no_length: bool = False
    redirect: str | None = None
    wrong_range: bool = False
    headers: dict[str, str] = field(default_factory=dict)  # of each answer, besides its own
    delay: float = 0.0
    tls: ssl.SSLContext | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def __enter__(self) -> FileServer:
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of clients that went away
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self._server.server_address[1]}"

    def variant(self, **changes: Any) -> Variant:
        """SAM 2.1 tiny, whose official file is the one that is served here."""
        source = Checkpoint(f"{self.address}/weights.pt", hashlib.sha256(self.content).hexdigest(), len(self.content))
        return replace(find_variant("sam2/hiera_tiny"), checkpoint=replace(source, **changes))

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests.append(dict(self.headers))
                server.paths.append(self.path)
                time.sleep(server.delay)
                server._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        if self.redirect is not None or self.status != 200:
            request.send_response(302 if self.redirect else self.status)
            request.send_header("Location", self.redirect or "")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = self._start(request)
        if start >= len(self.content) and start:
            request.send_error(416)
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            first = start + self.wrong_range
            request.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        if not self.no_length:
            request.send_header("Content-Length", str(self.stated_length or len(body)))
        request.send_header("ETag", self.etag)
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        if self.stall_after is not None:
            request.wfile.write(body[: self.stall_after])
            self._over.wait(30)
        else:
            request.wfile.write(body[: self.drop_after])

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        wanted = request.headers.get("Range", "")
        if not self.ranges or not wanted or request.headers.get("If-Range", self.etag) != self.etag:
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))
