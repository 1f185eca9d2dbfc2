"""Own the released policy checkpoints: their names of weights, and loading them safely.

A released file is a pickle. It is read with torch's restricted unpickler, which makes tensors and
plain containers and nothing else.
"""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mu0_core.errors import CheckpointError
from mu0_policy.action_expert.config import RELEASED, ActionExpertConfig, DecoderConfig
from mu0_policy.action_expert.model import ActionExpert

# Ours -> released, applied in order.
_NAMES = (
    (r"^mixer\.", "gated_mixer."),
    (r"^cameras\.gripper\.proj\.", "gripper_proj."),
    (r"^cameras\.gripper\.places$", "gripper_spatial_pos_embed"),
    (r"^decoder\.stack\.", "action_decoder.gemma_expert.model."),
    (r"^decoder\.", "action_decoder."),
)
_STACK = "action_decoder.gemma_expert.model."


def released_name(name: str) -> str:
    """Translate the name of one of our weights."""
    for pattern, replacement in _NAMES:
        translated, found = re.subn(pattern, replacement, name)
        if found:
            return translated
    raise KeyError(f"no released name for {name}")


def released_shapes(config: ActionExpertConfig = RELEASED) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every trainable weight in a released checkpoint."""
    with torch.device("meta"):
        state = ActionExpert(config).state_dict()
    return {released_name(name): tuple(value.shape) for name, value in state.items()}


def load_released(path: str | Path, *, use_traces: bool = True) -> ActionExpert:
    """Load a released checkpoint.pt; its sizes are read from the weights.

    Args:
        path: The file, or its folder.
        use_traces: False leaves the mixer unused, as in the published ablation.

    Returns:
        The expert on the CPU, in evaluation mode.

    Raises:
        CheckpointError: It cannot be read, would need code to run, or has other weights.
    """
    path = Path(path)
    file = path / "checkpoint.pt" if path.is_dir() else path
    found = _read(file)
    config = _sizes(file, found)
    with torch.device("meta"):
        expert = ActionExpert(config)
    expected = {released_name(name): name for name in expert.state_dict()}
    shapes = {key: tuple(value.shape) for key, value in released_state(expert).items()}
    faults = [f"missing: {key}" for key in expected if key not in found]
    faults += [f"unexpected: {key}" for key in found if key not in expected]
    faults += [
        f"shape: {key}: expected {shapes[key]}, got {tuple(value.shape)}"
        for key, value in found.items()
        if key in shapes and shapes[key] != tuple(value.shape)
    ]
    if faults:
        raise CheckpointError(
            f"{file}: not the weights of a policy, {len(faults)} faults:\n  " + "\n  ".join(faults)
        )
    state = {name: found[key].float() for key, name in expected.items()}
    expert.load_state_dict(state, strict=True, assign=True)
    if not use_traces:
        expert.config, expert.mixer = replace(config, use_traces=False), None
    return expert.eval()


def released_state(expert: ActionExpert) -> dict[str, Tensor]:
    """Return the weights by their released names."""
    return {released_name(name): value for name, value in expert.state_dict().items()}


def _read(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: expected a checkpoint there, there is no file") from error
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{file}: refused, since it is damaged or would run code when read: {reason}"
        ) from error
    except (RuntimeError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: cannot be read: {reason}") from error
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{file}: expected tensors under model_state_dict, found none")
    return state


def _sizes(file: Path, found: dict[str, Tensor]) -> ActionExpertConfig:
    """Read the sizes from the shapes of the weights; heads are as many as released."""
    try:
        eyes, places = found["gripper_proj.weight"], found["gripper_spatial_pos_embed"]
        layer = f"{_STACK}layers.0."
        keys = found[f"{layer}self_attn.k_proj.weight"]
        queries = found[f"{layer}self_attn.q_proj.weight"]
        mlp = found[f"{layer}mlp.gate_proj.weight"]
        state = found["action_decoder.state_proj.weight"]
        actions = found["action_decoder.action_in_proj.weight"]
        traces = found["gated_mixer.w_proj.weight"]
    except KeyError as error:
        raise CheckpointError(f"{file}: not the weights of a policy: no {error}") from error
    layers = {key.split(".")[4] for key in found if key.startswith(f"{_STACK}layers.")}
    decoder = DecoderConfig(
        width=len(state),
        layers=len(layers),
        mlp=len(mlp),
        heads=len(queries) // len(keys),  # there is one key head
        kv_heads=1,
        head_dim=len(keys),
    )
    return replace(
        RELEASED,
        context_width=len(traces),
        trace_width=traces.shape[1],
        eye_width=eyes.shape[1],
        eye_tokens=round(len(places) ** 0.5),
        state_dim=state.shape[1],
        padded_action_dim=actions.shape[1],
        decoder=decoder,
    )
