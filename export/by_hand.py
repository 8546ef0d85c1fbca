"""How a script of this folder ends when it is started by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_INTERRUPTED = 130


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Runs the script and leaves with its exit status; an interrupt is told in a line of its own."""
    try:
        status = main()
    except KeyboardInterrupt:
        print("sam2edge: interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)
