"""Source, model and server put together, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from sam2edge.automodel import AutoModel
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.machine.board import read_board
from sam2edge.serve.access import MAX_BODY_BYTES
from sam2edge.serve.app import build_app
from sam2edge.serve.notify import notify, start_watchdog
from sam2edge.serve.publisher import Publisher
from sam2edge.serve.recording import Recorder
from sam2edge.serve.service import Service
from sam2edge.serve.session import Session, Step
from sam2edge.serve.settings import Settings
from sam2edge.video.frame import FrameSource
from sam2edge.video.latest import LatestFrames
from sam2edge.video.pace import Paced
from sam2edge.video.reconnect import Reconnecting
from sam2edge.video.sources.address import without_password
from sam2edge.video.sources.choose import open_source


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serves until the process is asked to end. `tell` gets the lines for the person who started it.

    Raises Sam2EdgeError where the source, the model or the address cannot be had.
    """
    settings.check_tls()
    token = settings.read_token()
    if token is None and settings.is_open_to_others:
        token = secrets.token_hex(16)
    listener = listen(settings)
    with contextlib.closing(listener), open_service(settings, tell) as service:
        server = make_server(service, settings, token)
        tell(f"following {without_password(settings.source)}; open {_address(settings, listener, token)}")
        ended = threading.Event()
        notify(f"READY=1\nSTATUS=following {without_password(settings.source)}")
        start_watchdog(service.find_fault, ended)
        try:
            server.run(sockets=[listener])
        finally:
            ended.set()
            notify("STOPPING=1")


@contextlib.contextmanager
def open_service(settings: Settings, tell: Callable[[str], None]) -> Iterator[Service]:
    """The session on its source and model, running, with what serves its frames; all of it is closed at the end."""
    source, playback, listen_for_loss = _open_frames(settings)
    frames = LatestFrames(source)
    with contextlib.closing(frames):
        model = AutoModel.from_pretrained(
            settings.model,
            backend=settings.backend,
            checkpoint=settings.checkpoint or None,
            image_size=settings.size or None,
            tracking=True,
        )
        publisher = Publisher(settings.picture_side, settings.jpeg_quality)
        recorder = Recorder(Path(settings.recordings), frames.fps)

        def take(step: Step) -> None:
            publisher.take(step)
            recorder.take(step)

        session = Session(model, frames, playback, take, max_objects=settings.max_objects)

        def tell_loss(error: Sam2EdgeError, pause_seconds: float) -> None:
            session.tell_source_problem(f"the camera is gone, trying again every {pause_seconds:g} s: {error}")
            tell(f"source lost, next attempt in {pause_seconds:g} s: {error}")

        listen_for_loss.append(tell_loss)
        board = read_board()
        about = {
            "source": without_password(settings.source),
            "model": model.variant.model_id,
            "backend": model.backend_name,
            "image_size": model.image_size,
            "device": board.module or board.name or socket.gethostname(),
            "is_live": playback is None,
            "max_objects": settings.max_objects,
        }
        session.start()
        try:
            yield Service(session, publisher, recorder, about, settings.max_clients)
        finally:
            session.stop()


def _open_frames(settings: Settings) -> tuple[FrameSource, Paced | None, list[Callable[[Sam2EdgeError, float], None]]]:
    """The source, its pause button where it is a recording, and a list for who is to be told when a camera is lost."""
    listeners: list[Callable[[Sam2EdgeError, float], None]] = []
    source = open_source(settings.source)
    if isinstance(source, Paced):
        return source, source, listeners
    if not source.live:
        paced = Paced(source, (lambda: open_source(settings.source)) if settings.loop else None)
        return paced, paced, listeners

    def tell(error: Sam2EdgeError, pause_seconds: float) -> None:
        for listener in listeners:
            listener(error, pause_seconds)

    return Reconnecting(source, lambda: open_source(settings.source), tell), None, listeners


def make_server(service: Service, settings: Settings, token: str | None) -> uvicorn.Server:
    """The server, with limits on what a client may send and on how many there may be."""
    app = build_app(service, token, _names(settings))
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="websockets-sansio",
        ws_max_size=MAX_BODY_BYTES,
        ws_per_message_deflate=False,
        limit_concurrency=8 * settings.max_clients + 32,
        h11_max_incomplete_event_size=32 * 1024,
        timeout_graceful_shutdown=3,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
    )
    return uvicorn.Server(config)


def listen(settings: Settings) -> socket.socket:
    """The socket. Raises InvalidInputError where the address or the port cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise InvalidInputError(
            "cannot listen",
            expected="an address of this machine and a free port",
            got=f"{settings.host} port {settings.port}: {error.strerror}",
            remedy="name another --port",
        ) from error


def _names(settings: Settings) -> list[str]:
    """Names that browsers may call this server by; addresses always may."""
    name = socket.gethostname()
    return [name, f"{name}.local", settings.host, *settings.allow_hosts]


def _address(settings: Settings, listener: socket.socket, token: str | None) -> str:
    any_address = settings.host in ("0.0.0.0", "::")
    host = socket.gethostname() if any_address else settings.host
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls_cert else "http"
    fragment = f"#token={token}" if token else ""
    return f"{scheme}://{host}:{listener.getsockname()[1]}/{fragment}"
