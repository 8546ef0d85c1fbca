"""Masks in other tools' forms, read back by those tools where they are at hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam2edge.imaging.mask_formats import (
    coco_annotation,
    coco_dataset,
    cut_out,
    mask_box,
    mask_centroid,
    mask_polygons,
    mask_rle,
    yolo_line,
)


def _blobs(seed: int) -> np.ndarray:
    rng, picture = np.random.default_rng(seed), np.zeros((120, 150), np.uint8)
    for _ in range(3):
        center, axes = rng.integers((150, 120)).tolist(), rng.integers((3, 3), (40, 30)).tolist()
        cv2.ellipse(picture, center, axes, float(rng.integers(180)), 0, 360, 1, -1)
    return picture.astype(bool)


def _square() -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[10:30, 5:25] = True
    return mask


@pytest.mark.parametrize("mask", [*map(_blobs, range(4)), np.zeros((3, 4), bool), np.ones((3, 4), bool), np.eye(7) > 0])
def test_run_length_encoding_is_that_of_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    found = mask_rle(mask)
    expected = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    assert (found["size"], found["counts"].encode()) == (list(expected["size"]), expected["counts"])
    np.testing.assert_array_equal(coco.decode(found).astype(bool), mask)


@pytest.mark.parametrize("seed", range(4))
def test_polygons_filled_by_pycocotools_are_the_mask(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = _blobs(seed)
    outlines = [polygon.ravel().tolist() for polygon in mask_polygons(mask)]
    filled = coco.decode(coco.merge(coco.frPyObjects(outlines, *mask.shape))).astype(bool)
    assert (filled & mask).sum() / (filled | mask).sum() > 0.985  # outlines through pixel centres: 0.89 to 0.95


def test_a_square_has_the_corners_of_its_pixels() -> None:
    (polygon,) = mask_polygons(_square())
    assert sorted(map(tuple, polygon.tolist())) == [(5, 10), (5, 30), (25, 10), (25, 30)]
    assert mask_box(_square()) == (5, 10, 25, 30)
    assert mask_centroid(_square()) == (15, 20)
    assert mask_box(np.zeros((4, 4), bool)) is mask_centroid(np.zeros((4, 4), bool)) is None
    assert mask_polygons(np.zeros((4, 4), bool)) == []


def test_one_pixel_is_a_square_of_one_pixel() -> None:
    mask = np.zeros((4, 6), bool)
    mask[2, 3] = True
    (polygon,) = mask_polygons(mask)
    assert cv2.contourArea(polygon) == 1.0
    assert polygon.min(axis=0).tolist() == [3, 2]


def test_a_coco_data_set_numbers_photos_and_objects() -> None:
    annotation = coco_annotation(_square(), 0.912345)
    assert annotation["bbox"] == [5, 10, 20, 20]
    assert (annotation["area"], annotation["score"], annotation["iscrowd"]) == (400, 0.9123, 0)
    photos = [("a.jpg", (60, 80), [annotation]), ("b.jpg", (60, 80), [annotation, annotation])]
    found = coco_dataset(photos, "cup")
    assert [(a["id"], a["image_id"]) for a in found["annotations"]] == [(1, 1), (2, 2), (3, 2)]
    assert [image["file_name"] for image in found["images"]] == ["a.jpg", "b.jpg"]
    assert found["categories"] == [{"id": 1, "name": "cup"}]


def test_a_coco_data_set_is_read_by_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    reader = coco.COCO()
    for as_rle in (False, True):
        photos = [("a.jpg", (60, 80), [coco_annotation(_square(), 0.9, as_rle=as_rle)])]
        reader.dataset = coco_dataset(photos, "cup")
        reader.createIndex()
        np.testing.assert_array_equal(reader.annToMask(reader.anns[1]).astype(bool), _square())


def test_a_yolo_line_joins_the_parts_of_a_mask() -> None:
    mask = _square()
    mask[40:50, 60:70] = mask[3:6, 60:66] = True
    words = yolo_line(mask, class_id=3).split()
    corners = np.array(words[1:], np.float64).reshape(-1, 2)
    assert words[0] == "3" and (corners >= 0).all() and (corners <= 1).all()
    pixels = (corners * (80, 60)).astype(np.float32)
    assert cv2.contourArea(pixels) == pytest.approx(mask.sum(), abs=0.1)
    centres = [[cv2.pointPolygonTest(pixels, (x + 0.5, y + 0.5), False) > 0 for x in range(80)] for y in range(60)]
    np.testing.assert_array_equal(centres, mask)


def test_a_cut_out_is_the_photo_with_alpha() -> None:
    photo = np.full((60, 80, 3), 90, np.uint8)
    found = cut_out(photo, _square())
    assert found.shape == (60, 80, 4)
    assert set(np.unique(found[..., 3])) == {0, 255} and (found[..., 3] > 0).sum() == 400
    np.testing.assert_array_equal(found[..., :3], photo)
