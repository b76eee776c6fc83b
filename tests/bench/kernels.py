"""A frame's work in the engine beside what peers take for flux and ring alone: same frames, same run, one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from daemon.engine.operator import Operator
from daemon.engine.pipeline import Pipeline, PipelineSettings
from hw.camera.contract import FrameStamp, PixelFormat
from kernels.synth import pack_12p
from tests.bench.figures import Figure, at_most
from tests.bench.peers import PEERS
from tests.bench.repeated import repeat
from tests.bench.stages import stages
from tests.measuring import operator_of
from tests.scenes import PoissonScene

HEIGHT, WIDTH, PARTICLES, RADIUS_PX = 1200, 1920, 1000, (4.0, 12.0)
FRAMES = 2  # in turn, so that none repeats the one before
BATCH = 5  # frames between two takes, as the engine does at 100 a second
BURSTS, BURST_S = 6, 0.25
FORMATS = ("Mono12", "Mono12p", "Mono8", "Mono16")
WITH_MAPS = " with dark and flat maps"
GROWTH = (100, 300, 1000, 3000, 10_000)


def run() -> list[Figure]:
    """1200 x 1920, 1000 particles of radius 4-12 px, 12 bits; medians of processor time."""
    scene = PoissonScene(
        seed=7, height=HEIGHT, width=WIDTH, particles=PARTICLES, radius_px=RADIUS_PX, gap_px=4, margin_px=16
    )
    operator = operator_of(scene)
    frames = [scene.frame() for _ in range(FRAMES)]
    maps = _maps(scene)
    engines = {name: _engine(operator, frames, name) for name in FORMATS}
    engines |= {name + WITH_MAPS: _engine(operator, frames, name, *maps) for name in FORMATS}
    work: dict[str, Callable[[], object]] = dict(engines)
    for name, (make, kind) in PEERS.items():
        measure, turn = make(scene), _turns([frame.astype(kind) for frame in frames])
        work[name] = lambda measure=measure, turn=turn: measure(next(turn))
    turn = _turns(frames)
    work["reading the frame once"] = lambda: next(turn).max()
    times = _medians_ms(work)
    return [
        *_table(times, engines),
        *_floor(operator, times),
        *stages(operator, engines["Mono12"], BATCH),
        *_growth(operator, frames, maps),
    ]


def _maps(scene: PoissonScene) -> tuple[np.ndarray, np.ndarray]:
    """A dark and a flat of which no two pixels are alike."""
    rng = np.random.default_rng(3)
    dark = rng.normal(scene.dark_dn, 2.0, (HEIGHT, WIDTH)).astype(np.float32)
    return dark, rng.normal(1.0, 0.01, (HEIGHT, WIDTH)).astype(np.float32)


def _turns(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        yield from frames


def _engine(operator: Operator, frames: list[np.ndarray], name: str, *maps: np.ndarray) -> Callable[[], None]:
    """Everything the engine does for a frame: from the payload to a batch with its detections."""
    pixel_format = PixelFormat(name)
    payloads = [_payload(frame, pixel_format) for frame in frames]
    dark, flat = maps or (None, None)
    settings = PipelineSettings(pixel_format.bit_depth, 100.0, 0.05, dark_map=dark, flat_map=flat, pixel_format=name)
    pipeline = Pipeline(operator, settings)
    turn = _turns(payloads)

    def measure() -> None:
        number = pipeline.next_frame
        pipeline.add(next(turn), FrameStamp(number, 0.01 * number, 0.01 * number))
        if pipeline.next_frame % BATCH == 0:
            pipeline.take()

    return measure


def _payload(frame: np.ndarray, pixel_format: PixelFormat) -> np.ndarray:
    if pixel_format == PixelFormat.MONO12P:
        payload = np.zeros(pixel_format.payload_bytes(*frame.shape), np.uint8)
        pack_12p(frame.reshape(-1), payload)
        return payload
    if pixel_format == PixelFormat.MONO8:
        return (frame >> 4).astype(np.uint8).reshape(-1)
    return (frame if pixel_format == PixelFormat.MONO12 else frame << 4).reshape(-1).view(np.uint8)


def _medians_ms(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Each in bursts of its own, as a core of its own would run it, burst after burst in turn: what else the machine
    does meets all alike. The process's own time, of all its threads. The first burst warms up.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for burst in range(BURSTS + 1):
        for name, call in work.items():
            until = time.process_time() + BURST_S
            while time.process_time() < until:
                started = time.process_time()
                for _ in range(BATCH):
                    call()
                if burst:
                    times[name].append((time.process_time() - started) / BATCH)
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


def _table(times: dict[str, float], engines: dict[str, Callable[[], None]]) -> list[Figure]:
    ours = times["Mono12"]
    figures = [at_most(f"all of a frame, {name}", times[name], 1.0, "ms") for name in engines]
    fastest = min(times[name] for name in PEERS)
    figures.append(at_most("ours (all of it, Mono12) over the fastest peer (flux and ring)", ours / fastest, 1.0))
    return figures + [
        Figure(f"  {name}", f"{times[name]:.2f} ms", f"{times[name] / ours:.1f} x ours")
        for name in sorted(PEERS, key=lambda name: times[name])
    ]


def _floor(operator: Operator, times: dict[str, float]) -> list[Figure]:
    """What memory alone would take: the frame's lines that are touched, and every weight once."""
    touched = np.unique(np.concatenate([operator.mask_span, operator.ring_span, operator.plane_span]) // 32).size * 64
    weights = operator.weights.nbytes + operator.ring_weights.nbytes + operator.taylor.nbytes
    values = 2 * 8 * 2 * (operator.mask_span.size + operator.ring_span.size + operator.plane_span.size)
    bandwidth = HEIGHT * WIDTH * 2 / (1e-3 * times["reading the frame once"])
    floor_ms = 1e3 * (touched + weights + values) / bandwidth
    counts = {
        "frame": touched, "weights": weights, "values, written and read": values,
    }  # fmt: skip
    words = ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in counts.items())
    return [
        Figure("reading the frame once", f"{times['reading the frame once']:.3f} ms", f"{bandwidth / 1e9:.0f} GB/s"),
        Figure(f"the floor: bytes touched ({words})", f"{floor_ms:.2f} ms", f"{times['Mono12'] / floor_ms:.1f} x"),
    ]


def _growth(operator: Operator, frames: list[np.ndarray], maps: tuple[np.ndarray, np.ndarray]) -> list[Figure]:
    """The same particles over and over: time a mask pixel from 100 to 10,000 particles, with and without maps."""
    figures = []
    for count in GROWTH:
        many = repeat(operator, np.arange(count) % operator.particles)
        takes: list[list[float]] = []
        for measure in (_engine(many, frames, "Mono12"), _engine(many, frames, "Mono12", *maps)):
            takes.append([])
            for _ in range(4 + max(12, 30_000 // count)):
                started = time.process_time()
                for _ in range(BATCH):
                    measure()
                takes[-1].append((time.process_time() - started) / BATCH)
        plain, mapped = (float(np.median(each[4:])) for each in takes)
        told = [f"{1e9 * seconds / many.mask_pointer[-1]:.2f}" for seconds in (plain, mapped)]
        measured = f"{1e3 * plain:.2f}, {1e3 * mapped:.2f} ms"
        figures.append(Figure(f"  {count} particles", measured, f"{', '.join(told)} ns/px"))
    return [Figure("growth with the number of particles", "without, with maps", "time a mask pixel"), *figures]
