"""ROS nodes of mu0_policy: thin shells around its library modules."""
