"""Start keypoint tracker, world model and policy on a robot with an RGB-D camera.

ros2 launch mu0_bringup mu0.launch.py robot:=ur5e color_image:=/head/color/image_raw ...

The arm moves only while a goal of the policy's action is active.
"""

from collections.abc import Mapping
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

from mu0_core.embodiment import load_embodiment
from mu0_core.errors import ConfigError
from mu0_core.shipped_robots import embodiment_file
from mu0_policy.action_expert.card import read_points
from mu0_world_model.recordings import trained_robots
from mu0_world_model.shipped import DEFAULT_CHECKPOINT, checkpoint_folder
from mu0_world_model.statistics import read_statistics

BOOLEANS = ["true", "false"]
DEPTH = "camera/aligned_depth_to_color/image_raw"

# Arguments: default, meaning, choices. Topics without a leading slash follow the namespace.
ARGUMENTS = {
    "namespace": ("", "Namespace of all nodes", None),
    "robot": ("panda", "Shipped embodiment, path of a file, or none for a camera alone", None),
    "predictor": (
        "model",
        "What predicts: the model, a baseline without one, or none: traces come from elsewhere",
        ["model", "static", "constant_velocity", "none"],
    ),
    "checkpoint": (DEFAULT_CHECKPOINT, "Shipped checkpoint, path of a folder, or hub id", None),
    "device": ("cpu", "Where the model runs, as torch names it", None),
    "precision": ("float32", "Its number format", ["float32", "bfloat16", "int8"]),
    "policy": ("trace_follower", "Moves the robot", ["trace_follower", "action_expert", "none"]),
    "expert": ("", "Folder of the action expert, where that is the policy", None),
    "compressed": ("false", "Take the images' /compressed and /compressedDepth", BOOLEANS),
    "dry_run": ("false", "Show commands on a topic of their own, send none", BOOLEANS),
    "fixed_frame": ("", "Frame that a moving camera moves in; empty for a camera at rest", None),
    "params_file": ("", "ROS parameter file with further settings; empty for none", None),
    "rviz": ("false", "Show camera, robot and traces in RViz", BOOLEANS),
    "use_sim_time": ("false", "Follow /clock, of a simulator or a bag", BOOLEANS),
    "log_level": ("info", "Least severity that is logged", ["debug", "info", "warn", "error"]),
}
TOPICS = {
    "color_image": ("camera/color/image_raw", "Topic of the rectified colour image"),
    "color_info": ("camera/color/camera_info", "Topic of its intrinsics"),
    "depth_image": (DEPTH, "Topic of the depth image, aligned to the colour image"),
    "joint_states": ("joint_states", "Topic of the joint states"),
    "robot_description": ("robot_description", "Topic of the robot's URDF"),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments; what depends on files is made when they are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, choices) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in TOPICS.items()
    ]
    transport = IncludeLaunchDescription(
        PathJoinSubstitution([ThisLaunchFileDir(), "transport.launch.py"])
    )
    rviz = IncludeLaunchDescription(
        PathJoinSubstitution([ThisLaunchFileDir(), "rviz.launch.py"]),
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, transport, OpaqueFunction(function=_nodes), rviz])


def _nodes(context: LaunchContext) -> list[Node]:
    """Describe the nodes, with what embodiment file and checkpoint say."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    robot_file = embodiment_file(value["robot"])
    predictor: dict[str, object] = {"compressed": value["compressed"] == "true"}
    tracker = _gripper_points(robot_file) if robot_file else {}
    tracker |= {"fixed_frame": value["fixed_frame"], **predictor}
    policy: dict[str, object] = {"dry_run": value["dry_run"] == "true"}
    card = {"checkpoint": value["expert"]} if value["policy"] == "action_expert" else {}
    points = read_points(Path(value["expert"])) if card else None
    predictor |= {"features.points": points.value} if points else {}
    if value["predictor"] == "model":
        history, traces = _trained(value["checkpoint"])
        tracker, card = tracker | history, card or traces
    predictor |= {name: value[name] for name in ("predictor", "checkpoint", "device", "precision")}
    nodes = [_node("mu0_perception/keypoint_tracker_node", "keypoint_tracker", tracker, value)]
    if value["predictor"] != "none":
        nodes.append(_node("mu0_world_model/world_model_node", "world_model", predictor, value))
    if value["policy"] != "none":
        if robot_file is None:
            raise ConfigError("robot: a policy needs one; give its embodiment, or policy:=none")
        policy["embodiment_file"] = str(robot_file)
        nodes.append(_node(f"mu0_policy/{value['policy']}_node", "policy", policy | card, value))
    return nodes


def _node(
    program: str, name: str, parameters: Mapping[str, object], value: Mapping[str, str]
) -> Node:
    """Describe one node of the graph; the program is package/executable."""
    package, executable = program.split("/")
    chosen = [(default, LaunchConfiguration(topic)) for topic, (default, _) in TOPICS.items()]
    chosen += [
        (f"{TOPICS[topic][0]}/{kind}", [LaunchConfiguration(topic), f"/{kind}"])
        for topic, kind in (("color_image", "compressed"), ("depth_image", "compressedDepth"))
    ]
    return Node(
        package=package,
        executable=executable,
        name=name,
        namespace=value["namespace"],
        parameters=[
            {**parameters, "use_sim_time": value["use_sim_time"] == "true"},
            *([value["params_file"]] if value["params_file"] else []),
        ],
        # With a namespace every robot has a TF tree of its own.
        remappings=[*chosen, ("/tf", "tf"), ("/tf_static", "tf_static")],
        ros_arguments=["--log-level", value["log_level"]],
        output="screen",
    )


def _gripper_points(robot_file: Path) -> dict[str, object]:
    """Return the tracker's parameters about the points fixed to the gripper."""
    points = load_embodiment(robot_file).keypoints
    return {
        "gripper_keypoints.frame": points.frame,
        "gripper_keypoints.xyz": [float(value) for xyz in points.xyz for value in xyz],
    }


def _trained(checkpoint: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return what tracker and policy have to know of a checkpoint."""
    folder = Path(checkpoint_folder(checkpoint))
    if not folder.is_dir():  # of a hub, or wrong, as the node will say
        return {}, {}
    known, robots = read_statistics(folder), list(trained_robots(folder))
    traces = {"traces.arc_step": known.arc_step, "traces.horizon": known.future_len}
    return (
        {"history.arc_step": known.arc_step, "history.length": known.history_len},
        traces | ({"traces.robots": robots} if robots else {}),
    )
