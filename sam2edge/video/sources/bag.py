"""Recordings of ROS 1 and 2 (`bag://FILE?topic=/camera/image_raw`): .bag, .mcap, .db3, or the folder of a ROS 2 bag.

Read by `rosbags` (extra `[ros]`), with no ROS on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.frame import DEFAULT_FPS, Frame, require_size, usable_fps
from sam2edge.video.ros_images import decode_image, stamp_ns
from sam2edge.video.sources.address import read_options

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class BagImages:
    """The images on one topic, raw or compressed, in the order in which they were recorded.

    A frame's time is the header's stamp, which the camera gave; where that is 0, the time of recording.
    """

    live = False

    def __init__(self, source: str) -> None:
        name, options = read_options(source, {"topic": str})
        self.path = Path(name.removeprefix("bag://"))
        if not self.path.exists():
            raise InvalidInputError(
                "bag not found", expected="a .bag, .mcap or .db3 file, or a folder", got=str(self.path)
            )
        try:
            self._reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except Exception as error:  # a damaged file raises what its damage leads to
            raise InvalidInputError(
                "bag cannot be opened: damaged, cut short, or of another format",
                expected="a recording of ROS 1 or 2",
                got=f"{error} in {self.path}",
                remedy="ros2 bag reindex, rosbag reindex or mcap recover may save it",
            ) from error
        try:
            self._connections, self.topic = self._find_topic(options.get("topic"))
        except InvalidInputError:
            self.close()
            raise
        count = sum(connection.msgcount for connection in self._connections)
        self.num_frames: int | None = count
        seconds = self._reader.duration / 1e9
        self.fps = usable_fps((count - 1) / seconds, highest=1000) if count > 1 and seconds > 0 else DEFAULT_FPS

    def __iter__(self) -> Iterator[Frame]:
        size: tuple[int, ...] | None = None
        index = -1
        messages = self._reader.messages(connections=self._connections)
        while True:
            try:
                connection, recorded_ns, data = next(messages)
                message = self._reader.deserialize(data, connection.msgtype)
            except StopIteration:
                break
            except Exception as error:
                raise Sam2EdgeError(
                    "bag is damaged",
                    got=f"{error} after {index + 1} images of {self.topic} in {self.path}",
                    remedy="ros2 bag reindex, rosbag reindex or mcap recover may save the rest",
                ) from error
            index += 1
            pixels = decode_image(message)
            size = size or pixels.shape
            require_size(pixels, size, f"{self.topic} of {self.path}")
            yield Frame(index, pixels, stamp_ns(message) or recorded_ns)
        if index < 0:
            raise InvalidInputError("topic has no images", expected="at least one", got=f"none on {self.topic}")

    def close(self) -> None:
        if self._reader.stack is not None:
            self._reader.close()

    def _find_topic(self, wanted: object) -> tuple[list[Any], str]:
        images = [c for c in self._reader.connections if c.msgtype in IMAGE_TYPES]
        topics = sorted({c.topic for c in images})
        if wanted is None and len(topics) != 1:
            raise InvalidInputError(
                "several topics have images" if topics else "bag has no images",
                expected=f"bag://{self.path}?topic=TOPIC, one of {', '.join(topics)}"
                if topics
                else "a topic of images",
                got=f"{len(topics)} topics of images",
            )
        topic = topics[0] if wanted is None else str(wanted)
        if topic not in topics:
            other = next((c.msgtype for c in self._reader.connections if c.topic == topic), None)
            raise InvalidInputError(
                "topic has no images" if other else "bag has no such topic",
                expected=f"one of {', '.join(topics)}" if topics else "a topic of images; this bag has none",
                got=f"{topic}, of type {other}" if other else topic,
            )
        return [c for c in images if c.topic == topic], topic
