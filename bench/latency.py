"""From the camera's time stamp to the mask in a client: `python -m bench.latency`.

`sam2edge serve` plays a video in a process of its own, one object is followed, clients read its WebSocket here. A
frame's latency is when its message has arrived less its time stamp; the peer is the tracker's own time on the same
frame. Rounds with one client and with ten take turns, on the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import struct
import subprocess
import sys
import time
from typing import Any

from websockets.asyncio.client import connect

from bench.harness import Target, make_parser, report, statistics_ms, use_cores
from bench.machine import ROOT

CLIENTS = (1, 10)
_CLIP, _POINT, _WARMUP = ROOT / "examples" / "bunny.mp4", [175, 150], 5


async def read_frames(address: str, frames: int) -> list[dict[str, Any]]:
    """The headers of so many frames with an object, each with the time at which it arrived."""
    found: list[dict[str, Any]] = []
    async with connect(address, max_size=2**24) as connection:
        await connection.send(json.dumps({"type": "hello"}))
        while len(found) < frames:
            message = await connection.recv()
            arrived_ns = time.time_ns()
            if isinstance(message, bytes):
                (length,) = struct.unpack_from("<I", message)
                header = json.loads(message[4 : 4 + length])
                if header["tracker_ms"]:
                    found.append({**header, "arrived_ns": arrived_ns})
    return found


async def measure(address: str, clients: int, frames: int) -> list[dict[str, Any]]:
    """What the first of so many clients got."""
    return (await asyncio.gather(*(read_frames(address, frames) for _ in range(clients))))[0]


async def begin(address: str) -> None:
    """Has the object followed."""
    async with connect(address, max_size=2**24) as connection:
        for message in ({"type": "hello"}, {"type": "prompt", "request": 1, "points": [_POINT]}):
            await connection.send(json.dumps(message))
        while True:
            answer = await connection.recv()
            if isinstance(answer, str) and json.loads(answer)["type"] == "reply":
                assert json.loads(answer)["ok"], answer
                return


def run(options: argparse.Namespace) -> None:
    use_cores(options.cores)
    command = [sys.executable, "-m", "sam2edge", "serve", str(_CLIP), "--loop", "--port", "0", "--max-clients", "12"]
    server = subprocess.Popen([*command, "--model", "sam2/micro"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    taken: dict[int, list[dict[str, Any]]] = {clients: [] for clients in CLIENTS}
    try:
        assert server.stderr is not None
        found = re.search(r"open http(\S+)", server.stderr.readline())
        assert found is not None
        address = f"ws{found[1]}api/ws"
        asyncio.run(begin(address))
        asyncio.run(measure(address, 1, _WARMUP))
        for _ in range(options.turns):
            for clients in CLIENTS:
                taken[clients] += asyncio.run(measure(address, clients, options.rounds // options.turns))
    finally:
        server.kill()
        server.communicate()
    sides = {clients: _summarise(rows) for clients, rows in taken.items()}
    ten_to_one = sides[10]["tracker"]["median_ms"] / sides[1]["tracker"]["median_ms"]
    targets = [
        Target("latency of a frame over the tracker's own time, median, one client", 1.3, sides[1]["ratio_median"]),
        Target("the same with ten clients", 1.3, sides[10]["ratio_median"]),
        Target("tracker's time with ten clients over that with one", 1.05, ten_to_one),
    ]
    ratios = {f"latency to tracker, {clients} clients": side["ratio_median"] for clients, side in sides.items()}
    settings = {"clip": _CLIP.name, "model": "sam2/micro at 512, onnxruntime", "frames": options.rounds}
    report("latency", {}, targets, ratios, settings, {f"{clients} clients": side for clients, side in sides.items()})


def _summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    latencies = [(row["arrived_ns"] - row["time_ns"]) / 1e6 for row in rows]
    tracker = [row["tracker_ms"] for row in rows]
    return {
        "latency": statistics_ms(latencies),
        "tracker": statistics_ms(tracker),
        "ratio_median": statistics.median(a / b for a, b in zip(latencies, tracker, strict=True)),
        "frames_of_source": rows[-1]["frame"] - rows[0]["frame"] + 1,
        "frames_dropped": rows[-1]["dropped"] - rows[0]["dropped"],
    }


if __name__ == "__main__":
    parser = make_parser(__doc__, rounds=120)
    parser.add_argument("--turns", type=int, default=3, help="how often one and ten clients take turns")
    run(parser.parse_args())
