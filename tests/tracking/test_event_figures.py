"""The benchmark of events counts right: truth from labels, and what was told beside it."""

from __future__ import annotations

import numpy as np

from bench.tracking import find_double_masks, find_true_events, score_object, tally_events, write_row
from sam2edge.datatypes import TrackEvent
from training.clips import Clip


def _clip(places: list[tuple[int, int] | None]) -> Clip:
    """Object 2 is a square of 8 pixels in a picture of 40 whose corner is at x, y; object 3 stays."""
    labels = np.ones((len(places), 40, 40), np.uint8)
    labels[:, 30:38, 4:12] = 3
    for plane, place in zip(labels, places, strict=True):
        if place is not None:
            plane[place[1] : place[1] + 8, place[0] : place[0] + 8] = 2
    return Clip(np.zeros((*labels.shape, 3), np.uint8), labels, (2, 3))


HIDDEN = _clip([(9, 9)] * 3 + [None] * 8 + [(20, 9)] * 6 + [(32, 9)] + [None] * 4)


def test_truth_of_what_goes_and_comes() -> None:
    happened = [(h.kind, h.object_id, h.frame) for h in find_true_events(HIDDEN, (2, 3))]
    assert happened == [("lost", 2, 3), ("found", 2, 11), ("left", 2, 18)]


def test_told_events_beside_the_truth() -> None:
    told = [TrackEvent(kind, 2, frame, 0.0) for kind, frame in (("lost", 4), ("found", 20), ("lost", 17))]
    tallies = tally_events(told, find_true_events(HIDDEN, (2, 3)), [])
    rows = {kind: write_row(kind, tallies) for kind in ("lost", "left", "lost or left", "found")}
    assert (rows["lost"]["precision"], rows["lost"]["recall"]) == (0.5, 1.0)
    assert (rows["left"]["precision"], rows["left"]["recall"]) == (None, 0.0)
    assert (rows["lost or left"]["precision"], rows["lost or left"]["recall"]) == (1.0, 1.0)
    assert (rows["found"]["precision"], rows["found"]["recall"]) == (0.0, 0.0)


def test_two_masks_of_one_object_and_masks_that_go_over() -> None:
    own = np.stack([HIDDEN.labels == 2, HIDDEN.labels == 3], axis=1)
    assert not find_double_masks(HIDDEN, (2, 3), own)
    assert score_object(HIDDEN, 2, own[:, 0]) == {"j": 1.0, "j_last": 1.0, "switches": 0, "frames_on_another": 0}
    stolen = own.copy()
    stolen[5:9, 0] = own[5:9, 1]
    assert [h.frame for h in find_double_masks(HIDDEN, (2, 3), stolen)] == [5]
    scored = score_object(HIDDEN, 2, stolen[:, 0])
    assert (scored["switches"], scored["frames_on_another"]) == (1, 4) and scored["j"] < 1
