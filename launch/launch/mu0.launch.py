"""Start keypoint tracker, world model and policy on a robot with an RGB-D camera.

ros2 launch mu0_bringup mu0.launch.py robot:=ur5e color_image:=/head/color/image_raw ...

The arm moves only while a goal of the policy's action is active.
"""

from collections.abc import Mapping
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

from mu0_core.embodiment import load_embodiment
from mu0_core.errors import ConfigError, unknown_name_message
from mu0_world_model.shipped import DEFAULT_CHECKPOINT, checkpoint_folder
from mu0_world_model.statistics import read_statistics

BOOLEANS = ["true", "false"]
DEPTH = "camera/aligned_depth_to_color/image_raw"

POLICIES = ["trace_follower", "action_expert", "none"]
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
    "policy": ("trace_follower", "What moves the robot", POLICIES),
    "expert": ("", "Folder of the action expert, where that is the policy", None),
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


def _nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Describe the nodes, with what embodiment file and checkpoint say."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    robot_file = _embodiment_file(value["robot"])
    tracker = _gripper_points(robot_file) if robot_file else {}
    tracker["fixed_frame"] = value["fixed_frame"]
    if value["predictor"] == "model":
        tracker |= _history(value["checkpoint"])
    predictor: dict[str, object] = {n: value[n] for n in ("predictor", "checkpoint", "device")}
    nodes: list[LaunchDescriptionEntity] = [
        _node("mu0_perception/keypoint_tracker_node", "keypoint_tracker", tracker, value),
    ]
    if value["predictor"] != "none":
        nodes.append(_node("mu0_world_model/world_model_node", "world_model", predictor, value))
    if value["policy"] != "none":
        if robot_file is None:
            raise ConfigError("robot: a policy needs one; give its embodiment, or policy:=none")
        policy = {"embodiment_file": str(robot_file), "dry_run": value["dry_run"] == "true"}
        expert = {"checkpoint": value["expert"]} if value["policy"] == "action_expert" else {}
        nodes.append(_node(f"mu0_policy/{value['policy']}_node", "policy", policy | expert, value))
    return nodes


def _node(
    program: str, name: str, parameters: Mapping[str, object], value: Mapping[str, str]
) -> Node:
    """Describe one node of the graph; the program is package/executable."""
    package, executable = program.split("/")
    chosen = [(default, LaunchConfiguration(name)) for name, (default, _) in TOPICS.items()]
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


def _embodiment_file(robot: str) -> Path | None:
    """Find the file of a robot by its name or path; None for the robot "none"."""
    if robot == "none":
        return None
    if "/" in robot:
        return Path(robot)
    folder = Path(get_package_share_directory("mu0_policy")) / "config" / "embodiments"
    known = {path.stem: path for path in folder.glob("*.yaml")}
    if robot not in known:
        hint = "for one of your own give the path of its file, with a slash in it"
        raise ConfigError(f"{unknown_name_message('robot', robot, known)}; {hint}")
    return known[robot]


def _gripper_points(robot_file: Path) -> dict[str, object]:
    """Return the tracker's parameters about the points fixed to the gripper."""
    points = load_embodiment(robot_file).keypoints
    return {
        "gripper_keypoints.frame": points.frame,
        "gripper_keypoints.xyz": [float(value) for xyz in points.xyz for value in xyz],
    }


def _history(checkpoint: str) -> dict[str, object]:
    """Return the tracker's parameters about the history that a checkpoint was trained on."""
    folder = Path(checkpoint_folder(checkpoint))
    if not folder.is_dir():  # of a hub, or wrong, as the node will say
        return {}
    statistics = read_statistics(folder)
    return {"history.arc_step": statistics.arc_step, "history.length": statistics.history_len}
