"""Own a loaded action expert, ready to ask: features, pictures and joints in, commands out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mu0_core.embodiment import Box
from mu0_core.errors import ShapeError
from mu0_core.kinematics import DifferentialIK
from mu0_policy.action_expert.actions import Translator
from mu0_policy.action_expert.checkpoint import Checkpoint, load
from mu0_policy.action_expert.eyes import picture_tensor, small_picture
from mu0_policy.action_expert.model import Observation
from mu0_policy.action_expert.places import placed, tool_view

FloatArray = NDArray[np.float64]
PLACES = "places"
FEATURES = ("context", "traces", PLACES, "language")
"""Names of the world model's features."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """Hold what the policy is shown of one moment.

    Attributes:
        features: By the names in FEATURES, (tokens, width) each; places may be missing for an
            expert that does not read them.
        pictures: By camera, (H, W, 3) uint8 RGB.
        q: (j,) measured joints, rad.
        gripper: Measured place of the fingers, 0 = open, 1 = closed.
        T_base_camera: (4, 4) pose of the front camera at that time; needed by an expert that sees
            points from the tool.
    """

    features: Mapping[str, NDArray[np.floating]]
    pictures: Mapping[str, NDArray[np.uint8]]
    q: FloatArray
    gripper: float
    T_base_camera: FloatArray | None = None


class ExpertPolicy:
    """Ask an action expert for chunks of commands. Not thread-safe."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        ik: DifferentialIK | None = None,
        workspace: Box | None = None,
        device: torch.device | str = "cpu",
        seed: int | None = 0,
    ) -> None:
        """Hold an expert.

        Args:
            checkpoint: The expert.
            ik: Inverse kinematics of the tool; for tool deltas, and points seen from the tool.
            workspace: Where tool deltas may lead.
            device: Where it runs.
            seed: Of the noise, the same each time; None: another each time.

        Raises:
            ConfigError: Kinematics or the camera's lens are needed and not known.
        """
        self.card = checkpoint.card
        self.expert = checkpoint.expert.to(device).eval()
        self.normaliser = checkpoint.normaliser
        self._translator = Translator(self.card.space, ik, workspace)
        self._view = tool_view(self.card, ik)
        self._device, self._seed = torch.device(device), seed

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        ik: DifferentialIK | None = None,
        device: torch.device | str = "cpu",
        seed: int | None = 0,
    ) -> Self:
        """Load a checkpoint folder; raises a CheckpointError where it is missing or broken."""
        return cls(load(folder), ik=ik, device=device, seed=seed)

    @property
    def chunk_size(self) -> int:
        """Commands in a chunk; the first is due one period after the moment."""
        return self.expert.config.chunk_size

    def commands(self, moment: Moment, known: FloatArray | None = None) -> FloatArray:
        """Return the commands of the periods after a moment.

        Args:
            moment: What is seen.
            known: (d, j + 1) commands at the head of the chunk that will have run anyway; the
                others continue them. At most the card's most_known.

        Returns:
            (chunk_size, j + 1) joints in rad and the gripper's goal share.

        Raises:
            ShapeError: A feature or picture is missing, or something does not fit.
            TrajectoryError: A tool pose is out of reach.
        """
        prefix = None
        if known is not None and len(known):
            self._check_known(known)
            given = torch.from_numpy(self._translator.actions(known, moment.q)).float()
            prefix = self.normaliser.action(given)[None].to(self._device)
        actions = self.expert.sample(self._seen(moment), self._noise(), prefix=prefix)
        found = self.normaliser.action_back(actions[0].double().cpu()).numpy()
        if not np.isfinite(found).all():
            raise ShapeError("the expert's answer is no number; are the features finite?")
        return self._translator.commands(found, moment.q, known)

    def warm_up(self, language_tokens: int = 8) -> None:
        """Ask once about nothing, since a first time is slow."""
        config = self.expert.config
        blank = np.zeros((64, 64, 3), np.uint8)
        width = {"context": config.context_width, "language": config.context_width}
        width[PLACES] = 3
        n = language_tokens + config.context_places
        features = {
            name: np.zeros((n, width.get(name, config.trace_width)), np.float32)
            for name in FEATURES
        }
        n = len(self.card.joints)
        seen = Moment(
            features=features,
            pictures=dict.fromkeys(config.cameras, blank),
            q=np.array(self.normaliser.state_mean[:n]),
            gripper=0.0,
            T_base_camera=np.eye(4),
        )
        self.expert.sample(self._seen(seen), self._noise())

    def _seen(self, moment: Moment) -> Observation:
        needed = [n for n in FEATURES if n != PLACES or self.expert.config.trace_places]
        missing = [name for name in needed if name not in moment.features]
        missing += [name for name in self.expert.config.cameras if name not in moment.pictures]
        if missing:
            raise ShapeError(f"nothing came of {', '.join(missing)}; all of them are needed")
        state = torch.from_numpy(np.append(moment.q, moment.gripper)).float()
        if not bool(torch.isfinite(state).all()):
            raise ShapeError(f"joints: expected finite numbers, got {moment.q.tolist()}")
        features = dict(moment.features)
        if PLACES in features:
            T_base_camera = np.eye(4) if self._view is None else moment.T_base_camera
            if T_base_camera is None:
                raise ShapeError("T_base_camera: expected the front camera's pose, got none")
            features[PLACES] = placed(self._view, features[PLACES], moment.q, T_base_camera)
        parts = {name: self._tensor(features[name]) for name in needed}
        return Observation(
            context=parts["context"],
            context_valid=_all_valid(parts["context"]),
            traces=parts["traces"],
            language=parts["language"],
            language_valid=_all_valid(parts["language"]),
            cameras={
                name: picture_tensor(small_picture(moment.pictures[name]))[None].to(self._device)
                for name in self.expert.config.cameras
            },
            state=self.normaliser.state(state)[None].to(self._device),
            places=parts.get(PLACES),
        )

    def _noise(self) -> Tensor:
        generator = torch.Generator()
        if self._seed is None:
            generator.seed()
        else:
            generator.manual_seed(self._seed)
        config = self.expert.config
        shape = (1, config.chunk_size, config.action_dim)
        return torch.randn(shape, generator=generator).to(self._device)

    def _tensor(self, array: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32))[None].to(self._device)

    def _check_known(self, known: FloatArray) -> None:
        if len(known) > self.card.most_known:
            raise ShapeError(
                f"known commands: expected at most {self.card.most_known} as in training, got "
                f"{len(known)}: the answer takes too long for this expert"
            )


def _all_valid(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
