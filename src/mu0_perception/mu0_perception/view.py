"""Command line to look at an episode: `ros2 run mu0_perception view EPISODE`.

In a browser: point cloud, traces, camera frusta, a slider over frames, captions on a timeline.
With `--video out.mp4` the traces are drawn over the pictures instead, without a browser.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.episode import Episode, Slot, read_episode
from mu0_core.errors import EpisodeError, Mu0Error
from mu0_core.se3 import inverse, quat_xyzw_from_transform, transform_points
from mu0_perception.extract.overlay import ColourBy, colours, write_video

_CLOUD_STRIDE = 3
_MAX_FRUSTA = 12


class Viewer:
    """Show an episode in the browser.

    Args:
        episode: What is shown; needs depth and cameras.
        port: Where the browser finds it.

    Raises:
        EpisodeError: Depth or cameras are missing.
    """

    def __init__(self, episode: Episode, port: int) -> None:
        import viser  # opens a web server: only where a browser is wanted

        if episode.depth is None or episode.T_camera_world is None:
            raise EpisodeError(f"{episode.path}: has no depth or cameras; use --video")
        self._episode = episode
        self._depth = episode.depth
        self._T_world_camera = inverse(episode.T_camera_world)
        self._slots = {slot.frame: slot for slot in episode.slots()}
        self._server: Any = viser.ViserServer(port=port)
        still = np.allclose(self._T_world_camera[0], np.eye(4))
        self._server.scene.set_up_direction("-y" if still else "+z")  # a world of its own, or TF's
        self._traces: Any = None
        gui = self._server.gui
        self._frame: Any = gui.add_slider("frame", 0, episode.n_frames - 1, 1, 0)
        self._by = gui.add_dropdown("colour by", [c.value for c in ColourBy])
        self._play = gui.add_checkbox("play", False)
        self._told = gui.add_markdown("")
        gui.add_markdown(timeline(episode))
        for control in (self._frame, self._by):
            control.on_update(lambda _: self.show())
        self._show_frusta()
        self.show()

    def show(self) -> None:
        """Show the frame that the slider says."""
        episode, frame = self._episode, int(self._frame.value)
        T = self._T_world_camera[frame]
        xyz, rgb = cloud(episode, frame)
        scene = self._server.scene
        scene.add_point_cloud("/cloud", transform_points(T, xyz), rgb, point_size=0.003)
        if self._traces is not None:
            self._traces.remove()
            self._traces = None
        slot = self._slots.get(frame)
        if slot is not None:
            points, colour = segments(episode, slot, ColourBy(self._by.value))
            self._traces = scene.add_line_segments(
                "/traces",
                transform_points(T, points),
                colour,
                thickness=2.0,
                thickness_units="screen",
            )
        self._camera("/camera", frame, np.asarray(episode.images[frame, ::4, ::4]))
        texts = [c.instructions[0] for c in episode.captions_at(frame)]
        self._told.content = "  \n".join(dict.fromkeys(texts)) or "*no caption*"

    def run(self) -> None:
        """Play while asked to; until interrupted."""
        while True:
            time.sleep(0.1)
            if self._play.value:
                self._frame.value = (int(self._frame.value) + 1) % self._episode.n_frames

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _show_frusta(self) -> None:
        frames = np.linspace(0, self._episode.n_frames - 1, _MAX_FRUSTA).astype(int)
        for frame in np.unique(frames).tolist():
            self._camera(f"/path/{frame}", frame, None)

    def _camera(self, name: str, frame: int, picture: NDArray[np.uint8] | None) -> None:
        camera, T = self._episode.camera(frame), self._T_world_camera[frame]
        x, y, z, w = quat_xyzw_from_transform(T)
        self._server.scene.add_camera_frustum(
            name,
            fov=float(2.0 * np.arctan2(0.5 * camera.height, camera.K[1, 1])),
            aspect=camera.width / camera.height,
            scale=0.08 if picture is not None else 0.03,
            wxyz=(w, x, y, z),
            position=T[:3, 3],
            image=picture,
        )


def cloud(episode: Episode, frame: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the points (n, 3) m in the camera and their colours (n, 3) of a frame."""
    assert episode.depth is not None
    z = np.asarray(episode.depth[frame, ::_CLOUD_STRIDE, ::_CLOUD_STRIDE], np.float64)
    rgb = np.asarray(episode.images[frame, ::_CLOUD_STRIDE, ::_CLOUD_STRIDE])
    v, u = np.mgrid[: episode.height : _CLOUD_STRIDE, : episode.width : _CLOUD_STRIDE]
    known = np.isfinite(z) & (z > 0.0)
    uvz = np.stack([u, v, z], axis=-1)[known]
    return episode.camera(frame).unproject(uvz), rgb[known]


def segments(
    episode: Episode, slot: Slot, by: ColourBy
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the pieces (k, 2, 3) m of a slot's traces in its camera and their colours."""
    uvz = np.asarray(slot.rows.future_uvz, np.float64)
    xyz = episode.camera(slot.frame).unproject(np.where(np.isfinite(uvz), uvz, np.nan))
    both = slot.rows.future_valid[:, 1:] & slot.rows.future_valid[:, :-1]
    both = both & np.isfinite(xyz[:, 1:]).all(axis=-1) & np.isfinite(xyz[:, :-1]).all(axis=-1)
    colour = colours(slot, by)
    points = np.stack([xyz[:, :-1][both], xyz[:, 1:][both]], axis=1)
    return points, np.stack([colour[:, :-1][both], colour[:, 1:][both]], axis=1)


def timeline(episode: Episode) -> str:
    """Return the captions of an episode as a table in Markdown."""
    rows = [
        f"| {c.start}-{c.end} | {'chunk' if not c.source_chunk_ids else 'merged'} "
        f"| {c.instructions[0]} |"
        for c in episode.captions
    ]
    return "\n".join(["| frames | | caption |", "|---|---|---|", *rows]) if rows else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Show an episode in the browser, or write a video of it."""
    parser = argparse.ArgumentParser(prog="view", description="Look at an episode.")
    parser.add_argument("episode", type=Path, help="folder of the episode")
    parser.add_argument("--video", type=Path, help="write this file instead of opening a server")
    parser.add_argument("--colour", default="cluster", choices=[c.value for c in ColourBy])
    parser.add_argument("--port", type=int, default=8080, help="where the browser finds it")
    given = parser.parse_args(arguments)
    try:
        episode = read_episode(given.episode)
        if given.video is not None:
            write_video(episode, given.video, ColourBy(given.colour))
            sys.stdout.write(f"{given.video}: {episode.n_frames} frames\n")
            return 0
        Viewer(episode, given.port).run()
    except Mu0Error as error:
        parser.exit(2, f"view: {error}\n")
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
