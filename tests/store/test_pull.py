"""Downloads against a server on this machine that does everything wrong that servers do."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sam2edge.errors import InvalidInputError, StoreError
from sam2edge.files import git_blob_id, locked
from sam2edge.store import paths
from sam2edge.store.inventory import check_file, list_stored_files, partial_path
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.store.pull import pull_checkpoint
from sam2edge.variants import Variant, find_variant
from tests.file_server import FileServer

CONTENT = bytes(range(256)) * 4000  # 1 MB
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SAM2EDGE_MIRROR", raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(CONTENT) as running:
        yield running


def _target() -> Path:
    return paths.checkpoint_dir() / "weights.pt"


def _part() -> Path:
    return partial_path(_target())


def _put_part(content: bytes) -> None:
    _part().parent.mkdir(parents=True)
    _part().write_bytes(content)


def _names() -> list[str]:
    return sorted(path.name for path in paths.checkpoint_dir().iterdir())


def test_a_file_comes_whole_and_once(server: FileServer) -> None:
    seen: list[tuple[int, int]] = []
    path = pull_checkpoint(server.variant(), lambda done, total: seen.append((done, total)))
    assert path == _target()
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o644
    assert _names() == ["weights.pt"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert pull_checkpoint(server.variant()) == path
    assert len(server.requests) == 1


def test_a_download_that_drops_goes_on_where_it_was(server: FileServer) -> None:
    server.drop_after = 300_000
    assert pull_checkpoint(server.variant()).read_bytes() == CONTENT
    assert [r.get("Range") for r in server.requests] == [None, *(f"bytes={n}00000-" for n in (3, 6, 9))]
    assert [r.get("If-Range") for r in server.requests] == [None, '"abc"', '"abc"', '"abc"']


def test_what_came_is_kept_for_the_next_call(server: FileServer) -> None:
    server.drop_after = 1000
    with pytest.raises(StoreError, match="broke off.*expected 1024000 bytes.*got 5000.*run it again"):
        pull_checkpoint(server.variant())
    assert _part().read_bytes() == CONTENT[:5000]
    assert not _target().exists()
    server.drop_after = None
    pull_checkpoint(server.variant())
    assert server.requests[-1]["Range"] == "bytes=5000-"
    assert _names() == ["weights.pt"]


@pytest.mark.parametrize("change", ["no ranges", "another etag"])
def test_a_server_that_sends_all_again(server: FileServer, change: str) -> None:
    server.drop_after = 900_000
    server.ranges = change != "no ranges"
    if change == "another etag":
        _put_part(b"other bytes")
        paths.write_json(
            _part().with_name(f"{_part().name}.json"), {"url": f"{server.address}/weights.pt", "validator": '"old"'}
        )
        server.drop_after = None
        assert pull_checkpoint(server.variant()).read_bytes() == CONTENT
        assert server.requests[0]["If-Range"] == '"old"'
    else:
        with pytest.raises(StoreError, match="broke off"):
            pull_checkpoint(server.variant())
        assert len(server.requests) == 2  # the second brought no more than the first: no use going on


def test_a_part_of_another_file_is_fetched_again_from_the_start(server: FileServer) -> None:
    _put_part(b"x" * 500_000)
    assert pull_checkpoint(server.variant()).read_bytes() == CONTENT
    assert [r.get("Range") for r in server.requests] == ["bytes=500000-", None]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_too_long_or_wrong_but_whole(server: FileServer, length: int) -> None:
    _put_part(b"x" * length)
    assert pull_checkpoint(server.variant()).read_bytes() == CONTENT


def test_a_part_that_only_lacks_its_move(server: FileServer) -> None:
    _put_part(CONTENT)
    assert pull_checkpoint(server.variant()).read_bytes() == CONTENT
    assert server.requests == []


def test_wrong_bytes_are_not_kept(server: FileServer) -> None:
    variant = server.variant(sha256="0" * 64)
    with pytest.raises(StoreError, match="not the official file; it was not kept; expected SHA-256 0000"):
        pull_checkpoint(variant)
    assert [name for name in _names() if not name.endswith(".json")] == []


def _known_by_git(server: FileServer, git_blob: str) -> Variant:
    return server.variant(sha256=None, size_bytes=None, git_blob=git_blob)


def test_a_git_blob_id_stands_for_an_unknown_checksum_and_size(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert git_blob_id(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"  # `git hash-object`'s
    variant = _known_by_git(server, hashlib.sha1(b"blob 1024000\0" + CONTENT).hexdigest())
    with FileServer(b"") as first:  # which redirects to another host
        first.redirect = f"{server.address}/weights.pt"
        server.drop_after = 300_000
        assert variant.checkpoint is not None
        away = replace(variant, checkpoint=replace(variant.checkpoint, url=f"{first.address}/weights.pt"))
        assert pull_checkpoint(away).read_bytes() == CONTENT
    asked = len(server.requests)
    assert pull_checkpoint(variant) == _target()
    assert len(server.requests) == asked
    _target().write_bytes(CONTENT[:-1] + b"x")
    assert pull_checkpoint(variant).read_bytes() == CONTENT


def test_what_a_git_blob_id_refuses(server: FileServer) -> None:
    with pytest.raises(
        StoreError, match="not the official file; it was not kept; expected git blob 0000.*got git blob"
    ):
        pull_checkpoint(_known_by_git(server, "0" * 40))
    assert not _target().exists()
    assert not _part().exists()
    server.no_length = True
    with pytest.raises(StoreError, match="expected its size, as Content-Length"):
        pull_checkpoint(_known_by_git(server, "0" * 40))


def test_edgetam_in_the_store_is_checked_by_its_git_blob_id() -> None:
    paths.checkpoint_dir().mkdir(parents=True)
    (paths.checkpoint_dir() / "edgetam.pt").write_bytes(CONTENT)
    (file,) = list_stored_files(find_variant("sam2/edgetam"))
    check = check_file(file)
    assert check.state == "damaged"
    assert "expected git blob abd54d22bbd22ba" in check.reason
    assert check.remedy == "sam2edge models pull sam2/edgetam"


def test_a_file_without_a_published_sum_is_not_fetched(server: FileServer) -> None:
    with pytest.raises(StoreError, match=r"no checksum.*fetch it yourself, then: sam2edge models add weights\.pt"):
        pull_checkpoint(server.variant(sha256=None, size_bytes=None))
    assert not server.requests


@pytest.mark.parametrize("wrong", ["longer", "shorter", "longer and unsaid", "shorter and unsaid"])
def test_wrong_lengths_are_not_kept(server: FileServer, wrong: str) -> None:
    server.no_length = wrong.endswith("unsaid")
    size = len(CONTENT) + (-1000 if wrong.startswith("longer") else 1000)
    with pytest.raises(StoreError, match="does not give the official file|broke off"):
        pull_checkpoint(server.variant(size_bytes=size))
    assert not _target().exists()
    if wrong != "shorter and unsaid":  # which cannot be told from a connection that dropped
        assert not _part().exists()


def test_a_range_that_was_not_asked_for(server: FileServer) -> None:
    _put_part(CONTENT[:1000])
    server.wrong_range = True
    assert pull_checkpoint(server.variant()).read_bytes() == CONTENT
    assert [r.get("Range") for r in server.requests] == ["bytes=1000-", None]


def test_a_server_whose_file_is_shorter_than_what_came(server: FileServer) -> None:
    _put_part(b"x" * (len(CONTENT) + 10))
    with pytest.raises(StoreError, match="does not give the official file"):
        pull_checkpoint(server.variant(size_bytes=len(CONTENT) + 20))
    assert [r.get("Range") for r in server.requests] == ["bytes=1024010-", None]


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "a web page .*login"),
        ({"Content-Encoding": "gzip"}, "gzip data"),
        ({}, "does not give|broke off"),
    ],
)
def test_what_came_survives_a_captive_portal(
    server: FileServer, headers: dict[str, str], reason: str, announced: bool
) -> None:
    _put_part(CONTENT[:970_000])
    page = FileServer(b"<html>Please log in</html>" * 20, ranges=False, headers=headers, no_length=not announced)
    with page, pytest.raises(StoreError, match=reason):
        pull_checkpoint(page.variant(size_bytes=len(CONTENT)))
    assert _part().read_bytes() == CONTENT[:970_000]
    assert sorted(path.suffix for path in paths.checkpoint_dir().iterdir())[-1:] == [".partial"]
    pull_checkpoint(server.variant())
    assert server.requests[0]["Range"] == "bytes=970000-"


def test_a_mirror_with_a_password(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = server.address.replace("//", "//me:s%2Fcret@")
    monkeypatch.setenv("SAM2EDGE_MIRROR", address)
    server.drop_after = 1000
    with pytest.raises(StoreError) as told:
        pull_checkpoint(server.variant(url="https://nowhere.invalid/weights.pt"))
    assert "cret" not in str(told.value) and server.address in str(told.value)
    assert "cret" not in "".join(path.read_text("latin-1") for path in paths.checkpoint_dir().iterdir())
    assert {r["Authorization"] for r in server.requests} == {"Basic " + base64.b64encode(b"me:s/cret").decode()}
    with FileServer(CONTENT) as other:
        server.redirect = f"{other.address}/weights.pt"
        pull_checkpoint(server.variant(url="https://nowhere.invalid/weights.pt"))
        assert "Authorization" not in other.requests[0]


@pytest.mark.parametrize(
    "mirror",
    [
        "http://[::1",
        "http://me:secret@[::1/",
        "http://host:port/",
        "http:///path",
        "~nobody-of-that-name/x",
        "ftp://x/",
    ],
)
def test_a_mirror_that_is_no_address(server: FileServer, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2EDGE_MIRROR", mirror)
    with pytest.raises(InvalidInputError, match="SAM2EDGE_MIRROR cannot be used") as told:
        pull_checkpoint(server.variant())
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("kind", ["fifo", "folder", "endless"])
def test_a_mirrors_folder_with_something_else_in_it(
    kind: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "weights.pt"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    monkeypatch.setenv("SAM2EDGE_MIRROR", str(tmp_path))
    with pytest.raises(StoreError, match=r"cannot be read.*(a pipe, a device or a folder|Is a directory)"):
        pull_checkpoint(server.variant())


def test_a_server_that_falls_silent(server: FileServer) -> None:
    server.stall_after = 1000
    started = time.monotonic()
    with pytest.raises(StoreError, match="broke off.*timed out"):
        pull_checkpoint(server.variant(), timeout_seconds=0.1)
    assert time.monotonic() - started < 20
    assert _part().read_bytes()[:1000] == CONTENT[:1000]


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_answer_that_is_no_file(server: FileServer, status: int) -> None:
    server.status = status
    with pytest.raises(StoreError, match=f"HTTP status {status}.*models add FILE"):
        pull_checkpoint(server.variant())
    assert not _part().exists()


@pytest.mark.parametrize("before", [0, 1000])
def test_a_part_that_nobody_asked_for(server: FileServer, before: int) -> None:
    """206 without a range, also to a request for the whole file."""
    if before:
        _put_part(CONTENT[:before])
    server.status = 206
    with pytest.raises(StoreError, match="expected bytes from 0 on"):
        pull_checkpoint(server.variant())
    assert len(server.requests) <= 2


def test_no_network() -> None:
    with FileServer(CONTENT) as server:
        variant = server.variant()
    with pytest.raises(StoreError, match="cannot be reached.*refused.*SAM2EDGE_MIRROR"):
        pull_checkpoint(variant)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made certificate for localhost, key and all in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    options = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(str(path) + ".crt").read_text())
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_https_is_checked_and_never_left(
    server: FileServer, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileServer(CONTENT, tls=tls) as safe:
        with pytest.raises(StoreError, match="cannot be reached.*certificate verify failed"):
            pull_checkpoint(safe.variant())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        safe.redirect = f"{server.address}/weights.pt"
        with pytest.raises(StoreError, match="redirects to an unsafe address.*expected https"):
            pull_checkpoint(safe.variant())
        assert server.requests == []
        safe.redirect = None
        assert pull_checkpoint(safe.variant()).read_bytes() == CONTENT


@pytest.mark.parametrize("address", ["ftp://localhost/weights.pt", "file:///etc/passwd"])
def test_redirects_to_other_kinds_of_address(server: FileServer, address: str) -> None:
    server.redirect = address
    with pytest.raises(StoreError, match="unsafe address|HTTP status 302"):
        pull_checkpoint(server.variant())


def test_a_mirror_by_http(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2EDGE_MIRROR", f"{server.address}/a/")
    pull_checkpoint(server.variant(url="https://nowhere.invalid/weights.pt"))
    assert server.paths == ["/a/weights.pt"]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_mirror_that_is_a_folder(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "memory stick"
    folder.mkdir()
    monkeypatch.setenv("SAM2EDGE_MIRROR", form.format(str(folder).replace(" ", "%20" if form != "{}" else " ")))
    with FileServer(CONTENT) as server:
        variant = server.variant()
    with pytest.raises(StoreError, match="cannot be read.*No such file"):
        pull_checkpoint(variant)
    (folder / "weights.pt").write_bytes(CONTENT[:-1])
    with pytest.raises(StoreError, match="not the official file"):
        pull_checkpoint(variant)
    (folder / "weights.pt").write_bytes(CONTENT)
    assert pull_checkpoint(variant).read_bytes() == CONTENT


def test_the_proxy_of_the_environment(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    pull_checkpoint(server.variant(url="http://far.invalid/weights.pt"))
    assert server.paths == ["http://far.invalid/weights.pt"]


def test_no_room_is_told_before(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(StoreError, match="no room for weights.pt; expected 1024000 bytes free.*got 1000"):
        pull_checkpoint(server.variant())
    assert server.requests == []


def test_a_disk_that_fills_up_meanwhile(server: FileServer) -> None:
    """A limit on the size of files stands for the full disk: the same call fails the same way."""
    variant = server.variant()
    assert variant.checkpoint is not None
    program = f"""
import resource
from dataclasses import replace
from sam2edge.errors import StoreError
from sam2edge.store.pull import pull_checkpoint
from sam2edge.variants import Checkpoint, find_variant
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
variant = replace(find_variant("sam2/hiera_tiny"), checkpoint={variant.checkpoint!r})
try:
    pull_checkpoint(variant)
except StoreError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.startswith("weights.pt cannot be written; expected room for 1024000 bytes"), result.stderr
    assert 0 < _part().stat().st_size <= 500_000
    assert pull_checkpoint(variant).read_bytes() == CONTENT
    assert "Range" in server.requests[-1]


def test_weights_brought_by_hand_are_not_overwritten(server: FileServer) -> None:
    variant = server.variant()
    _target().parent.mkdir(parents=True)
    _target().write_bytes(b"mine")
    write_manifest(_target(), describe_file(_target(), model=variant.name))
    with pytest.raises(StoreError, match="added by hand.*models remove"):
        pull_checkpoint(variant)
    assert _target().read_bytes() == b"mine"


def test_a_damaged_file_is_fetched_again(server: FileServer) -> None:
    _target().parent.mkdir(parents=True)
    _target().write_bytes(CONTENT[:-1] + b"x")
    assert pull_checkpoint(server.variant()).read_bytes() == CONTENT


def test_the_embedded_model_needs_none() -> None:
    with pytest.raises(InvalidInputError, match="comes with the package"):
        pull_checkpoint(find_variant("sam2/micro"))


def test_two_at_once_fetch_once(server: FileServer) -> None:
    server.delay = 0.3
    waited: list[bool] = []
    variant = server.variant()

    def pull() -> None:
        pull_checkpoint(variant, on_wait=lambda: waited.append(True))

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(server.requests) == 1
    assert waited == [True]
    assert _target().read_bytes() == CONTENT


def test_a_process_that_was_killed_leaves_no_lock(server: FileServer) -> None:
    variant = server.variant()
    lock = paths.lock_path("weights.pt")
    program = f"""
import os, signal
from pathlib import Path
from sam2edge.files import git_blob_id, locked
with locked(Path({str(lock)!r})):
    print("held", flush=True)
    signal.pause()
"""
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InterruptedError), locked(lock, on_wait=_interrupt):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert pull_checkpoint(variant).read_bytes() == CONTENT


def _interrupt() -> None:
    raise InterruptedError


def test_a_download_that_was_killed_goes_on(server: FileServer) -> None:
    server.stall_after = 200_000
    variant: Variant = server.variant()
    program = f"""
from dataclasses import replace
from sam2edge.store.pull import pull_checkpoint
from sam2edge.variants import Checkpoint, find_variant
pull_checkpoint(replace(find_variant("sam2/hiera_tiny"), checkpoint={variant.checkpoint!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=dict(os.environ))
    deadline = time.monotonic() + 30
    while not (_part().exists() and _part().stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    server.stall_after = None
    path = pull_checkpoint(variant)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    assert server.requests[-1].get("Range") or len(server.requests) == 2
