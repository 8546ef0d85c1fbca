"""Records what Meta's release does with large photos and frames, and with its tracking options.

Run by hand, in the environment that `make_meta_reference.py` describes, from the root of the repository:

    python -m tests.data.make_meta_videos 512   # all of it: meta_videos.npz
    python -m tests.data.make_meta_videos 1024  # the photo and three frames: meta_videos_1024.npz

SAM 2.1 tiny under golden weights, with a model input of that size. Keys are "<case>/<step>/logits" (low-resolution
logits of all objects, sampled) and "<case>/<step>/area" (pixels of each mask at frame size).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import meta
from tests.data import meta_inputs as given
from tests.golden.golden_weights import golden_tensor

meta.install_torchvision()

from PIL import Image  # noqa: E402
from sam2.build_sam import build_sam2, build_sam2_video_predictor  # noqa: E402  # after the stand-in
from sam2.sam2_image_predictor import SAM2ImagePredictor  # noqa: E402
from sam2.utils.transforms import SAM2Transforms  # noqa: E402

FOLDER = Path(__file__).parent
CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SIZE = int(sys.argv[1]) if len(sys.argv) > 1 else given.IMAGE_SIZE
OVERRIDES = [f"++model.image_size={SIZE}"]

Recorded = dict[str, NDArray[Any]]


def main() -> None:
    recorded: Recorded = {}
    with torch.inference_mode():
        record_photo(recorded)
        if SIZE == given.IMAGE_SIZE:
            record_clip(recorded, "large_bilinear", "bilinear", given.large_frames_rgb())
            record_clip(recorded, "large_bicubic", "pillow-bicubic", given.large_frames_rgb())
            for name, options in given.OPTIONS.items():
                record_options(recorded, name, options)
            record_reverse(recorded)
        else:
            record_clip(recorded, "large_bilinear", "bilinear", given.large_frames_rgb()[: given.FRAMES_AT_1024])
    target = FOLDER / ("meta_videos.npz" if SIZE == given.IMAGE_SIZE else f"meta_videos_{SIZE}.npz")
    np.savez_compressed(target, **recorded)  # type: ignore[arg-type]  # numpy's stub takes the keys for its own options
    print(f"{target} ({target.stat().st_size / 1e3:.0f} kB)")


def record_clip(recorded: Recorded, name: str, resize: str, frames: list[NDArray[np.uint8]]) -> None:
    predictor = load_video_predictor()
    state = open_clip(predictor, frames, resize)
    answer = predictor.add_new_points_or_box(state, 0, 1, box=np.array(given.LARGE_BOX_XYXY))
    keep(recorded, f"{name}/0", predictor, state, 0, answer[2])
    for index, _, masks in predictor.propagate_in_video(state, start_frame_idx=1):
        keep(recorded, f"{name}/{index}", predictor, state, index, masks)


def record_photo(recorded: Recorded) -> None:
    model = load_weights(build_sam2(CONFIG, device="cpu", hydra_overrides_extra=OVERRIDES))
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(SIZE // 16 * n, SIZE // 16 * n) for n in (4, 2, 1)]  # the release fixes those of 1024
    predictor.set_image(given.large_photo_rgb())
    masks, _, logits = predictor.predict(box=np.array(given.LARGE_BOX_XYXY), multimask_output=True)
    recorded["large_photo/0/logits"] = given.sample("large_photo/0", logits)
    recorded["large_photo/0/area"] = masks.sum(axis=(1, 2))


def record_options(recorded: Recorded, name: str, options: dict[str, bool]) -> None:
    """Two objects, a correction of the first on frame 4, then the rest of the clip."""
    predictor = load_video_predictor(options)
    state = open_clip(predictor, given.small_frames_rgb(), "bilinear")
    predictor.add_new_points_or_box(state, 0, 1, box=np.array(given.SMALL_BOX_XYXY))
    answer = predictor.add_new_points_or_box(state, 0, 2, points=[given.SMALL_POINT_XY], labels=[1])
    keep(recorded, f"{name}/0", predictor, state, 0, answer[2])
    for index, _, masks in predictor.propagate_in_video(state, 1, given.CORRECTED - 1):
        keep(recorded, f"{name}/{index}", predictor, state, index, masks)
    answer = predictor.add_new_points_or_box(state, given.CORRECTED, 1, points=[given.SMALL_CLICK_XY], labels=[0])
    keep(recorded, f"{name}/corrected", predictor, state, given.CORRECTED, answer[2])
    for index, _, masks in predictor.propagate_in_video(state, given.CORRECTED + 1):
        keep(recorded, f"{name}/{index}", predictor, state, index, masks)


def record_reverse(recorded: Recorded) -> None:
    predictor = load_video_predictor()
    frames = given.small_frames_rgb()
    state = open_clip(predictor, frames, "bilinear")
    last = len(frames) - 1
    predictor.add_new_points_or_box(state, last, 1, box=np.array(given.SMALL_BOX_XYXY))
    for index, _, masks in predictor.propagate_in_video(state, last - 1, reverse=True):
        keep(recorded, f"reverse/{index}", predictor, state, index, masks)


def load_video_predictor(options: dict[str, bool] | None = None) -> Any:
    """Meta's predictor of videos with golden weights; holes are not filled: that needs its CUDA extension."""
    extra = [*OVERRIDES, *(f"++model.{name}={str(value).lower()}" for name, value in (options or {}).items())]
    predictor = load_weights(build_sam2_video_predictor(CONFIG, device="cpu", hydra_overrides_extra=extra))
    predictor.fill_hole_area = 0

    def clear_around(state: Any, frame: int, number: int) -> None:
        for near in range(frame - predictor.num_maskmem, frame + predictor.num_maskmem + 1):
            state["output_dict_per_obj"][number]["non_cond_frame_outputs"].pop(near, None)

    # 1.1.0 calls it for one object, and has it for all of them under another name alone.
    predictor._clear_obj_non_cond_mem_around_input = clear_around
    return predictor


def load_weights(model: Any) -> Any:
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(golden_tensor(name, s)) for name, s in shapes.items()}, strict=True)
    return model


def open_clip(predictor: Any, frames: list[NDArray[np.uint8]], resize: str) -> Any:
    """Meta's state of a clip; "bilinear": its frames are resized as its photos are, and not as its loader does it."""
    with tempfile.TemporaryDirectory() as folder:
        for index, frame in enumerate(frames):
            # PNG, whose pixels are exact; the loader goes by the name, Pillow by the content.
            Image.fromarray(frame).save(Path(folder) / f"{index:05d}.jpg", format="PNG")
        state = predictor.init_state(folder)
    if resize == "bilinear":
        transforms = SAM2Transforms(SIZE, 0.0)
        state["images"] = torch.stack([transforms(frame) for frame in frames])
        state["cached_features"].clear()
    return state


def keep(recorded: Recorded, step: str, predictor: Any, state: Any, frame: int, masks: torch.Tensor) -> None:
    recorded[f"{step}/logits"] = given.sample(step, torch.cat(list(find_logits(state, frame)))[:, 0].float().numpy())
    recorded[f"{step}/area"] = (masks > 0).sum(dim=(1, 2, 3)).numpy()


def find_logits(state: Any, frame: int) -> Iterator[torch.Tensor]:
    """Low-resolution logits (1, 1, h, w) of each object on a frame, those of a prompt before all else."""
    for number in range(len(state["obj_ids"])):
        for outputs in (state["temp_output_dict_per_obj"][number], state["output_dict_per_obj"][number]):
            found = [outputs[kind].get(frame) for kind in ("cond_frame_outputs", "non_cond_frame_outputs")]
            kept = [one["pred_masks"] for one in found if one is not None]
            if kept:
                yield kept[0]
                break


if __name__ == "__main__":
    main()
