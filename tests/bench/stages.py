"""Where a frame's time goes: every kernel timed within the engine's own run, and each stage once more without what
could be limiting it. Times are the thread's own.

A probe runs in a kernel's place, in the state of the caches that the stage before left, with the same work on memory
that a cache holds, or with no pixels at all; the kernel itself follows, untimed. What is not in a kernel is Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from daemon.engine import collector, detector, photometer, pipeline, registration
from daemon.engine.operator import Operator
from kernels.photometry import SUMS
from tests.bench.figures import Figure

ROUNDS, BATCHES = 12, 12
QUIET = 0.15  # of the batches, the fastest: what the machine did beside is not the engine's
NEAR = 512  # spans that a first-level cache holds
FEW = 100  # particles whose weights a second-level cache holds

STAGES: dict[str, tuple[tuple[ModuleType, str], ...]] = {
    "reading spans of the frame": ((collector, "collect_spans"), (collector, "collect_spans_12p")),
    "sums over masks, rings and plane": ((photometer, "weighted_sums"), (photometer, "plane_sums")),
    "light, drift and blur": (
        (photometer, "illumination"), (photometer, "shift_sums"), (registration, "solve_scene"),
        (photometer, "monomials"),
    ),
    "rings and their backgrounds": ((photometer, "ring_levels"), (photometer, "follow_background")),
    "fluxes and variances": ((photometer, "fluxes"), (photometer, "deblend")),
    "detection of steps": ((detector, "detect_frame"),),
    "samples of the frame, batches": (
        (collector, "collect_pixels"), (collector, "collect_pixels_12p"), (pipeline, "part"),
    ),
}  # fmt: skip
Kernel = Callable[..., Any]


class Clock:
    """Stands in for the kernels of all stages while it is open: `spent` is the time in each since `clear`.

    With `probe`, a kernel's name and what is timed in its stead, that kernel's own time is left out.
    """

    def __init__(self, probe: tuple[str, Kernel] | None = None) -> None:
        self.spent: dict[str, float] = {}
        self._probe = probe
        self._kernels: list[tuple[ModuleType, str, Kernel]] = []

    def __enter__(self) -> Clock:
        for stage, kernels in STAGES.items():
            for module, name in kernels:
                kernel = getattr(module, name)
                self._kernels.append((module, name, kernel))
                setattr(module, name, self._timed(stage, name, kernel))
        return self

    def __exit__(self, *_: object) -> None:
        for module, name, kernel in self._kernels:
            setattr(module, name, kernel)

    def _timed(self, stage: str, name: str, kernel: Kernel) -> Kernel:
        def run(*arguments: Any) -> Any:
            started = time.thread_time()
            result = kernel(*arguments)
            self.spent[stage] = self.spent.get(stage, 0.0) + time.thread_time() - started
            return result

        def probed(*arguments: Any) -> Any:
            started = time.thread_time()
            self._probe[1](kernel, *arguments)  # type: ignore[index]
            self.spent[stage] = self.spent.get(stage, 0.0) + time.thread_time() - started
            return kernel(*arguments)

        return probed if self._probe is not None and self._probe[0] == name else run


def stages(operator: Operator, engine: Callable[[], None], batch: int) -> list[Figure]:
    """Each stage of `engine`, a frame a call of which `batch` go together, beside its probes."""
    _, unclocked = _measure(engine, batch, nullcontext(Clock()))
    spent, whole = _measure(engine, batch, Clock())
    probes = {name: _measure(engine, batch, Clock(probe))[0] for name, probe in _probes(operator).items()}

    def of(stage: str, *names: str) -> list[float]:
        return [probes[name][stage] for name in names]

    reading, sums, _, _, fluxes, *_ = STAGES
    near, read, written = of(reading, "spans near", "spans read", "spans written")
    empty, cached = of(sums, "rows empty", "rows cached")
    (known,) = of(fluxes, "fluxes cached")
    why = {
        reading: f"in a cache {near:.3f}, frame's memory {read - near:+.3f}, values' {written - near:+.3f}",
        sums: f"rows without pixels {empty:.3f}, all in a cache {cached:.3f}: memory {_wait(spent[sums], cached)}",
        fluxes: f"in a cache {known:.3f}: memory {_wait(spent[fluxes], known)}",
    }
    python = whole - sum(spent.values())
    figures = [
        Figure(f"  {stage}", f"{ms:.3f} ms, {100 * ms / whole:.0f} %", why.get(stage, ""))
        for stage, ms in [*spent.items(), ("Python between them", python)]
    ]
    return [
        Figure("where it goes (Mono12)", f"{whole:.3f} ms", f"{whole / unclocked:.2f} of that without clocks"),
        *figures,
        Figure("pixels read that have no weight", f"{100 * _idle(operator):.0f} %", "a span is eight pixels"),
    ]


def _wait(spent: float, cached: float) -> str:
    """What is gone when a cache holds everything."""
    return f"{100 * max(1.0 - cached / spent, 0.0):.0f} %"


def _measure(
    engine: Callable[[], None], batch: int, clocks: AbstractContextManager[Clock]
) -> tuple[dict[str, float], float]:
    """Milliseconds a frame in each stage and altogether: means over the quietest batches, so that they add up."""
    found: list[tuple[float, dict[str, float]]] = []
    with clocks as clock:
        for _ in range(ROUNDS * BATCHES + 2):
            clock.spent = {}
            started = time.thread_time()
            for _ in range(batch):
                engine()
            found.append((time.thread_time() - started, clock.spent))
    found = sorted(found[2:], key=lambda one: one[0])[: int(QUIET * (len(found) - 2))]
    scale = 1e3 / batch / len(found)
    spent = {stage: scale * sum(one.get(stage, 0.0) for _, one in found) for stage in STAGES}
    return spent, scale * sum(whole for whole, _ in found)


def _probes(operator: Operator) -> dict[str, tuple[str, Kernel]]:
    """Name -> (the kernel, what runs in its place given that kernel and its arguments)."""

    def near(index: np.ndarray) -> np.ndarray:
        return (index % np.uint32(8 * NEAR)).astype(np.uint32)

    made: dict[int, np.ndarray] = {}

    def once(index: np.ndarray) -> np.ndarray:
        if id(index) not in made:
            made[id(index)] = near(index)
        return made[id(index)]

    def spans(start_near: bool, place_near: bool) -> Kernel:
        def probe(kernel: Kernel, frame: np.ndarray, start: np.ndarray, place: np.ndarray, *rest: Any) -> None:
            kernel(frame, once(start) if start_near else start, once(place) if place_near else place, *rest)

        return probe

    none = np.zeros(operator.weight_pointer.size, np.int32)
    sizes = operator.weight_pointer[SUMS * FEW :: SUMS] - operator.weight_pointer[: -SUMS * FEW : SUMS]
    # as many weights as all of their number have on average
    begins = int(np.abs(sizes - FEW / operator.particles * operator.weights.size).argmin())

    def empty(kernel: Kernel, values: np.ndarray, weights: np.ndarray, first: np.ndarray, _: Any, *rest: Any) -> None:
        kernel(values, weights, first, none[: first.size + 1], *rest)

    def cached(
        kernel: Kernel, values: np.ndarray, weights: np.ndarray, first: np.ndarray, pointer: np.ndarray, block: int,
        out: np.ndarray,
    ) -> None:  # fmt: skip
        rows = first.size // operator.particles
        begin, end = rows * begins, rows * (begins + FEW)
        for _ in range(operator.particles // FEW):
            kernel(values, weights, first[begin:end], pointer[begin : end + 1], block, out[begin:end])

    def few(kernel: Kernel, *arguments: Any) -> None:
        particles = operator.particles
        parts = [a[: particles // 4] if isinstance(a, np.ndarray) and len(a) == particles else a for a in arguments]
        for _ in range(4):
            kernel(*parts)

    return {
        "spans near": ("collect_spans", spans(True, True)),
        "spans read": ("collect_spans", spans(False, True)),
        "spans written": ("collect_spans", spans(True, False)),
        "rows empty": ("weighted_sums", empty),
        "rows cached": ("weighted_sums", cached),
        "fluxes cached": ("fluxes", few),
    }


def _idle(operator: Operator) -> float:
    """Share of the collected pixels that no sum uses."""
    used = np.zeros(operator.mask_pointer[-1], bool)
    pointer = operator.weight_pointer
    for row, first in enumerate(operator.weight_first):
        weights = operator.weights[pointer[row] : pointer[row + 1]]
        used[first : first + len(weights)] |= weights != 0
    count = used.sum() + np.count_nonzero(operator.ring_weights) + 8 * operator.plane_span.size
    return float(1.0 - count / (used.size + operator.ring_weights.size + 8 * operator.plane_span.size))
