import json
import os

import cv2
import numpy as np
import pytest

from mu0_core import se3
from mu0_core.episode import read_episode
from mu0_core.episode_validator import validate_episode
from mu0_core.errors import ConfigError
from mu0_sim import recorder
from mu0_sim.episode_recorder import EpisodeRecorder, PointBudget
from mu0_sim.nodes import record as command
from mu0_sim.recorder import Outcome, RecorderConfig, bag_path, episode_path, record, summary
from mu0_sim.simulation import Simulation

POINTS = PointBudget(per_object=12, gripper=8, arm=4, static=6)


def make_config(out, **changes):
    fields = dict(out=out, episodes=1, seed=3, width=96, height=72, rate_hz=5.0, points=POINTS)
    return RecorderConfig(**(fields | changes))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    config = make_config(tmp_path_factory.mktemp("series"), task="lift_named", arc_step=0.02)
    return config, list(record(config))


def test_episode_is_valid_and_says_what_made_it(recorded):
    config, outcomes = recorded
    assert outcomes == [Outcome(seed=3, recorded=True)]
    path = episode_path(config, 3)
    assert path.name == "panda_lift_named_000003"
    assert validate_episode(path) == []
    episode = read_episode(path)
    assert episode.images.shape[1:] == (72, 96, 3)
    assert episode.arc_step == 0.02
    assert np.allclose(np.diff(episode.stamps), 0.2)
    provenance = episode.manifest["provenance"]
    found = [provenance[key] for key in ("robot", "task", "seed")]
    assert found == ["panda", "lift_named", 3]
    assert "cube" in episode.description
    (caption,) = episode.captions
    assert (caption.start, caption.end) == (0, episode.n_frames - 1)
    assert caption.instructions == (episode.description.strip(),)
    assert caption.embodiment_type == "robot_gripper"


def test_moving_and_static_points_are_told_apart(recorded):
    config, _ = recorded
    rows = read_episode(episode_path(config, 3)).slot(0).rows
    clusters, moving = np.asarray(rows.cluster_ids), np.asarray(rows.is_moving)
    of_cluster = {int(c): set(moving[clusters == c].tolist()) for c in np.unique(clusters)}
    assert all(len(flags) == 1 for flags in of_cluster.values())
    # Two cubes, of which one moves; then the gripper's links; the table comes last.
    assert sorted(next(iter(of_cluster[c])) for c in (0, 1)) == [False, True]
    assert of_cluster[max(of_cluster)] == {False}


def test_traces_of_the_table_stand_still_and_those_of_the_cube_rise(recorded):
    config, _ = recorded
    episode = read_episode(episode_path(config, 3))
    rows = episode.slot(0).rows
    future = np.asarray(rows.raw_future_uvz, np.float64)
    valid, moving = np.asarray(rows.raw_future_valid), np.asarray(rows.is_moving)
    last = future[np.arange(len(future)), valid.sum(axis=1) - 1]
    travel_px = np.linalg.norm(last[:, :2] - future[:, 0, :2], axis=1)
    assert travel_px[~moving].max() < 0.1
    cubes = np.asarray(rows.cluster_ids) <= 1
    T_world_camera = se3.inverse(episode.T_camera_world[0])
    rise = [
        se3.transform_points(T_world_camera, episode.camera(0).unproject(uvz))[:, 2]
        for uvz in (future[cubes & moving][:, 0], last[cubes & moving])
    ]
    assert (rise[1] - rise[0]).min() > 0.05


def test_visible_points_lie_on_the_stored_depth(recorded):
    config, _ = recorded
    episode = read_episode(episode_path(config, 3))
    for slot in episode.slots():
        seen = np.asarray(slot.rows.visible) > 0.5
        uvz = np.asarray(slot.rows.future_uvz, np.float64)[seen, 0]
        u, v = np.clip(np.rint(uvz[:, :2]).astype(int), 0, [95, 71]).T
        # Stored places are float16: one at the border of two pixels may change sides.
        picture = cv2.dilate(np.asarray(episode.depth[slot.frame], np.float32), np.ones((3, 3)))
        depth = picture[v, u]
        assert (uvz[:, 2] < depth + 0.02).all()


def test_a_series_is_resumed(recorded, monkeypatch):
    config, _ = recorded
    monkeypatch.setattr(recorder, "play", lambda *_: pytest.fail("recorded again"))
    assert list(record(config)) == [Outcome(seed=3, recorded=True)]


def test_a_failed_demonstration_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "play", lambda *_: False)
    config = make_config(tmp_path)
    (outcome,) = record(config)
    assert outcome == Outcome(seed=3, recorded=False, faults=("the object was not lifted",))
    assert list(tmp_path.iterdir()) == []


def test_points_follow_the_seed_and_the_budget():
    config = make_config("unused")
    simulation = Simulation(config.simulation())
    counts = []
    for _ in range(2):
        simulation.reset()
        watcher = EpisodeRecorder(POINTS)
        watcher.on_reset(simulation)
        frame = simulation.render()
        watcher.on_camera(frame, simulation)
        simulation.step(simulation.home_command())
        watcher.on_camera(simulation.render(), simulation)
        counts.append(watcher.recording().tracks_xyz_world[0])
    simulation.close()
    np.testing.assert_array_equal(*counts)
    assert 12 < len(counts[0]) <= 12 + 8 + 4 + 6


def test_unknown_robots_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="unknown robot 'pandas'.*did you mean 'panda'"):
        make_config(tmp_path, robot="pandas")


def test_summary_counts():
    outcomes = [Outcome(seed=1, recorded=True), Outcome(seed=2, recorded=False, faults=("why",))]
    figures = summary(outcomes, started_s=0.0)
    assert (figures["episodes"], figures["successes"]) == (2, 1)
    assert figures["faults"] == {"2": ["why"]}


def test_command_line_prints_one_json_line(recorded, capsys):
    config, _ = recorded
    words = ["--out", str(config.out), "--task", "lift_named", "--seed", "3", "--episodes", "1"]
    assert command.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["successes"] == 1


def test_command_line_refuses_wrong_values(capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(["--out", "x", "--task", "lft"])
    assert exit_.value.code == 2
    assert "did you mean 'lift'" in capsys.readouterr().err


@pytest.mark.ros
def test_bag_holds_the_topics_of_the_node(tmp_path):
    bag = pytest.importorskip("mu0_sim.nodes.bag")
    from rosbags.rosbag2 import Reader

    config = make_config(tmp_path, bag=True)
    (outcome,) = record(config, bag.BagTape)
    assert outcome == Outcome(seed=3, recorded=True)
    n_frames = read_episode(episode_path(config, 3)).n_frames
    path = bag_path(config, 3)
    assert sorted(os.listdir(path.parent)) == [path.name]
    with Reader(path) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
        durable = {
            c.topic
            for c in reader.connections
            if c.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        }
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert counts["/camera/color/image_raw"] == n_frames
    assert counts["/camera/aligned_depth_to_color/image_raw"] == n_frames
    assert counts["/arm_controller/joint_trajectory"] == 1
    assert counts["/gripper_controller/joint_trajectory"] == 1
    assert counts["/clock"] == counts["/joint_states"] == counts["/tf"] > 100
    assert durable == {"/tf_static", "/robot_description"}
    assert stamps[0] >= 1_000_000_000
