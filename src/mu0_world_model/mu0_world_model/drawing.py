"""Own how traces are shown: lines and dots for a 3D viewer, and a picture with traces drawn in.

All of it as arrays. A trace is coloured along its path, from blue where it starts to yellow at the
model's horizon. The first sample is drawn strong, the others thin and pale around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.bspline import render
from mu0_core.camera import Camera
from mu0_core.errors import ShapeError
from mu0_core.traces import KeypointSource, Traces
from mu0_world_model.config import DONE_THRESHOLD

MOVING_M = 0.01
"""A predicted path shorter than this is drawn as standing still, m."""
MOVING_SHARE = 0.01
"""Likewise where depth is unknown, of the width of the picture."""
OTHERS_ALPHA = 0.3
"""Opacity of all samples but the first."""

_RAMP = np.array(
    [[38, 70, 255], [0, 190, 255], [60, 230, 130], [255, 225, 50]], np.float64
)  # start to horizon; bright enough for dark and light backgrounds
_ROBOT = (255, 255, 255)
_LONE = (170, 170, 170)
_OVERLAY_WIDTH = 640
_SUBPIXEL_BITS = 4
_LARGEST_PX = 1e5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strip:
    """Hold one line to draw.

    Attributes:
        sample: Index of the sample.
        id: Of the keypoint.
        xyz: (p, 3) float32 m in the traces' frame, from where the keypoint is now; p > 1.
        rgba: (p, 4) float32 in [0, 1].
    """

    sample: int
    id: int
    xyz: NDArray[np.float32]
    rgba: NDArray[np.float32]


def path_colours(points: int) -> NDArray[np.uint8]:
    """Return the colours (points, 3) RGB along a path, the first one being now."""
    share = np.linspace(0.0, len(_RAMP) - 1.0, points)
    channels = [np.interp(share, np.arange(len(_RAMP)), _RAMP[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)


def keypoint_colours(
    cluster_ids: NDArray[np.int32], source: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return a colour (n, 3) RGB for each keypoint: its entity's, white on the robot."""
    hues = (cluster_ids.astype(np.int64) * 67 + 150) % 180  # neighbours differ, all 180 hues occur
    hsv = np.stack([hues, np.full_like(hues, 150), np.full_like(hues, 255)], axis=1)
    if not len(hsv):
        return np.zeros((0, 3), np.uint8)
    colours = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]
    colours[cluster_ids < 0] = _LONE
    colours[source == KeypointSource.ROBOT] = _ROBOT
    return colours


def shown_lengths(traces: Traces) -> NDArray[np.int64]:
    """Count the steps of each trace (s, n) that are drawn.

    A trace ends at the first step that is probably over or has no position, and one that hardly
    moves has none.
    """
    return _lengths(_from_now(traces), traces.valid_prob, MOVING_M)


def strips(traces: Traces) -> list[Strip]:
    """Return the lines of all samples and keypoints that move, the first sample last, on top."""
    path = _from_now(traces)
    rgba = np.ones((traces.horizon + 1, 4), np.float32)
    rgba[:, :3] = path_colours(traces.horizon + 1) / np.float32(255.0)
    pale = rgba * np.array([1.0, 1.0, 1.0, OTHERS_ALPHA], np.float32)
    lengths = shown_lengths(traces)
    return [
        Strip(
            sample=sample,
            id=int(traces.ids[point]),
            xyz=path[sample, point, : lengths[sample, point] + 1],
            rgba=(pale if sample else rgba)[: lengths[sample, point] + 1],
        )
        for sample in reversed(range(traces.s))
        for point in np.flatnonzero(lengths[sample])
    ]


def dots(traces: Traces) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where the keypoints with a known position are now.

    Returns:
        (k, 3) float32 m in the traces' frame, and (k, 4) float32 RGBA in [0, 1].
    """
    known = np.isfinite(traces.current_xyz).all(-1)
    rgb = keypoint_colours(traces.cluster_ids[known], traces.source[known])
    rgba = np.ones((len(rgb), 4), np.float32)
    rgba[:, :3] = rgb / np.float32(255.0)
    return traces.current_xyz[known], rgba


def overlay(
    rgb: NDArray[np.uint8],
    traces: Traces,
    camera: Camera,
    uv: NDArray[np.floating] | None = None,
) -> NDArray[np.uint8]:
    """Draw traces, keypoints and the instruction into a picture.

    Args:
        rgb: (H, W, 3) uint8, the picture that was predicted from.
        traces: In the frame of the camera.
        camera: Of the picture.
        uv: (n, 2) px keypoints in the picture; with them, those without depth are drawn too.

    Returns:
        (f H, f W, 3) uint8, enlarged by a whole factor f to at least 640 px across, so that lines
        and words can be made out.

    Raises:
        ShapeError: Picture and camera differ in size.
    """
    if rgb.shape != (camera.height, camera.width, 3) or rgb.dtype != np.uint8:
        raise ShapeError(
            f"overlay: expected a picture uint8 {(camera.height, camera.width, 3)} as the camera "
            f"says, got {rgb.dtype} {rgb.shape}"
        )
    factor = max(1, -(-_OVERLAY_WIDTH // camera.width))
    size = (camera.width * factor, camera.height * factor)
    picture = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    larger = camera.resized(*size)
    lengths = shown_lengths(traces)
    paths = _pixels(larger, _from_now(traces))
    dots_uv = _pixels(larger, traces.current_xyz)
    if uv is not None:
        flat = ~np.isfinite(traces.current_xyz).all(-1)
        flat_uv = _flat_paths(traces, uv)[:, flat]
        least_px = MOVING_SHARE * camera.width
        lengths[:, flat] = _lengths(flat_uv, traces.valid_prob[:, flat], least_px)
        paths[:, flat] = (flat_uv + 0.5) * factor - 0.5
        dots_uv[flat] = (np.asarray(uv)[flat] + 0.5) * factor - 0.5
    if traces.s > 1:
        others = picture.copy()
        _draw_paths(others, paths[1:], lengths[1:], thickness=1)
        shares = (2 * OTHERS_ALPHA, 1 - 2 * OTHERS_ALPHA)
        picture = cv2.addWeighted(others, shares[0], picture, shares[1], 0.0).astype(np.uint8)
    if traces.s:
        _draw_paths(picture, paths[:1], lengths[:1], thickness=2)
    _draw_dots(picture, dots_uv, traces)
    _write(picture, traces.instruction or "(no instruction)")
    return picture


def _from_now(traces: Traces) -> NDArray[np.float32]:
    """Put the present position before each trace: (s, n, horizon + 1, 3) m."""
    now = np.broadcast_to(traces.current_xyz, (traces.s, traces.n, 3))
    return np.concatenate([now[:, :, None], traces.xyz], axis=2)


def _flat_paths(traces: Traces, uv: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the paths in the picture, which need no depth: (s, n, horizon + 1, 2) px."""
    now = np.broadcast_to(uv, (traces.s, traces.n, 2))
    return np.concatenate(
        [now[:, :, None], render(traces.control_uvz[..., :2], traces.horizon)], 2
    )


def _lengths(
    paths: NDArray[np.floating], valid_prob: NDArray[np.float32], least: float
) -> NDArray[np.int64]:
    """Count the steps (s, n) of paths (s, n, horizon + 1, c) that are drawn."""
    known = (valid_prob >= DONE_THRESHOLD) & np.isfinite(paths[:, :, 1:]).all(-1)
    going_on = np.logical_and.accumulate(known, axis=2)
    steps = np.diff(paths, axis=2)
    travelled = np.linalg.norm(np.where(going_on[..., None], steps, 0.0), axis=-1).sum(axis=2)
    # An unknown start makes travelled NaN.
    return np.where(travelled >= least, going_on.sum(axis=2), 0)


def _pixels(camera: Camera, xyz: NDArray[np.float32]) -> NDArray[np.float64]:
    """Project points (..., 3) to uv (..., 2) px, NaN where that is impossible or far outside."""
    uvz = np.array(camera.project(xyz))
    with np.errstate(invalid="ignore"):
        seen = (uvz[..., 2] > 0.0) & (np.abs(uvz[..., :2]) < _LARGEST_PX).all(-1)
    return np.where(seen[..., None], uvz[..., :2], np.nan)


def _draw_paths(
    picture: NDArray[np.uint8],
    paths: NDArray[np.float64],
    lengths: NDArray[np.int64],
    *,
    thickness: int,
) -> None:
    """Draw paths (s, n, p, 2) px into a picture, each up to its length; one colour a step."""
    colours = path_colours(paths.shape[2])
    for step, colour in enumerate(colours[1:]):
        pieces = paths[lengths > step, step : step + 2]
        pieces = pieces[np.isfinite(pieces).all((1, 2))]
        cv2.polylines(
            picture,
            list(_subpixels(pieces)),
            isClosed=False,
            color=_scalar(colour),
            thickness=thickness,
            lineType=cv2.LINE_AA,
            shift=_SUBPIXEL_BITS,
        )


def _draw_dots(picture: NDArray[np.uint8], uv: NDArray[np.float64], traces: Traces) -> None:
    """Draw keypoints (n, 2) px with a dark rim into a picture."""
    colours = keypoint_colours(traces.cluster_ids, traces.source)
    for row in np.flatnonzero(np.isfinite(uv).all(-1)):
        centre = tuple(_subpixels(uv[row]).tolist())
        for radius, colour in ((4, (0, 0, 0)), (3, _scalar(colours[row]))):
            cv2.circle(
                picture,
                centre,
                radius << _SUBPIXEL_BITS,
                colour,
                thickness=cv2.FILLED,
                lineType=cv2.LINE_AA,
                shift=_SUBPIXEL_BITS,
            )


def _write(picture: NDArray[np.uint8], text: str) -> None:
    """Write a line of text onto a dark bar at the foot of a picture, small enough to fit."""
    height, width = picture.shape[:2]
    font, bar = cv2.FONT_HERSHEY_SIMPLEX, 30
    (length, _), _ = cv2.getTextSize(text, font, 0.7, 1)
    size = 0.7 * min(1.0, (width - 20) / max(length, 1))
    picture[height - bar :] //= 3
    origin = (10, height - 9)
    cv2.putText(picture, text, origin, font, size, (255, 255, 255), 1, cv2.LINE_AA)


def _subpixels(uv: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(uv * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _scalar(colour: NDArray[np.uint8]) -> Sequence[int]:
    """Return a colour as OpenCV's drawing functions take it."""
    return [int(channel) for channel in colour]
