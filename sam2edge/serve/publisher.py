"""Between the thread that follows and the clients: each step is encoded once, and each client gets the newest one.

A client that reads slowly gets fewer frames; it costs the others and the tracker nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from sam2edge.serve.message import encode_message, encode_picture
from sam2edge.serve.session import Step

_log = logging.getLogger("sam2edge.serve")


class Mailbox:
    """One client's: holds the newest message that it has not fetched. For the event loop's thread."""

    def __init__(self, drawn: bool) -> None:
        self.drawn = drawn
        self.skipped = 0
        self._waiting: bytes | None = None
        self._arrived = asyncio.Event()

    def put(self, message: bytes) -> None:
        self.skipped += self._waiting is not None
        self._waiting = message
        self._arrived.set()

    async def fetch(self) -> bytes:
        """The newest message, once there is one that was not fetched yet."""
        await self._arrived.wait()
        self._arrived.clear()
        message, self._waiting = self._waiting, None
        assert message is not None
        return message


class Publisher:
    """Encodes the newest step in a thread of its own, for the mailboxes there are; without any, it does nothing."""

    def __init__(self, max_side: int, jpeg_quality: int) -> None:
        self.max_side, self.jpeg_quality = max_side, jpeg_quality
        self.boxes: set[Mailbox] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._step: Step | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="sam2edge-publisher", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(10)

    def take(self, step: Step) -> None:
        """Takes the newest step, in place of one that was not encoded yet. From any thread; never blocks for long."""
        with self._changed:
            self._step = step
            self._changed.notify()

    def open_mailbox(self, drawn: bool = False, first: Step | None = None) -> Mailbox:
        """A mailbox for a new client: of messages, or of JPEGs with the masks drawn. In the event loop's thread."""
        box = Mailbox(drawn)
        self.boxes.add(box)
        if first is not None:
            self.take(first)  # so that a client of a paused session sees something
        return box

    def close_mailbox(self, box: Mailbox) -> None:
        self.boxes.discard(box)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._step is not None or self._stopped)
                if self._stopped:
                    return
                step, self._step = self._step, None
            kinds = {box.drawn for box in tuple(self.boxes)}
            if step is None or not kinds:
                continue
            try:
                encoded = {drawn: self._encode(step, drawn) for drawn in kinds}
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._deliver, encoded)
            except RuntimeError:  # the loop is closed: the server ends
                return
            except Exception:
                _log.exception("a frame could not be encoded")

    def _encode(self, step: Step, drawn: bool) -> bytes:
        if drawn:
            return encode_picture(step, self.max_side, self.jpeg_quality, drawn=True)
        return encode_message(step, self.max_side, self.jpeg_quality)

    def _deliver(self, encoded: dict[bool, bytes]) -> None:
        for box in self.boxes:
            if box.drawn in encoded:
                box.put(encoded[box.drawn])
