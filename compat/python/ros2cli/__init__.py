"""Stand-in for the `ros2` command; see compat/README.md."""
