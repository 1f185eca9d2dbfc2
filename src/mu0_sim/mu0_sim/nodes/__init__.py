"""ROS side of the simulator: the node, the expert's node, bags and rollouts."""
