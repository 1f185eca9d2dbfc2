"""Show a simulated arm doing what an instruction says by traces that μ₀ predicts; ends by itself.

ros2 launch mu0_bringup demo.launch.py robot:=iiwa seed:=3
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

# Arguments: default, meaning, choices; and who gets them.
SCENE = {
    "robot": ("panda", "Robot arm", ["panda", "ur5e", "iiwa"]),
    "task": ("lift", "Task: one cube, or a named one of two", ["lift", "lift_named"]),
    "seed": ("0", "Seed of the scene: objects, camera pose, light, texture", None),
}
GRAPH = {
    "predictor": (
        "model",
        "What predicts: the model, or a baseline without one",
        ["model", "static", "constant_velocity"],
    ),
    "checkpoint": ("mu0-tiny", "Shipped checkpoint, path of a folder, or hub id", None),
    "rviz": ("false", "Show camera, robot and traces in RViz", ["true", "false"]),
}
SIMULATOR = {
    "step_lock": (
        "true",
        "Simulated time waits for the traces of each picture, for slow machines",
        ["true", "false"],
    ),
}
DEMO = {
    "out": ("out/demo", "Folder that gets a folder with video, figures and bag", None),
}


def generate_launch_description() -> LaunchDescription:
    """Describe simulator, tracker, model, policy, and who asks for the task and watches."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, choices) in {**SCENE, **GRAPH, **SIMULATOR, **DEMO}.items()
    ]
    simulator = _included("sim.launch.py", [*SCENE, *SIMULATOR])
    graph = _included("mu0.launch.py", ["robot", *GRAPH], use_sim_time="true")
    words = [word for name in (*SCENE, *DEMO) for word in (f"--{name}", LaunchConfiguration(name))]
    demo = Node(
        package="mu0_sim",
        executable="demo",
        arguments=words,
        output="screen",
        on_exit=Shutdown(reason="the demonstration is over"),
    )
    return LaunchDescription([*arguments, simulator, graph, demo])


def _included(file: str, names: list[str], **more: str) -> IncludeLaunchDescription:
    """Include a launch file of this folder with arguments of this one."""
    given = [(name, LaunchConfiguration(name)) for name in names]
    return IncludeLaunchDescription(
        PathJoinSubstitution([ThisLaunchFileDir(), file]),
        launch_arguments=[*given, *more.items()],
    )
