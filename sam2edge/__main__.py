"""`python -m sam2edge` is the `sam2edge` command."""

import sys

from sam2edge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
