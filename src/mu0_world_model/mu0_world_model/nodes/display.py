"""Publish traces for people: markers and the overlay picture, only while somebody looks."""

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from mu0_core.ros.interfaces import create_publisher
from mu0_core.ros.messages import image_from_array, stamp_from_ns
from mu0_core.traces import Keypoints, Traces
from mu0_world_model import drawing

_FIRST_WIDTH_M, _OTHERS_WIDTH_M, _DOT_M = 0.004, 0.002, 0.01
_DOTS = ("keypoints", 0)

_Key = tuple[str, int]


class Display:
    """Own the two publishers, and know which markers viewers still show.

    Args:
        node: The node that publishes.
    """

    def __init__(self, node: Node) -> None:
        self._markers = create_publisher(node, "mu0/markers")
        self._overlay = create_publisher(node, "mu0/overlay")
        self._shown: set[_Key] | None = None

    def show(self, rgb: NDArray[np.uint8], keypoints: Keypoints, traces: Traces) -> None:
        """Draw what somebody subscribes to."""
        if self._markers.get_subscription_count():
            self._markers.publish(self._marker_array(traces))
        else:
            self._shown = None  # whoever comes back may still show anything
        if self._overlay.get_subscription_count():
            picture = drawing.overlay(rgb, traces, keypoints.camera)
            header = _header(traces)
            self._overlay.publish(
                image_from_array(picture, "rgb8", stamp=header.stamp, frame_id=header.frame_id)
            )

    def clear(self) -> None:
        """Take all markers away."""
        self._shown = None
        if self._markers.get_subscription_count():
            self._markers.publish(MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))

    def _marker_array(self, traces: Traces) -> MarkerArray:
        """Make the markers of the traces, and take away those of keypoints that are gone.

        A marker keeps its id, so that viewers change it in place of making a new one.
        """
        header = _header(traces)
        markers = [*_dots(header, traces), *(_line(header, s) for s in drawing.strips(traces))]
        now = {(marker.ns, marker.id) for marker in markers}
        if self._shown is None:
            gone = [Marker(header=header, action=Marker.DELETEALL)]
        else:
            gone = [
                Marker(header=header, ns=ns, id=number, action=Marker.DELETE)
                for ns, number in sorted(self._shown - now)
            ]
        self._shown = now
        return MarkerArray(markers=[*gone, *markers])


def _header(traces: Traces) -> Header:
    return Header(stamp=stamp_from_ns(traces.stamp_ns), frame_id=traces.frame_id)


def _dots(header: Header, traces: Traces) -> list[Marker]:
    """Make one marker of all keypoints; none without, since viewers complain of empty ones."""
    xyz, rgba = drawing.dots(traces)
    if not len(xyz):
        return []
    return [_marker(header, _DOTS, Marker.SPHERE_LIST, (_DOT_M,) * 3, xyz, rgba)]


def _line(header: Header, strip: drawing.Strip) -> Marker:
    key = (f"sample {strip.sample}", strip.id & 0x7FFFFFFF)  # ids of markers are signed
    width_m = _OTHERS_WIDTH_M if strip.sample else _FIRST_WIDTH_M
    return _marker(header, key, Marker.LINE_STRIP, (width_m, 0.0, 0.0), strip.xyz, strip.rgba)


def _marker(
    header: Header,
    key: _Key,
    kind: int,
    scale: tuple[float, float, float],
    xyz: NDArray[np.float32],
    rgba: NDArray[np.float32],
) -> Marker:
    """Make a marker of coloured points (p, 3) m and (p, 4) in [0, 1]."""
    marker = Marker(header=header, ns=key[0], id=key[1], type=kind, action=Marker.ADD)
    marker.scale.x, marker.scale.y, marker.scale.z = scale
    marker.pose.orientation.w = 1.0
    marker.color.a = float(rgba[0, 3])  # RViz blends no points unless the marker is transparent
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in xyz.tolist()]
    marker.colors = [ColorRGBA(r=r, g=g, b=b, a=a) for r, g, b, a in rgba.tolist()]
    return marker
