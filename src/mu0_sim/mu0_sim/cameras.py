"""Take aligned colour and depth pictures off-screen, perfect or flawed as a real camera's are."""

import os
import threading
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import ConfigError, Mu0Error
from mu0_sim.mujoco_gl import NO_RENDERING, mujoco
from mu0_sim.robot_model import WRIST_FOVY_RAD
from mu0_sim.world import CAMERA, FAR_M, FOVY_RAD, NEAR_M, World

WRIST_SIZE = (160, 120)
"""Width and height of the wrist camera's pictures, px."""

_MAX_GEOMS = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraFrame:
    """Hold one colour and depth picture of the same instant, pixel by pixel aligned.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, m along the optical axis; NaN = none.
        camera: Intrinsics of both.
        T_world_camera: (4, 4) pose of the optical frame (REP-103) in world.
        time_s: Simulated time of the picture.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    camera: Camera
    T_world_camera: NDArray[np.float64]
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BodyFrame:
    """Hold what is truly seen at one instant.

    Attributes:
        names: Of all bodies, by number.
        index: (H, W) int32 number of the body that each pixel shows, -1 = none.
        depth_m: (H, W) float32 exact depth, m, NaN = none.
        T_world_body: (b, 4, 4) poses of all bodies.
    """

    names: tuple[str, ...]
    index: NDArray[np.int32]
    depth_m: NDArray[np.float32]
    T_world_body: NDArray[np.float64]


def scene_camera(width: int, height: int) -> Camera:
    """Return the intrinsics of the scene's camera for a picture size in pixels."""
    return Camera.from_fovy(FOVY_RAD, width, height)


def wrist_camera() -> Camera:
    """Return the intrinsics of the camera on the hand."""
    return Camera.from_fovy(WRIST_FOVY_RAD, *WRIST_SIZE)


def picture_buffer(camera: Camera) -> tuple[int, int]:
    """Return width and height, px, that pictures of the scene and of the wrist both fit into."""
    width, height = WRIST_SIZE
    return max(camera.width, width), max(camera.height, height)


class SceneRenderer:
    """Render the cameras of a world. All calls must come from the thread that made it."""

    def __init__(self, world: World, camera: Camera, *, shadows: bool) -> None:
        """Make an OpenGL context on this thread.

        Args:
            world: The scene; its model must allow pictures of this size.
            camera: Picture size.
            shadows: Whether to draw shadows and reflections; they double the time.

        Raises:
            ConfigError: There is no working off-screen OpenGL.
        """
        self._world = world
        self._camera = camera
        self._thread = threading.current_thread()
        self._gl = _make_gl_context(*picture_buffer(camera))
        self._gl.make_current()
        self._context = mujoco.MjrContext(world.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(world.model, _MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = shadows
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # collision shapes
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED

    @property
    def world(self) -> World:
        """The world that is rendered."""
        return self._world

    def render(
        self, camera: str = CAMERA, size: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Take a picture.

        Args:
            camera: Name of the camera.
            size: Width and height, px; None: the scene camera's.

        Returns:
            rgb (H, W, 3) uint8 and depth (H, W) float32 in m along the optical axis, NaN where
            nothing is within the renderer's range.

        Raises:
            Mu0Error: Called from another thread than the one that made the renderer.
        """
        return self._draw(camera, size or (self._camera.width, self._camera.height))

    def render_bodies(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Say which body each pixel shows.

        Returns:
            (H, W) number of the body in the model, -1 where there is none, and exact depth as
            `render`.

        Raises:
            Mu0Error: As `render`.
        """
        flags = (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
        for flag in flags:
            self._scene.flags[flag] = True
        try:
            colours, depth_m = self._draw(CAMERA, (self._camera.width, self._camera.height))
        finally:
            for flag in flags:
                self._scene.flags[flag] = False
        drawn = colours.astype(np.int32) @ (1, 256, 65536) - 1  # number of the shape drawn
        shapes = self._scene.geoms[: self._scene.ngeom]
        is_geom = int(mujoco.mjtObj.mjOBJ_GEOM)
        body_of = np.full(self._scene.ngeom + 1, -1, np.int32)  # the last one: nothing drawn
        for shape in shapes:
            if shape.objtype == is_geom and shape.segid >= 0:
                body_of[shape.segid] = self._world.model.geom_bodyid[shape.objid]
        return body_of[drawn], depth_m

    def _draw(
        self, camera: str, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Draw the scene as its flags say, in a picture of a width and a height."""
        self._check_thread()
        width, height = size
        self._view.fixedcamid = self._world.model.camera(camera).id
        viewport = mujoco.MjrRect(0, 0, width, height)
        rgb = np.empty((height, width, 3), np.uint8)
        raw_depth = np.empty((height, width), np.float32)
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._world.model,
            self._world.data,
            self._option,
            None,
            self._view,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(rgb, raw_depth, viewport, self._context)
        return rgb[::-1].copy(), _metric_depth(raw_depth[::-1])

    def close(self) -> None:
        """Free the OpenGL context."""
        self._check_thread()
        self._context.free()
        self._gl.free()

    def _check_thread(self) -> None:
        """Refuse calls that OpenGL would answer with a black picture."""
        current = threading.current_thread()
        if current is not self._thread:
            raise Mu0Error(
                f"rendering on thread {current.name!r}: expected thread {self._thread.name!r}, "
                "which made the OpenGL context; render and close from one thread only"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthSensor:
    """Model the flaws of a stereo depth camera such as a RealSense D435.

    The error of a range grows with its square, since disparity is what is measured; there is no
    measurement next to depth edges, in scattered blobs, nor outside the range.

    Attributes:
        sigma_at_1m_m: Standard deviation of the range error at 1 m.
        edge_jump: Relative depth step between neighbours that counts as an edge.
        edge_loss: Share of pixels at edges without measurement.
        dropout: Share of pixels at which a blob of lost pixels starts.
        range_m: Smallest and largest range with measurements.
    """

    sigma_at_1m_m: float = 0.002
    edge_jump: float = 0.03
    edge_loss: float = 0.6
    dropout: float = 0.0005
    range_m: tuple[float, float] = (0.28, 4.0)

    def degrade(
        self, depth_m: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return what the sensor would measure.

        Args:
            depth_m: (H, W) exact depth, m, NaN = none.
            rng: Source of chance.

        Returns:
            (H, W) float32 m, NaN = none; a copy.
        """
        size = depth_m.shape
        known = np.nan_to_num(depth_m, nan=FAR_M)
        noisy = known + self.sigma_at_1m_m * known**2 * rng.standard_normal(size, np.float32)
        window = np.ones((3, 3), np.uint8)
        step = cv2.dilate(known, window) - cv2.erode(known, window)
        lost = (step > self.edge_jump * known) & (rng.random(size) < self.edge_loss)
        blobs = cv2.dilate((rng.random(size) < self.dropout).astype(np.uint8), window)
        near, far = self.range_m
        lost |= (blobs > 0) | (known < near) | (known > far) | ~np.isfinite(depth_m)
        return np.where(lost, np.float32(np.nan), noisy).astype(np.float32)


def _make_gl_context(width: int, height: int) -> "mujoco.GLContext":
    """Make an off-screen OpenGL context."""
    try:
        return mujoco.GLContext(width, height)
    except Exception as error:  # PyOpenGL raises many kinds, and all mean the same here
        raise ConfigError(
            NO_RENDERING.format(backend=os.environ["MUJOCO_GL"], reason=error)
        ) from error


def _metric_depth(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn the depth buffer (1 at NEAR_M, 0 at FAR_M, linear in 1/z) into metres."""
    inverse = raw * (1.0 / NEAR_M - 1.0 / FAR_M) + 1.0 / FAR_M
    return np.where(raw > 0.0, 1.0 / inverse, np.nan).astype(np.float32)
