"""Photographs as training material: held-out ones stay out, regions and garments are found, figures on known masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.torch_sam2.lite import Lite
from training.clip_batches import draw_clip_batch
from training.evaluate_photos import Outlined, evaluate_photos
from training.garments import cut_out
from training.photo_folder import list_photos
from training.pictures import Material, draw_picture, list_material, place_cutout, read_cutout

torch = pytest.importorskip("torch")
SIDE = 96


def _photo(seed: int) -> np.ndarray:
    """A bright disc with a dark square in it, before a textured ground."""
    rng = np.random.default_rng(seed)
    photo = (np.array([90, 60, 40]) + rng.normal(0, 6, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    cv2.circle(photo, (48, 48), 28, (60, 200, 230), -1)
    cv2.rectangle(photo, (42, 42), (54, 54), (160, 30, 30), -1)
    return photo


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photographs with cut-outs, and what is made of them."""
    from training.regions import find_regions, write_regions

    photos, made = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("made")
    for name in ("clothing", "cutouts_drawn"):
        (photos / name).mkdir()
    (made / "regions").mkdir()
    (made / "garments").mkdir()
    trunk = Lite().eval()
    for i in range(12):
        cv2.imwrite(str(photos / "clothing" / f"{i:02}.jpg"), _photo(i))
    for path in list_photos(photos)[:3]:
        image = np.asarray(cv2.imread(str(path)), np.uint8)
        write_regions(made / "regions" / f"{path.stem}.npz", find_regions(image, trunk))
        alpha = np.zeros((SIDE, SIDE), np.uint8)
        cv2.circle(alpha, (48, 48), 28, 255, -1)
        cv2.imwrite(str(made / "garments" / f"{path.stem}.png"), np.dstack([image, alpha]))
    cutout = np.zeros((40, 60, 4), np.uint8)
    cv2.ellipse(cutout, (30, 20), (28, 18), 0, 0, 360, (30, 60, 220, 255), -1)
    cv2.imwrite(str(photos / "cutouts_drawn" / "a.webp"), cutout)
    return photos, made


def test_every_tenth_photograph_is_held_out(folders: tuple[Path, Path]) -> None:
    trained, kept = list_photos(folders[0]), list_photos(folders[0], held_out=True)
    assert [path.stem for path in kept] == ["09"]
    assert len(trained) == 11 and not set(trained) & set(kept)
    with pytest.raises(FileNotFoundError, match="clothing or grocery"):
        list_photos(folders[1])


def test_regions_hold_the_whole_and_its_part(folders: tuple[Path, Path]) -> None:
    from training.regions import read_regions

    regions = read_regions(sorted((folders[1] / "regions").iterdir())[0])
    masks = [members[regions.labels] for members in regions.members]
    yy, xx = np.mgrid[:SIDE, :SIDE]
    disc = (yy - 48) ** 2 + (xx - 48) ** 2 <= 28**2
    best = max(float((mask & disc).sum() / (mask | disc).sum()) for mask in masks)
    assert best > 0.9  # the square in it belongs to it: holes are filled


def test_a_garment_is_cut_out_where_grabcut_is_sure() -> None:
    mask = cut_out(np.asarray(cv2.resize(_photo(3), (300, 300)), np.uint8))
    assert mask is not None and mask.shape == (300, 300)
    assert mask[150, 60:240].mean() > 0.8
    assert not mask[:30].any()
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    assert cut_out(noise) is None


@pytest.mark.parametrize(("real", "pasted"), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.3)])
def test_pictures_depend_on_their_number_alone(folders: tuple[Path, Path], real: float, pasted: float) -> None:
    material = list_material(*folders, real, pasted)
    for seed in range(6):
        first, again = (draw_picture(material, seed, 64, 0.4) for _ in range(2))
        assert np.array_equal(first.image, again.image)
        assert first.image.shape == (64, 64, 3) and first.image.dtype == np.uint8
        assert len(first.members) == len(first.chances) > 0
        for index in range(len(first.members)):
            assert 0 < first.mask(index).mean() <= 0.95


def test_a_cutout_goes_where_it_is_placed(folders: tuple[Path, Path]) -> None:
    cutout = read_cutout(folders[0] / "cutouts_drawn" / "a.webp")
    assert cutout.shape[:2] == (37, 57)  # without its margins
    colour, alpha = place_cutout(cutout, np.array([0.25, 0.5]), 0.2, np.eye(2), 100)
    rows, columns = np.nonzero(alpha > 0.5)
    assert abs(columns.mean() - 25) < 1 and abs(rows.mean() - 50) < 1
    assert abs(np.ptp(columns) - 40) <= 3
    assert colour[50, 25, 0] > 0.7 > 0.5 > colour[50, 25, 2]  # RGB


def test_clips_over_photographs(folders: tuple[Path, Path]) -> None:
    material = list_material(*folders, 0.5, 0.5)
    first, again = (draw_clip_batch(material, 3, 2, 2, 64, 4) for _ in range(2))
    assert torch.equal(first.frames, again.frames)
    assert first.frames.shape == (2, 4, 3, 64, 64)
    assert all(targets.present.max() <= 1 for targets in first.targets)
    assert float((first.frames[:, 0] - first.frames[:, -1]).abs().mean()) > 0
    drawn = draw_clip_batch(Material(), 3, 2, 2, 64, 4)
    assert not torch.equal(first.frames, drawn.frames)


def test_figures_on_photographs() -> None:
    class _Knows:
        def segment_images(self, photo: np.ndarray, **prompt: object) -> list[object]:
            masks = np.zeros((3, SIDE, SIDE), bool)  # one object
            masks[1] = photo[..., 0] > 128
            scores = np.array([0.2, 0.9, 0.1] if "boxes" in prompt else [0.9, 0.2, 0.1])
            return [type("Found", (), {"masks": masks, "scores": scores})]

    def photos() -> Iterator[Outlined]:
        photo = np.zeros((SIDE, SIDE, 3), np.uint8)
        photo[20:60, 30:70] = 255
        yield Outlined("squares", photo, photo[None, ..., 0] > 128)

    figures = evaluate_photos(_Knows(), photos(), "clean")  # type: ignore[arg-type]
    assert figures == {"squares": {"objects": 1, "click": 0.0, "best_of_three": 1.0, "box": 1.0}}
