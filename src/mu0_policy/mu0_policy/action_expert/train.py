"""Train an action expert: `ros2 run mu0_policy train_action_expert`.

A run's folder holds checkpoints `latest` and `best`, `state` (what resume needs), features in
`cache`, and logs for TensorBoard. Every step's data follow from the seed and the step number.
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mu0_core.config import add_arguments
from mu0_core.errors import Mu0Error
from mu0_policy.action_expert import checkpoint
from mu0_policy.action_expert.actions import Translator, action_names, state_names
from mu0_policy.action_expert.checkpoint import Checkpoint
from mu0_policy.action_expert.config import ActionExpertConfig, decoder_size
from mu0_policy.action_expert.feature_cache import Prepared
from mu0_policy.action_expert.frozen import FeatureConfig, FeatureExtractor, load_extractor
from mu0_policy.action_expert.model import ActionExpert, flow_loss
from mu0_policy.action_expert.places import ToolView, tool_view
from mu0_policy.action_expert.training_config import ExpertTrainingConfig
from mu0_policy.action_expert.training_data import (
    ExampleRules,
    ExpertBatch,
    ExpertDataset,
    collate,
    expert_batches,
    on_device,
)
from mu0_policy.action_expert.training_start import (
    body_of,
    data_digest,
    kinematics,
    load_all,
    make_card,
)
from mu0_policy.action_expert.training_store import BEST, LATEST, RunStore, begin_run, settings
from mu0_world_model.training_average import MovingAverage
from mu0_world_model.training_store import tolerant

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

        self.config = config
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=str(config.precision),
            log_with="tensorboard",
            project_dir=str(config.output),
        )
        with self.accelerator.main_process_first():
            if self.accelerator.is_main_process:
                begin_run(config)
        self.accelerator.init_trackers("logs")
        extractor = _extractor(config, self.accelerator.device)
        with self.accelerator.main_process_first():  # it fills the cache
            shown, prepared = load_all(config, extractor)
        body = body_of(config, shown[0].robot)
        self.card = make_card(config, shown, body)
        ik = kinematics(self.card, body, shown[0].description)
        self._translator = Translator(config.space, ik)
        view = tool_view(self.card, ik)
        self.data, self.held_out = _split(config, prepared, self._translator, view)
        torch.manual_seed(config.seed)
        expert = ActionExpert(_sizes(config, extractor, shown[0].joints, prepared[0]))
        digest = data_digest(shown[0].origin, prepared)
        self.store = RunStore(config.output, self.accelerator, digest)
        optimiser = torch.optim.AdamW(
            expert.parameters(), lr=config.lr, betas=_BETAS, weight_decay=config.weight_decay
        )
        self.expert = expert
        self.objective, self.optimiser = self.accelerator.prepare(Objective(expert), optimiser)
        self.average = None
        if config.ema_decay > 0.0:
            self.average = MovingAverage(expert, config.ema_decay)
        self.step, self.best, self._bad_steps = 0, math.inf, 0
        self._held_out_rad: float | None = None
        self._logs = True
        if config.resume:
            self._resume()
        if self.held_out is None and self.accelerator.is_main_process:
            _logger.warning("nothing is held out: there will be `latest`, but no `best`")

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
                self._log(values)
            last = self.step == config.steps
            if self.held_out is not None and (last or self.step % config.evaluate_every == 0):
                self._evaluate(self.held_out)
            if last or self.step % config.save_every == 0:
                self._save()
        bar.close()
        if self.held_out is not None and self._held_out_rad is None:  # all was done before
            self._evaluate(self.held_out)
        with self._log_tolerant():
            self.accelerator.end_training()
        return {"steps": self.step, "held_out_rad": self._held_out_rad, **values}

    @contextmanager
    def averaged(self) -> Iterator[ActionExpert]:
        """Let the expert have its averaged weights for a while, if there is an average."""
        with nullcontext() if self.average is None else self.average.applied():
            yield self.expert

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
                self.average.update()
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
        with self.averaged() as expert:
            joints, gripper = held_out_errors(expert.eval(), data, self._translator, moments)
        self._held_out_rad = joints
        self._log({"held_out_rad": joints, "held_out_gripper": gripper})
        if joints < self.best and self._save_checkpoint(BEST):
            self.best = joints

    def _save(self) -> None:
        """Write the latest checkpoint and all that an exact resume needs; see `tolerant`."""
        self._save_checkpoint(LATEST)
        average = None if self.average is None else self.average.state_dict()
        run = {
            "step": self.step,
            "best": self.best,
            "average": average,
            "held_out_rad": self._held_out_rad,
        }
        with tolerant(last=self.step == self.config.steps):
            self.store.save_state(run)

    def _save_checkpoint(self, name: str) -> bool:
        """Write a checkpoint in the main process; return whether it could be."""
        if not self.accelerator.is_main_process:
            return False
        card = replace(self.card, step=self.step, held_out_rad=self._held_out_rad)
        whole = Checkpoint(expert=self.expert, normaliser=self.data.normaliser, card=card)
        with self.averaged(), tolerant(last=self.step == self.config.steps):
            checkpoint.save(whole, self.config.output / name)
            return True
        return False

    def _log(self, values: Mapping[str, float]) -> None:
        with self._log_tolerant():
            self.accelerator.log(dict(values), step=self.step)

    @contextmanager
    def _log_tolerant(self) -> Iterator[None]:
        """Go on if curves cannot be written, as on a full disk, and tell so once."""
        try:
            yield
        except OSError as error:
            if self._logs:
                _logger.error("curves cannot be written (%s); training goes on", error)
            self._logs = False

    def _resume(self) -> None:
        """Load the state of the run in the output folder."""
        run = self.store.load_state()
        self.step, self.best = run["step"], run["best"]
        self._held_out_rad = run.get("held_out_rad")
        if self.average is not None and run["average"] is not None:
            self.average.load_state_dict(run["average"])


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
    wanted = FeatureConfig(
        points=config.points, grid=config.grid, pool=config.pool, draws=config.draws
    )
    return load_extractor(config.world_model, wanted, device)


def _split(
    config: ExpertTrainingConfig,
    prepared: list[Prepared],
    translator: Translator,
    view: ToolView | None,
) -> tuple[ExpertDataset, ExpertDataset | None]:
    """Hold some demonstrations out, by the seed."""
    order = np.random.default_rng(config.seed).permutation(len(prepared))
    n_held_out = int(np.ceil(config.held_out_share * len(prepared))) if len(prepared) > 1 else 0
    rules = ExampleRules(
        chunk_size=config.chunk_size,
        most_known=config.most_known,
        known_share=config.known_share,
        shift_px=config.shift_px,
        noises=config.noises,
        seed=config.seed,
    )
    learned = [prepared[i] for i in order[n_held_out:]]
    data = ExpertDataset(learned, translator, rules, view=view)
    if not n_held_out:
        return data, None
    rest = [prepared[i] for i in order[:n_held_out]]
    return data, ExpertDataset(rest, translator, rules, data.normaliser, view).quiet()


def _sizes(
    config: ExpertTrainingConfig,
    extractor: FeatureExtractor,
    joints: tuple[str, ...],
    example: Prepared,
) -> ActionExpertConfig:
    world = extractor.model.config
    width = world.vlm.text_width
    context, language = (example.features[name].shape[1] for name in ("context", "language"))
    return ActionExpertConfig(
        context_width=width,
        trace_width=world.expert_width,
        use_traces=config.use_traces,
        trace_places=True,
        trace_tokens=True,
        context_places=context - language,  # what comes before the words
        context_summary=config.context_summary,
        mixer_heads=math.gcd(width, 16),
        cameras=config.cameras,
        state_dim=len(state_names(joints)),
        action_dim=len(action_names(config.space, joints)),
        chunk_size=config.chunk_size,
        decoder=decoder_size(config.size),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; the last line of the output has the results as JSON."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # tells of every file it writes
    parser = argparse.ArgumentParser(prog="train_action_expert", description=__doc__)
    add_arguments(parser, ExpertTrainingConfig)
    try:
        results = Trainer(settings(vars(parser.parse_args(arguments)))).run()
    except Mu0Error as error:
        parser.exit(2, f"train_action_expert: {error}\n")
    except (RuntimeError, MemoryError) as error:
        if not _is_short_of_memory(error):
            raise
        parser.exit(2, "train_action_expert: out of memory; lower --batch_size or --noises\n")
    except KeyboardInterrupt:
        parser.exit(
            130,
            "train_action_expert: stopped; --resume goes on from what was saved last, and "
            "features are kept\n",
        )
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


def _is_short_of_memory(error: Exception) -> bool:
    kinds = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return kinds or any(text in str(error) for text in ("DefaultCPUAllocator", "worker (pid"))


if __name__ == "__main__":
    sys.exit(main())
