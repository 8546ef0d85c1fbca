"""Recordings of ROS 1 and 2, written here by rosbags, and those that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.frame import Frame
from sam2edge.video.ros_images import image_fields
from sam2edge.video.sources.choose import open_source
from tests.mjpeg_server import announce_size

rosbags = pytest.importorskip("rosbags")

from rosbags.rosbag1 import Writer as Writer1  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

ROS2, ROS1 = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)
STAMPS = [5_000_000_123, 6_000_000_456, 5_500_000_789]  # the camera's clock went back


def header(store: Any, stamp_ns: int) -> Any:
    time = store.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    sequence = {"seq": 0} if store is ROS1 else {}
    return store.types["std_msgs/msg/Header"](stamp=time, frame_id="camera", **sequence)


def messages(store: Any, compressed: bool) -> list[Any]:
    found = []
    for number, stamp in enumerate(STAMPS):
        picture = np.full((20, 30, 3), 50 * number, np.uint8)
        if compressed:
            data = cv2.imencode(".png", picture)[1]
            kind = store.types["sensor_msgs/msg/CompressedImage"]
            found.append(kind(header=header(store, stamp), format="png", data=data))
        else:
            found.append(store.types["sensor_msgs/msg/Image"](header=header(store, stamp), **image_fields(picture)))
    return found


def write_bag(path: Path, kind: str, topics: dict[str, list[Any]]) -> Path:
    """The folder of a ROS 2 bag ("mcap", "sqlite3"), or a ROS 1 bag, recorded at times 100, 200, ..."""
    store = ROS1 if kind == "ros1" else ROS2
    if kind == "ros1":
        writer: Any = Writer1(path)
    else:
        writer = Writer(path, version=9, storage_plugin=getattr(StoragePlugin, kind.upper()))
    with writer:
        for topic, entries in topics.items():
            connection = writer.add_connection(topic, entries[0].__msgtype__, typestore=store)
            for number, message in enumerate(entries):
                data = (
                    store.serialize_ros1(message, message.__msgtype__)
                    if kind == "ros1"
                    else store.serialize_cdr(message, message.__msgtype__)
                )
                writer.write(connection, 10**9 + number * 10**8, data)
    return path


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("kind", ["ros1", "mcap", "sqlite3"])
def test_bags_of_every_kind(tmp_path: Path, kind: str, compressed: bool) -> None:
    store = ROS1 if kind == "ros1" else ROS2
    path = write_bag(
        tmp_path / ("run.bag" if kind == "ros1" else "run"), kind, {"/camera/image": messages(store, compressed)}
    )
    source = open_source(f"bag://{path}?topic=/camera/image")
    assert (source.num_frames, source.live) == (3, False)
    assert source.fps == pytest.approx(10, rel=0.01)
    frames = list(source)
    source.close()
    source.close()
    assert [frame.time_ns for frame in frames] == STAMPS
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [int(frame.pixels[3, 3, 1]) for frame in frames] == [0, 50, 100]


def test_one_file_of_a_bag_is_enough_and_its_only_topic_is_taken(tmp_path: Path) -> None:
    write_bag(tmp_path / "run", "mcap", {"/camera": messages(ROS2, False)})
    assert len(list(open_source(f"bag://{tmp_path / 'run' / 'run.mcap'}"))) == 3


def test_a_message_without_a_stamp_has_the_time_of_recording(tmp_path: Path) -> None:
    message = messages(ROS2, False)[0]
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    write_bag(tmp_path / "run", "mcap", {"/camera": [message]})
    assert [frame.time_ns for frame in open_source(f"bag://{tmp_path / 'run'}")] == [10**9]


def test_topics_that_cannot_be_used(tmp_path: Path) -> None:
    text = ROS2.types["std_msgs/msg/String"](data="x")
    images = messages(ROS2, False)
    write_bag(tmp_path / "two", "mcap", {"/a": images, "/b": images, "/talk": [text]})
    write_bag(tmp_path / "none", "mcap", {"/talk": [text]})
    for address, message in (
        ("two", "several topics have images.*topic=TOPIC, one of /a, /b"),
        ("two?topic=/c", "bag has no such topic.*/a, /b.*got /c"),
        ("two?topic=/talk", "topic has no images.*String"),
        ("two?topics=/a", "unknown option"),
        ("none", "bag has no images"),
        ("nowhere", "bag not found"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            open_source(f"bag://{tmp_path / address}")


def test_an_unknown_encoding_is_named(tmp_path: Path) -> None:
    images = messages(ROS2, False)
    images[1].encoding = "32FC1"
    write_bag(tmp_path / "run", "mcap", {"/a": images})
    seen: list[Frame] = []
    with pytest.raises(InvalidInputError, match="encoding cannot be read.*32FC1"):
        seen.extend(open_source(f"bag://{tmp_path / 'run'}"))
    assert len(seen) == 1


def test_a_small_picture_that_announces_a_huge_size_is_not_decoded(tmp_path: Path) -> None:
    images = messages(ROS2, True)
    huge = announce_size(cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8))[1].tobytes(), 16_000)
    images[1].data = np.frombuffer(huge, np.uint8)
    write_bag(tmp_path / "run", "mcap", {"/a": images})
    seen: list[Frame] = []
    with pytest.raises(InvalidInputError, match=r"frames are too large.*16000x16000"):
        seen.extend(open_source(f"bag://{tmp_path / 'run'}"))
    assert len(seen) == 1


@pytest.mark.parametrize("kind", ["ros1", "mcap", "sqlite3"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 0.6, 0.9, 0.99])
def test_a_bag_that_is_cut_short(tmp_path: Path, kind: str, share: float) -> None:
    store = ROS1 if kind == "ros1" else ROS2
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    images = [store.types["sensor_msgs/msg/Image"](header=header(store, 1), **image_fields(noise)) for _ in range(40)]
    path = write_bag(tmp_path / ("run.bag" if kind == "ros1" else "run"), kind, {"/a": images})
    if path.is_dir():
        path = next(path.glob("*.mcap" if kind == "mcap" else "*.db3"))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(Sam2EdgeError, match=r"bag (cannot be opened|is damaged).*recover may save"):
        list(open_source(f"bag://{path}"))
