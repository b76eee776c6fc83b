"""Compiling, or loading from the cache, every kernel the engine uses, before the first frame needs it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from daemon.engine.detector import StepDetector
from kernels import calibrate, drift, functionals, measure, transfer, unpack

FORMATS = ("Mono8", "Mono10p", "Mono12", "Mono12p", "Mono16")


def warm_kernels(progress: Callable[[str, int, int], None] = lambda name, done, total: None) -> None:
    """Call each kernel once with the dtypes it meets at work; tells `progress(name, done, total)` before each."""
    steps = [*_steps(), ("respond", _warm_respond)]
    for done, (name, call) in enumerate(steps):
        progress(name, done, len(steps))
        call()
    progress("", len(steps), len(steps))


def _steps() -> list[tuple[str, Callable[[], object]]]:
    size = 64
    frame, other = np.zeros(size, np.float32), np.zeros(size, np.float32)
    dn = np.zeros(size, np.uint16)
    index = np.zeros(4, np.int32)
    row = np.ones(4, np.float32)
    pointer = np.array([0, 4], np.int32)
    valid = np.ones(1, bool)
    return [
        ("electrons_scalar", lambda: calibrate.electrons_scalar(dn, 1.0, 0.0, frame)),
        ("electrons_mapped", lambda: calibrate.electrons_mapped(dn, other, other, frame)),
        ("accumulate", lambda: calibrate.accumulate(frame, other, other.copy(), other.copy())),
        ("plane_sums", lambda: functionals.plane_sums(frame, index, row, row, 0, np.zeros(3))),
        ("four_sums", lambda: functionals.four_sums(frame, index, np.ones((4, 4), np.float32), 0, np.zeros(4))),
        ("correlation_map", lambda: functionals.correlation_map(frame, 8, index, row, 9, 1, np.zeros((3, 3)))),
        ("solve_shift", lambda: drift.solve_shift(np.ones((2, 9)), np.zeros(2), np.zeros(2))),
        (
            "layer_sums",
            lambda: measure.layer_sums(
                frame,
                *(index, np.ones((5, 4), np.float32), pointer),
                *(index, np.ones((2, 4), np.float32), pointer),
                *(0, 0.0, 0.0, 1.0),
                valid,
                np.zeros((1, 5)),
            ),
        ),
        ("ring_means", lambda: measure.ring_means(frame, index, pointer, 0, valid, np.zeros(1))),
        *[(f"unpack {name}", lambda name=name: _warm_unpack(name)) for name in FORMATS],
        ("detector", _warm_detector),
    ]


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
