"""Learned policies: action chunks from frozen world-model features, cameras and joint states."""
