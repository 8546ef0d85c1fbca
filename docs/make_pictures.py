"""Makes the pictures of README.md and docs/examples.md by running what stands there: python -m docs.make_pictures"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_tools

from sam2edge import draw_masks, open_source, read_photo
from tests.serve.browser import chromium, open_page, screen_point, serve_command

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
COINS = EXAMPLES / "coins.png"
COIN = (245, 96, 297, 144)
BUNNY = (84, 12, 262, 232)
OBJECTS_OF_THE_PAGE = {"rabbit": BUNNY, "stones": (278, 102, 424, 160)}
STEPS_OF_THE_PAGE = 8
COINS_OF_A_ROW = [(22, 31, 69, 79), (78, 32, 122, 77), (129, 26, 181, 79), (189, 26, 243, 78), (256, 30, 302, 76)]


def run_command(folder: Path, command: str) -> None:
    """`sam2edge COMMAND` in `folder`."""
    subprocess.run([sys.executable, "-m", "sam2edge", *command.split()], cwd=folder, check=True)


def run_example(folder: Path, script: str, *arguments: object) -> str:
    """What it prints, run in `folder`."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def draw_readme(folder: Path) -> None:
    """The pictures of README.md: a click, a cut-out, six frames of a followed object."""
    run_command(folder, f"segment {COINS} --point 46,264")
    (DOCS / "coins.overlay.png").write_bytes((folder / "coins.overlay.png").read_bytes())
    run_command(folder, f"segment {EXAMPLES / 'coffee.png'} --box 78,20,478,394 --cutout")
    cutout = cv2.imread(str(folder / "coffee.cutout.png"), cv2.IMREAD_UNCHANGED)
    _write("coffee.cutout.jpg", [cv2.resize(_on_squares(cutout), (420, 280), interpolation=cv2.INTER_AREA)])
    run_command(folder, f"track {EXAMPLES / 'bunny.mp4'} --box {','.join(map(str, BUNNY))} --out bunny.mp4")
    frames = [frame.pixels for frame in open_source(folder / "bunny.mp4")]
    chosen = [frames[round(i * (len(frames) - 1) / 5)] for i in range(6)]
    small = [cv2.resize(frame, (360, 202), interpolation=cv2.INTER_AREA) for frame in chosen]
    _write("bunny.jpg", [np.vstack(column) for column in zip(small[:3], small[3:], strict=True)], gap=0)


def draw_page(folder: Path) -> None:
    """The page of `sam2edge serve`: two boxes, both objects named, some frames later. Needs Chromium."""
    with (
        serve_command("examples/bunny.mp4", "--loop") as address,
        chromium() as browser,
        open_page(browser, address) as page,
    ):
        page.click("#pause")
        for number, (name, (x0, y0, x1, y1)) in enumerate(OBJECTS_OF_THE_PAGE.items(), 1):
            page.mouse.move(*screen_point(page, x0, y0))
            page.mouse.down()
            page.mouse.move(*screen_point(page, x1, y1), steps=4)
            page.mouse.up()
            page.fill(f"[data-object='{number}'] input", name)
            page.keyboard.press("Enter")
            page.keyboard.press("Escape")  # the next box is a new object
        for _ in range(STEPS_OF_THE_PAGE):
            shown = page.get_attribute("body", "data-shown")
            page.click("#step")
            page.wait_for_selector(f"body:not([data-shown='{shown}'])")
        page.screenshot(path=str(folder / "page.png"))
    _write("serve.jpg", [cv2.imread(str(folder / "page.png"))])


def draw_photo(folder: Path) -> None:
    """photo.py and pick_point.py: drawn, cut out on a chequered ground, and with the gripper's line."""
    run_example(folder, "photo.py", COINS, *COIN)
    run_example(folder, "pick_point.py", COINS, *COIN)
    drawn, cutout, picked = (
        cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        for name in ("photo.drawn", "photo.cutout", "pick.drawn")
    )
    around = np.s_[60:180, 190:350]
    _write("examples.png", [drawn[around], _on_squares(cutout)[around], picked[around]], gap=0)


def draw_folder(folder: Path) -> None:
    """folder.py on pictures of one camera: what its COCO file has."""
    pictures = folder / "pictures"
    _write_frames(pictures, range(0, 12, 4))
    coco = json.loads(run_example(folder, "folder.py", pictures, *BUNNY))
    drawn = []
    for image in coco["images"]:
        found = [a["segmentation"] for a in coco["annotations"] if a["image_id"] == image["id"]]
        drawn.append(_draw(read_photo(pictures / image["file_name"]), found, [BUNNY]))
    _write("examples.folder.jpg", drawn)


def draw_camera(folder: Path) -> None:
    """camera.py: the boxes that it prints, on three of the frames."""
    clip = folder / "clip"
    _write_frames(clip, range(41))
    lines = run_example(folder, "camera.py", clip, *BUNNY).splitlines()
    drawn = []
    for index in (0, 20, 40):
        words = re.search(r"box \[([^\]]*)\]", lines[index])
        assert words is not None, lines[index]
        drawn.append(_draw(read_photo(clip / f"{index}.png"), [], [tuple(map(float, words[1].split()))]))
    _write("examples.camera.jpg", drawn)


def draw_batch(folder: Path) -> None:
    """batch.py: all masks of one photo."""
    (folder / "boxes.json").write_text(json.dumps({str(COINS): COINS_OF_A_ROW}))
    found = json.loads(run_example(folder, "batch.py", "boxes.json"))
    _write("examples.batch.jpg", [_draw(read_photo(COINS), found["rle"], COINS_OF_A_ROW)[:160]])


def _on_squares(cutout: np.ndarray) -> np.ndarray:
    """A picture with alpha on a chequered ground."""
    rows, columns = np.indices(cutout.shape[:2]) // 8
    ground = np.where((rows + columns) % 2, 215, 240).astype(np.uint8)[..., None]
    alpha = cutout[..., 3:] / 255
    return (cutout[..., :3] * alpha + ground * (1 - alpha)).astype(np.uint8)


def _write_frames(folder: Path, wanted: range) -> None:
    folder.mkdir()
    for frame in open_source(EXAMPLES / "bunny.mp4"):
        if frame.index in wanted:
            assert cv2.imwrite(str(folder / f"{frame.index}.png"), frame.pixels)


def _draw(picture: np.ndarray, found: list[object], boxes: object) -> np.ndarray:
    """With what COCO has for masks: run lengths, or polygons."""
    size = picture.shape[:2]
    rles = [mask_tools.merge(mask_tools.frPyObjects(one, *size)) if isinstance(one, list) else one for one in found]
    masks = [mask_tools.decode(rle) for rle in rles]
    shown = np.array(masks, bool) if masks else np.empty((0, *picture.shape[:2]), bool)
    return draw_masks(picture, shown, boxes=np.array(boxes, float))


def _write(name: str, pictures: list[np.ndarray], gap: int = 8) -> None:
    """The pictures side by side."""
    space = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, space)][:-1]
    options = [cv2.IMWRITE_JPEG_QUALITY, 80] if name.endswith(".jpg") else []
    assert cv2.imwrite(str(DOCS / name), np.hstack(row), options)


if __name__ == "__main__":
    for draw in (draw_readme, draw_page, draw_photo, draw_folder, draw_camera, draw_batch):
        with tempfile.TemporaryDirectory() as place:
            draw(Path(place))
