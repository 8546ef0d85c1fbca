"""Tries one model on one backend: `python -m sam2edge.diagnosis.trial MODEL SIZE BACKEND DEVICE`.

It runs in a process of its own because a broken native library ends the process. The last line on standard output is
one JSON object: {"ok": true} or {"ok": false, "problem", "remedy"}.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(arguments: list[str]) -> int:
    model_id, size, backend, device = arguments
    try:
        answer = _segment(model_id, int(size), backend, device)
    except Exception as error:  # whatever a library raises is the answer
        remedy = getattr(error, "remedy", None)
        stated = [getattr(error, name, None) for name in ("problem", "got")]
        problem = "; ".join(str(part) for part in stated if part) or str(error) or type(error).__name__
        answer = {"ok": False, "problem": " ".join(str(problem).split()), "remedy": remedy}
    print(json.dumps(answer))
    return 0


def _segment(model_id: str, size: int, backend: str, device: str) -> dict[str, Any]:
    import numpy as np

    from sam2edge.automodel import AutoModel

    model = AutoModel.from_pretrained(model_id, image_size=size, backend=backend, device=device)
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[30:90, 40:120] = 255
    found = model.segment_images(picture, boxes=np.array([40, 30, 120, 90]))[0]
    if not np.isfinite(found.logits).all():
        return {"ok": False, "problem": "the model's output is not finite", "remedy": None}
    return {"ok": True}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
