"""Demonstrations: one form for what was shown to a robot, and readers of where it is kept."""
