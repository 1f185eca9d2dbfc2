"""Own the named configurations: the released, the one that speed is compared at, the shipped."""

from mu0_core.errors import ConfigError, unknown_name_message
from mu0_world_model.config import DINOV2_BASE, SMOLVLM2_2B, DinoConfig, Mu0Config, VlmConfig

# The published model, 2.6 billion parameters (arXiv 2606.13769 and its training recipe).
RELEASED = Mu0Config(
    vlm=SMOLVLM2_2B,
    dino=DINOV2_BASE,
    vlm_model_name="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    dino_model_name="facebook/dinov2-base",
    num_vlm_layers=20,
    num_expert_layers=20,
    use_depth=True,
    use_dino=True,
)

# The released shape at 150 million parameters, whose speed in the released code is known.
PEER_150M = Mu0Config(
    vlm=VlmConfig(
        vision_width=384,
        vision_layers=8,
        vision_heads=6,
        vision_mlp=1536,
        vision_image_size=384,
        patch_size=14,
        pixel_shuffle=3,
        text_width=768,
        text_heads=12,
        text_kv_heads=12,
        text_head_dim=64,
        text_mlp=3072,
        vocab_size=49280,
    ),
    dino=DinoConfig(width=192, layers=6, heads=3),
    num_vlm_layers=12,
    num_expert_layers=12,
    use_depth=True,
    use_dino=True,
)

# The model that ships: everything learned from scratch on two CPU cores.
TINY = Mu0Config(
    vlm=VlmConfig(
        vision_width=128,
        vision_layers=4,
        vision_heads=4,
        vision_mlp=384,
        vision_image_size=128,
        patch_size=16,
        pixel_shuffle=1,
        text_width=128,
        text_heads=4,
        text_kv_heads=4,
        text_head_dim=32,
        text_mlp=384,
        vocab_size=512,
    ),
    num_vlm_layers=6,
    num_expert_layers=6,
    expert_width_multiplier=1.5,
    resize_imgs_with_padding=(128, 128),
    tokenizer_max_length=24,
    n_max=24,
    use_depth=True,
    use_appearance=True,
    freeze_vision_encoder=False,
    train_expert_only=False,
    rigidity_loss_weight=1.0,
    depth_dropout_prob=0.1,
)

PRESETS = {"released": RELEASED, "peer-150m": PEER_150M, "tiny": TINY}


def preset(name: str) -> Mu0Config:
    """Return a configuration by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_name_message("preset", name, PRESETS))
    return PRESETS[name]
