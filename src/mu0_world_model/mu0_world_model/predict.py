"""Own the prediction command: `ros2 run mu0_world_model predict --image scene.png`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import add_arguments, from_namespace, option, validate
from mu0_core.errors import Mu0Error
from mu0_world_model.execution import ExecutionConfig
from mu0_world_model.prediction_files import (
    DepthUnit,
    read_depth,
    read_mask,
    read_picture,
    read_points,
    write_prediction,
)
from mu0_world_model.predictor import Predictor
from mu0_world_model.queries import GRID, grid_uv, keypoints_without_past
from mu0_world_model.shipped import DEFAULT_CHECKPOINT, checkpoint_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig(ExecutionConfig):
    """Choose a checkpoint, and say what it is asked."""

    image: Path = option(description="Picture: PNG, JPEG ...")
    instruction: str = option("", description="What is to be done, in words")
    checkpoint: str = option(
        DEFAULT_CHECKPOINT, description="Shipped name, folder or hub repository"
    )
    depth: Path | None = option(
        None, description="Depth of each pixel: 16-bit PNG or NumPy array (.npy)"
    )
    depth_unit: DepthUnit | None = option(
        None, description="Its unit; none: mm for whole numbers, m for floats"
    )
    points: tuple[float, ...] = option((), description="Points to ask for: u v u v ...", unit="px")
    points_file: Path | None = option(
        None, description="In their place, a file of them: .npy, .json, or a text with u v a line"
    )
    mask: Path | None = option(None, description="In their place, a picture that is not 0 on them")
    mask_points: int = option(16, description="Points drawn from the mask", low=1)
    grid: tuple[int, ...] = option(
        (), description=f"In their place, columns and rows; if nothing is said, {GRID}", low=1
    )
    intrinsics: tuple[float, ...] = option(
        (), description="fx fy cx cy of the camera; none: from hfov_deg", unit="px"
    )
    hfov_deg: float = option(
        60.0, description="Horizontal field of view", unit="deg", low=1.0, high=179.0
    )
    samples: int = option(5, description="Futures of each point", low=1)
    steps: int | None = option(None, description="Euler steps; none: as in the checkpoint", low=1)
    seed: int = option(0, description="Of the noise, and of points from a mask", low=0)
    threads: int = option(os.cpu_count() or 1, description="Processor threads", low=1)
    output: Path = option(Path("out/predict"), description="Folder of overlay, npz and JSON")
    json: bool = option(False, description="Print what was written as one JSON line last")

    def __post_init__(self) -> None:
        chosen = [n for n in ("points", "points_file", "mask", "grid") if getattr(self, n)]
        n_numbers = len(self.points)
        validate(
            self,
            f"points: expected only one of {', '.join(chosen)}" if len(chosen) > 1 else None,
            f"points: expected u v u v ..., got {n_numbers} numbers" if n_numbers % 2 else None,
            _length_fault("grid", self.grid, 2),
            _length_fault("intrinsics", self.intrinsics, 4),
        )


def predict(config: PredictConfig) -> dict[str, Any]:
    """Predict from files, and write files.

    Returns:
        What is in the text file besides the keypoints, and the paths of all files.

    Raises:
        ConfigError: A file cannot be read or written, or config.json or the device is wrong.
        ShapeError: Sizes differ, or a point lies outside the picture.
        CalibrationError: The intrinsics are impossible.
        CheckpointError: The checkpoint is missing or broken.
        ResourceError: The memory does not suffice.
    """
    rgb = read_picture(config.image)
    depth = None if config.depth is None else read_depth(config.depth, config.depth_unit)
    camera = _camera(config, rgb)
    uv = _points(config, camera)
    torch.set_num_threads(config.threads)
    predictor = Predictor.from_pretrained(
        checkpoint_folder(config.checkpoint),
        device=config.device,
        precision=config.precision,
        compiled=config.compile,
        n_steps=config.steps,
    )
    keypoints = keypoints_without_past(
        uv,
        depth,
        camera,
        stamp_ns=0,
        frame_id=config.image.name,
        arc_step=predictor.arc_step,
        history_length=predictor.history_len,
    )
    traces = predictor.predict(
        rgb,
        keypoints,
        config.instruction,
        depth=depth,
        samples=config.samples,
        seed=config.seed,
    )
    facts = {
        "model": traces.model,
        "instruction": config.instruction,
        "image": str(config.image),
        "depth": None if config.depth is None else str(config.depth),
        "depth_used": depth is not None and predictor.uses_depth,
        "width": camera.width,
        "height": camera.height,
        "K": camera.K.tolist(),
        "arc_step": traces.arc_step,
        "samples": config.samples,
        "seed": config.seed,
        "precision": str(config.precision),
        "device": config.device,
        "seconds": {
            name: round(float(s), 4)
            for name, s in zip(traces.stage_names, traces.stage_seconds, strict=True)
        },
    }
    files = write_prediction(config.output, rgb, keypoints, traces, facts)
    return {**facts, "n_keypoints": traces.n, "files": files}


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(
        description="Predict 3D traces of points in a picture; draw and store them."
    )
    add_arguments(parser, PredictConfig)
    try:
        config = from_namespace(PredictConfig, parser.parse_args(arguments))
        report = predict(config)
    except Mu0Error as error:
        parser.exit(2, f"error: {error}\n")
    took_s = sum(report["seconds"].values())
    sys.stdout.write(
        f"{report['model']}: {config.samples} futures of {report['n_keypoints']} points in "
        f"{took_s:.2f} s\n" + "".join(f"{path}\n" for path in report["files"].values())
    )
    if config.json:
        sys.stdout.write(json.dumps(report) + "\n")


def _camera(config: PredictConfig, rgb: NDArray[np.uint8]) -> Camera:
    """Return the camera of the picture, as given or with square pixels around its centre."""
    height, width = rgb.shape[:2]
    if config.intrinsics:
        fx, fy, cx, cy = config.intrinsics
        return Camera(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), width, height)
    half = np.tan(0.5 * np.deg2rad(config.hfov_deg))
    return Camera.from_fovy(float(2.0 * np.arctan(half * height / width)), width, height)


def _points(config: PredictConfig, camera: Camera) -> NDArray[np.float32]:
    """Return the points (n, 2) px that are asked for."""
    if config.points:
        return np.array(config.points, np.float32).reshape(-1, 2)
    if config.points_file is not None:
        return read_points(config.points_file)
    if config.mask is not None:
        shape = (camera.height, camera.width)
        return read_mask(config.mask, shape, config.mask_points, config.seed)
    return grid_uv(camera, *(config.grid or GRID))


def _length_fault(name: str, values: Sequence[float], length: int) -> str | None:
    if len(values) in (0, length):
        return None
    return f"{name}: expected {length} numbers, got {len(values)}"


if __name__ == "__main__":
    main()
