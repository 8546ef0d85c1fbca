"""A live stream that dies and returns, for as long as you say: `python -m tests.faults.soak --minutes 60`.

Two readers follow it as a service would: each opens the stream anew when it ends, while objects are prompted, corrected
and removed. Memory, open files and threads are written down every ten seconds; the status is 1 where they grow.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import cv2

from sam2edge import AutoModel, VideoTracker
from sam2edge.errors import Sam2EdgeError
from sam2edge.video.latest import LatestFrames
from sam2edge.video.sources.choose import open_source
from tests.fake_backend import bright_square

READERS = 2
GROWTH_BYTES, GROWTH_COUNT = 64 << 20, 4
"""What memory, and what open files and threads, may be above their middle third's greatest in the last third."""


@contextmanager
def dying_camera(random: Random) -> Iterator[str]:
    """The address of an MJPEG stream whose every connection breaks off after some frames, sometimes inside of one."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
            self.end_headers()
            with suppress(OSError):  # the reader has left
                for number in range(random.randrange(1, 60)):
                    part = cv2.imencode(".jpg", bright_square(number % 40))[1].tobytes()
                    head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                    self.wfile.write(head.encode() + part + b"\r\n")
                    time.sleep(0.03)
                self.wfile.write(head.encode() + part[: random.randrange(len(part))])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/stream.mjpg"
    finally:
        server.shutdown()
        server.server_close()


class Reader(threading.Thread):
    """Follows the stream whose address stands in `where`, until `over`."""

    def __init__(self, model: object, where: list[str], over: threading.Event, seed: int) -> None:
        super().__init__(daemon=True)
        self.frames = self.endings = 0
        self.fault: BaseException | None = None
        self._model, self._where, self._over, self._random = model, where, over, Random(seed)

    def run(self) -> None:
        try:
            while not self._over.is_set():
                with suppress(Sam2EdgeError):  # the source has died: it is opened anew
                    self._follow()
                self.endings += 1
                self._over.wait(0.2)
        except BaseException as error:
            self.fault = error

    def _follow(self) -> None:
        frames = LatestFrames(open_source(self._where[0]), patience_seconds=3)
        try:
            tracker = VideoTracker(self._model)  # type: ignore[arg-type]
            for frame in frames:
                if self._over.is_set():
                    return
                self._step(tracker, frame.pixels)
                self.frames += 1
        finally:
            frames.close()

    def _step(self, tracker: VideoTracker, pixels: object) -> None:
        ids = tracker.object_ids
        if not ids or (len(ids) < 4 and self._random.random() < 0.05):
            tracker.prompt(pixels, self._random.randrange(1, 99), box=[8, 10, 38, 40])
        elif self._random.random() < 0.05:
            tracker.remove_object(self._random.choice(ids))
        elif self._random.random() < 0.05:
            tracker.prompt(pixels, self._random.choice(ids), points=[[20, 20]], labels=[1])
        else:
            tracker.track(pixels)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    model = AutoModel.from_pretrained("sam2/micro")
    over, where, seen = threading.Event(), [""], list[tuple[int, int, int]]()
    readers = [Reader(model, where, over, seed) for seed in range(READERS)]
    end = time.monotonic() + 60 * arguments.minutes
    lives = 0
    while time.monotonic() < end and not any(reader.fault for reader in readers):
        with dying_camera(Random(lives)) as where[0]:  # and gone again after some seconds
            lives += 1
            for reader in readers:
                if not reader.is_alive():
                    reader.start()
            until = min(end, time.monotonic() + 10)
            while time.monotonic() < until:
                time.sleep(0.5)
        seen.append(_usage())
        print(f"{seen[-1][0] >> 20} MiB, {seen[-1][1]} files, {seen[-1][2]} threads", flush=True)
    over.set()
    for reader in readers:
        reader.join(30)
    faults = [repr(reader.fault) for reader in readers if reader.fault] + _growth(seen)
    frames = sum(reader.frames for reader in readers)
    endings = sum(reader.endings for reader in readers)
    print(f"{arguments.minutes:g} minutes, the source died {lives} times, {frames} frames, {endings} streams ended")
    print("\n".join(faults) or "memory, open files and threads are flat")
    return 1 if faults else 0


def _usage() -> tuple[int, int, int]:
    """Resident bytes, open files, threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()


def _growth(seen: list[tuple[int, int, int]]) -> list[str]:
    third = len(seen) // 3
    if not third:
        return ["too short to tell"]
    faults = []
    for column, (name, most) in enumerate(
        (("bytes", GROWTH_BYTES), ("files", GROWTH_COUNT), ("threads", GROWTH_COUNT))
    ):
        middle, last = (max(row[column] for row in part) for part in (seen[third:-third], seen[-third:]))
        if last > middle + most:
            faults.append(f"{name} grew from {middle} to {last}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
