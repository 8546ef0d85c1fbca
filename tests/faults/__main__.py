"""Hostile and unlucky inputs for a while: `python -m tests.faults --minutes 30 --seed N`.

Prints, of each kind, how many were tried, how many ended cleanly (well, or with an error of ours), and the faults, each
with the command that repeats it. The status is 1 where there is one. A kind runs in processes of its own, so that a
crash of a decoder is a fault and not the end; a trial of more than a minute, or of more than 2 GiB, is one too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

BATCH = 25
MOST_SECONDS, MOST_BYTES = 60.0, 2 << 30
SLOW = ("kill", "video", "server")
"""Kinds of which a batch has a few only."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; the next ones count on from it")
    parser.add_argument("--only", metavar="KIND", help="one kind of trial")
    parser.add_argument("--tries", type=int, help="of each kind, instead of --minutes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return _work(arguments.only, arguments.seed, arguments.tries)
    from tests.faults.trials import TRIALS

    kinds = [arguments.only] if arguments.only else list(TRIALS)
    tried, faults = dict.fromkeys(kinds, 0), dict[str, list[str]]()
    end, seed = time.monotonic() + 60 * arguments.minutes, arguments.seed
    while True:
        for kind in kinds:
            count = arguments.tries or (BATCH // 5 if kind in SLOW else BATCH)
            done, found = _batch(kind, seed, count)
            tried[kind] += done
            faults.setdefault(kind, []).extend(found)
            for line in found:
                print(line, flush=True)
            if arguments.tries is None and time.monotonic() > end:
                break
        seed += BATCH
        if arguments.tries is not None or time.monotonic() > end:
            break
    for kind in kinds:
        bad = len(faults.get(kind, []))
        print(f"{kind:12} {tried[kind]:7} tried {tried[kind] - bad:7} clean {bad:4} faults")
    total, bad = sum(tried.values()), sum(map(len, faults.values()))
    print(f"{'all':12} {total:7} tried {total - bad:7} clean {bad:4} faults, seed {arguments.seed}")
    return 1 if bad else 0


def _batch(kind: str, seed: int, count: int) -> tuple[int, list[str]]:
    """Runs trials `seed` to `seed + count` of a kind; how many were begun, and a line for each fault."""
    done, found = 0, []
    while done < count:
        command = [sys.executable, "-m", "tests.faults", "--worker", "--only", kind]
        command += ["--seed", str(seed + done), "--tries", str(count - done)]
        with tempfile.TemporaryFile("w+") as errors:
            try:
                output = subprocess.run(
                    command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=MOST_SECONDS * (count + 1)
                ).stdout
                ending = "the process ended"
            except subprocess.TimeoutExpired as expired:
                output = expired.stdout.decode() if isinstance(expired.stdout, bytes) else expired.stdout or ""
                ending = "no end"
        lines = output.splitlines()
        for number, line in enumerate(lines):
            problem = json.loads(line)["fault"]
            if problem is not None:
                found.append(
                    f"fault: {problem}; again: python -m tests.faults --only {kind} --tries 1 --seed "
                    f"{seed + done + number}"
                )
        done += len(lines)
        if done < count:  # it was at this trial that the process went
            found.append(f"fault: {ending}; again: python -m tests.faults --only {kind} --tries 1 --seed {seed + done}")
            done += 1
    return done, found


def _work(kind: str, seed: int, count: int) -> int:
    """Prints a JSON line for each trial: its fault, or null."""
    os.environ["SAM2EDGE_HOME"] = os.devnull
    from sam2edge.errors import Sam2EdgeError
    from tests.faults.trials import TRIALS

    for number in range(seed, seed + count):
        problem = None
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with tempfile.TemporaryDirectory() as folder:
            try:
                TRIALS[kind](random.Random(f"{kind} {number}"), Path(folder))
            except Sam2EdgeError as error:
                if not error.expected and not error.got:
                    problem = f"an error that does not say what was expected: {error}"
            except Exception as error:
                problem = f"{type(error).__name__}: {error} ({traceback.extract_tb(error.__traceback__)[-1].name})"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if time.monotonic() - started > MOST_SECONDS or grown > MOST_BYTES:
            problem = f"{time.monotonic() - started:.0f} s and {grown >> 20} MiB"
        print(json.dumps({"fault": problem}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
