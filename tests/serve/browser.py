"""Chromium, the system's own, without a window and without a network beyond this machine; a server to look at."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright's; skips the test where Playwright or Chromium is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium (apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def open_page(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page that shows frames; errors of its script fail the test."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 760}, **options})
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    try:
        page.goto(address)
        page.wait_for_selector("body[data-connected=yes]")
        yield page
    finally:
        context.close()
    unexpected = [error for error in errors if "WebSocket connection" not in error]
    assert not unexpected, unexpected


def click_frame(page: Any, x: float, y: float, **options: Any) -> None:
    """Clicks on a place of the picture, in pixels of the frame."""
    page.mouse.click(*screen_point(page, x, y), **options)


def screen_point(page: Any, x: float, y: float) -> tuple[float, float]:
    place = page.locator("#view").bounding_box()
    width, height = page.evaluate("[document.querySelector('#view').width, document.querySelector('#view').height]")
    scale = min(place["width"] / width, place["height"] / height)
    left = place["x"] + (place["width"] - width * scale) / 2
    top = place["y"] + (place["height"] - height * scale) / 2
    return left + x * scale, top + y * scale


@contextlib.contextmanager
def serve_command(*arguments: str) -> Iterator[str]:
    """The address of `sam2edge serve` in a process of its own, with the embedded model."""
    command = [sys.executable, "-m", "sam2edge", "serve", *arguments, "--port", "0", "--model", "sam2/micro"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"open (http\S+)", line)
        assert found is not None, line + process.stderr.read()
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, process.stderr.read()
    finally:
        process.kill()
        process.communicate()
