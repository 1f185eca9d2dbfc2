import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.errors import ConfigError
from mu0_perception.entities import EntityConfig, find_entities
from mu0_perception.pointcloud import organised_cloud


def _entities(scene, **settings):
    frame = scene.frame(0)
    cloud = organised_cloud(frame.rgb, frame.depth_m, frame.camera, stride=1)
    return frame, find_entities(cloud, EntityConfig(**settings))


def _pixel(scene, box):
    """Return the pixel (1, 2) of a box's centre."""
    T_camera_world = np.linalg.inv(scene.T_world_camera)
    centre = T_camera_world @ box.T_world_box[:, 3]
    return scene.camera.project(centre[:3])[None, :2].astype(np.float32)


def test_each_box_is_an_entity_and_the_table_is_none(scene):
    _, entities = _entities(scene)
    assert entities.n == 2
    labels = [int(entities.labels_at(_pixel(scene, box))[0]) for box in scene.boxes]
    assert sorted(labels) == [1, 2]
    assert entities.labels_at(np.array([[20.0, 20.0]], np.float32)) == 0


def test_boxes_that_touch_are_told_apart_by_colour(scene, box):
    scene.boxes = [box((0.0, 0.0, 0.03)), box((0.06, 0.0, 0.03), colour=(50.0, 80.0, 210.0))]
    _, entities = _entities(scene)
    first, second = (int(entities.labels_at(_pixel(scene, b))[0]) for b in scene.boxes)
    assert {first, second} == {1, 2}


def test_a_box_before_a_box_of_its_colour_is_cut_off_by_depth(scene, box):
    scene.boxes = [box((0.0, 0.0, 0.03)), box((0.04, -0.1, 0.16))]
    _, entities = _entities(scene)
    assert entities.n == 2
    visible = _pixel(scene, scene.boxes[0]) - (6.0, 0.0)
    first, second = entities.labels_at(np.concatenate([visible, _pixel(scene, scene.boxes[1])]))
    assert {int(first), int(second)} == {1, 2}


def test_entities_at_the_border_come_last(scene, box):
    whole = box((0.0, 0.0, 0.03), size=(0.04, 0.04, 0.04))
    cut_off = box((0.0, 0.28, 0.2), size=(0.2, 0.2, 0.2), colour=(60.0, 200.0, 60.0))
    scene.boxes = [cut_off, whole]
    _, entities = _entities(scene)
    assert entities.labels_at(_pixel(scene, whole)) == 1
    area = np.bincount(entities.labels.ravel())
    assert area[entities.n] > area[1]


def test_a_busy_pattern_is_still_an_entity(scene):
    frame = scene.frame(0)
    rgb = np.random.default_rng(0).integers(0, 255, frame.rgb.shape, dtype=np.uint8)
    cloud = organised_cloud(rgb, frame.depth_m, frame.camera, stride=1)
    entities = find_entities(cloud, EntityConfig())
    assert all(entities.labels_at(_pixel(scene, box))[0] > 0 for box in scene.boxes)


def test_what_is_out_of_range_or_too_small_does_not_count(scene):
    assert _entities(scene, max_range_m=0.4)[1].n == 0
    assert _entities(scene, min_pixels=5000)[1].n == 0
    assert _entities(scene, max_entities=1)[1].n == 1


@pytest.mark.parametrize("width", [320, 128])
def test_a_small_thing_counts_in_a_small_picture_too(scene, box, width):
    scene.camera = Camera.from_fovy(0.8, width, width * 3 // 4)
    scene.boxes = [box((0.0, 0.0, 0.015), size=(0.03, 0.03, 0.03))]
    assert _entities(scene)[1].labels_at(_pixel(scene, scene.boxes[0])) == 1


def test_without_depth_there_is_nothing(scene):
    frame = scene.frame(0)
    cloud = organised_cloud(frame.rgb, np.full_like(frame.depth_m, np.nan), frame.camera, stride=1)
    entities = find_entities(cloud, EntityConfig())
    assert entities.n == 0 and not entities.labels.any() and entities.planes == []


def test_pixels_outside_have_no_label(scene):
    _, entities = _entities(scene)
    outside = np.array([[-5.0, 3.0], [400.0, 3.0], [3.0, 300.0]], np.float32)
    np.testing.assert_array_equal(entities.labels_at(outside), 0)


def test_wrong_settings_are_all_named():
    with pytest.raises(ConfigError) as error:
        EntityConfig(max_range_m=0.0, min_pixels=0)
    assert "max_range_m" in str(error.value) and "min_pixels" in str(error.value)
