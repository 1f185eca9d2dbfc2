"""Own what a training starts from: demonstrations, read, checked and prepared, and their card.

Of a demonstration only what was prepared stays in memory: the pictures of many are gigabytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mu0_core.embodiment import Embodiment, arm_model, load_embodiment
from mu0_core.errors import EpisodeError
from mu0_core.kinematics import DifferentialIK
from mu0_core.shipped_robots import shipped_embodiments
from mu0_core.traces import PointsFrom
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.action_expert.card import ExpertCard, PlacesIn, place_fields
from mu0_policy.action_expert.feature_cache import Prepared, prepare
from mu0_policy.action_expert.frozen import FeatureExtractor
from mu0_policy.action_expert.readiness import focal_length_fault, shape_fault
from mu0_policy.action_expert.training_config import ExpertTrainingConfig
from mu0_policy.camera_places import CameraPlace, middle
from mu0_policy.demonstrations.demonstration import FRONT, Demonstration, Wanted, faults
from mu0_policy.demonstrations.reading import read_demonstrations

_WITHOUT_POINTS = 0.1  # share of moments


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Facts:
    """Hold what a card tells of a demonstration, whose pictures are left behind.

    Attributes:
        origin: What tells its features from those of others.
        sizes: Width and height of pictures by camera, px.
        focal_lengths: By camera, over the pictures' height; 0 = not known.
        places: By camera, None = not known.
        description: The robot's URDF; empty = not told.
        q_low: (j,) least position of each joint, rad.
        q_high: Likewise the greatest.
    """

    robot: str
    joints: tuple[str, ...]
    gripper_joints: tuple[str, ...]
    rate_hz: float
    instruction: str
    origin: str
    sizes: Mapping[str, tuple[int, int]]
    focal_lengths: Mapping[str, float]
    places: Mapping[str, CameraPlace | None]
    description: str
    q_low: NDArray[np.float64]
    q_high: NDArray[np.float64]


def load_all(
    config: ExpertTrainingConfig, extractor: FeatureExtractor
) -> tuple[list[Facts], list[Prepared]]:
    """Read, check and prepare all demonstrations.

    Raises:
        EpisodeError: One cannot be used, or there is none; the message lists every fault of
            every one.
    """
    shown: list[Facts] = []
    prepared: list[Prepared] = []
    wrong: list[str] = []
    cache = config.cache or config.output / "cache"
    body = None
    if config.embodiment_file is not None:
        body = load_embodiment(config.embodiment_file)
    wanted: Wanted | None = None
    sources = read_demonstrations(config, wrong)
    for one in tqdm(sources, unit="demonstration", desc="features"):
        joints = one.joints if body is None else body.arm.joints
        wanted = wanted or Wanted(joints=joints, cameras=config.cameras, rate_hz=one.rate_hz)
        try:
            found = [
                *faults(one, wanted),
                *_robot_faults(one, body),
                *_point_faults(one, config.points),
            ]
            if not found:
                facts = _facts(one, config.cameras, extractor.origin(depth=one.depth is not None))
                found = _differences(facts, shown[0]) if shown else []
            if not found and not wrong:  # else there is no training, and nothing to prepare for
                prepared.append(prepare(one, config.cameras, extractor, facts.origin, cache))
        except EpisodeError as error:  # a picture that cannot be decoded
            found = [str(error)]
        if found:
            wrong.append("\n    ".join([f"{one.name}:", *found]))
        else:
            shown.append(facts)
    if wrong:
        raise EpisodeError("\n  ".join(["demonstrations that cannot be used:", *wrong]))
    if not shown:
        raise EpisodeError(f"demonstrations: none in {', '.join(config.demonstrations)}")
    return shown, prepared


def body_of(config: ExpertTrainingConfig, robot: str) -> Embodiment | None:
    """Load a robot's embodiment: the file that is named, or the shipped one; None = neither."""
    if config.embodiment_file is not None:
        return load_embodiment(config.embodiment_file)
    shipped = shipped_embodiments().get(robot)
    return None if shipped is None else load_embodiment(shipped)


def kinematics(card: ExpertCard, body: Embodiment | None, urdf: str) -> DifferentialIK | None:
    """Return the kinematics of the tool, where an expert needs them and the robot is known.

    Raises:
        ConfigError: Its embodiment takes the description from recordings, and none came.
    """
    if body is None or not card.tool_frame:
        return None
    home = np.array(body.arm.home_q)
    return DifferentialIK(arm_model(body, urdf or None), body.tool_frame, q_nominal=home)


def make_card(
    config: ExpertTrainingConfig, shown: Sequence[Facts], body: Embodiment | None
) -> ExpertCard:
    """Say what an expert that is trained on these demonstrations is for."""
    first, cameras = shown[0], (FRONT, *config.cameras)
    front, *sizes = ("{}x{}".format(*first.sizes[camera]) for camera in cameras)
    places = config.places if config.points is PointsFrom.KEYPOINTS else PlacesIn.PICTURE
    of_tool = config.space is ActionSpace.TOOL_DELTAS or places is PlacesIn.TOOL
    return ExpertCard(
        robot=first.robot,
        joints=first.joints,
        gripper_joints=first.gripper_joints,
        space=config.space,
        rate_hz=first.rate_hz,
        features=first.origin,
        points=config.points,
        places=places,
        cameras=config.cameras,
        picture_sizes=tuple(sizes),
        front_size=front,
        focal_lengths=tuple(round(first.focal_lengths[camera], 5) for camera in cameras),
        **place_fields([middle([one.places[camera] for one in shown]) for camera in cameras]),
        joints_low=tuple(np.min([one.q_low for one in shown], axis=0).round(4).tolist()),
        joints_high=tuple(np.max([one.q_high for one in shown], axis=0).round(4).tolist()),
        tool_frame=body.tool_frame if of_tool and body is not None else "",
        most_known=config.most_known,
        instructions=tuple(sorted({one.instruction for one in shown})),
        demonstrations=len(shown),
    )


def data_digest(origin: str, prepared: Sequence[Prepared]) -> str:
    """Summarise demonstrations in their order, and what made their features."""
    digest = hashlib.blake2b(origin.encode(), digest_size=12)
    for one in prepared:
        for rows in (one.q, one.commands):
            digest.update(rows.tobytes())
    return digest.hexdigest()


def _facts(one: Demonstration, cameras: tuple[str, ...], origin: str) -> Facts:
    names = (FRONT, *cameras)
    return Facts(
        robot=one.robot,
        joints=one.joints,
        gripper_joints=one.gripper_joints,
        rate_hz=one.rate_hz,
        instruction=one.instruction,
        origin=origin,
        sizes={camera: one.picture_size(camera) for camera in names},
        focal_lengths={camera: one.focal_lengths.get(camera, 0.0) for camera in names},
        places={camera: one.camera_places.get(camera) for camera in names},
        description=one.robot_description,
        q_low=one.q.min(axis=0),
        q_high=one.q.max(axis=0),
    )


def _robot_faults(one: Demonstration, body: Embodiment | None) -> list[str]:
    """Find what the embodiment file says otherwise."""
    if body is None:
        return []
    pairs = (
        ("robot", one.robot, body.name),
        ("gripper joints", ", ".join(one.gripper_joints), ", ".join(body.gripper.joints)),
    )
    return [
        f"{what}: expected {wanted!r} as in the embodiment file, got {got!r}"
        for what, got, wanted in pairs
        if got and got != wanted
    ]


def _point_faults(one: Demonstration, points: PointsFrom) -> list[str]:
    """Find that keypoints are wanted that are not there."""
    if points is not PointsFrom.KEYPOINTS:
        return []
    if one.keypoints is None:
        return [
            "keypoints: none; `ros2 run mu0_perception track_episodes` makes them for episodes, "
            "bags need the topic /mu0/keypoints; or take --points grid"
        ]
    without = sum(not len(rows) for rows in one.keypoints)
    if without <= _WITHOUT_POINTS * len(one):
        return []
    return [f"keypoints: none in {without} of {len(one)} moments; is depth there, things in view?"]


def _differences(one: Facts, first: Facts) -> list[str]:
    """Find what is otherwise than in the first demonstration: one expert cannot serve both."""
    found = []
    if one.robot != first.robot:
        found.append(f"robot: expected {first.robot!r}, got {one.robot!r}")
    if one.origin != first.origin:
        found.append("depth: some demonstrations have depth pictures, some have none")
    for camera, size in one.sizes.items():
        found.append(shape_fault(camera, size, first.sizes[camera]))
        lengths = one.focal_lengths[camera], first.focal_lengths[camera]
        found.append(focal_length_fault(camera, *lengths))
        here, there = one.places[camera], first.places[camera]
        if here is not None and there is not None and here.mount is not there.mount:
            found.append(
                f"{camera} camera: fixed to the {here.mount}, in others to the {there.mount}"
            )
    return [fault for fault in found if fault]
