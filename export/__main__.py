"""`python -m sam2edge.export SCRIPT ...`: how `sam2edge build` starts a script of this folder.

An interrupt gives exit status 130 and no message, also while the heavy libraries are being imported: the process that
started the build prints it, once.
"""

import importlib
import sys

from sam2edge.errors import EXIT_INTERRUPTED


def main() -> int:
    script, *arguments = sys.argv[1:]
    try:
        status: int = importlib.import_module(f"sam2edge.export.{script}").main(arguments)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
