"""How a script of this folder ends when it is started by hand."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sam2edge.errors import Sam2EdgeError

EXIT_INTERRUPTED = 130

Main = Callable[[Sequence[str] | None], int]


def errors_in_one_line(main: Main) -> Callable[..., int]:
    """`main`, with what a user can mend told in one line and exit status 1 in place of a traceback."""

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except (Sam2EdgeError, OSError) as error:
            print(f"sam2edge: {error}", file=sys.stderr)
            return 1

    return run


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Runs the script and leaves with its exit status; an interrupt is told in a line of its own."""
    try:
        status = main()
    except KeyboardInterrupt:
        print("sam2edge: interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)
