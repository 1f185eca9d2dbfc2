"""Nodes in launch files: their command lines, and one real node."""

import json

import pytest

PRINTER = """
import json, sys, yaml
arguments = sys.argv[1:]
files = [yaml.full_load(open(b)) for a, b in zip(arguments, arguments[1:]) if a == "--params-file"]
rules = [b for a, b in zip(arguments, arguments[1:]) if a in ("-r", "-p")]
print("REPORT" + json.dumps({"arguments": arguments, "files": files, "rules": rules}))
"""


NODE = """
import rclpy
rclpy.init()
node = rclpy.create_node("default_name")
node.declare_parameter("rate_hz", 1.0)
node.declare_parameter("arm.joints", ["none"])
node.declare_parameter("from_file", 0)
publisher = node.create_publisher(__import__("std_msgs.msg").msg.Bool, "out", 1)
values = [node.get_parameter(n).value for n in ("rate_hz", "arm.joints", "from_file")]
print("NODE", node.get_fully_qualified_name(), values, publisher.topic_name)
print("SIM", node.get_parameter("use_sim_time").value)
"""


@pytest.fixture
def reports(package, launch_file, run):
    """Launch nodes that report how they were called; return their reports and the output."""
    package("mu0_test_package", {"printer": PRINTER})

    def launch(text: str, expected_code: int = 0, *arguments: str):
        path = launch_file("SetLaunchConfiguration('x', '1'),\n" + text)
        imports = (
            "from typing import List\n"
            "from launch_ros.actions import (\n"
            "    Node, PushRosNamespace, SetParameter, SetParametersFromFile, SetRemap)\n"
            "from launch_ros.parameter_descriptions import ParameterFile, ParameterValue\n"
            "from launch_ros.substitutions import FindPackageShare\n"
            "def printer(**kwargs):\n"
            "    return Node(package='mu0_test_package', executable='printer',\n"
            "                output='screen', **kwargs)\n"
        )
        path.write_text(imports + path.read_text())
        code, output = run("ros2", "launch", path, *arguments)
        assert code == expected_code, output
        found = [line.split("REPORT")[1] for line in output.splitlines() if "REPORT" in line]
        return [json.loads(report) for report in found], output

    return launch


def test_name_namespace_and_remappings(reports):
    (report,), output = reports("""
        printer(
            name=["cam_", LaunchConfiguration("x")], namespace="arm", exec_name="label",
            remappings=[("image", ["/cam/", LaunchConfiguration("x")]), ("~/a", "b")],
            arguments=["--plain", LaunchConfiguration("x")],
            ros_arguments=["--log-level", "warn"]),
    """)
    assert "[INFO] [label-1]: process started with pid" in output
    assert report["arguments"][:5] == ["--plain", "1", "--ros-args", "--log-level", "warn"]
    assert report["arguments"][5] == "--ros-args"
    assert report["rules"] == ["__node:=cam_1", "__ns:=/arm", "image:=/cam/1", "~/a:=b"]


def test_a_plain_node_gets_no_rules(reports):
    (report,), output = reports("printer(),")
    assert report["arguments"] == ["--ros-args"]
    assert "[printer-1] REPORT" in output


def test_parameter_dicts(reports):
    (report,), _ = reports("""
        printer(name="cam", namespace="/arm", parameters=[{
            "int": 1, "float": 2.0, "bool": True, "text": "on", "number_text": "7",
            "nested": {"deep": {"list": [1, 2.5]}}, "texts": ["a", "b"], "flags": [True, False],
            "yaml": LaunchConfiguration("x"), "joined": ["v", LaunchConfiguration("x")],
            "typed": ParameterValue(LaunchConfiguration("x"), value_type=str),
            "float_typed": ParameterValue(LaunchConfiguration("x"), value_type=float),
            "bool_typed": ParameterValue(LaunchConfiguration("x"), value_type=bool),
            "list_typed": ParameterValue("[1.0, 2.0]", value_type=str),
            ("key_", LaunchConfiguration("x")): 5,
        }, {"int": 2}]),
    """)
    first, second = report["files"]
    assert first == {
        "/arm/cam": {
            "ros__parameters": {
                "int": 1,
                "float": 2.0,
                "bool": True,
                "text": "on",
                "number_text": "7",
                "nested.deep.list": [1.0, 2.5],
                "texts": ["a", "b"],
                "flags": [True, False],
                "yaml": 1,
                "joined": "v1",
                "typed": "1",
                "float_typed": 1.0,
                "bool_typed": True,
                "list_typed": "[1.0, 2.0]",
                "key_1": 5,
            }
        }
    }
    assert second == {"/arm/cam": {"ros__parameters": {"int": 2}}}


def test_parameters_without_a_name_are_for_every_node(reports):
    (report,), _ = reports('printer(namespace="arm", parameters=[{"a": 1}]),')
    assert report["files"] == [{"/**": {"ros__parameters": {"a": 1}}}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "Expected|ensure|value"),
        ("[[LaunchConfiguration('x')], ['a']]", "Expected a non-empty sequence"),
        ("PathJoinSubstitution(['{', 'b'])", "parameter"),
        ("ParameterValue(LaunchConfiguration('launch-prefix', default='a'), value_type=int)", "a"),
    ],
)
def test_wrong_parameters_end_the_launch(reports, value, message):
    found, output = reports(f'printer(name="n", parameters=[{{"faulty": {value}}}]),', 1)
    assert found == []
    assert "Caught exception in launch" in output
    assert any(part in output for part in message.split("|"))


def test_parameter_files(reports, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("/**:\n  ros__parameters:\n    gain: 2.5\n")
    (report,), output = reports(f"""
        SetLaunchConfiguration("folder", "{tmp_path}"),
        printer(parameters=[
            PathJoinSubstitution([LaunchConfiguration("folder"), "a.yaml"]),
            ParameterFile("{file}"), __import__("pathlib").Path("{file}"), "{tmp_path}/no.yaml"]),
    """)
    assert report["files"] == [{"/**": {"ros__parameters": {"gain": 2.5}}}] * 3
    assert f"Parameter file path is not a file: {tmp_path}/no.yaml" in output


def test_shared_settings_hold_in_their_scope(reports, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("/**:\n  ros__parameters:\n    gain: 2.5\n")
    found, _ = reports(f"""
        GroupAction([
            PushRosNamespace("robot1"),
            SetParameter("use_sim_time", True),
            SetParametersFromFile("{file}"),
            SetRemap("image", "/image"),
            printer(name="inner", namespace="arm", remappings=[("a", "b")]),
            GroupAction([PushRosNamespace("deep"), printer(name="deeper")]),
            printer(name="absolute", namespace="/abs"),
        ]),
        printer(name="outer"),
    """)
    by_name = {report["rules"][0].partition(":=")[2]: report for report in found}
    shared = ["use_sim_time:=True"]
    assert by_name["inner"]["rules"] == [
        "__node:=inner", "__ns:=/robot1/arm", *shared, "image:=/image", "a:=b"
    ]  # fmt: skip
    assert by_name["inner"]["files"] == [{"/**": {"ros__parameters": {"gain": 2.5}}}]
    assert by_name["deeper"]["rules"][1] == "__ns:=/robot1/deep"
    assert by_name["absolute"]["rules"][1] == "__ns:=/abs"
    assert by_name["outer"]["rules"] == ["__node:=outer"]
    assert by_name["outer"]["files"] == []


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("Node(package='mu0_absent', executable='x')", "mu0_absent"),
        ("Node(package='mu0_test_package', executable='absent')", "executable 'absent' not found"),
        ("printer(name='bad name')", "bad name"),
        ("printer(namespace='1bad')", "1bad"),
        ("PushRosNamespace('1bad')", "The resulting namespace is invalid"),
        ("printer(parameters={'a': 1})", "parameters"),
        ("printer(remappings=['a:=b'])", "tuple"),
        ("printer(parameters=[{'a': object()}])", "arameter value"),
        ("printer(no_such_option=1)", "no_such_option"),
        ("PushRosNamespace('a', no_such_option=1)", "no_such_option"),
    ],
)
def test_faulty_nodes_end_the_launch(reports, node, message):
    found, output = reports(f"{node},", 1)
    assert found == []
    assert message in output


@pytest.mark.ros
def test_a_node_gets_it_all(package, launch_file, run):
    share = package("mu0_test_package", {"node": NODE})
    (share / "params.yaml").write_text("/**:\n  ros__parameters:\n    from_file: 3\n")
    launch_file(
        """
        DeclareLaunchArgument("rate", default_value="5.0"),
        __import__("launch_ros").actions.SetParameter("use_sim_time", True),
        __import__("launch_ros").actions.Node(
            package="mu0_test_package", executable="node", name="renamed", namespace="robot",
            remappings=[("out", "other/out")], output="screen",
            parameters=[
                PathJoinSubstitution([__import__("launch_ros").substitutions.FindPackageShare(
                    "mu0_test_package"), "params.yaml"]),
                {"rate_hz": LaunchConfiguration("rate"), "arm": {"joints": ["a", "b"]}}]),
        """,
        name="node.launch.py",
        folder=share / "launch",
    )
    code, output = run("ros2", "launch", "mu0_test_package", "node.launch.py", "rate:=7.5")
    assert code == 0
    assert "NODE /robot/renamed [7.5, ['a', 'b'], 3] /robot/other/out\n" in output
    assert "SIM True\n" in output
