"""What nodes share: messages <-> arrays, lifecycle, parameters and the table of interfaces.

Only nodes import this sub-package; the rest of mu0_core knows no ROS.
"""
