"""Own the folders of our action experts: config.json, weights, statistics, README.md."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mu0_core.config import from_dict, to_dict
from mu0_core.errors import CheckpointError, ConfigError
from mu0_core.folders import replace_folder
from mu0_policy.action_expert.card import CONFIG_FILE, ExpertCard, readme
from mu0_policy.action_expert.config import ActionExpertConfig
from mu0_policy.action_expert.model import ActionExpert
from mu0_policy.action_expert.normaliser import STATISTICS, Normaliser

_WEIGHTS, _README = "model.safetensors", "README.md"
_TYPE = "mu0_action_expert"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Hold an expert with all that is needed to use it."""

    expert: ActionExpert
    normaliser: Normaliser
    card: ExpertCard


def save(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write a folder; an older one stays until this is complete.

    Raises:
        CheckpointError: It cannot be written, for example because the disk is full.
    """
    folder, expert = Path(folder), checkpoint.expert
    config = {"type": _TYPE, "expert": to_dict(expert.config), "card": to_dict(checkpoint.card)}
    n_weights = sum(p.numel() for p in expert.parameters())
    texts = {
        CONFIG_FILE: json.dumps(config, indent=2),
        STATISTICS: checkpoint.normaliser.to_json(),
        _README: readme(checkpoint.card, n_weights),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error}") from error
    try:
        state = {name: value.detach().cpu().contiguous() for name, value in _state(expert)}
        save_file(state, partial / _WEIGHTS, metadata={"format": "pt"})
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        partial.chmod(0o755)
        replace_folder(partial, folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(folder: str | Path) -> Checkpoint:
    """Load a folder; the expert is on the CPU, in evaluation mode.

    Raises:
        CheckpointError: It is missing, damaged, or its weights are not those of its config.json.
    """
    folder = Path(folder)
    try:
        raw = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.get("type") != _TYPE:
            raise CheckpointError(f"{folder}: holds no action expert: type is not {_TYPE}")
        config = from_dict(ActionExpertConfig, raw["expert"])
        card = from_dict(ExpertCard, raw["card"])
        state = load_file(folder / _WEIGHTS)
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename}: expected an action expert's file") from error
    except (ValueError, KeyError, ConfigError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error
    with torch.device("meta"):
        expert = ActionExpert(config)
    try:
        expert.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: not the weights of its config.json: {error}") from error
    normaliser = Normaliser.read(folder)
    sizes = (len(normaliser.state_mean), len(normaliser.action_mean))
    if sizes != (config.state_dim, config.action_dim):
        raise CheckpointError(
            f"{folder}: statistics of {sizes[0]} states and {sizes[1]} actions, config.json has "
            f"{config.state_dim} and {config.action_dim}"
        )
    return Checkpoint(expert=expert.eval(), normaliser=normaliser, card=card)


def _state(expert: ActionExpert) -> list[tuple[str, torch.Tensor]]:
    return list(expert.state_dict().items())
