"""From a camera (0), a stream or a video to masks: a box on the first frame, then every frame as it comes.

python examples/camera.py 0 100 60 222 228
"""

import sys

from sam2edge import LatestFrames, VideoTracker, open_source


def main(source: str, *corners: str) -> None:
    frames = open_source(source)
    with VideoTracker.from_pretrained("auto") as tracker:
        for frame in LatestFrames(frames) if frames.live else frames:
            if tracker.object_ids:
                result = tracker.track(frame.pixels)
            else:
                result = tracker.prompt(frame.pixels, box=[float(corner) for corner in corners])
            print(frame.index, result, "box", result.boxes_xyxy[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
