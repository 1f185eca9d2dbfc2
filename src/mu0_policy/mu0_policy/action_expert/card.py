"""Own what a checkpoint says of itself: the robot, cameras, rates and features it was made for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from mu0_core import se3
from mu0_core.config import option, validate
from mu0_core.traces import PointsFrom
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.camera_places import CameraPlace, Mount
from mu0_policy.demonstrations.demonstration import FRONT


class PlacesIn(StrEnum):
    """Say where an expert is told that the points of trace features are."""

    PICTURE = "picture"
    """In the front camera's picture, with depth."""
    TOOL = "tool"
    """In the frame of the robot's tool."""


CONFIG_FILE = "config.json"
"""Holds the card in a checkpoint's folder."""
_POSE, _SPREAD = 7, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCard:
    """Say what an action expert was trained for."""

    robot: str = option(description="Name in the embodiment file")
    joints: tuple[str, ...] = option(description="The arm's joints, from base to hand")
    gripper_joints: tuple[str, ...] = option(description="The gripper's driving joints")
    space: ActionSpace = option(ActionSpace.JOINTS, description="What the actions are")
    rate_hz: float = option(description="Actions a second", unit="Hz", low=0.1, high=1000.0)
    features: str = option(description="What made the features: checkpoint, digest, settings")
    points: PointsFrom = option(PointsFrom.GRID, description="What trace features are of")
    places: PlacesIn = option(PlacesIn.PICTURE, description="Where their points are told to be")
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
    camera_mounts: tuple[str, ...] = option(
        (),
        description="What the front camera and these are fixed to: base or tool; empty: not known",
    )
    camera_poses: tuple[float, ...] = option(
        (), description="Their places there, seven numbers each: x, y, z, qx, qy, qz, qw", unit="m"
    )
    camera_spreads: tuple[float, ...] = option(
        (), description="How far from there they were in demonstrations, each m and rad", low=0.0
    )
    joints_low: tuple[float, ...] = option(
        (), description="Least position of each joint in the demonstrations", unit="rad"
    )
    joints_high: tuple[float, ...] = option((), description="Greatest, likewise", unit="rad")
    tool_frame: str = option(
        "", description="Tool whose motions the actions are, or that points are seen from"
    )
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
                ("camera_mounts", self.camera_mounts, 1 + cameras, False),
                ("camera_poses", self.camera_poses, _POSE * len(self.camera_mounts), True),
                ("camera_spreads", self.camera_spreads, _SPREAD * len(self.camera_mounts), True),
                ("joints_low", self.joints_low, joints, False),
                ("joints_high", self.joints_high, joints, False),
            )
            if len(values) != n and (needed or values)
        ]
        odd = [name for name in self.camera_mounts if name and name not in list(Mount)]
        validate(
            self, *uneven, f"camera_mounts: expected base or tool, got {odd[0]!r}" if odd else None
        )

    def place(self, camera: str) -> CameraPlace | None:
        """Return where a camera was in the demonstrations; None = not known."""
        names = (FRONT, *self.cameras)
        index = names.index(camera) if camera in names else len(self.camera_mounts)
        if index >= len(self.camera_mounts) or not self.camera_mounts[index]:
            return None
        pose = self.camera_poses[_POSE * index : _POSE * (index + 1)]
        spread_m, spread_rad = self.camera_spreads[_SPREAD * index : _SPREAD * (index + 1)]
        return CameraPlace(
            mount=Mount(self.camera_mounts[index]),
            T_mount_camera=se3.transform_from_quat_xyzw(pose[:3], pose[3:]),
            spread_m=spread_m,
            spread_rad=spread_rad,
        )


def read_points(folder: Path) -> PointsFrom | None:
    """Return what the features are of that the expert in a folder reads; None = cannot be told."""
    try:
        raw = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return PointsFrom(raw["card"].get("points", PointsFrom.GRID))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # loading it says what is wrong


def place_fields(places: Sequence[CameraPlace | None]) -> dict[str, Any]:
    """Return the fields of a card for the places of the front camera and of its cameras."""
    mounts: list[str] = []
    poses: list[float] = []
    spreads: list[float] = []
    for place in places:
        T = np.eye(4) if place is None else place.T_mount_camera
        mounts.append("" if place is None else place.mount.value)
        poses += [*T[:3, 3].round(4).tolist(), *se3.quat_xyzw_from_transform(T).round(5).tolist()]
        spread = (0.0, 0.0) if place is None else (place.spread_m, place.spread_rad)
        spreads += [round(value, 4) for value in spread]
    return {
        "camera_mounts": tuple(mounts),
        "camera_poses": tuple(poses),
        "camera_spreads": tuple(spreads),
    }


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
        "Their places": _places(card),
        "Instructions": "; ".join(card.instructions[:8]),
        "Demonstrations": str(card.demonstrations),
        "Training": f"{card.step} steps",
        "Held-out error": error,
        "Weights": f"{n_weights / 1e6:.2f} million",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    text = "Turns features of the frozen μ₀ world model into chunks of joint commands."
    return "\n".join(["# Action expert", "", text, "", "| | |", "| --- | --- |", *lines, ""])


def _places(card: ExpertCard) -> str:
    """Say where the cameras were."""
    told = []
    for camera in (FRONT, *card.cameras):
        place = card.place(camera)
        where = "not known"
        if place is not None:
            xyz = ", ".join(f"{value:.2f}" for value in place.T_mount_camera[:3, 3])
            where = f"({xyz}) m from the {place.mount}, within {place.spread_m:.2f} m"
        told.append(f"{camera}: {where}")
    return "; ".join(told)
