"""Reads points and boxes from the command line, and groups those that mark the same object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click


class Point(NamedTuple):
    """x, y in pixels of the photo; `label` is 1 for the object, 0 for background."""

    x: float
    y: float
    label: int


class Box(NamedTuple):
    """Left, top, right, bottom in pixels of the photo."""

    x1: float
    y1: float
    x2: float
    y2: float

    def holds(self, point: Point) -> bool:
        """Whether the point lies inside."""
        return self.x1 <= point.x <= self.x2 and self.y1 <= point.y <= self.y2

    @property
    def area(self) -> float:
        return (self.x2 - self.x1) * (self.y2 - self.y1)


@dataclass(frozen=True)
class ObjectPrompt:
    """Points, a box, or both, of one object."""

    points: tuple[Point, ...] = ()
    box: Box | None = None

    def arguments(self) -> dict[str, Any]:
        """Those of points [[x, y]], labels [n] and box [x1, y1, x2, y2] that were given."""
        found: dict[str, Any] = {} if self.box is None else {"box": list(self.box)}
        if self.points:
            found |= {"points": [[p.x, p.y] for p in self.points], "labels": [p.label for p in self.points]}
        return found


class PointsType(click.ParamType):
    """`X,Y` or `X,Y,+` for the object, `X,Y,-` for background; several, separated by spaces, mark one object."""

    name = "X,Y[,-]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Point, ...]:
        points = []
        for word in str(value).split():
            parts = word.split(",")
            sign = parts.pop().strip() if len(parts) == 3 else "+"
            numbers = _finite_numbers(parts)
            if len(numbers) != 2 or sign not in ("+", "-"):
                self.fail(f"expected X,Y or X,Y,- in pixels, as in 120,80; got {value!r}.", param, ctx)
            points.append(Point(numbers[0], numbers[1], int(sign == "+")))
        if not points:
            self.fail(f"expected X,Y or X,Y,- in pixels, as in 120,80; got {value!r}.", param, ctx)
        return tuple(points)


class BoxType(click.ParamType):
    """`X1,Y1,X2,Y2`."""

    name = "X1,Y1,X2,Y2"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Box:
        numbers = _finite_numbers(str(value).split(","))
        if len(numbers) != 4:
            self.fail(f"expected X1,Y1,X2,Y2 in pixels, as in 40,30,200,160; got {value!r}.", param, ctx)
        return Box(*numbers)


def _finite_numbers(parts: list[str]) -> list[float]:
    """The numbers, or none at all if one is not a finite number."""
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


point_option = click.option(
    "--point",
    "points",
    type=PointsType(),
    multiple=True,
    help="An object; X,Y,- is background. 'X,Y X,Y X,Y,-' are clicks on one object. Repeat for more objects.",
)
box_option = click.option(
    "--box",
    "boxes",
    type=BoxType(),
    multiple=True,
    help="A box around an object; points inside it refine it. Repeat for more objects.",
)


def group_prompts(points: Sequence[tuple[Point, ...]], boxes: Sequence[Box]) -> list[ObjectPrompt]:
    """The objects: one for each box, then one for each --point outside the boxes.

    Points inside a box refine its object (that of the smallest box, if in several). A --point with background only
    belongs to the --point before it, or to the only box. Raises click.UsageError if that is unclear.
    """
    objects = [ObjectPrompt(box=box) for box in boxes]
    last: int | None = None
    for given in points:
        holding = [i for i, box in enumerate(boxes) if box.holds(given[0])]
        owner = min(holding, key=lambda i: boxes[i].area) if holding else None
        if owner is None and not any(point.label for point in given):
            owner = last if last is not None else 0 if len(boxes) == 1 else None
            if owner is None:
                raise click.UsageError("Background of which object? Give --point X,Y before --point X,Y,-.")
        if owner is None:
            owner = len(objects)
            objects.append(ObjectPrompt())
        objects[owner] = ObjectPrompt(objects[owner].points + given, objects[owner].box)
        last = owner
    return objects
