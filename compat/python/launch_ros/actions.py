"""Actions that start ROS nodes, and those that set what following nodes share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from launch._missing import missing_attribute
from launch.action import Action
from launch.actions import ExecuteProcess
from launch.launch_context import LaunchContext
from launch.logging import get_logger
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitutions import SubstitutionFailure
from launch.utilities import normalize_to_list_of_substitutions, perform_any
from launch_ros.parameter_descriptions import ParameterFile, evaluate_parameters
from launch_ros.substitutions import ExecutableInPackage
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name


class Node(ExecuteProcess):
    """Run a node; further keyword arguments are those of ExecuteProcess."""

    def __init__(
        self,
        *,
        executable: SomeSubstitutionsType,
        package: SomeSubstitutionsType | None = None,
        name: SomeSubstitutionsType | None = None,
        namespace: SomeSubstitutionsType | None = None,
        exec_name: SomeSubstitutionsType | None = None,
        parameters: list[Any] | None = None,
        remappings: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] | None = None,
        ros_arguments: Iterable[SomeSubstitutionsType] | None = None,
        arguments: Iterable[SomeSubstitutionsType] | None = None,
        **kwargs: Any,
    ) -> None:
        program: SomeSubstitutionsType = executable
        if package is not None:
            program = ExecutableInPackage(package=package, executable=executable)
        ros_args = ["--ros-args", *ros_arguments] if ros_arguments else []
        super().__init__(
            cmd=[program, *(arguments or ()), *ros_args, "--ros-args"], name=exec_name, **kwargs
        )
        if parameters is not None and not isinstance(parameters, list):
            raise TypeError(f"Node 'parameters' must be a list of dicts and files: {parameters!r}")
        self._node_name, self._namespace = name, namespace
        self._parameters = [
            p if isinstance(p, Mapping | ParameterFile) else ParameterFile(p)
            for p in parameters or ()
        ]
        self._remappings = [_checked_remapping(r) for r in remappings or ()]

    def execute(self, context: LaunchContext) -> None:
        """Add the ROS arguments to the command line and start it."""
        options: list[str] = []
        name = None
        if self._node_name is not None:
            name = perform_any(context, self._node_name)
            validate_node_name(name)
            options += ["-r", f"__node:={name}"]
        own = None if self._namespace is None else perform_any(context, self._namespace)
        namespace = _join_namespaces(context.launch_configurations.get("ros_namespace"), own)
        if namespace is not None:
            validate_namespace(namespace)
            options += ["-r", f"__ns:={namespace}"]
        for shared in context.launch_configurations.get("global_params", ()):
            if isinstance(shared, tuple):
                options += ["-p", f"{shared[0]}:={shared[1]}"]
            else:
                options += ["--params-file", os.path.abspath(shared)]
        options += self._parameter_options(context, name, namespace)
        pairs = [(perform_any(context, a), perform_any(context, b)) for a, b in self._remappings]
        for source, target in [*context.launch_configurations.get("ros_remaps", ()), *pairs]:
            options += ["-r", f"{source}:={target}"]
        self.cmd += [normalize_to_list_of_substitutions(option) for option in options]
        super().execute(context)

    def _parameter_options(
        self, context: LaunchContext, name: str | None, namespace: str | None
    ) -> list[str]:
        both = name is not None and namespace is not None
        target = f"{'' if namespace == '/' else namespace}/{name}" if both else "/**"
        options: list[str] = []
        for parameters in self._parameters:
            if isinstance(parameters, ParameterFile):
                path = str(parameters.evaluate(context))
                if not os.path.isfile(path):
                    get_logger("launch_ros.actions.node").warning(
                        f"Parameter file path is not a file: {path}"
                    )
                    continue
            else:
                path = _write_parameters(target, evaluate_parameters(context, parameters))
            options += ["--params-file", path]
        return options


class PushRosNamespace(Action):
    """Put the following nodes of the scope into a namespace."""

    def __init__(self, namespace: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._namespace = normalize_to_list_of_substitutions(namespace)

    def execute(self, context: LaunchContext) -> None:
        before = context.launch_configurations.get("ros_namespace")
        pushed = perform_any(context, self._namespace)
        namespace = _join_namespaces(before, pushed)
        assert namespace is not None  # since pushed is a text
        try:
            validate_namespace(namespace)
        except Exception as error:
            raise SubstitutionFailure(
                "The resulting namespace is invalid: "
                f"[previous_namespace='{before}', pushed_namespace='{pushed}']"
            ) from error
        context.launch_configurations["ros_namespace"] = namespace


PushROSNamespace = PushRosNamespace


class SetParameter(Action):
    """Set a parameter of the following nodes of the scope."""

    def __init__(self, name: SomeSubstitutionsType, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parameters = {tuple(normalize_to_list_of_substitutions(name)): value}

    def execute(self, context: LaunchContext) -> None:
        _share(context, "global_params", *evaluate_parameters(context, self._parameters).items())


class SetParametersFromFile(Action):
    """Give a parameter file to the following nodes of the scope."""

    def __init__(self, filename: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._filename = normalize_to_list_of_substitutions(filename)

    def execute(self, context: LaunchContext) -> None:
        _share(context, "global_params", perform_any(context, self._filename))


class SetRemap(Action):
    """Remap a name in the following nodes of the scope."""

    def __init__(
        self,
        src: SomeSubstitutionsType,
        dst: SomeSubstitutionsType,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._src = normalize_to_list_of_substitutions(src)
        self._dst = normalize_to_list_of_substitutions(dst)

    def execute(self, context: LaunchContext) -> None:
        rule = perform_any(context, self._src), perform_any(context, self._dst)
        _share(context, "ros_remaps", rule)


def _share(context: LaunchContext, key: str, *values: Any) -> None:
    # A new list, so that a scoped group restores the one it began with.
    values_before = context.launch_configurations.get(key, [])
    context.launch_configurations[key] = [*values_before, *values]


def _join_namespaces(outer: str | None, inner: str | None) -> str | None:
    if outer is None and inner is None:
        return None
    if inner is None or not outer or inner.startswith("/"):
        namespace = outer if inner is None else inner
    else:
        namespace = f"{'' if outer == '/' else outer}/{inner}"
    assert namespace is not None
    return "/" + namespace.strip("/")


def _checked_remapping(rule: Any) -> tuple[Any, Any]:
    if not isinstance(rule, tuple) or len(rule) != 2:
        raise TypeError(f"a remapping must be a tuple of two names, got {rule!r}")
    return rule


def _write_parameters(target: str, parameters: dict[str, Any]) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="launch_params_", delete=False) as file:
        yaml.dump({target: {"ros__parameters": parameters}}, file, default_flow_style=False)
    return file.name


__getattr__ = missing_attribute(__name__)
