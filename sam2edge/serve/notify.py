"""What systemd is told: that the service is ready, that it lives, that it ends. Nothing where systemd does not ask.

The protocol is one datagram of NAME=VALUE lines to $NOTIFY_SOCKET, see sd_notify(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable


def notify(text: str) -> bool:
    """Sends `text`, such as "READY=1"; whether somebody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.sendto(text.encode(), address)
        return True
    return False


def start_watchdog(find_fault: Callable[[], str], ended: threading.Event) -> threading.Thread | None:
    """Tells systemd twice in its time (WATCHDOG_USEC) that the service lives, while `find_fault()` gives "".

    When it gives a reason, systemd is told that and nothing more, and starts the service again.
    """
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None

    def watch() -> None:
        while not ended.wait(int(microseconds) / 2e6):
            fault = find_fault()
            notify(f"STATUS={fault}" if fault else "WATCHDOG=1")

    thread = threading.Thread(target=watch, name="sam2edge-watchdog", daemon=True)
    thread.start()
    return thread
