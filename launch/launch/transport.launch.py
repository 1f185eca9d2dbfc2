"""Give Fast DDS room for camera pictures, unless the user has a profile of their own.

Included by every launch file that starts nodes.
"""

from launch import LaunchDescription
from launch.actions import SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, PathJoinSubstitution, PythonExpression
from launch_ros.substitutions import FindPackageShare

PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"


def generate_launch_description() -> LaunchDescription:
    """Set the profile that ships with this package."""
    profile = PathJoinSubstitution(
        [FindPackageShare("mu0_bringup"), "config", "fastdds_profile.xml"]
    )
    current = EnvironmentVariable(PROFILE_VARIABLE, default_value="")
    unset = IfCondition(PythonExpression(["'", current, "' == ''"]))
    return LaunchDescription([SetEnvironmentVariable(PROFILE_VARIABLE, profile, condition=unset)])
