"""Start a simulated robot behind the topics of a real one.

ros2 launch mu0_bringup sim.launch.py robot:=ur5e task:=lift_named seed:=7
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

BOOLEANS = ["true", "false"]

# Arguments that are parameters of the node: type, default, meaning, choices.
PARAMETERS = {
    "robot": (str, "panda", "Robot arm", ["panda", "ur5e", "iiwa"]),
    "task": (str, "lift", "Task: one cube, or a named one of two", ["lift", "lift_named"]),
    "seed": (int, "0", "Seed of the scene: objects, camera pose, light, texture", None),
    "width": (int, "320", "Width of the pictures, px", None),
    "height": (int, "240", "Height of the pictures, px", None),
    "rate_hz": (float, "10.0", "Pictures in a second of simulated time, Hz", None),
    "depth_noise": (bool, "false", "Noise and holes in depth, like a RealSense's", BOOLEANS),
    "publish_robot_tf": (
        bool,
        "true",
        "Publish the links on /tf; false beside robot_state_publisher",
        BOOLEANS,
    ),
    "step_lock": (
        bool,
        "false",
        "Simulated time waits after each picture for traces or a command with its stamp",
        BOOLEANS,
    ),
    "step_lock_timeout_s": (float, "5.0", "Longest such wait, s of wall clock", None),
    "max_real_time_factor": (
        float,
        "1.0",
        "Simulated seconds in one of wall clock, at most; 0.0 = as fast as it goes",
        None,
    ),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the simulator."""
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="Least severity that is logged",
            choices=["debug", "info", "warn", "error"],
        ),
        *(
            DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
            for name, (_, default, text, choices) in PARAMETERS.items()
        ),
    ]
    simulator = Node(
        package="mu0_sim",
        executable="sim_node",
        name="sim",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                for name, (kind, *_) in PARAMETERS.items()
            }
        ],
        # With a namespace every robot has a tree of its own.
        remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    transport = IncludeLaunchDescription(
        PathJoinSubstitution([ThisLaunchFileDir(), "transport.launch.py"])
    )
    return LaunchDescription([*arguments, transport, simulator])
