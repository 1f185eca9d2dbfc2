"""Own the action expert: what it reads, and the flow that turns noise into a chunk of actions.

One class serves the released policy and ours. It never sees the world model, only its features.
Flow time 1 is noise and 0 is data. Actions and states are normalised outside.

Actions that will have run before the chunk can begin are given to it: they stand at its head, free
of noise and marked by flow time 0, and the rest continues them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mu0_core.errors import ShapeError
from mu0_policy.action_expert.config import ActionExpertConfig, Eyes
from mu0_policy.action_expert.eyes import CameraTokens, ConvolutionalEye
from mu0_policy.action_expert.gemma import ContextMemory, GemmaStack

_OCTAVES = 5
_PLACE_WIDTH = 3 * (1 + 2 * _OCTAVES) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """Hold what the expert is shown of B moments.

    Attributes:
        context: (B, L, V) hidden states of the world model's text layers.
        context_valid: (B, L) bool.
        traces: (B, K, E) hidden states of its trace expert at points.
        language: (B, T, V) embedded instruction.
        language_valid: (B, T) bool.
        cameras: By name: pictures (B, 3, H, W) in [0, 1] for convolutions, patch features
            (B, C, P, P) for DINOv2.
        state: (B, state_dim).
        traces_valid: (B, K) bool; None = all.
        places: (B, K, 3) where the points are, NaN = unknown: u and v in [-1, 1] and depth in m,
            or xyz in the tool's frame, m; None = not known at all.
    """

    context: Tensor
    context_valid: Tensor
    traces: Tensor
    language: Tensor
    language_valid: Tensor
    cameras: Mapping[str, Tensor]
    state: Tensor
    traces_valid: Tensor | None = None
    places: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Hold an observation as the decoder reads it.

    Attributes:
        tokens: (B, L', width).
        valid: (B, L') bool.
        memory: Keys and values, where they are the same in every step; else None.
    """

    tokens: Tensor
    valid: Tensor
    memory: ContextMemory | None

    def repeated(self, times: int) -> "Encoded":
        """Return this for a batch in which every observation stands `times` times in a row."""
        return Encoded(
            self.tokens.repeat_interleave(times, dim=0),
            self.valid.repeat_interleave(times, dim=0),
            None if self.memory is None else self.memory.repeated(times),
        )


class GatedMixer(nn.Module):
    """Add what the context finds among the trace features, as far as a learned gate is open."""

    def __init__(self, width: int, trace_width: int, heads: int, *, places: bool) -> None:
        super().__init__()
        self.places = nn.Linear(_PLACE_WIDTH, width) if places else None
        self.w_proj = nn.Linear(trace_width, width)
        self.norm_q = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        self.ca = nn.MultiheadAttention(width, heads, batch_first=True)
        self.gate = nn.Parameter(torch.zeros(()))

    def tokens(self, traces: Tensor, places: Tensor | None) -> Tensor:
        """Turn traces (B, K, E) at places (B, K, 3) into tokens (B, K, V)."""
        tokens = self.norm_kv(self.w_proj(traces))
        if self.places is None or places is None:
            return tokens
        return tokens + self.places(place_features(places).to(tokens.dtype))

    def forward(
        self, context: Tensor, valid: Tensor, keys: Tensor, keys_valid: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, K, V) into a context (B, L, V), whose padding stays as it is."""
        if not keys.shape[1]:
            return context
        hidden = None
        if keys_valid is not None:
            some = keys_valid.any(1, keepdim=True)
            hidden = ~keys_valid & some  # a row that hides all would not be a number
            valid = valid & some
        found, _ = self.ca(
            self.norm_q(context), keys, keys, key_padding_mask=hidden, need_weights=False
        )
        return context + self.gate.sigmoid() * found * valid[..., None]


class Summary(nn.Module):
    """Sum up many tokens in a few, which learn what to look for."""

    def __init__(self, n: int, width: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(n, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.ca = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Turn tokens (B, L, width) into (B, n, width)."""
        tokens = self.norm(tokens)
        queries = self.queries.to(tokens.dtype).expand(len(tokens), -1, -1)
        found, _ = self.ca(queries, tokens, tokens, key_padding_mask=~valid, need_weights=False)
        return queries + found


class ActionDecoder(nn.Module):
    """Read an observation's tokens, and refine noisy actions among them."""

    def __init__(self, config: ActionExpertConfig) -> None:
        super().__init__()
        width = config.decoder.width
        self.size, self.periods = width, (config.min_period, config.max_period)
        points = ("points",) if config.use_traces and config.trace_tokens else ()
        for name in ("z", "lang", "visual", *points):
            self.add_module(f"{name}_norm", nn.LayerNorm(config.context_width))
            self.add_module(f"{name}_proj", nn.Linear(config.context_width, width))
        self.state_proj = nn.Linear(config.state_dim, width)
        self.action_in_proj = nn.Linear(config.inner_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.inner_action_dim)
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)
        self.stack = GemmaStack(config.decoder)

    def read(self, name: str, tokens: Tensor) -> Tensor:
        """Bring tokens (B, t, V) of a kind (z, lang ...) to the decoder's width."""
        return self.get_submodule(f"{name}_proj")(self.get_submodule(f"{name}_norm")(tokens))

    def condition(self, time: Tensor) -> Tensor:
        """Embed flow times (...,): (..., width)."""
        features = sinusoid(time.flatten(), self.size, *self.periods).to(self.state_proj.weight)
        hidden = nn.functional.silu(self.time_mlp_in(features))
        return nn.functional.silu(self.time_mlp_out(hidden)).unflatten(0, time.shape)


class ActionExpert(nn.Module):
    """Predict chunks of actions from observations."""

    def __init__(self, config: ActionExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.mixer = None
        if config.use_traces:
            self.mixer = GatedMixer(
                config.context_width,
                config.trace_width,
                config.mixer_heads,
                places=config.trace_places,
            )
        self.context_places = None
        if config.context_places:
            places = torch.randn(config.context_places, config.decoder.width) * 0.02
            self.context_places = nn.Parameter(places)
        self.summary = None
        if config.context_summary:
            decoder = config.decoder
            self.summary = Summary(config.context_summary, decoder.width, decoder.heads)
        self.eyes = nn.ModuleDict()
        if config.eyes is Eyes.CONVOLUTIONS:
            eyes = {name: ConvolutionalEye(config.eye_width) for name in config.cameras}
            self.eyes = nn.ModuleDict(eyes)
        self.cameras = nn.ModuleDict(
            {
                name: CameraTokens(config.eye_width, config.context_width, config.eye_tokens)
                for name in config.cameras
            }
        )
        self.decoder = ActionDecoder(config)

    def encode(self, seen: Observation) -> Encoded:
        """Read an observation, once for all samples and flow steps.

        Raises:
            ShapeError: A camera is missing, or something has another shape than configured.
        """
        self._check(seen)
        decoder, batch = self.decoder, len(seen.state)
        context, points, points_valid = seen.context, list[Tensor](), list[Tensor]()
        read = seen.context_valid
        if self.mixer is not None:
            found = self.mixer.tokens(seen.traces, seen.places)
            context = self.mixer(context, seen.context_valid, found, seen.traces_valid)
            if self.config.trace_tokens:
                points = [decoder.read("points", found)]
                every = read.new_ones(found.shape[:2])
                points_valid = [every if seen.traces_valid is None else seen.traces_valid]
        z = self._placed(decoder.read("z", context))
        if self.summary is not None:
            z = self.summary(z, read)
            read = read.new_ones(z.shape[:2])
        masks = [read, seen.language_valid, *points_valid]
        pictures = [self._camera(name, seen.cameras[name]) for name in self.config.cameras]
        parts = [
            z,
            decoder.read("lang", seen.language),
            *points,
            *(decoder.read("visual", tokens) for tokens in pictures),
            decoder.state_proj(seen.state)[:, None],
        ]
        tokens = torch.cat(parts, dim=1)
        known = sum(mask.shape[1] for mask in masks)
        rest = seen.context_valid.new_ones(batch, tokens.shape[1] - known)
        valid = torch.cat([*masks, rest], dim=1)
        memory = None
        if not self.config.timed_context:
            memory = self._remember(tokens, valid, tokens.new_zeros(batch))
        return Encoded(tokens, valid, memory)

    def velocity(self, actions: Tensor, time: Tensor, encoded: Encoded) -> Tensor:
        """Evaluate the flow.

        Args:
            actions: (B, chunk, action_dim) noisy actions.
            time: (B,) flow time, or (B, chunk) that of each action.
            encoded: The observation.

        Returns:
            (B, chunk, action_dim), noise minus data.
        """
        decoder = self.decoder
        memory = encoded.memory
        if memory is None:
            memory = self._remember(encoded.tokens, encoded.valid, time)
        condition = decoder.condition(time if time.ndim == 2 else time[:, None])
        missing = self.config.inner_action_dim - actions.shape[-1]
        padded = nn.functional.pad(actions, (0, missing)).to(encoded.tokens.dtype)
        refined = decoder.stack(decoder.action_in_proj(padded), condition, memory)
        result = decoder.action_out_proj(refined.to(decoder.action_out_proj.weight.dtype))
        return result[..., : actions.shape[-1]]

    @torch.no_grad()
    def sample(
        self,
        seen: Observation,
        noise: Tensor,
        *,
        prefix: Tensor | None = None,
        n_steps: int | None = None,
    ) -> Tensor:
        """Integrate the flow from noise to actions, by Euler steps.

        Args:
            seen: The observation.
            noise: (B, chunk, action_dim).
            prefix: (B, d, action_dim) actions that will have run; None: none.
            n_steps: Euler steps; None: as in the configuration.

        Returns:
            (B, chunk, action_dim), the prefix at its head.
        """
        n_steps = self.config.n_steps if n_steps is None else n_steps
        encoded, actions = self.encode(seen), noise
        d = 0 if prefix is None else prefix.shape[1]
        if d >= noise.shape[1]:
            raise ShapeError(f"prefix: expected fewer than {noise.shape[1]} actions, got {d}")
        for step in range(n_steps):
            if prefix is not None:
                actions = torch.cat([prefix, actions[:, d:]], dim=1)
            time = torch.full_like(noise[..., 0] if d else noise[:, 0, 0], 1.0 - step / n_steps)
            if d:
                time[:, :d] = 0.0
            actions = actions - self.velocity(actions, time, encoded) / n_steps
        return actions if prefix is None else torch.cat([prefix, actions[:, d:]], dim=1)

    def _remember(self, tokens: Tensor, valid: Tensor, time: Tensor) -> ContextMemory:
        """Read a context under flow times (B,), or those of actions (B, chunk), the latest."""
        time = time if time.ndim == 1 else time.amax(1)
        return self.decoder.stack.remember(tokens, valid, self.decoder.condition(time)[:, None])

    def _placed(self, tokens: Tensor) -> Tensor:
        """Add to the context's first tokens (B, L, width) where in the pictures they are."""
        places = self.context_places
        if places is None:
            return tokens
        return tokens + nn.functional.pad(places, (0, 0, 0, tokens.shape[1] - len(places)))

    def _camera(self, name: str, picture: Tensor) -> Tensor:
        maps = self.eyes[name](picture) if name in self.eyes else picture
        return self.cameras[name](maps)

    def _check(self, seen: Observation) -> None:
        """Check shapes at the border of the model."""
        config = self.config
        missing = [name for name in config.cameras if name not in seen.cameras]
        if missing:
            raise ShapeError(f"cameras: no picture of {', '.join(missing)}")
        if config.use_traces and config.trace_places and seen.places is None:
            raise ShapeError("places: expected those of the trace features, got none")
        if seen.context.shape[1] < config.context_places:
            raise ShapeError(
                f"context: expected at least {config.context_places} tokens of pictures, got "
                f"{seen.context.shape[1]}: features of another checkpoint, or without depth?"
            )
        for name, tensor, width in (
            ("state", seen.state, config.state_dim),
            ("context", seen.context, config.context_width),
            ("traces", seen.traces, config.trace_width),
            ("language", seen.language, config.context_width),
        ):
            if tensor.shape[-1] != width and (name != "traces" or config.use_traces):
                raise ShapeError(
                    f"{name}: expected {width} numbers each, got {tuple(tensor.shape)}; are the "
                    "features of another checkpoint?"
                )


def flow_loss(
    expert: ActionExpert,
    seen: Observation,
    actions: Tensor,
    *,
    noise: Tensor,
    time: Tensor,
    counted: Tensor | None = None,
    n_known: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error of the velocity.

    Args:
        expert: The expert.
        seen: B observations.
        actions: (B, chunk, action_dim) normalised.
        noise: (B m, chunk, action_dim) standard normal; the m of an observation stand in a row.
        time: (B m,) flow time.
        counted: (B, chunk) bool, False where an action is padding; None: all count.
        n_known: (B m,) actions at the head of the chunk that are given; None: none.
    """
    encoded, m = expert.encode(seen), len(noise) // len(actions)
    if m > 1:
        encoded, actions = encoded.repeated(m), actions.repeat_interleave(m, dim=0)
        counted = None if counted is None else counted.repeat_interleave(m, dim=0)
    times = time[:, None].expand(actions.shape[:2])
    counts = torch.ones_like(times) if counted is None else counted.to(times.dtype)
    if n_known is not None:
        known = torch.arange(actions.shape[1], device=time.device) < n_known[:, None]
        times, counts = times.masked_fill(known, 0.0), counts.masked_fill(known, 0.0)
    state = times[..., None] * noise + (1.0 - times[..., None]) * actions
    predicted = expert.velocity(state, time if n_known is None else times, encoded)
    squared = (predicted - (noise - actions)).square().mean(-1)
    return (squared * counts).sum() / counts.sum().clamp(min=1.0)


def place_features(places: Tensor) -> Tensor:
    """Turn places (..., 3) into numbers (..., 34) that tell them apart finely.

    They are the three with sines and cosines of them, the shortest period an eighth of half the
    picture, or of a metre; all of an unknown one are 0, and the last says if the third is known.
    """
    known = places.isfinite()
    places = places.masked_fill(~known, 0.0)
    scales = torch.pi * 2.0 ** torch.arange(_OCTAVES, device=places.device, dtype=places.dtype)
    angles = places[..., None] * scales
    waves = torch.cat([places[..., None], angles.sin(), angles.cos()], dim=-1)
    waves = waves * known[..., None]
    return torch.cat([waves.flatten(-2), known[..., 2:].to(places.dtype)], dim=-1)


def flow_time(uniform: Tensor) -> Tensor:
    """Turn uniform numbers in [0, 1) into flow times 0.999 b + 0.001 with b ~ Beta(1.5, 1)."""
    return 0.999 * uniform ** (1.0 / 1.5) + 0.001


def sinusoid(time: Tensor, size: int, min_period: float, max_period: float) -> Tensor:
    """Return sines, then cosines of times (B,) at geometrically spaced periods: (B, size)."""
    fraction = torch.linspace(0.0, 1.0, size // 2, device=time.device, dtype=torch.float64)
    periods = min_period * (max_period / min_period) ** fraction
    angles = time.double()[:, None] * (2.0 * torch.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
