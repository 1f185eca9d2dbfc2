"""Convert images, camera intrinsics and point clouds."""

from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField

from mu0_core.camera import Camera, depth_to_metres
from mu0_core.compressed import decode_colour, decode_depth
from mu0_core.errors import CalibrationError, ShapeError, unknown_name_message
from mu0_core.ros.messages.buffers import flat

ENCODINGS: dict[str, tuple[np.dtype[Any], int]] = {
    "rgb8": (np.dtype(np.uint8), 3),
    "bgr8": (np.dtype(np.uint8), 3),
    "mono8": (np.dtype(np.uint8), 1),
    "16UC1": (np.dtype(np.uint16), 1),
    "32FC1": (np.dtype(np.float32), 1),
}
"""Encoding -> type of a channel and number of channels."""


def image_from_array(pixels: NDArray[Any], encoding: str, *, stamp: Time, frame_id: str) -> Image:
    """Make an image message.

    Args:
        pixels: (H, W) or (H, W, 3) of the encoding's type.
        encoding: rgb8, bgr8, mono8, 16UC1 (mm) or 32FC1 (m).
        stamp: Time of the picture.
        frame_id: Optical frame of the camera.

    Raises:
        ShapeError: The array is not what the encoding says.
    """
    dtype, channels = _encoding(encoding)
    tail = (channels,) if channels > 1 else ()
    if pixels.dtype != dtype or pixels.ndim != 2 + len(tail) or pixels.shape[2:] != tail:
        wanted = f"(H, W, {channels})" if tail else "(H, W)"
        raise ShapeError(
            f"image with encoding {encoding}: expected {wanted} {dtype}, "
            f"got {pixels.shape} {pixels.dtype}"
        )
    height, width = pixels.shape[:2]
    message = Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=width * channels * dtype.itemsize,
    )
    message.data = flat(_little(pixels).view(np.uint8))
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


def array_from_image(message: Image) -> NDArray[Any]:
    """Copy the pixels of an image: (H, W) or (H, W, 3), in the message's own encoding.

    Raises:
        ShapeError: The encoding is not one of ENCODINGS, or the data do not fit the size.
    """
    dtype, channels = _encoding(message.encoding)
    row = message.width * channels * dtype.itemsize
    if message.step < row or len(message.data) < message.step * message.height:
        raise ShapeError(
            f"image {message.width}x{message.height} {message.encoding}: expected rows of at "
            f"least {row} bytes, got step {message.step} and {len(message.data)} bytes in all"
        )
    raw = np.frombuffer(message.data, np.uint8, message.step * message.height)
    rows = np.ascontiguousarray(raw.reshape(message.height, message.step)[:, :row])
    pixels = rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<"))
    shape = (message.height, message.width) + ((channels,) if channels > 1 else ())
    return pixels.astype(dtype).reshape(shape)


def rgb_from_image(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Copy a colour image as (H, W, 3) RGB.

    Raises:
        ShapeError: The image is neither rgb8 nor bgr8 nor compressed as JPEG or PNG, or is broken.
    """
    if isinstance(message, CompressedImage):
        return decode_colour(bytes(message.data))
    if message.encoding not in ("rgb8", "bgr8"):
        raise ShapeError(f"colour image: expected encoding rgb8 or bgr8, got {message.encoding!r}")
    pixels = array_from_image(message)
    return np.ascontiguousarray(pixels[..., ::-1]) if message.encoding == "bgr8" else pixels


def depth_from_image(message: Image | CompressedImage) -> NDArray[np.float32]:
    """Return a depth image as (H, W) m, NaN = none.

    Raises:
        ShapeError: The image is neither 16UC1 (mm) nor 32FC1 (m) nor what the transport
            compressedDepth makes of these, is empty, or is broken.
    """
    if not message.data:
        raise ShapeError("depth image: it is empty; check the depth stream of the driver")
    if isinstance(message, CompressedImage):
        return decode_depth(bytes(message.data), message.format)
    if message.encoding not in ("16UC1", "32FC1"):
        raise ShapeError(
            f"depth image: expected encoding 16UC1 (mm) or 32FC1 (m), got {message.encoding!r}"
        )
    return depth_to_metres(array_from_image(message), message.encoding)


def camera_info_message(camera: Camera, *, stamp: Time, frame_id: str) -> CameraInfo:
    """Make the intrinsics message of a camera without distortion."""
    message = CameraInfo(
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
    )
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


def camera_from_info(message: CameraInfo, *, rectified: bool = False) -> Camera:
    """Return the camera of an image.

    Args:
        message: The intrinsics.
        rectified: Whether the image was rectified; then P counts, else K.

    Raises:
        CalibrationError: There is no calibration, the image is distorted, or it is a window or
            a coarser version of what was calibrated.
    """
    where = f"camera_info of frame {message.header.frame_id!r}"
    if message.k[0] == 0.0:
        raise CalibrationError(f"{where}: not calibrated (K is zero); calibrate the camera")
    if not rectified and np.any(np.asarray(message.d) != 0.0):
        raise CalibrationError(
            f"{where}: expected an image without distortion, got D = {list(message.d)} "
            f"({message.distortion_model}); rectify it (image_proc) and use the rectified topic"
        )
    if message.binning_x > 1 or message.binning_y > 1 or message.roi.width or message.roi.height:
        raise CalibrationError(
            f"{where}: expected the whole image at full resolution, got binning "
            f"{message.binning_x}x{message.binning_y} and a window of "
            f"{message.roi.width}x{message.roi.height} px; switch both off in the driver"
        )
    K = np.asarray(message.p).reshape(3, 4)[:, :3] if rectified else message.k.reshape(3, 3)
    return Camera(K, message.width, message.height)


def cloud_from_points(
    xyz: NDArray[np.float32],
    rgb: NDArray[np.uint8] | None = None,
    *,
    stamp: Time,
    frame_id: str,
) -> PointCloud2:
    """Make an unordered point cloud.

    Args:
        xyz: (n, 3) m in frame_id; NaN = invalid.
        rgb: (n, 3) colours, packed as RViz and PCL expect them.
        stamp: Time of the points.
        frame_id: Their frame.
    """
    n = len(xyz)
    if xyz.shape != (n, 3) or (rgb is not None and (rgb.shape, rgb.dtype) != ((n, 3), np.uint8)):
        colours = None if rgb is None else (rgb.shape, str(rgb.dtype))
        raise ShapeError(
            f"point cloud: expected xyz (n, 3) and rgb (n, 3) uint8, got {xyz.shape}, {colours}"
        )
    names = ["x", "y", "z"] + ([] if rgb is None else ["rgb"])
    table = np.empty((n, len(names)), np.dtype("<f4"))
    table[:, :3] = xyz
    if rgb is not None:
        table.view("<u4")[:, 3] = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    message = PointCloud2(
        height=1,
        width=n,
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(names)
        ],
        is_bigendian=False,
        point_step=4 * len(names),
        row_step=4 * len(names) * n,
        is_dense=bool(np.isfinite(xyz).all()),
    )
    message.data = flat(table.view(np.uint8))
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


def points_from_cloud(
    message: PointCloud2,
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Copy the points of a cloud.

    Returns:
        (n, 3) m in the message's frame, and (n, 3) RGB or None if the cloud has no colours.

    Raises:
        ShapeError: x, y or z is missing or no float32, or the data do not fit the size.
    """
    order = ">" if message.is_bigendian else "<"
    fields = {field.name: field for field in message.fields}
    for name in "xyz":
        if name not in fields or fields[name].datatype != PointField.FLOAT32:
            raise ShapeError(
                f"point cloud: expected float32 fields x, y and z, got {sorted(fields)}"
            )
    used = [name for name in ("x", "y", "z", "rgb") if name in fields]
    point = np.dtype(
        {
            "names": used,
            "formats": [f"{order}u4" if name == "rgb" else f"{order}f4" for name in used],
            "offsets": [fields[name].offset for name in used],
            "itemsize": message.point_step,
        }
    )
    row = message.width * message.point_step
    if message.row_step < row or len(message.data) < message.row_step * message.height:
        raise ShapeError(
            f"point cloud: expected {message.height} rows of {row} bytes, got row_step "
            f"{message.row_step} and {len(message.data)} bytes"
        )
    raw = np.frombuffer(message.data, np.uint8, message.row_step * message.height)
    rows = np.ascontiguousarray(raw.reshape(message.height, message.row_step)[:, :row])
    points = rows.reshape(-1).view(point)
    xyz = np.stack([points[name] for name in "xyz"], axis=-1).astype(np.float32)
    if "rgb" not in fields:
        return xyz, None
    shifts = np.array([16, 8, 0], np.uint32)
    return xyz, (points["rgb"].astype(np.uint32)[:, None] >> shifts).astype(np.uint8)


def _encoding(name: str) -> tuple[np.dtype[Any], int]:
    if name not in ENCODINGS:
        raise ShapeError(unknown_name_message("image encoding", name, ENCODINGS))
    return ENCODINGS[name]


def _little(values: NDArray[Any]) -> NDArray[Any]:
    """Return the array row-major and little-endian, as messages carry it."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
