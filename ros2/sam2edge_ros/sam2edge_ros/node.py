"""The lifecycle node: images in; masks, boxes and the drawn picture out; services for the objects."""

from __future__ import annotations

import array
import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sam2edge_interfaces.srv import Prompt, Remove
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
)

from sam2edge import AutoModel
from sam2edge.errors import Sam2EdgeError
from sam2edge.serve.session import Session, Step
from sam2edge.video.frame import Frame
from sam2edge.video.latest import LatestFrames
from sam2edge.video.ros_images import decode_image, stamp_ns
from sam2edge_ros.conversion import Converter, read_prompt

ANSWER_SECONDS = 60.0
_KEPT_STAMPS = 300
_TYPES = {
    "builtin_interfaces/msg/Time": Time,
    "std_msgs/msg/Header": Header,
    "sensor_msgs/msg/Image": Image,
    "geometry_msgs/msg/Point": Point,
    "geometry_msgs/msg/Quaternion": Quaternion,
    "geometry_msgs/msg/Pose": Pose,
    "geometry_msgs/msg/PoseWithCovariance": PoseWithCovariance,
    "vision_msgs/msg/Point2D": Point2D,
    "vision_msgs/msg/Pose2D": Pose2D,
    "vision_msgs/msg/BoundingBox2D": BoundingBox2D,
    "vision_msgs/msg/ObjectHypothesis": ObjectHypothesis,
    "vision_msgs/msg/ObjectHypothesisWithPose": ObjectHypothesisWithPose,
    "vision_msgs/msg/Detection2D": Detection2D,
    "vision_msgs/msg/Detection2DArray": Detection2DArray,
}


class TopicFrames:
    """The images of a topic as a source. One message waits at most: a newer one takes its place."""

    live = True
    num_frames = None
    fps = 30.0

    def __init__(self, warn: Any) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(1)
        self._warn = warn
        self._count = -1

    def put(self, message: Any) -> None:
        """From the subscription; None ends the frames."""
        self._count += message is not None
        while True:
            try:
                self._waiting.put_nowait((self._count, message))
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()

    def __iter__(self) -> Iterator[Frame]:
        while (entry := self._waiting.get())[1] is not None:
            index, message = entry
            try:
                pixels = decode_image(message)
            except Sam2EdgeError as error:
                self._warn(f"image left out: {error}")
                continue
            yield Frame(index, pixels, stamp_ns(message))

    def close(self) -> None:
        self.put(None)


class FollowNode(LifecycleNode):
    """`configure` loads the model, `activate` begins to follow, `deactivate` forgets the objects."""

    def __init__(self) -> None:
        super().__init__("sam2edge")
        for name, default in (
            ("image", "/camera/image_raw"),
            ("compressed", False),
            ("model", "auto"),
            ("backend", "auto"),
            ("image_size", 0),
            ("overlay", True),
            ("max_objects", 16),
        ):
            self.declare_parameter(name, default)
        self._model: Any = None
        self._session: Session | None = None
        self._source: TopicFrames | None = None
        self._subscription: Any = None
        self._frame_id = "camera"
        self._stamps: OrderedDict[int, int] = OrderedDict()
        self._stamps_lock = threading.Lock()
        self._convert = Converter(_TYPES, lambda pixels: array.array("B", np.ascontiguousarray(pixels).tobytes()))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def on_configure(self, state: Any) -> Any:
        try:
            self._model = AutoModel.from_pretrained(
                self._value("model"),
                backend=self._value("backend"),
                image_size=self._value("image_size") or None,
                tracking=True,
            )
        except Sam2EdgeError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._masks = self.create_lifecycle_publisher(Image, "~/masks", qos_profile_sensor_data)
        self._boxes = self.create_lifecycle_publisher(Detection2DArray, "~/boxes", qos_profile_sensor_data)
        self._overlay = self.create_lifecycle_publisher(Image, "~/overlay", qos_profile_sensor_data)
        self._services = [
            self.create_service(Prompt, "~/prompt", self.prompt),
            self.create_service(Remove, "~/remove", self.remove),
        ]
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> Any:
        self._source = TopicFrames(self.get_logger().warning)
        frames = LatestFrames(self._source)
        session = Session(self._model, frames, None, self.publish, max_objects=self._value("max_objects"))
        session.start()
        self._session = session
        kind = CompressedImage if self._value("compressed") else Image
        self._subscription = self.create_subscription(kind, self._value("image"), self.take, qos_profile_sensor_data)
        return super().on_activate(state)

    def on_deactivate(self, state: Any) -> Any:
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> Any:
        self._stop()
        for publisher in (self._masks, self._boxes, self._overlay):
            self.destroy_publisher(publisher)
        for service in self._services:
            self.destroy_service(service)
        self._model = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> Any:
        self._stop()
        return TransitionCallbackReturn.SUCCESS

    def take(self, message: Any) -> None:
        """An image came."""
        self._frame_id = message.header.frame_id
        if self._source is not None:
            self._source.put(message)

    def publish(self, step: Step) -> None:
        """Publishes what is known of a frame; in the session's thread."""
        with self._stamps_lock:
            self._stamps[step.frame.time_ns] = step.frame.index
            while len(self._stamps) > _KEPT_STAMPS:
                self._stamps.popitem(last=False)
        header = self._convert.header(step.frame.time_ns, self._frame_id)
        self._masks.publish(self._convert.masks(step, header))
        self._boxes.publish(self._convert.boxes(step, header))
        if self._value("overlay"):
            self._overlay.publish(self._convert.overlay(step, header))

    def prompt(self, request: Any, response: Any) -> Any:
        """Service ~/prompt."""

        def find_index(stamp: int) -> int | None:
            with self._stamps_lock:
                return self._stamps.get(stamp)

        def run(session: Session) -> None:
            response.object_id = self._wait(session.prompt(read_prompt(request, find_index)))

        return self._answer(response, run)

    def remove(self, request: Any, response: Any) -> Any:
        """Service ~/remove."""
        return self._answer(
            response,
            lambda session: self._wait(session.remove(request.object_id) if request.object_id else session.reset()),
        )

    def _wait(self, future: Future[Any]) -> Any:
        return future.result(ANSWER_SECONDS)

    def _answer(self, response: Any, run: Any) -> Any:
        try:
            if self._session is None:
                raise ValueError("the node is not active")
            run(self._session)
            response.success, response.message = True, ""
        except Exception as error:  # a service answers, whatever happens
            response.success, response.message = False, str(error) or type(error).__name__
        return response

    def _stop(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._source is not None:
            self._source.close()
        if self._session is not None:
            self._session.stop()
        self._session = self._source = None
        with self._stamps_lock:
            self._stamps.clear()


def main(arguments: Any = None) -> None:
    rclpy.init(args=arguments)
    node = FollowNode()
    executor = MultiThreadedExecutor()
    executor.add_node(node)
    try:
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
            executor.spin()
    finally:
        node.on_shutdown(None)
        node.destroy_node()
        rclpy.try_shutdown()
