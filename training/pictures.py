"""Training pictures with masks: photographs with their regions, cut-outs pasted onto photographs, drawn scenes.

A picture is a pure function of (seed, size) and of the folders that a `Material` lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.photo_folder import list_cutouts, list_photos
from training.photography import photograph
from training.regions import Regions, read_regions
from training.scenes import MIN_AREA, MIN_VISIBLE, Scene, draw_matrix, draw_radii, draw_scene
from training.surfaces import FloatImage

_PASTED_CHANCE = 3.0  # how often a whole cut-out is asked for beside a region
_GARMENT_CHANCE = 2.5
_BACKGROUND_CHANCE = 0.4
_PILE_SHARE = 0.25  # pictures with cut-outs that show many of one kind, as fruit lies
_LARGE = 0.3  # of the photograph
_LEAST_SHARE = 2 * MIN_AREA  # of the picture; smaller objects are not asked for


@dataclass(frozen=True)
class Picture:
    """image (S, S, 3) uint8 RGB; labels (S, S) uint16: the piece that each pixel shows; members (N, pieces) bool: the
    pieces of each object to ask for; chances (N,): how often each is asked for beside the others.

    Objects may lie within one another: a click may mean any of those it lies on.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    members: NDArray[np.bool_]
    chances: NDArray[np.float64]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """(S, S) of one object."""
        return self.members[index][self.labels]


@dataclass(frozen=True)
class Material:
    """Files to make pictures of; without photographs all pictures are drawn.

    `photos` and `garments` go by the photograph's name; `regions` are files of training.regions, `garments` pictures
    with alpha (.png) of the photograph's size.
    `real` and `pasted` are the shares of pictures that are photographs as they are and photographs with cut-outs; the
    rest is drawn.
    """

    photos: dict[str, Path] = field(default_factory=dict)
    regions: list[Path] = field(default_factory=list)
    garments: dict[str, Path] = field(default_factory=dict)
    cutouts: list[Path] = field(default_factory=list)
    real: float = 0.0
    pasted: float = 0.0


def list_material(photos: Path, made: Path, real: float, pasted: float) -> Material:
    """Of the folder `photos` and the folders `regions` and `garments` in `made`."""
    return Material(
        {path.stem: path for path in list_photos(photos)},
        sorted((made / "regions").glob("*.npz")),
        {path.stem: path for path in sorted((made / "garments").glob("*.png"))},
        list_cutouts(photos),
        real,
        pasted,
    )


def draw_picture(material: Material, seed: int, size: int, large_share: float) -> Picture:
    """The picture number `seed`."""
    rng = np.random.default_rng((seed, 11))
    kind = rng.random()
    picture = None
    if kind < material.real:
        picture = _draw_real(material, rng, size)
    elif kind < material.real + material.pasted:
        picture = _paste(material, rng, size)
    return picture or picture_of_scene(draw_scene(seed, size, large_share))


def picture_of_scene(scene: Scene) -> Picture:
    """A drawn scene, its regions, parts and wholes."""
    asked = [*scene.objects, *(part for part, _ in scene.parts), *scene.regions]
    members = np.zeros((len(asked), 256), bool)
    members[np.arange(len(asked)), asked] = True
    for part, whole in scene.parts:
        members[asked.index(whole), part] = True
    chances = np.ones(len(asked))
    chances[len(asked) - len(scene.regions) :] = _BACKGROUND_CHANCE
    return Picture(scene.image, scene.labels.astype(np.uint16), members, chances)


@dataclass
class Layers:
    """A picture while it is put together: pixels (S, S, 3) float 0 to 1, RGB; the rest as `Picture` has it."""

    pixels: FloatImage
    labels: NDArray[np.uint16]
    members: NDArray[np.bool_]
    chances: NDArray[np.float64]

    def cover(self, mask: NDArray[np.bool_], chance: float) -> None:
        """A new object stands before what is there."""
        objects, pieces = self.members.shape
        self.labels = np.where(mask, np.uint16(pieces), self.labels)
        self.members = np.pad(self.members, ((0, 1), (0, 1)))
        self.members[objects, pieces] = True
        self.chances = np.append(self.chances, chance)

    def finish(self, image: NDArray[np.uint8], least_areas: NDArray[np.float64]) -> Picture | None:
        """Without what is too small or hidden to ask for; None where nothing is left."""
        counts = np.bincount(self.labels.ravel(), minlength=self.members.shape[1])
        areas = self.members @ counts
        kept = (areas >= least_areas) & (areas >= _LEAST_SHARE * self.labels.size) & (areas <= 0.95 * self.labels.size)
        return Picture(image, self.labels, self.members[kept], self.chances[kept]) if kept.any() else None


def _read(path: Path, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    found = cv2.imread(str(path), flags)
    if found is None:
        raise FileNotFoundError(f"{path} is no picture")
    return np.asarray(found, np.uint8)


def _pick(rng: np.random.Generator, files: list[Path]) -> Path:
    return files[int(rng.integers(len(files)))]


def draw_photo(material: Material, rng: np.random.Generator, size: int) -> Layers:
    """A part of a photograph, its regions, and its garment where one was cut out."""
    path = _pick(rng, material.regions)
    regions = read_regions(path)
    areas = regions.members @ np.bincount(regions.labels.ravel(), minlength=regions.members.shape[1])
    # The likeliest things first, as the file has them; what fills half of a picture is rarely what one clicks on.
    chances = np.where(areas > _LARGE * regions.labels.size, 0.3, 1.0) / (1.0 + 0.3 * np.arange(len(areas)))
    garment = material.garments.get(path.stem)
    if garment is not None:
        regions, kept = _add_garment(regions, _read(garment, cv2.IMREAD_UNCHANGED)[..., 3])
        chances = np.append(0.3 * chances[kept], _GARMENT_CHANCE)
    image, labels = _draw_crop(rng, _read(material.photos[path.stem]), regions.labels, size)
    return Layers(image[..., ::-1].astype(np.float32) / 255.0, labels, regions.members, chances)


def _add_garment(regions: Regions, alpha: NDArray[np.uint8]) -> tuple[Regions, NDArray[np.bool_]]:
    """The regions with the garment as the last; and which of the others are kept: those that its edge does not cut."""
    height, width = regions.labels.shape
    inside = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA) > 127
    pieces = regions.members.shape[1]
    labels = (regions.labels + inside * pieces).astype(np.uint16)
    counts = np.bincount(labels.ravel(), minlength=2 * pieces).reshape(2, pieces)
    off, on = (regions.members @ row for row in counts)
    kept = np.minimum(off, on) <= 0.1 * (off + on)
    kept &= on <= 0.75 * inside.sum()
    members = np.tile(regions.members[kept], (1, 2))
    garment = np.arange(2 * pieces) >= pieces
    return Regions(labels, np.vstack([members, garment])), kept


def _draw_crop(
    rng: np.random.Generator, image: NDArray[np.uint8], labels: NDArray[np.uint16], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """A part of a photograph, mirrored at times, both of side `size`; `labels` may be smaller than `image`."""
    share = 1.0 if rng.random() < 0.3 else rng.uniform(0.45, 1.0)
    shares = np.array([share, share * rng.uniform(0.8, 1.0)])[rng.permutation(2)]
    low = rng.uniform(0.0, 1.0 - shares)
    mirrored = rng.random() < 0.5
    crops = []
    for whole, way in ((image, cv2.INTER_AREA), (labels, cv2.INTER_NEAREST)):
        y1, x1 = np.round(low * whole.shape[:2]).astype(int)
        y2, x2 = np.round((low + shares) * whole.shape[:2]).astype(int)
        crop = cv2.resize(whole[y1:y2, x1:x2], (size, size), interpolation=way)
        crops.append(crop[:, ::-1] if mirrored else crop)
    return np.asarray(crops[0], np.uint8), np.ascontiguousarray(crops[1], np.uint16)


def _draw_real(material: Material, rng: np.random.Generator, size: int) -> Picture | None:
    """A photograph as it is, but for its light, and at times blurred, noisy or grey."""
    layers = draw_photo(material, rng, size)
    pixels = layers.pixels * np.float32(rng.uniform(0.7, 1.2)) * rng.normal(1.0, 0.05, 3).astype(np.float32)
    if rng.random() < 0.2:
        image = photograph(rng, pixels)
    else:
        if rng.random() < 0.04:
            pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
        image = np.asarray(np.clip(pixels * 255.0 + 0.5, 0, 255), np.uint8)
    return layers.finish(image, np.zeros(len(layers.members)))


def _paste(material: Material, rng: np.random.Generator, size: int) -> Picture | None:
    """Whole cut-outs before a photograph, whose regions are asked for too where they can still be seen."""
    layers = draw_photo(material, rng, size)
    layers.chances *= 0.5
    counts = np.bincount(layers.labels.ravel(), minlength=layers.members.shape[1])
    areas = list(layers.members @ counts)
    for cutout, radius, light in _draw_cast(material, rng):
        centre = rng.uniform(0.03, 0.97, 2) if radius < 0.18 else rng.uniform(0.2, 0.8, 2)
        colour, alpha = place_cutout(cutout, centre, radius, draw_matrix(rng), size)
        mask = alpha > 0.5
        if not mask.any():
            continue
        blend(rng, layers.pixels, _relight(np.random.default_rng(light), colour), alpha)
        areas.append(float(mask.sum()))
        layers.cover(mask, _PASTED_CHANCE)
    return layers.finish(photograph(rng, layers.pixels), MIN_VISIBLE * np.array(areas))


def _draw_cast(material: Material, rng: np.random.Generator) -> list[tuple[NDArray[np.uint8], float, int]]:
    """Cut-outs, their radii, the seeds of their light: different ones, some alike, or a pile of one kind."""
    twin = pick_cutout(material, rng)
    if rng.random() < _PILE_SHARE:
        radius, light = rng.uniform(0.07, 0.2), int(rng.integers(1 << 31))
        return [(twin, float(radius * rng.uniform(0.85, 1.15)), light) for _ in range(int(rng.integers(6, 15)))]
    alike = 0.8 if rng.random() < 0.15 else 0.0
    radii = draw_radii(rng, 0.4)[: int(rng.integers(2, 8))]
    cutouts = [twin if rng.random() < alike else pick_cutout(material, rng) for _ in radii]
    return [(c, r, int(rng.integers(1 << 31))) for c, r in zip(cutouts, radii, strict=True)]


def pick_cutout(material: Material, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(h, w, 4) uint8 BGR and alpha, cut at its edge: an object of one of the folders, or a garment."""
    files = list(material.garments.values()) if material.garments and rng.random() < 0.4 else material.cutouts
    return read_cutout(_pick(rng, files))


def read_cutout(path: Path) -> NDArray[np.uint8]:
    """(h, w, 4) uint8, blue, green, red and alpha, without empty margins."""
    found = _read(path, cv2.IMREAD_UNCHANGED)
    rows, columns = (np.flatnonzero((found[..., 3] > 64).any(axis)) for axis in (1, 0))
    return found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def place_cutout(
    cutout: NDArray[np.uint8], centre: NDArray[np.float64], radius: float, matrix: NDArray[np.float64], size: int
) -> tuple[FloatImage, NDArray[np.float32]]:
    """The cut-out's colours (S, S, 3) RGB, multiplied by its alpha, and alpha (S, S), both 0 to 1.

    Its longest half side is `radius` sides of the picture, turned and stretched by `matrix` (2, 2).
    """
    height, width = cutout.shape[:2]
    scale = 2.0 * radius * size / max(height, width)
    whole: Any = cutout.astype(np.float32) / 255.0
    whole = np.concatenate([whole[..., 2::-1] * whole[..., 3:], whole[..., 3:]], axis=2)
    if scale < 0.7:  # made smaller first: the warp below would skip pixels
        whole = cv2.resize(
            whole, None, fx=max(scale, 2.0 / width), fy=max(scale, 2.0 / height), interpolation=cv2.INTER_AREA
        )
        scale *= width / whole.shape[1]
    turn = matrix * scale
    shift = centre * size - turn @ (np.array(whole.shape[1::-1]) / 2)
    placed = cv2.warpAffine(whole, np.column_stack((turn, shift)), (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(placed[..., :3], np.float32), np.asarray(placed[..., 3], np.float32)


def _relight(rng: np.random.Generator, colour: FloatImage) -> FloatImage:
    """Other light, paler, shaded."""
    if rng.random() < 0.3:
        grey = colour.mean(axis=2, keepdims=True)
        colour = colour + (grey - colour) * np.float32(rng.uniform(0.2, 0.9))
    if rng.random() < 0.3:
        shade = rng.normal(1.0, 0.25, (8, 8)).astype(np.float32)
        colour = colour * cv2.resize(shade, colour.shape[1::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    return np.asarray(np.clip(colour * draw_tint(rng), 0.0, 1.0), np.float32)


def draw_tint(rng: np.random.Generator) -> FloatImage:
    """Colour (3,) of the light on an object, and how bright it is."""
    return np.asarray(rng.normal(1.0, 0.1, 3) * rng.uniform(0.7, 1.15), np.float32)


def blend(rng: np.random.Generator, pixels: FloatImage, colour: FloatImage, alpha: NDArray[np.float32]) -> None:
    """Puts an object into the picture: soft shadow, an edge as sharp as chance has it, the same for its texture."""
    size = pixels.shape[0]
    if rng.random() < 0.5:
        shift = tuple(int(part) for part in rng.normal(0.02, 0.02, 2) * size)
        dark = cv2.GaussianBlur(np.roll(alpha, shift, (0, 1)), (0, 0), 0.005 * size + rng.uniform(0, 0.03) * size)
        pixels *= 1.0 - np.float32(rng.uniform(0.1, 0.5)) * dark[..., None]
    if rng.random() < 0.6:
        sigma = rng.uniform(0.3, 1.3) * size / 256
        colour, alpha = (np.asarray(cv2.GaussianBlur(x, (0, 0), sigma), np.float32) for x in (colour, alpha))
    pixels *= 1.0 - alpha[..., None]
    pixels += colour
