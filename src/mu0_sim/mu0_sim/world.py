"""Own the physics: the MuJoCo model of a scene and the torque loop of its robot."""

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ShapeError
from mu0_core.se3 import inverse, make_transform
from mu0_sim.mujoco_gl import mujoco
from mu0_sim.robot_model import (
    BASE_LINK,
    assets_folder,
    driven_joints,
    load_mjcf,
    robot_model,
)
from mu0_sim.robots import RobotSpec
from mu0_sim.tasks import TABLE_HEIGHT_M, Cube, Look, Scene

DT_S = 0.002
"""Duration of one physics step."""

CAMERA = "camera"
FOVY_RAD = np.deg2rad(42.0)
"""Vertical field of view of the camera."""

NEAR_M, FAR_M = 0.05, 10.0
"""Depth range of the renderer along the optical axis, m."""

_TABLE_HALF_M = (0.4, 0.4, 0.025)
_CUBE_DENSITY = 700.0  # kg/m^3, hard wood

_STIFFNESS = 900.0  # 1/s^2: errors decay critically damped at 30 rad/s
_DAMPING = 60.0  # 1/s


class World:
    """Hold a scene's physics; positions are those of the current instant.

    Attributes:
        robot: The robot in it.
        scene: The scene it was built from.
        model: MuJoCo's model.
        data: MuJoCo's state; data.time counts from 0.
    """

    def __init__(self, robot: RobotSpec, scene: Scene, *, width: int, height: int) -> None:
        """Build the scene with the arm at rest at home and the gripper open.

        Args:
            robot: The robot that stands at the table.
            scene: What else there is.
            width: Largest width of pictures to be rendered, px.
            height: Largest height of pictures to be rendered, px.
        """
        self.robot = robot
        self.scene = scene
        self.model = _world_model(robot, scene, width, height).compile()
        self.data = mujoco.MjData(self.model)
        self._arm_qpos, self._arm_dof = _addresses(self.model, robot.arm_joints)
        self._joint_qpos, self._joint_dof = _addresses(self.model, robot.joint_names)
        self._arm_motors = [self.model.actuator(name).id for name in robot.arm_joints]
        self._servos = [(self.model.actuator(n).id, n) for n in driven_joints(robot)]
        self._effort_limits = robot.effort_limits
        self._acceleration = np.zeros(self.model.nv)
        self._inertial = np.zeros(self.model.nv)
        gripper = robot.gripper.joint_positions(robot.gripper.position_open)
        self.data.qpos[self._joint_qpos] = [*robot.home_q, *gripper.values()]
        mujoco.mj_forward(self.model, self.data)

    def step(self, q: NDArray[np.float64], qd: NDArray[np.float64], gripper: float) -> None:
        """Advance by DT_S under computed torque: the arm follows q, qd as a decoupled oscillator.

        Args:
            q: (j,) desired arm positions, rad.
            qd: (j,) desired arm velocities, rad/s.
            gripper: Desired position of the gripper's driving joint, rad or m.

        Raises:
            ShapeError: Wrong number of joints.
        """
        if np.shape(q) != self.robot.home_q.shape or np.shape(qd) != self.robot.home_q.shape:
            raise ShapeError(
                f"joint command of {self.robot.name}: expected q and qd of shape "
                f"{self.robot.home_q.shape}, got {np.shape(q)} and {np.shape(qd)}"
            )
        model, data, arm = self.model, self.data, self._arm_dof
        mujoco.mj_step1(model, data)
        self._acceleration[arm] = _STIFFNESS * (q - data.qpos[self._arm_qpos]) + _DAMPING * (
            qd - data.qvel[arm]
        )
        mujoco.mj_mulM(model, data, self._inertial, self._acceleration)
        torque = self._inertial[arm] + data.qfrc_bias[arm] - data.qfrc_passive[arm]
        data.ctrl[self._arm_motors] = np.clip(torque, -self._effort_limits, self._effort_limits)
        positions = self.robot.gripper.joint_positions(gripper)
        for actuator, joint in self._servos:
            data.ctrl[actuator] = positions[joint]
        mujoco.mj_step2(model, data)

    def joints(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return positions, velocities and actuator efforts in the order of robot.joint_names."""
        data, dof = self.data, self._joint_dof
        return data.qpos[self._joint_qpos], data.qvel[dof], data.qfrc_actuator[dof]

    def body_pose(self, name: str) -> NDArray[np.float64]:
        """Return the (4, 4) pose of a link, a cube or the table in world."""
        body = self.data.body(name)
        return make_transform(body.xmat.reshape(3, 3), body.xpos)

    def links(self) -> list[str]:
        """Name the robot's links but base_link, parents before children."""
        base = self.model.body(BASE_LINK).id
        found = {base}
        for body in range(base + 1, self.model.nbody):
            if self.model.body_parentid[body] in found:
                found.add(body)
        return [self.model.body(body).name for body in sorted(found - {base})]

    def link_transforms(self) -> dict[str, tuple[str, NDArray[np.float64]]]:
        """Return {link: (parent link, T_parent_link)} of all links but base_link."""
        transforms: dict[str, tuple[str, NDArray[np.float64]]] = {}
        for link in self.links():
            parent = str(self.model.body(int(self.model.body(link).parentid[0])).name)
            transforms[link] = (parent, inverse(self.body_pose(parent)) @ self.body_pose(link))
        return transforms

    def camera_pose(self) -> NDArray[np.float64]:
        """Return the (4, 4) pose of the camera's optical frame (REP-103) in world."""
        camera = self.data.cam(CAMERA)
        R_world_optical = camera.xmat.reshape(3, 3) * (1.0, -1.0, -1.0)  # MuJoCo: y up, z back
        return make_transform(R_world_optical, camera.xpos)

    def move_camera(self, T_world_camera: NDArray[np.float64]) -> None:
        """Put the camera's optical frame (REP-103) somewhere else in world."""
        camera = self.model.camera(CAMERA)
        R_world_camera = T_world_camera[:3, :3] * (1.0, -1.0, -1.0)
        mujoco.mju_mat2Quat(camera.quat, np.ascontiguousarray(R_world_camera).ravel())
        camera.pos[:] = T_world_camera[:3, 3]
        self.refresh()

    def body_names(self) -> tuple[str, ...]:
        """Name all bodies by their number in the model."""
        return tuple(self.model.body(i).name for i in range(self.model.nbody))

    def refresh(self) -> None:
        """Bring the poses of bodies up to the current joint positions."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)


def _addresses(
    model: mujoco.MjModel, joints: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the joints' positions and velocities stand in MuJoCo's state."""
    ids = [model.joint(name).id for name in joints]
    return model.jnt_qposadr[ids].astype(np.int64), model.jnt_dofadr[ids].astype(np.int64)


def _world_model(robot: RobotSpec, scene: Scene, width: int, height: int) -> mujoco.MjSpec:
    """Put robot, pedestal, table and cubes together."""
    spec = load_mjcf("arenas/table_arena.xml")
    for camera in spec.cameras:
        spec.delete(camera)
    _set_physics(spec)
    _set_rendering(spec, scene.look, width, height)
    _shape_table(spec, scene.look)
    for cube in scene.cubes:
        _add_cube(spec, cube)
    _add_camera(spec, scene.look)
    base = spec.worldbody.add_frame(pos=robot.T_world_base[:3, 3])
    spec.attach(load_mjcf("mounts/rethink_mount.xml"), prefix="pedestal_", suffix="", frame=base)
    spec.attach(robot_model(robot), prefix="", suffix="", frame=base)
    return spec


def _set_physics(spec: mujoco.MjSpec) -> None:
    """Choose step and contact model; the last two as robosuite does, for firm grasps."""
    spec.option.timestep = DT_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 20.0


def _set_rendering(spec: mujoco.MjSpec, look: Look, width: int, height: int) -> None:
    """Set picture size, light and depth range; no multisampling, which costs half of the time."""
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    spec.visual.quality.offsamples = 0
    spec.stat.extent = 1.0  # makes near and far metres
    spec.visual.map.znear, spec.visual.map.zfar = NEAR_M, FAR_M
    spec.visual.headlight.ambient = [look.ambient_level] * 3
    spec.visual.headlight.diffuse = [0.3] * 3
    spec.visual.headlight.specular = [0.0] * 3
    for light in spec.lights:
        light.dir, light.diffuse = look.light_direction, [look.light_level] * 3
        light.castshadow = True


def _shape_table(spec: mujoco.MjSpec, look: Look) -> None:
    """Give the table its size, place and surface, and walls and floor their tint."""
    x, y, z = _TABLE_HALF_M
    spec.body("table").pos = (0.0, 0.0, TABLE_HEIGHT_M - z)
    for name in ("table_collision", "table_visual"):
        spec.geom(name).size = _TABLE_HALF_M
    half_leg = (TABLE_HEIGHT_M - z) / 2.0
    for number, (sx, sy) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1)), start=1):
        leg = spec.geom(f"table_leg{number}_visual")
        leg.pos, leg.size = (sx * (x - 0.1), sy * (y - 0.1), -half_leg), (0.025, half_leg, 0.0)
    textures = assets_folder() / "textures"
    file = next(textures.glob(f"{look.table_texture}.*"))
    spec.texture("tex-ceramic").file = str(file)
    spec.material("table_ceramic").rgba = (*look.table_rgb, 1.0)
    for name in ("floorplane", "walls_mat"):
        spec.material(name).rgba = (*look.wall_rgb, 1.0)


def _add_cube(spec: mujoco.MjSpec, cube: Cube) -> None:
    """Set a cube on the table."""
    half = cube.edge_m / 2.0
    mass = _CUBE_DENSITY * cube.edge_m**3
    body = spec.worldbody.add_body(
        name=cube.name,
        mass=mass,
        inertia=[mass * cube.edge_m**2 / 6.0] * 3,
        ipos=(0.0, 0.0, 0.0),  # unset, it would be the body's own place
        iquat=(1.0, 0.0, 0.0, 0.0),
        explicitinertial=True,
        pos=(*cube.xy, TABLE_HEIGHT_M + half),
        quat=(np.cos(cube.yaw_rad / 2.0), 0.0, 0.0, np.sin(cube.yaw_rad / 2.0)),
    )
    body.add_freejoint()
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(half, half, half),
        rgba=(*cube.rgb, 1.0),
        condim=4,
        priority=1,  # these contact parameters, not the partner's softer ones
        friction=(1.5, 0.02, 0.0001),
        solref=(0.005, 1.0),
        solimp=(0.95, 0.99, 0.001, 0.5, 2.0),
        group=1,
    )


def _add_camera(spec: mujoco.MjSpec, look: Look) -> None:
    """Aim the camera at its target."""
    backward = np.subtract(look.camera_xyz, look.camera_target_xyz)
    backward /= np.linalg.norm(backward)
    right = np.cross((0.0, 0.0, 1.0), backward)
    right /= np.linalg.norm(right)
    up = np.cross(backward, right)
    c, s = np.cos(look.camera_roll_rad), np.sin(look.camera_roll_rad)
    R_world_camera = np.column_stack((c * right + s * up, c * up - s * right, backward))
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, R_world_camera.ravel())
    spec.worldbody.add_camera(
        name=CAMERA, pos=look.camera_xyz, quat=quat, fovy=np.rad2deg(FOVY_RAD)
    )
