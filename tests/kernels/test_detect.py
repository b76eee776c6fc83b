from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import detect as K
from kernels.detect import PENDING, SMOOTH, SPIKE, STEP, explain
from tests.kernels.naive_detect import NaiveDetector, naive_explain

SIGMA = 1e-3


class Kernel:
    """The kernel with its state, one frame at a time."""

    def __init__(self, particles, thresholds):
        self.thresholds = thresholds
        self.values = np.empty((particles, K.VALUES))
        self.counts = np.empty((particles, K.COUNTS), np.int32)
        self.history = np.empty((K.HISTORY, particles))
        K.reset(self.values, self.counts, self.history)
        self.common = np.array([1.0, K.FIRST_STEEPNESS])
        self.work = np.empty((2, particles))
        self.found = np.empty(particles, np.int64)
        self.alarms = np.empty((particles, 4))
        self.now = 0

    def frame(self, contrast, sigma, skip=None):
        skip = np.zeros(len(contrast), bool) if skip is None else skip
        raised = K.detect_frame(
            contrast, sigma, skip, self.now, self.thresholds, self.values, self.counts, self.history, self.common,
            self.work, self.found, self.alarms,
        )  # fmt: skip
        self.now += 1
        return [(int(self.found[k]), *self.alarms[k].tolist()) for k in range(raised)]

    def run(self, contrast, sigma=SIGMA):
        """[(frame, particle, frames since onset, step, its sigma, statistic)] over (N, P)."""
        sigmas = np.full(contrast.shape[1], sigma)
        return [(n, *alarm) for n, row in enumerate(contrast) for alarm in self.frame(row, sigmas)]


def hostile_frames(seed, frames, particles):
    """Noise, steps, ramps, spikes, gaps, saturation, nonsense: everything at once."""
    rng = np.random.default_rng(seed)
    contrast = rng.normal(0, SIGMA, (frames, particles))
    sigma = np.full((frames, particles), SIGMA) * rng.uniform(0.8, 1.2, (frames, particles))
    skip = rng.random((frames, particles)) < 0.01
    for i in range(particles):
        at = rng.integers(60, frames)
        kind = i % 6
        if kind == 0:
            contrast[at:, i] += rng.choice([-1, 1]) * rng.uniform(2, 30) * SIGMA
        elif kind == 1:
            contrast[:, i] += np.maximum(np.arange(frames) - at, 0) * rng.uniform(-1, 1) * SIGMA
        elif kind == 2:
            contrast[at : at + rng.integers(1, 3), i] += 20 * SIGMA
        elif kind == 3:
            contrast[at : at + rng.integers(1, 80), i] = np.nan
        elif kind == 4:
            contrast[:, i] += 0.1 * np.sin(np.arange(frames) / 60)
    contrast[rng.random((frames, particles)) < 0.002] = np.inf
    contrast[rng.random((frames, particles)) < 0.002] = -1e300
    sigma[rng.random((frames, particles)) < 0.002] = 0.0
    sigma[rng.random((frames, particles)) < 0.002] = np.nan
    return contrast, sigma, skip


@pytest.mark.parametrize(("seed", "particles"), [(0, 1), (1, 6), (2, 24), (3, 30)])
def test_kernel_does_what_its_twin_does(seed, particles):
    thresholds = K.threshold(1e6, 100, particles)
    kernel, naive = Kernel(particles, thresholds), NaiveDetector(particles, thresholds)
    contrast, sigma, skip = hostile_frames(seed, 420, particles)
    contrast[200:] = 1.02 * (1 + contrast[200:]) - 1
    alarms = 0
    for row in range(len(contrast)):
        ours = kernel.frame(contrast[row], sigma[row], skip[row])
        theirs = naive.frame(contrast[row], sigma[row], skip[row])
        assert [alarm[:2] for alarm in ours] == [alarm[:2] for alarm in theirs]
        np.testing.assert_allclose([a[2:] for a in ours], [a[2:] for a in theirs], rtol=1e-6)
        alarms += len(ours)
    np.testing.assert_allclose(kernel.values[:, K.LEVEL], [p.level for p in naive.particle], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(kernel.values[:, K.MEMORY], [p.memory for p in naive.particle], rtol=1e-6)
    np.testing.assert_allclose(kernel.values[:, K.SCALE], [p.scatter for p in naive.particle], rtol=1e-6)
    assert kernel.common[0] == pytest.approx(naive.scene)
    assert alarms > 0 or particles == 1


@settings(max_examples=60, deadline=None)
@given(
    age=st.integers(0, K.HISTORY),
    kind=st.sampled_from(["noise", "step", "bend", "spike", "offset", "nothing"]),
    size=st.floats(-20, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_explanations_are_those_of_the_twin(age, kind, size, seed):
    rng = np.random.default_rng(seed)
    trace = rng.normal(0, 1, age)
    at = int(rng.integers(0, age + 1))
    if kind == "step":
        trace[at:] += size
    elif kind == "bend":
        trace[at:] += size / 10 * np.arange(age - at)
    elif kind == "spike":
        trace[at : at + 1] += size
    elif kind == "offset":
        trace += size
    elif kind == "nothing":
        trace[:] = np.nan
    trace[rng.random(age) < 0.1] = np.nan
    row = int(rng.integers(0, K.HISTORY))
    ring = np.full(K.HISTORY, 1e6)
    ring[(row - np.arange(age)) % K.HISTORY] = trace[::-1]
    line = np.zeros(K.VALUES)
    line[[K.LEVEL, K.SLOPE, K.MEMORY]] = 0.3, 0.001, rng.uniform(24, 2000)
    steepness = float(10 ** rng.uniform(-6, 0))
    ours = explain(ring, row, age, line, 1.0, steepness)
    theirs = naive_explain(trace, *line[[K.LEVEL, K.SLOPE, K.MEMORY]].tolist(), 1.0, steepness)
    assert ours[:2] == theirs[:2]
    np.testing.assert_allclose(ours[2:], theirs[2:], rtol=1e-6)


@pytest.mark.parametrize(
    ("deviation", "verdict"),
    [
        ([0] * 50 + [4] * 10, STEP),
        ([0] * 50 + [40] * 3, STEP),
        ([0] * 50 + [40] * 2, PENDING),
        ([0] * 50 + [40] + [0] * 3, SPIKE),
        ([0] * 30 + list(range(30)), SMOOTH),
        ([3] * 60, SMOOTH),
        ([0] * 60, PENDING),
    ],
)
def test_shapes_without_noise(deviation, verdict):
    ring = np.zeros(K.HISTORY)
    ring[: len(deviation)] = deviation
    line = np.zeros(K.VALUES)
    line[K.MEMORY] = 500
    assert explain(ring, len(deviation) - 1, len(deviation), line, 1.0, 1.0)[0] == verdict


def test_threshold_follows_the_designed_rate():
    once_a_day = K.threshold(1.0, 100.0, 600)
    np.testing.assert_allclose(once_a_day - K.threshold(10.0, 100.0, 600), math.log(10))
    np.testing.assert_allclose(K.threshold(1.0, 100.0, 6000) - once_a_day, math.log(10))
    np.testing.assert_allclose(K.threshold(1.0, 200.0, 600) - once_a_day, math.log(2))
    # the 1 sigma CUSUM by Siegmund: 2 (exp(h + 1.166)) frames an alarm, one of the bank's two-sided ones
    assert 2 * math.exp(once_a_day[0] + 1.166) == pytest.approx(86_400 * 100 * 600 * 2 * K.BANKS)


def test_false_alarms_come_no_more_often_than_designed():
    """At raised rates, where they can be counted: 40 and 8 designed."""
    particles, frames, warm = 400, 6_000, 1_500
    rng = np.random.default_rng(11)
    counted = []
    noise = rng.normal(0, SIGMA, (frames, particles))
    for designed in (40, 8):
        a_day = designed / ((frames - warm) / 100) * 86_400
        alarms = Kernel(particles, K.threshold(a_day, 100, particles)).run(noise)
        counted.append(sum(alarm[0] >= warm for alarm in alarms))
    assert counted[0] <= 55
    assert counted[1] <= 14
    assert counted[0] >= 2
    assert counted[1] <= counted[0] / 2


@pytest.mark.parametrize(("step_sigma", "ratio"), [(1.0, 1.45), (2.0, 1.35), (3.0, 1.4)])
def test_delay_is_near_lordens_bound(step_sigma, ratio):
    """One false alarm an instrument-day with 600 particles at 100 Hz; domain bound ln(ARL) / (step**2 / 2)."""
    bound = math.log(86_400 * 100 * 600) / (step_sigma**2 / 2)
    rng = np.random.default_rng(5)
    warm, particles = 2_200, 300
    contrast = rng.normal(0, SIGMA, (warm + int(5 * bound) + 100, particles))
    contrast[warm:, :100] += step_sigma * SIGMA * np.where(np.arange(100) % 2, 1, -1)
    alarms = Kernel(particles, K.threshold(1.0, 100, 600)).run(contrast)
    first = {}
    for frame, particle, since, step, *_ in alarms:
        first.setdefault(particle, (frame - warm + 1, frame - since + 1 - warm, step))
    assert len(first) >= 88
    assert max(first) < 100
    delay, onset, step = np.array(list(first.values())).T
    assert delay.mean() < ratio * bound
    assert abs(np.median(onset)) <= 1
    assert np.abs(step).mean() == pytest.approx(step_sigma * SIGMA, rel=0.15)
    assert np.array_equal(np.sign(step), np.where(np.array(list(first)) % 2, 1, -1))


def test_a_large_step_needs_three_frames_and_is_told_exactly():
    rng = np.random.default_rng(3)
    contrast = rng.normal(0, SIGMA, (900, 5))
    contrast[800:, 2] -= 0.08
    alarms = Kernel(5, K.threshold(1.0, 100, 5)).run(contrast)
    assert [(frame, particle, since) for frame, particle, since, *_ in alarms] == [(802, 2, 3)]
    _, _, _, step, sigma, score = alarms[0]
    assert step == pytest.approx(-0.08, abs=4 * sigma)
    assert sigma == pytest.approx(SIGMA / math.sqrt(3), rel=0.1)
    assert score > 20


def test_spikes_are_not_steps():
    rng = np.random.default_rng(6)
    contrast = rng.normal(0, SIGMA, (2_500, 60))
    at = rng.integers(300, 2_500, 600), rng.integers(0, 60, 600)
    contrast[at] += rng.choice([-1, 1], 600) * rng.uniform(5, 60, 600) * SIGMA
    assert len(Kernel(60, K.threshold(1.0, 100, 60)).run(contrast)) <= 4


SLOW = {
    "one 1C charge": lambda t, phase: 0.1 * np.sin(2 * np.pi * t / 700_000 + phase),
    "accelerated 60 times": lambda t, phase: 0.1 * np.sin(2 * np.pi * t / 12_000 + phase),
    "0.1 % a frame": lambda t, phase: 0.1 * np.sin(2 * np.pi * t / 628 + phase),
    "0.03 % a frame": lambda t, phase: 0.1 * np.sin(2 * np.pi * t / 2_000 + phase),
    "two-phase, a second": lambda t, phase: 0.1 / (1 + np.exp(-(t - 800 - 300 * phase) / 25)),
    "two-phase, ten seconds": lambda t, phase: 0.1 / (1 + np.exp(-(t - 800 - 300 * phase) / 250)),
}


@pytest.mark.parametrize("shape", SLOW)
def test_slow_changes_are_not_steps(shape):
    rng = np.random.default_rng(8)
    t, phase = np.arange(3_000)[:, None], rng.uniform(0, 2 * np.pi, 100)
    contrast = SLOW[shape](t, phase) + rng.normal(0, SIGMA, (3_000, 100))
    alarms = Kernel(100, K.threshold(1.0, 100, 100)).run(contrast)
    # the onset of a transformation is sharp: now and then it is taken for a step
    assert len(alarms) <= (6 if "two-phase" in shape else 2), alarms


def test_cracks_are_seen_on_a_slope():
    """-3 % on a trace that moves 0.03 % a frame."""
    rng = np.random.default_rng(9)
    t, phase = np.arange(2_000)[:, None], rng.uniform(0, 2 * np.pi, 60)
    at = rng.integers(1_000, 1_900, 60)
    contrast = 0.1 * np.sin(2 * np.pi * t / 2_000 + phase) - 0.03 * (t >= at) + rng.normal(0, SIGMA, (2_000, 60))
    alarms = Kernel(60, K.threshold(1.0, 100, 60)).run(contrast)
    hits = {particle for frame, particle, since, *_ in alarms if abs(frame - since + 1 - at[particle]) <= 1}
    assert len(hits) >= 57
    assert len(alarms) <= 66


def test_what_all_particles_share_is_no_step():
    rng = np.random.default_rng(10)
    contrast = rng.normal(0, SIGMA, (1_500, 50)) + rng.uniform(-0.2, 0.2, 50)
    light = np.where(np.arange(1_500) >= 900, 1.01, 1.0) * (1 + 5e-4 * rng.normal(0, 1, 1_500))
    alarms = Kernel(50, K.threshold(1.0, 100, 50)).run(light[:, None] * (1 + contrast) - 1)
    assert alarms == []


def test_a_step_is_seen_through_flicker_of_the_light():
    rng = np.random.default_rng(12)
    contrast = rng.normal(0, SIGMA, (1_500, 50))
    contrast[1_000:, 7] += 3 * SIGMA
    light = 1 + 2e-3 * rng.normal(0, 1, 1_500)
    alarms = Kernel(50, K.threshold(1.0, 100, 50)).run(light[:, None] * (1 + contrast) - 1)
    assert [alarm[1] for alarm in alarms] == [7]
    assert alarms[0][0] - 1_000 < 25


def test_gaps_and_saturation_are_skipped():
    rng = np.random.default_rng(13)
    contrast = rng.normal(0, SIGMA, (1_600, 3))
    contrast[700:760, 0] = np.nan
    contrast[900:, 1] += 5 * SIGMA
    contrast[905:915, 1] = np.nan
    kernel = Kernel(3, K.threshold(1.0, 100, 3))
    saturated = np.zeros((1_600, 3), bool)
    saturated[1_000:1_400, 2] = True
    contrast[1_000:1_400, 2] += 0.5
    sigma = np.full(3, SIGMA)
    alarms = [(n, *a) for n in range(1_600) for a in kernel.frame(contrast[n], sigma, saturated[n])]
    assert [alarm[1] for alarm in alarms] == [1]
    assert alarms[0][0] - alarms[0][2] + 1 == 900


def test_it_is_armed_again_on_the_new_level():
    rng = np.random.default_rng(14)
    contrast = rng.normal(0, SIGMA, (2_000, 1))
    for at in (800, 1_200, 1_600):
        contrast[at:] += 8 * SIGMA
    alarms = Kernel(1, K.threshold(1.0, 100, 1)).run(contrast)
    assert [frame - since + 1 for frame, _, since, *_ in alarms] == [800, 1_200, 1_600]
    np.testing.assert_allclose([alarm[3] for alarm in alarms], 8 * SIGMA, rtol=0.25)


def test_a_sigma_that_promises_too_much_raises_no_alarm():
    rng = np.random.default_rng(15)
    contrast = rng.normal(0, 1.7 * SIGMA, (2_000, 50))
    assert Kernel(50, K.threshold(1.0, 100, 50)).run(contrast) == []


def test_no_particles_at_all():
    assert Kernel(0, K.threshold(1.0, 100, 0)).run(np.zeros((3, 0))) == []


def test_a_large_step_is_seen_on_a_trace_that_bends_all_the_time():
    """Where the line forgets fast, cracks of 10 % must still not be lost."""
    rng = np.random.default_rng(16)
    t, phase = np.arange(1_500)[:, None], rng.uniform(0, 2 * np.pi, 60)
    at = rng.integers(500, 1_400, 60)
    contrast = 0.1 * np.sin(2 * np.pi * t / 628 + phase) - 0.1 * (t >= at) + rng.normal(0, SIGMA, (1_500, 60))
    alarms = Kernel(60, K.threshold(1.0, 100, 60)).run(contrast)
    hits = {particle for frame, particle, since, *_ in alarms if frame - since + 1 == at[particle]}
    assert len(hits) >= 57
    assert len(alarms) <= 64
