"""Own the training command: one process or many (accelerate), exact resume, best and latest.

A run's folder holds checkpoints `latest` and `best`, `state` (what resume needs), `log.jsonl` and
the tokenizer. Weights, gradients and optimiser are float32; activations are in the number format
of the run. Every step's data follow from the seed and the step number.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mu0_core.config import add_arguments, dump_yaml, from_namespace
from mu0_core.errors import CheckpointError, ConfigError, Mu0Error
from mu0_world_model import checkpoint
from mu0_world_model.card import CARD, TrainingFacts, model_card
from mu0_world_model.dataset import Batch, TraceDataset
from mu0_world_model.losses import Losses, flow_losses, hide, loss_counts
from mu0_world_model.model import Mu0, moved
from mu0_world_model.samples import sample_rules
from mu0_world_model.statistics import STATISTICS
from mu0_world_model.training_config import RECIPES, TrainingConfig
from mu0_world_model.training_data import TrainingBatch, TrainingSet, training_batches
from mu0_world_model.training_setup import split_episodes, start_model

_logger = logging.getLogger(__name__)
_MAX_BAD_STEPS = 20


class Objective(nn.Module):
    """Wrap model and loss in one forward pass, as distributed training needs it."""

    def __init__(self, model: Mu0) -> None:
        super().__init__()
        self.model = model

    def forward(self, item: TrainingBatch, hiding: bool) -> Losses:
        """Evaluate the objective on a batch; with hiding, as for training."""
        scene, points = item.batch.scene, item.batch.points
        if hiding:
            scene, points = hide(self.model.config, scene, points, item.hiding)
        return flow_losses(
            self.model, scene, points, item.batch.targets, noise=item.noise, time=item.time
        )


class Trainer:
    """Hold a run: model, optimiser, data, and where it stands."""

    def __init__(self, config: TrainingConfig) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        self.config = config
        # Depth may be hidden in all of a process's samples: its adapters then get no gradient.
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=str(config.precision),
            kwargs_handlers=[ddp],
        )
        if self.accelerator.is_main_process:
            dump_yaml(config, config.output / "training.yaml")
        torch.manual_seed(config.seed)
        paths, held_out = split_episodes(config)
        with self.accelerator.main_process_first():  # it writes the tokenizer
            self.model, self.processor, self.tokenizer_files = start_model(config, paths)
        rules = sample_rules(config.rules)
        samples = TraceDataset(paths, self.processor, rules, seed=config.seed)
        for path, reason in samples.index.skipped.items():
            _logger.warning("skipped episode %s: %s", path, reason)
        self.data = TrainingSet(samples, config.flow_samples)
        self.held_out = None
        if held_out:
            quiet = TraceDataset(held_out, self.processor, rules, seed=config.seed, augment=False)
            self.held_out = TrainingSet(quiet, config.flow_samples)
        self.model.checkpoint_activations(config.recompute)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            trained,
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        self.average = None
        if config.ema_decay > 0.0:
            update = get_ema_multi_avg_fn(config.ema_decay)
            self.average = AveragedModel(self.model, multi_avg_fn=update)
            self.average.to(self.accelerator.device)
        self.objective, self.optimiser = self.accelerator.prepare(Objective(self.model), optimiser)
        self.step = 0
        self.best = math.inf
        self._bad_steps = 0
        self._started = time.monotonic()
        self._measured: dict[str, float] = {}
        if config.resume:
            self._resume()

    def run(self) -> None:
        """Train to the last step, saving and evaluating on the way."""
        config, main = self.config, self.accelerator.is_main_process
        batches = self._batches(self.data, self.step)
        bar = tqdm(initial=self.step, total=config.steps, disable=not main, unit="step")
        while self.step < config.steps:
            values = self._train_step(next(batches))
            self.step += 1
            bar.update()
            if self.step % config.log_every == 0:
                bar.set_postfix(loss=f"{values['loss']:.3f}")
                self._log({**values, "seconds": time.monotonic() - self._started})
            last = self.step == config.steps
            if self.held_out is not None and (last or self.step % config.evaluate_every == 0):
                self._evaluate()
            if last or self.step % config.save_every == 0:
                self._save()
        bar.close()
        self.accelerator.end_training()

    def averaged_model(self) -> Mu0:
        """Return the model with averaged weights, or the model itself without averaging."""
        return self.model if self.average is None else cast(Mu0, self.average.module)

    def _train_step(self, items: list[TrainingBatch]) -> dict[str, float]:
        """Take one optimiser step; skip it if anything is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.objective.train()
        items = [_on(item, self.accelerator.device) for item in items]
        counts = self._global_counts(items)
        world = self.accelerator.num_processes
        sums = torch.zeros(4, dtype=torch.float64)
        for item in items:
            losses = self.objective(item, True)
            # Distributed training averages gradients over processes; the loss is a sum over them.
            loss = losses.total(self.model.config, counts) * world
            self.accelerator.backward(loss)
            sums += _log_values(losses, counts, self.model.config)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        sums = self.accelerator.reduce(sums.to(self.accelerator.device), reduction="sum").cpu()
        if not (bool(torch.isfinite(torch.as_tensor(norm))) and bool(torch.isfinite(sums).all())):
            self._count_bad_step()
        else:
            self._bad_steps = 0
            self.optimiser.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        self.optimiser.zero_grad()
        names = ("loss", "flow", "done", "rigidity")
        values = dict(zip(names, sums.tolist(), strict=True))
        return {**values, "grad_norm": float(norm), "lr": self._learning_rate()}

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
        span = max(config.steps - config.warmup_steps, 1)
        share = (step - config.warmup_steps) / span
        low = config.final_lr_share
        return config.lr * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * share)))

    def _global_counts(self, items: list[TrainingBatch]) -> Tensor:
        """Return what the loss terms of this step are divided by, over all processes."""
        repeats = self.config.flow_samples
        counts = torch.stack(
            [
                loss_counts(self.model.config, item.batch.points, item.batch.targets, repeats)
                for item in items
            ]
        )
        return self.accelerator.reduce(counts.sum(0), reduction="sum").float()

    def _batches(self, data: TrainingSet, start: int) -> Iterator[list[TrainingBatch]]:
        return training_batches(
            data,
            batch_size=min(self.config.batch_size, len(data.samples)),
            micro=self.config.micro_batch_size,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            start=start,
            workers=self.config.workers,
        )

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Evaluate the objective on held-out episodes, the same samples and draws each time."""
        assert self.held_out is not None
        objective = Objective(self.averaged_model()).eval()
        batches = self._batches(self.held_out, 0)
        totals = torch.zeros(4, dtype=torch.float64)
        for _ in range(self.config.evaluate_batches):
            items = [_on(item, self.accelerator.device) for item in next(batches)]
            counts = self._global_counts(items)
            for item in items:
                totals += _log_values(objective(item, False), counts, self.model.config)
        totals = self.accelerator.reduce(totals.to(self.accelerator.device), reduction="sum").cpu()
        names = ("eval_loss", "eval_flow", "eval_done", "eval_rigidity")
        means = (totals / self.config.evaluate_batches).tolist()
        self._measured = dict(zip(names, means, strict=True))
        self._log(self._measured)
        if means[0] < self.best:
            self.best = means[0]
            self._save_checkpoint("best")

    def _save(self) -> None:
        """Write the latest checkpoint and all that an exact resume needs."""
        self._save_checkpoint("latest")
        partial = self.config.output / ".state.partial"
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            average = None if self.average is None else self.average.state_dict()
            run = {"step": self.step, "best": self.best, "average": average}
            torch.save(run, partial / "run.pt")
            checkpoint.replace_folder(partial, self.config.output / "state")
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        checkpoint.save(
            self.averaged_model(),
            self.config.output / name,
            step=self.step,
            extras={STATISTICS: self.processor.statistics.to_json(), CARD: self._card()},
            copy=self.tokenizer_files,
        )

    def _card(self) -> str:
        """Describe the run so far."""
        samples = self.data.samples
        facts = TrainingFacts(
            data=self.config.episodes,
            episodes=len(samples.index.episodes),
            samples=len(samples),
            parameters=sum(p.numel() for p in self.model.parameters()),
            step=self.step,
            batch_size=self.config.batch_size,
            flow_samples=self.config.flow_samples,
            seconds=time.monotonic() - self._started,
            device=f"{self.accelerator.num_processes} x {self.accelerator.device}",
            measured=self._measured,
        )
        return model_card(facts, self.processor.statistics)

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

    def _log(self, values: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        line = json.dumps({"step": self.step, **values})
        with (self.config.output / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _log_values(losses: Losses, counts: Tensor, config: Any) -> Tensor:
    """Return total, flow, done and rigidity (4,) of a batch as its share of the whole."""
    terms = (losses.flow, losses.done, losses.rigidity)
    shares = [t.total.detach() / c.clamp(min=1) for t, c in zip(terms, counts, strict=True)]
    total = losses.total(config, counts).detach()
    return torch.stack([total, *shares]).double().cpu()


def _on(item: TrainingBatch, device: torch.device) -> TrainingBatch:
    """Return a batch on a device; what decides about hiding stays on the CPU."""
    batch = item.batch
    return TrainingBatch(
        batch=Batch(
            moved(batch.scene, device), moved(batch.points, device), moved(batch.targets, device)
        ),
        noise=item.noise.to(device),
        time=item.time.to(device),
        hiding=item.hiding,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a model from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description="Train the μ₀ trace world model.")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="ours", help="Starting point")
    add_arguments(parser, TrainingConfig)
    recipe = parser.parse_known_args(arguments)[0].recipe
    parser.set_defaults(**RECIPES[recipe])
    namespace = parser.parse_args(arguments)
    try:
        config = from_namespace(TrainingConfig, namespace)
        config.output.mkdir(parents=True, exist_ok=True)
        if not config.resume and (config.output / "state").exists():
            raise ConfigError(f"output: {config.output} holds a run; add --resume, or remove it")
        Trainer(config).run()
    except Mu0Error as error:
        parser.exit(2, f"error: {error}\n")
    except torch.OutOfMemoryError:
        parser.exit(
            2, "error: out of memory; lower --micro_batch_size or --flow_samples, or --recompute\n"
        )


if __name__ == "__main__":
    main()
