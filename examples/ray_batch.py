"""Many photos on many GPUs or machines, by Ray: an actor a GPU, which loads the model once. Start it again to go on.

    python examples/ray_batch.py boxes.json RESULTS [ACTORS]

boxes.json as for batch.py. RESULTS, a folder that all machines see, gets a JSON file for each photo that has none yet.
Needs `pip install "ray[data]"`.
"""

import json
import os
import sys
import uuid
from pathlib import Path
from urllib.parse import quote

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its maker otherwise
import ray

from sam2edge import AutoModel, InvalidInputError


def result_file(folder: str, photo: str) -> Path:
    return Path(folder, quote(photo, safe="") + ".json")


class Segmenter:
    def __init__(self, folder: str) -> None:
        self.folder, self.model = folder, AutoModel.from_pretrained("auto")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for photo, boxes in zip(batch["photo"], batch["boxes"], strict=True):
            try:
                result = self.model.segment_images(photo, boxes=np.array(json.loads(boxes)), multi_mask_output=False)[0]
                found = {"areas": result.areas.tolist(), "rle": result.to_rle()}
            except InvalidInputError as error:  # a damaged photo, a box outside it: go on with the others
                found = {"error": str(error)}
            part = Path(self.folder, f".{uuid.uuid4()}.part")
            part.write_text(json.dumps({"photo": photo, **found}))
            part.replace(result_file(self.folder, photo))  # whole or not at all, should this actor be killed
        return {"photo": batch["photo"]}


def main(file: str, folder: str, actors: str = "1") -> None:
    prompts = json.loads(Path(file).read_text())
    Path(folder).mkdir(parents=True, exist_ok=True)
    due = [(photo, boxes) for photo, boxes in prompts.items() if not result_file(folder, photo).exists()]
    if due:
        ray.init()  # of this machine, or the one that RAY_ADDRESS names
        ray.data.from_items([{"photo": photo, "boxes": json.dumps(boxes)} for photo, boxes in due]).map_batches(
            Segmenter,
            fn_constructor_args=(os.path.abspath(folder),),
            compute=ray.data.ActorPoolStrategy(size=int(actors)),
            num_gpus=min(1, ray.cluster_resources().get("GPU", 0)),
            batch_size=8,
        ).materialize()
    print(f"{len(due)} photos segmented, {len(prompts) - len(due)} were there: {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
