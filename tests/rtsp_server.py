"""A network camera that speaks RTSP: GStreamer's server in a process of its own, by the system's Python."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PIPELINE = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=25/1 ! videoconvert ! "
    "{encoder} ! {payloader} name=pay0 pt=96"
)
_PROGRAM = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory(); factory.set_shared(True)
if "depay0" in sys.argv[2]: factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
factory.set_launch("( " + sys.argv[2] + " )")
server.get_mount_points().add_factory("/stream", factory)
assert server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@contextmanager
def rtsp_camera(port: int = 0, source: str | None = None) -> Iterator[str]:
    """The address of a stream of a moving ball, or of what the pipeline `source` gives; its end ends the server.

    Skips the test where GStreamer's RTSP server is not installed.
    """
    encoder, payloader = _encoder()
    pipeline = (source or PIPELINE).format(encoder=encoder, payloader=payloader)
    server = subprocess.Popen(
        ["/usr/bin/python3", "-c", _PROGRAM, str(port), pipeline],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None and server.stderr is not None
        line = server.stdout.readline().strip()
        if not line.isdecimal():
            pytest.skip(f"no RTSP server (gir1.2-gst-rtsp-server-1.0): {server.stderr.read()[-200:]}")
        yield f"rtsp://127.0.0.1:{line}/stream"
    finally:
        server.kill()
        server.wait()
        for pipe in (server.stdout, server.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def rtsp_recorder(target: Path) -> Iterator[str]:
    """The address of a server that takes a stream of H.264 and writes it to a Matroska file."""
    with rtsp_camera(
        source=f"rtph264depay name=depay0 ! h264parse ! matroskamux ! filesink location={target}"
    ) as address:
        yield address


def _encoder() -> tuple[str, str]:
    inspect = shutil.which("gst-inspect-1.0")
    if inspect is None or not Path("/usr/bin/python3").exists():
        pytest.skip("no GStreamer (gstreamer1.0-tools)")
    for element, options, payloader in (
        ("x264enc", "tune=zerolatency key-int-max=15", "rtph264pay config-interval=1"),
        ("jpegenc", "", "rtpjpegpay"),
    ):
        if subprocess.run([inspect, "--exists", element]).returncode == 0:
            return f"{element} {options}", payloader
    pytest.skip("GStreamer has neither x264enc nor jpegenc")


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns once `condition()` holds; fails where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
