"""Messages byte for byte against rosbags, the node against a stand-in of rclpy, and the package's own files."""

from __future__ import annotations

import ast
import importlib
import struct
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from sam2edge.automodel import AutoModel
from sam2edge.datatypes import TrackResult
from sam2edge.serve.session import Step
from sam2edge.video.frame import Frame
from tests.conftest import ROOT
from tests.fake_backend import bright_square, fake_model
from tests.ros2.stand_in import STORE, imports
from tests.rtsp_server import wait_until

PACKAGE = ROOT / "ros2" / "sam2edge_ros"
STAMP = 12 * 10**9 + 345


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package's modules, on the stand-in."""
    for name, module in imports().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(PACKAGE))
    names = ("sam2edge_ros", "sam2edge_ros.conversion", "sam2edge_ros.node")
    yield SimpleNamespace(
        conversion=importlib.import_module("sam2edge_ros.conversion"), node=importlib.import_module("sam2edge_ros.node")
    )
    for name in names:
        sys.modules.pop(name, None)


def step_of(ids: tuple[int, ...] = (1, 4)) -> Step:
    masks = np.zeros((len(ids), 6, 9), bool)
    for row in range(len(ids)):
        masks[row, 1 + row : 4, 2 : 5 + row] = True
    ones = np.full(len(ids), 0.75, np.float32)
    result = TrackResult(0, ids, masks, ones, ones, np.zeros((len(ids), 4, 4), np.float32))
    return Step(Frame(3, np.arange(162, dtype=np.uint8).reshape(6, 9, 3), STAMP), result, 0.1, {1: "cup"}, False, 0, "")


def test_an_image_message_byte_for_byte(ros: Any) -> None:
    """Little-endian CDR, as the rules of DDS-XTypes have it: a 4-byte mark, fields aligned to their size."""
    convert = ros.conversion.Converter(STORE.types)
    step = step_of()
    header = convert.header(STAMP, "cam")
    labels = np.zeros((6, 9), np.uint8)
    labels[2:4, 2:6], labels[1:4, 2:5] = 4, 1
    stamp_and_frame = struct.pack("<iI", 12, 345) + struct.pack("<I", 4) + b"cam\0"
    size_and_encoding = struct.pack("<II", 6, 9) + struct.pack("<I", 6) + b"mono8\0"
    bigendian_and_padding = b"\0\0"  # 35 bytes so far; the step begins at 36
    expected = b"\0\1\0\0" + stamp_and_frame + size_and_encoding + bigendian_and_padding
    expected += struct.pack("<II", 9, 54) + labels.tobytes()
    data = bytes(STORE.serialize_cdr(convert.masks(step, header), "sensor_msgs/msg/Image"))
    assert data == expected
    message: Any = STORE.deserialize_cdr(data, "sensor_msgs/msg/Image")
    assert (message.height, message.width, message.encoding, message.step) == (6, 9, "mono8", 9)
    assert np.array_equal(message.data.reshape(6, 9), labels)


def test_every_message_survives_the_wire(ros: Any) -> None:
    convert = ros.conversion.Converter(STORE.types)
    for step in (step_of(), step_of((2,)), Step(step_of().frame, None, 0.0, {}, False, 0, "")):
        header = convert.header(STAMP, "cam")
        for message in (convert.masks(step, header), convert.overlay(step, header), convert.boxes(step, header)):
            data = STORE.serialize_cdr(message, message.__msgtype__)
            again = STORE.deserialize_cdr(data, message.__msgtype__)
            assert bytes(STORE.serialize_cdr(again, message.__msgtype__)) == bytes(data)
    boxes = convert.boxes(step_of(), header).detections
    assert [box.id for box in boxes] == ["1", "4"]
    assert (boxes[0].bbox.center.position.x, boxes[0].bbox.center.position.y) == (3.5, 2.5)
    assert (boxes[0].bbox.size_x, boxes[0].bbox.size_y) == (3.0, 3.0)
    assert (boxes[0].results[0].hypothesis.class_id, boxes[0].results[0].hypothesis.score) == ("cup", 0.75)


def request(**fields: Any) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=0, nanosec=0)
    defaults = {"object_id": 0, "stamp": stamp, "points_xy": [], "labels": [], "box_xyxy": [], "name": ""}
    return SimpleNamespace(**{**defaults, **fields})


def test_requests(ros: Any) -> None:
    read = ros.conversion.read_prompt
    prompt = read(request(points_xy=[1, 2, 3, 4], labels=[1, 0], name="cup"), lambda stamp: None)
    assert (prompt.points, prompt.labels, prompt.box, prompt.object_id) == (
        [(1.0, 2.0), (3.0, 4.0)],
        [1, 0],
        None,
        None,
    )
    stamp = SimpleNamespace(sec=12, nanosec=345)
    assert read(request(box_xyxy=[1, 2, 3, 4], stamp=stamp), {STAMP: 7}.get).frame_index == 7
    for wrong, words in (
        (request(), "are needed"),
        (request(points_xy=[1]), "x and y"),
        (request(points_xy=[1, 2], labels=[1, 1]), "labels"),
        (request(points_xy=[1, 2], labels=[5]), "labels"),
        (request(box_xyxy=[1, 2]), "four numbers"),
        (request(points_xy=[1, 2], stamp=stamp), "not kept"),
    ):
        with pytest.raises(ValueError, match=words):
            read(wrong, lambda stamp: None)


def image_message(ros: Any, left: int, stamp: int, compressed: bool = False) -> Any:
    convert = ros.conversion.Converter(STORE.types)
    header = convert.header(stamp, "front")
    if compressed:
        data = cv2.imencode(".png", bright_square(left))[1].reshape(-1)
        return STORE.types["sensor_msgs/msg/CompressedImage"](header=header, format="png", data=data)
    return convert.image(bright_square(left), header)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_node_follows_what_it_is_asked_to(ros: Any, monkeypatch: pytest.MonkeyPatch, compressed: bool) -> None:
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: fake_model())
    node = ros.node.FollowNode()
    node.parameters["compressed"] = compressed
    assert node.on_configure(None) == "success"
    prompt, remove = node.services["~/prompt"], node.services["~/remove"]
    answer = prompt(request(points_xy=[20.0, 20.0]), SimpleNamespace())
    assert not answer.success and "not active" in answer.message
    assert node.on_activate(None) == "success"
    try:
        kind, take = node.subscriptions["/camera/image_raw"]
        assert kind.__name__.endswith("CompressedImage" if compressed else "msg__Image")
        masks = node.publishers["~/masks"].messages
        take(image_message(ros, 10, STAMP, compressed))
        wait_until(lambda: masks)
        assert not masks[-1].data.tobytes().strip(b"\0")
        stamp = SimpleNamespace(sec=12, nanosec=345)
        answer = prompt(request(points_xy=[20.0, 20.0], stamp=stamp, name="cup"), SimpleNamespace())
        assert (answer.success, answer.object_id) == (True, 1)
        take(image_message(ros, 30, STAMP + 5, compressed))
        wait_until(lambda: masks[-1].header.stamp.nanosec == 350)
        labels = np.frombuffer(masks[-1].data, np.uint8).reshape(60, 80)
        columns = np.flatnonzero(labels.any(axis=0))
        assert set(np.unique(labels)) == {0, 1} and abs(columns[0] - 30) <= 4
        wait_until(lambda: node.publishers["~/overlay"].messages[-1].header.stamp.nanosec == 350)
        boxes = node.publishers["~/boxes"].messages[-1]
        assert boxes.header.frame_id == "front" and boxes.detections[0].results[0].hypothesis.class_id == "cup"
        answer = prompt(request(points_xy=[1.0]), SimpleNamespace())
        assert not answer.success and "x and y" in answer.message
        broken = image_message(ros, 30, STAMP + 6, compressed)
        broken.data = broken.data[:5]
        take(broken)
        wait_until(lambda: node.logged)
        assert "image left out" in node.logged[0]
        assert remove(SimpleNamespace(object_id=1), SimpleNamespace()).success
        assert not remove(SimpleNamespace(object_id=1), SimpleNamespace()).success
        assert remove(SimpleNamespace(object_id=0), SimpleNamespace()).success
    finally:
        assert node.on_deactivate(None) == "success"
    assert node.subscriptions == {}
    assert node.on_cleanup(None) == "success"


def test_a_model_that_does_not_load_is_told(ros: Any) -> None:
    node = ros.node.FollowNode()
    node.parameters["model"] = "no-such-model"
    assert node.on_configure(None) == "failure"
    assert "no-such-model" in node.logged[0]


def test_the_packages_files() -> None:
    for name in ("sam2edge_ros", "sam2edge_interfaces"):
        tree = xml.etree.ElementTree.parse(ROOT / "ros2" / name / "package.xml")
        assert tree.getroot().findtext("name") == name
    depends = {found.text for found in xml.etree.ElementTree.parse(PACKAGE / "package.xml").iter("exec_depend")}
    code = ast.parse((PACKAGE / "sam2edge_ros" / "node.py").read_text())
    used = {n.module.partition(".")[0] for n in ast.walk(code) if isinstance(n, ast.ImportFrom) and n.module}
    assert {name for name in used if name.endswith(("_msgs", "_interfaces"))} <= depends
    setup = (PACKAGE / "setup.py").read_text()
    assert "sam2edge_ros.node:main" in setup.replace("{NAME}", "sam2edge_ros") and "launch/sam2edge.launch.py" in setup
    ast.parse((PACKAGE / "launch" / "sam2edge.launch.py").read_text())
    listed = (ROOT / "ros2" / "sam2edge_interfaces" / "CMakeLists.txt").read_text()
    for service in (ROOT / "ros2" / "sam2edge_interfaces" / "srv").glob("*.srv"):
        assert f"srv/{service.name}" in listed
