from setuptools import find_packages, setup

package_name = "mu0_core"

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
    description="Shared core: geometry, traces, episodes, configuration, the ROS side of nodes.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": ["validate_episode = mu0_core.episode_validator:main"],
    },
)
