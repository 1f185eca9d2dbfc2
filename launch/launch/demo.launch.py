"""Show a simulated arm lifting a cube; ends by itself.

ros2 launch mu0_bringup demo.launch.py robot:=iiwa seed:=3
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# What both the simulator and the expert have to know: type, default, meaning, choices.
SCENE = {
    "robot": (str, "panda", "Robot arm", ["panda", "ur5e", "iiwa"]),
    "task": (str, "lift", "Task: one cube, or a named one of two", ["lift", "lift_named"]),
    "seed": (int, "0", "Seed of the scene: objects, camera pose, light, texture", None),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the simulator and the scripted expert that commands it."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (_, default, text, choices) in SCENE.items()
    ]
    simulator = IncludeLaunchDescription(
        PathJoinSubstitution([ThisLaunchFileDir(), "sim.launch.py"]),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in SCENE],
    )
    expert = Node(
        package="mu0_sim",
        executable="scripted_expert_node",
        parameters=[
            {"use_sim_time": True}
            | {
                name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                for name, (kind, *_) in SCENE.items()
            }
        ],
        output="screen",
        on_exit=Shutdown(reason="the expert has finished"),
    )
    return LaunchDescription([*arguments, simulator, expert])
