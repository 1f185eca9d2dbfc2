"""Own the check, before anything moves, that an action expert was trained for what is here.

The checkpoint's card is compared with the robot's file, and then with what the graph shows: joint
states, cameras, their rates and places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mu0_core.embodiment import Embodiment, JointLimits
from mu0_core.errors import ConfigError
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.action_expert.card import ExpertCard
from mu0_policy.action_expert.normaliser import Normaliser
from mu0_policy.camera_places import place_fault
from mu0_policy.demonstrations.demonstration import FRONT

_SHAPE_TOLERANCE = 0.02
_FOCAL_TOLERANCE = 0.05  # a share
_RATE_TOLERANCE = 0.8  # a share: stamps of busy machines are uneven
_FEWEST_STAMPS = 3
_BEYOND_LIMITS_RAD = 0.1
_OTHER_PLACE_RAD = 0.5  # between means of actions and what they are of


@dataclass(slots=True)
class Stream:
    """Hold what has been seen of one topic.

    Attributes:
        topic: Its name.
        stamps_s: When its newest messages were made.
        size: Width and height of its pictures, px; None where none came.
        focal_length: Of its camera, over the pictures' height; 0 = not known.
        frame: Optical frame of its camera.
        T_mount_camera: (4, 4) pose of that in what the camera was fixed to in training; None =
            not known.
    """

    topic: str
    stamps_s: list[float] = field(default_factory=list)
    size: tuple[int, int] | None = None
    focal_length: float = 0.0
    frame: str = ""
    T_mount_camera: NDArray[np.float64] | None = None

    @property
    def rate_hz(self) -> float | None:
        """Messages a second at best, None where too few came to tell; a busy machine stalls."""
        periods_s = np.diff(self.stamps_s)
        if len(self.stamps_s) < _FEWEST_STAMPS or not (periods_s > 0.0).any():
            return None
        return 1.0 / float(periods_s[periods_s > 0.0].min())


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Say how an expert is going to be asked.

    Attributes:
        turns_hz: Turns of the policy a second.
        lead_s: Time that a command has to reach the controller.
        max_picture_age_s: How old a picture may be.
    """

    turns_hz: float
    lead_s: float
    max_picture_age_s: float


def check_card(
    card: ExpertCard, embodiment: Embodiment, limits: JointLimits, statistics: Normaliser
) -> None:
    """Compare a checkpoint's card with the robot's file and with its own statistics.

    Raises:
        ConfigError: They differ; the message has one line for each difference.
    """
    faults = []
    if card.robot and card.robot != embodiment.name:
        faults.append(f"robot: trained for {card.robot!r}, this is {embodiment.name!r}")
    for what, trained, here in (
        ("joints", card.joints, embodiment.arm.joints),
        ("gripper joints", card.gripper_joints, embodiment.gripper.joints),
    ):
        if trained and trained != here:
            order = ": another order" if sorted(trained) == sorted(here) else ""
            faults.append(
                f"{what}: trained with {', '.join(trained)}, here are {', '.join(here)}{order}"
            )
    if card.tool_frame and card.tool_frame != embodiment.tool_frame:
        faults.append(
            f"tool: trained on motions of {card.tool_frame!r}, here the tool is "
            f"{embodiment.tool_frame!r}"
        )
    if card.joints == limits.joint_names:
        faults += _unit_faults(card, limits)
    _refuse(
        "the action expert does not fit this robot:", [*faults, *_space_faults(card, statistics)]
    )


def check_seen(
    card: ExpertCard, joint_states: Stream, cameras: Mapping[str, Stream], timing: Timing
) -> None:
    """Compare a checkpoint's card with what the graph shows.

    Args:
        card: Of the checkpoint.
        joint_states: Joint states of the robot.
        cameras: By name; FRONT is the world model's, if it was looked at.
        timing: How the expert is going to be asked.

    Raises:
        ConfigError: They differ; the message has one line for each difference.
    """
    faults = []
    rate_hz = joint_states.rate_hz
    if rate_hz is not None and rate_hz < _RATE_TOLERANCE * card.rate_hz:
        faults.append(
            f"{joint_states.topic}: {rate_hz:.1f} a second, the expert was trained on "
            f"{card.rate_hz:g} moments a second"
        )
    for name, stream in cameras.items():
        if stream.size is None:
            faults.append(f"{name} camera: nothing came; check the topic {stream.topic}")
            continue
        faults += _camera_faults(card, name, stream)
        lowest_hz = _RATE_TOLERANCE / timing.max_picture_age_s
        if name != FRONT and stream.rate_hz is not None and stream.rate_hz < lowest_hz:
            faults.append(
                f"{name} camera: {stream.rate_hz:.1f} pictures a second on {stream.topic}, which "
                f"may be {timing.max_picture_age_s:g} s old: expected at least {lowest_hz:.1f}"
            )
    soonest_s = 1.0 / timing.turns_hz + timing.lead_s
    if card.most_known and soonest_s * card.rate_hz > card.most_known + 1.0:
        faults.append(
            f"rates: at {timing.turns_hz:g} turns a second an answer takes over after "
            f"{soonest_s:.2f} s at the soonest, the expert bridges {card.most_known} commands of "
            f"{card.rate_hz:g} a second; raise rate_hz"
        )
    _refuse("what the action expert sees is not what it was trained on:", faults)


def features_fault(card: ExpertCard, model: str, names: Mapping[str, object]) -> str:
    """Say why features are not those that an expert was trained with; empty = they are."""
    if model != card.features:
        return f"features of {model!r}, the expert was trained with those of {card.features!r}"
    missing = [name for name in ("context", "traces", "language") if name not in names]
    return f"features: no {', '.join(missing)}" if missing else ""


def picture_fault(card: ExpertCard, camera: str, width: int, height: int) -> str:
    """Say why a camera's pictures are not like those in training; empty = they are."""
    sizes = dict(zip(card.cameras, card.picture_sizes, strict=True)) | {FRONT: card.front_size}
    trained = sizes.get(camera)
    if not trained:
        return ""
    trained_width, trained_height = (int(size) for size in trained.split("x"))
    return shape_fault(camera, (width, height), (trained_width, trained_height))


def shape_fault(camera: str, here: tuple[int, int], trained: tuple[int, int]) -> str:
    """Say that pictures of a width and a height have another shape; empty = they have not."""
    if abs(here[0] / here[1] - trained[0] / trained[1]) <= _SHAPE_TOLERANCE:
        return ""
    return (
        f"{camera} camera: pictures of {here[0]}x{here[1]} px, trained with "
        f"{trained[0]}x{trained[1]}: another shape"
    )


def focal_length_fault(camera: str, here: float, trained: float) -> str:
    """Say that a focal length over the pictures' height is another one; 0 = not known."""
    if not (trained and here) or abs(here / trained - 1.0) <= _FOCAL_TOLERANCE:
        return ""
    return (
        f"{camera} camera: focal length {here:.3f} of the pictures' height, trained with "
        f"{trained:.3f}: another lens, or another part of the picture"
    )


def not_compared(card: ExpertCard, cameras: Mapping[str, Stream]) -> list[str]:
    """Say which places of cameras nobody can compare, and why."""
    found = []
    for name, stream in cameras.items():
        if card.place(name) is None:
            found.append(f"{name} camera: its place in the demonstrations is not known")
        elif stream.T_mount_camera is None:
            found.append(f"{name} camera: TF does not know where {stream.frame!r} is")
    return found


def _camera_faults(card: ExpertCard, name: str, stream: Stream) -> list[str]:
    """Compare size, intrinsics and place of a camera that is there."""
    assert stream.size is not None
    lengths = dict(zip((FRONT, *card.cameras), card.focal_lengths, strict=False))
    faults = [
        picture_fault(card, name, *stream.size),
        focal_length_fault(name, stream.focal_length, lengths.get(name, 0.0)),
    ]
    place = card.place(name)
    if place is not None and stream.T_mount_camera is not None:
        faults.append(place_fault(name, place, stream.T_mount_camera))
    return [fault for fault in faults if fault]


def _unit_faults(card: ExpertCard, limits: JointLimits) -> list[str]:
    """Find joints whose demonstrations this arm could not have made."""
    rows = zip(
        card.joints,
        card.joints_low,
        card.joints_high,
        limits.position_lower,
        limits.position_upper,
        strict=False,
    )
    return [
        f"{joint}: between {low:.2f} and {high:.2f} in the demonstrations, its limits are "
        f"[{lower:.2f}, {upper:.2f}] rad: other units, or another zero"
        for joint, low, high, lower, upper in rows
        if low < lower - _BEYOND_LIMITS_RAD or high > upper + _BEYOND_LIMITS_RAD
    ]


def _space_faults(card: ExpertCard, statistics: Normaliser) -> list[str]:
    """Find actions that are not what the card says: absolute ones, say."""
    n = len(card.joints)
    actions, states = np.array(statistics.action_mean), np.array(statistics.state_mean)
    expected = 6 if card.space is ActionSpace.TOOL_DELTAS else n
    if len(actions) != expected + 1:
        return [
            f"actions: {len(actions)} numbers each, {card.space.value} of {n} joints have "
            f"{expected + 1} with the gripper's"
        ]
    if card.space is ActionSpace.TOOL_DELTAS:
        return []
    about = states[:n] if card.space is ActionSpace.JOINTS else np.zeros(n)
    apart = np.abs(actions[:n] - about)
    worst = int(apart.argmax())
    if apart[worst] <= _OTHER_PLACE_RAD:
        return []
    return [
        f"actions: the card says {card.space.value}, but those of {card.joints[worst]} are about "
        f"{actions[worst]:.2f} rad where {about[worst]:.2f} rad is expected: absolute positions "
        "and relative ones are mixed up"
    ]


def _refuse(heading: str, faults: Sequence[str]) -> None:
    if faults:
        raise ConfigError("\n  ".join([heading, *faults]))
