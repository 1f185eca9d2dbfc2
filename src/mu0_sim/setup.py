from setuptools import find_packages, setup

package_name = "mu0_sim"

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
    description="Simulated robots, cameras and tasks behind the topics of a real robot.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "demo = mu0_sim.nodes.demo:main",
            "libero = mu0_sim.nodes.libero:main",
            "libero_policy_node = mu0_sim.nodes.libero_policy_node:main",
            "record = mu0_sim.nodes.record:main",
            "rollouts = mu0_sim.nodes.rollouts:main",
            "scripted_expert_node = mu0_sim.nodes.scripted_expert_node:main",
            "sim_node = mu0_sim.nodes.sim_node:main",
        ],
    },
)
