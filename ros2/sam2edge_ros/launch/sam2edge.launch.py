"""ros2 launch sam2edge_ros sam2edge.launch.py image:=/camera/image_raw model:=auto"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument("image", default_value="/camera/image_raw", description="Topic of images"),
        DeclareLaunchArgument("compressed", default_value="false", description="The topic has CompressedImage"),
        DeclareLaunchArgument("model", default_value="auto", description="See sam2edge models"),
        DeclareLaunchArgument("overlay", default_value="true", description="Publish the picture with masks drawn"),
    ]
    node = LifecycleNode(
        package="sam2edge_ros",
        executable="follow",
        name="sam2edge",
        namespace="",
        output="screen",
        parameters=[
            {
                "image": LaunchConfiguration("image"),
                "compressed": LaunchConfiguration("compressed"),
                "model": LaunchConfiguration("model"),
                "overlay": LaunchConfiguration("overlay"),
            }
        ],
    )

    def change(transition):
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[change(Transition.TRANSITION_ACTIVATE)],
        )
    )
    return LaunchDescription([*arguments, activate, node, change(Transition.TRANSITION_CONFIGURE)])
