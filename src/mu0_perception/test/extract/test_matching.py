"""Camera poses by matches of a network: what right ones add, and that wrong ones harm nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from mu0_core.se3 import exp, inverse, log, transform_points
from mu0_perception.extract import learned
from mu0_perception.extract.alignment import KeyPicture, Picture
from mu0_perception.extract.depth_pose import DepthPoseConfig, PoseFrom, placed_pictures
from mu0_perception.extract.frames import FrameConfig
from mu0_perception.extract.learned import MatchNetwork, WeightsError
from mu0_perception.extract.odometry import Odometry, OdometryConfig
from mu0_perception.extract.recording import Found
from mu0_perception.extract.sources import SourceConfig, open_recording


class Moved:
    """Match the pixels of a picture as if the camera had then moved in a known way."""

    def __init__(self, film, i, T_camera_key):
        self.depth_m, self.camera, self.T = film.depth_m[i], film.camera, T_camera_key

    def matches(self, before, after):
        v, u = np.mgrid[: before.shape[0] : 8, : before.shape[1] : 8].reshape(2, -1)
        uvz = np.column_stack([u, v, self.depth_m[v, u]])[np.isfinite(self.depth_m[v, u])]
        xyz = transform_points(self.T, self.camera.unproject(uvz))
        uv = self.camera.project(xyz)[:, :2]
        seen = np.isfinite(uv).all(axis=1)
        return uvz[seen, :2], uv[seen]


class Random:
    """Match any pixel with any."""

    def matches(self, before, after):
        pair = np.random.default_rng(0).uniform(0, before.shape[::-1], (2, 500, 2))
        return pair[0], pair[1]


def _poses(film, matcher=None):
    odometry = Odometry(OdometryConfig(), matcher)
    for rgb, depth in zip(film.rgb, film.depth_m, strict=True):
        odometry.add(rgb, depth, film.camera)
    return np.stack(odometry.finished()[0])


def _same_poses(film, matcher):
    """Check that a matcher changes nothing; Open3D adds up in another order each time."""
    assert _poses(film, matcher) == pytest.approx(_poses(film), abs=1e-6)


def _error(film, poses):
    """Return how far the last pose is off: m and rad."""
    true = inverse(film.T_world_camera[0]) @ film.T_world_camera[-1]
    off = log(inverse(true) @ poses[-1])
    return np.linalg.norm(off[:3]), np.linalg.norm(off[3:])


def test_right_matches_give_a_motion_that_is_too_large_for_the_other_ways(film, scene):
    film = film(1, depth_noise_m=0.0)
    scene.T_world_camera = film.T_world_camera[0] @ exp([0.03, 0, 0.05, 0, 0, 2.0])
    frame = scene.frame(2 * 10**9)
    film.rgb.append(frame.rgb)
    film.depth_m.append(frame.depth_m)
    film.T_world_camera = np.stack([film.T_world_camera[0], scene.T_world_camera])
    T_camera_key = inverse(film.T_world_camera[1]) @ film.T_world_camera[0]
    assert _error(film, _poses(film))[1] > 0.5
    metres, radians = _error(film, _poses(film, Moved(film, 0, T_camera_key)))
    assert metres < 0.002 and radians < 0.002


@pytest.mark.parametrize("wrong", ["random", "all alike", "turned away"])
def test_wrong_matches_change_no_pose(film, wrong):
    film = film(4, camera_moves=True)
    turned = {"all alike": exp([0.05, 0, 0, 0, 0, 0.1]), "turned away": exp([0, 0, 0, 0, 0.9, 0])}
    matcher = Random() if wrong == "random" else Moved(film, 0, turned[wrong])
    _same_poses(film, matcher)


@pytest.mark.parametrize("right", [True, False])
def test_matches_propose_only_what_explains_it_better_than_the_guess(film, right):
    film = film(3, moves=False, camera_moves=True)
    settings = {"width": 320, "max_depth_m": 4.0}
    key, picture = (
        Picture.of(film.rgb[i], film.depth_m[i], film.camera, **settings) for i in (0, 2)
    )
    T_camera_key = exp([0, 0, 0, 0, 0.9, 0])
    if right:
        T_camera_key = inverse(film.T_world_camera[2]) @ film.T_world_camera[0]
    key = KeyPicture(key, max_step_m=0.03, matcher=Moved(film, 0, T_camera_key))
    guess = key._compared(picture, np.eye(4))
    assert len(key._by_matches(picture, guess)) == right


@pytest.mark.parametrize("size", [(0, 2), (3, 2)])
def test_few_matches_are_no_motion(film, size):
    film = film(2, camera_moves=True)
    few = SimpleNamespace(matches=lambda before, after: (np.zeros(size), np.zeros(size)))
    _same_poses(film, few)


def test_a_network_of_another_kind_is_refused(monkeypatch):
    model = SimpleNamespace(config=SimpleNamespace(model_type="efficientloftr"))
    monkeypatch.setattr(learned, "load", lambda *words: (None, model))
    with pytest.raises(
        WeightsError, match="'a/b': is of the kind efficientloftr; give.*lightglue"
    ):
        MatchNetwork("a/b")


@pytest.fixture
def saved(tmp_path):
    """Save a network of random weights; return its folder."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    points = transformers.SuperPointConfig(
        encoder_hidden_sizes=[4, 4, 8, 8],
        decoder_hidden_size=8,
        descriptor_decoder_dim=8,
        max_keypoints=100,
    )
    small = {"keypoint_detector_config": points, "num_attention_heads": 2}

    def save(kind):
        if kind == "lightglue":
            config = transformers.LightGlueConfig(
                descriptor_dim=8, num_hidden_layers=2, filter_threshold=0.0, **small
            )
            model = transformers.LightGlueForKeypointMatching(config)
            processor = transformers.LightGlueImageProcessorPil()
        else:
            config = transformers.SuperGlueConfig(
                hidden_size=8, keypoint_encoder_sizes=[8, 8], gnn_layers_types=["cross"], **small
            )
            model = transformers.SuperGlueForKeypointMatching(config)
            processor = transformers.SuperGlueImageProcessorPil()
        model.save_pretrained(tmp_path / kind)
        processor.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return save


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lightglue", "superglue"])
def test_a_network_of_random_weights_is_run_and_not_trusted(film, bag, saved, tmp_path, kind):
    film, name = film(8, camera_moves=True), saved(kind)
    path = bag(film, without=("tf",))
    recording = open_recording(Found(name="bag", path=path, source="rosbag2"), SourceConfig())
    (tmp_path / "work").mkdir()
    config = DepthPoseConfig(pose=PoseFrom.LEARNED, pose_model=name)
    with placed_pictures(
        recording, np.arange(8), config, FrameConfig(), tmp_path / "work"
    ) as placed:
        assert _error(film, placed.frames.T_world_camera)[0] < 0.006
        assert placed.backends["pose"] == (
            f"RGB-D odometry (corners, Open3D and matches of {name})"
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lightglue", "superglue"])
def test_matches_lie_where_the_network_saw_them(saved, kind):
    torch = pytest.importorskip("torch")
    network = MatchNetwork(saved(kind))
    black = np.zeros((240, 320), np.uint8)
    assert all(uv.shape[1] == 2 for uv in network.matches(black, black))
    answer = SimpleNamespace(
        keypoints=torch.tensor([[[[0, 0], [101, 51], [7, 7]], [[201, 91], [9, 9], [0, 0]]]])
        / torch.tensor([640, 480]),
        matches=torch.tensor([[[-1, 0, 1], [1, 2, -1]]]),
        mask=torch.tensor([[[1, 1, 0], [1, 1, 0]]]),
    )
    network._model = _Answers(answer)
    before, after = network.matches(black, black)  # which it sees twice as large
    assert before == pytest.approx(np.array([[50.25, 25.25]]), abs=1e-4)
    assert after == pytest.approx(np.array([[100.25, 45.25]]), abs=1e-4)


class _Answers:
    """A network that gives one answer."""

    device = "cpu"

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, pixel_values):
        assert tuple(pixel_values.shape) == (1, 2, 3, 480, 640)
        return self.answer
