from setuptools import find_packages, setup

package_name = "mu0_perception"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="mu0 for ROS 2 maintainers",
    maintainer_email="maintainers@mu0-ros.dev",
    description="Live keypoints on objects and gripper; TraceExtract: recordings to episodes.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "extract = mu0_perception.extract.cli:main",
            "validate = mu0_perception.extract.validate:main",
            "view = mu0_perception.view:main",
            "track_episodes = mu0_perception.track_episodes:main",
            "keypoint_tracker_node = mu0_perception.nodes.keypoint_tracker_node:main",
        ],
        "mu0.keypoint_trackers": [
            "live = mu0_perception.benchmark_tracker:make",
        ],
    },
)
