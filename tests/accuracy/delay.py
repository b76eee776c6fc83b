"""How soon a change is told, against Lorden's bound, and how often noise alone raises an alarm."""

from __future__ import annotations

import math

import numpy as np

from daemon.engine.detector import StepDetector
from daemon.engine.measures import Detection
from tests.accuracy.effort import Effort
from tests.bench.figures import Figure, at_most

TITLE = "Delay of detection"
INTRO = """\
White noise at 100 exposures/s, the detector set to one false alarm an instrument-day with 600 particles. Steps of 1,
1.5 and 2 sigma of one exposure come when the trace has been watched for 25 s. Lorden's bound for the mean delay is
ln(ARL0) / (delta**2 / 2) frames, with the mean time between false alarms of one particle, 600 days, as ARL0; the first
frame of the step counts as a delay of one. False alarms are counted at a designed rate so high that there are some,
and none of noise alone at the real one."""
RATE_HZ = 100.0
PARTICLES = 600
BOUND = math.log(86_400 * RATE_HZ * PARTICLES)
STEPS = (1.0, 1.5, 2.0)
WARM_FRAMES = 2_500
BATCH = 100


def run(effort: Effort) -> list[Figure]:
    """Delays, then false alarms."""
    figures = []
    for step in STEPS:
        told = [_delays(seed, step) for seed in effort.seeds]
        delay = np.concatenate([delays for delays, _ in told])
        bound = BOUND / (step**2 / 2)
        figures.append(
            at_most(f"mean delay over the bound of {bound:.1f} frames, {step:g} sigma", delay.mean() / bound, 1.3)
        )
        missed = sum(count for _, count in told)
        figures.append(Figure("  not told within five times the bound", f"{missed} of {missed + len(delay)}", ""))
    return [*figures, *_false_alarms(effort)]  # fmt: skip


def _delays(seed: int, step: float) -> tuple[np.ndarray, int]:
    """Frames from the first of the step to the alarm, for those told; how many were not."""
    rng = np.random.default_rng([seed, 41, round(10 * step)])
    stepped, detector = PARTICLES // 5, StepDetector(PARTICLES, RATE_HZ, 1.0)
    sign = rng.choice([-1.0, 1.0], stepped)
    first: dict[int, int] = {}
    start = WARM_FRAMES + rng.integers(0, 400, stepped)
    for frame in range(0, WARM_FRAMES + 400 + int(5 * BOUND / (step**2 / 2)), BATCH):
        contrast = rng.standard_normal((BATCH, PARTICLES))
        contrast[:, :stepped] += step * sign * (frame + np.arange(BATCH)[:, None] >= start)
        for found in _fed(detector, frame, contrast):
            if found.index < stepped and found.detected_frame >= start[found.index]:
                first.setdefault(found.index, found.detected_frame - int(start[found.index]) + 1)
    return np.array(list(first.values())), stepped - len(first)


def _fed(detector: StepDetector, frame: int, noise: np.ndarray) -> list[Detection]:
    sigma = 1e-3
    return detector.add(
        frame + np.arange(len(noise)), sigma * noise, np.full(noise.shape, sigma), np.zeros(noise.shape, np.uint16)
    )


def _false_alarms(effort: Effort) -> list[Figure]:
    seconds = 600.0 if effort.static_frames > 300 else 200.0
    designed = 20
    a_day = designed / (seconds / 86_400.0)
    raised = [_alarms(seed, seconds, a_day) / designed for seed in effort.seeds]
    none = sum(_alarms(seed, seconds, 1.0) for seed in effort.seeds)
    hours = seconds * PARTICLES * len(effort.seeds) / 3600.0
    real = f"false alarms in {hours:.0f} particle-hours, set to one in {24 * PARTICLES}"
    return [
        at_most(f"false alarms over those designed for ({designed} a seed)", float(np.mean(raised)), 1.25),
        at_most(real, float(none), 1, digits=0),
    ]


def _alarms(seed: int, seconds: float, a_day: float) -> int:
    """Alarms of noise alone in `seconds`, after the lines have learnt."""
    rng = np.random.Generator(np.random.SFC64([seed, 43, round(a_day)]))
    detector, alarms = StepDetector(PARTICLES, RATE_HZ, a_day), 0
    for frame in range(0, WARM_FRAMES + round(seconds * RATE_HZ), BATCH):
        found = _fed(detector, frame, rng.standard_normal((BATCH, PARTICLES)))
        alarms += sum(one.detected_frame >= WARM_FRAMES for one in found)
    return alarms
