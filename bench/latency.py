"""From the camera's time stamp to the mask in a client: `python -m bench.latency`.

`sam2edge serve` plays a video in a process of its own, one object is followed, clients read its WebSocket here. A
frame's latency is when its message has arrived less its time stamp; the peer is the tracker's own time on the same
frame. Rounds with one client and with ten take turns on the same server, and are compared pair by pair: by the
tracker's time, and by the processor time that the server spends on a frame, which other work on the machine changes
less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True)
class Turn:
    """What the first of some clients got, and the processor time of the server on a frame in milliseconds."""

    rows: list[dict[str, Any]]
    server_ms: float

    @property
    def tracker_ms(self) -> float:
        return statistics.median(row["tracker_ms"] for row in self.rows)


def measure(address: str, clients: int, frames: int, server: int) -> Turn:
    """One turn with so many clients; `server` is the process."""

    async def read() -> list[dict[str, Any]]:
        return (await asyncio.gather(*(read_frames(address, frames) for _ in range(clients))))[0]

    before = processor_seconds(server)
    rows = asyncio.run(read())
    return Turn(rows, 1000 * (processor_seconds(server) - before) / len(rows))


def processor_seconds(process: int) -> float:
    """The time that all threads of a process have run so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def begin(address: str) -> dict[str, Any]:
    """Has the object followed; what the server says of itself."""
    status: dict[str, Any] = {}
    async with connect(address, max_size=2**24) as connection:
        for message in ({"type": "hello"}, {"type": "prompt", "request": 1, "points": [_POINT]}):
            await connection.send(json.dumps(message))
        followed = False
        while True:
            received = await connection.recv()
            answer = json.loads(received) if isinstance(received, str) else {"type": "frame"}
            if answer["type"] == "reply":
                assert answer["ok"], answer
            status = answer if answer["type"] == "status" else status
            followed = followed or answer["type"] == "reply"
            if followed and status:
                return status


def run(options: argparse.Namespace) -> None:
    use_cores(options.cores)
    command = [sys.executable, "-m", "sam2edge", "serve", str(_CLIP), "--loop", "--port", "0", "--max-clients", "12"]
    server = subprocess.Popen([*command, "--model", "sam2/micro"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    taken: dict[int, list[Turn]] = {clients: [] for clients in CLIENTS}
    try:
        assert server.stderr is not None
        found = re.search(r"open http(\S+)", server.stderr.readline())
        assert found is not None
        address = f"ws{found[1]}api/ws"
        status = asyncio.run(begin(address))
        measure(address, 1, _WARMUP, server.pid)
        for turn in range(options.turns):
            for clients in CLIENTS if turn % 2 else reversed(CLIENTS):
                taken[clients].append(measure(address, clients, options.rounds // options.turns, server.pid))
    finally:
        server.kill()
        server.communicate()
    sides = {clients: _summarise(turns) for clients, turns in taken.items()}
    pairs = list(zip(taken[10], taken[1], strict=True))
    targets = [
        Target("latency of a frame over the tracker's own time, median, one client", 1.3, sides[1]["ratio_median"]),
        Target("the same with ten clients", 1.3, sides[10]["ratio_median"]),
        Target(
            "tracker's time with ten clients over that with one, median of pairs",
            1.05,
            statistics.median(ten.tracker_ms / one.tracker_ms for ten, one in pairs),
        ),
        Target(
            "server's processor time a frame with ten clients over that with one, median of pairs",
            1.05,
            statistics.median(ten.server_ms / one.server_ms for ten, one in pairs),
        ),
    ]
    ratios = {f"latency to tracker, {clients} clients": side["ratio_median"] for clients, side in sides.items()}
    settings = {"clip": _CLIP.name, **{name: status[name] for name in ("model", "backend", "image_size")}}
    settings |= {"frames": options.rounds, "turns": options.turns}
    report("latency", {}, targets, ratios, settings, {f"{clients} clients": side for clients, side in sides.items()})


def _summarise(turns: list[Turn]) -> dict[str, Any]:
    rows = [row for turn in turns for row in turn.rows]
    latencies = [(row["arrived_ns"] - row["time_ns"]) / 1e6 for row in rows]
    tracker = [row["tracker_ms"] for row in rows]
    return {
        "latency": statistics_ms(latencies),
        "tracker": statistics_ms(tracker),
        "server_ms_a_frame": round(statistics.median(turn.server_ms for turn in turns), 1),
        "ratio_median": statistics.median(a / b for a, b in zip(latencies, tracker, strict=True)),
        "frames_of_source": sum(turn.rows[-1]["frame"] - turn.rows[0]["frame"] + 1 for turn in turns),
        "frames_dropped": sum(turn.rows[-1]["dropped"] - turn.rows[0]["dropped"] for turn in turns),
    }


if __name__ == "__main__":
    parser = make_parser(__doc__, rounds=120)
    parser.add_argument("--turns", type=int, default=15, help="how often one and ten clients take turns")
    run(parser.parse_args())
