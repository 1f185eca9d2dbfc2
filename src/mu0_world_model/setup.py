from pathlib import Path

from setuptools import find_packages, setup

package_name = "mu0_world_model"
# The shipped checkpoints stand at the root of the repository.
checkpoints = sorted(path for path in Path("../../models").glob("*") if path.is_dir())

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        *(
            (
                f"share/{package_name}/models/{folder.name}",
                sorted(str(path) for path in folder.iterdir() if path.is_file()),
            )
            for folder in checkpoints
        ),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="mu0 for ROS 2 maintainers",
    maintainer_email="maintainers@mu0-ros.dev",
    description="The mu0 trace world model: checkpoints, prediction, training, evaluation.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "benchmark = mu0_world_model.benchmark:main",
            "benchmark_data = mu0_world_model.benchmark_data:main",
            "predict = mu0_world_model.predict:main",
            "train = mu0_world_model.train:main",
            "evaluate = mu0_world_model.evaluate:main",
            "watch = mu0_world_model.watch:main",
            "world_model_node = mu0_world_model.nodes.world_model_node:main",
        ],
    },
)
