"""The page in Chromium: what a person does with mouse, keys and fingers, and what they see then."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rtsp_server import PIPELINE, rtsp_camera, wait_until
from tests.serve.browser import chromium, click_frame, open_page, screen_point, serve_command
from tests.serve.conftest import SQUARE_POINT, Serve

CELL = 5  # pixels of the picture in one cell of the fake model's masks

# What the canvas shows: the columns of the tinted square, and those of the bright pixels, which the mask must cover.
_TINTED = """() => {
  const view = document.querySelector('#view');
  const {data, width, height} = view.getContext('2d').getImageData(0, 0, view.width, view.height);
  let left = width, right = -1, brightLeft = width, brightRight = -1;
  for (let y = 15; y < 35; y++) for (let x = 0; x < width; x++) {
    const [r, g, b] = data.slice(4 * (y * width + x), 4 * (y * width + x) + 3);
    if (b - r > 50) { left = Math.min(left, x); right = Math.max(right, x); }
    if (b > 150) { brightLeft = Math.min(brightLeft, x); brightRight = Math.max(brightRight, x); }
  }
  return [left, right, brightLeft, brightRight, Number(document.body.dataset.shown)];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def objects(page: Any) -> int:
    return page.locator(".object").count()


def test_a_click_is_followed_for_100_frames_by_several_viewers(serve: Serve, browser: Any) -> None:
    with serve() as server, open_page(browser, server.address) as page, open_page(browser, server.address) as other:
        click_frame(page, *SQUARE_POINT)
        for viewer in (page, other):
            viewer.wait_for_selector(".object.seen")
        first = page.evaluate(_TINTED)[4]
        seen, places = first, set()
        while seen < first + 100:
            left, right, bright_left, bright_right, seen = page.evaluate(_TINTED)
            assert abs(left - bright_left) <= CELL and abs(right - bright_right) <= CELL
            places.add(left)
        assert len(places) > 10  # it moved, and the mask with it
        left, right, bright_left, bright_right, _ = other.evaluate(_TINTED)
        assert abs(left - bright_left) <= CELL and abs(right - bright_right) <= CELL


def test_mouse(serve: Serve, browser: Any) -> None:
    with serve() as server, open_page(browser, server.address) as page:
        a, b = screen_point(page, 4, 4), screen_point(page, 76, 56)
        page.mouse.move(*a)
        page.mouse.down()
        page.mouse.move(*b, steps=4)
        page.mouse.up()
        page.wait_for_selector(".object.seen")
        click_frame(page, *SQUARE_POINT)
        wait_until(lambda: objects(page) == 2)
        page.keyboard.down("Shift")  # takes away from what is under it, and adds no object
        click_frame(page, *SQUARE_POINT)
        page.keyboard.up("Shift")
        page.wait_for_selector("#news:has-text('corrected')")
        page.click("[data-object='2'] .correct")
        assert "object 2" in page.inner_text("#target")
        click_frame(page, *SQUARE_POINT)
        page.wait_for_selector("#news:has-text('Object 2 is corrected')")
        assert objects(page) == 2
        page.fill("[data-object='2'] input", "mug")
        page.keyboard.press("Enter")
        wait_until(lambda: server.call("GET", "/api/frame")[1]["objects"][1]["name"] == "mug")
        page.click("[data-object='1'] .remove")
        wait_until(lambda: objects(page) == 1)
        page.click("#reset")
        wait_until(lambda: objects(page) == 0)
        assert page.is_visible("#no-objects")


def test_keyboard(serve: Serve, browser: Any) -> None:
    with serve() as server, open_page(browser, server.address) as page:
        page.focus("#view")
        for key in ("ArrowLeft", "ArrowUp", "Enter"):  # from the middle
            page.keyboard.press(key)
        page.wait_for_selector(".object.seen")
        page.keyboard.press(" ")
        page.wait_for_selector("#paused-mark:visible")
        shown = page.get_attribute("body", "data-frame")
        page.keyboard.press(".")
        wait_until(lambda: page.get_attribute("body", "data-frame") != shown)
        assert page.inner_text("#pause") == "Go on"
        page.keyboard.press("b")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
        page.keyboard.press("b")
        wait_until(lambda: objects(page) == 2)
        page.keyboard.press("2")
        assert "selected" in (page.get_attribute("[data-object='2']", "class") or "")
        page.keyboard.press("Delete")
        wait_until(lambda: objects(page) == 1)
        page.keyboard.press("?")
        assert page.is_visible("#keys")
        page.keyboard.press("Escape")
        page.keyboard.press(" ")
        page.wait_for_selector("#paused-mark", state="hidden")


def test_fingers_on_a_phone(serve: Serve, browser: Any) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with serve() as server, open_page(browser, server.address, **phone) as page:
        page.touchscreen.tap(*screen_point(page, *SQUARE_POINT))
        page.wait_for_selector(".object.seen")
        page.locator("#modes label", has_text="takes away").tap()
        page.touchscreen.tap(*screen_point(page, 3, 55))
        page.wait_for_selector("#news:has-text('corrected')")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways
        small = """[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 36).length"""
        assert page.evaluate(small) == 0


def test_everything_has_a_name_for_a_screen_reader(serve: Serve, browser: Any) -> None:
    with serve() as server, open_page(browser, server.address) as page:
        click_frame(page, *SQUARE_POINT)
        page.wait_for_selector(".object.seen")
        page.wait_for_selector("#news:has-text('Object 1 is followed.')")
        tree = page.locator("body").aria_snapshot()
        for role, name in (
            ("application", "Live picture"),
            ("button", "Pause"),
            ("button", "Correct object 1"),
            ("button", "Remove object 1"),
            ("textbox", "Name of object 1"),
            ("radio", "takes away"),
            ("heading", "Objects"),
        ):
            assert re.search(rf'{role} "{name}"', tree), (role, name, tree)
        assert not re.search(r"^\s*- (button|textbox|radio|link)\s*:?$", tree, re.MULTILINE)


def test_recording(serve: Serve, browser: Any) -> None:
    with serve() as server, open_page(browser, server.address) as page:
        page.click("#record")
        page.wait_for_selector("#record[aria-pressed=true]")
        wait_until(lambda: server.service.recorder.state["frames"] > 3)
        page.click("#record")
        page.wait_for_selector("#record[aria-pressed=false]")
        page.click("#recordings summary")
        page.wait_for_selector("#recordings a")
        with page.expect_download() as download:
            page.click("#recordings a")
        assert re.fullmatch(r"\d{8}T\d{6}Z\.mp4", download.value.suggested_filename)


def test_the_token_is_asked_for_and_leaves_the_address(serve: Serve, browser: Any) -> None:
    token = "0123456789abcdef0123"
    with serve(token=token) as server:
        with open_page(browser, f"{server.address}/#token={token}") as page:
            assert page.url == f"{server.address}/"
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.address)
        page.wait_for_selector("#login[open]")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#banner:has-text('wrong or missing')")
        page.wait_for_selector("#login[open]")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-connected=yes]")
        context.close()


def test_the_page_says_when_the_server_is_gone_and_comes_back(serve: Serve, browser: Any) -> None:
    with contextlib.ExitStack() as stack:
        with serve() as server:
            port = int(server.address.rpartition(":")[2])
            page = stack.enter_context(open_page(browser, server.address))
        page.wait_for_selector("#banner:has-text('cannot be reached')")
        with serve(port=port):
            page.wait_for_selector("body[data-connected=yes]")
            page.wait_for_selector("#banner", state="hidden")
            shown = int(page.get_attribute("body", "data-shown"))
            wait_until(lambda: int(page.get_attribute("body", "data-shown")) > shown + 2)


def _follow(page: Any, x: float, y: float, frames: int) -> None:
    """Clicks, and looks at the object while that many frames of the source pass."""
    click_frame(page, x, y)
    page.wait_for_selector(".object.seen")
    first = int(page.get_attribute("body", "data-frame"))
    looks, seen = 0, 0
    while int(page.get_attribute("body", "data-frame")) < first + frames:
        shown = page.get_attribute("body", "data-shown")
        page.wait_for_selector(f"body:not([data-shown='{shown}'])")
        looks += 1
        seen += page.locator(".object.seen").count()
    assert looks >= 3 and seen >= 0.7 * looks


def test_the_embedded_model_on_a_video_in_a_loop(browser: Any) -> None:
    with serve_command("examples/bunny.mp4", "--loop") as address, open_page(browser, address) as page:
        _follow(page, 175, 150, 100)


def test_the_embedded_model_through_rtsp(browser: Any) -> None:
    # Five frames a second, so that the ball does not cross the picture while a busy machine takes a frame.
    slow = PIPELINE.replace("pattern=ball", "pattern=ball animation-mode=frames").replace("=25/1", "=5/1")
    with rtsp_camera(source=slow) as camera, serve_command(camera) as address, open_page(browser, address) as page:
        wait_until(lambda: "rtsp" in page.inner_text("#about"))
        ball = """() => { const v = document.querySelector('#view');
          const {data, width} = v.getContext('2d').getImageData(0, 0, v.width, v.height);
          let n = 0, sx = 0, sy = 0;
          for (let i = 0; i < data.length; i += 4) if (data[i] > 120) { n++; sx += i / 4 % width; sy += i / 4 / width; }
          return [sx / n, sy / n]; }"""
        x, y = page.evaluate(ball)
        _follow(page, x, y, 100)
