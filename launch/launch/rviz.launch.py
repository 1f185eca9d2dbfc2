"""Show camera, robot, keypoints and traces in RViz; also on another machine than the robot's.

ros2 launch mu0_bringup rviz.launch.py
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Arguments: default, meaning, choices. Topics without a leading slash follow the namespace.
ARGUMENTS = {
    "namespace": ("", "Namespace of the robot", None),
    "color_image": ("camera/color/image_raw", "Topic of the colour image", None),
    "robot_description": ("robot_description", "Topic of the robot's URDF", None),
    "use_sim_time": ("false", "Follow /clock, of a simulator or a bag", ["true", "false"]),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the viewer, or say that it is missing."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, choices) in ARGUMENTS.items()
    ]
    try:
        get_package_share_directory("rviz2")
    except PackageNotFoundError:
        hint = LogInfo(
            msg="rviz2 is not installed: going on without RViz. Install the package "
            "ros-$ROS_DISTRO-rviz2, or use Foxglove with the layout foxglove/mu0.json."
        )
        return LaunchDescription([*arguments, hint])
    share = Path(get_package_share_directory("mu0_bringup"))
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    viewer = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", str(share / "rviz" / "mu0.rviz")],
        parameters=[{"use_sim_time": use_sim_time}],
        remappings=[
            ("camera/color/image_raw", LaunchConfiguration("color_image")),
            ("robot_description", LaunchConfiguration("robot_description")),
            ("/tf", "tf"),
            ("/tf_static", "tf_static"),
        ],
    )
    return LaunchDescription([*arguments, viewer])
