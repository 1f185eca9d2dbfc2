from glob import glob

from setuptools import find_packages, setup

package_name = "mu0_policy"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/config/embodiments", glob("config/embodiments/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="mu0 for ROS 2 maintainers",
    maintainer_email="maintainers@mu0-ros.dev",
    description="Policies: predicted traces in, safe joint commands out; one file for each robot.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "ablate_action_expert = mu0_policy.action_expert.ablation:main",
            "action_expert_node = mu0_policy.nodes.action_expert_node:main",
            "export_lerobot = mu0_policy.demonstrations.export_lerobot:main",
            "train_action_expert = mu0_policy.action_expert.train:main",
            "trace_follower_node = mu0_policy.nodes.trace_follower_node:main",
        ],
        "mu0.benchmark_policies": [
            "action_expert = mu0_policy.action_expert.benchmark_policy:make",
        ],
    },
)
