"""Parameters: declared from a dataclass, read into it, and refused in its words."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from mu0_core.config import option, validate
from mu0_core.errors import ConfigError
from mu0_core.ros.params import Parameters, refuse_unknown

pytestmark = pytest.mark.ros
_names = (f"bound_{os.getpid()}_{i}" for i in itertools.count())


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    rate_hz: float = option(10.0, description="Pictures a second", unit="Hz", low=0.1, high=60.0)
    size: tuple[int, int] = option((320, 240), description="Width, height", unit="px", low=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    camera: Camera = option(Camera(), description="Front camera")
    mode: Mode = option(Mode.FAST, description="Speed")
    names: tuple[str, ...] = option((), description="Objects")
    gains: tuple[float, ...] = option((), description="Gains", read_only=True)
    limit_m: float | None = option(None, description="Largest step", unit="m", low=0.5)
    low_m: float = option(0.0, description="Lower edge", unit="m")
    high_m: float = option(1.0, description="Upper edge", unit="m")
    steps: int = option(4, description="Steps", low=1)
    verbose: bool = option(False, description="Say more")

    def __post_init__(self) -> None:
        wrong = f"low_m: expected less than high_m = {self.high_m} m, got {self.low_m} m"
        validate(self, wrong if self.low_m >= self.high_m else None)


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=10 + os.getpid() % 90)
    yield context
    context.try_shutdown()


@pytest.fixture
def make_node(context: Context) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(*arguments: str, **overrides: object) -> Node:
        values = {name.replace("__", "."): value for name, value in overrides.items()}
        node = Node(
            next(_names),
            context=context,
            cli_args=list(arguments),
            parameter_overrides=[Parameter(name, value=v) for name, v in values.items()],
            automatically_declare_parameters_from_overrides=True,
        )
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def refusal(node: Node, **values: object) -> str:
    changes = [Parameter(n.replace("__", "."), value=value) for n, value in values.items()]
    result = node.set_parameters_atomically(changes)
    assert not result.successful
    return result.reason


def accept(node: Node, **values: object) -> None:
    changes = [Parameter(n.replace("__", "."), value=value) for n, value in values.items()]
    result = node.set_parameters_atomically(changes)
    assert result.successful, result.reason


def test_defaults_become_parameters(make_node) -> None:
    node = make_node()
    parameters = Parameters(node, Config)
    assert parameters.value == Config()
    assert node.get_parameter("camera.rate_hz").value == 10.0
    assert node.get_parameter("mode").value == "fast"
    assert list(node.get_parameter("camera.size").value) == [320, 240]
    assert node.get_parameter("limit_m.enabled").value is False


def test_an_instance_gives_other_defaults(make_node) -> None:
    defaults = Config(camera=Camera(rate_hz=5.0), limit_m=0.7)
    assert Parameters(make_node(), defaults).value == defaults


def test_overrides_are_read(make_node) -> None:
    node = make_node(camera__rate_hz=20.5, mode="slow", names=["a"], verbose=True)
    assert Parameters(node, Config).value == Config(
        camera=Camera(rate_hz=20.5), mode=Mode.SLOW, names=("a",), verbose=True
    )


def test_integers_are_taken_for_floats(make_node) -> None:
    node = make_node(camera__rate_hz=20, gains=[1, 2])
    parameters = Parameters(node, Config)
    assert parameters.value == Config(camera=Camera(rate_hz=20.0), gains=(1.0, 2.0))
    assert node.get_parameter("camera.rate_hz").type_ is Parameter.Type.DOUBLE
    accept(node, camera__rate_hz=30)
    assert (parameters.value.camera.rate_hz, type(parameters.value.camera.rate_hz)) == (30, float)


def test_empty_lists_are_typed(make_node) -> None:
    node = make_node()
    parameters = Parameters(node, Config)
    assert node.get_parameter("names").type_ is Parameter.Type.STRING_ARRAY
    assert node.get_parameter("gains").type_ is Parameter.Type.DOUBLE_ARRAY
    accept(node, names=["cube"])
    assert parameters.value.names == ("cube",)


def test_a_parameter_file_is_read(make_node, tmp_path: Path) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text(
        "/**:\n  ros__parameters:\n    camera: {rate_hz: 3, size: [8, 6]}\n    mode: slow\n"
    )
    node = make_node("--ros-args", "--params-file", str(path))
    assert Parameters(node, Config).value == Config(
        camera=Camera(rate_hz=3.0, size=(8, 6)), mode=Mode.SLOW
    )


def test_descriptors_describe(make_node) -> None:
    node = make_node()
    Parameters(node, Config)
    rate = node.describe_parameter("camera.rate_hz")
    assert rate.description == "Pictures a second [Hz]"
    (span,) = rate.floating_point_range
    assert (span.from_value, span.to_value) == (0.1, 60.0)
    (steps,) = node.describe_parameter("steps").integer_range
    assert (steps.from_value, steps.to_value) == (1, 2**63 - 1)
    assert node.describe_parameter("gains").read_only
    assert not node.describe_parameter("names").read_only
    assert node.describe_parameter("mode").additional_constraints == "one of: fast, slow"


def test_all_wrong_overrides_come_together(make_node) -> None:
    node = make_node(camera__rate_hz=float("nan"), mode="idle", steps=0, verbose="yes")
    with pytest.raises(ConfigError) as caught:
        Parameters(node, Config)
    assert str(caught.value).splitlines() == [
        "camera.rate_hz: expected a finite number, got nan",
        "mode: unknown choice 'idle': known are fast, slow",
        "steps: expected at least 1, got 0",
        "verbose: expected true or false, got 'yes'",
    ]


def test_a_required_value_has_to_be_given(make_node) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Seeded:
        seed: int = option(description="Of the scene", low=0)

        def __post_init__(self) -> None:
            validate(self)

    with pytest.raises(ConfigError, match=r"seed: required, but not given \(Of the scene\)"):
        Parameters(make_node(), Seeded)
    assert Parameters(make_node(seed=3), Seeded).value == Seeded(seed=3)


def test_changes_are_refused_in_the_words_of_the_dataclass(make_node) -> None:
    node = make_node()
    parameters = Parameters(node, Config)
    assert refusal(node, mode="fats") == (
        "mode: unknown choice 'fats': known are fast, slow; did you mean 'fast'?"
    )
    assert refusal(node, low_m=2.0) == "low_m: expected less than high_m = 1.0 m, got 2.0 m"
    assert refusal(node, camera__size=[0, 0]).startswith("camera.size: expected at least 1 px")
    assert refusal(node, low_m=float("nan")) == "low_m: expected a finite number, got nan"
    assert refusal(node, low_m="far") == "low_m: expected a finite number, got 'far'"
    assert refusal(node, low_m=None) == "low_m: cannot be removed"
    assert "out of range" in refusal(node, camera__rate_hz=61.0)
    assert "out of range" in refusal(node, camera__rate_hz=float("nan"))
    assert refusal(node, camera__rate_hz=61) == (
        "camera.rate_hz: expected at most 60.0 Hz, got 61.0 Hz"
    )
    assert "read-only" in refusal(node, gains=[1.0])
    assert "Wrong parameter type" in refusal(node, steps=2.5)
    assert parameters.value == Config()


def test_several_changes_count_together(make_node) -> None:
    node = make_node()
    parameters = Parameters(node, Config)
    accept(node, low_m=2.0, high_m=3.0)
    assert parameters.value == Config(low_m=2.0, high_m=3.0)
    refusal(node, mode="slow", low_m=4.0)
    assert parameters.value == Config(low_m=2.0, high_m=3.0)
    assert node.get_parameter("mode").value == "fast"


def test_an_optional_value_has_a_switch(make_node) -> None:
    node = make_node()
    parameters = Parameters(node, Config)
    accept(node, limit_m__value=0.9)
    assert parameters.value.limit_m is None
    accept(node, limit_m__enabled=True)
    assert parameters.value.limit_m == 0.9
    accept(node, limit_m__enabled=False)
    assert parameters.value.limit_m is None


def test_a_switch_of_another_type_is_refused(make_node) -> None:
    with pytest.raises(ConfigError, match=r"limit_m.enabled: expected true or false, got 1"):
        Parameters(make_node(limit_m__enabled=1), Config)


def test_another_veto_keeps_the_value(make_node) -> None:
    from rcl_interfaces.msg import SetParametersResult

    node = make_node()
    parameters = Parameters(node, Config)
    veto = SetParametersResult(successful=False, reason="not now")
    node.add_on_set_parameters_callback(lambda changes: veto)
    assert refusal(node, steps=5) == "not now"
    assert parameters.value.steps == 4


def test_unknown_parameters_are_refused(make_node) -> None:
    node = make_node(camera__rate=1.0, use_sim_time=True)
    parameters = Parameters(node, Config)
    with pytest.raises(ConfigError, match=r"unknown parameter 'camera.rate'.*'camera.rate_hz'\?"):
        refuse_unknown(node, parameters.names)
    node = make_node(use_sim_time=True, camera__rate_hz=1.0)
    refuse_unknown(node, Parameters(node, Config).names)
