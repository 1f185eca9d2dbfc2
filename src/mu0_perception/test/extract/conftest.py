"""Small recordings: a red box that is carried over a table beside a blue one that rests."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from mu0_core.camera import depth_to_millimetres
from mu0_core.se3 import exp, make_transform, quat_xyzw_from_transform

T_LINK_OPTICAL = make_transform(
    np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.zeros(3)
)


@dataclass
class Film:
    """Pictures with everything that is true of them."""

    stamps_s: np.ndarray
    rgb: list[np.ndarray]
    depth_m: list[np.ndarray]
    camera: object
    T_world_camera: np.ndarray
    boxes: list[object]
    T_world_moved: np.ndarray  # (T, 4, 4) of the box that moves
    details: dict = field(default_factory=dict)


def _film(scene, n, *, moves=True, camera_moves=False, depth_noise_m=0.001):
    start = scene.boxes[0].T_world_box.copy()
    home = scene.T_world_camera.copy()
    frames, boxes, cameras = [], [], []
    for i in range(n):
        if moves:
            step = make_transform(np.eye(3), [0.0, 0.008 * i, 0.012 * i])
            scene.boxes[0].T_world_box = step @ start @ exp([0, 0, 0, 0, 0, 0.03 * i])
        if camera_moves:
            scene.T_world_camera = exp([0.004 * i, 0.002 * i, 0, 0, 0, 0.008 * i]) @ home
        frames.append(scene.frame(10**9 + i * 10**8, depth_noise_m=depth_noise_m, seed=i))
        boxes.append(scene.boxes[0].T_world_box.copy())
        cameras.append(scene.T_world_camera.copy())
    return Film(
        stamps_s=1.0 + 0.1 * np.arange(n),
        rgb=[f.rgb for f in frames],
        depth_m=[f.depth_m for f in frames],
        camera=scene.camera,
        T_world_camera=np.stack(cameras),
        boxes=scene.boxes,
        T_world_moved=np.stack(boxes),
    )


@pytest.fixture
def film(scene):
    def make(n=14, **details):
        return _film(scene, n, **details)

    return make


class BagMaker:
    """Write a film as a bag, with faults that are asked for."""

    def __init__(self, path: Path, storage: StoragePlugin):
        self.store = get_typestore(Stores.ROS2_JAZZY)
        self.writer = Writer(path, version=9, storage_plugin=storage)
        self.connections = {}

    def type(self, name):
        return self.store.types[name]

    def header(self, stamp_s, frame_id):
        ns = round(stamp_s * 1e9)
        time = self.type("builtin_interfaces/msg/Time")(sec=ns // 10**9, nanosec=ns % 10**9)
        return self.type("std_msgs/msg/Header")(stamp=time, frame_id=frame_id)

    def write(self, topic, message, stamp_s):
        kind = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        data = self.store.serialize_cdr(message, kind)
        self.writer.write(self.connections[topic], round(stamp_s * 1e9), data)

    def image(self, topic, pixels, encoding, stamp_s, frame_id="camera_optical"):
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        message = self.type("sensor_msgs/msg/Image")(
            header=self.header(stamp_s, frame_id),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=pixels.shape[1] * channels * pixels.itemsize,
            data=np.ascontiguousarray(pixels).view(np.uint8).ravel(),
        )
        self.write(topic, message, stamp_s)

    def compressed(self, topic, data, image_format, stamp_s, frame_id="camera_optical"):
        message = self.type("sensor_msgs/msg/CompressedImage")(
            header=self.header(stamp_s, frame_id),
            format=image_format,
            data=np.frombuffer(data, np.uint8),
        )
        self.write(topic, message, stamp_s)

    def info(self, topic, camera, stamp_s, frame_id="camera_optical", d=(0.0,) * 5):
        roi = self.type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self.type("sensor_msgs/msg/CameraInfo")(
            header=self.header(stamp_s, frame_id),
            height=camera.height,
            width=camera.width,
            distortion_model="plumb_bob",
            d=np.array(d, np.float64),
            k=camera.K.ravel().copy(),
            r=np.eye(3).ravel(),
            p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )
        self.write(topic, message, stamp_s)

    def transform(self, topic, parent, child, T, stamp_s):
        x, y, z = T[:3, 3].tolist()
        qx, qy, qz, qw = quat_xyzw_from_transform(T).tolist()
        kind = "geometry_msgs/msg/"
        row = self.type(kind + "TransformStamped")(
            header=self.header(stamp_s, parent),
            child_frame_id=child,
            transform=self.type(kind + "Transform")(
                translation=self.type(kind + "Vector3")(x=x, y=y, z=z),
                rotation=self.type(kind + "Quaternion")(x=qx, y=qy, z=qz, w=qw),
            ),
        )
        self.write(topic, self.type("tf2_msgs/msg/TFMessage")(transforms=[row]), stamp_s)

    def text(self, topic, text, stamp_s):
        self.write(topic, self.type("std_msgs/msg/String")(data=text), stamp_s)


def _write_bag(path, film, *, storage, compressed, without, skip, encoding, robot):
    bag = BagMaker(path, storage)
    with bag.writer:
        if "tf" not in without:
            bag.transform(
                "/tf_static", "camera_link", "camera_optical", T_LINK_OPTICAL, film.stamps_s[0]
            )
        if "instruction" not in without:
            bag.text("/mu0/instruction", "carry the red box", film.stamps_s[0])
        for i, stamp in enumerate(film.stamps_s):
            if i in skip:
                continue
            if "info" not in without:
                bag.info("/camera/color/camera_info", film.camera, stamp)
            if compressed:
                bgr = np.ascontiguousarray(film.rgb[i][..., ::-1])
                data = cv2.imencode(".png", bgr)[1].tobytes()
                bag.compressed("/camera/color/image_raw/compressed", data, "png", stamp)
            else:
                bag.image("/camera/color/image_raw", film.rgb[i], "rgb8", stamp)
            if "depth" not in without:
                mm = depth_to_millimetres(film.depth_m[i])
                depth = film.depth_m[i] if encoding == "32FC1" else mm
                bag.image("/camera/depth/image_rect_raw", depth, encoding, stamp)
            if "tf" not in without:
                T = film.T_world_camera[i] @ np.linalg.inv(T_LINK_OPTICAL)
                bag.transform("/tf", "world", "camera_link", T, stamp)
                if robot:
                    bag.transform("/tf", "world", "hand", film.T_world_moved[i], stamp)


@pytest.fixture
def bag_maker(tmp_path):
    """Make writers of bags whose topics a test chooses."""

    def make(name="bag"):
        (tmp_path / "recordings").mkdir(exist_ok=True)
        return BagMaker(tmp_path / "recordings" / name, StoragePlugin.MCAP)

    return make


@pytest.fixture
def bag(tmp_path):
    def make(
        film,
        name="bag",
        *,
        storage=StoragePlugin.MCAP,
        compressed=False,
        without=(),
        skip=(),
        encoding="16UC1",
        robot=False,
    ):
        path = tmp_path / "recordings" / name
        path.parent.mkdir(exist_ok=True)
        _write_bag(
            path,
            film,
            storage=storage,
            compressed=compressed,
            without=without,
            skip=skip,
            encoding=encoding,
            robot=robot,
        )
        return path

    return make
