"""Ask a running policy to do the task of a simulated scene, and say how it went.

Started by demo.launch.py. Leaves a folder with a video of what the model sees and predicts, the
figures as JSON, and a bag of all topics.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from mu0_core.config import add_arguments, from_namespace, option, to_dict, validate
from mu0_core.errors import Mu0Error
from mu0_core.ros.interfaces import create_subscription
from mu0_core.ros.messages import rgb_from_image
from mu0_sim.nodes.child import Child
from mu0_sim.nodes.rollout_graph import RolloutGraph
from mu0_sim.rollout_processes import Process
from mu0_sim.rollouts import SuccessWatch

_VIDEO_HZ = 10.0
_SCALE = 2
_TELL_EVERY_S = 2.0
# Made only while somebody listens, and nobody else does here.
_NOT_RECORDED = ("/mu0/trace_features", "/wrist_camera/color/image_raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Name the scene, and what is kept of it."""

    robot: str = option("panda", description="panda, ur5e or iiwa")
    task: str = option("lift", description="lift or lift_named")
    seed: int = option(0, description="Seed of the scene", low=0)
    out: Path = option(Path("out/demo"), description="Folder that gets a folder of this run")
    bag: bool = option(True, description="Record what the graph exchanges")
    time_limit_s: float = option(60.0, description="Simulated time, at most", unit="s", low=1.0)
    hold_s: float = option(1.0, description="How long success must last", unit="s", low=0.0)

    def __post_init__(self) -> None:
        validate(self)


class Film:
    """Write the pictures of a topic as a video; the file begins with the first picture."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: cv2.VideoWriter | None = None
        self.n_pictures = 0

    def add(self, message: Image) -> None:
        """Add a picture."""
        rgb = rgb_from_image(message)
        size = (rgb.shape[1] * _SCALE, rgb.shape[0] * _SCALE)
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, _VIDEO_HZ, size)
        larger = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
        self._writer.write(cv2.cvtColor(larger, cv2.COLOR_RGB2BGR))
        self.n_pictures += 1

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def run(config: DemoConfig, folder: Path) -> dict[str, Any]:
    """Run the demonstration and return its summary.

    Raises:
        Mu0Error: The graph does not run, or the policy refuses.
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        graph = RolloutGraph()
        stack.callback(graph.close)
        film = Film(folder / "video.mp4")
        stack.callback(film.close)
        create_subscription(graph.node, "mu0/overlay", film.add)
        if config.bag:
            stack.enter_context(Child(_recorder(folder / "bag")))
        instruction = graph.reset(config.task, config.seed)
        _say(f"the instruction is: {instruction}")
        graph.begin(instruction, config.time_limit_s)
        stack.callback(graph.end)
        success, seconds, ending = _watch(config, graph)
        graph.end()
        verdict = (
            f"done: the cube is lifted {seconds:.1f} s after the start"
            if success
            else f"not done within {seconds:.1f} s: {ending}"
        )
        return {
            "success": success,
            "verdict": verdict,
            "instruction": instruction,
            "lifted": graph.lifted(),
            "simulated_s": round(seconds, 2),
            "real_time_factor": round(float(np.mean(graph.factors)), 2) if graph.factors else None,
            "pictures": film.n_pictures,
            "policy": graph.figures,
            "settings": to_dict(config),
            "versions": {
                "python": platform.python_version(),
                "numpy": version("numpy"),
                "mujoco": version("mujoco"),
            },
        }


def _watch(config: DemoConfig, graph: RolloutGraph) -> tuple[bool, float, str]:
    """Wait for success, the end of the task or the limit: success, simulated s, reason."""
    start_s = graph.now_s or 0.0
    watch = SuccessWatch(start_s=start_s, time_limit_s=config.time_limit_s, hold_s=config.hold_s)
    told_s = start_s
    while True:
        graph.spin()
        now_s = graph.now_s or 0.0
        if now_s - told_s >= _TELL_EVERY_S:
            told_s = now_s
            _say(f"{now_s - start_s:.0f} s: {graph.policy_says}")
        verdict = watch.update(now_s, graph.success)
        ending = graph.outcome()
        if verdict is not None or (ending and not graph.success):
            return bool(verdict), now_s - start_s, ending or "the time is over"


def _recorder(path: Path) -> Process:
    words = ("ros2", "bag", "record", "-a", "-s", "mcap", "-o", str(path))
    return Process(name="bag recorder", words=(*words, "--exclude-topics", *_NOT_RECORDED))


def _say(text: str) -> None:
    sys.stdout.write(f"demo: {text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; exit code 0 if the task was done, 1 if not."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    add_arguments(parser, DemoConfig)
    own = remove_ros_args(sys.argv if arguments is None else ["demo", *arguments])[1:]
    try:
        config = from_namespace(DemoConfig, parser.parse_args(own))
        folder = config.out / time.strftime("%Y-%m-%d_%H-%M-%S")
        summary = run(config, folder)
    except Mu0Error as error:
        parser.exit(2, f"demo: VERDICT: not done: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "demo: stopped\n")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _say(f"VERDICT: {summary['verdict']}")
    _say(f"video, figures and bag are in {folder}")
    return 0 if summary["success"] else 1


if __name__ == "__main__":
    sys.exit(main())
