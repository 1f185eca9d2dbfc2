"""Own predictors with random weights: speed and memory need no training, nor a download."""

import torch
from torch import Tensor, nn

from mu0_core.episode import RELEASED_ARC_STEP
from mu0_world_model.config import Mu0Config
from mu0_world_model.execution import Precision, number_format, settle
from mu0_world_model.model import Mu0
from mu0_world_model.predictor import Predictor
from mu0_world_model.processor import Processor
from mu0_world_model.statistics import Statistics
from mu0_world_model.text import train_tokenizer

INSTRUCTION = "put the red cube into the bowl"

_VOCABULARY = 280  # bytes, padding, and what makes a prompt about as long as with a real one
_DEPTH_LOG_RANGE = (-1.3824, 0.7629)


def untrained_predictor(
    config: Mu0Config,
    *,
    name: str,
    precision: Precision,
    device: str,
    compiled: bool = False,
    seed: int = 0,
) -> Predictor:
    """Make a predictor whose weights are random, in the number format they run in."""
    model = untrained_model(config, precision, seed=seed)
    settle(model, device, precision, compiled=compiled)
    tokenizer = train_tokenizer(
        [f"Task: {INSTRUCTION}\n"], min(_VOCABULARY, config.vlm.vocab_size)
    )
    statistics = Statistics(
        delta_scale=config.delta_scale,
        arc_step=RELEASED_ARC_STEP,
        history_len=config.history_len,
        future_len=config.future_len,
        depth_log_min=_DEPTH_LOG_RANGE[0],
        depth_log_max=_DEPTH_LOG_RANGE[1],
    )
    processor = Processor(config, statistics, tokenizer)
    return Predictor(model, processor, name=name, device=device)


def untrained_model(config: Mu0Config, precision: Precision, *, seed: int = 0) -> Mu0:
    """Make a model, weight after weight, so that no second copy in another format is needed."""
    with torch.device("meta"):
        model = Mu0(config)
    generator = torch.Generator().manual_seed(seed)
    dtype_of = number_format(precision)
    state = {
        name: _weight(name, value, generator).to(dtype_of(name))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval()


def fill(module: nn.Module, *, seed: int = 0) -> None:
    """Give a module random weights of its own formats."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(_weight(name, value, generator))


def _weight(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a weight that keeps the size of what passes through: norms are 1, offsets 0."""
    if like.ndim > 1:
        scale = like[0].numel() ** -0.5
        return torch.randn(like.shape, generator=generator) * scale
    is_factor = name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "lambda1"))
    return torch.full(like.shape, float(is_factor))
