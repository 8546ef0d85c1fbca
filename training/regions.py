"""Regions of photographs that nobody outlined: a hierarchy from small pieces to wholes, by colour and features.

    python -m training.regions PHOTOS --out REGIONS

A photograph is cut into small pieces (Felzenszwalb and Huttenlocher 2004), and neighbours that are most alike in colour
and in the features of the ImageNet trunk are merged, two at a time, until one is left. Of all regions on the way those
are kept that last: their parts are much more alike than they and their neighbours are.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from sam2edge.torch_sam2.lite import Lite
from training.imagenet import find_file, load_trunk
from training.photo_folder import list_photos
from training.pixels import normalise

SIDE = 256  # longest side of the label maps
_FEATURE_SIDE = 384
_LEAST_SHARE, _MOST_SHARE = 0.01, 0.65  # of the picture that a region covers
_COMPACT = 0.18  # greatest depth over the square root of the area: below, a region is stringy
_SOLID = 0.6  # share of its convex hull that a region covers
_ALIKE = 0.75  # IoU from which on the lesser of two regions is dropped
_MOST_REGIONS = 14
_COLOUR_WEIGHT = 6.0  # of Lab beside features of length 1


@dataclass(frozen=True)
class Regions:
    """labels (H, W) uint16: the pieces; members (N, pieces) bool: which of them each region is made of."""

    labels: NDArray[np.uint16]
    members: NDArray[np.bool_]


@dataclass
class _Node:
    """A region while it is merged: sums over its pixels, so that a union's means follow."""

    pieces: frozenset[int]
    area: float
    sums: NDArray[np.float64]
    height: float = 0.0
    end: float = np.inf

    @property
    def mean(self) -> NDArray[np.float64]:
        return np.asarray(self.sums / self.area, np.float64)


def find_regions(image: NDArray[np.uint8], trunk: Any) -> Regions:
    """image (H, W, 3) uint8 BGR, longest side SIDE; `trunk` a Lite with the weights of ImageNet."""
    smooth = cv2.bilateralFilter(image, 7, 40, 5)
    lab = cv2.cvtColor(smooth, cv2.COLOR_BGR2LAB).astype(np.float64) / 255.0
    labels = felzenszwalb(lab, scale=60, sigma=0.6, min_size=40, channel_axis=2).astype(np.uint16)
    described = np.concatenate([lab * _COLOUR_WEIGHT, _features(image, trunk)], axis=2)
    nodes = _merge(labels, described, _edges(lab))
    return Regions(labels, _best(nodes, labels, _edges(lab)))


@torch.no_grad()
def _features(image: NDArray[np.uint8], trunk: Any) -> NDArray[np.float64]:
    """(H, W, C): the trunk's features of strides 8 and 16, each of length 1 at every place, enlarged."""
    height, width = image.shape[:2]
    scale = _FEATURE_SIDE / max(height, width)
    size_wh = tuple(max(32, round(side * scale / 32) * 32) for side in (width, height))
    enlarged = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_CUBIC), np.uint8)
    found = []
    for features in trunk(normalise(enlarged[..., ::-1])[None])[1:3]:
        whitened = features - features.mean((2, 3), keepdim=True)
        whitened = whitened / (features.std((2, 3), keepdim=True) + 1e-3)
        unit = F.normalize(whitened, dim=1)
        found.append(F.interpolate(unit, size=(height, width), mode="bilinear")[0].permute(1, 2, 0).double().numpy())
    return np.concatenate(found, axis=2)


def _edges(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W) length of the colour's gradient, 1 at a strong edge."""
    parts = [cv2.Sobel(lab, cv2.CV_64F, *order, ksize=3) for order in ((1, 0), (0, 1))]
    return np.asarray(np.minimum(np.sqrt(sum((p**2).sum(2) for p in parts)), 1.0), np.float64)


def _borders(labels: NDArray[np.uint16], edges: NDArray[np.float64]) -> dict[tuple[int, int], NDArray[np.float64]]:
    """For each pair of neighbours the length of their border and the sum of the edges along it."""
    found: dict[tuple[int, int], NDArray[np.float64]] = {}
    for one, other, strength in (
        (labels[:, :-1], labels[:, 1:], np.maximum(edges[:, :-1], edges[:, 1:])),
        (labels[:-1], labels[1:], np.maximum(edges[:-1], edges[1:])),
    ):
        differ = one != other
        low, high = np.minimum(one[differ], other[differ]), np.maximum(one[differ], other[differ])
        code = low.astype(np.int64) * 65536 + high
        pairs, inverse = np.unique(code, return_inverse=True)
        lengths, sums = np.bincount(inverse), np.bincount(inverse, strength[differ])
        for pair, length, total in zip(pairs, lengths, sums, strict=True):
            key = (int(pair) // 65536, int(pair) % 65536)
            found[key] = found.get(key, np.zeros(2)) + (length, total)
    return found


def _merge(labels: NDArray[np.uint16], described: NDArray[np.float64], edges: NDArray[np.float64]) -> list[_Node]:
    """All regions, pieces first, each with the differences at which it came to be and was merged away."""
    count, flat = int(labels.max()) + 1, labels.ravel()
    areas = np.bincount(flat, minlength=count).astype(np.float64)
    sums = np.stack(
        [np.bincount(flat, channel, minlength=count) for channel in described.reshape(-1, described.shape[2]).T], 1
    )
    nodes = [_Node(frozenset([i]), areas[i], sums[i]) for i in range(count)]
    borders: list[dict[int, NDArray[np.float64]]] = [{} for _ in nodes]
    for (low, high), border in _borders(labels, edges).items():
        borders[low][high] = borders[high][low] = border
    total = float(labels.size)

    def difference(a: int, b: int) -> float:
        apart = float(np.linalg.norm(nodes[a].mean - nodes[b].mean))
        length, strength = borders[a][b]
        share = min(nodes[a].area, nodes[b].area) / total
        return (apart + float(strength / length)) * float(share**0.25)

    queue = [(difference(a, b), a, b) for a in range(count) for b in borders[a] if a < b]
    heapq.heapify(queue)
    gone: set[int] = set()
    reached = 0.0
    while queue:
        height, a, b = heapq.heappop(queue)
        if a in gone or b in gone:
            continue
        reached = max(reached, height)
        new = len(nodes)
        nodes[a].end = nodes[b].end = reached
        nodes.append(
            _Node(
                nodes[a].pieces | nodes[b].pieces, nodes[a].area + nodes[b].area, nodes[a].sums + nodes[b].sums, reached
            )
        )
        gone |= {a, b}
        joined: dict[int, NDArray[np.float64]] = {}
        for side in (a, b):
            for other, border in borders[side].items():
                if other not in gone:
                    joined[other] = joined.get(other, np.zeros(2)) + border
        borders.append(joined)
        for other, border in joined.items():
            borders[other][new] = border
            heapq.heappush(queue, (difference(new, other), new, other))
    return nodes


def _best(nodes: list[_Node], labels: NDArray[np.uint16], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """members (N, pieces) of the regions that look most like things: lasting, solid, with an edge all around."""
    areas = np.bincount(labels.ravel())
    scored = []
    for node in nodes:
        if not _LEAST_SHARE < node.area / labels.size < _MOST_SHARE:
            continue
        mask = np.isin(labels, list(node.pieces))
        filled = _fill_holes(mask)
        value = _value(node, filled, edges)
        if value > 0:
            members = np.bincount(labels[filled], minlength=len(areas)) == areas
            scored.append((value, members))
    kept: list[NDArray[np.bool_]] = []
    for _, members in sorted(scored, key=lambda pair: -pair[0]):
        if all(areas[members & other].sum() < _ALIKE * areas[members | other].sum() for other in kept):
            kept.append(members)
    return np.stack(kept[:_MOST_REGIONS]) if kept else np.zeros((0, len(areas)), bool)


def _fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED), bool)


def _value(node: _Node, mask: NDArray[np.bool_], edges: NDArray[np.float64]) -> float:
    """How much like a thing a region is; 0: not at all."""
    area, padded = float(mask.sum()), np.pad(mask.astype(np.uint8), 1)
    depth = float(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max())
    hull = cv2.convexHull(np.argwhere(mask).astype(np.int32))
    solid = area / max(float(cv2.contourArea(hull)), 1.0)
    if depth < _COMPACT * area**0.5 or solid < _SOLID or area > _MOST_SHARE * mask.size:
        return 0.0
    ring = cv2.dilate(padded, np.ones((3, 3), np.uint8)) - cv2.erode(padded, np.ones((3, 3), np.uint8))
    around = edges[ring[1:-1, 1:-1] > 0]
    inside = edges[mask]
    contrast = float(around.mean()) / (float(inside.mean()) + 0.05)
    return contrast * solid * min(node.end / max(node.height, 1e-6), 3.0) * (area / mask.size) ** 0.25


def write_regions(path: Path, regions: Regions) -> None:
    np.savez_compressed(path, labels=regions.labels, members=np.packbits(regions.members, axis=1))


def read_regions(path: Path) -> Regions:
    with np.load(path, allow_pickle=False) as content:
        labels = content["labels"]
        members = np.unpackbits(content["members"], axis=1, count=int(labels.max()) + 1).astype(bool)
    return Regions(labels, members)


def shrink(image: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """The photograph (H, W, 3) with its longest side `side`."""
    scale = side / max(image.shape[:2])
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photographs, as training.photo_folder describes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the regions, one .npz a photograph")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    trunk = Lite().eval()
    trunk.load_state_dict(load_trunk(find_file()))
    args.out.mkdir(parents=True, exist_ok=True)
    photos = list_photos(args.photos)
    for number, path in enumerate(np.random.default_rng(0).permutation(np.array(photos, object)), start=1):
        target = args.out / f"{path.stem}.npz"
        if not target.exists():
            write_regions(target, find_regions(shrink(np.asarray(cv2.imread(str(path)), np.uint8)), trunk))
        if number % 100 == 0:
            print(f"{number} of {len(photos)}", flush=True)


if __name__ == "__main__":
    main()
