"""examples/serve_client.py, as its first lines say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.serve.conftest import SQUARE_POINT, Serve

CLIENT = [sys.executable, str(ROOT / "examples" / "serve_client.py")]


@pytest.mark.parametrize("token", [None, "0123456789abcdef0123"], ids=["open", "token"])
def test_the_client_prints_where_the_object_is(serve: Serve, token: str | None) -> None:
    with serve(token=token) as server:
        command = [*CLIENT, server.address, *map(str, SQUARE_POINT), *([token] if token else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            try:
                assert client.stdout is not None
                lines = [client.stdout.readline().split(maxsplit=3) for _ in range(12)]
            finally:
                client.kill()
        frames = [int(line[0]) for line in lines]
        assert frames == sorted(frames) and frames[-1] > frames[0]
        assert all(line[1:3] == ["object", "1"] for line in lines) and all("seen [" in line[3] for line in lines)


def test_a_refused_command_ends_the_client_with_the_reason(serve: Serve) -> None:
    with serve() as server:
        for point in (["-5000000", "1"], ["nan", "1"]):
            done = subprocess.run([*CLIENT, server.address, *point], capture_output=True, text=True, timeout=60)
            assert done.returncode == 1 and "RuntimeError: points" in done.stderr
        assert subprocess.run(CLIENT, capture_output=True, text=True, timeout=60).returncode == 1
