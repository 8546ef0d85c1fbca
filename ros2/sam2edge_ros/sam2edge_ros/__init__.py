"""sam2edge as a ROS 2 node."""
