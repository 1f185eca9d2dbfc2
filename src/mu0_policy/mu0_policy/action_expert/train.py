"""Train an action expert: `ros2 run mu0_policy train_action_expert`.

A run's folder holds checkpoints `latest` and `best`, `state` (what resume needs), features in
`cache`, and logs for TensorBoard. Every step's data follow from the seed and the step number.
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from mu0_core.config import add_arguments, dump_yaml, from_namespace
from mu0_core.embodiment import arm_model, load_embodiment
from mu0_core.errors import CheckpointError, ConfigError, EpisodeError, Mu0Error
from mu0_core.kinematics import DifferentialIK
from mu0_policy.action_expert import checkpoint
from mu0_policy.action_expert.actions import ActionSpace, Translator, action_names, state_names
from mu0_policy.action_expert.card import ExpertCard
from mu0_policy.action_expert.checkpoint import Checkpoint
from mu0_policy.action_expert.config import ActionExpertConfig, decoder_size
from mu0_policy.action_expert.feature_cache import Prepared, prepare
from mu0_policy.action_expert.frozen import FeatureConfig, FeatureExtractor, load_extractor
from mu0_policy.action_expert.model import ActionExpert, flow_loss
from mu0_policy.action_expert.training_config import ExpertTrainingConfig
from mu0_policy.action_expert.training_data import (
    ExampleRules,
    ExpertBatch,
    ExpertDataset,
    collate,
    expert_batches,
    on_device,
)
from mu0_policy.demonstrations.demonstration import FRONT, Demonstration, Wanted, faults
from mu0_policy.demonstrations.reading import read_demonstrations

_MAX_BAD_STEPS = 20
_BETAS = (0.9, 0.95)
_logger = logging.getLogger(__name__)


class Objective(torch.nn.Module):
    """Wrap expert and loss in one forward pass, as distributed training needs it."""

    def __init__(self, expert: ActionExpert) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, batch: ExpertBatch) -> torch.Tensor:
        """Return the loss."""
        return flow_loss(
            self.expert,
            batch.seen,
            batch.actions,
            noise=batch.noise,
            time=batch.time,
            counted=batch.counted,
            n_known=batch.n_known,
        )


class Trainer:
    """Hold a run: expert, optimiser, data, and where it stands."""

    def __init__(self, config: ExpertTrainingConfig) -> None:
        from accelerate import Accelerator
        from torch.optim.swa_utils import AveragedModel

        self.config = config
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=str(config.precision),
            log_with="tensorboard",
            project_dir=str(config.output),
        )
        if self.accelerator.is_main_process:
            dump_yaml(config, config.output / "training.yaml")
        self.accelerator.init_trackers("logs")
        extractor = _extractor(config, self.accelerator.device)
        with self.accelerator.main_process_first():  # it fills the cache
            shown, prepared = load_all(config, extractor)
        self.data, self.held_out, self._translator = _split(config, prepared)
        torch.manual_seed(config.seed)
        expert = ActionExpert(_sizes(config, extractor, shown[0]))
        self.card = _card(config, shown, _origin(extractor, shown[0]))
        optimiser = torch.optim.AdamW(
            expert.parameters(), lr=config.lr, betas=_BETAS, weight_decay=config.weight_decay
        )
        self.average = None
        if config.ema_decay > 0.0:
            average = AveragedModel(expert, multi_avg_fn=averaging(config.ema_decay))
            self.average = average.to(self.accelerator.device)
        self.expert = expert
        self.objective, self.optimiser = self.accelerator.prepare(Objective(expert), optimiser)
        self.step, self.best, self._bad_steps = 0, math.inf, 0
        self._held_out_rad: float | None = None
        if config.resume:
            self._resume()

    def run(self) -> dict[str, Any]:
        """Train to the last step, saving and measuring on the way; return the results."""
        config, main = self.config, self.accelerator.is_main_process
        batches = expert_batches(
            self.data,
            batch_size=min(config.batch_size, len(self.data)),
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            start=self.step,
            workers=config.workers,
        )
        bar = tqdm(initial=self.step, total=config.steps, disable=not main, unit="step")
        values: dict[str, float] = {}
        while self.step < config.steps:
            values = self._train_step(next(batches))
            self.step += 1
            bar.update()
            if self.step % config.log_every == 0:
                bar.set_postfix(loss=f"{values['loss']:.3f}")
                self.accelerator.log(values, step=self.step)
            last = self.step == config.steps
            if self.held_out is not None and (last or self.step % config.evaluate_every == 0):
                self._evaluate(self.held_out)
            if last or self.step % config.save_every == 0:
                self._save()
        bar.close()
        self.accelerator.end_training()
        return {"steps": self.step, "held_out_rad": self._held_out_rad, **values}

    def averaged(self) -> ActionExpert:
        """Return the expert with averaged weights, or itself without averaging."""
        return self.expert if self.average is None else cast(ActionExpert, self.average.module)

    def _train_step(self, batch: ExpertBatch) -> dict[str, float]:
        """Take one optimiser step; leave it out if anything is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.objective.train()
        loss = self.objective(on_device(batch, self.accelerator.device))
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.expert.parameters(), self.config.grad_clip)
        if bool(torch.isfinite(torch.as_tensor(norm))):
            self._bad_steps = 0
            self.optimiser.step()
            if self.average is not None:
                self.average.update_parameters(self.expert)
        else:
            self._count_bad_step()
        self.optimiser.zero_grad()
        mean = self.accelerator.reduce(loss.detach(), reduction="mean")
        return {"loss": float(mean), "grad_norm": float(norm), "lr": self._learning_rate()}

    def _count_bad_step(self) -> None:
        self._bad_steps += 1
        _logger.warning("step %d: loss or gradient not finite, step left out", self.step)
        if self._bad_steps >= _MAX_BAD_STEPS:
            raise Mu0Error(
                f"training: {_MAX_BAD_STEPS} steps in a row were not finite, the last is "
                f"{self.step}; lower lr (now {self.config.lr:g}) and resume"
            )

    def _learning_rate(self) -> float:
        """Rise linearly, then fall on a cosine."""
        config, step = self.config, self.step
        if step < config.warmup_steps:
            return config.lr * (step + 1) / config.warmup_steps
        share = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
        low = config.final_lr_share
        return config.lr * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * share)))

    def _evaluate(self, data: ExpertDataset) -> None:
        """Measure on held-out moments how far the commands are off, the same noise each time."""
        n = min(self.config.evaluate_moments, len(data))
        moments = np.linspace(0, len(data) - 1, n).astype(int).tolist()
        if not self.accelerator.is_main_process:
            return
        expert = self.averaged().eval()
        joints, gripper = held_out_errors(expert, data, self._translator, moments)
        self._held_out_rad = joints
        self.accelerator.log({"held_out_rad": joints, "held_out_gripper": gripper}, step=self.step)
        if joints < self.best:
            self.best = joints
            self._save_checkpoint("best")

    def _save(self) -> None:
        """Write the latest checkpoint and all that an exact resume needs."""
        self._save_checkpoint("latest")
        partial = self.config.output / ".state.partial"
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            average = None if self.average is None else self.average.state_dict()
            torch.save(
                {"step": self.step, "best": self.best, "average": average}, partial / "run.pt"
            )
            checkpoint.replace_folder(partial, self.config.output / "state")
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        card = replace(self.card, step=self.step, held_out_rad=self._held_out_rad)
        whole = Checkpoint(expert=self.averaged(), normaliser=self.data.normaliser, card=card)
        checkpoint.save(whole, self.config.output / name)

    def _resume(self) -> None:
        """Load the state of the run in the output folder."""
        state = self.config.output / "state"
        if not (state / "run.pt").is_file():
            raise CheckpointError(f"{state}: nothing to resume there; leave --resume out to start")
        self.accelerator.load_state(str(state))
        run = torch.load(state / "run.pt", map_location="cpu", weights_only=True)
        self.step, self.best = run["step"], run["best"]
        if self.average is not None and run["average"] is not None:
            self.average.load_state_dict(run["average"])


def averaging(decay: float) -> Callable[..., None]:
    """Return how an average takes weights in: faster at first, or it kept how they began."""
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    def update(average: list[torch.Tensor], weights: list[torch.Tensor], n: int) -> None:
        kept = min(decay, (1 + int(n)) / (10 + int(n)))
        get_ema_multi_avg_fn(kept)(average, weights, n)

    return update


def load_all(
    config: ExpertTrainingConfig, extractor: FeatureExtractor
) -> tuple[list[Demonstration], list[Prepared]]:
    """Read, check and prepare all demonstrations.

    Raises:
        EpisodeError: One cannot be used; the message lists every fault of every one.
    """
    shown: list[Demonstration] = []
    prepared: list[Prepared] = []
    wrong: list[str] = []
    cache = config.cache or config.output / "cache"
    wanted: Wanted | None = None
    for one in tqdm(read_demonstrations(config), unit="demonstration", desc="features"):
        wanted = wanted or Wanted(joints=one.joints, cameras=config.cameras, rate_hz=one.rate_hz)
        found = faults(one, wanted)
        if shown and one.robot != shown[0].robot:
            found.append(f"robot: expected {shown[0].robot!r}, got {one.robot!r}")
        if shown and _origin(extractor, one) != _origin(extractor, shown[0]):
            found.append("depth: some demonstrations have depth pictures, some have none")
        if found:
            wrong.append("\n    ".join([f"{one.name}:", *found]))
            continue
        shown.append(one)
        origin = _origin(extractor, one)
        prepared.append(prepare(one, config.cameras, extractor, origin, cache))
    if wrong:
        raise EpisodeError("\n  ".join(["demonstrations that cannot be used:", *wrong]))
    return shown, prepared


def held_out_errors(
    expert: ActionExpert, data: ExpertDataset, translator: Translator, moments: Sequence[int]
) -> tuple[float, float]:
    """Return the mean error of the joints (rad) and of the gripper's goal over chunks."""
    batch = collate([data[0, index] for index in moments])
    batch = on_device(batch, next(expert.parameters()).device)
    found = data.normaliser.action_back(expert.sample(batch.seen, batch.noise)).double().cpu()
    joints, gripper = [], []
    for index, actions in zip(moments, found.numpy(), strict=True):
        wanted, counted = data.chunk(index)
        try:
            commands = translator.commands(actions, data.joints(index))
        except Mu0Error:
            continue  # a tool pose out of reach; counted by what is left
        apart = np.abs(commands - wanted)[counted]
        joints.append(apart[:, :-1].mean())
        gripper.append(apart[:, -1].mean())
    if not joints:
        return math.inf, math.inf
    return float(np.mean(joints)), float(np.mean(gripper))


def _extractor(config: ExpertTrainingConfig, device: torch.device) -> FeatureExtractor:
    wanted = FeatureConfig(grid=config.grid, pool=config.pool, draws=config.draws)
    return load_extractor(config.world_model, wanted, device)


def _split(
    config: ExpertTrainingConfig, prepared: list[Prepared]
) -> tuple[ExpertDataset, ExpertDataset | None, Translator]:
    """Hold some demonstrations out, by the seed."""
    order = np.random.default_rng(config.seed).permutation(len(prepared))
    n_held_out = int(np.ceil(config.held_out_share * len(prepared))) if len(prepared) > 1 else 0
    ik = None
    if config.space is ActionSpace.TOOL_DELTAS:
        assert config.embodiment_file is not None
        body = load_embodiment(config.embodiment_file)
        ik = DifferentialIK(arm_model(body), body.tool_frame, q_nominal=np.array(body.arm.home_q))
    translator = Translator(config.space, ik)
    rules = ExampleRules(
        chunk_size=config.chunk_size,
        most_known=config.most_known,
        known_share=config.known_share,
        shift_px=config.shift_px,
        noises=config.noises,
        seed=config.seed,
    )
    data = ExpertDataset([prepared[i] for i in order[n_held_out:]], translator, rules)
    if not n_held_out:
        return data, None, translator
    rest = [prepared[i] for i in order[:n_held_out]]
    held_out = ExpertDataset(rest, translator, rules, data.normaliser).quiet()
    return data, held_out, translator


def _sizes(
    config: ExpertTrainingConfig, extractor: FeatureExtractor, shown: Demonstration
) -> ActionExpertConfig:
    world = extractor.model.config
    width = world.vlm.text_width
    return ActionExpertConfig(
        context_width=width,
        trace_width=world.expert_width,
        use_traces=config.use_traces,
        mixer_heads=math.gcd(width, 16),
        cameras=config.cameras,
        state_dim=len(state_names(shown.joints)),
        action_dim=len(action_names(config.space, shown.joints)),
        chunk_size=config.chunk_size,
        decoder=decoder_size(config.size),
    )


def _origin(extractor: FeatureExtractor, shown: Demonstration) -> str:
    return extractor.origin(depth=shown.depth is not None)


def _card(config: ExpertTrainingConfig, shown: list[Demonstration], identity: str) -> ExpertCard:
    first = shown[0]
    front, *sizes = (
        "{}x{}".format(*first.picture_size(camera)) for camera in (FRONT, *config.cameras)
    )
    q = np.concatenate([one.q for one in shown])
    tool_frame = ""
    if config.space is ActionSpace.TOOL_DELTAS and config.embodiment_file is not None:
        tool_frame = load_embodiment(config.embodiment_file).tool_frame
    return ExpertCard(
        robot=first.robot,
        joints=first.joints,
        gripper_joints=first.gripper_joints,
        space=config.space,
        rate_hz=first.rate_hz,
        features=identity,
        cameras=config.cameras,
        picture_sizes=tuple(sizes),
        front_size=front,
        focal_lengths=tuple(
            round(first.focal_lengths.get(camera, 0.0), 5) for camera in (FRONT, *config.cameras)
        ),
        joints_low=tuple(q.min(axis=0).round(4).tolist()),
        joints_high=tuple(q.max(axis=0).round(4).tolist()),
        tool_frame=tool_frame,
        most_known=config.most_known,
        instructions=tuple(sorted({one.instruction for one in shown})),
        demonstrations=len(shown),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; the last line of the output has the results as JSON."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(prog="train_action_expert", description=__doc__)
    add_arguments(parser, ExpertTrainingConfig)
    try:
        config = from_namespace(ExpertTrainingConfig, parser.parse_args(arguments))
        Path(config.output).mkdir(parents=True, exist_ok=True)
        if not config.resume and (config.output / "state").exists():
            raise ConfigError(f"output: {config.output} holds a run; add --resume, or remove it")
        results = Trainer(config).run()
    except Mu0Error as error:
        parser.exit(2, f"train_action_expert: {error}\n")
    except torch.OutOfMemoryError:
        parser.exit(2, "train_action_expert: out of memory; lower --batch_size\n")
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
