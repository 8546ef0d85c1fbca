"""The HTTP interface and the WebSocket. What they can do is the same; /openapi.json describes the former."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse

from sam2edge import __version__
from sam2edge.errors import Sam2EdgeError
from sam2edge.observe.prometheus import Metric, format_exposition
from sam2edge.serve.access import Guard
from sam2edge.serve.channel import Channel
from sam2edge.serve.message import describe_step, encode_picture
from sam2edge.serve.publisher import Mailbox
from sam2edge.serve.service import ObjectId, PromptBody, RecordingBody, RenameBody, Service, first_fault, wait_for
from sam2edge.serve.session import BusyError

_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css", "/icon.svg": "icon.svg"}


def build_app(service: Service, token: str | None, hosts: list[str]) -> Guard:
    """The application, guarded: `token` None lets everybody in, `hosts` are names that the server may be called by."""

    @contextlib.asynccontextmanager
    async def run_publisher(_: FastAPI) -> AsyncIterator[None]:
        service.publisher.start(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(service.recorder.stop)
        await asyncio.to_thread(service.publisher.stop)

    app = FastAPI(title="sam2edge", version=__version__, docs_url=None, redoc_url=None, lifespan=run_publisher)
    guard = Guard(app, token, hosts)
    _add_page(app)
    _add_commands(app, service)
    _add_pictures(app, service)
    _add_recordings(app, service)
    _add_health(app, service)

    @app.websocket("/api/ws")
    async def channel(socket: WebSocket) -> None:
        await Channel(socket, service, guard.allows_token).run()

    @app.exception_handler(Sam2EdgeError)
    async def tell_error(_: Request, error: Sam2EdgeError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503 if isinstance(error, BusyError) else 400)

    @app.exception_handler(RequestValidationError)
    async def tell_bad_body(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": first_fault(error.errors())}, 422)

    return guard


def _add_page(app: FastAPI) -> None:
    def serve_file(name: str) -> Callable[[], Awaitable[FileResponse]]:
        async def send() -> FileResponse:
            return FileResponse(_PAGE / name)

        return send

    for path, name in _PAGE_FILES.items():
        app.add_api_route(path, serve_file(name), methods=["GET"], include_in_schema=False)


def _add_commands(app: FastAPI, service: Service) -> None:
    session = service.session

    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        """Model, device, latency, temperatures, what is being recorded."""
        return await asyncio.to_thread(service.status)

    @app.get("/api/frame")
    async def frame() -> dict[str, Any]:
        """The newest frame's number, time and objects, their masks as COCO run-length encodings."""
        if session.last_step is None:
            raise BusyError("no frame yet", remedy="try again")
        return await asyncio.to_thread(describe_step, session.last_step, service.publisher.max_side)

    @app.post("/api/prompt")
    async def prompt(body: PromptBody) -> dict[str, Any]:
        """Adds an object, or corrects one; answers with its number."""
        return await service.prompt(body)

    @app.patch("/api/objects/{object_id}")
    async def rename(object_id: ObjectId, body: RenameBody) -> dict[str, Any]:
        """Gives an object another name."""
        await wait_for(session.rename(object_id, body.name))
        return {}

    @app.delete("/api/objects/{object_id}")
    async def remove(object_id: ObjectId) -> dict[str, Any]:
        """Stops following an object."""
        await wait_for(session.remove(object_id))
        return {}

    @app.delete("/api/objects")
    async def reset() -> dict[str, Any]:
        """Stops following all objects."""
        await wait_for(session.reset())
        return {}

    for name, command in (("pause", session.pause), ("resume", session.resume), ("step", session.step)):

        async def run(command: Callable[[], Future[None]] = command) -> dict[str, Any]:
            await wait_for(command())
            return {}

        run.__doc__ = command.__doc__ or f"{name.capitalize()}s the tracker."
        app.add_api_route(f"/api/{name}", _without_arguments(run), methods=["POST"], name=name)


def _without_arguments(run: Callable[..., Awaitable[dict[str, Any]]]) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def call() -> dict[str, Any]:
        return await run()

    call.__doc__ = run.__doc__
    return call


def _add_pictures(app: FastAPI, service: Service) -> None:
    publisher = service.publisher

    @app.get("/api/frame.jpg", response_class=Response)
    async def picture() -> Response:
        """The newest frame with its masks drawn."""
        step = service.session.last_step
        if step is None:
            raise BusyError("no frame yet", remedy="try again")
        data = await asyncio.to_thread(encode_picture, step, publisher.max_side, publisher.jpeg_quality, True)
        return Response(data, media_type="image/jpeg")

    @app.get("/api/stream.mjpg", response_class=Response)
    async def stream() -> Response:
        """An endless MJPEG stream of the frames with their masks drawn, for players and <img>."""
        if service.clients >= service.max_clients:
            raise BusyError("too many clients", expected=f"at most {service.max_clients}")
        return StreamingResponse(_jpegs(service), media_type="multipart/x-mixed-replace; boundary=frame")


async def _jpegs(service: Service) -> AsyncIterator[bytes]:
    service.clients += 1
    box: Mailbox = service.publisher.open_mailbox(drawn=True, first=service.session.last_step)
    try:
        while True:
            data = await box.fetch()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            yield head.encode() + data + b"\r\n"
    finally:
        service.publisher.close_mailbox(box)
        service.clients -= 1


def _add_recordings(app: FastAPI, service: Service) -> None:
    @app.post("/api/recording")
    async def record(body: RecordingBody) -> dict[str, Any]:
        """Recording on or off; answers with what is, or was, recorded."""
        return await service.record(body.on)

    @app.get("/api/recordings")
    async def recordings() -> list[dict[str, Any]]:
        """The finished videos."""
        return await asyncio.to_thread(service.recorder.list_files)

    @app.get("/api/recordings/{name}", response_class=FileResponse)
    async def recording(name: str) -> FileResponse:
        """One of them."""
        return FileResponse(await asyncio.to_thread(service.recorder.find_file, name), media_type="video/mp4")


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """200 while the tracker runs; 503, with the reason, where it has stopped or hangs."""
        fault = service.find_fault()
        return JSONResponse({"ok": not fault, "fault": fault}, 503 if fault else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """The model's and the server's figures in Prometheus' text format."""
        text = await asyncio.to_thread(lambda: service.session.model.stats().to_prometheus())
        step = service.session.last_step
        own = [
            Metric("serve_clients", "gauge", "Clients that get frames.", [("", {}, service.clients)]),
            Metric(
                "serve_dropped_frames_total",
                "counter",
                "Frames of the source that the tracker had no time for.",
                [("", {}, step.dropped if step else 0)],
            ),
            Metric(
                "serve_objects",
                "gauge",
                "Objects that are followed.",
                [("", {}, len(step.result.object_ids) if step and step.result else 0)],
            ),
        ]
        return PlainTextResponse(text + format_exposition(own), media_type="text/plain; version=0.0.4")
