"""Own the sizes and switches of an action expert, the released ones and ours."""

from dataclasses import dataclass
from enum import StrEnum

from mu0_core.config import option, validate
from mu0_core.errors import ConfigError, unknown_name_message


class Eyes(StrEnum):
    """Say what turns the pictures of the robot's own cameras into tokens."""

    DINO = "dino"
    """Patch features of the world model's DINOv2, computed outside."""
    CONVOLUTIONS = "convolutions"
    """A small network that is trained with the expert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Size the decoder, a Gemma-type stack."""

    width: int = option(192, description="Width", low=2)
    layers: int = option(4, description="Layers", low=1)
    mlp: int = option(512, description="Inner width of the MLP", low=1)
    heads: int = option(4, description="Query heads", low=1)
    kv_heads: int = option(1, description="Key and value heads", low=1)
    head_dim: int = option(48, description="Width of a head, even for the rotation", low=2)

    def __post_init__(self) -> None:
        odd = "head_dim: expected an even number" if self.head_dim % 2 else None
        ragged = None
        if self.kv_heads and self.heads % self.kv_heads:
            ragged = f"kv_heads: expected a divisor of heads = {self.heads}, got {self.kv_heads}"
        validate(self, odd, ragged)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionExpertConfig:
    """Describe one action expert; everything needed to build it."""

    context_width: int = option(description="Width V of the world model's text layers", low=1)
    trace_width: int = option(description="Width E of its trace expert", low=1)
    use_traces: bool = option(True, description="Whether trace features are read")
    mixer_heads: int = option(16, description="Heads of the attention to trace features", low=1)
    trace_places: bool = option(
        False, description="Whether trace features know where their points are; not as released"
    )
    trace_tokens: bool = option(
        False,
        description="Whether the decoder reads trace features itself, not through the context "
        "alone; not as released",
    )
    context_places: int = option(
        0,
        description="Tokens at the head of the context whose places are learned: the pictures'; "
        "0 as released",
        low=0,
    )
    context_summary: int = option(
        0,
        description="Tokens that the context is summed up in before the decoder reads it; 0: "
        "it reads all, as released",
        low=0,
    )
    cameras: tuple[str, ...] = option((), description="Names of the cameras with tokens")
    eyes: Eyes = option(Eyes.CONVOLUTIONS, description="What turns their pictures into tokens")
    eye_width: int = option(128, description="Width of the patch features", low=1)
    eye_tokens: int = option(6, description="Tokens on each side of a camera's picture", low=1)
    state_dim: int = option(description="Numbers in the robot's state", low=1)
    action_dim: int = option(description="Numbers in an action", low=1)
    padded_action_dim: int = option(0, description="Inside the decoder; 0: action_dim", low=0)
    chunk_size: int = option(16, description="Actions in a chunk", low=1)
    decoder: DecoderConfig = option(DecoderConfig(), description="Sizes of the decoder")
    timed_context: bool = option(
        False,
        description="Whether flow time modulates the context too, which must then be read again "
        "in every step; so released",
    )
    n_steps: int = option(10, description="Euler steps of the sampler", low=1)
    min_period: float = option(4e-3, description="Shortest period of flow time", low=1e-9)
    max_period: float = option(4.0, description="Longest period of flow time", low=1e-9)

    def __post_init__(self) -> None:
        padded = self.padded_action_dim
        small = heads = double = None
        if padded and padded < self.action_dim:
            small = f"padded_action_dim: expected at least {self.action_dim}, got {padded}"
        if self.context_width % self.mixer_heads:
            heads = (
                f"mixer_heads: expected a divisor of context_width = {self.context_width}, "
                f"got {self.mixer_heads}"
            )
        if len(set(self.cameras)) < len(self.cameras):
            double = f"cameras: expected each name once, got {', '.join(self.cameras)}"
        validate(self, small, heads, double)

    @property
    def inner_action_dim(self) -> int:
        """Width of an action inside the decoder."""
        return self.padded_action_dim or self.action_dim


RELEASED = ActionExpertConfig(
    context_width=2048,
    trace_width=1024,
    cameras=("gripper",),
    eyes=Eyes.DINO,
    eye_width=768,
    eye_tokens=8,
    state_dim=16,
    action_dim=12,
    padded_action_dim=32,
    decoder=DecoderConfig(width=1024, layers=18, mlp=4096, heads=8, kv_heads=1, head_dim=256),
    timed_context=True,
)
"""The published policy on the published 2.6 B world model."""

SIZES = {
    "small": DecoderConfig(),
    "medium": DecoderConfig(width=320, layers=6, mlp=1024, heads=5, kv_heads=1, head_dim=64),
    "released": RELEASED.decoder,
}
"""Decoders by name."""


def decoder_size(name: str) -> DecoderConfig:
    """Return a decoder's size by name; raises a ConfigError where there is none."""
    if name not in SIZES:
        raise ConfigError(unknown_name_message("size", name, SIZES))
    return SIZES[name]
