"""Own where the points of trace features are: in the picture, or seen from the robot's tool.

Seen from the tool, a task looks the same wherever it is on the table, which makes few
demonstrations go far. It takes depth, the camera's place and the robot's kinematics.
"""

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.errors import ConfigError
from mu0_core.kinematics import DifferentialIK
from mu0_policy.action_expert.card import ExpertCard, PlacesIn
from mu0_policy.camera_places import Mount
from mu0_policy.demonstrations.demonstration import FRONT

FloatArray = NDArray[np.float64]


class ToolView:
    """See points of the front camera's picture from the tool.

    Args:
        ik: Kinematics of the tool.
        focal_length: Of the front camera, over the picture's height.
        aspect: Width over height of the picture.
    """

    def __init__(self, ik: DifferentialIK, focal_length: float, aspect: float) -> None:
        self._ik = ik
        self._tangents = np.array([aspect, 1.0]) / (2.0 * focal_length)

    def __call__(
        self, places: NDArray[np.floating], q: FloatArray, T_base_camera: FloatArray
    ) -> NDArray[np.float32]:
        """Bring places to the tool's frame.

        Args:
            places: (K, 3) u and v in [-1, 1], the picture's middle being 0, and depth in m,
                0 = unknown.
            q: (j,) joints at the time of the picture, rad.
            T_base_camera: (4, 4) pose of the camera's optical frame in the model's base.

        Returns:
            (K, 3) xyz in the tool frame of that time, m; NaN = unknown.
        """
        places = np.asarray(places, np.float64)
        z = np.where(places[:, 2:] > 0.0, places[:, 2:], np.nan)
        xyz_camera = np.concatenate([places[:, :2] * self._tangents * z, z], axis=1)
        T_base_tool = self._ik.model.forward(q, self._ik.tool_frame)
        T_tool_camera = se3.inverse(T_base_tool) @ T_base_camera
        return se3.transform_points(T_tool_camera, xyz_camera).astype(np.float32)


def placed(
    view: ToolView | None,
    places: NDArray[np.floating],
    q: FloatArray,
    T_base_camera: FloatArray,
) -> NDArray[np.float32]:
    """Return places (K, 3) as an expert is told them, NaN = unknown; else as `ToolView`."""
    if view is not None:
        return view(places, q, T_base_camera)
    told = np.array(places, np.float32)
    told[~(told[:, 2] > 0.0), 2] = np.nan
    return told


def tool_view(card: ExpertCard, ik: DifferentialIK | None) -> ToolView | None:
    """Return how points are seen by an expert; None = in the picture.

    Raises:
        ConfigError: They are seen from the tool, but camera or kinematics are not known.
    """
    if card.places is not PlacesIn.TOOL:
        return None
    place = card.place(FRONT)
    missing = [
        what
        for what, known in (
            ("the robot's kinematics (name its embodiment)", ik is not None),
            ("the front camera's place on the base", place and place.mount is Mount.BASE),
            ("its focal length", any(card.focal_lengths[:1])),
            ("its pictures' size", card.front_size),
        )
        if not known
    ]
    if missing:
        raise ConfigError(
            f"places: to see points from the tool, {', '.join(missing)} must be known; "
            "--places picture does without"
        )
    assert ik is not None
    width, height = (int(side) for side in card.front_size.split("x"))
    return ToolView(ik, card.focal_lengths[0], width / height)
