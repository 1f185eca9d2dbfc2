"""Live perception: keypoints on objects and on the gripper, tracked in 3D with their history."""
