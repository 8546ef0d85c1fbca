"""Reads which board this is from the device tree, L4T's release file and the package list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sam2edge.machine.sysfs import exists, read_strings, read_text

# Modules by the part number in the device tree, as NVIDIA's developer guides name them.
_MODULES = {
    "p3834-0008": "Jetson T5000",
    "p3767-0005": "Jetson Orin Nano 8 GB (developer kit)",
    "p3767-0004": "Jetson Orin Nano 4 GB",
    "p3767-0003": "Jetson Orin Nano 8 GB",
    "p3767-0001": "Jetson Orin NX 8 GB",
    "p3767-0000": "Jetson Orin NX 16 GB",
    "p3701-0008": "Jetson AGX Orin Industrial",
    "p3701-0005": "Jetson AGX Orin 64 GB",
    "p3701-0004": "Jetson AGX Orin 32 GB",
    "p3701-0000": "Jetson AGX Orin",
    "p3668-0003": "Jetson Xavier NX 16 GB",
    "p3668-0001": "Jetson Xavier NX 8 GB",
    "p3668-0000": "Jetson Xavier NX 8 GB (developer kit)",
    "p2888-0008": "Jetson AGX Xavier Industrial",
    "p2888-0005": "Jetson AGX Xavier 64 GB",
    "p2888-0004": "Jetson AGX Xavier 32 GB",
}
# Part numbers of modules; the other ones in a device tree are carrier boards.
_MODULE_PARTS = ("p3834", "p3767", "p3701", "p3668", "p2888", "p3448", "p3489", "p3310", "p3636")
# Compute capability of each Tegra's GPU. Thor's is 11.0 since CUDA 13, the first that its releases have.
_COMPUTE_CAPABILITY = {"tegra264": "11.0", "tegra234": "8.7", "tegra194": "7.2", "tegra186": "6.2", "tegra210": "5.3"}

# JetPack by L4T release, from NVIDIA's JetPack archive; of others only the first number is known.
_JETPACK = {
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.2.0": "6.0 DP",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "38.2.0": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
_JETPACK_MAJOR = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}

_PART = re.compile(r"p?(\d{4})[-:](\d{4})")
_L4T = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")


@dataclass(frozen=True)
class Board:
    """A board: its name, and of a Jetson the module, the Tegra, L4T ("36.4.3") and JetPack ("6.2"); None: unknown."""

    name: str | None = None
    part: str | None = None
    module: str | None = None
    soc: str | None = None
    l4t: str | None = None
    jetpack: str | None = None

    @property
    def is_jetson(self) -> bool:
        """True also in a container that has only the device tree or only the release file."""
        return self.soc is not None or self.l4t is not None

    @property
    def compute_capability(self) -> str | None:
        """Of a Tegra's GPU ("8.7"); None for others."""
        return _COMPUTE_CAPABILITY.get(self.soc or "")


def read_board(root: Path = Path("/")) -> Board:
    """The board below `root`; never raises."""
    tree = _find_device_tree(root)
    compatible = read_strings(tree / "compatible")
    soc = next((s.removeprefix("nvidia,") for s in compatible if re.fullmatch(r"nvidia,tegra\d+", s)), None)
    part = read_module_part(root)
    l4t = _read_l4t(root, in_packages=soc is not None)
    name = read_text(tree / "model") or read_text(root / "sys/class/dmi/id/product_name")
    return Board(
        name=name or None,
        part=part if soc else None,
        module=_MODULES.get(part or "") if soc else None,
        soc=soc,
        l4t=l4t,
        jetpack=_find_jetpack(l4t, root) if l4t else None,
    )


def read_module_part(root: Path = Path("/")) -> str | None:
    """The part number of a Jetson's module ("p3767-0005"); None elsewhere, or if the device tree lacks it."""
    tree = _find_device_tree(root)
    # Thor's tree has no nvidia,boardids.
    names = ("compatible", "nvidia,boardids", "nvidia,dtsfilename")
    texts = [text for name in names for text in read_strings(tree / name)]
    parts = [f"p{a}-{b}" for text in texts for a, b in _PART.findall(text)]
    return next((part for part in parts if part.startswith(_MODULE_PARTS)), None)


def _find_device_tree(root: Path) -> Path:
    tree = root / "proc/device-tree"
    return tree if exists(tree / "compatible") else root / "sys/firmware/devicetree/base"


def _read_l4t(root: Path, in_packages: bool) -> str | None:
    found = _L4T.search(read_text(root / "etc/nv_tegra_release"))
    if found:
        return f"{found[1]}.{found[2].strip('.')}"
    # A container on a Jetson has this at most; elsewhere the long list is not read for it.
    version = read_package_versions(root, ("nvidia-l4t-core",)).get("nvidia-l4t-core") if in_packages else None
    return version.partition("-")[0] if version else None


def _find_jetpack(l4t: str, root: Path) -> str | None:
    package = read_package_versions(root, ("nvidia-jetpack",)).get("nvidia-jetpack")
    if package:
        return package.partition("+")[0]
    release = l4t if l4t.count(".") > 1 else f"{l4t}.0"
    return _JETPACK.get(release) or _JETPACK_MAJOR.get(l4t.partition(".")[0])


_DPKG_MAX_BYTES = 1 << 25


def read_package_versions(root: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of the named Debian packages that are installed."""
    found = {}
    for block in read_text(root / "var/lib/dpkg/status", _DPKG_MAX_BYTES).split("\n\n"):
        name, _, rest = block.partition("\n")
        package = name.removeprefix("Package: ").strip()
        if package in names and "\nStatus: install ok installed" in f"\n{rest}":
            version = re.search(r"^Version: (\S+)", rest, re.MULTILINE)
            if version:
                found[package] = version[1]
    return found
