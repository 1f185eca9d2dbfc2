"""Own a training run: its steps, its evaluations, what it saves.

Weights that are trained, gradients and optimiser are float32; activations are in the number format
of the run. Every step's data follow from the seed and the step number, so the loss of a step is
the same whatever the number of processes, and whether the run was stopped in between.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from mu0_core.errors import ConfigError, Mu0Error
from mu0_world_model.adapters import choose_weights
from mu0_world_model.card import TrainingFacts, model_card
from mu0_world_model.dataset import TraceDataset
from mu0_world_model.samples import SampleIndex, sample_rules
from mu0_world_model.training_average import MovingAverage
from mu0_world_model.training_config import TrainingConfig
from mu0_world_model.training_data import TrainingBatch, TrainingSet, step_size, training_batches
from mu0_world_model.training_distributed import forget_gathered, make_accelerator, split_aware
from mu0_world_model.training_evaluation import comparison, sample_traces, trace_errors
from mu0_world_model.training_objective import TERMS, Objective, hidden, on_device, step_totals
from mu0_world_model.training_report import Report
from mu0_world_model.training_setup import read_start, start_model
from mu0_world_model.training_store import BEST, LATEST, RunStore, begin_run, tolerant

_logger = logging.getLogger(__name__)
_MAX_BAD_STEPS = 20


class Trainer:
    """Hold a run: model, optimiser, data, and where it stands."""

    def __init__(self, config: TrainingConfig) -> None:
        """Start a run, or take one up.

        Raises:
            ConfigError: The settings do not fit the processes.
            EpisodeError: There are no episodes, or none that can be used.
            CheckpointError: What it starts from or goes on from is missing or broken, or its
                folder cannot be written.
        """
        self.config = config
        self.accelerator = make_accelerator(config)
        torch.manual_seed(config.seed)
        with self.accelerator.main_process_first():
            if self.accelerator.is_main_process:
                begin_run(config)
            self.start = read_start(config)
        self.store = RunStore(config, self.accelerator, self.start)
        if self.accelerator.is_main_process:
            self._tell_skipped()
        self.data = self._data(self.start.samples, augment=True)
        self.held_out = None
        if self.start.held_out is not None:
            self.held_out = self._data(self.start.held_out, augment=False)
        self.model = start_model(config, self.start)
        choose_weights(
            self.model, config.trained, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha
        )
        self.model.checkpoint_activations(config.recompute)
        optimiser = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        self.objective, self.optimiser = self.accelerator.prepare(Objective(self.model), optimiser)
        split_aware(self._bare_objective(), self.optimiser)
        self.average = None
        if config.ema_decay > 0.0:
            self.average = MovingAverage(self.model, config.ema_decay)
        self.step = 0
        self.best = math.inf
        if config.resume:
            self._resume()
        self.report = Report(
            config.output,
            step=self.step,
            steps=config.steps,
            enabled=self.accelerator.is_main_process,
        )
        self._bad_steps = 0
        self._measured: dict[str, float] = {}

    def run(self) -> None:
        """Train to the last step, saving and evaluating on the way."""
        config = self.config
        if self.step >= config.steps:
            _logger.warning("nothing to do: %d of %d steps are done", self.step, config.steps)
        batches = self._batches(self.data, self.step)
        while self.step < config.steps:
            values = self.train_step(next(batches))
            self.step += 1
            self.report.advance()
            if self.step % config.log_every == 0:
                self.report.write(self.step, {**values, "seconds": self.report.seconds})
            last = self.step == config.steps
            if self.held_out is not None and (last or self.step % config.evaluate_every == 0):
                self._evaluate(self.held_out)
            if last or self.step % config.save_every == 0:
                self._save()
        self.report.close()

    def close(self) -> None:
        """Take leave of the other processes; the run cannot be used any more.

        What wraps the model for them has to go first: as the last holder of their connection it
        may wait for a thread that waits for it.
        """
        self.objective = self._bare_objective()
        self.accelerator.free_memory()
        self.accelerator.end_training()

    def train_step(self, items: list[TrainingBatch]) -> dict[str, float]:
        """Take one optimiser step with the parts of its batch; leave it out if not finite."""
        rate = self._learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.objective.train()
        items = [hidden(item, self.model) for item in items]
        totals = self._totals(items)
        sums = torch.zeros(4, dtype=torch.float64)
        for i, item in enumerate(items):
            last = i == len(items) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss, shares = self._loss(item, totals)
                # Gradients are averaged over processes; the loss is a sum over them.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            sums += shares
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        sums = self._sum(sums)
        if math.isfinite(float(norm)) and bool(torch.isfinite(sums).all()):
            self._bad_steps = 0
            self.optimiser.step()
            if self.average is not None:
                self.average.update()
        else:
            self._count_bad_step()
        self.optimiser.zero_grad()
        values = dict(zip(TERMS, sums.tolist(), strict=True))
        return {**values, "grad_norm": float(norm), "lr": rate}

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by name, put together if they are split; all processes must ask."""
        state = self.accelerator.get_state_dict(self.objective)
        return {name.removeprefix("model."): value for name, value in state.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have its averaged weights for a while, if there is an average."""
        forget_gathered(self.objective)
        with nullcontext() if self.average is None else self.average.applied():
            yield
            forget_gathered(self.objective)

    def _data(self, index: SampleIndex, *, augment: bool) -> TrainingSet:
        try:
            step_size(len(index), self.config.batch_size, self.accelerator.num_processes)
        except ConfigError as error:
            raise ConfigError(f"{'episodes' if augment else 'held_out'}: {error}") from error
        samples = TraceDataset(
            index,
            self.start.processor,
            sample_rules(self.config.rules),
            seed=self.config.seed,
            augment=augment,
        )
        return TrainingSet(samples, self.config.flow_samples)

    def _loss(self, item: TrainingBatch, totals: Tensor) -> tuple[Tensor, Tensor]:
        with self.accelerator.autocast():
            return self.objective(on_device(item, self.accelerator.device), totals)

    def _totals(self, items: list[TrainingBatch]) -> Tensor:
        """Return what the loss terms of a step are divided by, over all processes."""
        return self._sum(step_totals(items, self.model)).float().to(self.accelerator.device)

    def _sum(self, values: Tensor) -> Tensor:
        """Add up over all processes."""
        device = self.accelerator.device
        return self.accelerator.reduce(values.to(device), reduction="sum").cpu()

    def _count_bad_step(self) -> None:
        self._bad_steps += 1
        _logger.warning("step %d: loss or gradient not finite, step left out", self.step)
        if self._bad_steps >= _MAX_BAD_STEPS:
            raise Mu0Error(
                f"training: {_MAX_BAD_STEPS} steps in a row were not finite, the last is "
                f"{self.step}; lower lr (now {self.config.lr:g}) and resume: what was saved last "
                "is kept"
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

    def _batches(self, data: TrainingSet, start: int) -> Iterator[list[TrainingBatch]]:
        return training_batches(
            data,
            batch_size=self.config.batch_size,
            micro=self.config.micro_batch_size,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            start=start,
            workers=self.config.workers,
        )

    @torch.no_grad()
    def _evaluate(self, held_out: TrainingSet) -> None:
        """Measure loss and traces on held-out episodes, the same samples and draws each time."""
        self.objective.eval()
        batches = self._batches(held_out, 0)
        sums = torch.zeros(4, dtype=torch.float64)
        with self.averaged():
            for _ in range(self.config.evaluate_batches):
                items = next(batches)
                totals = self._totals(items)
                for item in items:
                    sums += self._loss(item, totals)[1]
            errors = self._traces(held_out.samples)
            means = (self._sum(sums) / self.config.evaluate_batches).tolist()
            values = dict(zip(TERMS, means, strict=True)) | errors
            self._measured = {f"eval_{name}": value for name, value in values.items()}
            self.report.write(self.step, self._measured)
            if values["loss"] < self.best and self._save_checkpoint(BEST):
                self.best = values["loss"]

    def _traces(self, data: TraceDataset) -> dict[str, float]:
        """Measure and show sampled traces."""
        config = self.config
        if not config.evaluate_scenes:
            return {}
        found = sample_traces(
            self._bare_objective(),
            data,
            self.accelerator,
            scenes=config.evaluate_scenes,
            samples=config.evaluate_samples,
        )
        if not self.accelerator.is_main_process:
            return {}
        for number, (index, (example, futures)) in enumerate(found.items()):
            if number < config.shown_scenes:
                picture = comparison(data, index, example, futures)
                self.report.show(self.step, f"traces/{number}", picture)
        return trace_errors(found, data, config.evaluate_samples)

    def _bare_objective(self) -> Objective:
        return cast(Objective, self.accelerator.unwrap_model(self.objective))

    def _save(self) -> None:
        """Write the latest checkpoint, and the state for going on; see `_save_checkpoint`."""
        with self.averaged():
            self._save_checkpoint(LATEST)
        average = None if self.average is None else self.average.state_dict()
        run = {"step": self.step, "best": self.best, "average": average}
        with tolerant(last=self.step == self.config.steps):
            self.store.save_state(run)

    def _save_checkpoint(self, name: str) -> bool:
        """Write a checkpoint; return whether it could be."""
        with tolerant(last=self.step == self.config.steps):
            self.store.save_checkpoint(
                name, self.model, self.weights(), step=self.step, card=self._card()
            )
            return True
        return False

    def _card(self) -> str:
        """Describe the run so far."""
        facts = TrainingFacts(
            config=self.config,
            episodes=len(self.start.samples.episodes),
            skipped=len(self.start.samples.skipped),
            samples=len(self.start.samples),
            held_out=0 if self.start.held_out is None else len(self.start.held_out.episodes),
            parameters=sum(p.numel() for p in self.model.parameters()),
            trained=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            step=self.step,
            seconds=self.report.seconds,
            device=f"{self.accelerator.num_processes} x {self.accelerator.device.type}",
            measured=self._measured,
        )
        return model_card(facts, self.start.processor.statistics)

    def _resume(self) -> None:
        """Load the state of the run in the output folder."""
        run: dict[str, Any] = self.store.load_state()
        self.step, self.best = run["step"], run["best"]
        if self.average is not None and run["average"] is not None:
            self.average.load_state_dict(run["average"])

    def _tell_skipped(self) -> None:
        """Name the episodes that are left out, and count them."""
        indices = [i for i in (self.start.samples, self.start.held_out) if i is not None]
        skipped = [item for index in indices for item in index.skipped.items()]
        for path, reason in skipped:
            _logger.warning("skipped episode %s: %s", path, reason)
        if skipped:
            total = len(skipped) + sum(len(index.episodes) for index in indices)
            _logger.warning("skipped %d of %d episodes", len(skipped), total)
