"""Simulate robots, cameras and tasks behind the interfaces of a real robot."""
