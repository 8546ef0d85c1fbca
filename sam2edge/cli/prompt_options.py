"""Points and boxes as they are written on the command line."""

from __future__ import annotations

import math
from typing import NamedTuple

import click


class Point(NamedTuple):
    """x, y in pixels of the photo; `label` 1 is on the thing, 0 beside it."""

    x: float
    y: float
    label: int


class Box(NamedTuple):
    """Left, top, right, bottom in pixels of the photo."""

    x1: float
    y1: float
    x2: float
    y2: float


class PointType(click.ParamType):
    """`X,Y` or `X,Y,+` on the thing, `X,Y,-` beside it."""

    name = "X,Y[,-]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Point:
        parts = str(value).split(",")
        sign = parts.pop().strip() if len(parts) == 3 else "+"
        numbers = _finite_numbers(parts)
        if len(numbers) != 2 or sign not in ("+", "-"):
            self.fail(f"expected X,Y or X,Y,- in pixels, as in 120,80; got {value!r}.", param, ctx)
        return Point(numbers[0], numbers[1], int(sign == "+"))


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
