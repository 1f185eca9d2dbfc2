"""Find demonstrations on disk, whatever keeps them, and read them one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mu0_core.config import option, validate
from mu0_core.embodiment import load_embodiment
from mu0_core.errors import ConfigError, EpisodeError
from mu0_core.folders import matching_folders
from mu0_policy.demonstrations.bag import (
    DEFAULT_DEPTH,
    DEFAULT_TOPICS,
    DEPTH,
    BagOptions,
    is_bag,
    read_bag,
)
from mu0_policy.demonstrations.demonstration import FRONT, Demonstration
from mu0_policy.demonstrations.lerobot import LeRobotNames, is_lerobot, read_lerobot
from mu0_policy.demonstrations.simulator import is_simulated, read_simulated


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Say where demonstrations are and how they are read."""

    demonstrations: tuple[str, ...] = option(
        description="Simulated episodes, LeRobot data sets or bags: folders, as globs"
    )
    camera_names: tuple[str, ...] = option(
        (),
        description="Cameras by our names, NAME=THEIRS: a LeRobot data set's camera or a bag's "
        "image topic; front is what the world model sees, depth its aligned depth",
    )
    gripper_open: float = option(0.0, description="State of the open gripper in LeRobot data")
    gripper_closed: float = option(1.0, description="State of the closed gripper in LeRobot data")
    embodiment_file: Path | None = option(None, description="The robot's file, for bags")
    bag_rate_hz: float = option(
        10.0, description="Moments a second in bags", unit="Hz", low=0.1, high=1000.0
    )
    instruction: str = option("", description="What was done, where bags do not say it")

    def __post_init__(self) -> None:
        wrong = [name for name in self.camera_names if "=" not in name]
        validate(
            self,
            f"camera_names: expected NAME=THEIRS, got {wrong[0]!r}" if wrong else None,
            None if self.demonstrations else "demonstrations: expected at least one folder",
            "gripper_closed: expected another value than gripper_open"
            if self.gripper_open == self.gripper_closed
            else None,
        )

    def theirs(self) -> dict[str, str]:
        """Return the names of cameras that were given."""
        pairs = (name.split("=", 1) for name in self.camera_names)
        return {ours: theirs for ours, theirs in pairs}


def read_demonstrations(
    config: SourceConfig, refused: list[str] | None = None
) -> Iterator[Demonstration]:
    """Read all demonstrations; they are not checked yet.

    Args:
        config: Where they are.
        refused: Takes what is wrong with a folder that cannot be read, so that all such are
            known in the end; None: the first one raises.

    Raises:
        EpisodeError: A folder cannot be found or read.
        ConfigError: Something is needed that the configuration does not say.
    """
    for path in matching_folders(config.demonstrations, "demonstrations"):
        try:
            yield from _read_folder(path, config)
        except EpisodeError as error:
            if refused is None:
                raise
            refused.append(str(error))


def _read_folder(path: Path, config: SourceConfig) -> Iterator[Demonstration]:
    if is_simulated(path):
        yield read_simulated(path)
    elif is_lerobot(path):
        names = LeRobotNames(
            cameras=config.theirs(),
            gripper_open=config.gripper_open,
            gripper_closed=config.gripper_closed,
        )
        yield from read_lerobot(path, names)
    elif is_bag(path):
        yield read_bag(path, _bag_options(config))
    else:
        raise EpisodeError(
            f"{path}: neither an episode with a robot folder (record with --actions), nor a "
            "LeRobot data set, nor a bag"
        )


def _bag_options(config: SourceConfig) -> BagOptions:
    if config.embodiment_file is None:
        raise ConfigError("embodiment_file: needed to read bags; it names joints and controllers")
    topics = {**DEFAULT_TOPICS, **config.theirs()}
    depth = topics.pop(DEPTH, DEFAULT_DEPTH)
    if FRONT not in topics:
        raise ConfigError(f"camera_names: expected {FRONT}=TOPIC among them")
    return BagOptions(
        embodiment=load_embodiment(config.embodiment_file),
        rate_hz=config.bag_rate_hz,
        topics=topics,
        depth=depth,
        instruction=config.instruction,
    )
