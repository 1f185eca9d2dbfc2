"""Compare tracks with what is truly seen: error, coverage, points at rest, swapped things."""

from dataclasses import dataclass

import numpy as np

from mu0_core.camera import Camera
from mu0_core.se3 import inverse, transform_points

STILL_M = 0.005  # a body that moved less never moved
MOVED_M = 0.03  # an object that moved more must be covered
MOVING_STEP_M = 0.004  # between pictures
LEAST_PIXELS = 150
DEPTH_TOLERANCE_M = 0.01
BACKGROUND = ("world", "table")


@dataclass
class Kept:
    """Points of an episode: xyz_world (T, n, 3) NaN where there is no row; seen (T, n)."""

    xyz_world: np.ndarray
    seen: np.ndarray
    frames: np.ndarray  # which picture of the recording each of the T is


def save_truth(path, *, names, index, depth_m, T_world_body, stamps, T_world_camera):
    """Write what SceneTruth reads, of T pictures.

    Args:
        path: A .npz file.
        names: Of the B bodies.
        index: (T, H, W) body that each pixel shows.
        depth_m: (T, H, W) m.
        T_world_body: (T, B, 4, 4).
        stamps: (T,) s.
        T_world_camera: (T, 4, 4).
    """
    depth = np.nan_to_num(1e4 * np.stack(depth_m))
    np.savez_compressed(
        path,
        names=np.array(names),
        index=np.stack(index).astype(np.int16),
        depth_tenth_mm=depth.clip(0, 65535).round().astype(np.uint16),
        T_world_body=np.stack(T_world_body),
        stamps=np.array(stamps),
        T_world_camera=np.stack(T_world_camera),
    )


class SceneTruth:
    """Know the bodies of a recording."""

    def __init__(self, path, camera):
        with np.load(path) as data:
            self.names = [str(n) for n in data["names"]]
            self.index = data["index"]
            self.depth_m = data["depth_tenth_mm"].astype(np.float32) * 1e-4
            self.T_world_body = data["T_world_body"]
            self.T_world_camera = data["T_world_camera"]
            self.stamps = data["stamps"]
        self.camera: Camera = camera

    def project(self, frame, xyz_world):
        T_camera_world = inverse(self.T_world_camera[frame])
        return self.camera.project(transform_points(T_camera_world, xyz_world))

    def near(self, frame, uv, reach=1):
        """Return body (n, k) and depth (n, k) of the pixels around points."""
        height, width = self.index.shape[1:]
        u, v = np.rint(np.nan_to_num(uv, nan=-9.0)).astype(int).T
        dv, du = (d.ravel() for d in np.mgrid[-reach : reach + 1, -reach : reach + 1])
        rows, columns = v[:, None] + dv, u[:, None] + du
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        body = np.where(inside, self.index[frame][rows, columns], -1)
        return body, self.depth_m[frame][rows, columns]

    def body_motion(self):
        """Return {body: (travel m, (T,) pixels, (T,) whether it moves)} of what is seen."""
        T = len(self.index)
        found = {}
        counts = np.stack(
            [np.bincount(f[f >= 0].ravel(), minlength=len(self.names)) for f in self.index]
        )
        for body in np.flatnonzero(counts.max(axis=0) >= LEAST_PIXELS):
            best = int(counts[:, body].argmax())
            v, u = np.nonzero(self.index[best] == body)
            some = np.linspace(0, len(v) - 1, 40).astype(int)
            uvz = np.column_stack([u[some], v[some], self.depth_m[best][v[some], u[some]]])
            world = transform_points(self.T_world_camera[best], self.camera.unproject(uvz))
            local = transform_points(inverse(self.T_world_body[best, body]), world)
            path = transform_points(self.T_world_body[:, body][:, None], local)
            travel = np.linalg.norm(path - path[:1], axis=-1).max(axis=0)
            step = np.linalg.norm(np.diff(path, axis=0), axis=-1).mean(axis=1)
            moves = np.zeros(T, bool)
            moves[1:] |= step > MOVING_STEP_M
            moves[:-1] |= step > MOVING_STEP_M
            found[int(body)] = (float(np.median(travel)), counts[:, body], moves)
        return found


def score(kept, truth):
    """Return figures of one recording, and the errors (m) of all moving visible points."""
    T, n = kept.seen.shape
    under = np.full((T, n), -1)
    around = []
    for t in range(T):
        uvz = truth.project(kept.frames[t], kept.xyz_world[t])
        body, depth = truth.near(kept.frames[t], uvz[:, :2], reach=1)
        under[t] = np.where(kept.seen[t], body[:, 4], -1)
        around.append((body, depth))
    motion = truth.body_motion()
    # Links without a joint between them that moves are one thing: what counts is motion.
    main = np.array([_majority(under[:, i]) for i in range(n)], int)
    errors, bodies, static, rows, switches, steps = [], [], 0, 0, 0, 0
    covered = {body: np.zeros(T, bool) for body in motion}
    for i in range(n):
        seen = np.flatnonzero(kept.seen[:, i])
        if not len(seen) or main[i] < 0:
            continue
        rows += len(seen)
        body = main[i]
        travel = motion.get(body, (0.0,))[0]
        if travel < STILL_M:
            static += len(seen)
        on = np.array([(around[t][0][i] == body).any() for t in seen])
        switches += int(np.count_nonzero(~on[1:] & on[:-1]))
        steps += len(seen) - 1
        if body in covered:
            covered[body][seen[on]] = True
        anchor = _anchor(kept, truth, around, i, seen[on], body)
        if anchor is None or travel < STILL_M:
            continue
        for t in seen:
            true_world = transform_points(truth.T_world_body[kept.frames[t], body], anchor)
            uvz = truth.project(kept.frames[t], true_world[None])
            b, d = truth.near(kept.frames[t], uvz[:, :2])
            if ((b == body) & (np.abs(d - uvz[0, 2]) < DEPTH_TOLERANCE_M)).any():
                errors.append(np.linalg.norm(kept.xyz_world[t, i] - true_world))
                bodies.append(body)
    objects = []
    for body, (travel, pixels, moves) in motion.items():
        if travel <= MOVED_M or truth.names[body] in BACKGROUND:
            continue
        frames = kept.frames
        counts = moves[frames] & (pixels[frames] >= LEAST_PIXELS)
        if counts.any():
            objects.append((truth.names[body], float(covered[body][counts].mean())))
    return {
        "errors": np.array(errors),
        "bodies": [truth.names[b] for b in bodies],
        "static_rows": static,
        "rows": rows,
        "switches": switches,
        "steps": steps,
        "objects": objects,
    }


def summary(scores):
    """Return the figures over recordings."""
    errors = np.concatenate([s["errors"] for s in scores]) if scores else np.zeros(0)
    objects = [share for s in scores for _, share in s["objects"]]
    rows, steps = sum(s["rows"] for s in scores), sum(s["steps"] for s in scores)
    return {
        "recordings": len(scores),
        "median_error_m": round(float(np.median(errors)), 5) if len(errors) else None,
        "p90_error_m": round(float(np.quantile(errors, 0.9)), 5) if len(errors) else None,
        "object_recall": round(float(np.mean(np.array(objects) >= 0.8)), 4) if objects else None,
        "static_fraction": round(sum(s["static_rows"] for s in scores) / max(rows, 1), 5),
        "id_switch_fraction": round(sum(s["switches"] for s in scores) / max(steps, 1), 5),
    }


def _majority(values):
    known = values[values >= 0]
    return int(np.bincount(known).argmax()) if len(known) else -1


def _anchor(kept, truth, around, i, frames, body):
    """Return where on its body a point was when first seen there; None if never."""
    for t in frames:
        bodies, depths = (a[i] for a in around[t])
        uvz = truth.project(kept.frames[t], kept.xyz_world[t, i][None])[0]
        same = np.flatnonzero(bodies == body)
        z = depths[same[np.argmin(np.abs(same - 4))]]
        xyz = truth.camera.unproject(np.array([uvz[0], uvz[1], z]))
        world = transform_points(truth.T_world_camera[kept.frames[t]], xyz)
        return transform_points(inverse(truth.T_world_body[kept.frames[t], body]), world)
    return None
