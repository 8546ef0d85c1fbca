"""What a bundle must be to be unpacked, and every way in which it is not."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sam2edge.bundle.archive import MANIFEST, extract, read_bundle, write_bundle
from sam2edge.errors import BundleError
from tests.bundle.small_bundle import make_bundle

FACTS = {"version": "0.1.0", "target": "linux-aarch64-cp310", "models": [], "requirements": ["sam2edge==0.1.0"]}
CONTENTS = {
    "__main__.py": b"pass\n",
    "wheels/sam2edge-0.1.0-py3-none-any.whl": b"wheel" * 1000,
    "store/graphs/sam2.1_hiera_tiny/1024-fp32/image_encoder.onnx": b"graph" * 1000,
}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    members = []
    for number, (name, content) in enumerate(CONTENTS.items()):
        file = tmp_path / f"member-{number}"
        file.write_bytes(content)
        members.append((name, file))
    write_bundle(tmp_path / "bundle.zip", FACTS, members)
    return tmp_path / "bundle.zip"


def _read_all(path: Path) -> None:
    extract(read_bundle(path), None)


def test_what_was_written_is_read(whole: Path, tmp_path: Path) -> None:
    bundle = read_bundle(whole)
    assert (bundle.version, bundle.target) == ("0.1.0", "linux-aarch64-cp310")
    assert bundle.files == {n: (len(c), hashlib.sha256(c).hexdigest()) for n, c in CONTENTS.items()}
    extract(bundle, tmp_path / "out")
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "out")) for path in found} == set(CONTENTS) - {"__main__.py"}
    assert all(path.read_bytes() == CONTENTS[str(path.relative_to(tmp_path / "out"))] for path in found)


def test_the_same_contents_make_the_same_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for name in ("a.zip", "b.zip"):
        write_bundle(tmp_path / name, FACTS, [("__main__.py", file)])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_bundle_that_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2edge.bundle.archive.MOST_BYTES", 10)
    with pytest.raises(BundleError, match="too large.*at most 10 bytes.*make several"):
        make_bundle(tmp_path / "bundle.zip", monkeypatch)
    assert not (tmp_path / "bundle.zip").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1, -100])
def test_truncated(whole: Path, kept: int) -> None:
    whole.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(BundleError, match="not a bundle, or is cut short"):
        _read_all(whole)


@pytest.mark.parametrize("where", [b"wheelwheel", b"graphgraph", b"pass", b'"format"', b"linux-aarch64"])
def test_an_edited_byte(whole: Path, where: bytes) -> None:
    content = bytearray(whole.read_bytes())
    content[content.index(where) + 2] ^= 1
    whole.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        _read_all(whole)


@pytest.mark.parametrize("content", [b"", b"not a bundle", b"PK\x03\x04" + b"\0" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_files_that_are_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a bundle|damaged"):
        _read_all(path)


def test_a_tar_archive_with_links(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo("wheels/a.whl")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    with pytest.raises(BundleError, match="not a bundle"):
        _read_all(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not found"):
        _read_all(tmp_path / "none.zip")
    with pytest.raises(BundleError, match="not a bundle"):
        _read_all(tmp_path)


def _forged(path: Path, entries: list[tuple[zipfile.ZipInfo, bytes]], listed: bool = True) -> Path:
    """A bundle whose manifest knows the entries, so that nothing but their nature speaks against them."""
    files = {e.filename: {"size_bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for e, c in entries}
    manifest = {"format": 1, **FACTS, "files": files if listed else {}}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
        archive.writestr(MANIFEST, json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "wheels/../../outside.whl",
        "store/../outside",
        "store/checkpoints/../../../outside",
        "/etc/passwd",
        "wheels//etc/passwd",
        "wheels\\..\\outside.whl",
        "C:/outside",
        "store/checkpoints/.hidden",
        "store/.bundle-x/journal.jsonl",
        "wheels/a.whl/",
        "store/checkpoints/a\0b",
        "store/checkpoints/a\nb",
        "store/timing/a",
        "store/graphs/a/b/c/d",
        "elsewhere/file",
        "wheels/setup.py",
        "store/file",
        "",
    ],
)
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("wheels/a.whl")
    entry.filename = name
    path = _forged(tmp_path / "forged.zip", [(entry, b"x")])
    with pytest.raises(BundleError, match="was refused; nothing was unpacked|damaged"):
        extract(read_bundle(path), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["forged.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_links_and_devices(kind: int, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("wheels/a.whl")
    entry.external_attr = (kind | 0o777) << 16
    path = _forged(tmp_path / "forged.zip", [(entry, b"/etc/passwd")])
    with pytest.raises(BundleError, match="refused.*expected a plain file.*got 'wheels/a.whl'"):
        read_bundle(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["wheels/a.whl", "wheels/A.whl"])
def test_names_that_come_twice(second: str, tmp_path: Path) -> None:
    path = _forged(tmp_path / "f.zip", [(zipfile.ZipInfo("wheels/a.whl"), b"x"), (zipfile.ZipInfo(second), b"x")])
    with pytest.raises(BundleError, match="refused.*every name once.*twice"):
        read_bundle(path)


def test_members_that_swell(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("wheels/a.whl")
    entry.compress_type = zipfile.ZIP_DEFLATED
    path = _forged(tmp_path / "forged.zip", [(entry, b"\0" * 10_000_000)])
    with pytest.raises(BundleError, match="refused.*no compression"):
        read_bundle(path)


def test_members_that_say_they_are_larger(tmp_path: Path) -> None:
    path = _forged(tmp_path / "forged.zip", [(zipfile.ZipInfo("wheels/a.whl"), b"x" * 1000)])
    content = path.read_bytes()
    for size in (1000,):
        content = content.replace(size.to_bytes(4, "little"), (1 << 30).to_bytes(4, "little"))
    path.write_bytes(content)
    with pytest.raises(BundleError, match="refused.*at most its own|damaged"):
        _read_all(path)


def test_members_that_overlap(tmp_path: Path) -> None:
    """Two entries of the directory on the same bytes, each of half the archive's size and more."""
    entries = [(zipfile.ZipInfo(f"wheels/{name}.whl"), b"x" * 5000) for name in "ab"]
    path = _forged(tmp_path / "forged.zip", entries)
    with zipfile.ZipFile(path) as archive:
        second = archive.getinfo("wheels/b.whl").header_offset
    directory = path.read_bytes().rindex(second.to_bytes(4, "little") + b"wheels/b.whl")
    content = bytearray(path.read_bytes())
    content[directory : directory + 4] = (0).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        _read_all(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "another format"),
        (lambda m: m.pop("files"), "damaged"),
        (lambda m: m.update(files=[]), "damaged"),
        (lambda m: m["files"].popitem(), "damaged"),
        (lambda m: m["files"].update({"wheels/none.whl": {"size_bytes": 1, "sha256": "0"}}), "damaged"),
        (lambda m: m["files"]["__main__.py"].update(size_bytes=4), "damaged"),
        (lambda m: m["files"]["__main__.py"].update(size_bytes="many"), "damaged"),
        (lambda m: m.update(models=3), "damaged"),
        (lambda m: m.update(requirements=[]), "damaged"),
        (lambda m: m.update(requirements=["--index-url=https://elsewhere.invalid"]), "damaged"),
    ],
)
def test_manifests_that_do_not_fit(whole: Path, change: Callable[[dict], object], message: str) -> None:
    with zipfile.ZipFile(whole) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents.pop(MANIFEST))
    change(manifest)
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        archive.writestr(MANIFEST, json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        _read_all(whole)


def test_a_manifest_that_is_none(whole: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(MANIFEST, "[" * 100_000)
    whole.write_bytes(buffer.getvalue())
    with pytest.raises(BundleError, match="damaged"):
        read_bundle(whole)
