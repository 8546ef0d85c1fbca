"""How a script of this folder ends when it is started by hand."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sam2edge.engine_build.processes import EXIT_OUT_OF_MEMORY
from sam2edge.errors import EXIT_INTERRUPTED, OutOfMemoryError, Sam2EdgeError

Main = Callable[[Sequence[str] | None], int]


def errors_in_one_line(main: Main) -> Callable[..., int]:
    """`main`, with errors as one line and exit status 1 (where memory ran out 3) in place of a traceback."""

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except (OutOfMemoryError, MemoryError) as error:
            print(f"sam2edge: {str(error) or 'out of memory'}", file=sys.stderr)
            return EXIT_OUT_OF_MEMORY
        except (Sam2EdgeError, OSError) as error:
            print(f"sam2edge: {error}", file=sys.stderr)
            return 1

    return run


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Runs the script and exits with its status; an interrupt prints one line."""
    try:
        status = main()
    except KeyboardInterrupt:
        print("sam2edge: interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)
