"""Own the search for the flat surfaces behind everything: what things stand on, and walls."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 1000
_TRIALS = 100
_REFITS = 3
_WALL_COSINE = 0.3  # a wall meets what things stand on at a right angle, to within 17 degrees


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """Hold a plane in the camera's optical frame.

    Attributes:
        normal: (3,) unit vector that points to the camera's side.
        offset_m: Distance of the camera from the plane, m.
    """

    normal: NDArray[np.float32]
    offset_m: float

    def height(self, xyz: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how far points (..., 3) m lie on the camera's side of the plane, m."""
        return xyz @ self.normal + np.float32(self.offset_m)


def background_planes(
    xyz: NDArray[np.float32],
    *,
    tolerance_m: float,
    min_share: float,
    max_behind_share: float,
    max_planes: int,
    seed: int = 0,
) -> list[Plane]:
    """Find the largest plane that most else lies in front of, then walls that meet it.

    The top of a large box is a plane too, but what stands around it lies behind: that tells a
    surface things stand on (or before) from a surface of a thing.

    Args:
        xyz: (n, 3) m in the camera's optical frame, all finite.
        tolerance_m: Distance of a point that still belongs to a plane.
        min_share: Share of all points a plane must have.
        max_behind_share: Share of all points that may lie behind it.
        max_planes: Largest number of planes.
        seed: Of the search; equal seeds give equal results.
    """
    if len(xyz) < 3:
        return []
    rng = np.random.default_rng(seed)
    sample = xyz[rng.integers(len(xyz), size=_SAMPLE)]
    rest = sample
    planes: list[Plane] = []
    while len(planes) < max_planes and len(rest) > min_share * _SAMPLE:
        candidates = _candidates(rest, rng)
        if planes:
            slant = np.abs(candidates[:, :3] @ planes[0].normal)
            candidates = candidates[slant < _WALL_COSINE]
        plane = _best(candidates, rest, sample, tolerance_m, max_behind_share)
        if plane is None:
            break
        height = plane.height(rest)
        if np.count_nonzero(np.abs(height) < tolerance_m) < min_share * _SAMPLE:
            break
        planes.append(plane)
        rest = rest[height > tolerance_m]
    return planes


def _candidates(xyz: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the planes (k, 4), normal and offset, through random triples of points."""
    corners = xyz[rng.integers(len(xyz), size=(_TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    usable = length > 1e-9
    normals = normals[usable] / length[usable, None]
    offsets = -np.einsum("ki,ki->k", normals, corners[usable, 0])
    planes = np.concatenate([normals, offsets[:, None]], axis=1)
    return planes * np.where(offsets < 0.0, np.float32(-1.0), np.float32(1.0))[:, None]


def _best(
    candidates: NDArray[np.float32],
    rest: NDArray[np.float32],
    everything: NDArray[np.float32],
    tolerance_m: float,
    max_behind_share: float,
) -> Plane | None:
    """Return the plane with most points of the rest, refined by least squares; None if none."""
    if len(candidates) == 0:
        return None
    normals, offsets = candidates[:, :3], candidates[:, 3]
    votes = np.count_nonzero(np.abs(rest @ normals.T + offsets) < tolerance_m, axis=0)
    behind = np.count_nonzero(everything @ normals.T + offsets < -tolerance_m, axis=0)
    votes[behind > max_behind_share * len(everything)] = 0
    best = int(np.argmax(votes))
    if votes[best] < 3:
        return None
    plane = Plane(normal=normals[best], offset_m=float(offsets[best]))
    for _ in range(_REFITS):
        plane = _least_squares(rest[np.abs(plane.height(rest)) < tolerance_m])
    return plane


def _least_squares(xyz: NDArray[np.float32]) -> Plane:
    """Fit a plane to (n, 3) points by least squares of the distances."""
    centre = xyz.mean(axis=0)
    normal = np.linalg.eigh(np.cov((xyz - centre).T))[1][:, 0].astype(np.float32)
    offset = -float(normal @ centre)
    sign = np.float32(-1.0 if offset < 0.0 else 1.0)
    return Plane(normal=normal * sign, offset_m=offset * float(sign))
