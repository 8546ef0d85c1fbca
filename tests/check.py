"""Everything that must pass before a change goes in: `python -m tests.check [pytest arguments]`.

Lint, format, types and tests, in the environment of the interpreter that runs it; all of them run, whatever fails.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("sam2edge", "training", "tests", "bench")


def main(pytest_arguments: list[str]) -> int:
    python = [sys.executable, "-m"]
    checks = {
        "ruff check": [*python, "ruff", "check", "."],
        "ruff format": [*python, "ruff", "format", "--check", "."],
        "mypy": [*python, "mypy", *(f"--package={name}" for name in PACKAGES)],
        "pytest": [*python, "pytest", *pytest_arguments],
    }
    if not pytest_arguments and _index_answers():  # it takes a minute
        checks["pip-audit"] = [*python, "pip_audit", "--progress-spinner", "off", str(ROOT)]
    environment = {**os.environ, "MYPYPATH": str(_package_tree())}
    failed = []
    for name, command in checks.items():
        started = time.monotonic()
        print(f"== {name}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
            failed.append(name)
        print(f"   {time.monotonic() - started:.0f} s", flush=True)
    print("failed: " + ", ".join(failed) if failed else "all passed")
    return 1 if failed else 0


def _index_answers() -> bool:
    """Whether the list of known faults in dependencies can be asked for: offline nothing is audited."""
    if importlib.util.find_spec("pip_audit") is None:
        return False
    try:
        with socket.create_connection(("pypi.org", 443), timeout=2):
            return True
    except OSError:
        return False


def _package_tree() -> Path:
    """A folder in which the package lies as it is installed: mypy does not follow setuptools' `package-dir`."""
    package = ROOT / ".mypy_cache" / "tree" / "sam2edge"
    package.mkdir(parents=True, exist_ok=True)
    parts = {path.name: path for path in (ROOT / "sam2edge").iterdir()} | {"export": ROOT / "export"}
    for link in package.iterdir():
        link.unlink()
    for name, path in parts.items():
        (package / name).symlink_to(path)
    return package.parent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
