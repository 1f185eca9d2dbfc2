"""The shared core of μ₀ for ROS 2: geometry, splines, traces, episodes. No ROS, no torch."""
