"""`sam2edge track --pick`: a window with a frame, in which one clicks on what is to be followed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from sam2edge.cli.prompt_options import Box, ObjectPrompt, Point
from sam2edge.errors import BackendUnavailableError, InvalidInputError
from sam2edge.imaging.overlay import draw_masks

HELP = (
    "Click: object.  Shift or right button: background.  Drag: box.  "
    "N: next object.  Backspace: undo.  Enter: follow.  Esc: quit."
)
_SCREEN_SHARE = 0.85  # of the screen's width and height that the picture takes at most
_DRAG_PIXELS = 5  # shorter ones are clicks
_SHIFT = 0x1  # in Tk's event.state
_LOOK_SECONDS = 0.02


def check_display() -> None:
    """Raises BackendUnavailableError where no window can be opened."""
    _open_window().destroy()


def pick_objects(frame_bgr: np.ndarray) -> list[ObjectPrompt]:
    """Shows the frame (H, W, 3) in a window until Enter; what was clicked, in pixels of the frame.

    Raises InvalidInputError where nothing was picked.
    """
    window = _open_window()
    try:
        picker = _Picker(window, frame_bgr)
        while not picker.over:
            window.update()
            time.sleep(_LOOK_SECONDS)  # not Tk's own loop, which would keep Ctrl-C waiting
    finally:
        window.destroy()
    if not picker.objects:
        raise InvalidInputError("nothing was picked", expected="a click or a box, then Enter", got="a closed window")
    return picker.objects


def _open_window() -> Any:
    """An empty window, not shown yet. Raises BackendUnavailableError where there is no display, or no tkinter."""
    elsewhere = "give --point or --box, or click in a browser: sam2edge serve SOURCE"
    try:
        import tkinter
    except ImportError as error:
        raise BackendUnavailableError(
            "no window to pick in", expected="tkinter", got=str(error), remedy=f"apt install python3-tk; or {elsewhere}"
        ) from error
    try:
        window = tkinter.Tk(className="sam2edge")
    except tkinter.TclError as error:
        display = os.environ.get("DISPLAY")
        found = f"DISPLAY={display}: {error}" if display else "no DISPLAY"
        raise BackendUnavailableError(
            "no window to pick in", expected="a display", got=found, remedy=elsewhere
        ) from error
    window.withdraw()
    return window


class _Picker:
    """What is picked so far: the last of `objects` gets the next click."""

    def __init__(self, window: Any, frame_bgr: np.ndarray) -> None:
        import tkinter

        self.objects: list[ObjectPrompt] = []
        self.over = False
        self._begun = False  # whether a click goes to the last object, and not to a new one
        self._undo: list[tuple[list[ObjectPrompt], bool]] = []
        self._pressed = (0, 0)
        self._frame_wh = frame_bgr.shape[1], frame_bgr.shape[0]
        room = window.winfo_screenwidth() * _SCREEN_SHARE, window.winfo_screenheight() * _SCREEN_SHARE
        self._scale = min(1.0, room[0] / self._frame_wh[0], room[1] / self._frame_wh[1])
        width, height = (max(1, round(side * self._scale)) for side in self._frame_wh)
        self._picture = cv2.resize(frame_bgr, (width, height), interpolation=cv2.INTER_AREA)
        window.title("sam2edge: pick what to follow")
        self._canvas = tkinter.Canvas(window, width=width, height=height, highlightthickness=0, cursor="crosshair")
        self._canvas.pack()
        self._said = tkinter.Label(window, text=HELP, wraplength=max(width, 300), justify="left")
        self._said.pack(anchor="w")
        self._canvas.bind("<ButtonPress-1>", self._press)
        self._canvas.bind("<B1-Motion>", self._drag)
        self._canvas.bind("<ButtonRelease-1>", self._release)
        self._canvas.bind("<ButtonPress-3>", lambda event: self._click(event.x, event.y, 0))
        window.bind("<Return>", lambda _: self._finish())
        window.bind("<KP_Enter>", lambda _: self._finish())
        window.bind("<Escape>", lambda _: self._cancel())
        window.bind("<BackSpace>", lambda _: self._go_back())
        window.bind("n", lambda _: self._begin_next())
        window.protocol("WM_DELETE_WINDOW", self._cancel)
        self._show()
        window.deiconify()
        window.focus_force()

    def _press(self, event: Any) -> None:
        self._pressed = event.x, event.y

    def _drag(self, event: Any) -> None:
        self._canvas.delete("band")
        self._canvas.create_rectangle(*self._pressed, event.x, event.y, outline="white", tags="band")

    def _release(self, event: Any) -> None:
        self._canvas.delete("band")
        x, y = self._pressed
        if max(abs(event.x - x), abs(event.y - y)) < _DRAG_PIXELS:
            self._click(event.x, event.y, 0 if event.state & _SHIFT else 1)
            return
        (x1, y1), (x2, y2) = self._place(x, y), self._place(event.x, event.y)
        box = Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        if self._begun and self.objects[-1].box is not None:
            self._begun = False  # an object has one box
        self._change(lambda found: replace(found, box=box))

    def _click(self, x: int, y: int, label: int) -> None:
        point = Point(*self._place(x, y), label)
        self._change(lambda found: replace(found, points=(*found.points, point)))

    def _place(self, x: int, y: int) -> tuple[float, float]:
        """A place of the canvas in pixels of the frame, inside it."""
        width, height = self._frame_wh
        return (
            round(min(max(x / self._scale, 0), width - 1), 1),
            round(min(max(y / self._scale, 0), height - 1), 1),
        )

    def _change(self, change: Any) -> None:
        self._undo.append((list(self.objects), self._begun))
        if not self._begun:
            self.objects.append(ObjectPrompt())
            self._begun = True
        self.objects[-1] = change(self.objects[-1])
        self._show()

    def _begin_next(self) -> None:
        self._begun = False
        self._show()

    def _go_back(self) -> None:
        if self._undo:
            self.objects, self._begun = self._undo.pop()
            self._show()

    def _finish(self) -> None:
        unclear = [
            n for n, found in enumerate(self.objects, 1) if not found.box and not any(p[2] for p in found.points)
        ]
        if unclear:
            self._said["text"] = f"Object {unclear[0]} is background alone: click on it too, or Backspace.\n{HELP}"
        else:
            self.over = True

    def _cancel(self) -> None:
        self.objects, self.over = [], True

    def _show(self) -> None:
        import tkinter

        points = [point for found in self.objects for point in found.points]
        boxes = [found.box for found in self.objects if found.box is not None]
        drawn = draw_masks(
            self._picture,
            np.empty((0, *self._picture.shape[:2]), bool),
            points=np.array([[p.x, p.y] for p in points]) * self._scale if points else None,
            point_labels=np.array([p.label for p in points]) if points else None,
            boxes=np.array(boxes) * self._scale if boxes else None,
        )
        data = cv2.imencode(".ppm", drawn)[1].tobytes()
        self._image = tkinter.PhotoImage(master=self._canvas, data=data, format="PPM")  # Tk keeps no reference
        self._canvas.delete("picture")
        self._canvas.create_image(0, 0, anchor="nw", image=self._image, tags="picture")
        now = len(self.objects) + (not self._begun)
        self._said["text"] = f"Object {now}.  {HELP}"
