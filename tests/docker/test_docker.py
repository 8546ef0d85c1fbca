"""Images, compose file and unit: read and linted, since nothing here can build or start them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.conftest import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
PROGRAM = DOCKER / "app" / "camera.py"


def _instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    words = (line.strip().partition(" ") for line in text.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in words]


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_three_images() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["dev", "jetson", "jetson7"]


def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no hadolint for this machine")
    result = subprocess.run([program, str(dockerfile)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_bases_are_pinned(dockerfile: Path) -> None:
    bases = [rest.split(" ")[0] for name, rest in _instructions(dockerfile) if name == "FROM"]
    assert bases
    for base in bases:
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


@pytest.mark.parametrize("name", ["jetson", "jetson7"])
def test_a_device_image_has_no_torch_and_a_health_check(name: str) -> None:
    text = (DOCKER / name / "Dockerfile").read_text()
    runs = [rest for instruction, rest in _instructions(DOCKER / name / "Dockerfile") if instruction == "RUN"]
    assert not [rest for rest in runs if "torch" in rest or "[export" in rest or "[dev" in rest]
    assert "HEALTHCHECK" in text and "VOLUME /var/lib/sam2edge" in text
    assert "SAM2EDGE_HOME=/var/lib/sam2edge" in text


def test_versions_agree_with_the_package() -> None:
    from sam2edge import __version__

    places = [*DOCKERFILES, DOCKER / "compose.yaml"]
    for path in places:
        assert set(re.findall(r"sam2edge(?:-dev)?:(\d+\.\d+\.\d+)", path.read_text())) == {__version__}, path


@pytest.mark.parametrize(("name", "oldest"), [("jetson", "2024.1.2"), ("jetson7", "2025.1.2")])
def test_pycuda_is_built_where_nvcc_is_on_path(name: str, oldest: str) -> None:
    """It finds CUDA by nvcc on PATH alone; numpy 2 takes 2024.1.2, CUDA 13 takes 2025.1.2."""
    text = (DOCKER / name / "Dockerfile").read_text()
    build = text.index(f'"pycuda>={oldest}"')
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
            assert (DOCKER / volume.split(":")[0]).is_dir()


def test_the_camera_service_starts_again_and_is_watched() -> None:
    service = COMPOSE["services"]["camera"]
    assert service["restart"] == "unless-stopped"
    assert service["devices"] == ["/dev/video0:/dev/video0"]
    assert service["entrypoint"] == ["python3", f"/app/{PROGRAM.name}"]


def test_the_unit_is_one(tmp_path: Path) -> None:
    path = DOCKER / "sam2edge.service"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    service = unit["Service"]
    assert service["User"] == "sam2edge" and service["Restart"] == "always"
    for name in ("NoNewPrivileges", "PrivateNetwork", "PrivateTmp", "ProtectHome"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert f"/opt/sam2edge/{PROGRAM.name} " in service["ExecStart"]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd to ask")
    # Programs that are missing here are said to be not executable, and are no fault of the unit.
    own = tmp_path / path.name
    own.write_text(re.sub(r"/opt/sam2edge/bin/\w+", "/bin/true", path.read_text()))
    result = subprocess.run(["systemd-analyze", "verify", str(own)], capture_output=True, text=True)
    assert "Unknown" not in result.stderr and "Failed to parse" not in result.stderr, result.stderr
    assert result.returncode == 0, result.stderr


def test_the_camera_program_on_a_video(tmp_path: Path) -> None:
    """A white disc in the middle comes out outlined; the end of the video is told, so that the service restarts."""
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    frame = np.full((120, 160, 3), 60, np.uint8)
    cv2.circle(frame, (80, 60), 30, (250, 250, 250), -1)
    for _ in range(3):
        writer.write(frame)
    writer.release()
    picture = tmp_path / "latest.png"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SAM2EDGE_MODEL": "sam2/hiera_micro"}
    assert not _is_healthy(picture)
    result = _camera(video, picture, environment)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, f"{video} gives no more frames")
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.shape == frame.shape
    assert np.abs(drawn.astype(int) - frame)[45:75, 65:95].max() > 40
    assert _is_healthy(picture)
    os.utime(picture, (time.time() - 100, time.time() - 100))
    assert not _is_healthy(picture)
    assert "cannot be opened" in _camera(tmp_path / "none", picture, environment).stderr


def _is_healthy(picture: Path) -> bool:
    """What the compose file has the shell ask, of this picture."""
    kind, command = COMPOSE["services"]["camera"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL" and "/results/latest.png" in command
    command = command.replace("$$", "$").replace("/results/latest.png", str(picture))
    return subprocess.run(["sh", "-c", command], capture_output=True).returncode == 0


def _camera(source: object, picture: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(source), str(picture)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
