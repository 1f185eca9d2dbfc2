"""Configurations: what they accept, what they refuse and in which words, and where they travel."""

import argparse
import dataclasses
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu0_core.config import (
    REQUIRED,
    add_arguments,
    dump_yaml,
    from_dict,
    from_namespace,
    leaves,
    load_yaml,
    option,
    to_dict,
    validate,
)
from mu0_core.errors import ConfigError


class Light(Enum):
    DAY = "day"
    NIGHT = "night"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    rate_hz: float = option(10.0, description="Pictures a second", unit="Hz", low=0.1, high=60.0)
    size: tuple[int, int] = option((320, 240), description="Width, height", unit="px", low=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    seed: int = option(description="Of the scene", low=0)
    light: Light = option(Light.DAY, description="Light")
    shadows: bool = option(True, description="Cast shadows, 50 % dark")
    camera: Camera = option(Camera(), description="Front camera")
    wrist: Camera = option(Camera(rate_hz=30.0), description="Wrist camera")
    names: tuple[str, ...] = option((), description="Objects")
    near_m: float | None = option(None, description="Nearest depth", unit="m", low=0.0)
    far_m: float = option(3.0, description="Farthest depth", unit="m")
    log: Path = option(Path("log.txt"), description="Log file")

    def __post_init__(self) -> None:
        near = 0.0 if self.near_m is None else self.near_m
        wrong = f"near_m: expected less than far_m = {self.far_m} m, got {near} m"
        validate(self, wrong if near >= self.far_m else None)


def faults_of(mapping: dict) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_dict(Scene, mapping)
    return str(caught.value).splitlines()


def test_defaults_fill_what_is_not_given() -> None:
    scene = from_dict(Scene, {"seed": 3})
    assert scene == Scene(seed=3)
    assert scene.camera == Camera(rate_hz=10.0, size=(320, 240))


def test_plain_values_get_the_declared_types() -> None:
    scene = from_dict(
        Scene,
        {"seed": 3, "light": "night", "near_m": 1, "names": ["a", "b"], "log": "x/y", "far_m": 2},
    )
    assert scene.light is Light.NIGHT
    assert scene.names == ("a", "b")
    assert scene.log == Path("x/y")
    assert (scene.near_m, type(scene.near_m)) == (1.0, float)
    assert (scene.far_m, type(scene.far_m)) == (2.0, float)


def test_a_nested_default_fills_up_a_nested_mapping() -> None:
    scene = from_dict(Scene, {"seed": 0, "wrist": {"size": [64, 48]}})
    assert scene.wrist == Camera(rate_hz=30.0, size=(64, 48))


def test_unknown_keys_name_the_path_and_the_nearest() -> None:
    assert faults_of({"seed": 0, "camera": {"rate": 5.0}}) == [
        "camera.rate: unknown key 'rate': known are rate_hz, size; did you mean 'rate_hz'?"
    ]


def test_all_faults_come_together() -> None:
    faults = faults_of(
        {
            "lights": 1,
            "light": "dusk",
            "shadows": 1,
            "camera": {"rate_hz": 100, "size": [320]},
            "names": "cube",
        }
    )
    assert faults == [
        "lights: unknown key 'lights': known are camera, far_m, light, log, names, near_m, seed, "
        "shadows, wrist; did you mean 'light'?",
        "seed: required, but not given (Of the scene)",
        "light: unknown choice 'dusk': known are day, night",
        "shadows: expected true or false, got 1",
        "camera.rate_hz: expected at most 60.0 Hz, got 100.0 Hz",
        "camera.size: expected 2 values, got 1: [320]",
        "names: expected a list, got 'cube'",
    ]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("seed", True, "seed: expected a whole number, got True"),
        ("seed", 1.0, "seed: expected a whole number, got 1.0"),
        ("seed", -1, "seed: expected at least 0, got -1"),
        ("seed", None, "seed: expected a whole number, got None"),
        ("far_m", float("nan"), "far_m: expected a finite number, got nan"),
        ("far_m", float("inf"), "far_m: expected a finite number, got inf"),
        ("far_m", False, "far_m: expected a finite number, got False"),
        ("far_m", "1e1", "far_m: expected a finite number, got '1e1', a text; write 10.0"),
        ("far_m", "wide", "far_m: expected a finite number, got 'wide'"),
        ("names", [1], "names[0]: expected a text, got 1"),
        ("log", 3, "log: expected a path, got 3"),
        ("camera", 3, "camera: expected names with values, got 3"),
        ("camera", {"size": [0, 2]}, "camera.size: expected at least 1 px, got 0 px"),
        ("near_m", 5.0, "near_m: expected less than far_m = 3.0 m, got 5.0 m"),
    ],
)
def test_wrong_values_are_named(key: str, value: object, text: str) -> None:
    assert faults_of({"seed": 0, key: value}) == [text]


def test_construction_checks_as_reading_does() -> None:
    with pytest.raises(ConfigError, match=r"rate_hz: expected at least 0.1 Hz, got 0.0 Hz"):
        Camera(rate_hz=0)
    assert Camera(rate_hz=5, size=[3, 4]) == Camera(rate_hz=5.0, size=(3, 4))


def test_a_replacement_is_checked() -> None:
    with pytest.raises(ConfigError, match="at most 60.0 Hz"):
        dataclasses.replace(Camera(), rate_hz=61.0)


def test_base_gives_what_is_not_given() -> None:
    base = Scene(seed=7, camera=Camera(rate_hz=5.0))
    scene = from_dict(Scene, {"camera": {"size": [8, 8]}}, base)
    assert scene == Scene(seed=7, camera=Camera(rate_hz=5.0, size=(8, 8)))


scenes = st.builds(
    Scene,
    seed=st.integers(0, 2**31),
    light=st.sampled_from(Light),
    shadows=st.booleans(),
    camera=st.builds(Camera, rate_hz=st.floats(0.1, 60.0)),
    names=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]))).map(
        tuple
    ),
    near_m=st.none() | st.floats(0.0, 1.0),
)


@given(scenes)
def test_plain_values_and_yaml_keep_everything(tmp_path_factory, scene: Scene) -> None:
    path = tmp_path_factory.mktemp("config") / "scene.yaml"
    dump_yaml(scene, path)
    assert load_yaml(Scene, path) == scene
    assert from_dict(Scene, to_dict(scene)) == scene


def test_yaml_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "scene.yaml"
    with pytest.raises(ConfigError, match=r"scene.yaml: cannot be read: No such file"):
        load_yaml(Scene, path)
    path.write_text("seed: [")
    with pytest.raises(ConfigError, match=r"scene.yaml: is not valid YAML"):
        load_yaml(Scene, path)
    path.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="key seed stands twice"):
        load_yaml(Scene, path)
    path.write_text("seed: -1\nfar_m: 1e-3\n")
    with pytest.raises(ConfigError) as caught:
        load_yaml(Scene, path)
    assert str(caught.value).splitlines() == [
        f"{path}:",
        "  seed: expected at least 0, got -1",
        "  far_m: expected a finite number, got '1e-3', a text; write 0.001",
    ]


def parsed(*words: str, base: Scene | None = None) -> Scene:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Scene)
    return from_namespace(Scene, parser.parse_args(words), base)


def test_command_line_reads_every_kind() -> None:
    words = "--seed 4 --light night --no-shadows --camera.size 64 48 --near_m 0.5 --names a b"
    assert parsed(*words.split()) == Scene(
        seed=4,
        light=Light.NIGHT,
        shadows=False,
        camera=Camera(size=(64, 48)),
        near_m=0.5,
        names=("a", "b"),
    )


def test_command_line_goes_over_a_file() -> None:
    base = Scene(seed=1, near_m=0.5, camera=Camera(rate_hz=5.0))
    assert parsed("--near_m", "none", "--seed", "2", base=base) == Scene(
        seed=2, camera=Camera(rate_hz=5.0)
    )


def test_command_line_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="seed: required, but not given"):
        parsed()
    with pytest.raises(SystemExit):
        parsed("--seed", "1", "--light", "dusk")
    assert "argument --light: invalid choice: 'dusk'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parsed("--seed", "x")
    assert "argument --seed: invalid int value: 'x'" in capsys.readouterr().err


def test_help_gives_unit_default_and_choices() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Scene)
    text = " ".join(parser.format_help().split())
    assert "Pictures a second [Hz] (default: 10.0)" in text
    assert "Of the scene (required)" in text
    assert "day|night" in text
    assert "50 % dark" in text


def test_leaves_know_paths_and_defaults() -> None:
    found = {leaf.path: leaf for leaf in leaves(Scene)}
    assert list(found)[:5] == ["seed", "light", "shadows", "camera.rate_hz", "camera.size"]
    assert found["seed"].default is REQUIRED
    assert found["wrist.rate_hz"].default == 30.0
    assert (found["near_m"].kind, found["near_m"].optional) == (float, True)
    of_instance = {leaf.path: leaf.default for leaf in leaves(Scene(seed=9))}
    assert of_instance["seed"] == 9


def test_leaves_refuse_what_has_no_single_value() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Rig:
        cameras: tuple[Camera, ...] = option((), description="Cameras")

        def __post_init__(self) -> None:
            validate(self)

    assert from_dict(Rig, {"cameras": [{"rate_hz": 5}]}).cameras == (Camera(rate_hz=5.0),)
    with pytest.raises(ConfigError, match=r"cameras\[0\].rate_hz: expected at least 0.1 Hz"):
        from_dict(Rig, {"cameras": [{"rate_hz": 0}]})
    with pytest.raises(TypeError, match="Rig.cameras: expected one value"):
        list(leaves(Rig))
