"""From a recording to episodes, all stages together."""

import json

import numpy as np
import pytest

from mu0_core.episode import read_episode
from mu0_core.se3 import inverse, transform_points
from mu0_perception.extract import cli, validate
from mu0_perception.extract.odometry import Odometry, OdometryConfig
from mu0_perception.extract.overlay import ColourBy
from mu0_perception.extract.sidecar import read_sidecar
from mu0_perception.view import Viewer, segments
from mu0_perception.view import main as view


@pytest.fixture
def extract(tmp_path, capsys):
    """Run the command; return its exit status, summary and output folder."""

    def run(source, *words):
        out = tmp_path / "episodes"
        status = cli.main([str(source), str(out), *words])
        lines = capsys.readouterr().out.strip().splitlines()
        return status, json.loads(lines[-1]), out

    return run


def _ways(episode, slot, *, moving):
    """Return first and last place (n, 3) of a slot's rows in the world, and the steps between."""
    T_world_camera = inverse(episode.T_camera_world[slot.frame])
    rows = np.asarray(slot.rows.is_moving) == moving
    raw = np.asarray(slot.rows.raw_future_uvz, np.float64)[rows]
    steps = min(raw.shape[1], episode.n_frames - slot.frame)
    start, end = (
        transform_points(T_world_camera, episode.camera(0).unproject(raw[:, step]))
        for step in (0, steps - 1)
    )
    return start, end, steps


def _errors(episode, film):
    """Return how far rows end from where the box carries them, m, and where on it they begin."""
    frames = read_sidecar(episode.path)["frames"]
    errors, ends = [], []
    for slot in episode.slots():
        t = frames[slot.frame]
        start, end, steps = _ways(episode, slot, moving=True)
        carried = film.T_world_moved[t + steps - 1] @ inverse(film.T_world_moved[t])
        errors.append(np.linalg.norm(end - transform_points(carried, start), axis=1))
        ends.append(np.abs(transform_points(inverse(film.T_world_moved[t]), start)))
    return np.concatenate(errors), np.concatenate(ends)


@pytest.mark.parametrize("camera_moves", [False, True])
def test_a_bag_becomes_an_episode_of_what_moves(film, bag, extract, tmp_path, camera_moves):
    film = film(14, camera_moves=camera_moves)
    status, summary, out = extract(bag(film))
    assert (status, summary["done"], summary["episodes"]) == (0, 1, 1)
    assert validate.main([str(out)]) == 0

    episode = read_episode(out / "bag")
    errors, local = _errors(episode, film)
    assert len(errors) > 100
    assert np.median(errors) < 0.006
    on_box = (local < 0.5 * np.asarray(film.boxes[0].size_m) + 0.01).all(axis=1)
    assert on_box.mean() > 0.97  # nothing of the table, nothing of the box that rests
    assert episode.description == "carry the red box\n"
    assert episode.captions[0].instructions == ("carry the red box",)

    sidecar = read_sidecar(episode.path)
    assert sidecar["backends"]["pose"] == "recorded"
    assert len(sidecar["metres_per_step"]) == episode.n_slots
    assert sidecar["frame_rate_hz"] == pytest.approx(10.0)

    assert view([str(out / "bag"), "--video", str(tmp_path / "look.mp4")]) == 0
    assert (tmp_path / "look.mp4").stat().st_size > 1000
    points, colour = segments(episode, episode.slot(0), ColourBy.TIME)
    assert len(points) == len(colour) > 100 and np.isfinite(points).all()


@pytest.mark.parametrize("camera_moves", [False, True])
def test_some_points_at_rest_have_rows_too(film, bag, extract, on_box, camera_moves):
    film = film(14, camera_moves=camera_moves)
    _, _, out = extract(bag(film), "--rest.around", "10", "--rest.on_things", "10")
    episode = read_episode(out / "bag")
    moved, resting = film.boxes
    counts = []
    for slot in episode.slots():
        start, end, _ = _ways(episode, slot, moving=False)
        np.testing.assert_allclose(start, end, atol=0.003)  # float16 pixels
        T = film.T_world_moved[slot.frame]
        local = transform_points(inverse(T), start)
        assert not (np.abs(local) < np.asarray(moved.size_m) / 2 - 0.005).all(axis=1).any()
        on_thing = on_box(resting, start, 0.01)
        on_table = np.abs(start[:, 2]) < 0.01
        assert (on_thing | on_table).all()
        counts.append((on_thing.sum(), on_table.sum()))
    assert min(thing for thing, _ in counts) >= 5 and min(table for _, table in counts) >= 5
    assert max((~slot.rows.is_moving).sum() for slot in episode.slots()) <= 20
    things = {p["entity"] for p in read_sidecar(episode.path)["points"]}
    assert len(things) == 3  # what moves, what rests, the background


def test_what_is_done_is_kept_and_another_configuration_is_refused(film, bag, extract, capsys):
    path = bag(film(10), without=("instruction",))
    extract(path)
    status, summary, out = extract(path)
    assert (status, summary["kept"]) == (0, 1)
    with pytest.raises(SystemExit) as stop:
        extract(path, "--frames.rate_hz", "5")
    assert stop.value.code == 2
    assert "frames.rate_hz: 10.0 there, 5.0 asked for" in capsys.readouterr().err
    assert read_episode(out / "bag").captions == ()


def test_a_recording_in_which_nothing_moves_is_listed_and_not_redone(film, bag, extract):
    path = bag(film(10, moves=False))
    assert extract(path)[1]["still"] == 1
    status, summary, out = extract(path)
    assert status == 0 and summary["still"] == 1 and summary["wall_s"] < 5.0
    assert not (out / "bag").exists()


def test_a_failed_recording_is_named_and_does_not_stop_the_rest(film, bag, extract):
    film = film(10)
    bad = bag(film, "bad", without=("info",))
    bag(film, "good")
    status, summary, _ = extract(bad.parent)
    assert (status, summary["done"], summary["failed"]) == (1, 1, 1)
    assert "camera_info" in summary["failures"]["bad"]


def test_a_gap_makes_two_episodes(film, bag, extract):
    status, summary, out = extract(bag(film(28), skip=range(13, 19)), "--frames.max_gap_s", "0.3")
    assert (status, summary["episodes"]) == (0, 2)
    assert (out / "bag_part000").is_dir() and (out / "bag_part001").is_dir()


def test_an_interrupted_run_goes_on(film, bag, extract):
    path = bag(film(28), skip=range(13, 19))
    words = ("--frames.max_gap_s", "0.3")
    _, _, out = extract(path, *words)
    before = (out / "bag_part000/images.npy").stat().st_mtime_ns
    state = out / ".extract/bag.json"
    content = json.loads(state.read_text())
    content["finished"] = False
    del content["parts"]["bag_part001"]
    state.write_text(json.dumps(content))
    _, summary, _ = extract(path, *words)
    assert summary["episodes"] == 2
    assert (out / "bag_part000/images.npy").stat().st_mtime_ns == before


def test_black_pictures_are_refused(film, bag, extract):
    film = film(8)
    film.rgb = [np.zeros_like(rgb) for rgb in film.rgb]
    assert "show nothing" in extract(bag(film))[1]["failures"]["bag"]


def test_pictures_alone_are_refused_unless_flat_is_asked_for(film, bag, extract):
    path = bag(film(10), without=("depth", "tf"))
    _, summary, _ = extract(path, "--place.depth_model", "none/such")
    assert "weights are not on this machine" in summary["failures"]["bag"]


def test_flat_episodes_are_made_when_asked_for(film, bag, extract):
    path = bag(film(10), without=("depth", "tf"))
    status, summary, out = extract(path, "--place.depth", "flat")
    assert (status, summary["episodes"]) == (0, 1)
    assert validate.main([str(out)]) == 0
    assert read_sidecar(out / "bag")["backends"]["depth"] == "flat"


def test_without_depth_a_thing_of_the_colour_of_its_surroundings_moves(scene, film, bag, extract):
    scene.boxes[0].colour = scene.table_colour
    taken = film(14)
    _, _, out = extract(bag(taken, without=("depth", "tf")), "--place.depth", "flat")
    rows = read_episode(out / "bag").slot(0).rows
    camera_xyz = inverse(taken.T_world_camera[0]) @ taken.T_world_moved[0][:, 3]
    centre_uv = taken.camera.project(camera_xyz[:3])[:2]
    start_uv = np.asarray(rows.raw_future_uvz[:, 0, :2])[np.asarray(rows.is_moving)]
    assert (np.linalg.norm(start_uv - centre_uv, axis=1) < 15.0).sum() > 2


def test_an_episode_can_be_extracted_again(film, bag, extract, tmp_path):
    _, _, out = extract(bag(film(12)))
    again = tmp_path / "again"
    assert cli.main([str(out / "bag"), str(again)]) == 0
    assert validate.main([str(again)]) == 0
    first, second = read_episode(out / "bag"), read_episode(again / "bag")
    assert second.n_frames == first.n_frames
    assert second.captions[0].instructions == ("carry the red box",)


@pytest.mark.parametrize("moves", [False, True])
def test_odometry_finds_how_the_camera_moved(film, moves):
    film = film(12, moves=moves, camera_moves=True)
    odometry = Odometry(OdometryConfig(key_m=0.03))
    for rgb, depth in zip(film.rgb, film.depth_m, strict=True):
        odometry.add(rgb, depth, film.camera)
    poses, figures = odometry.finished()
    true = inverse(film.T_world_camera[0]) @ film.T_world_camera
    assert figures["odometry_lost_pictures"] == 0
    assert np.linalg.norm(poses[-1][:3, 3] - true[-1][:3, 3]) < 0.006


@pytest.mark.slow
def test_the_browser_gets_every_frame(film, bag, extract):
    _, _, out = extract(bag(film(10)))
    viewer = Viewer(read_episode(out / "bag"), port=0)
    try:
        for frame in (3, 9):
            viewer._frame.value = frame
            viewer.show()
        assert viewer._told.content == "carry the red box"
    finally:
        viewer.close()
