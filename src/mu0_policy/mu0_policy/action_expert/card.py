"""Own what a checkpoint says of itself: the robot, cameras, rates and features it was made for."""

from dataclasses import dataclass

from mu0_core.config import option, validate
from mu0_policy.action_expert.actions import ActionSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCard:
    """Say what an action expert was trained for."""

    robot: str = option(description="Name in the embodiment file")
    joints: tuple[str, ...] = option(description="The arm's joints, from base to hand")
    gripper_joints: tuple[str, ...] = option(description="The gripper's driving joints")
    space: ActionSpace = option(ActionSpace.JOINTS, description="What the actions are")
    rate_hz: float = option(description="Actions a second", unit="Hz", low=0.1, high=1000.0)
    features: str = option(description="What made the features: checkpoint, digest, settings")
    cameras: tuple[str, ...] = option((), description="Cameras beside the world model's")
    picture_sizes: tuple[str, ...] = option(
        (), description="Of these in the demonstrations, as WIDTHxHEIGHT", unit="px"
    )
    front_size: str = option(
        "", description="Of the world model's pictures, likewise; empty: not known", unit="px"
    )
    focal_lengths: tuple[float, ...] = option(
        (),
        description="Of the front camera, then of these, over the pictures' height; 0: not known",
    )
    joints_low: tuple[float, ...] = option(
        (), description="Least position of each joint in the demonstrations", unit="rad"
    )
    joints_high: tuple[float, ...] = option((), description="Greatest, likewise", unit="rad")
    tool_frame: str = option("", description="Tool whose motions the actions are, if they are")
    most_known: int = option(
        0, description="Actions that may be given at the head of a chunk", low=0
    )
    instructions: tuple[str, ...] = option((), description="Instructions it was trained with")
    demonstrations: int = option(0, description="Demonstrations it was trained on", low=0)
    step: int = option(0, description="Steps of training", low=0)
    held_out_rad: float | None = option(
        None, description="Error of the joints in held-out demonstrations", unit="rad"
    )

    def __post_init__(self) -> None:
        cameras, joints = len(self.cameras), len(self.joints)
        uneven = [
            f"{name}: expected {n}, got {len(values)}"
            for name, values, n, needed in (
                ("picture_sizes", self.picture_sizes, cameras, True),
                ("focal_lengths", self.focal_lengths, 1 + cameras, False),
                ("joints_low", self.joints_low, joints, False),
                ("joints_high", self.joints_high, joints, False),
            )
            if len(values) != n and (needed or values)
        ]
        validate(self, *uneven)


def readme(card: ExpertCard, n_weights: int) -> str:
    """Write the card as Markdown."""
    error = "not measured" if card.held_out_rad is None else f"{card.held_out_rad:.4f} rad"
    cameras = [
        f"{name} ({size} px)" for name, size in zip(card.cameras, card.picture_sizes, strict=True)
    ]
    rows = {
        "Robot": card.robot,
        "Joints": ", ".join(card.joints),
        "Gripper": ", ".join(card.gripper_joints),
        "Actions": f"{card.space.value}, {card.rate_hz:g} a second",
        "Features": card.features,
        "Cameras": ", ".join(cameras) or "none of its own",
        "Instructions": "; ".join(card.instructions[:8]),
        "Demonstrations": str(card.demonstrations),
        "Training": f"{card.step} steps",
        "Held-out error": error,
        "Weights": f"{n_weights / 1e6:.2f} million",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    text = "Turns features of the frozen μ₀ world model into chunks of joint commands."
    return "\n".join(["# Action expert", "", text, "", "| | |", "| --- | --- |", *lines, ""])
