"""ROS shells around the library modules of mu0_perception."""
