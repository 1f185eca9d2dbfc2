import pytest

from mu0_core import errors


@pytest.mark.parametrize(
    "name",
    [
        "ConfigError",
        "ShapeError",
        "CalibrationError",
        "CheckpointError",
        "StaleInputError",
        "EpisodeError",
        "TrajectoryError",
    ],
)
def test_every_error_is_caught_by_the_base(name):
    with pytest.raises(errors.Mu0Error, match="what came"):
        raise getattr(errors, name)("what came")


def test_unknown_name_lists_known_names_in_order_and_the_nearest():
    message = errors.unknown_name_message("robot", "pandda", ["ur5e", "panda", "iiwa"])
    assert message == "unknown robot 'pandda': known are iiwa, panda, ur5e; did you mean 'panda'?"


def test_unknown_name_suggests_nothing_when_nothing_is_near():
    message = errors.unknown_name_message("robot", "xyz", ["panda"])
    assert message == "unknown robot 'xyz': known are panda"


def test_unknown_name_says_when_none_are_known():
    assert errors.unknown_name_message("task", "lift", []) == "unknown task 'lift': there are none"
