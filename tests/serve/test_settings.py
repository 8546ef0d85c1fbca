from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from sam2edge.cli.main import main
from sam2edge.errors import InvalidInputError
from sam2edge.serve import notify as notify_module
from sam2edge.serve.settings import Settings, read_settings


def test_a_file_and_options_before_it(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('source = "0"\nport = 9000\nallow_hosts = ["robot.lan"]\nloop = true\n')
    settings = read_settings(path, {"port": 9001})
    assert (settings.source, settings.port, settings.allow_hosts, settings.loop) == ("0", 9001, ("robot.lan",), True)
    assert not settings.is_open_to_others and read_settings(path, {"host": "0.0.0.0"}).is_open_to_others


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source = ", "cannot be read"),
        ("\x00", "cannot be read"),
        ('source = "0"\nports = 1', "unknown key.*got ports"),
        ('source = "0"\nport = "1"', "port in the configuration.*whole number"),
        ('source = "0"\nport = true', "port in the configuration"),
        ('source = "0"\nallow_hosts = [1]', "list of texts"),
        ('source = "0"\nport = 70000', "port out of range.*0 to 65535"),
        ('source = "0"\ntls_cert = "/none"', "TLS needs both"),
        ('source = "0"\ntoken_file = "/none"', "file not found"),
        ("port = 1", "no source"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=words):
        read_settings(path, {})


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    assert Settings(source="0", token_file=str(path)).read_token() == "0123456789abcdef"
    assert Settings(source="0").read_token() is None
    for bad in ("short", "with a space in it", "ä" * 20, "x" * 201, ""):
        path.write_text(bad)
        with pytest.raises(InvalidInputError, match="token cannot be used"):
            Settings(source="0", token_file=str(path)).read_token()
    monkeypatch.setenv("SAM2EDGE_TOKEN", "fedcba9876543210")
    assert Settings(source="0", token_file=str(path)).read_token() == "fedcba9876543210"


def test_systemd_is_told_while_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notify_module.notify("READY=1")  # nobody listens
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify_module.notify("READY=1")
        assert listener.recv(100) == b"READY=1"
        ended, fault = threading.Event(), [""]
        assert notify_module.start_watchdog(lambda: fault[0], ended) is None  # systemd watches nothing
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        thread = notify_module.start_watchdog(lambda: fault[0], ended)
        assert thread is not None
        assert listener.recv(100) == b"WATCHDOG=1"
        fault[0] = "the tracker hangs"
        while (told := listener.recv(100)) == b"WATCHDOG=1":
            pass
        assert told == b"STATUS=the tracker hangs"
        ended.set()
        thread.join(10)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "Follow what you click on"),
        (["--loop"], 2, "give SOURCE or --config"),
        (["none.mp4"], 1, "source not found"),
        (["--config", "none.toml"], 1, "configuration cannot be read"),
        (["none.mp4", "--port", "99999"], 1, "port out of range"),
        (["rtsp://me:secret@127.0.0.1:9/x"], 1, "stream cannot be opened"),
        (["0", "--host", "256.1.1.1"], 1, "cannot listen"),
    ],
)
def test_commands_that_cannot_be_carried_out(
    arguments: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == status
    _, err = capsys.readouterr()
    assert words in err and "secret" not in err and "Traceback" not in err


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "none.mp4", "--port", port]) == 1
    assert "cannot listen" in capsys.readouterr().err
