"""Own the settings of training an action expert."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mu0_core.config import option, validate
from mu0_core.traces import PointsFrom
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.action_expert.card import PlacesIn
from mu0_policy.action_expert.config import SIZES
from mu0_policy.demonstrations.reading import SourceConfig


class Precision(StrEnum):
    """Choose the number format of activations; weights and optimiser stay float32."""

    FLOAT32 = "no"
    BFLOAT16 = "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTrainingConfig(SourceConfig):
    """Describe a training run."""

    output: Path = option(description="Folder of the run")
    world_model: str = option(
        "mu0-tiny", description="Frozen checkpoint: name of a shipped one, or a folder's path"
    )
    cache: Path | None = option(None, description="Folder of features; none: in the output")
    cameras: tuple[str, ...] = option(("wrist",), description="Cameras beside the front one")
    space: ActionSpace = option(ActionSpace.TOOL_DELTAS, description="What the actions are")
    places: PlacesIn = option(
        PlacesIn.TOOL, description="Where tracked points are told to be; tool needs depth"
    )
    size: str = option("small", description=f"Of the decoder: {', '.join(SIZES)}")
    context_summary: int = option(
        16, description="Tokens that the context is summed up in, 0: all of it is read", low=0
    )
    use_traces: bool = option(True, description="Whether trace features are read")
    points: PointsFrom = option(
        PointsFrom.KEYPOINTS,
        description="What trace features are of: keypoints, which track_episodes puts beside "
        "recordings, or a grid",
    )
    grid: int = option(8, description="Points on each side that features are computed for", low=1)
    pool: int = option(1, description="Points on each side that are averaged into one", low=1)
    draws: int = option(2, description="Draws of noise that are averaged", low=1)
    chunk_size: int = option(16, description="Actions in a chunk", low=2)
    most_known: int = option(
        6, description="Actions that may be given at the head of a chunk, at most", low=0
    )
    known_share: float = option(
        0.5, description="Share of the examples in which some are", low=0.0, high=1.0
    )
    shift_px: int = option(
        4, description="Random shift of own cameras' pictures, at most", unit="px", low=0, high=16
    )
    held_out_share: float = option(
        0.1, description="Share of demonstrations to measure on", low=0.0, high=0.5
    )
    steps: int = option(10_000, description="Optimiser steps", low=1)
    batch_size: int = option(16, description="Examples of a step over all processes", low=1)
    noises: int = option(
        4, description="Draws of noise for each: seeing an example costs most of a step", low=1
    )
    lr: float = option(5e-4, description="Learning rate", low=0.0)
    warmup_steps: int = option(200, description="Steps of linear warm-up", low=0)
    final_lr_share: float = option(
        0.02, description="Learning rate at the end over the highest, cosine between", low=0.0
    )
    weight_decay: float = option(1e-2, description="AdamW weight decay", low=0.0)
    grad_clip: float = option(1.0, description="Largest gradient norm", low=0.0)
    ema_decay: float = option(0.999, description="Moving average of weights, 0: none", low=0.0)
    precision: Precision = option(Precision.FLOAT32, description="Number format of activations")
    seed: int = option(0, description="Seed of everything", low=0)
    workers: int = option(0, description="Processes that read data", low=0)
    log_every: int = option(50, description="Steps between log lines", low=1)
    evaluate_every: int = option(1000, description="Steps between evaluations", low=1)
    evaluate_moments: int = option(
        128, description="Held-out moments of an evaluation, at most", low=1
    )
    save_every: int = option(1000, description="Steps between checkpoints", low=1)
    resume: bool = option(False, description="Go on where the run in `output` stopped")

    def __post_init__(self) -> None:
        SourceConfig.__post_init__(self)
        names = ", ".join(sorted(SIZES))
        validate(
            self,
            None if self.size in SIZES else f"size: expected one of {names}, got {self.size!r}",
            None
            if self.most_known < self.chunk_size
            else f"most_known: expected fewer than chunk_size = {self.chunk_size}, got "
            f"{self.most_known}",
            f"pool: expected a divisor of grid = {self.grid}" if self.grid % self.pool else None,
        )
