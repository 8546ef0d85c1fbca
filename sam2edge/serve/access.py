"""Who may ask: the token, pages of other sites, and sizes. One ASGI layer around the whole application.

A page of another site can make a browser send requests to a server on this machine, and can, with a name of its own
that resolves to this machine (DNS rebinding), read the answers. So a browser's request must come from a page of this
server (Origin), and the server must have been called by a name that it has (Host).
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024
OPEN_PATHS = ("/", "/page.js", "/page.css", "/icon.svg", "/healthz")
"""What anybody may have: the page without its content, and whether the server is well."""

_SAFE_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Refuses what may not come in, and adds the headers that keep browsers from sharing what goes out."""

    def __init__(self, app: Any, token: str | None, hosts: Iterable[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, _bound_body(receive), _with_headers(send))

    def allows_token(self, token: object) -> bool:
        """Whether it is the token, or none is needed. Takes the same time whatever is wrong with it."""
        if self._token is None:
            return True
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self._token.encode())

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._knows(host):
            return 421, f"this server is not called {host[:80]!r}; allow it with --allow-host"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "pages of other sites may not use this server"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] not in OPEN_PATHS:
            return 403, "pages of other sites may not use this server"
        is_open = scope["type"] == "websocket" or scope["path"] in OPEN_PATHS  # a WebSocket's first message has it
        if not is_open and not self.allows_token(_find_token(scope, headers)):
            return 401, "a token is needed: Authorization: Bearer TOKEN"
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            return 413, f"at most {MAX_BODY_BYTES} bytes"
        return None

    def _knows(self, host: str) -> bool:
        """An address is no name that somebody else could have made resolve to this machine."""
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name in self._hosts or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _find_token(scope: Scope, headers: dict[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token
    if scope["method"] == "GET":  # players and links send no header
        return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
    return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound_body(receive: Receive) -> Receive:
    """A body without a length is cut off at the limit: what is left of it cannot be read as JSON then."""
    taken = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_SAFE_HEADERS]
        await send(message)

    return sending


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": text[:120]})
        return
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_SAFE_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
