"""A network camera: JPEGs over HTTP, one after another."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2

from tests.fake_backend import bright_square


@contextmanager
def served(parts: Iterator[bytes]) -> Iterator[str]:
    """The address of an MJPEG stream, as cheap network cameras give it; it ends with its parts."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
            self.end_headers()
            try:
                for part in parts:
                    head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                    self.wfile.write(head.encode() + part + b"\r\n")
            except OSError:  # the reader has left
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/stream.mjpg"
    finally:
        server.shutdown()
        server.server_close()


def jpegs(count: int | None = None, pause_seconds: float = 0.01) -> Iterator[bytes]:
    for number in itertools.count() if count is None else range(count):
        time.sleep(pause_seconds)
        yield cv2.imencode(".jpg", bright_square(number % 40))[1].tobytes()


def announce_size(jpeg: bytes, side: int) -> bytes:
    """A JPEG whose header says that it is so many pixels wide and high."""
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + side.to_bytes(2, "big") * 2 + jpeg[start + 4 :]
