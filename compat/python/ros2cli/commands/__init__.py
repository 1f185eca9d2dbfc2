"""One module per `ros2` command: `add_arguments(parser)` and `main(args) -> int`."""
