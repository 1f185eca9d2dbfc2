"""Own what a run measures on held-out episodes: its loss, the errors of its traces, pictures."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.traces import KeypointSource, Traces
from mu0_world_model.dataset import Example, TraceDataset, collate
from mu0_world_model.drawing import overlay
from mu0_world_model.evaluation import Futures, Plan, futures_of, measured
from mu0_world_model.model import moved
from mu0_world_model.processor import from_model_units, lift
from mu0_world_model.training_objective import Objective

_BATCH = 8
_FOV_Y_RAD = 1.0  # of episodes without a stored camera; a picture looks the same with any


def sample_traces(
    objective: Objective,
    data: TraceDataset,
    accelerator: Accelerator,
    *,
    scenes: int,
    samples: int,
) -> dict[int, tuple[Example, Futures]]:
    """Sample futures of held-out scenes, the same noise each time.

    Args:
        objective: The model; all processes call it equally often.
        data: Held-out samples.
        accelerator: Each process takes its part.
        scenes: Most scenes, spread evenly.
        samples: Futures of each.

    Returns:
        Scenes, without pictures, and their futures, by index in the data; the same in all
        processes.
    """
    count = min(scenes, len(data))
    indices = np.unique(np.linspace(0, len(data) - 1, count).astype(int)).tolist()
    world, rank = accelerator.num_processes, accelerator.process_index
    share = -(-len(indices) // world)
    own = [indices[(rank * share + i) % len(indices)] for i in range(share)]
    scale = np.array(data.processor.statistics.delta_scale)
    found = []
    for start in range(0, share, _BATCH):
        part = own[start : start + _BATCH]
        examples = [data[0, index] for index in part]
        batch = collate(examples, data.processor, data.rules)
        noise = _noise(part, examples, samples, data).to(accelerator.device)
        with accelerator.autocast():
            sampled = objective.sample(
                moved(batch.scene, accelerator.device),
                moved(batch.points, accelerator.device),
                noise,
            )
        blank = torch.zeros(0)
        light = [replace(example, image=blank, depth=None) for example in examples]
        found += list(zip(part, light, futures_of(sampled, light, scale), strict=True))
    gathered = gather_object(found)
    return {index: (example, futures) for index, example, futures in sorted(gathered, key=_first)}


def trace_errors(
    found: dict[int, tuple[Example, Futures]], data: TraceDataset, samples: int
) -> dict[str, float]:
    """Average the errors of sampled traces over the whole horizon, by the names of `metrics`."""
    examples, futures = zip(*found.values(), strict=True)
    horizon = data.processor.config.future_len
    plan = Plan(samples=samples, horizons=(horizon,), scenes=len(found))
    scale = np.array(data.processor.statistics.delta_scale)
    results = measured(examples, futures, scale, plan)
    errors: dict[str, float] = {}
    for points, prefix in (("all", ""), ("moving", "moving_")):
        means = results[f"horizon_{horizon}"][points]
        for space in ("uvz", "m"):
            names = [f"ade_{space}", f"fde_{space}"]
            names += [f"min{kind}_{samples}_{space}" for kind in ("ADE", "FDE")]
            known = (name for name in names if np.isfinite(means.get(name, np.nan)))
            errors |= {f"{prefix}{name}": float(means[name]) for name in known}
    return errors


def comparison(
    data: TraceDataset, index: int, example: Example, futures: Futures
) -> NDArray[np.uint8]:
    """Draw the predicted traces of a scene, and beside them the true ones: (H, W, 3) RGB."""
    picture = data.picture(index)
    height, width = picture.shape[:2]
    camera = example.camera or Camera.from_fovy(_FOV_Y_RAD, width, height)
    scale = np.array(data.processor.statistics.delta_scale)
    sides = {
        "predicted": (futures.offsets, futures.valid_prob),
        "true": ((example.future * scale)[None], example.future_valid),
    }
    drawn = []
    for name, (offsets, valid) in sides.items():
        traces = _traces(example, offsets, valid, camera, f"{name}: {example.task}")
        drawn.append(overlay(picture, traces, camera))
    return np.concatenate(drawn, axis=1)


def _traces(
    example: Example,
    offsets: NDArray[np.floating],
    valid: NDArray[Any] | None,
    camera: Camera,
    words: str,
) -> Traces:
    """Place offsets (S, n, H, 3) from the anchors of an example into its camera's frame."""
    size = (camera.width, camera.height)
    anchor = example.anchor.astype(np.float64)
    xyz = lift(camera, from_model_units(offsets + anchor[:, None], *size))
    shape = xyz.shape[:3]
    prob = np.ones(shape[1:], np.float32) if valid is None else valid.astype(np.float32)
    return Traces(
        stamp_ns=0,
        frame_id="",
        instruction=words,
        model="",
        arc_step=1.0,
        ids=np.arange(shape[1], dtype=np.uint32),
        cluster_ids=example.cluster_ids.astype(np.int32),
        source=np.full(shape[1], KeypointSource.ENTITY, np.uint8),
        current_xyz=lift(camera, from_model_units(anchor, *size)).astype(np.float32),
        xyz=xyz.astype(np.float32),
        control_uvz=np.zeros((*shape[:2], 0, 3), np.float32),
        valid_prob=np.broadcast_to(prob, shape),
        stage_names=(),
        stage_seconds=np.zeros(0, np.float32),
    )


def _noise(
    indices: Sequence[int], examples: Sequence[Example], samples: int, data: TraceDataset
) -> torch.Tensor:
    """Draw (B, S, n, D, 3) noise that follows from the seed and the scene alone."""
    n, n_ctrl = max(len(e.anchor) for e in examples), data.processor.config.trace_bspline_n_ctrl
    noise = np.zeros((len(examples), samples, n, n_ctrl, 3), np.float32)
    for row, index, example in zip(noise, indices, examples, strict=True):
        rng = np.random.default_rng([data.seed, index, 2])
        shape = (samples, len(example.anchor), n_ctrl, 3)
        row[:, : len(example.anchor)] = rng.standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(noise)


def _first(item: tuple[int, Any, Any]) -> int:
    return item[0]
