"""Measure TraceExtract against what the simulator knows.

    python tests/benchmarks/extract_accuracy.py --out DIR --recordings 60

Records demonstrations (what is there is kept), extracts them, and compares the episodes with exact
body traces; --libero N adds scenes of LIBERO. Without --no-robot-frames the robot's TF is used, as
on a robot; with --odometry the camera's is not, and its drift is reported. What moved in
recordings that give no episode counts as lost. The last line is JSON; 1 is returned if any failed.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from extract_recordings import cases, record
from extract_scoring import Kept, SceneTruth, score, summary

from mu0_core.config import to_dict
from mu0_core.episode import read_episode
from mu0_core.errors import Mu0Error
from mu0_core.se3 import inverse, log, transform_points
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.depth_pose import DepthPoseConfig, PoseFrom
from mu0_perception.extract.pipeline import extract_recording
from mu0_perception.extract.robot_frames import RobotFrameConfig
from mu0_perception.extract.sidecar import read_sidecar
from mu0_perception.extract.sources import find_recordings, open_recording
from mu0_perception.extract.state import OutFolder


def kept_points(episode, T_true_world):
    """Return the rows of an episode that are said to move as tracks, in the recording's world."""
    frames = np.array(read_sidecar(episode.path)["frames"])
    ids = np.asarray(episode.rows.point_ids)
    n = int(ids.max()) + 1 if len(ids) else 0
    xyz = np.full((episode.n_frames, n, 3), np.nan)
    seen = np.zeros((episode.n_frames, n), bool)
    for slot in episode.slots():
        moving = np.asarray(slot.rows.is_moving)
        uvz = np.asarray(slot.rows.raw_future_uvz[:, 0], np.float64)[moving]
        points = np.asarray(slot.rows.point_ids)[moving]
        camera_xyz = episode.camera(slot.frame).unproject(uvz)
        T_world_camera = T_true_world @ inverse(episode.T_camera_world[slot.frame])
        xyz[slot.frame, points] = transform_points(T_world_camera, camera_xyz)
        seen[slot.frame, points] = np.asarray(slot.rows.visible)[moving] > 0.5
    return Kept(xyz, seen, frames)


def camera_drift(episode, truth, frames):
    """Return end drift (m, rad) and way (m) of the camera, and T_true_world of the start."""
    found = inverse(episode.T_camera_world)
    true = truth.T_world_camera[frames]
    T_true_world = true[0] @ inverse(found[0])
    error = log(inverse(true) @ (T_true_world @ found))
    way = np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum()
    return {
        "largest_m": float(np.linalg.norm(error[:, :3], axis=1).max()),
        "largest_rad": float(np.linalg.norm(error[:, 3:], axis=1).max()),
        "way_m": float(way),
    }, T_true_world


def measure(case, folder, out, config):
    """Extract and score one recording; return (status, score, drift), None where not known."""
    (found,) = find_recordings(folder / case.name, config.source)
    result = extract_recording(found, out, config)
    truth_file = folder / f"{case.name}.truth.npz"
    if result.status == "failed" or not result.episodes:
        print(f"{case.name}: {result.status}: {result.reason}", file=sys.stderr)
        return result.status, score_of_nothing(found, config, truth_file), None
    episode = read_episode(out / result.episodes[0])
    truth = SceneTruth(truth_file, episode.camera(0))
    frames = np.array(read_sidecar(episode.path)["frames"])
    drift, T_true_world = camera_drift(episode, truth, frames)
    return result.status, score(kept_points(episode, T_true_world), truth), drift


def score_of_nothing(found, config, truth_file):
    """Score a recording without an episode: what moved is lost; None if it shows no picture."""
    try:
        recording = open_recording(found, config.source)
        shots = recording.shots(range(len(recording.stamps_s())))
        camera = next((s.camera for s in shots if s is not None and s.camera is not None), None)
    except Mu0Error:
        camera = None
    if camera is None:
        return None
    truth = SceneTruth(truth_file, camera)
    n = len(truth.index)
    return score(Kept(np.zeros((n, 0, 3)), np.zeros((n, 0), bool), np.arange(n)), truth)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--libero", type=int, default=0)
    parser.add_argument("--no-robot-frames", action="store_true")
    parser.add_argument("--odometry", action="store_true")
    given = parser.parse_args()
    config = ExtractConfig(
        robot=RobotFrameConfig(use=not given.no_robot_frames),
        place=DepthPoseConfig(pose=PoseFrom.ODOMETRY if given.odometry else PoseFrom.AUTO),
    )
    folder = given.out / "recordings"
    kind = f"episodes{'_tracked' * given.no_robot_frames}{'_odometry' * given.odometry}"
    folder.mkdir(parents=True, exist_ok=True)
    OutFolder(given.out / kind).claim(to_dict(config))
    scores, drifts, failed = [], [], []
    wanted = [(case, record) for case in cases(given.recordings)]
    if given.libero:
        from extract_libero import libero_cases, record_libero

        wanted += [(case, record_libero) for case in libero_cases(given.libero)]
    for case, record_it in wanted:
        if not record_it(case, folder):
            continue
        status, scored, drift = measure(case, folder, given.out / kind, config)
        if status == "failed":
            failed.append(case.name)
        if scored is None:
            continue
        scores.append(scored)
        if case.moving_camera and drift is not None:
            drifts.append(drift)
        lost = [name for name, share in scored["objects"] if share < 0.8]
        print(f"{case.name:34s} {json.dumps(summary([scored]))} lost: {lost}", flush=True)
    figures = summary(scores) | {"failed": failed}
    if drifts:
        figures["camera_drift_m"] = round(max(d["largest_m"] for d in drifts), 5)
        figures["camera_drift_rad"] = round(max(d["largest_rad"] for d in drifts), 5)
        figures["camera_way_m"] = round(float(np.mean([d["way_m"] for d in drifts])), 3)
    print(json.dumps(figures))
    sys.exit(int(bool(failed)))


if __name__ == "__main__":
    main()
