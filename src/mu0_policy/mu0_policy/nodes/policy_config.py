"""Own the parameters that all policy nodes have."""

from dataclasses import dataclass
from pathlib import Path

from mu0_core.config import option, validate
from mu0_policy.core import ExecutionConfig
from mu0_policy.safety import SafetyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNodeConfig:
    """Configure what all policies have."""

    embodiment_file: Path = option(description="The robot's YAML file", read_only=True)
    dry_run: bool = option(
        False, description="Publish ~/display_trajectory only; nothing moves", read_only=True
    )
    rate_hz: float = option(
        10.0, description="Chunks a second", unit="Hz", low=2.0, high=50.0, read_only=True
    )
    timeout_s: float = option(60.0, description="Of a goal that names none", unit="s", low=0.1)
    ready_timeout_s: float = option(
        30.0, description="How long to wait for the robot at configure", unit="s", low=0.1
    )
    safety: SafetyConfig = option(SafetyConfig(), description="The filter", read_only=True)
    execution: ExecutionConfig = option(
        ExecutionConfig(), description="Timing of commands", read_only=True
    )

    def __post_init__(self) -> None:
        validate(self)
