"""jetson-stats that answers, hangs, fails, is missing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sam2edge.machine.jetson_stats import ask_power_mode
from sam2edge.machine.power import PowerMode
from tests.trees import write_tree


class _Jtop:
    """As `jtop.jtop`: a context manager with a mode of nvpmodel."""

    def __init__(self, mode: Any, ok: bool = True) -> None:
        self.nvpmodel, self._ok = mode, ok

    def __enter__(self) -> _Jtop:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def ok(self) -> bool:
        return self._ok


@pytest.fixture
def with_socket(tmp_path: Path) -> Path:
    return write_tree(tmp_path, {"run/jtop.sock": ""})


def _library(jtop: Any) -> Any:
    return lambda: SimpleNamespace(jtop=lambda: jtop)


def test_its_answer(with_socket: Path) -> None:
    mode = SimpleNamespace(id=2, name="MAXN_SUPER")
    assert ask_power_mode(with_socket, _library(_Jtop(mode))) == PowerMode(2, "MAXN_SUPER", "jetson-stats")


def test_without_its_service_it_is_not_loaded(tmp_path: Path) -> None:
    def load() -> Any:
        raise AssertionError("loaded")

    assert ask_power_mode(tmp_path, load) is None


@pytest.mark.parametrize("jtop", [_Jtop(None), _Jtop(SimpleNamespace(id="x", name=1)), _Jtop(None, ok=False), object()])
def test_answers_that_are_none(with_socket: Path, jtop: Any) -> None:
    assert ask_power_mode(with_socket, _library(jtop)) is None


def test_a_library_that_is_not_installed(with_socket: Path) -> None:
    assert ask_power_mode(with_socket) is None


def test_a_service_that_hangs_is_left_alone(with_socket: Path) -> None:
    never = threading.Event()

    def load() -> Any:
        never.wait(30)

    assert ask_power_mode(with_socket, load, timeout_s=0.05) is None
    never.set()
