"""ROS shells around the world model."""
