"""Own the sizes and switches of the model, and reading them from a checkpoint's config.json.

Field names are those of the released config.json. That file names its backbones; their sizes come
from its own `vlm_config` and `dino_config` (our checkpoints), from a folder of that name beside
the checkpoint, or from the table of known backbones. `presets` has named configurations.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from mu0_core.bspline import segment_count
from mu0_core.config import from_dict, option, to_dict, validate
from mu0_core.errors import ConfigError, unknown_name_message

RGB_KEY = "observation.images.cam_front"
DEPTH_KEY = "observation.images.cam_front_depth"
DONE_THRESHOLD = 0.5
"""Probability of going on from which a step is shown; traces do not carry another one."""

_logger = logging.getLogger(__name__)


class PositionRounding(StrEnum):
    """Choose the number format in which the vision tower's position table was looked up.

    Training ran the tower in bfloat16, where two indices of each axis differ from float32.
    """

    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


def _divides(name: str, divisor: int, what: str, value: int) -> str | None:
    if divisor < 1 or value % divisor == 0:
        return None
    return f"{name}: expected a divisor of {what} = {value}, got {divisor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmConfig:
    """Size a SmolVLM: vision tower, connector and text layers."""

    vision_width: int = option(description="Width of the vision tower", low=1)
    vision_layers: int = option(description="Layers of the vision tower", low=1)
    vision_heads: int = option(description="Heads of the vision tower", low=1)
    vision_mlp: int = option(description="Inner width of its MLP", low=1)
    vision_image_size: int = option(description="Image side of its positions", unit="px", low=1)
    patch_size: int = option(description="Side of an image patch", unit="px", low=1)
    pixel_shuffle: int = option(description="Patches per token and axis in the connector", low=1)
    text_width: int = option(description="Width of the text layers", low=1)
    text_heads: int = option(description="Query heads of the text layers", low=1)
    text_kv_heads: int = option(description="Key and value heads of the text layers", low=1)
    text_head_dim: int = option(description="Width of a head, even for the rotation", low=2)
    text_mlp: int = option(description="Inner width of their MLP", low=1)
    vocab_size: int = option(description="Rows of the token table", low=1)
    rms_norm_eps: float = option(1e-5, description="Epsilon of the RMS norms", low=0.0)
    layer_norm_eps: float = option(1e-6, description="Epsilon of the layer norms", low=0.0)

    def __post_init__(self) -> None:
        validate(
            self,
            _divides("vision_heads", self.vision_heads, "vision_width", self.vision_width),
            _divides("text_kv_heads", self.text_kv_heads, "text_heads", self.text_heads),
            _divides("2", 2, "text_head_dim", self.text_head_dim),
        )

    @property
    def kv_width(self) -> int:
        """Width of all key heads together."""
        return self.text_kv_heads * self.text_head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoConfig:
    """Size a DINOv2."""

    width: int = option(description="Width", low=1)
    layers: int = option(description="Layers", low=1)
    heads: int = option(description="Heads", low=1)
    mlp_ratio: int = option(4, description="Inner width of the MLP over the width", low=1)
    patch_size: int = option(14, description="Side of a patch", unit="px", low=1)
    image_size: int = option(518, description="Image side of the position table", unit="px", low=1)

    def __post_init__(self) -> None:
        validate(self, _divides("heads", self.heads, "width", self.width))


SMOLVLM2_2B = VlmConfig(
    vision_width=1152,
    vision_layers=27,
    vision_heads=16,
    vision_mlp=4304,
    vision_image_size=384,
    patch_size=14,
    pixel_shuffle=3,
    text_width=2048,
    text_heads=32,
    text_kv_heads=32,
    text_head_dim=64,
    text_mlp=8192,
    vocab_size=49280,
)
DINOV2_BASE = DinoConfig(width=768, layers=12, heads=12)
KNOWN_VLMS = {"HuggingFaceTB/SmolVLM2-2.2B-Instruct": SMOLVLM2_2B}
KNOWN_DINOS = {"facebook/dinov2-base": DINOV2_BASE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mu0Config:
    """Describe one μ₀ model; everything needed to build it without a network."""

    vlm: VlmConfig = option(description="Sizes of the VLM")
    dino: DinoConfig | None = option(None, description="Sizes of the DINOv2, none without it")
    vlm_model_name: str = option("", description="Hub id or folder of the VLM, for its tokenizer")
    dino_model_name: str = option("", description="Hub id or folder of the DINOv2")

    num_vlm_layers: int = option(description="Text layers in use", low=1)
    num_expert_layers: int = option(-1, description="Expert layers, -1 = one per text layer")
    expert_width_multiplier: float = option(0.5, description="Expert width over text width")
    self_attn_every_n_layers: int = option(
        2, description="Every n-th layer joins prefix and suffix; 0: none does", low=0
    )
    history_len: int = option(8, description="History steps h", low=1)
    future_len: int = option(32, description="Future steps H", low=1)
    trace_group_horizon: int = option(8, description="History steps per token", low=1)
    trace_bspline_n_ctrl: int = option(10, description="Control points D", low=4)
    trace_bspline_ctrl_per_token: int = option(10, description="Control points per token", low=1)
    trace_uv_num_freqs: int = option(8, description="Frequencies of the pixel features", low=1)
    trace_adaln_freq_embed_size: int = option(256, description="Features of flow time", low=2)
    min_period: float = option(4e-3, description="Shortest period of flow time", low=1e-9)
    max_period: float = option(4.0, description="Longest period of flow time", low=1e-9)
    num_steps: int = option(4, description="Euler steps of the sampler", low=1)
    n_min: int = option(1, description="Fewest keypoints of a training sample", low=1)
    n_max: int = option(256, description="Most keypoints of a training sample", low=1)

    resize_imgs_with_padding: tuple[int, int] = option(
        (512, 512), description="Image size the model sees, width and height", unit="px", low=1
    )
    tokenizer_max_length: int = option(48, description="Text tokens after padding", low=1)
    position_rounding: PositionRounding = option(
        PositionRounding.BFLOAT16, description="Number format of the position lookup"
    )

    use_depth: bool = option(False, description="Whether there is a depth path")
    depth_lora_rank: int = option(8, description="Rank of the depth path's adapters", low=0)
    depth_lora_alpha: int = option(16, description="Their scale is alpha / rank", low=1)
    use_dino: bool = option(False, description="Whether keypoints carry DINOv2 features")
    use_appearance: bool = option(
        False,
        description="Whether keypoints carry depth and colour and see where the others are; "
        "not in released models",
    )
    dino_input_size: int = option(518, description="Image side that DINOv2 sees", unit="px", low=1)
    dino_num_prefix_tokens: int = option(1, description="Tokens before the patches", low=0)

    trace_done_head: bool = option(True, description="Whether validity is predicted")
    done_bias_init: float = option(3.0, description="Bias the validity head starts from")
    done_loss_weight: float = option(0.5, description="Weight of the validity loss", low=0.0)
    rigidity_loss_weight: float = option(5.0, description="Weight of the rigidity loss", low=0.0)
    trace_history_full_mask_prob: float = option(
        0.5, description="Chance to hide a sample's history", low=0.0, high=1.0
    )
    trace_history_kp_dropout_prob: float = option(
        0.3, description="Chance to hide a keypoint's history", low=0.0, high=1.0
    )
    depth_dropout_prob: float = option(
        0.7, description="Chance to hide a sample's depth", low=0.0, high=1.0
    )
    freeze_vision_encoder: bool = option(True, description="Keep the vision tower fixed")
    train_expert_only: bool = option(True, description="Keep the whole VLM fixed")
    delta_scale: tuple[float, float, float] = option(
        (1.0, 1.0, 1.0), description="Scale of future u, v (normalised) and z (m)", low=1e-9
    )

    def __post_init__(self) -> None:
        validate(self, *_cross_faults(self))

    @property
    def expert_layers(self) -> int:
        """Number of expert layers."""
        return self.num_vlm_layers if self.num_expert_layers < 0 else self.num_expert_layers

    @property
    def layer_stride(self) -> int:
        """Text layers per expert layer."""
        return self.num_vlm_layers // self.expert_layers

    @property
    def expert_width(self) -> int:
        """Width E of the expert."""
        return int(self.vlm.text_width * self.expert_width_multiplier)

    @property
    def expert_mlp(self) -> int:
        """Inner width of the expert's MLP: 4 floor(2E / 3), rounded up to a multiple of 256."""
        return -(-4 * int(2 * self.expert_width / 3) // 256) * 256

    @property
    def history_groups(self) -> int:
        """History tokens of a keypoint."""
        return self.history_len // self.trace_group_horizon

    @property
    def control_groups(self) -> int:
        """Control point tokens of a keypoint."""
        return self.trace_bspline_n_ctrl // self.trace_bspline_ctrl_per_token

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        width, height = (s // self.vlm.patch_size for s in self.resize_imgs_with_padding)
        return width * height // self.vlm.pixel_shuffle**2

    def is_joint(self, expert_layer: int) -> bool:
        """Say whether an expert layer attends to the suffix too, not to the prefix alone."""
        every = self.self_attn_every_n_layers
        return every > 0 and expert_layer * self.layer_stride % every == 0


def _cross_faults(c: Mu0Config) -> list[str | None]:
    """Check the rules that join fields."""
    try:
        segment_count(c.trace_bspline_n_ctrl)
        spline = None
    except ConfigError as error:
        spline = f"trace_bspline_n_ctrl: {error}"
    layers, stride = c.num_expert_layers, c.trace_group_horizon
    faults: list[str | None] = [
        spline,
        _divides("trace_group_horizon", stride, "history_len", c.history_len),
        _divides(
            "trace_bspline_ctrl_per_token",
            c.trace_bspline_ctrl_per_token,
            "trace_bspline_n_ctrl",
            c.trace_bspline_n_ctrl,
        ),
        _divides("num_expert_layers", layers, "num_vlm_layers", c.num_vlm_layers),
        _divides("2", 2, "trace_adaln_freq_embed_size", c.trace_adaln_freq_embed_size),
    ]
    if layers == 0 or layers < -1:
        faults.append(f"num_expert_layers: expected -1 or at least 1, got {layers}")
    if c.n_max < c.n_min:
        faults.append(f"n_max: expected at least n_min = {c.n_min}, got {c.n_max}")
    if not c.min_period < c.max_period:
        faults.append(f"max_period: expected above min_period {c.min_period}, got {c.max_period}")
    if isinstance(c.vlm, VlmConfig) and c.expert_width < 1:
        faults.append(f"expert_width_multiplier: {c.expert_width_multiplier} leaves no width")
    if c.use_dino != (c.dino is not None):
        faults.append(f"dino: expected sizes exactly if use_dino, which is {c.use_dino}")
    if c.use_dino and isinstance(c.dino, DinoConfig):
        faults.append(
            _divides("patch_size of dino", c.dino.patch_size, "dino_input_size", c.dino_input_size)
        )
    if c.use_depth and c.depth_lora_rank == 0:
        faults.append("depth_lora_rank: expected at least 1 with use_depth, got 0")
    if isinstance(c.vlm, VlmConfig):
        faults += _image_faults(c)
    return faults


def _image_faults(c: Mu0Config) -> list[str | None]:
    width, height = c.resize_imgs_with_padding
    if width != height:
        return [f"resize_imgs_with_padding: expected a square, got {width} x {height}"]
    patches = width // c.vlm.patch_size
    return [_divides("vlm.pixel_shuffle", c.vlm.pixel_shuffle, "patches per side", patches)]


# ---------------------------------------------------------------------------------- config.json

# Fields whose one supported value is known; the released loader allows others that nothing uses.
_FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "type": ("smolvla",),
    "trace_mode": (True,),
    "trace_dim": (3,),
    "attention_mode": ("cross_attn",),
    "add_image_special_tokens": (False,),
    "prefix_length": (-1,),
    "depth_clone_stem": (True,),
    "depth_lora_dropout": (0, 0.0),
    "depth_lora_targets": (["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],),
    "empty_cameras": (0,),
    "done_threshold": (DONE_THRESHOLD,),
}

# The same, of an older released file: what they name is unconditional here, and not written.
_LEGACY_FIELDS: dict[str, tuple[Any, ...]] = {
    "trace_attention_mode": ("bidirectional",),
    "trace_use_adaln": (True,),
    "causal_attention": (True,),
}

# Fields of the released file that do not concern the model: bookkeeping, the action mode's
# leftovers, the optimiser presets that its trace trainer never reads.
_IGNORED_FIELDS = frozenset(
    """n_obs_steps output_features device use_amp use_peft push_to_hub repo_id private tags license
    pretrained_path normalization_mapping chunk_size n_action_steps max_state_dim max_action_dim
    adapt_to_pi_aloha use_delta_joint_actions_aloha train_state_proj rtc_config compile_model
    compile_mode use_cache pad_language_to load_vlm_weights vlm_lr_multiplier optimizer_lr
    optimizer_betas optimizer_eps optimizer_weight_decay optimizer_grad_clip_norm
    scheduler_warmup_steps scheduler_decay_steps scheduler_decay_lr""".split()  # noqa: SIM905, a list of 35 names reads worse
)


def read_config(folder: Path) -> Mu0Config:
    """Read the config.json of a checkpoint folder, released or ours.

    Raises:
        ConfigError: The file is missing, no JSON, contradictory, or asks for what is not built.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected names with values, got {type(raw).__name__}")
    try:
        return config_from_released(raw, search=(folder, folder.parent))
    except ConfigError as error:
        raise ConfigError("\n  ".join([f"{path}:", *str(error).splitlines()])) from error


def config_from_released(raw: Mapping[str, Any], *, search: Sequence[Path] = ()) -> Mu0Config:
    """Build a configuration from the content of a config.json.

    Args:
        raw: The content.
        search: Folders in which a backbone named by a relative path may stand.

    Raises:
        ConfigError: As `read_config`; all faults at once.
    """
    faults = [
        f"{name}: expected {allowed[0]!r}, the only value implemented, got {raw[name]!r}"
        for name, allowed in (_FIXED_FIELDS | _LEGACY_FIELDS).items()
        if name in raw and raw[name] not in allowed
    ]
    faults += _input_faults(raw)
    if faults:
        raise ConfigError("\n".join(faults))
    known = {field.name for field in fields(Mu0Config)} - {"vlm", "dino"}
    values = {name: value for name, value in raw.items() if name in known}
    documented = {*known, *_FIXED_FIELDS, *_LEGACY_FIELDS, *_IGNORED_FIELDS}
    unknown = sorted(set(raw) - documented - {"input_features", "vlm_config", "dino_config"})
    if unknown:
        _logger.warning(
            "config.json: ignored fields unknown to this version: %s", ", ".join(unknown)
        )
    values["vlm"] = _backbone("vlm", raw, search)
    if raw.get("use_dino"):
        values["dino"] = _backbone("dino", raw, search)
    return from_dict(Mu0Config, values)


def config_to_released(config: Mu0Config) -> dict[str, Any]:
    """Return the content of a config.json that the released loader reads too."""
    content = to_dict(config)
    vlm, dino = content.pop("vlm"), content.pop("dino")
    width, height = config.resize_imgs_with_padding
    feature = {"type": "VISUAL", "shape": [3, height, width]}
    keys = [RGB_KEY, DEPTH_KEY] if config.use_depth else [RGB_KEY]
    fixed = {name: allowed[0] for name, allowed in _FIXED_FIELDS.items()}
    features = {"input_features": dict.fromkeys(keys, feature), "output_features": {}}
    return {**fixed, **features, **content, "vlm_config": vlm, "dino_config": dino}


def _input_faults(raw: Mapping[str, Any]) -> list[str]:
    """Check the cameras: colour first, then depth if it is used."""
    if "input_features" not in raw:
        return []
    expected = [RGB_KEY, DEPTH_KEY] if raw.get("use_depth") else [RGB_KEY]
    features = raw["input_features"]
    if not isinstance(features, Mapping) or not all(
        isinstance(feature, Mapping) for feature in features.values()
    ):
        return [f"input_features: expected cameras with type and shape, got {features!r}"]
    given = [name for name, feature in features.items() if feature.get("type") == "VISUAL"]
    if given == expected:
        return []
    return [f"input_features: expected the images {expected} in this order, got {given}"]


def _backbone(kind: str, raw: Mapping[str, Any], search: Sequence[Path]) -> Any:
    """Find the sizes of a backbone, as a configuration or the mapping that makes one."""
    own = raw.get(f"{kind}_config")
    if own is not None:
        return own
    name = raw.get(f"{kind}_model_name", "")
    table: Mapping[str, Any] = KNOWN_VLMS if kind == "vlm" else KNOWN_DINOS
    if not isinstance(name, str):
        raise ConfigError(f"{kind}_model_name: expected a text, got {name!r}")
    if name in table:
        return table[name]
    for folder in search:
        path = folder / name / "config.json"
        if name and path.is_file():
            return _hub_sizes(kind, path)
    raise ConfigError(
        f"{kind}_model_name: {unknown_name_message('backbone', name, table)}; "
        f"no folder of that name in {', '.join(map(str, search)) or 'any search folder'} either"
    )


def _hub_sizes(kind: str, path: Path) -> dict[str, Any]:
    """Read the sizes of a backbone from its own config.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _vlm_from_hub(content) if kind == "vlm" else _dino_from_hub(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is no configuration of such a model: {error!r}") from error


def _vlm_from_hub(content: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a SmolVLM's own config.json."""
    vision, text = content["vision_config"], content["text_config"]
    return {
        "vision_width": vision["hidden_size"],
        "vision_layers": vision["num_hidden_layers"],
        "vision_heads": vision["num_attention_heads"],
        "vision_mlp": vision["intermediate_size"],
        "vision_image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "pixel_shuffle": content["scale_factor"],
        "text_width": text["hidden_size"],
        "text_heads": text["num_attention_heads"],
        "text_kv_heads": text["num_key_value_heads"],
        "text_head_dim": text["head_dim"],
        "text_mlp": text["intermediate_size"],
        "vocab_size": text["vocab_size"],
        "rms_norm_eps": text["rms_norm_eps"],
        "layer_norm_eps": vision["layer_norm_eps"],
    }


def _dino_from_hub(content: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a DINOv2's own config.json."""
    return {
        "width": content["hidden_size"],
        "layers": content["num_hidden_layers"],
        "heads": content["num_attention_heads"],
        "mlp_ratio": content["mlp_ratio"],
        "patch_size": content["patch_size"],
        "image_size": content["image_size"],
    }
