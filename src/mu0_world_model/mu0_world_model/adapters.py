"""Own which weights a run trains, and low-rank adapters on the language model.

The adapters are peft's, put into the text layers; the text layers themselves then stay fixed. A
checkpoint holds each weight with its adapter added, so it has the released form and needs no
adapter to be read; only the state that a run goes on from has them apart.
"""

from collections.abc import Mapping

from torch import Tensor

from mu0_world_model.model import Mu0
from mu0_world_model.training_config import Trained

_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_ADAPTER = "lora"  # names of weights hold it: ...q_proj.lora_A.lora.weight


def choose_weights(model: Mu0, trained: Trained, *, lora_rank: int, lora_alpha: float) -> None:
    """Set which weights of a model take gradients.

    Args:
        model: The model, as its configuration freezes it.
        trained: What is trained; with the expert alone the whole prefix is fixed.
        lora_rank: Rank of adapters on the text layers, trained in any case; 0: none.
        lora_alpha: Their scale is alpha / rank.
    """
    if trained is Trained.EXPERT:
        model.vlm.requires_grad_(False)
    if lora_rank:
        _add_adapters(model, lora_rank, lora_alpha)


def merged(state: Mapping[str, Tensor], *, lora_rank: int, lora_alpha: float) -> dict[str, Tensor]:
    """Return the weights of a model by name with the adapters added to what they adapt."""
    if not lora_rank:
        return dict(state)
    scale = lora_alpha / lora_rank
    weights = {}
    for name, value in state.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        prefix, found, rest = name.partition(".base_layer.")
        if not found:
            weights[name] = value
            continue
        a, b = (state[f"{prefix}.lora_{side}.{_ADAPTER}.weight"].float() for side in "AB")
        weights[f"{prefix}.{rest}"] = (value.float() + scale * (b @ a)).to(value.dtype)
    return weights


def _add_adapters(model: Mu0, rank: int, alpha: float) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=_LINEARS)  # type: ignore[arg-type]
    inject_adapter_in_model(config, model.vlm.layers, adapter_name=_ADAPTER)
