"""A stand-in of rclpy and of the message packages, as far as the node goes. Messages are rosbags' classes, so that a
field of a wrong name fails.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

# vision_msgs 4.1, of Humble and later: https://github.com/ros-perception/vision_msgs
_VISION = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nstring id",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}

STORE = get_typestore(Stores.ROS2_HUMBLE)
for _name, _text in _VISION.items():
    STORE.register(get_types_from_msg(_text, f"vision_msgs/msg/{_name}"))


class Publisher:
    def __init__(self) -> None:
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        self.messages.append(message)


class LifecycleNode:
    """Keeps what the node makes, and lets a test publish and call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parameters: dict[str, Any] = {}
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, Any] = {}
        self.services: dict[str, Any] = {}
        self.logged: list[str] = []

    def declare_parameter(self, name: str, value: Any) -> None:
        self.parameters.setdefault(name, value)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self.parameters[name])

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.logged.append, error=self.logged.append)

    def create_lifecycle_publisher(self, kind: Any, topic: str, qos: Any) -> Publisher:
        assert qos == "sensor data"
        self.publishers[topic] = Publisher()
        return self.publishers[topic]

    def create_subscription(self, kind: Any, topic: str, callback: Any, qos: Any) -> str:
        assert qos == "sensor data"
        self.subscriptions[topic] = (kind, callback)
        return topic

    def create_service(self, kind: Any, name: str, callback: Any) -> str:
        self.services[name] = callback
        return name

    def destroy_subscription(self, topic: str) -> None:
        del self.subscriptions[topic]

    def destroy_publisher(self, publisher: Publisher) -> None:
        pass

    def destroy_service(self, name: str) -> None:
        del self.services[name]

    def on_activate(self, state: Any) -> str:
        return "success"

    def on_deactivate(self, state: Any) -> str:
        return "success"


def modules() -> dict[str, ModuleType]:
    """What `import rclpy` and its like find, by name."""
    made: dict[str, ModuleType] = {}

    def add(name: str, **content: Any) -> None:
        made[name] = ModuleType(name)
        vars(made[name]).update(content)

    add("rclpy", init=None, try_shutdown=None)
    add("rclpy.executors", ExternalShutdownException=KeyboardInterrupt, MultiThreadedExecutor=None)
    result = SimpleNamespace(SUCCESS="success", FAILURE="failure")
    add("rclpy.lifecycle", LifecycleNode=LifecycleNode, TransitionCallbackReturn=result)
    add("rclpy.qos", qos_profile_sensor_data="sensor data")
    for package in ("builtin_interfaces", "geometry_msgs", "sensor_msgs", "std_msgs", "vision_msgs"):
        prefix = f"{package}/msg/"
        found = {name.removeprefix(prefix): kind for name, kind in STORE.types.items() if name.startswith(prefix)}
        add(package)
        add(f"{package}.msg", **found)
    add("sam2edge_interfaces")
    add("sam2edge_interfaces.srv", Prompt=object, Remove=object)
    return made


def imports() -> dict[str, ModuleType]:
    """The modules that are not there already."""
    return {name: module for name, module in modules().items() if name not in sys.modules}
