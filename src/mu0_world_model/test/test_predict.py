"""The predict command: files in, files out, and every fault told."""

import json

import cv2
import numpy as np
import pytest

from mu0_core.bspline import render
from mu0_core.errors import ConfigError, Mu0Error, ShapeError
from mu0_world_model import checkpoint
from mu0_world_model.execution import Precision
from mu0_world_model.predict import PredictConfig, main, predict
from mu0_world_model.prediction_files import DepthUnit, read_depth, read_mask, read_points
from mu0_world_model.statistics import STATISTICS
from mu0_world_model.text import save_tokenizer
from mu0_world_model.untrained import untrained_predictor

WIDTH, HEIGHT = 80, 60


@pytest.fixture(scope="module")
def folder(readable_config, tmp_path_factory):
    """A checkpoint with random weights, as `predict` is given one."""
    root = tmp_path_factory.mktemp("predict")
    sizes = readable_config(delta_scale=(0.1, 0.1, 0.05))
    made = untrained_predictor(sizes, name="x", precision=Precision.FLOAT32, device="cpu")
    processor = made.processor
    checkpoint.save(
        made.model,
        root / "random",
        step=0,
        extras={STATISTICS: processor.statistics.to_json()},
        copy=save_tokenizer(processor.tokenizer, root / "tokenizer"),
    )
    return root / "random"


@pytest.fixture
def scene(tmp_path):
    """Files of a picture, its depth in two forms, and a mask."""
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.4, 2.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth[0] = 0.0
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:24, 30:40] = 255
    cv2.imwrite(str(tmp_path / "image.png"), rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "depth.png"), np.rint(depth * 1000).astype(np.uint16))
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    np.save(tmp_path / "depth.npy", depth)
    return tmp_path


def asked(folder, scene, **changes) -> PredictConfig:
    values = {
        "checkpoint": str(folder),
        "image": scene / "image.png",
        "depth": scene / "depth.png",
        "instruction": "put the red cube into the bowl",
        "samples": 2,
        "threads": 1,
        "output": scene / "out",
    }
    return PredictConfig(**(values | changes))


def test_picture_arrays_and_text_tell_the_same(folder, scene):
    report = predict(asked(folder, scene, intrinsics=(70.0, 70.0, 39.5, 29.5)))
    assert report["n_keypoints"] == 64 and report["depth_used"] and report["model"] == "random"
    assert set(report["seconds"]) >= {"image_tower", "depth_tower", "prefix", "dino", "denoise"}
    picture = cv2.imread(report["files"]["overlay"])
    assert picture.shape == (HEIGHT * 8, WIDTH * 8, 3)
    arrays = np.load(report["files"]["arrays"])
    assert arrays["uvz"].shape == arrays["xyz"].shape == (2, 64, 8, 3)
    assert arrays["control_uvz"].shape == (2, 64, 4, 3) and arrays["valid_prob"].shape == (
        2,
        64,
        8,
    )
    np.testing.assert_allclose(arrays["uvz"], render(arrays["control_uvz"], 8), rtol=1e-5)
    text = json.loads((scene / "out" / "traces.json").read_text())
    assert text["K"][0] == [70.0, 0.0, 39.5] and len(text["keypoints"]) == 64
    np.testing.assert_allclose(text["keypoints"][9]["uvz"], arrays["uvz"][:, 9], atol=1e-4)
    told = np.array(text["keypoints"][9]["xyz"], float)
    np.testing.assert_allclose(told, arrays["xyz"][:, 9], atol=1e-4)
    again = predict(asked(folder, scene, intrinsics=(70.0, 70.0, 39.5, 29.5)))
    np.testing.assert_array_equal(np.load(again["files"]["arrays"])["uvz"], arrays["uvz"])


def test_without_depth_paths_are_drawn_in_the_picture_alone(folder, scene):
    report = predict(asked(folder, scene, depth=None, points=(40.0, 30.0)))
    arrays = np.load(report["files"]["arrays"])
    assert np.isfinite(arrays["uvz"][..., :2]).all() and np.isnan(arrays["xyz"]).all()
    text = json.loads((scene / "out" / "traces.json").read_text())
    (keypoint,) = text["keypoints"]
    assert keypoint["z"] is None and keypoint["xyz"][0][0] == [None, None, None]
    assert not report["depth_used"]
    plain = cv2.resize(cv2.imread(str(scene / "image.png")), (640, 480))
    drawn = cv2.imread(report["files"]["overlay"])
    assert (np.abs(plain.astype(int) - drawn)[:440].max(-1) > 60).any()


def test_points_come_from_files_masks_and_grids(folder, scene):
    points = [[3.0, 4.0], [70.5, 20.0]]
    np.save(scene / "p.npy", points)
    (scene / "p.json").write_text(json.dumps(points))
    (scene / "p.csv").write_text("3, 4\n70.5, 20\n")
    for name in ("p.npy", "p.json", "p.csv"):
        np.testing.assert_array_equal(read_points(scene / name), points)
    report = predict(asked(folder, scene, grid=(3, 2)))
    assert report["n_keypoints"] == 6
    report = predict(asked(folder, scene, mask=scene / "mask.png", mask_points=5, seed=1))
    uv = np.load(report["files"]["arrays"])["uv"]
    assert uv.shape == (5, 2) and len(np.unique(uv, axis=0)) == 5
    assert (uv >= [30, 20]).all() and (uv < [40, 24]).all()
    assert len(read_mask(scene / "mask.png", (HEIGHT, WIDTH), 1000, 0)) == 40


def test_depth_has_a_unit(scene):
    depth = read_depth(scene / "depth.npy", None)
    assert np.isnan(depth[0]).all() and np.isfinite(depth[1:]).all()
    np.testing.assert_allclose(read_depth(scene / "depth.png", None), depth, atol=6e-4)
    np.save(scene / "mm.npy", np.nan_to_num(depth) * 1000)
    np.testing.assert_allclose(read_depth(scene / "mm.npy", DepthUnit.MILLIMETRES), depth, 1e-6)
    with pytest.raises(ConfigError, match=r"is \d+ m in the median if its unit is m; give anoth"):
        read_depth(scene / "mm.npy", None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image": "nowhere.png"}, ConfigError, "image: .*nowhere.png cannot be read: No such"),
        ({"image": "p.txt"}, ConfigError, "image: expected a picture such as PNG"),
        ({"image": "empty"}, ConfigError, "image: expected a picture"),
        ({"depth": "nowhere.png"}, ConfigError, "depth: .* cannot be read"),
        ({"depth": "p.txt"}, ConfigError, "depth: expected a 16-bit PNG or a NumPy array"),
        ({"depth": "image.png"}, ConfigError, r"depth: expected numbers \(H, W\)"),
        ({"depth": "mask.png"}, ConfigError, "has 8 bits, as a picture of depth"),
        ({"depth": "zero.npy"}, ConfigError, "no measurement"),
        ({"depth": "small.npy"}, ShapeError, "expected 60 rows of 80 px as the picture has"),
        ({"depth": "text.npy"}, ConfigError, "text.npy is no NumPy array"),
        ({"points_file": "empty"}, ConfigError, r"points_file: expected numbers \(n, 2\)"),
        ({"points_file": "words"}, ConfigError, "points_file: .*words has no list of u, v"),
        ({"points_file": "zero.npy"}, ConfigError, r"points_file: expected numbers \(n, 2\)"),
        ({"points": (90.0, 3.0)}, ShapeError, "expected points inside the 80 x 60 px picture"),
        ({"mask": "depth.png", "points": (1.0, 1.0)}, ConfigError, "expected only one of"),
        ({"points": (1.0,)}, ConfigError, "points: expected u v u v ..., got 1 numbers"),
        ({"grid": (3,)}, ConfigError, "grid: expected 2 numbers, got 1"),
        ({"mask": "black.png"}, ConfigError, "zero everywhere"),
        ({"mask": "small.png"}, ShapeError, r"mask: expected the picture's \(60, 80\) px"),
        ({"intrinsics": (1.0, 2.0)}, ConfigError, "intrinsics: expected 4 numbers, got 2"),
        ({"checkpoint": "unknown"}, Mu0Error, "unknown shipped checkpoint 'unknown'"),
        ({"checkpoint": "./nowhere"}, Mu0Error, "expected a checkpoint folder, there is none"),
        ({"output": "p.txt/x"}, ConfigError, "output: .* cannot be written: Not a directory"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_faults_are_told(folder, scene, changes, error, message):
    for name in ("p.txt", "text.npy"):
        (scene / name).write_text("1 2\n")
    (scene / "words").write_text("a b\n")
    (scene / "empty").touch()
    np.save(scene / "zero.npy", np.zeros((HEIGHT, WIDTH), np.float32))
    np.save(scene / "small.npy", np.ones((4, 4), np.float32))
    cv2.imwrite(str(scene / "small.png"), np.ones((4, 4), np.uint8))
    cv2.imwrite(str(scene / "black.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    files = {"image", "depth", "points_file", "mask", "output"}
    changes = {n: scene / v if n in files else v for n, v in changes.items()}
    with pytest.raises(error, match=message):
        predict(asked(folder, scene, **changes))


def test_the_command_prints_one_json_line_last(folder, scene, capsys):
    arguments = ["--checkpoint", str(folder), "--image", str(scene / "image.png")]
    arguments += ["--points", "10", "20", "30", "40", "--samples", "3", "--threads", "1"]
    main([*arguments, "--output", str(scene / "o"), "--precision", "bfloat16", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("random: 3 futures of 2 points in ")
    report = json.loads(lines[-1])
    assert report["precision"] == "bfloat16" and report["files"]["text"] in lines
    with pytest.raises(SystemExit):
        main([*arguments, "--image", "nowhere.png"])
    assert "error: image: nowhere.png cannot be read" in capsys.readouterr().err
