"""Installing: whole or not at all, on a Python that has nothing but its standard library."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sam2edge.bundle.install import default_store, main
from sam2edge.bundle.wheels import Target
from sam2edge.store import paths
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.variants import find_variant
from tests.bundle.small_bundle import HERE, make_bundle

TINY, MICRO = find_variant("sam2/hiera_tiny"), find_variant("sam2/micro")


@pytest.fixture
def graphs() -> list[Path]:
    """Graphs of tiny in the store of this test, with their records."""
    files = [paths.graph_dir(TINY, 1024) / f"{name}.onnx" for name in ("image_encoder", "mask_decoder")]
    files[0].parent.mkdir(parents=True)
    for path in files:
        path.write_bytes(path.name.encode() * 100)
        write_manifest(path, describe_file(path, graph=path.stem))
    return files


def run(bundle: Path, *arguments: str | Path, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    """As on a machine that has only Python: no site-packages, nothing of this checkout."""
    own = ["-I", "-S"] if python == sys.executable else ["-I"]
    command = [str(python), *own, str(bundle), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=bundle.parent, timeout=120)


def tree(folder: Path) -> set[str]:
    """What is there, locks and other people's caches aside."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if ".locks" not in name and "__pycache__" not in name}


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def test_a_new_environment_and_models(
    tmp_path: Path, written_engines: Path, graphs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch, variants=(TINY, MICRO), engines=True)
    there, env = tmp_path / "store", tmp_path / "deep" / "env"
    result = run(bundle, "install", "--venv", env, "--isolated", "--store", there, "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["command"] == str(env / "bin" / "sam2edge")
    assert len(facts["added"]) == 4 and "said" not in facts
    here = paths.root()
    assert {name for name in tree(there) if "." in name.split("/")[-1]} >= {
        str(path.relative_to(here)) for path in [*graphs, *map(paths.manifest_path, graphs)]
    }
    for path in graphs:
        assert (there / path.relative_to(here)).read_bytes() == path.read_bytes()
    assert not list(there.glob(".bundle-*"))
    assert facts["engines_left_out"] == {"engines/sam2.1_micro/384-fp16": "no GPU"}
    assert not (there / "engines").exists()
    assert _version_in(env) == "sam2edge 0.1.0\n"
    again = run(bundle, "install", "--target", tmp_path / "packages", "--store", there, "--json")
    assert again.returncode == 0, again.stderr
    assert (len(json.loads(again.stdout)["kept"]), json.loads(again.stdout)["added"]) == (4, [])
    assert (tmp_path / "packages" / "sam2edge" / "__init__.py").is_file()


def test_verify_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    result = run(bundle, "verify")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("whole: sam2edge 0.1.0 for linux-")
    assert tree(tmp_path) == {"bundle.zip"}


@pytest.mark.parametrize("arguments", [[], ["no"], ["install", "--no"], ["install", "--venv", "a", "--target", "b"]])
def test_bad_usage_is_one_line(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(make_bundle(tmp_path / "bundle.zip", monkeypatch), *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("sam2edge: ") and result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    "target", [Target("riscv64", HERE.python), Target(HERE.machine, (3, 9)), Target(HERE.machine, (3, 99))]
)
def test_another_machine_or_python(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch, target=target)
    result = run(bundle, "install", "--venv", tmp_path / "env", "--store", tmp_path / "store")
    assert result.returncode == 1
    assert f"for another machine or Python; expected {HERE.name}; got {target.name}" in result.stderr
    assert tree(tmp_path) == {"bundle.zip", "store"}


def test_an_edited_wheel_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    content = bundle.read_bytes()
    bundle.write_bytes(content.replace(b"sam2edge.__version__", b"sam2edge.__VERSION__"))
    result = run(bundle, "install", "--venv", tmp_path / "env", "--store", tmp_path / "store")
    assert result.returncode == 1
    assert "is damaged; nothing was installed" in result.stderr
    assert tree(tmp_path) == {"bundle.zip", "store"}


def test_folders_with_something_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    for option in ("--venv", "--target"):
        result = run(bundle, "install", option, tmp_path / "mine", "--store", tmp_path / "store")
        assert result.returncode == 1
        assert "is there already" in result.stderr
    assert (tmp_path / "mine" / "file").read_text() == "precious"


def test_the_system_python_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    result = run(bundle, "install", "--store", tmp_path / "store", python=base)
    assert result.returncode == 1
    assert "system's own Python" in result.stderr and "--venv DIR" in result.stderr


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with 0.1.0 in it, put there by the real pip."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        bundle = make_bundle(folder / "first.zip", monkeypatch, pip=True)
    result = run(bundle, "install", "--venv", folder / "env", "--isolated", "--store", folder / "store")
    assert result.returncode == 0, result.stderr
    assert subprocess.run([folder / "env" / "bin" / "sam2edge"], capture_output=True).stdout == b"sam2edge 0.1.0\n"
    return folder / "env"


@pytest.fixture
def environment(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it, and a note beside the packages that nothing may touch."""
    shutil.copytree(made_once, tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "other_package.py").write_text("precious")
    return tmp_path / "env"


def test_an_environment_goes_up_and_not_down(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = make_bundle(tmp_path / "new.zip", monkeypatch, version="0.10.0", library="2.0", pip=True)
    inside = {"python": python_of(environment)}
    result = run(new, "install", "--store", tmp_path / "store", **inside)
    assert result.returncode == 0, result.stderr
    assert _version_in(environment) == "sam2edge 0.10.0\n"
    assert not list(environment.glob("lib/*/site-packages/sam2edge-0.1.0*"))
    old = make_bundle(tmp_path / "old.zip", monkeypatch, version="0.9.0")
    result = run(old, "install", "--store", tmp_path / "store", **inside)
    assert result.returncode == 1
    assert (
        "a newer sam2edge is installed; expected at most 0.9.0; got 0.10.0; remedy: give --downgrade" in result.stderr
    )
    assert _version_in(environment) == "sam2edge 0.10.0\n"


def test_a_failed_upgrade_leaves_the_old_version(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(environment)
    new = make_bundle(
        tmp_path / "new.zip", monkeypatch, version="0.2.0", library="2.0", main="import missing\n", pip=True
    )
    result = run(new, "install", "--store", tmp_path / "store", python=python_of(environment))
    assert result.returncode == 1
    assert "No module named 'missing'" in result.stderr
    assert tree(environment) == before
    assert _version_in(environment) == "sam2edge 0.1.0\n"
    assert not list((tmp_path / "store").glob(".bundle-*"))


@pytest.mark.parametrize("current", [False, True])
def test_a_kill_in_the_middle_is_repaired_by_the_next_run(
    current: bool, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version says that it is being tried, and waits; there the installer is killed, with all it started."""
    mark = tmp_path / "mark"
    main_file = f"open({str(mark)!r}, 'w').close()\nimport time\ntime.sleep(60)\n"
    stuck = make_bundle(
        tmp_path / "stuck.zip", monkeypatch, version="0.3.0", library="3.0", main=main_file, pip=current
    )
    before = tree(environment)
    where = [] if current else ["--venv", str(tmp_path / "other"), "--isolated"]
    python = python_of(environment) if current else sys.executable
    command = [str(python), str(stuck), "install", *where, "--store", str(tmp_path / "store")]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert mark.exists()
    assert list((tmp_path / "store").glob(".bundle-*"))
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(stuck.read_bytes()[:-10])
    assert run(damaged, "verify").returncode == 1
    result = subprocess.run(
        [sys.executable, "-m", "sam2edge.cli.main", "bundle", "install", str(damaged), "--store", tmp_path / "store"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "not a bundle, or is cut short" in result.stderr
    assert tree(environment) == before
    assert _version_in(environment) == "sam2edge 0.1.0\n"
    assert not (tmp_path / "other").exists()
    assert not list((tmp_path / "store").glob(".bundle-*"))


def test_a_journal_of_zeros_is_told_and_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    left = tmp_path / "store" / ".bundle-left"
    left.mkdir(parents=True, mode=0o700)
    (left / "journal.jsonl").write_bytes(bytes(512))
    (left / "journal.jsonl").chmod(0o600)
    result = run(bundle, "install", "--target", tmp_path / "packages", "--store", tmp_path / "store")
    assert result.returncode == 0, result.stderr
    assert "could not be undone: it is damaged, as by a power cut" in result.stderr
    assert (tmp_path / "store" / ".unusable-bundle-left" / "journal.jsonl").exists()
    result = run(bundle, "install", "--target", tmp_path / "more", "--store", tmp_path / "store")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_killed_installer_takes_pip_along_and_leaves_nothing(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the installer is killed, while its pip is at work; pip has moved what it replaces to `~am2edge` by then."""
    mark = tmp_path / "mark"
    pip = f"""
import json, os, sys, sysconfig, time
from pathlib import Path
if "--report" in sys.argv:
    wheels = Path(sys.argv[sys.argv.index("--find-links") + 1]).glob("sam2edge*.whl")
    plan = {{"install": [{{"download_info": {{"url": wheel.as_uri()}}}} for wheel in wheels]}}
    Path(sys.argv[sys.argv.index("--report") + 1]).write_text(json.dumps(plan))
    sys.exit()
site = Path(sysconfig.get_path("purelib"))
(site / "sam2edge").rename(site / "~am2edge")
Path({str(mark)!r}).write_text(str(os.getpid()))
time.sleep(60)
"""
    stuck = make_bundle(tmp_path / "stuck.zip", monkeypatch, version="0.3.0", quick_pip=pip)
    before = tree(environment)
    command = [str(python_of(environment)), str(stuck), "install", "--store", str(tmp_path / "store")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not mark.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            process.kill()
    number = int(mark.read_text())
    while Path(f"/proc/{number}/cmdline").exists() and Path(f"/proc/{number}/cmdline").read_bytes():
        assert time.monotonic() < deadline + 10, "pip is still there"
        time.sleep(0.05)
    assert tree(environment) != before
    (tmp_path / "no.zip").write_bytes(b"")
    main(["install", str(tmp_path / "no.zip"), "--store", str(tmp_path / "store")])
    assert tree(environment) == before


def test_other_files_in_the_store_are_kept(tmp_path: Path, graphs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch, variants=(TINY,))
    there = tmp_path / "store"
    mine = there / graphs[0].relative_to(paths.root())
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    result = run(bundle, "install", "--target", tmp_path / "packages", "--store", there)
    assert result.returncode == 1
    assert "other files of these models; nothing was installed" in result.stderr and "--replace" in result.stderr
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "packages").exists()
    result = run(bundle, "install", "--target", tmp_path / "packages", "--store", there, "--replace")
    assert result.returncode == 0, result.stderr
    assert mine.read_bytes() == graphs[0].read_bytes()


def test_a_failure_at_the_last_file_takes_all_back(
    tmp_path: Path, graphs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that a graph must go into is a file: found out when packages and weights are in place."""
    checkpoint = paths.checkpoint_dir() / "sam2.1_hiera_tiny.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    write_manifest(checkpoint, describe_file(checkpoint))
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch, variants=(TINY,))
    there = tmp_path / "store"
    there.mkdir()
    (there / "graphs").write_text("in the way")
    result = run(bundle, "install", "--target", tmp_path / "packages", "--store", there)
    assert result.returncode == 1
    assert "could not be installed; nothing of it is there" in result.stderr
    assert tree(there) == {"graphs"}
    assert not (tmp_path / "packages").exists()


def test_a_full_disk(tmp_path: Path, graphs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files fails writes as a full disk does."""
    graphs[0].write_bytes(bytes(3_000_000))
    write_manifest(graphs[0], describe_file(graphs[0]))
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch, variants=(TINY,))
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000));"
        f"sys.argv = ['x', 'install', '--target', {str(tmp_path / 'packages')!r}, '--store', {str(tmp_path / 's')!r}];"
        f"runpy.run_path({str(bundle)!r}, run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True)
    assert result.returncode == 1
    assert "could not be installed; nothing of it is there; got File too large" in result.stderr
    assert tree(tmp_path) == {"bundle.zip", "s"}


def test_a_store_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    (tmp_path / "file").write_text("")
    result = run(bundle, "install", "--target", tmp_path / "packages", "--store", tmp_path / "file" / "store")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "could not be installed" in result.stderr


@pytest.mark.parametrize(("name", "value"), [(None, None), ("XDG_DATA_HOME", "/data/x"), ("SAM2EDGE_HOME", "~/models")])
def test_the_store_is_where_sam2edge_looks(
    name: str | None, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_DATA_HOME", "SAM2EDGE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    if name and value:
        monkeypatch.setenv(name, value)
    assert default_store() == paths.root()


@pytest.mark.parametrize("option", ["--venv", "--target", "--store", "SAM2EDGE_HOME"])
def test_the_folder_of_a_user_who_is_not_there(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)
    monkeypatch.chdir(tmp_path)
    named = "~no-such-user/place"
    if option == "SAM2EDGE_HOME":
        monkeypatch.setenv(option, named)
    arguments = [] if option == "SAM2EDGE_HOME" else [option, named]
    assert main(["install", str(bundle), *arguments, "--json"]) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert err == f"sam2edge: {said['error']}\n" and said["status"] == 1
    assert named in said["got"] and said["remedy"]
    assert tree(tmp_path) == {"bundle.zip"}


def test_ctrl_c_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "bundle.zip", monkeypatch)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sam2edge.bundle.install.extract", interrupt)
    target = ["--target", str(tmp_path / "packages"), "--store", str(tmp_path / "store")]
    assert main(["install", str(bundle), *target]) == 130
    assert capsys.readouterr().err == "sam2edge: interrupted; nothing was installed\n"
    assert tree(tmp_path) == {"bundle.zip", "store"}


def _version_in(environment: Path) -> str:
    command = [str(python_of(environment)), "-c", "from sam2edge.cli.main import main; main()"]
    return subprocess.run(command, capture_output=True, text=True, cwd=environment).stdout
