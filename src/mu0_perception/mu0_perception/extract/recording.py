"""Own what every source yields: a recording, whose pictures are read one at a time.

A source is a module in `sources/` that knows one kind of recording. Nothing after it knows where
pictures came from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import Mu0Error

FloatArray = NDArray[np.float64]


class SourceError(Mu0Error):
    """Report a recording that cannot be read, or lacks what is needed."""


class LeftOutError(SourceError):
    """Report a part of a recording that gives no sound episode; its other parts may."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """Hold one picture of a recording.

    Attributes:
        stamp_s: When it was taken, s.
        rgb: (H, W, 3) uint8, without lens distortion.
        depth_m: (H, W) float32 m along the optical axis on the same pixels, NaN = none; None where
            the recording has no depth.
        camera: Intrinsics of both; None = unknown.
        T_world_camera: (4, 4) pose of the optical frame in a frame that does not move; None =
            unknown.
    """

    stamp_s: float
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None = None
    camera: Camera | None = None
    T_world_camera: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEvent:
    """Say what a recording itself tells of a span of its time.

    Attributes:
        start_s: First stamp.
        end_s: Last stamp.
        text: What happens.
        skills: What is done, as captions name it.
    """

    start_s: float
    end_s: float
    text: str
    skills: tuple[str, ...] = ("unknown",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Name a recording that was found but not opened yet.

    Attributes:
        name: Unique among the recordings of a source path; its episodes are called after it.
        path: Where it is; several recordings may share it.
        source: Kind of source.
        key: Which of the recordings at the path it is.
    """

    name: str
    path: Path
    source: str
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Describe a recording.

    Attributes:
        name: Its name as found.
        path: Where it is.
        source: Kind of source.
        instructions: Its task in words, if it says.
        events: What it says of parts of itself.
        embodiment: human_hand, robot_gripper, robot_arm, tool or unknown.
        has_depth: Whether its pictures have depth.
        has_pose: Whether it says where its camera was.
        details: Topics, frames and the like, for the log and the sidecar.
    """

    name: str
    path: Path
    source: str
    instructions: tuple[str, ...] = ()
    events: tuple[KnownEvent, ...] = ()
    embodiment: str = "unknown"
    has_depth: bool = False
    has_pose: bool = False
    details: dict[str, Any] = field(default_factory=dict)


class Recording(Protocol):
    """Give the pictures of one camera in one recording.

    Attributes:
        about: What it is.
        problem: What was wrong with the first picture that could not be read since this was set
            to "".
    """

    about: About
    problem: str

    def stamps_s(self) -> FloatArray:
        """Return when each usable picture was taken (n,), in the order they are stored."""

    def shots(self, indices: Sequence[int]) -> Iterator[Shot | None]:
        """Read pictures in rising order of their index; None for one that cannot be read."""

    def frame_poses(self, stamps_s: FloatArray) -> dict[str, FloatArray]:
        """Return {frame: (n, 4, 4) T_world_frame} of the frames of a robot that move.

        Without them the answer is empty. Poses that are not known are NaN.
        """
