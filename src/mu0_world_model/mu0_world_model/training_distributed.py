"""Own how a run is spread over processes: copies of the model (DDP) or parts of it (FSDP)."""

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    register_fsdp_forward_method,
)

from mu0_core.errors import ConfigError
from mu0_world_model.training_config import Precision, TrainingConfig
from mu0_world_model.training_objective import Objective

# Gathered one at a time while they work; the rest is gathered for the length of a step. These
# hold half of the weights, and every process calls each of them equally often, as it must be: how
# often the vision tower works depends on the depth that a process's samples have.
_GATHERED_ALONE = ["LlamaMLP"]


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Set up the processes that the launcher has started.

    Raises:
        ConfigError: Weights shall be split, and there are no GPUs to split them over.
    """
    if torch.cuda.is_available() and config.precision is Precision.BFLOAT16:
        torch.set_float32_matmul_precision("high")  # TF32, as in the published run
    split = config.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    plugin = None
    if split:
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=_GATHERED_ALONE,
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
            state_dict_type="FULL_STATE_DICT",
        )
    # Depth may be hidden in all of a process's samples: its adapters then get no gradient.
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=str(config.precision),
        fsdp_plugin=plugin,
        kwargs_handlers=[ddp],
    )
    if plugin is not None:
        if accelerator.distributed_type is not DistributedType.FSDP:
            raise ConfigError(
                f"fsdp: expected several processes with a GPU each, got "
                f"{accelerator.num_processes} on {accelerator.device.type}; leave it out"
            )
        # Number formats are autocast's business, as without splitting.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    return accelerator


def split_aware(objective: Objective, optimiser: torch.optim.Optimizer) -> None:
    """Prepare what split weights need: sampling gathers them, as the forward pass does.

    The optimiser keeps something for each weight, also for those that never get a gradient: what
    is split is stored and read weight by weight.
    """
    if not isinstance(objective, FSDPModule):
        return
    register_fsdp_forward_method(objective, "sample")
    for group in optimiser.param_groups:
        for weight in group["params"]:
            optimiser.state[weight] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }


def forget_gathered(objective: torch.nn.Module) -> None:
    """Drop weights that were gathered without a backward pass, for they are about to change."""
    if isinstance(objective, FSDPModule):
        objective.reshard()
