"""One client's WebSocket: binary messages with frames out, JSON commands in, a JSON answer to each.

The first message says hello, with the token where one is needed. Commands are
{"type": "prompt" | "remove" | "rename" | "reset" | "pause" | "resume" | "step" | "record", "request": any, ...}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError

from sam2edge.errors import Sam2EdgeError
from sam2edge.serve.service import Name, ObjectId, PromptBody, Service, first_fault, wait_for

HELLO_SECONDS, SEND_SECONDS, STATUS_SECONDS = 10.0, 20.0, 2.0
MESSAGES_A_SECOND = 50
"""More than that are not read until their second has come: they wait in the client's own connection."""

_POLICY, _TRY_LATER = 1008, 1013
_OBJECT, _NAME = TypeAdapter(ObjectId), TypeAdapter(Name)


class Channel:
    """Serves one client until it leaves, stalls, or breaks the rules."""

    def __init__(self, socket: WebSocket, service: Service, allows_token: Callable[[object], bool]) -> None:
        self._socket, self._service, self._allows_token = socket, service, allows_token
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        service = self._service
        await self._socket.accept()
        if service.clients >= service.max_clients:
            await self._socket.close(_TRY_LATER, "too many clients")
            return
        service.clients += 1
        try:
            if not await self._greet():
                return
            tasks = [asyncio.ensure_future(part()) for part in (self._read, self._send_frames, self._send_status)]
            _, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await asyncio.wait_for(self._socket.close(_TRY_LATER, "closed"), 1.0)
        except (WebSocketDisconnect, RuntimeError, asyncio.TimeoutError, TimeoutError):
            pass
        finally:
            service.clients -= 1

    async def _greet(self) -> bool:
        try:
            text = await asyncio.wait_for(self._socket.receive_text(), HELLO_SECONDS)
            hello = json.loads(text)
            told = isinstance(hello, dict) and hello.get("type") == "hello"
        except (ValueError, KeyError, RecursionError, asyncio.TimeoutError, TimeoutError):
            told, hello = False, {}
        if not told:
            await self._socket.close(_POLICY, 'say {"type": "hello"} first')
            return False
        if not self._allows_token(hello.get("token")):
            await self._socket.close(_POLICY, "wrong token")
            return False
        return True

    async def _send(self, message: bytes | dict[str, Any]) -> None:
        """Raises TimeoutError where the client does not take it."""
        async with self._sending:
            if isinstance(message, bytes):
                await asyncio.wait_for(self._socket.send_bytes(message), SEND_SECONDS)
            else:
                await asyncio.wait_for(self._socket.send_text(json.dumps(message)), SEND_SECONDS)

    async def _send_frames(self) -> None:
        publisher = self._service.publisher
        box = publisher.open_mailbox(first=self._service.session.last_step)
        try:
            while True:
                await self._send(await box.fetch())
        finally:
            publisher.close_mailbox(box)

    async def _send_status(self) -> None:
        while True:
            await self._send(await asyncio.to_thread(self._service.status))
            await asyncio.sleep(STATUS_SECONDS)

    async def _read(self) -> None:
        due = time.monotonic()
        while True:
            try:
                text = await self._socket.receive_text()
            except KeyError:  # a binary message
                text = ""
            await self._send(await self._answer(text))
            due = max(due, time.monotonic() - 1.0) + 1.0 / MESSAGES_A_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _answer(self, text: str) -> dict[str, Any]:
        request: Any = None
        try:
            message = json.loads(text)
            if not isinstance(message, dict):
                raise Sam2EdgeError("message is not a JSON object", got=text[:80])
            request = message.pop("request", None)
            found = await self._carry_out(message.pop("type", None), message)
            return {"type": "reply", "request": request, "ok": True, **found}
        except ValidationError as error:
            problem = first_fault(error.errors())
        except Sam2EdgeError as error:
            problem = str(error)
        except (ValueError, RecursionError) as error:
            problem = f"message is not JSON: {error}"
        return {"type": "reply", "request": request, "ok": False, "error": problem}

    async def _carry_out(self, kind: object, message: dict[str, Any]) -> dict[str, Any]:
        session = self._service.session
        if kind == "prompt":
            return await self._service.prompt(PromptBody.model_validate(message))
        if kind == "remove":
            await wait_for(session.remove(_OBJECT.validate_python(message.get("object"))))
        elif kind == "rename":
            name = _NAME.validate_python(message.get("name"))
            await wait_for(session.rename(_OBJECT.validate_python(message.get("object")), name))
        elif kind == "record":
            return {"recorder": await self._service.record(message.get("on") is True)}
        elif kind in ("reset", "pause", "resume", "step"):  # methods of the session
            await wait_for(getattr(session, str(kind))())
        else:
            raise Sam2EdgeError("unknown type of message", got=str(kind)[:40])
        return {}
