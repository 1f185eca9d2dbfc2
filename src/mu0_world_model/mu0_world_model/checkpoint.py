"""Own checkpoint folders: the released names of all weights, strict loading, atomic saving.

A folder holds config.json, model.safetensors, meta.json, normalizer_stats.json and, for ours, the
tokenizer and a model card. Names in the file are those of the released checkpoint;
`released_shapes` is the whole table.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mu0_core.errors import CheckpointError
from mu0_core.folders import replace_folder
from mu0_world_model.config import Mu0Config, config_to_released, read_config
from mu0_world_model.model import Mu0
from mu0_world_model.recordings import RECORDINGS

NumberFormat = torch.dtype | Callable[[str], torch.dtype] | None

WEIGHTS = "model.safetensors"
# Of a hub repository; the released one has data too.
_WANTED = ["*.json", "*.safetensors", f"*{RECORDINGS}"]
_LFS_POINTER = b"version https://git-lfs"

_TOWER = "model.vlm_with_expert.vlm.model.vision_model."
_TEXT = "model.vlm_with_expert.vlm.model.text_model."

# Ours -> released, applied in order; the tower's adapters are treated apart.
_NAMES = (
    (r"^vlm\.tower\.", _TOWER),
    (r"^vlm\.connector\.", "model.vlm_with_expert.vlm.model.connector."),
    (r"^vlm\.(embed_tokens|layers)\.", _TEXT + r"\1."),
    (r"^vlm\.depth\.stem\.", "model.vlm_with_expert._depth_patch_embedding."),
    (r"^expert\.", "model.vlm_with_expert.lm_expert."),
    (r"^conditioning\.mlp\.", "model.trace_timestep_embedder.mlp."),
    (r"^conditioning\.modulation\.(\d+)\.", r"model.trace_adaln_modulation.\1.1."),
    (r"^suffix\.", "model.trace_"),
    (r"^heads\.velocity\.", "model.trace_out_proj_future."),
    (r"^heads\.done\.", "model.trace_done_proj_bsp."),
    (r"^dino\.model\.", "model.dino."),
)
# Newer transformers name DINOv2's attention otherwise than the released file.
_DINO_ATTENTION = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
}
_ADAPTER = re.compile(r"^vlm\.depth\.adapters\.(\d+)\.(\w+)\.([AB])\.weight$")
_TOWER_LINEAR = re.compile(r"(self_attn\.\w+_proj|mlp\.fc\d)\.(weight|bias)$")

# Heads of older code: a checkpoint that has them is another architecture.
_LEGACY_PREFIXES = ("model.trace_done_proj.", "model.trace_done_proj_flat.")


def released_name(name: str, *, adapted: bool) -> str:
    """Translate the name of one of our weights.

    Args:
        name: Name in the state of `Mu0`.
        adapted: Whether the tower has a depth path, which nests its names.
    """
    adapter = _ADAPTER.match(name)
    if adapter:
        layer, linear, side = adapter.groups()
        part = "mlp" if linear.startswith("fc") else "self_attn"
        path = f"base_model.model.encoder.layers.{layer}.{part}.{linear}"
        return f"{_TOWER}{path}.lora_{side}.default.weight"
    if name.startswith("vlm.tower.") and adapted:
        name = _TOWER_LINEAR.sub(r"\1.base_layer.\2", name)
        name = name.replace("vlm.tower.", "vlm.tower.base_model.model.")
    if name.startswith("dino."):
        for ours, theirs in _DINO_ATTENTION.items():
            name = name.replace(ours, theirs)
    for pattern, replacement in _NAMES:
        name, found = re.subn(pattern, replacement, name)
        if found:
            return name
    raise KeyError(f"no released name for {name}")


def unused_shapes(config: Mu0Config) -> dict[str, tuple[int, ...]]:
    """Return name and shape of the released weights that trace prediction never reads."""
    width, text, vocab = config.expert_width, config.vlm.text_width, config.vlm.vocab_size
    return {
        "model.vlm_with_expert.vlm.lm_head.weight": (vocab, text),
        _TEXT + "norm.weight": (text,),
        "model.action_time_mlp_in.weight": (width, 2 * width),
        "model.action_time_mlp_in.bias": (width,),
        "model.action_time_mlp_out.weight": (width, width),
        "model.action_time_mlp_out.bias": (width,),
    }


def released_shapes(config: Mu0Config) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight in a released checkpoint of this configuration."""
    with torch.device("meta"):
        state = Mu0(config).state_dict()
    table = {
        released_name(name, adapted=config.use_depth): tuple(value.shape)
        for name, value in state.items()
    }
    return table | unused_shapes(config)


def find(name: str | Path) -> Path:
    """Return the folder of a checkpoint: itself, or a copy of a hub repository ("owner/name").

    A folder without config.json is searched one level down, since the released repository has its
    checkpoint there, beside the statistics.

    Raises:
        CheckpointError: There is no such folder, no such repository can be had, or it holds
            several checkpoints.
    """
    folder = Path(name)
    if folder.is_dir():
        return _with_config(folder)
    if len(folder.parts) != 2 or folder.is_absolute() or ".." in folder.parts:
        raise CheckpointError(f"{folder}: expected a checkpoint folder, there is none")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        copy = Path(snapshot_download(str(name), allow_patterns=_WANTED))
    except (OSError, ValueError, HTTPError, RuntimeError) as error:  # last: of its downloader
        raise CheckpointError(
            f"{name}: no such folder, and it cannot be had from the hub ({type(error).__name__}); "
            "if the connection broke, run it again, complete files are kept; without one, "
            "download it elsewhere and give the folder"
        ) from error
    return _with_config(copy)


def _with_config(folder: Path) -> Path:
    """Return the folder that has a config.json: this one, or the one in it."""
    if (folder / "config.json").is_file():
        return folder
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder}: expected one checkpoint, there are {names}; name one")
    return found[0] if found else folder


def load(folder: str | Path, *, dtype: NumberFormat = None) -> Mu0:
    """Load a model from a checkpoint, released or ours.

    Args:
        folder: The folder, or a hub repository.
        dtype: Number format of all weights, or a function from our name of a weight to its; None
            keeps that of each weight in the file.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        ConfigError: config.json is wrong.
        CheckpointError: The weights are missing, cut off, or not those of the configuration.
    """
    folder = find(folder)
    config = read_config(folder)
    with torch.device("meta"):
        model = Mu0(config)
    weights = _read_weights(folder / WEIGHTS, model, config, dtype)
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def save(
    model: Mu0,
    folder: str | Path,
    *,
    step: int,
    extras: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
    copy: Iterable[Path] = (),
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint folder in the released form; an older one stays until this is complete.

    Args:
        model: The model.
        folder: Where to; replaced if it exists.
        step: Training steps so far.
        extras: More text files by name, such as the statistics and the model card.
        dtype: Number format to store; None stores each weight in its own.
        copy: Files to put beside, such as the tokenizer's.
        state: All weights by our names; None: those of the model.

    Raises:
        CheckpointError: It cannot be written, for example because the disk is full.
    """
    folder = Path(folder)
    adapted = model.config.use_depth
    weights = {
        released_name(name, adapted=adapted): value.to("cpu", dtype or value.dtype).contiguous()
        for name, value in (model.state_dict() if state is None else state).items()
    }
    texts = {
        "config.json": json.dumps(config_to_released(model.config), indent=2),
        "meta.json": json.dumps({"step": step}),
        **(extras or {}),
    }
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / WEIGHTS).chmod(0o644)
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        for path in copy:
            shutil.copy(path, partial / path.name)
        partial.chmod(0o755)
        replace_folder(partial, folder)
    except (OSError, SafetensorError) as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{folder}: cannot be written: {error}") from error


def _read_weights(
    path: Path, model: Mu0, config: Mu0Config, dtype: NumberFormat
) -> dict[str, Tensor]:
    """Read the weights of a model by our names, each key of the file accounted for."""
    expected = {
        released_name(name, adapted=config.use_depth): (name, tuple(value.shape))
        for name, value in model.state_dict().items()
    }
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            _check_keys(path, expected, found, unused_shapes(config))
            weights = {}
            for key, (name, _) in expected.items():
                wanted = dtype(name) if callable(dtype) else dtype
                tensor = file.get_tensor(key)
                weights[name] = tensor if wanted is None else tensor.to(wanted)
            return weights
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: expected the weights there, there is no such file"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    except SafetensorError as error:
        if _is_lfs_pointer(path):
            raise CheckpointError(
                f"{path}: is a Git LFS pointer in the place of the weights; run git lfs pull"
            ) from error
        raise CheckpointError(
            f"{path}: is no complete safetensors file ({error}); copy or download it again"
        ) from error


def _is_lfs_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def _check_keys(
    path: Path,
    expected: Mapping[str, tuple[str, tuple[int, ...]]],
    found: Mapping[str, tuple[int, ...]],
    unused: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise one error that lists every key that is missing, unexpected or of another shape."""
    faults = [f"missing: {key}" for key in expected if key not in found]
    for key, shape in found.items():
        wanted = expected[key][1] if key in expected else unused.get(key)
        if wanted is None:
            legacy = key.startswith(_LEGACY_PREFIXES)
            faults.append(f"{'of an older architecture' if legacy else 'unexpected'}: {key}")
        elif wanted != shape:
            faults.append(f"shape: {key}: expected {wanted}, got {shape}")
    if faults:
        raise CheckpointError(
            f"{path}: the weights are not those of config.json, {len(faults)} faults:\n  "
            + "\n  ".join(faults)
        )
