"""Messages of native libraries, where /sys is not there."""

from __future__ import annotations

import os

import pytest

from sam2edge.backends.native_messages import drop_cpuinfo_errors


@pytest.mark.parametrize("has_sys", [True, False])
def test_errors_of_cpuinfo_are_dropped_where_there_is_no_sys(
    has_sys: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: has_sys)
    with drop_cpuinfo_errors():
        os.write(2, b"Error in cpuinfo: failed to parse the list of possible processors\n")
    os.write(2, b"a message of our own\n")
    err = capfd.readouterr().err
    assert ("cpuinfo" in err) == has_sys
    assert "of our own" in err
