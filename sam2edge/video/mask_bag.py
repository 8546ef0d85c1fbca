"""A ROS 2 bag (one MCAP file) of label images: sensor_msgs/Image, mono8, a pixel's value being the object's id."""

from __future__ import annotations

import shutil
from pathlib import Path

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sam2edge.datatypes import TrackResult
from sam2edge.errors import InvalidInputError
from sam2edge.outputs import make_write_error, place, temporary_beside, try_output
from sam2edge.video.frame import Frame
from sam2edge.video.index_png import MAX_INDEX
from sam2edge.video.ros_images import image_fields, label_image

TOPIC = "/sam2edge/masks"
_TYPE = "sensor_msgs/msg/Image"


class MaskBag:
    """A message a frame, whose header has the frame's time to the nanosecond.

    Messages are recorded in the order of frames, also where the camera's time goes back.
    """

    def __init__(self, path: Path, replace: bool = False, frame_id: str = "camera") -> None:
        try_output(path)
        self._path, self._replace, self._frame_id = path, replace, frame_id
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        self._folder = temporary_beside(path, ".bag")
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        try:
            self._writer.open()
            self._topic = self._writer.add_connection(TOPIC, _TYPE, typestore=self._types)
        except OSError as error:
            raise make_write_error(path, error) from error
        self._open = True
        self._recorded_ns = -1

    def write(self, frame: Frame, result: TrackResult | None) -> None:
        ids = () if result is None else result.object_ids
        if any(not 1 <= object_id <= MAX_INDEX for object_id in ids):
            raise InvalidInputError("object id does not fit a label image", expected=f"1..{MAX_INDEX}", got=max(ids))
        types = self._types.types
        stamp = types["builtin_interfaces/msg/Time"](sec=frame.time_ns // 10**9, nanosec=frame.time_ns % 10**9)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=self._frame_id)
        labels = label_image(frame.size_hw, ids, None if result is None else result.masks)
        message = types[_TYPE](header=header, **image_fields(labels))
        self._recorded_ns = max(frame.time_ns, self._recorded_ns + 1)
        try:
            self._writer.write(self._topic, self._recorded_ns, self._types.serialize_cdr(message, _TYPE))
        except OSError as error:
            raise make_write_error(self._path, error) from error

    def close(self) -> Path | None:
        try:
            self._finish()
            (file,) = self._folder.glob("*.mcap")
            return place({file: self._path}, self._replace)[0]
        except OSError as error:
            raise make_write_error(self._path, error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        self._finish()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self._open:
            self._open = False
            self._writer.close()
