"""HTTPS with a certificate made here, and files that are none."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect

from sam2edge.cli.main import main
from sam2edge.diagnosis.findings import BROKEN
from sam2edge.serve.look import look_at_service
from tests.serve.conftest import SQUARE_POINT, Serve, ask

TOKEN = "0123456789abcdef0123"


def make_certificate(folder: Path, name: str, *options: str) -> dict[str, str]:
    """A certificate for 127.0.0.1 and its key, as the settings name them."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    found = {"tls_cert": str(folder / f"{name}.crt"), "tls_key": str(folder / f"{name}.key")}
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=127.0.0.1"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", found["tls_cert"], "-keyout", found["tls_key"]]
    subprocess.run([*command.split(), *files, *(options or ["-nodes"])], check=True, capture_output=True)
    return found


def test_https_and_the_websocket_over_it(serve: Serve, tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "own")
    trusting = ssl.create_default_context(cafile=files["tls_cert"])
    with serve(token=TOKEN, **files) as server:
        address = f"{server.address}/api/status"
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, context=trusting, timeout=20) as answer:
            assert json.load(answer)["model"] == "sam2/micro"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(address, timeout=20)
        with pytest.raises((urllib.error.URLError, OSError)):  # the token is never sent in the clear
            urllib.request.urlopen(address.replace("https", "http"), timeout=20)
        with connect(server.address.replace("https", "wss") + "/api/ws", ssl=trusting, max_size=2**24) as connection:
            connection.send(json.dumps({"type": "hello", "token": TOKEN}))
            assert ask(connection, "prompt", points=[SQUARE_POINT])["object"] == 1


def test_files_that_are_no_certificate(tmp_path: Path, pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, other = make_certificate(tmp_path, "one"), make_certificate(tmp_path, "other")
    locked = make_certificate(tmp_path, "locked", "-passout", "pass:secret")
    (tmp_path / "text").write_text("no certificate")
    for certificate, key, reason in (
        (str(tmp_path / "text"), one["tls_key"], "no PEM, or a password"),
        (one["tls_cert"], other["tls_key"], "key values mismatch"),
        (locked["tls_cert"], locked["tls_key"], ""),  # nobody is there to type a password
    ):
        arguments = ["serve", str(pictures), "--port", "0", "--tls-cert", certificate, "--tls-key", key]
        assert main(arguments) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert re.search(f"certificate or key cannot be used.*{reason}", line, re.IGNORECASE)
    config = tmp_path / "serve.toml"
    config.write_text(f'source = "0"\ntls_cert = "{one["tls_cert"]}"\ntls_key = "{other["tls_key"]}"\n')
    finding = look_at_service(config)
    assert finding.state == BROKEN and "certificate or key" in finding.detail
