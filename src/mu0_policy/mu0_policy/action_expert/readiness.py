"""Own the check, before anything moves, that an action expert was trained for this robot."""

from collections.abc import Mapping

from mu0_core.embodiment import Embodiment
from mu0_core.errors import ConfigError
from mu0_policy.action_expert.card import ExpertCard

_SHAPE_TOLERANCE = 0.02


def check_card(card: ExpertCard, embodiment: Embodiment) -> None:
    """Compare a checkpoint's card with the robot's file.

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
    if faults:
        raise ConfigError("\n  ".join(["the action expert does not fit this robot:", *faults]))


def features_fault(card: ExpertCard, model: str, names: Mapping[str, object]) -> str:
    """Say why features are not those that an expert was trained with; empty = they are."""
    if model != card.features:
        return f"features of {model!r}, the expert was trained with those of {card.features!r}"
    missing = [name for name in ("context", "traces", "language") if name not in names]
    return f"features: no {', '.join(missing)}" if missing else ""


def picture_fault(card: ExpertCard, camera: str, width: int, height: int) -> str:
    """Say why a camera's pictures are not like those in training; empty = they are."""
    trained = dict(zip(card.cameras, card.picture_sizes, strict=True)).get(camera)
    if trained is None:
        return ""
    trained_width, trained_height = (int(size) for size in trained.split("x"))
    if abs(width / height - trained_width / trained_height) <= _SHAPE_TOLERANCE:
        return ""
    return (
        f"{camera} camera: pictures of {width}x{height} px, trained with {trained}: another shape"
    )
