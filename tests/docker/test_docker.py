"""Images, compose file and unit: read and linted, since nothing here can build or start them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from sam2edge.diagnosis.findings import BROKEN, MISSING, NOTE
from sam2edge.serve.look import look_at_service
from sam2edge.serve.settings import read_settings
from tests.conftest import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
DEVICE = DOCKER / "jetson" / "Dockerfile"
JETPACK_7 = dict(re.findall(r"^(\w+)=(.*)$", (DOCKER / "jetpack7.env").read_text(), re.MULTILINE))


def _instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    words = (line.strip().partition(" ") for line in text.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in words]


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def _arguments(path: Path) -> dict[str, str]:
    """Build arguments with the values that the Dockerfile gives them."""
    return {rest.partition("=")[0]: rest.partition("=")[2] for name, rest in _instructions(path) if name == "ARG"}


def test_there_is_an_image_for_devices_and_one_for_development() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["dev", "jetson"]


def test_the_file_for_jetpack_7_sets_every_build_argument() -> None:
    assert set(COMPOSE["x-common"]["build"]["args"]) == set(_arguments(DEVICE))
    assert set(JETPACK_7) == {*_arguments(DEVICE), "SAM2EDGE_IMAGE"}


def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no hadolint for this machine")
    result = subprocess.run([program, str(dockerfile)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_bases_are_pinned(dockerfile: Path) -> None:
    bases = [rest.split(" ")[0] for name, rest in _instructions(dockerfile) if name == "FROM"]
    assert bases
    for values in (_arguments(dockerfile), _arguments(dockerfile) | JETPACK_7):
        bases += [values[base[2:-1]] for base in bases if base.startswith("${")]
    for base in (base for base in bases if not base.startswith("${")):
        tag = base.rpartition(":")[2]
        assert ":" in base and re.search(r"\d+\.\d+\.\d+", tag), base
        assert "latest" not in base


def test_nothing_runs_as_root(dockerfile: Path) -> None:
    users = [rest for name, rest in _instructions(dockerfile) if name == "USER"]
    assert users and users[-1] == "1000:1000"
    last = max(i for i, (name, _) in enumerate(_instructions(dockerfile)) if name == "USER")
    assert not [name for name, _ in _instructions(dockerfile)[last:] if name in ("RUN", "COPY", "ADD")]


def test_what_is_copied_is_there_and_let_through(dockerfile: Path) -> None:
    allowed = Path(f"{dockerfile}.dockerignore").read_text().splitlines()
    for name, rest in _instructions(dockerfile):
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in allowed, source


def test_a_device_image_has_no_torch_and_a_health_check() -> None:
    text = DEVICE.read_text()
    runs = [rest for instruction, rest in _instructions(DEVICE) if instruction == "RUN"]
    assert not [rest for rest in runs if "torch" in rest or "[export" in rest or "[dev" in rest]
    assert "HEALTHCHECK" in text and "VOLUME /var/lib/sam2edge" in text
    assert "SAM2EDGE_HOME=/var/lib/sam2edge" in text


def test_versions_agree_with_the_package() -> None:
    from sam2edge import __version__

    places = [DOCKER / "dev" / "Dockerfile", DOCKER / "compose.yaml", DOCKER / "jetpack7.env"]
    for path in places:
        assert set(re.findall(r"sam2edge(?:-dev)?:(\d+\.\d+\.\d+)", path.read_text())) == {__version__}, path


def test_pycuda_is_built_where_nvcc_is_on_path() -> None:
    """It finds CUDA by nvcc on PATH alone; numpy 2 takes 2024.1.2, CUDA 13 takes 2025.1.2."""
    assert (_arguments(DEVICE)["OLDEST_PYCUDA"], JETPACK_7["OLDEST_PYCUDA"]) == ("2024.1.2", "2025.1.2")
    text = DEVICE.read_text()
    build = text.index('"pycuda>=${OLDEST_PYCUDA}"')
    assert 0 < text.index("PATH=/usr/local/cuda/bin:$PATH") < build < text.index("FROM", build)


@pytest.mark.parametrize("name", ["camera", "camera-tools"])
def test_services_are_confined(name: str) -> None:
    service = COMPOSE["services"][name]
    assert not service["image"].endswith(":latest")
    assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert service["runtime"] == "nvidia"
    assert service["cap_drop"] == ["ALL"] and service["read_only"] is True
    assert "privileged" not in service and "no-new-privileges:true" in service["security_opt"]
    assert "video" in service["group_add"]
    named = {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
    assert named <= set(COMPOSE["volumes"])
    for volume in service["volumes"]:
        if volume.startswith("."):
            assert (DOCKER / volume.split(":")[0]).exists()


def test_the_camera_service_starts_again_and_is_watched() -> None:
    service = COMPOSE["services"]["camera"]
    assert service["restart"] == "unless-stopped"
    assert service["devices"] == ["/dev/video0:/dev/video0"]
    assert service["command"] == ["serve", "--config", "/etc/sam2edge/serve.toml"]
    assert "./serve.toml:/etc/sam2edge/serve.toml:ro" in service["volumes"]


def test_the_configuration_can_be_read() -> None:
    settings = read_settings(DOCKER / "serve.toml", {})
    assert settings.source == "/dev/video0" and not settings.is_open_to_others
    found = look_at_service(DOCKER / "serve.toml")
    assert (found.state, found.remedy) == (NOTE, None) and "/dev/video0" in found.detail


def test_the_doctor_on_configurations_that_cannot_be_used(tmp_path: Path) -> None:
    assert look_at_service(tmp_path / "none.toml").state == MISSING
    path = tmp_path / "serve.toml"
    for text, words in (("source = ", "cannot be read"), ('sources = "0"', "unknown key")):
        path.write_text(text)
        found = look_at_service(path)
        assert found.state == BROKEN and words in found.detail
    path.write_text('source = "rtsp://me:secret@camera/x"\nhost = "0.0.0.0"\n')
    assert "secret" not in look_at_service(path).detail and "a new token" in look_at_service(path).detail


def test_the_health_check_asks_the_server() -> None:
    kind, python, flag, program = COMPOSE["services"]["camera"]["healthcheck"]["test"]
    assert (kind, python, flag) == ("CMD", "python3", "-c")

    class Answer(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        own = program.replace(":8000", f":{server.server_address[1]}")
        assert own != program
        for status, expected in ((200, 0), (503, 1)):
            Answer.status = status
            assert subprocess.run([sys.executable, "-c", own], capture_output=True).returncode == expected
        server.shutdown()


def test_the_unit_is_one(tmp_path: Path) -> None:
    path = DOCKER / "sam2edge.service"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    service = unit["Service"]
    assert service["User"] == "sam2edge" and service["Restart"] == "always"
    assert service["Type"] == "notify" and service["WatchdogSec"] == "3min"
    for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["ExecStart"] == "/opt/sam2edge/bin/sam2edge serve --config /etc/sam2edge/serve.toml"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd to ask")
    # Programs that are missing here are said to be not executable, and are no fault of the unit.
    own = tmp_path / path.name
    own.write_text(re.sub(r"/opt/sam2edge/bin/\w+", "/bin/true", path.read_text()))
    result = subprocess.run(["systemd-analyze", "verify", str(own)], capture_output=True, text=True)
    assert "Unknown" not in result.stderr and "Failed to parse" not in result.stderr, result.stderr
    assert result.returncode == 0, result.stderr
