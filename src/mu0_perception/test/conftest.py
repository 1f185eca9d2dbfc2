"""Synthetic pictures with exact depth: a textured table, textured boxes, any camera pose."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.se3 import inverse, make_transform, transform_points
from mu0_perception.frame import RgbdFrame


@dataclass
class Box:
    size_m: np.ndarray
    T_world_box: np.ndarray
    colour: tuple[float, float, float]


@dataclass
class Scene:
    """A table at world z = 0 and boxes on it, ray-cast."""

    camera: Camera
    T_world_camera: np.ndarray
    boxes: list[Box] = field(default_factory=list)
    table_colour: tuple[float, float, float] = (150.0, 150.0, 140.0)

    def frame(self, stamp_ns, *, depth_noise_m=0.0, seed=0, **details):
        """Render; other details go into the frame."""
        rgb, depth = self._render()
        if depth_noise_m:
            noise = np.random.default_rng(seed).normal(0.0, depth_noise_m, depth.shape)
            depth = depth + noise.astype(np.float32)
        return RgbdFrame(
            stamp_ns=stamp_ns,
            frame_id="camera_color_optical_frame",
            rgb=rgb,
            depth_m=depth,
            camera=self.camera,
            **details,
        )

    def _render(self):
        camera, T = self.camera, self.T_world_camera
        v, u = np.mgrid[: camera.height, : camera.width].astype(np.float64)
        rays = camera.unproject(np.stack([u, v, np.ones_like(u)], axis=-1))
        depth = np.full(u.shape, np.inf)
        rgb = np.zeros((*u.shape, 3))
        origin, directions = T[:3, 3], rays @ T[:3, :3].T
        with np.errstate(divide="ignore", invalid="ignore"):
            z = -origin[2] / directions[..., 2]
        hit = (z > 0.0) & (z < 5.0)
        depth[hit] = z[hit]
        points = origin + directions[hit] * z[hit][:, None]
        rgb[hit] = np.array(self.table_colour) * _texture(points, 30.0, 0.15)
        for box in self.boxes:
            self._draw(box, rays, depth, rgb)
        depth = np.where(np.isfinite(depth), depth, np.nan).astype(np.float32)
        return np.clip(rgb, 0, 255).astype(np.uint8), depth

    def _draw(self, box, rays, depth, rgb):
        T_box_camera = inverse(box.T_world_box) @ self.T_world_camera
        origin, directions = T_box_camera[:3, 3], rays @ T_box_camera[:3, :3].T
        half = np.asarray(box.size_m) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            near = (-half - origin) / directions
            far = (half - origin) / directions
        enter = np.minimum(near, far).max(axis=-1)
        leave = np.maximum(near, far).min(axis=-1)
        hit = (enter < leave) & (enter > 0.0) & (enter < depth)
        depth[hit] = enter[hit]
        local = origin + directions[hit] * enter[hit][:, None]
        rgb[hit] = np.array(box.colour) * _texture(local, 150.0, 0.35)


def _texture(xyz, frequency, contrast):
    x, y, z = (frequency * xyz).T
    wave = np.sin(x + 1.7 * np.sin(0.61 * y)) + np.sin(1.3 * y + np.sin(0.73 * z + 0.37 * x))
    wave += np.sin(0.9 * z + 1.1 * np.sin(0.47 * x))
    return (1.0 + contrast * wave / 3.0)[:, None]


def looking_down(distance_m, angle_rad):
    """T_world_camera of a camera that looks at the origin, angle_rad above the table."""
    z = np.array([0.0, np.cos(angle_rad), -np.sin(angle_rad)])
    x = np.array([1.0, 0.0, 0.0])
    return make_transform(np.column_stack([x, np.cross(z, x), z]), -distance_m * z)


@pytest.fixture
def box():
    """Make a box: centre (3,), edge m, colour."""

    def make(centre, size=(0.06, 0.06, 0.06), colour=(200.0, 60.0, 50.0)):
        return Box(np.array(size), make_transform(np.eye(3), centre), colour)

    return make


@pytest.fixture
def scene(box):
    """A table with a red and a blue box, 0.8 m from a 320x240 camera."""
    return Scene(
        camera=Camera.from_fovy(0.8, 320, 240),
        T_world_camera=looking_down(0.8, 0.9),
        boxes=[box((-0.1, 0.0, 0.03)), box((0.12, 0.05, 0.03), colour=(50.0, 80.0, 210.0))],
    )


@pytest.fixture
def on_box():
    """Say which points of the world (n, 3) lie on a box, to within a tolerance."""

    def test(box, xyz_world, tolerance_m=0.004):
        local = np.abs(transform_points(inverse(box.T_world_box), xyz_world))
        outside = local - np.asarray(box.size_m) / 2
        return np.abs(outside.max(axis=-1)) < tolerance_m

    return test


@pytest.fixture(scope="session")
def real_frame():
    """The recorded table-top frame and its workspace mask, or skip."""
    root = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
    folder = root.parent / "shared" / "real" / "tabletop_frame"
    if not folder.is_dir():
        pytest.skip(f"the recorded table-top frame is not at {folder}")
    meta = json.loads((folder / "meta.json").read_text())
    bgr = cv2.imread(str(folder / "color.png"))
    raw = cv2.imread(str(folder / "depth.png"), cv2.IMREAD_UNCHANGED)
    depth = raw.astype(np.float32) / np.float32(meta["depth_units_per_metre"])
    depth[raw == 0] = np.nan
    height, width = raw.shape
    frame = RgbdFrame(
        stamp_ns=10**9,
        frame_id="camera_color_optical_frame",
        rgb=np.ascontiguousarray(bgr[..., ::-1]),
        depth_m=depth,
        camera=Camera(np.array(meta["intrinsics"]), width, height),
    )
    workspace = cv2.imread(str(folder / "workspace_mask.png"), cv2.IMREAD_UNCHANGED) > 0
    return frame, workspace
