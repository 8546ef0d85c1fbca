"""What HTTP and the WebSocket have in common: the bodies of requests, commands to the session, the status."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sam2edge.errors import Sam2EdgeError
from sam2edge.serve.publisher import Publisher
from sam2edge.serve.recording import Recorder
from sam2edge.serve.session import BusyError, Prompt, Session

ANSWER_SECONDS = 60.0
"""How long a command may take: some frames of a large model on a CPU."""

STALLED_SECONDS = 90.0
"""A tracker that has done nothing for so long is not well."""

Coordinate = Annotated[float, Field(allow_inf_nan=False, ge=-(2**20), le=2**20)]
ObjectId = Annotated[int, Field(ge=1, le=255)]
Name = Annotated[str, Field(min_length=1, max_length=40)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PromptBody(_Body):
    """Where an object is, in pixels of the source's frame: points with labels (1 on it, 0 beside it), a box, or both.

    `frame` is the number of the frame that the person saw, by default the newest; `object` is to be corrected, and left
    out for a new one.
    """

    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=64)] = []
    labels: Annotated[list[Literal[0, 1]], Field(max_length=64)] | None = None
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    frame: Annotated[int, Field(ge=0)] | None = None
    object: ObjectId | None = None
    name: Name | None = None


class RenameBody(_Body):
    name: Name


class RecordingBody(_Body):
    on: bool


@dataclass
class Service:
    """What the application serves. `describe` tells of model, backend and device; it never changes."""

    session: Session
    publisher: Publisher
    recorder: Recorder
    describe: dict[str, Any]
    max_clients: int = 8
    clients: int = 0

    def status(self) -> dict[str, Any]:
        """Everything but the frame; reads files of the system, so not for the event loop."""
        stats = self.session.model.stats()
        track = stats.calls.get("track")
        last = self.session.last_step
        return {
            "type": "status",
            **self.describe,
            "paused": bool(last and last.paused),
            "problem": self.session.source_problem,
            "dropped": last.dropped if last else 0,
            "clients": self.clients,
            "latency_ms": None
            if track is None
            else {"median": round(track.median_ms, 1), "p99": round(track.p99_ms, 1)},
            "temperatures_c": dict(stats.temperatures_c),
            "slowed_by": list(stats.slowed_by),
            "memory_available_bytes": stats.memory_available_bytes,
            "recorder": self.recorder.state,
        }

    def find_fault(self) -> str:
        """Why the tracker is not well; "" where it is."""
        if not self.session.is_running:
            return self.session.source_problem or "the tracker has stopped"
        idle = time.monotonic() - self.session.alive_at
        return f"the tracker has done nothing for {idle:.0f} s" if idle > STALLED_SECONDS else ""

    async def prompt(self, body: PromptBody) -> dict[str, Any]:
        labels = body.labels if body.labels is not None else [1] * len(body.points)
        if len(labels) != len(body.points):
            raise Sam2EdgeError("labels do not match the points", expected=len(body.points), got=len(labels))
        if not body.points and body.box is None:
            raise Sam2EdgeError("prompt marks nothing", expected="points or a box")
        prompt = Prompt(list(body.points), list(labels), body.box, body.frame, body.object, body.name)
        return {"object": await wait_for(self.session.prompt(prompt))}

    async def record(self, on: bool) -> dict[str, Any]:
        return await asyncio.to_thread(self.recorder.start if on else self.recorder.stop)


async def wait_for(future: Future[Any]) -> Any:
    """The result of a command to the session."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), ANSWER_SECONDS)
    except asyncio.CancelledError:
        if future.cancelled():
            raise Sam2EdgeError("the tracker has stopped", remedy="start sam2edge serve again") from None
        raise
    except (TimeoutError, asyncio.TimeoutError):
        raise BusyError("the tracker did not answer in time", got=f"nothing in {ANSWER_SECONDS:g} s") from None


def first_fault(faults: Any) -> str:
    """What is wrong with a body, in words."""
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"] if part != "body")
    return f"{where}: {fault['msg']}" if where else str(fault["msg"])
