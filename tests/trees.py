"""Machines as folders: the files of /proc, /sys, /etc and /var that sam2edge reads, as such machines have them.

Layouts and strings are those that owners of such boards have published; memory figures are of idle systems.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GIB = 1 << 30

Files = dict[str, str]


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _meminfo(total_kb: int, available_kb: int, swap_kb: int = 0, nvmap_kb: int | None = None) -> Files:
    lines = [f"MemTotal:       {total_kb} kB", "MemFree:          123456 kB", f"MemAvailable:   {available_kb} kB"]
    lines += [
        f"SwapTotal:       {swap_kb} kB",
        f"SwapFree:        {swap_kb - swap_kb // 4} kB",
        "HugePages_Total:       0",
    ]
    if nvmap_kb is not None:
        lines += [f"NvMapMemFree:          {0} kB", f"NvMapMemUsed:     {nvmap_kb} kB"]
    return {"proc/meminfo": "\n".join(lines) + "\n"}


def _jetson(model: str, compatible: str, release: str, soc_family: str = "Tegra") -> Files:
    return {
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": compatible,
        "etc/nv_tegra_release": f"{release}\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
        "sys/devices/soc0/family": soc_family,
        "dev/nvmap": "",
    }


def _release(major: int, revision: str, gcid: int, date: str) -> str:
    return f"# R{major} (release), REVISION: {revision}, GCID: {gcid}, BOARD: generic, EABI: aarch64, DATE: {date}"


def _clocks(gpu: str, gpu_hz: tuple[int, int, int], cpu_khz: tuple[int, int, int]) -> Files:
    files = {f"sys/class/devfreq/{gpu}/governor": "nvhost_podgov\n"}
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    files.update({f"{policy}/affected_cpus": "0 1 2 3\n", f"{policy}/scaling_governor": "schedutil\n"})
    for which, hertz, kilohertz in zip(("cur", "min", "max"), gpu_hz, cpu_khz, strict=True):
        files[f"sys/class/devfreq/{gpu}/{which}_freq"] = f"{hertz}\n"
        files[f"{policy}/scaling_{which}_freq"] = f"{kilohertz}\n"
    return files


def _zones(**millidegrees: int) -> Files:
    files = {}
    for number, (name, value) in enumerate(millidegrees.items()):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = f"{name.replace('_', '-')}\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{value}\n"
    return files


def _nvpmodel(mode: int, *names: str) -> Files:
    models = "".join(f"< POWER_MODEL ID={n} NAME={name} >\nCPU_ONLINE CORE_0 1\n\n" for n, name in enumerate(names))
    return {
        "var/lib/nvpmodel/status": f"pmode:{mode:04d} fmode:quiet",
        "etc/nvpmodel.conf": f"< PARAM TYPE=FILE NAME=CPU_ONLINE >\n\n{models}< PM_CONFIG DEFAULT=0 >\n",
    }


def _packages(**versions: str) -> Files:
    blocks = [
        f"Package: {name.replace('_', '-')}\nStatus: install ok installed\nPriority: standard\nVersion: {version}\n"
        for name, version in versions.items()
    ]
    removed = "Package: libnvinfer8\nStatus: deinstall ok config-files\nVersion: 8.0.0-1\n"
    return {"var/lib/dpkg/status": "\n".join([*blocks, removed])}


_R36_4_3 = _release(36, "4.3", 38968081, "Wed Jan  8 01:49:37 UTC 2025")
_JETPACK_6 = {
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    **_packages(nvidia_l4t_core="36.4.3-20250107174145", libnvinfer10="10.3.0.30-1+cuda12.5", nvidia_jetpack="6.2+b77"),
}

ORIN_NANO_8GB: Files = {
    **_jetson(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
        _R36_4_3,
    ),
    **_JETPACK_6,
    **_meminfo(7_802_892, 5_242_880, swap_kb=3_901_440, nvmap_kb=151_552),
    "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    + "".join(f"/dev/zram{n}                              partition\t650240\t\t162560\t\t5\n" for n in range(6)),
    **_nvpmodel(2, "15W", "25W", "MAXN_SUPER"),
    **_clocks("17000000.gpu", (306_000_000, 306_000_000, 1_020_000_000), (729_600, 729_600, 1_728_000)),
    **_zones(cpu_thermal=48_125, gpu_thermal=47_906, cv0_thermal=-256_000, tj_thermal=49_250),
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/type": "cpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",
    "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
    "dev/video0": "",
}

ORIN_NX_16GB: Files = {
    **_jetson(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0",
        _release(39, "2.0", 45755727, "Mon Jun  1 09:28:48 PM UTC 2026"),
    ),
    "usr/local/cuda-13.2/version.json": '{"cuda": {"version": "13.2.0"}}',
    **_packages(nvidia_l4t_core="39.2.0-20260601", libnvinfer10="10.16.0.20-1+cuda13.2"),
    **_meminfo(16_000_000, 12_582_912),
    **_nvpmodel(0, "MAXN", "10W", "15W", "25W"),
    **_clocks("17000000.gpu", (918_000_000, 918_000_000, 918_000_000), (1_984_000, 1_984_000, 1_984_000)),
    **_zones(cpu_thermal=61_000),
    "sys/class/thermal/cooling_device0/type": "devfreq-17000000.gpu\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "dev/nvidia0": "",
}

AGX_ORIN_64GB: Files = {
    **_jetson(
        "NVIDIA Jetson AGX Orin Developer Kit",
        "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0",
        _R36_4_3,
    ),
    **_JETPACK_6,
    **_meminfo(64_347_608, 58_720_256, nvmap_kb=0),
    **_nvpmodel(3, "MAXN", "15W", "30W", "50W"),
    **_clocks("17000000.ga10b", (306_000_000, 306_000_000, 1_300_500_000), (1_190_400, 729_600, 2_201_600)),
    **_zones(cpu_thermal=41_500),
}

XAVIER_JETPACK_5: Files = {
    **_jetson(
        "Jetson-AGX",
        "nvidia,p2972-0000\0nvidia,tegra194\0",
        "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
        "DATE: Tue Aug  1 19:57:35 UTC 2023",
    ),
    "proc/device-tree/nvidia,boardids": "2888:0004\0",
    "usr/local/cuda/version.json": '{"cuda": {"version": "11.4.315"}}',
    **_packages(nvidia_l4t_core="35.4.1-20230801124926", libnvinfer8="8.5.2-1+cuda11.4"),
    **_meminfo(31_000_000, 25_165_824, nvmap_kb=2_048),
    **_nvpmodel(7, "MAXN", "MODE_10W"),
    **_clocks("17000000.gv11b", (114_750_000, 114_750_000, 1_377_000_000), (1_190_400, 1_190_400, 2_265_600)),
    **_zones(CPU_therm=35_500, PMIC_Die=50_000),
}

THOR_JETPACK_7: Files = {
    **_jetson(
        "NVIDIA Jetson AGX Thor Developer Kit",
        "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
        _release(38, "2.2", 42205042, "Thu Sep 25 22:47:11 UTC 2025"),
    ),
    "usr/local/cuda-13.0/version.json": '{"cuda": {"version": "13.0.0"}}',
    **_packages(nvidia_l4t_core="38.2.2-20250925", libnvinfer10="10.13.3.9-1+cuda13.0"),
    **_meminfo(128_000_000, 120_586_240),
    **_nvpmodel(0, "MAXN", "120W"),
    **_clocks("gpu-gpc-0", (1_575_000_000, 315_000_000, 1_575_000_000), (2_601_000, 972_000, 2_601_000)),
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "1692000000\n",
    **_zones(cpu_thermal=44_000, gpu_thermal=43_000),
    "dev/nvidia0": "",
    "dev/nvidiactl": "",
}

DESKTOP_GPU: Files = {
    "sys/class/dmi/id/product_name": "Z790 Workstation\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.2 LTS"\n',
    "usr/local/cuda/version.json": '{"cuda": {"version": "12.8.0"}}',
    **_meminfo(65_000_000, 50_331_648, swap_kb=8_000_000),
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/swap.img file\t8000000\t2000000\t-2\n",
    **_zones(x86_pkg_temp=52_000),
    "sys/class/thermal/cooling_device0/type": "Processor\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "intel_powerclamp\n",
    "sys/class/thermal/cooling_device1/cur_state": "-1\n",
    "dev/nvidia0": "",
    "dev/nvidiactl": "",
}

CPU_CONTAINER: Files = {
    **_meminfo(65_000_000, 50_331_648),
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory.current": f"{GIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon {GIB // 4}\nfile {3 * GIB // 4}\ninactive_file {GIB // 2}\n",
}

TREES: dict[str, Files] = {
    "Orin Nano 8 GB": ORIN_NANO_8GB,
    "Orin NX 16 GB": ORIN_NX_16GB,
    "AGX Orin 64 GB": AGX_ORIN_64GB,
    "Xavier": XAVIER_JETPACK_5,
    "Thor": THOR_JETPACK_7,
    "desktop GPU": DESKTOP_GPU,
    "CPU container": CPU_CONTAINER,
}
