import subprocess
import sys
import threading

import numpy as np
import pytest

from mu0_core.errors import Mu0Error
from mu0_core.se3 import inverse, transform_points
from mu0_sim.cameras import DepthSensor, SceneRenderer, scene_camera
from mu0_sim.robots import load_robot
from mu0_sim.tasks import TASK_NAMES, make_scene
from mu0_sim.truth import Truth
from mu0_sim.world import World


@pytest.fixture(scope="module")
def view():
    """A Panda with two cubes, its picture and depth."""
    camera = scene_camera(320, 240)
    world = World(load_robot("panda"), make_scene("lift_named", 1), width=320, height=240)
    renderer = SceneRenderer(world, camera, shadows=False)
    rgb, depth_m = renderer.render()
    yield world, camera, renderer, rgb, depth_m
    renderer.close()


def test_the_picture_is_not_empty_and_depth_is_metric(view):
    _, _, _, rgb, depth_m = view
    assert rgb.shape == (240, 320, 3)
    assert rgb.dtype == np.uint8
    assert depth_m.shape == (240, 320)
    assert depth_m.dtype == np.float32
    assert rgb.std() > 10
    assert 0.3 < np.nanmin(depth_m) < np.nanmax(depth_m) < 4.0


def test_a_cubes_top_projects_onto_its_colour_at_its_depth(view):
    world, camera, _, rgb, depth_m = view
    T_camera_world = inverse(world.camera_pose())
    for cube in world.scene.cubes:
        T_world_cube = world.body_pose(cube.name)
        top = transform_points(T_world_cube, [0.0, 0.0, cube.edge_m / 2])
        u, v, z = camera.project(transform_points(T_camera_world, top))
        at = round(v), round(u)
        # One pixel is up to 0.5 px off the point; the top is seen at a slant.
        assert depth_m[at] == pytest.approx(z, abs=3e-3)
        strongest = {"red_cube": 0, "green_cube": 1}[cube.name]
        assert rgb[at].argmax() == strongest


def test_points_of_the_table_unproject_onto_its_plane(view):
    world, camera, _, _, depth_m = view
    v, u = np.mgrid[180:235:9, 60:260:20]
    uvz = np.stack([u, v, depth_m[v, u]], axis=-1)
    xyz = transform_points(world.camera_pose(), camera.unproject(uvz))
    on_table = np.abs(xyz[..., 2] - 0.8) < 2e-4
    assert on_table.mean() > 0.9


def test_half_of_a_cubes_surface_is_seen_and_none_stands_before_the_picture(view):
    world, camera, _, _, depth_m = view
    truth = Truth(world, {cube.name: np.eye(4) for cube in world.scene.cubes})
    points = truth.sample_surface(["red_cube"], 400, np.random.default_rng(0))
    xyz = points.xyz_world(truth.T_world_body)
    uvz = camera.project(transform_points(inverse(world.camera_pose()), xyz))
    u, v = np.rint(uvz[:, :2]).astype(int).T
    behind = uvz[:, 2] - depth_m[v, u]
    assert 0.35 < (np.abs(behind) < 3e-3).mean() < 0.65
    assert (behind > -3e-3).mean() > 0.95


@pytest.mark.parametrize("task", TASK_NAMES)
def test_cubes_and_gripper_are_in_the_picture_of_every_seed(task):
    camera = scene_camera(320, 240)
    world = World(load_robot("panda"), make_scene(task, 0), width=320, height=240)
    tool = world.body_pose("tool0")[:3, 3]
    for seed in range(200):
        scene = make_scene(task, seed)
        corners = [(*cube.xy, z) for cube in scene.cubes for z in (0.80, 0.85, 0.95)]
        T_camera_world = inverse(_camera_pose(scene.look))
        uvz = camera.project(transform_points(T_camera_world, [*corners, tool]))
        assert (uvz[:, :2] > 8).all(), (seed, uvz)
        assert (uvz[:, :2] < (312, 232)).all(), (seed, uvz)


def _camera_pose(look):
    """Aim an upright optical frame at the target, then roll it."""
    z = np.subtract(look.camera_target_xyz, look.camera_xyz)
    z /= np.linalg.norm(z)
    x = np.cross(z, (0.0, 0.0, 1.0))
    x /= np.linalg.norm(x)
    R = np.column_stack((x, np.cross(z, x), z))
    c, s = np.cos(look.camera_roll_rad), np.sin(look.camera_roll_rad)
    T = np.eye(4)
    T[:3, :3] = R @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    T[:3, 3] = look.camera_xyz
    return T


def test_the_camera_stands_and_looks_as_the_scene_says(view):
    world, *_ = view
    np.testing.assert_allclose(world.camera_pose(), _camera_pose(world.scene.look), atol=1e-9)


def test_rendering_from_another_thread_is_refused(view):
    _, _, renderer, _, _ = view
    caught = []

    def render():
        try:
            renderer.render()
        except Mu0Error as error:
            caught.append(str(error))

    thread = threading.Thread(target=render, name="other")
    thread.start()
    thread.join()
    assert caught
    assert "'other'" in caught[0]
    assert "'MainThread'" in caught[0]


def test_missing_opengl_says_what_to_install():
    code = (
        "import sys; sys.modules['mujoco'] = None\n"
        "try:\n    import mu0_sim.cameras\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigError")
    assert "libegl1 and libgl1-mesa-dri" in done.stdout
    assert "libosmesa6" in done.stdout


def test_range_error_grows_with_the_square_of_range():
    sensor = DepthSensor(dropout=0.0)
    rng = np.random.default_rng(0)
    for z in (0.5, 2.0):
        error = sensor.degrade(np.full((200, 200), z, np.float32), rng) - z
        assert error.std() == pytest.approx(0.002 * z**2, rel=0.05)
        assert abs(error.mean()) < 0.002 * z**2 / 20


def test_edges_ranges_and_dropouts_become_holes_and_the_input_stays():
    depth_m = np.full((120, 160), 0.8, np.float32)
    depth_m[:, 80:] = 1.2
    depth_m[:10] = 5.0
    depth_m[-10:] = 0.1
    depth_m[60, 20] = np.nan
    before = depth_m.copy()
    flawed = DepthSensor().degrade(depth_m, np.random.default_rng(0))
    assert np.array_equal(depth_m, before, equal_nan=True)
    holes = np.isnan(flawed)
    assert holes[:10].all()
    assert holes[-10:].all()
    assert holes[60, 20]
    assert 0.4 < holes[15:-15, 79:81].mean() < 0.8
    assert 0.0 < holes[15:-15, 90:].mean() < 0.02


def test_the_same_seed_gives_the_same_noise():
    depth_m = np.full((40, 40), 1.0, np.float32)
    first, second = (DepthSensor().degrade(depth_m, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second, equal_nan=True)
