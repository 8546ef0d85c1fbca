"""Format, size and depth of a picture from its first bytes, so that nothing is decoded that takes the memory.

The formats are those that cameras, phones and microscopes write. A decoder is never asked to find out what a file is:
one of another format, or of a kind that no camera writes (planar or LAB TIFF, JPEG 2000), is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_END = 0xD9
# A marker in JPEG data: FF and a byte that is neither stuffing (00), a restart (D0 to D7) nor a fill byte (FF).
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA

# Tags of TIFF 6.0, and of values that OpenCV decodes into no more than the picture takes.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = (
    256, 257, 258, 262, 277, 284, 322, 323,
)  # fmt: skip
_PHOTOMETRICS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 6: "YCbCr"}
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_LARGEST_TILE = 2**22  # in pixels: 2048x2048; tiles of a small picture may be larger than the picture

_PNM = re.compile(rb"P[1-6](?:\s+|\s*#[^\n]*\n\s*)+(\d{1,9})(?:\s+|\s*#[^\n]*\n\s*)+(\d{1,9})")
_PFM = re.compile(rb"P[Ff]\s+(\d{1,9})\s+(\d{1,9})\s")
_HDR = re.compile(rb"[-+]Y (\d{1,9}) [-+]X (\d{1,9})\n")


class ImageHeader(NamedTuple):
    """What a picture will be once it is decoded: height and width, and bytes of one of its values (1, 2, 4 or 8)."""

    format: str
    size_hw: tuple[int, int]
    value_bytes: int = 1


class RefusedImage(ValueError):
    """Bytes that are no picture of a known format, or of a kind that is not read; the message says which."""


def read_header(data: bytes) -> ImageHeader:
    """Raises RefusedImage for bytes that are not decoded; nothing is read beyond what the header needs."""
    for recognises, read in _READERS:
        if recognises(data):
            try:
                return read(data)
            except (struct.error, IndexError, StopIteration, OverflowError) as error:
                raise RefusedImage("a header that ends too early") from error
    raise RefusedImage("a format that is not known here")


def first_picture(data: bytes) -> bytes:
    """An animated GIF without the pictures after the first, which the decoder would hold all at once."""
    if not _is_gif(data):
        return data
    end = 13 + _gif_table(data[10])
    while end < len(data) and data[end] == 0x21:  # extensions come before the picture
        end = _after_blocks(data, end + 2)
    if end + 10 > len(data) or data[end] != 0x2C:
        raise RefusedImage("a GIF without a picture")
    end = _after_blocks(data, end + 10 + _gif_table(data[end + 9]) + 1)
    return data[:end] + b";"


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, position of its segment) from the start to the end of the image.

    Segments before the scan are jumped over by their length, for an EXIF thumbnail has an end mark of its own.
    """
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        yield marker, position
        if marker == JPEG_END:
            return
        if position + 2 > len(data):
            return
        position += struct.unpack_from(">H", data, position)[0]


def _jpeg(data: bytes) -> ImageHeader:
    for marker, position in jpeg_markers(data):
        if marker in _JPEG_FRAMES:
            return ImageHeader("JPEG", struct.unpack_from(">HH", data, position + 3))
        if marker == _JPEG_SCAN:
            break
    raise RefusedImage("a JPEG without a frame")


def _png(data: bytes) -> ImageHeader:
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    return ImageHeader("PNG", (height, width), 2 if bits == 16 else 1)


def _bmp(data: bytes) -> ImageHeader:
    (length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    return ImageHeader("BMP", (abs(height), abs(width)))


def _webp(data: bytes) -> ImageHeader:
    sizes = []
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        sizes.append((height, width))
        if data[20] & 2:  # animated: the decoder holds the canvas, whatever its pictures are
            return ImageHeader("WebP", sizes[0])
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, at + 14))
            sizes.append((height, width))
        elif name == b"VP8L":
            (packed,) = struct.unpack_from("<I", data, at + 9)
            sizes.append(((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1))
        at += 8 + length + length % 2
    if not sizes:
        raise RefusedImage("a WebP without a picture")
    return ImageHeader("WebP", max(sizes, key=lambda hw: hw[0] * hw[1]))


def _gif(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from("<HH", data, 6)
    return ImageHeader("GIF", (height, width))


def _gif_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return min(at + 1, len(data))


def _avif(data: bytes) -> ImageHeader:
    """The largest of the sizes that it names: of its parts, and of the grid that they make up."""
    sizes = [struct.unpack_from(">II", data, at.end() + 4) for at in re.finditer(b"ispe", data)]
    if not sizes:
        raise RefusedImage("an AVIF without a size")
    width, height = max(sizes, key=lambda wh: wh[0] * wh[1])
    return ImageHeader("AVIF", (height, width), 2)


def _tiff(data: bytes) -> ImageHeader:
    order = "<" if data[:2] == b"II" else ">"
    tags = dict(_tiff_tags(data, order))
    width, height = (_only(tags, tag) for tag in (_WIDTH, _HEIGHT))
    samples, bits = _only(tags, _SAMPLES, 1), max(tags.get(_BITS, (1,)))
    photometric = _only(tags, _PHOTOMETRIC, 1)
    if photometric not in _PHOTOMETRICS or not 1 <= samples <= 4 or bits > 64:
        raise RefusedImage(f"a TIFF of colour kind {photometric} with {samples} values of {bits} bits")
    if samples > 1 and _only(tags, _PLANAR, 1) != 1:
        raise RefusedImage("a planar TIFF")
    tile = _only(tags, _TILE_WIDTH, 1) * _only(tags, _TILE_HEIGHT, 1)
    if tile > _LARGEST_TILE:
        raise RefusedImage(f"a TIFF with tiles of {tile} pixels")
    value_bytes = next(count for count in (1, 2, 4, 8) if 8 * count >= bits)
    return ImageHeader("TIFF", (height, width), value_bytes)


def _tiff_tags(data: bytes, order: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Numbers of the first directory: of the whole ones, as many as a picture has values a pixel."""
    is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (at,) = struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, 8 if is_big else 4)
    (count,) = struct.unpack_from(f"{order}Q" if is_big else f"{order}H", data, at)
    at += 8 if is_big else 2
    entry, inline = ("HHQ", 8) if is_big else ("HHI", 4)
    for number in range(min(count, 4096)):
        start = at + number * (20 if is_big else 12)
        tag, kind, length = struct.unpack_from(order + entry, data, start)
        if kind not in _TIFF_TYPES or not 1 <= length <= 16:
            continue
        form = f"{order}{length}{_TIFF_TYPES[kind]}"
        place = start + struct.calcsize(order + entry)
        if struct.calcsize(form) > inline:
            (place,) = struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, place)
        yield tag, struct.unpack_from(form, data, place)


def _only(tags: dict[int, tuple[int, ...]], tag: int, default: int | None = None) -> int:
    if tag in tags:
        return tags[tag][0]
    if default is None:
        raise RefusedImage("a TIFF without a size")
    return default


def _text(form: str, pattern: re.Pattern[bytes], is_wh: bool, value_bytes: int) -> Callable[[bytes], ImageHeader]:
    def read(data: bytes) -> ImageHeader:
        found = pattern.search(data[:4096])
        if found is None:
            raise RefusedImage(f"a {form} without a size")
        first, second = int(found[1]), int(found[2])
        return ImageHeader(form, (second, first) if is_wh else (first, second), value_bytes)

    return read


def _is_gif(data: bytes) -> bool:
    return data.startswith((b"GIF87a", b"GIF89a"))


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], ImageHeader]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8"), _jpeg),
    (lambda data: data.startswith(PNG_SIGNATURE), _png),
    (lambda data: data.startswith(b"BM"), _bmp),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    (_is_gif, _gif),
    (lambda data: data[4:12] in (b"ftypavif", b"ftypavis"), _avif),
    (lambda data: data[:1] == b"P" and data[1:2] in b"123456", _text("PNM", _PNM, True, 2)),
    (lambda data: data[:2] in (b"PF", b"Pf"), _text("PFM", _PFM, True, 4)),
    (lambda data: data.startswith((b"#?RADIANCE", b"#?RGBE")), _text("Radiance HDR", _HDR, False, 4)),
)
