"""Finds camera devices and the libraries that read them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from sam2edge.diagnosis.findings import BROKEN, MISSING, NOTE, WORKS, Finding
from sam2edge.machine.sysfs import exists, list_children, read_text

_GSTREAMER = re.compile(r"^\s*GStreamer:\s*(YES|NO)\s*(?:\(([^)]*)\))?", re.MULTILINE)
_GI = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; print(Gst.version_string())"


def look_at_cameras(root: Path = Path("/")) -> list[Finding]:
    """Findings on GStreamer in OpenCV and in Python, video devices, and on a Jetson the service of CSI cameras."""
    on_jetson = exists(root / "etc/nv_tegra_release")
    findings = [_check_opencv("nvidia-opencv" if on_jetson else "python3-opencv"), _check_gi(), _list_devices(root)]
    if on_jetson:
        there = exists(root / "tmp/argus_socket")
        said = "/tmp/argus_socket is there" if there else "its service nvargus-daemon does not run"
        remedy = None if there else "sudo systemctl restart nvargus-daemon"
        findings.append(Finding("CSI cameras", WORKS if there else MISSING, said, remedy))
    return findings


def _check_opencv(package: str) -> Finding:
    """`package` is the system's OpenCV, which has GStreamer."""
    name = "GStreamer in OpenCV"
    try:
        import cv2

        found = _GSTREAMER.search(cv2.getBuildInformation())
        version = cv2.__version__
    except Exception as error:  # a wheel without its system libraries, say
        return Finding(name, BROKEN, f"OpenCV cannot be loaded: {error}", "pip install opencv-python-headless")
    if found is not None and found[1] == "YES":
        return Finding(name, WORKS, f"OpenCV {version} with GStreamer {found[2] or ''}".strip())
    return Finding(
        name,
        MISSING,
        f"OpenCV {version} is built without it, as the wheels are; files and USB cameras work",
        f"pip uninstall -y opencv-python-headless && sudo apt install {package}",
    )


def _check_gi() -> Finding:
    """Imports gi in a process of its own: its native libraries may be broken."""
    try:
        done = subprocess.run([sys.executable, "-c", _GI], capture_output=True, text=True, timeout=30)
        version = done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        version = ""
    if version:
        return Finding("GStreamer in Python (gi)", WORKS, version)
    remedy = "sudo apt install python3-gi gir1.2-gstreamer-1.0"
    said = "gi or its GStreamer cannot be imported (a virtual environment needs --system-site-packages)"
    return Finding("GStreamer in Python (gi)", MISSING, said, remedy)


def _list_devices(root: Path) -> Finding:
    devices = list(list_children(root / "dev", "video*"))
    if not devices:
        return Finding("video devices", NOTE, "no /dev/video*")
    named = (f"/dev/{d.name} {read_text(root / 'sys/class/video4linux' / d.name / 'name')}".strip() for d in devices)
    return Finding("video devices", NOTE, ", ".join(named))
