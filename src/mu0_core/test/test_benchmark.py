import sys
from types import SimpleNamespace

import pytest

from mu0_core.benchmark import PolicySettings, load_keypoint_tracker, load_policy
from mu0_core.errors import ConfigError


def test_a_policy_is_found_by_module_and_factory(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "theirs", SimpleNamespace(make=lambda settings: settings))
    settings = PolicySettings(checkpoint=tmp_path)
    assert load_policy("theirs:make", settings) is settings


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobodys", "unknown policy 'nobodys'"),
        ("no_such_module_at_all:make", "cannot be imported"),
        ("json:make", "cannot be imported"),
    ],
)
def test_a_policy_that_is_not_there_is_named(name, says):
    with pytest.raises(ConfigError, match=says):
        load_policy(name, PolicySettings())


def test_a_keypoint_tracker_is_found_likewise(monkeypatch):
    made = SimpleNamespace(make=lambda settings: settings.robot)
    monkeypatch.setitem(sys.modules, "theirs", made)
    assert load_keypoint_tracker(PolicySettings(robot="panda"), "theirs:make") == "panda"
    with pytest.raises(ConfigError, match="unknown keypoint tracker 'nobodys'"):
        load_keypoint_tracker(PolicySettings(), "nobodys")
