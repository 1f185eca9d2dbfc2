"""Own the evaluation: a checkpoint and baselines on the same held-out samples.

Every method gets the same points, history and instruction, and gives S futures of each point. All
measures of `metrics` are taken at several horizons, for all points and for the moving ones, in the
model's units and in metres.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mu0_world_model.baselines import Motion, NearestNeighbours, step_velocity, straight_future
from mu0_world_model.config import DONE_THRESHOLD
from mu0_world_model.dataset import Example, TraceDataset, collate
from mu0_world_model.execution import memory_errors
from mu0_world_model.metrics import (
    AXES,
    done_accuracy,
    done_end_step_error,
    l1_errors,
    per_trace,
    summarise,
)
from mu0_world_model.model import Samples, moved
from mu0_world_model.predictor import Predictor
from mu0_world_model.processor import from_model_units, lift
from mu0_world_model.samples import SampleRules

Array = NDArray[np.float64]

_HORIZONS = (8, 16)
_REST_M = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class Futures:
    """Hold the futures of n points of a scene.

    Attributes:
        offsets: (S, n, H, 3) future minus anchor, u, v normalised and z in m.
        valid_prob: (n, H) of sample 0; None where a method does not tell.
    """

    offsets: Array
    valid_prob: NDArray[np.float32] | None = None


Method = Callable[[Sequence[Example], Sequence[int]], list[Futures]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say what is measured.

    Attributes:
        horizons: Steps that count, none longer than the model's.
        samples: Futures S of each method.
        scenes: Most scenes, spread evenly over the set.
        seed: Seed of points, captions and noise.
        batch: Scenes that the model is asked for at once; another number draws other noise.
        neighbour_rows: Most training points that the nearest neighbours are looked for in.
    """

    horizons: tuple[int, ...]
    samples: int = 5
    scenes: int = 400
    seed: int = 0
    batch: int = 8
    neighbour_rows: int = 300_000


def horizons_of(future_len: int) -> tuple[int, ...]:
    """Return the horizons that a model of so many steps is measured at, the whole one last."""
    return tuple(sorted({h for h in _HORIZONS if h < future_len} | {future_len}))


def evaluate(
    predictor: Predictor,
    held_out: TraceDataset,
    training: TraceDataset | None,
    plan: Plan,
) -> dict[str, Any]:
    """Measure a model and the baselines.

    Args:
        predictor: The model.
        held_out: What to measure on.
        training: Where the nearest neighbours are looked for; None leaves them out.
        plan: What is measured.

    Returns:
        methods: name -> measures by horizon and set of points; improvement_over_best_baseline: of
        minADE (ADE of a single sample) over moving points in uvz at the longest horizon; and the
        settings.

    Raises:
        ResourceError: The memory does not suffice for the model.
    """
    count = min(plan.scenes, len(held_out))
    indices = np.unique(np.linspace(0, len(held_out) - 1, count).astype(int)).tolist()
    examples = [held_out[0, index] for index in indices]
    methods: dict[str, Method] = {"model": _model_method(predictor, held_out.rules, plan)}
    for motion in Motion:
        methods[str(motion)] = _straight_method(motion, plan)
    if training is not None:
        neighbours = _neighbours(training, plan)
        methods["nearest_neighbours"] = _neighbour_method(neighbours, held_out, plan)
    scale = np.array(held_out.processor.statistics.delta_scale)
    results = {
        name: measured(examples, method(examples, indices), scale, plan)
        for name, method in methods.items()
    }
    key = f"minADE_{plan.samples}_uvz" if plan.samples > 1 else "ade_uvz"
    errors = {n: r[f"horizon_{max(plan.horizons)}"]["moving"][key] for n, r in results.items()}
    best = min((e for n, e in errors.items() if n != "model"), default=float("nan"))
    return {
        "model": predictor.name,
        "scenes": len(examples),
        "points": int(sum(len(example.anchor) for example in examples)),
        "samples": plan.samples,
        "seed": plan.seed,
        "n_steps": predictor.n_steps or predictor.model.config.num_steps,
        "arc_step": predictor.arc_step,
        "rules": vars_of(held_out.rules),
        "measure": f"{key}, moving points, horizon {max(plan.horizons)}",
        "errors": errors,
        "baselines": {n: e for n, e in errors.items() if n != "model"},
        "improvement_over_best_baseline": 1.0 - errors["model"] / best,
        "methods": results,
    }


def vars_of(rules: SampleRules) -> dict[str, Any]:
    """Return the rules as plain values."""
    return {name: getattr(rules, name) for name in rules.__dataclass_fields__}


def futures_of(sampled: Samples, examples: Sequence[Example], scale: Array) -> list[Futures]:
    """Split what a model sampled for a batch of examples; scale is what offsets are divided by."""
    offsets = sampled.traces.cpu().double().numpy() * scale
    prob = None if sampled.valid_prob is None else sampled.valid_prob[:, 0].cpu().numpy()
    counts = [len(example.anchor) for example in examples]
    return [
        Futures(offsets[i, :, :n], None if prob is None else prob[i, :n])
        for i, n in enumerate(counts)
    ]


def measured(
    examples: Sequence[Example], futures: Sequence[Futures], scale: Array, plan: Plan
) -> dict[str, Any]:
    """Take all measures of one method.

    Args:
        examples: Scenes.
        futures: What the method gave for them.
        scale: What the examples' futures are divided by.
        plan: Horizons, and the number of futures.

    Returns:
        horizon_H -> moving, all -> means by name; validity and grasp where there are any.
    """
    anchors = np.concatenate([e.anchor for e in examples])[:, None].astype(np.float64)
    truth = np.concatenate([e.future for e in examples]) * scale + anchors
    predicted = np.concatenate([f.offsets for f in futures], axis=1) + anchors
    valid = np.concatenate([e.future_valid for e in examples])
    moving = np.concatenate([e.moving for e in examples])
    scene = np.repeat(np.arange(len(examples)), [len(e.anchor) for e in examples])
    spaces = {axes: (predicted[..., part], truth[..., part]) for axes, part in AXES.items()}
    results: dict[str, Any] = {}
    if all(example.camera is not None for example in examples):
        spaces["m"] = (_lifted(predicted, examples, scene), _lifted(truth, examples, scene))
        results["grasp"] = _grasp_means(examples, scene, *spaces["m"], valid)
    for horizon in plan.horizons:
        counted = {"all": valid[:, :horizon], "moving": (valid & moving[:, None])[:, :horizon]}
        sets = {
            points: l1_errors(predicted[0, :, :horizon], truth[:, :horizon], steps, scale)
            for points, steps in counted.items()
        }
        for axes, (guess, target) in spaces.items():
            measured = per_trace(guess[..., :horizon, :], target[:, :horizon], valid[:, :horizon])
            sets["all"] |= summarise(measured, axes, scene)
            sets["moving"] |= summarise(measured, axes, scene, moving)
        results[f"horizon_{horizon}"] = sets
    told = [future.valid_prob for future in futures if future.valid_prob is not None]
    if told:
        results["validity"] = _validity(np.concatenate(told), valid)
    return results


def grasp_errors(
    predicted: Array, truth: Array, valid: NDArray[np.bool_], cluster_ids: NDArray[np.integer]
) -> dict[str, float]:
    """Measure the mean position of object and gripper when the object starts to move.

    The object is the entity that rests longest (stays within 5 mm) and then moves; the gripper is
    the one nearest to it, of those that move before. The grasp is the last step at rest.

    Args:
        predicted: (n, H, 3) m, first sample.
        truth: (n, H, 3) m.
        valid: (n, H).
        cluster_ids: (n,), -1 = none.

    Returns:
        object_m, gripper_m: distances of mean positions; empty if the scene has no grasp.
    """
    found = _grasp(truth, valid, cluster_ids)
    if found is None:
        return {}
    step, grasped, gripper = found
    errors = {}
    for name, cluster in (("object_m", grasped), ("gripper_m", gripper)):
        rows = (cluster_ids == cluster) & valid[:, step]
        means = [array[rows, step].mean(0) for array in (predicted, truth)]
        errors[name] = float(np.linalg.norm(means[0] - means[1]))
    return errors


def _grasp(
    truth: Array, valid: NDArray[np.bool_], cluster_ids: NDArray[np.integer]
) -> tuple[int, int, int] | None:
    """Return step, object and gripper of a grasp, None if there is none."""
    onsets: dict[int, int] = {}
    for cluster in np.unique(cluster_ids[cluster_ids >= 0]):
        rows = (cluster_ids == cluster) & valid[:, 0]
        if not rows.any():
            continue
        distance = np.linalg.norm(truth[rows] - truth[rows, :1], axis=-1).mean(0)
        moves = (distance > _REST_M) & valid[rows].all(0)
        if moves.any():
            onsets[int(cluster)] = int(np.argmax(moves))
    if len(onsets) < 2:
        return None
    grasped = max(onsets, key=lambda cluster: onsets[cluster])
    step = onsets[grasped] - 1
    movers = [c for c, onset in onsets.items() if onset < step]
    if step < 1 or not movers:
        return None

    def place(cluster: int) -> Array:
        return truth[(cluster_ids == cluster) & valid[:, step], step].mean(0)

    nearest = min(movers, key=lambda c: float(np.linalg.norm(place(c) - place(grasped))))
    return step, grasped, nearest


def _model_method(predictor: Predictor, rules: SampleRules, plan: Plan) -> Method:
    """Ask the model, a few scenes at a time."""
    model, processor = predictor.model, predictor.processor
    scale = np.array(processor.statistics.delta_scale)
    advice = (
        f"{plan.samples} futures of {plan.batch} scenes at once do not fit on {predictor.device}; "
        "lower --batch or --samples, or take a lower --precision"
    )

    @torch.inference_mode()
    def futures(examples: Sequence[Example], indices: Sequence[int]) -> list[Futures]:
        found: list[Futures] = []
        generator = torch.Generator().manual_seed(plan.seed)
        for start in range(0, len(examples), plan.batch):
            part = examples[start : start + plan.batch]
            with memory_errors(advice):
                batch = collate(part, processor, rules)
                points = moved(batch.points, predictor.device)
                prefix = model.encode(moved(batch.scene, predictor.device))
                noise = model.initial_noise(points, plan.samples, generator)
                sampled = model.sample(prefix, points, noise, n_steps=predictor.n_steps)
                found += futures_of(sampled, part, scale)
        return found

    return futures


def _straight_method(motion: Motion, plan: Plan) -> Method:
    """Draw straight lines."""

    def futures(examples: Sequence[Example], indices: Sequence[int]) -> list[Futures]:
        found = []
        for example in examples:
            velocity = step_velocity(motion, example.history, example.history_valid)
            path = straight_future(velocity, example.future.shape[1])
            found.append(Futures(np.repeat(path[None], plan.samples, axis=0)))
        return found

    return futures


def _neighbour_method(neighbours: NearestNeighbours, data: TraceDataset, plan: Plan) -> Method:
    """Copy the futures of training points."""

    def futures(examples: Sequence[Example], indices: Sequence[int]) -> list[Futures]:
        return [
            Futures(
                neighbours.predict(
                    data.instruction(index), example.anchor, example.history, plan.samples
                )
            )
            for example, index in zip(examples, indices, strict=True)
        ]

    return futures


def _neighbours(training: TraceDataset, plan: Plan) -> NearestNeighbours:
    """Gather training points, the same number of each sample."""
    rng = np.random.default_rng(plan.seed)
    share = max(plan.neighbour_rows // len(training), 1)
    scale = np.array(training.processor.statistics.delta_scale)
    tasks: list[str] = []
    parts: dict[str, list[NDArray]] = {
        name: [] for name in ("anchor", "history", "future", "future_valid")
    }
    for index in range(len(training)):
        points = training.all_points(index)
        chosen = rng.permutation(len(points["anchor"]))[:share]
        tasks += [training.instruction(index)] * len(chosen)
        points["future"] = (points["future"] * scale).astype(np.float16)
        for name, array in parts.items():
            array.append(points[name][chosen])
    arrays = {name: np.concatenate(array) for name, array in parts.items()}
    return NearestNeighbours(
        tasks, arrays["anchor"], arrays["history"], arrays["future"], arrays["future_valid"]
    )


def _validity(prob: NDArray[np.float32], valid: NDArray[np.bool_]) -> dict[str, float]:
    """Measure the validity head at the released threshold."""
    real = np.ones(len(valid), bool)
    error, not_prefix = done_end_step_error(prob, valid, real, DONE_THRESHOLD)
    return {
        "done_acc": done_accuracy(prob, valid, real, DONE_THRESHOLD),
        "done_end_step_mae": error,
        "done_nonmono_frac": not_prefix,
    }


def _lifted(uvz: Array, examples: Sequence[Example], scene: NDArray[np.integer]) -> Array:
    """Lift (..., K, H, 3) in the model's units to m in each scene's camera."""
    xyz = np.empty_like(uvz)
    for i, example in enumerate(examples):
        assert example.camera is not None
        rows = scene == i
        # Behind the camera there is no picture; such a guess is put just before it.
        ahead = uvz[..., rows, :, :].copy()
        ahead[..., 2] = np.maximum(ahead[..., 2], 1e-2)
        pixels = from_model_units(ahead, example.camera.width, example.camera.height)
        xyz[..., rows, :, :] = lift(example.camera, pixels)
    return xyz


def _grasp_means(
    examples: Sequence[Example],
    scene: NDArray[np.integer],
    predicted: Array,
    truth: Array,
    valid: NDArray[np.bool_],
) -> dict[str, float]:
    """Average the grasp errors of the scenes that have one."""
    found = []
    for i, example in enumerate(examples):
        rows, ids = scene == i, example.cluster_ids
        found.append(grasp_errors(predicted[0, rows], truth[rows], valid[rows], ids))
    found = [errors for errors in found if errors]
    means: dict[str, float] = {"scenes": len(found)}
    for name in ("object_m", "gripper_m"):
        values = [errors[name] for errors in found]
        means[name] = float(np.mean(values)) if values else float("nan")
        means[f"{name}_median"] = float(np.median(values)) if values else float("nan")
    return means
