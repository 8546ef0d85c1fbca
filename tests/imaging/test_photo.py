from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.imaging import photo
from sam2edge.imaging.photo import read_photo, write_png
from sam2edge.outputs import write_files

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8), (90, 60))
LOSSLESS = [".png", ".bmp", ".tiff", ".ppm"]
FORMATS = [*LOSSLESS, ".jpg", ".webp"]


def _save(path: Path, image: np.ndarray = PICTURE) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_the_pixels_come_back(tmp_path: Path, suffix: str) -> None:
    found = read_photo(_save(tmp_path / f"a{suffix}"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PICTURE)


def test_a_jpeg_with_a_thumbnail_and_a_tail_is_whole(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg")
    data = path.read_bytes()
    thumbnail = cv2.imencode(".jpg", PICTURE[:8, :8])[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    path.write_bytes(data[:2] + segment + data[2:] + b"a film that the phone hung on")
    assert read_photo(path).shape == PICTURE.shape
    path.write_bytes(data[:2] + segment + data[2:-200])  # the thumbnail's end mark is not the photo's
    with pytest.raises(InvalidInputError, match="truncated"):
        read_photo(path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.99])
def test_truncated(tmp_path: Path, suffix: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = _save(tmp_path / f"a{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InvalidInputError, match="expected.*got.*remedy"):
        read_photo(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cut", range(0, 40))
def test_any_beginning_of_a_jpeg_or_png_is_a_clear_error(tmp_path: Path, cut: int) -> None:
    for suffix in (".jpg", ".png"):
        path = _save(tmp_path / f"a{suffix}")
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InvalidInputError):
            read_photo(path)


@pytest.mark.parametrize(
    ("contents", "problem"),
    [(None, "not found"), (b"", "empty"), (b"a,b\n1,2\n" * 99, "not an image"), (bytes(5000), "not an image")],
)
def test_no_photo_at_all(tmp_path: Path, contents: bytes | None, problem: str) -> None:
    path = tmp_path / "a.jpg"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(InvalidInputError, match=f"{problem}.*expected.*got.*a.jpg.*remedy"):
        read_photo(path)


def test_a_folder_and_a_name_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="folder"):
        read_photo(tmp_path)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_photo("a\0b")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_photo("a" * 5000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(InvalidInputError, match="Permission denied.*remedy"):
        read_photo(path)


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 20_000), (20_000, 2)])
def test_sizes_at_the_edge(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 200, np.uint8)
    np.testing.assert_array_equal(read_photo(_save(tmp_path / "a.png", image)), image)
    assert read_photo(_save(tmp_path / "a.jpg", image)).shape == image.shape


@pytest.mark.parametrize("size_hw", [(20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_claims_too_many_pixels(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    path = _save(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", *size_hw[::-1])
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=rf"too large.*{size_hw[1]}x{size_hw[0]}"):
        read_photo(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_too_many_pixels_in_any_format(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "MAX_PIXELS", 90 * 60 - 1)
    with pytest.raises(InvalidInputError, match="too large.*90x60"):
        read_photo(_save(tmp_path / f"a{suffix}"))


def test_opencv_out_of_memory_or_out_of_its_own_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("pixels <= CV_IO_MAX_IMAGE_PIXELS")

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(InvalidInputError, match="cannot be decoded"):
        read_photo(_save(tmp_path / "a.png"))


def test_grey_alpha_and_16_bits(tmp_path: Path) -> None:
    grey = PICTURE[..., 0]
    np.testing.assert_array_equal(read_photo(_save(tmp_path / "a.png", grey)), np.dstack([grey] * 3))
    np.testing.assert_array_equal(read_photo(_save(tmp_path / "a.png", np.dstack([PICTURE, grey]))), PICTURE)
    for deep in (PICTURE, grey, np.dstack([PICTURE, grey])):
        found = read_photo(_save(tmp_path / "a.png", deep.astype(np.uint16) * 257))
        np.testing.assert_array_equal(found, read_photo(_save(tmp_path / "b.png", deep)))


def test_float(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    np.testing.assert_array_equal(read_photo(_save(path, PICTURE / np.float32(255))), PICTURE)
    np.testing.assert_array_equal(read_photo(_save(path, PICTURE / 255.0)), PICTURE)
    odd = np.full((10, 10, 3), 0.5, np.float32)
    odd[0, 0] = np.nan, -3, np.inf
    found = read_photo(_save(path, odd))
    assert found[0, 0].tolist() == [0, 0, 255]
    assert found[5, 5].tolist() == [128] * 3
    bright = np.full((100, 100, 3), 4, np.float32)
    bright[0, 0] = 10_000  # one lamp does not turn the rest black
    assert read_photo(_save(path, bright))[50, 50].tolist() == [255] * 3
    assert read_photo(_save(tmp_path / "a.hdr", PICTURE.astype(np.float32) / 255)).shape == PICTURE.shape


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_a_depth_without_meaning(tmp_path: Path, dtype: type) -> None:
    with pytest.raises(InvalidInputError, match=f"depth.*got {np.dtype(dtype)}"):
        read_photo(_save(tmp_path / "a.tiff", PICTURE.astype(dtype)))


def test_upright_as_exif_says(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg")
    data = path.read_bytes()
    tag = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 0x0112, 3, 1, 6) + bytes(4)  # orientation 6: turn right
    segment = b"Exif\0\0" + tag
    upright = read_photo(path)
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + data[2:])
    np.testing.assert_array_equal(read_photo(path), np.rot90(upright, -1))


def test_opencv_may_speak_again_afterwards(tmp_path: Path) -> None:
    before = cv2.utils.logging.getLogLevel()
    read_photo(_save(tmp_path / "a.png"))
    assert cv2.utils.logging.getLogLevel() == before


def test_png_is_written_with_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", PICTURE)
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), PICTURE)


def test_one_of_two_cannot_be_written_so_neither_is(tmp_path: Path) -> None:
    (tmp_path / "b.png").mkdir()
    (tmp_path / "a.png").write_text("older")
    with pytest.raises(Sam2EdgeError, match=r"cannot write .*b\.png.*remedy"):
        write_files({tmp_path / "a.png": b"new", tmp_path / "b.png": b"new"}, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    assert (tmp_path / "a.png").read_text() == "older"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Sam2EdgeError, match="No such file or directory.*remedy"):
        write_png(tmp_path / "missing" / "a.png", PICTURE)


def test_disk_full_leaves_nothing(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: the write itself fails, part of it done.
    program = """
import resource, sys
import numpy as np
from pathlib import Path
from sam2edge.errors import Sam2EdgeError
from sam2edge.imaging.photo import write_png
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
try:
    write_png("large.png", noise)
except Sam2EdgeError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(photo.__file__).parent.parent.parent)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "cannot write large.png" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []
