from __future__ import annotations

import io

import pytest

from sam2edge.cli.terminal import frame_progress


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [3, None])
def test_frames_are_counted_on_a_terminal(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    screen = _Screen()
    monkeypatch.setattr("sys.stderr", screen)
    with frame_progress(total) as advance:
        for _ in range(3):
            advance()
    assert "frames/s" in screen.getvalue()
    assert f"3/{total or '?'}" in screen.getvalue()


def test_nothing_is_shown_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with frame_progress(3) as advance:
        advance()
    assert capsys.readouterr().err == ""
