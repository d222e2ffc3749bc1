"""A detector and a pose network in DWPose's place, whose answers are known: files that onnxruntime and rtmlib run.

Detector: each part of 32 x 32 of the 640 x 640 pixels that is red is a person, six such parts wide and ten high around
it; one that is green is a chair. Pose: of the 133 points every third is where the crop is reddest, the next ones where
it is greenest and bluest. The files are written by hand: ONNX is Protocol Buffers, of which this needs seven messages.
"""

import struct
from pathlib import Path

import numpy as np

WIDE, HIGH = 6, 10  # of a person, in parts
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # with which rtmlib shifts a crop
FLOAT, INT64 = 1, 7


def write_detector(path: Path) -> None:
    box = np.zeros((4, 3), np.float32)
    scores = np.zeros((81, 3), np.float32)
    scores[0] = (1, 1, -2)  # there is something, where it is red or green
    scores[1] = (1, -1, 0)  # a person
    scores[57] = (-1, 1, 0)  # a chair
    parts = [
        node("AveragePool", ["picture"], ["parts"], kernel_shape=[32, 32], strides=[32, 32]),
        node("Conv", ["parts", "box.weight", "box.bias"], ["box"]),
        node("Conv", ["parts", "scores.weight"], ["raw"]),
        node("Clip", ["raw", "zero", "one"], ["scores"]),
        node("Concat", ["box", "scores"], ["both"], axis=1),
        node("Reshape", ["both", "flat"], ["rows"]),
        node("Transpose", ["rows"], ["last"], perm=[0, 2, 1]),
        node("ConstantOfShape", ["finer"], ["nothing"]),  # the parts of 8 and of 16 pixels
        node("Concat", ["nothing", "last"], ["output"], axis=1),
    ]
    values = {
        "box.weight": box[..., None, None],
        "box.bias": np.float32([0.5, 0.5, np.log(WIDE), np.log(HIGH)]),
        "scores.weight": scores[..., None, None] / 150,
        "zero": np.float32(0),
        "one": np.float32(1),
        "flat": np.int64([1, 85, 400]),
        "finer": np.int64([1, 8000, 85]),
    }
    path.write_bytes(model(parts, values, {"picture": (1, 3, 640, 640)}, {"output": (1, 8400, 85)}))


def write_pose(path: Path) -> None:
    pure = np.float32([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 255  # of one colour and of no other
    parts = [
        node("Conv", ["crop", "pure.weight", "pure.bias"], ["pure"]),
        node("ReduceMax", ["pure"], ["columns"], axes=[2], keepdims=0),
        node("ReduceMax", ["pure"], ["rows"], axes=[3], keepdims=0),
    ]
    for way, target in (("columns", "simcc_x"), ("rows", "simcc_y")):
        parts += [
            node("Unsqueeze", [way, "last"], [f"{way}.thin"]),
            node("Expand", [f"{way}.thin", f"{way}.twice"], [f"{way}.wide"]),  # half pixels
            node("Reshape", [f"{way}.wide", f"{way}.flat"], [f"{way}.all"]),
            node("Gather", [f"{way}.all", "points"], [target], axis=1),
        ]
    values = {
        "pure.weight": (pure * DEVIATION).astype(np.float32)[..., None, None],
        "pure.bias": (pure @ np.float32(MEAN)).astype(np.float32),
        "last": np.int64([3]),
        "columns.twice": np.int64([1, 3, 288, 2]),
        "rows.twice": np.int64([1, 3, 384, 2]),
        "columns.flat": np.int64([1, 3, 576]),
        "rows.flat": np.int64([1, 3, 768]),
        "points": np.arange(133, dtype=np.int64) % 3,
    }
    answers = {"simcc_x": (1, 133, 576), "simcc_y": (1, 133, 768)}
    path.write_bytes(model(parts, values, {"crop": (1, 3, 384, 288)}, answers))


# ---------------------------------------------------------------- onnx.proto, as far as it is needed

Shapes = dict[str, tuple[int, ...]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def put(number: int, value: int | float | str | bytes) -> bytes:
    """A field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: int | list[int]) -> bytes:
    """NodeProto; attributes are whole numbers or lists of them"""
    message = b"".join(put(1, name) for name in inputs) + b"".join(put(2, name) for name in outputs) + put(4, kind)
    for name, value in attributes.items():
        numbers = b"".join(put(8, one) for one in value) if isinstance(value, list) else put(3, value)
        message += put(5, put(1, name) + numbers + put(20, 7 if isinstance(value, list) else 2))
    return message


def tensor(name: str, array: np.ndarray) -> bytes:
    """TensorProto"""
    kind = {"float32": FLOAT, "int64": INT64}[str(array.dtype)]
    return b"".join(put(1, size) for size in array.shape) + put(2, kind) + put(8, name) + put(9, array.tobytes())


def value(name: str, shape: tuple[int, ...]) -> bytes:
    """ValueInfoProto of float32 numbers"""
    sizes = b"".join(put(1, put(1, size)) for size in shape)
    return put(1, name) + put(2, put(1, put(1, FLOAT) + put(2, sizes)))


def model(nodes: list[bytes], values: dict[str, np.ndarray], given: Shapes, answers: Shapes) -> bytes:
    """ModelProto with its GraphProto"""
    graph = b"".join(put(1, one) for one in nodes) + put(2, "tiny")
    graph += b"".join(put(5, tensor(name, np.asarray(array))) for name, array in values.items())
    graph += b"".join(put(11, value(name, shape)) for name, shape in given.items())
    graph += b"".join(put(12, value(name, shape)) for name, shape in answers.items())
    return put(1, 8) + put(7, graph) + put(8, put(1, "") + put(2, 13))
