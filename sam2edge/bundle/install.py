"""Installs a bundle, all of it or nothing. Standard library only: it also runs from the bundle itself.

Everything is unpacked and checked before anything is changed. Every change is written to a journal first, so that a
failure, or the next run after a power cut, undoes it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from sam2edge.bundle.archive import STORE, WHEELS, Bundle, extract, read_bundle
from sam2edge.bundle.environment import CURRENT, TARGET, VENV, Place, check_place, install_wheels
from sam2edge.bundle.journal import Journal, UnusableJournal
from sam2edge.errors import BundleError, Sam2EdgeError
from sam2edge.files import file_sha256, locked

OLDEST_GLIBC = (2, 28)
_STAGING = ".bundle-"


@dataclass
class Installed:
    """What an installation did: files added to the store, files that were there, engines left out and why."""

    version: str
    command: str
    store: Path
    added: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    engines_left_out: dict[str, str] = field(default_factory=dict)


def install_bundle(path: Path, place: Place, store: Path, replace: bool = False, downgrade: bool = False) -> Installed:
    """Installs the wheels into `place` and the models into the folder `store`.

    `replace` allows replacing other files of the models in the store, `downgrade` replacing a newer sam2edge. Raises
    BundleError; nothing is installed then.
    """
    try:
        with locked(store / ".locks" / "bundle"):
            for left in sorted(store.glob(f"{_STAGING}*")):
                _undo_earlier(left)
            bundle = read_bundle(path)
            check_target(bundle)
            check_place(place, bundle.version, downgrade)
            _require_room(bundle, store)
            journal = Journal(Path(tempfile.mkdtemp(prefix=_STAGING, dir=store)))
            try:
                extract(bundle, journal.folder)
                installed = Installed(bundle.version, place.command, store)
                staged = _plan_moves(bundle, journal.folder, installed, replace)
                install_wheels(place, journal.folder / WHEELS, bundle.requirements, bundle.version, journal)
                _leave_out_engines(place, journal.folder / STORE, staged, installed)
                _move(staged, journal, installed)
            except BaseException:
                journal.undo()
                raise
            journal.commit()
            return installed
    except OSError as error:
        raise BundleError(
            "the bundle could not be installed; nothing of it is there",
            got=f"{error.strerror or error} ({error.filename or store})",
            remedy="make room or check the owner of the folders, then run it again",
        ) from error


def _undo_earlier(left: Path) -> None:
    """Undoes a killed installation; a journal that cannot be trusted is reported and moved aside."""
    try:
        Journal(left).undo()
    except UnusableJournal as error:
        aside = left.with_name(f".unusable-{left.name.lstrip('.')}")
        with contextlib.suppress(OSError):
            left.rename(aside)
        print(
            f"sam2edge: note: an earlier installation could not be undone: {error}; its journal is {aside}: "
            "look at it, then remove it",
            file=sys.stderr,
        )


def check_target(bundle: Bundle) -> None:
    """Raises BundleError unless the bundle is for this system, processor and Python."""
    version = f"{sys.version_info[0]}{sys.version_info[1]}"
    here = f"{platform.system().lower()}-{platform.machine()}-cp{version}"
    if bundle.target != here or sys.implementation.name != "cpython":
        raise BundleError(
            "the bundle is for another machine or Python",
            expected=here,
            got=bundle.target,
            remedy=f"run it with the Python it is for, or make one: sam2edge bundle create --target {here}",
        )
    library, number = platform.libc_ver()
    known = tuple(int(n) for n in number.split(".")[:2] if n.isdigit())
    if library != "glibc" or known < OLDEST_GLIBC:
        wanted = f"glibc {OLDEST_GLIBC[0]}.{OLDEST_GLIBC[1]} or later"
        raise BundleError("the bundle's wheels do not run on this system", expected=wanted, got=f"{library} {number}")


def default_store() -> Path:
    """The store's folder as `store.root` has it, on Linux and without platformdirs."""
    if os.environ.get("SAM2EDGE_HOME"):
        return Path(os.environ["SAM2EDGE_HOME"]).expanduser()
    data = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(data) if data else Path.home() / ".local" / "share") / "sam2edge"


def _require_room(bundle: Bundle, store: Path) -> None:
    disk = os.statvfs(store)
    needed, free = bundle.size_bytes(WHEELS) + bundle.size_bytes(STORE), disk.f_bavail * disk.f_frsize
    if free < needed:
        raise BundleError("no room to unpack", expected=f"{needed} bytes free in {store}", got=free, remedy="make room")


def _plan_moves(bundle: Bundle, staging: Path, installed: Installed, replace: bool) -> dict[Path, Path]:
    """The target in the store of each unpacked file, except those that are there already, byte for byte."""
    moves, others = {}, []
    for name in bundle.names(STORE):
        inside = name[len(STORE) :]
        target = installed.store / inside
        if target.is_file() and file_sha256(target) == bundle.files[name][1]:
            installed.kept.append(inside)
            continue
        if target.exists() and target.suffix != ".json":  # records go with their files
            others.append(inside)
        moves[staging / name] = target
    if others and not replace:
        raise BundleError(
            "the store has other files of these models; nothing was installed",
            expected="none, or the same",
            got=", ".join(others),
            remedy="give --replace, or remove them: sam2edge models remove MODEL",
        )
    return moves


def _leave_out_engines(place: Place, unpacked: Path, moves: dict[Path, Path], installed: Installed) -> None:
    """Drops engines that this GPU and TensorRT cannot run, as judged by the newly installed sam2edge."""
    folders = sorted({path.parent for path in moves if path.is_relative_to(unpacked / "engines")})
    if not folders:
        return
    command = [place.python, "-m", "sam2edge.bundle.engine_fit", *map(str, folders)]
    result = subprocess.run(command, env=place.environment(), cwd=unpacked, capture_output=True, text=True)
    if result.returncode != 0:
        words = result.stderr.strip().splitlines()
        raise BundleError(
            "the engines could not be checked",
            got=words[-1] if words else f"status {result.returncode}",
            remedy="make the bundle without --engines",
        )
    reasons: dict[str, str] = json.loads(result.stdout)
    for path in list(moves):
        if str(path.parent) in reasons:
            del moves[path]
            installed.engines_left_out[str(path.parent.relative_to(unpacked))] = reasons[str(path.parent)]


def _move(moves: dict[Path, Path], journal: Journal, installed: Installed) -> None:
    for source, target in moves.items():
        journal.make_parent(target)
        if target.exists():
            journal.will_change(target)
        else:
            journal.will_make(target)
        source.chmod(0o644)
        source.replace(target)
        installed.added.append(str(target.relative_to(installed.store)))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"sam2edge: {message}. See `{self.prog} --help`.", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: Sequence[str], bundle: Path | None = None) -> int:
    """`install` or `verify`, of `bundle`, or of the one named among the arguments. Returns the exit status."""
    program = f"python3 {bundle}" if bundle else "sam2edge bundle"
    parser = _Parser(prog=program, description="sam2edge with all it needs, for a machine with no network.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    verify = commands.add_parser("verify", help="compare every file with its checksum; nothing is installed")
    install = commands.add_parser("install", help="verify, then install all of it or nothing")
    for command in (verify, install):
        if bundle is None:
            command.add_argument("bundle", type=Path, metavar="BUNDLE")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    where = install.add_mutually_exclusive_group()
    where.add_argument("--venv", type=Path, metavar="DIR", help="make a virtual environment there")
    where.add_argument("--target", type=Path, metavar="DIR", help="put the packages there, for PYTHONPATH")
    install.add_argument(
        "--isolated", action="store_true", help="with --venv: do not see the system's packages (TensorRT)"
    )
    install.add_argument(
        "--store", type=Path, metavar="DIR", help="where models go; default: SAM2EDGE_HOME, or the user's"
    )
    install.add_argument("--replace", action="store_true", help="replace other files of these models in the store")
    install.add_argument("--downgrade", action="store_true", help="replace a newer sam2edge")
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        facts = _run(args, bundle or args.bundle)
        said = facts.pop("said")
        print(json.dumps(facts) if args.json else said)
    except Sam2EdgeError as error:
        line = " ".join(str(error).split())
        print(f"sam2edge: {line}", file=sys.stderr)
        if args.json:
            parts = {"problem": error.problem, "expected": error.expected, "got": error.got, "remedy": error.remedy}
            told = {name: None if part is None else str(part) for name, part in parts.items()}
            print(json.dumps({"error": line, "status": 1, **told}))
        return 1
    except KeyboardInterrupt:
        print("sam2edge: interrupted; nothing was installed", file=sys.stderr)
        return 130
    return 0


def _run(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    path = path.absolute()
    if args.command == "verify":
        bundle = read_bundle(path)
        extract(bundle, None)
        said = f"whole: sam2edge {bundle.version} for {bundle.target}, {len(bundle.files)} files"
        return {"said": said, "version": bundle.version, "target": bundle.target, "models": list(bundle.models)}
    kind, folder = (VENV, args.venv) if args.venv else (TARGET, args.target) if args.target else (CURRENT, None)
    try:
        place = Place(kind, folder.expanduser().absolute(), args.isolated) if folder else Place(kind)
        store = (args.store or default_store()).expanduser().absolute()
    except RuntimeError as error:  # of "~nobody", or no HOME
        got = f"{error} ({folder or ''} {args.store or os.environ.get('SAM2EDGE_HOME', '')})".replace("  ", " ")
        raise BundleError(
            "no such user's folder", expected="a folder of a user of this machine", got=got, remedy="write it in full"
        ) from error
    done = install_bundle(path, place, store, args.replace, args.downgrade)
    lines = [f"sam2edge {done.version}: {done.command}"]
    if done.added or done.kept:
        lines.append(f"models in {done.store}: {len(done.added)} files added, {len(done.kept)} there already")
    lines += [f"{name} left out: {reason}" for name, reason in done.engines_left_out.items()]
    facts = {"version": done.version, "command": done.command, "store": str(done.store)}
    details = {"added": done.added, "kept": done.kept, "engines_left_out": done.engines_left_out}
    return {"said": "\n".join(lines), **facts, **details}
