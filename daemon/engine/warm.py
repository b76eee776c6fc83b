"""Compiling, or loading from the cache, every kernel the engine uses, before the first frame needs it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from daemon.engine.detector import StepDetector
from daemon.engine.operator import empty_operator
from daemon.engine.pipeline import Pipeline, PipelineSettings
from hw.camera.contract import FrameStamp, PixelFormat
from kernels import calibrate, drift, functionals, transfer, unpack

FORMATS = ("Mono8", "Mono10p", "Mono12", "Mono12p", "Mono16")


def warm_kernels(progress: Callable[[str, int, int], None] = lambda name, done, total: None) -> None:
    """Call each kernel once with the dtypes it meets at work; tells `progress(name, done, total)` before each."""
    steps = _steps()
    for done, (name, call) in enumerate(steps):
        progress(name, done, len(steps))
        call()
    progress("", len(steps), len(steps))


def _steps() -> list[tuple[str, Callable[[], object]]]:
    size = 64
    frame, other = np.zeros(size, np.float32), np.zeros(size, np.float32)
    index = np.zeros(4, np.int32)
    return [
        ("accumulate", lambda: calibrate.accumulate(frame, other, other.copy(), other.copy())),
        (
            "correlation_map",
            lambda: functionals.correlation_map(frame, 8, index + 27, np.ones(4, np.float32), 1, np.zeros((3, 3))),
        ),
        ("solve_scene", lambda: drift.solve_scene(np.ones(4), np.ones((4, 9)), 1.0, 0.3, np.zeros(4))),
        *[(f"measure {name}", lambda name=name: _warm_pipeline(name)) for name in FORMATS],
        *[(f"unpack {name}", lambda name=name: _warm_unpack(name)) for name in FORMATS],
        ("detector", _warm_detector),
        ("respond", _warm_respond),
    ]


def _warm_pipeline(name: str) -> None:
    """Two frames of an empty scene, with a defect and with maps: every kernel of a format, with the types of work."""
    pixel_format, shape = PixelFormat(name), (32, 32)
    payload = np.zeros(pixel_format.payload_bytes(*shape), np.uint8)
    payload[: payload.size // 2] = 1
    for maps in (None, np.full(shape, 1.5, np.float32)):  # a flat of ones would be none
        settings = PipelineSettings(pixel_format.bit_depth, 100.0, 0.0, pixel_format=name, dark_map=maps, flat_map=maps)
        pipeline = Pipeline(empty_operator(shape), settings)
        for frame in range(2):
            payload[frame] = 2
            pipeline.add(payload, FrameStamp(frame, float(frame), 0.0))
        pipeline.take()


def _warm_respond() -> None:
    frame = np.zeros(64, np.float32)
    transfer.respond(frame, frame.copy(), 0.0, 0.0, 0.0, frame.copy(), frame.copy())


def _warm_unpack(pixel_format: str) -> None:
    bits = {"Mono8": 8, "Mono10p": 10, "Mono12": 16, "Mono12p": 12, "Mono16": 16}[pixel_format]
    unpack.unpack(np.zeros(8 * 8 * bits // 8, np.uint8), pixel_format, np.zeros((8, 8), np.uint16))


def _warm_detector() -> None:
    detector = StepDetector(2, 100.0, 1.0)
    flat = np.zeros((2, 2))
    detector.add(np.arange(2), flat, np.full((2, 2), 0.01), np.zeros((2, 2), np.uint16))
