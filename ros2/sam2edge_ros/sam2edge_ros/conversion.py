"""Steps of the tracker as ROS 2 messages. Imports no ROS: message classes are passed in.

Any classes will do that take their fields by name, as those of ROS 2 do, and of rosbags, against which this is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sam2edge.imaging.mask_formats import mask_box
from sam2edge.serve.message import draw_step
from sam2edge.serve.session import Prompt, Step
from sam2edge.video.ros_images import image_fields, label_image


class Converter:
    """Makes messages of the classes in `types`, by their full names ("sensor_msgs/msg/Image").

    `make_data` turns uint8 pixels (N,) into what the class wants: rclpy takes array.array("B"), rosbags numpy.
    """

    def __init__(
        self, types: Mapping[str, Any], make_data: Callable[[np.ndarray], Any] = lambda pixels: pixels
    ) -> None:
        self._types = types
        self._make_data = make_data

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        stamp = self._types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self._types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def image(self, picture: np.ndarray, header: Any) -> Any:
        """sensor_msgs/Image: (H, W, 3) uint8 BGR as bgr8, (H, W) uint8 as mono8."""
        fields = image_fields(picture)
        fields["data"] = self._make_data(fields["data"])
        return self._types["sensor_msgs/msg/Image"](header=header, **fields)

    def masks(self, step: Step, header: Any) -> Any:
        """sensor_msgs/Image, mono8: a pixel's value is the object's id, 0 outside; the lowest where they overlap."""
        found = step.result
        ids, masks = ((), None) if found is None else (found.object_ids, found.masks)
        return self.image(label_image(step.frame.size_hw, ids, masks), header)

    def overlay(self, step: Step, header: Any) -> Any:
        """sensor_msgs/Image, bgr8: the picture with the masks drawn."""
        return self.image(draw_step(step), header)

    def boxes(self, step: Step, header: Any) -> Any:
        """vision_msgs/Detection2DArray: a detection for each object that is seen.

        `id` is the object's number, `class_id` its name, `score` the predicted IoU.
        """
        detections = []
        if step.result is not None:
            rows = zip(step.result.object_ids, step.result.masks, step.result.scores.tolist(), strict=True)
            for object_id, mask, score in rows:
                box = mask_box(mask)
                if box is not None:
                    detections.append(self._detection(header, object_id, step.names.get(object_id, ""), score, box))
        return self._types["vision_msgs/msg/Detection2DArray"](header=header, detections=detections)

    def _detection(self, header: Any, object_id: int, name: str, score: float, box: tuple[int, int, int, int]) -> Any:
        make = self._types
        left, top, right, bottom = map(float, box)
        point = make["vision_msgs/msg/Point2D"](x=(left + right) / 2, y=(top + bottom) / 2)
        pose = make["geometry_msgs/msg/PoseWithCovariance"](
            pose=make["geometry_msgs/msg/Pose"](
                position=make["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
                orientation=make["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
            ),
            covariance=np.zeros(36),
        )
        hypothesis = make["vision_msgs/msg/ObjectHypothesis"](class_id=name, score=score)
        return make["vision_msgs/msg/Detection2D"](
            header=header,
            results=[make["vision_msgs/msg/ObjectHypothesisWithPose"](hypothesis=hypothesis, pose=pose)],
            bbox=make["vision_msgs/msg/BoundingBox2D"](
                center=make["vision_msgs/msg/Pose2D"](position=point, theta=0.0),
                size_x=right - left,
                size_y=bottom - top,
            ),
            id=str(object_id),
        )


def read_prompt(request: Any, find_index: Callable[[int], int | None]) -> Prompt:
    """A request of sam2edge_interfaces/srv/Prompt; `find_index` gives the frame of a stamp in nanoseconds.

    Raises ValueError for lists that do not fit together, and for an image that is not kept.
    """
    xy, labels, box = list(request.points_xy), [int(label) for label in request.labels], list(request.box_xyxy)
    if len(xy) % 2:
        raise ValueError(f"points_xy has {len(xy)} numbers; x and y of each point are needed")
    points = [(float(x), float(y)) for x, y in zip(xy[::2], xy[1::2], strict=True)]
    labels = labels or [1] * len(points)
    if len(labels) != len(points) or not set(labels) <= {0, 1}:
        raise ValueError(f"{len(labels)} labels for {len(points)} points; one of 0 or 1 for each is needed")
    if len(box) not in (0, 4) or not (points or box):
        raise ValueError("points, or a box of four numbers, are needed")
    stamp_ns = request.stamp.sec * 10**9 + request.stamp.nanosec
    index = find_index(stamp_ns) if stamp_ns else None
    if stamp_ns and index is None:
        raise ValueError("the image of that stamp was not followed, or is not kept any more")
    corners = (float(box[0]), float(box[1]), float(box[2]), float(box[3])) if box else None
    return Prompt(points, labels, corners, index, request.object_id or None, request.name[:40] or None)
