"""Sequential detection of abrupt steps in many noisy traces at once, frame by frame, in bounded memory.

Per particle a straight line follows the trace with growing memory (least squares, then a fixed-gain alpha-beta filter).
Innovations, with what all particles share taken off, feed a bank of two-sided CUSUMs in units of the log-likelihood
ratio. A CUSUM above its threshold only raises the question; the last frames then say whether a step explains them
better than a bend, a curve, an old offset or a single spike (generalised likelihood ratios). While a statistic is
high the line coasts, so that a step is not learnt away.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kernels.jit import JIT

DESIGN_STEPS = np.array([1.0, 2.2, 5.0, 12.0])
"""Steps in sigma that the bank is designed for: no step from 0.9 sigma up loses over 15 % of the best drift. The
largest is looked for however short the line's memory is."""
BANKS = len(DESIGN_STEPS)
LEVEL, SLOPE, MEMORY, LAG, SCALE, BLOCK_SCALE, BLOCK_SUM, RISE = range(8)
FALL = RISE + BANKS
VALUES = FALL + BANKS
"""Columns of `values`: prediction of the next frame, slope a frame, frames of memory, mean innovation in sigma, ratio
of the scatter of single innovations and of sums of 16 to what sigma promises, running sum; then the upward and downward
statistics."""
AGE, MISSING, BLOCK_COUNT, COUNTS = range(4)
"""Columns of `counts`: frames since the line began, frames skipped in a row, innovations in the running sum."""
HISTORY = 256
"""Frames looked back on when a statistic is high."""

MEMORY_MAX = 2000.0  # a 1 sigma step takes 50 frames: the line must be known much better than those say
LAG_SIGMAS = 3.2  # of the mean innovation's own error
SHORTEN = 0.7
MEMORY_MIN = 24.0  # before, an innovation says more of the line than of the particle
COAST_ABOVE = 6.0  # noise alone is there 1 frame in 400
CLIP = 20.0  # sigma: beyond, an innovation is no more evidence, only a worse outlier
SCALE_RATE = 1.0 / 256
BLOCK = 16
BLOCK_RATE = 1.0 / 64
BLOCK_SHARE = 0.9  # the estimate from few blocks scatters by 7 %: below this it is chance
MEAN_ABS = 0.7978845608  # of a standard normal
SLOPE_EVERY = 16
SLOPE_KEPT = 1.0 - SLOPE_EVERY / 30_000  # slopes seen minutes ago can come back
SLOPE_NOISE = 25.0 * 12.0  # 5 standard errors of a slope from n frames, squared, times n**3
SLOPE_TAIL = 100.0  # few particles are steep at a time, and those 10 times as steep as the mean square says
FIRST_STEEPNESS = 1e-6
STEEPEST = 4.0  # (sigma a frame)**2
COMMON_ENOUGH = 500  # particles: their median is known to 0.06 sigma
COMMON_LEAST = 20  # particles: fewer, and their median is one of them
FIRST_SCALE = 2.0  # doubts every sigma until 256 frames have shown it honest
LARGEST = 1e9  # beyond, a contrast is a division by nothing

PENDING, STEP, SPIKE, SMOOTH = range(4)
"""Verdicts. Pending: the next frames decide."""
MARGIN = 8.0  # twice the log-likelihood ratio by which a step must beat every other explanation
MARGIN_A_FRAME = 0.125  # and more for each frame beyond `LONG`
LONG = 100  # frames, twice what a step of 1 sigma takes: what goes on longer is seldom a step
REJECT = 12.0  # and be beaten by one to be given up
SHORTEST = 3  # frames of a step before it is one
BEFORE = 8  # frames before it
OLDEST = 0.3  # of the line's memory: a step older than that says no more than the line's own error
CURVE_FRAMES = 30.0  # in which a curve reaches the slopes seen, or in all of its frames when it has more


def threshold(false_alarms_per_day: float, frame_rate_hz: float, particles: int) -> np.ndarray:
    """(BANKS,) thresholds of the log-likelihood ratio for a designed rate of false alarms of all `particles` together.

    Siegmund's approximation of the mean time between false alarms of one CUSUM with a designed step d,
    ``2 / d**2 exp(h + 1.166 d)`` frames, its rate shared evenly among the bank and both directions.
    """
    streams = 2 * BANKS * max(particles, 1)
    frames = 86_400.0 * frame_rate_hz * streams / false_alarms_per_day
    return np.maximum(math.log(frames) + np.log(DESIGN_STEPS**2 / 2) - 1.166 * DESIGN_STEPS, COAST_ABOVE)


@njit(**JIT)
def reset(values: np.ndarray, counts: np.ndarray, history: np.ndarray) -> None:
    """Forget everything: `values` (P, VALUES) float64, `counts` (P, COUNTS) int32, `history` (HISTORY, P) float64."""
    values[:] = 0.0
    values[:, SCALE] = FIRST_SCALE
    values[:, BLOCK_SCALE] = 1.0
    counts[:] = 0
    history[:] = np.nan


@njit(**JIT)
def detect_frame(
    contrast: np.ndarray,
    sigma: np.ndarray,
    skip: np.ndarray,
    now: int,
    thresholds: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
    history: np.ndarray,
    common: np.ndarray,
    work: np.ndarray,
    found: np.ndarray,
    alarms: np.ndarray,
) -> int:
    """Take one frame of P particles; returns the number of alarms it raised.

    `contrast`, `sigma` (P,) float64; `skip` (P,) bool leaves a value out, as do NaN and sigma <= 0. `now` counts frames
    from 0 and addresses `history`. `common` (2,) holds the brightness of the scene (start at 1) and the mean square
    slope that has been seen (start at `FIRST_STEEPNESS`). `work` (2, P) is scratch. For alarm k, `found[k]` is the
    particle and `alarms[k]` (4,) the frames since onset (1: this frame is the first), the step in contrast, its sigma
    and the statistic.
    """
    row = now % HISTORY
    _innovations(contrast, sigma, skip, values, counts, common, work)
    if now % SLOPE_EVERY == 0:
        _level_slopes(values, work)
        steepness = min(_mean_square_slope(sigma, values, common[0]), STEEPEST)
        common[1] = max(common[1] * SLOPE_KEPT, steepness, FIRST_STEEPNESS)
    raised = 0
    for i in range(contrast.size):
        innovation = work[0, i]
        if np.isnan(innovation):
            history[row, i] = np.nan
            _coast_over_gap(values, counts, i)
            continue
        history[row, i] = values[i, LEVEL] + innovation
        noise = sigma[i] / common[0]
        statistic = _follow(innovation, noise, thresholds, values, counts, i)
        if statistic > 0.0 and _judge(i, row, noise, common[1], thresholds[0], values, counts, history, alarms[raised]):
            alarms[raised, 1] *= common[0]
            alarms[raised, 2] *= common[0]
            alarms[raised, 3] = statistic
            found[raised] = i
            raised += 1
    return raised


@njit(**JIT)
def _innovations(
    contrast: np.ndarray,
    sigma: np.ndarray,
    skip: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
    common: np.ndarray,
    work: np.ndarray,
) -> None:
    """Innovations relative to the scene into work[0], NaN where there is none; the scene's brightness into common[0].

    That is the median of ``(1 + contrast) / (1 + line)``: light, focus and what the whole electrode does at once. It is
    found anew in each frame, so its error does not add up.
    """
    members = 0
    stride = 1 + contrast.size // COMMON_ENOUGH
    for i in range(contrast.size):
        usable = not skip[i] and sigma[i] > 0.0 and sigma[i] < np.inf and abs(contrast[i]) < LARGEST
        work[0, i] = 1.0 + contrast[i] if usable else np.nan
        base = 1.0 + values[i, LEVEL]
        if i % stride == 0 and usable and counts[i, AGE] > 0 and base > 0.05:
            work[1, members] = work[0, i] / base
            members += 1
    if members >= COMMON_LEAST:
        scene = np.median(work[1, :members])
        if scene > 0.05 and scene < 20.0:
            common[0] = scene
    for i in range(contrast.size):
        work[0, i] = work[0, i] / common[0] - 1.0 - values[i, LEVEL]


@njit(**JIT)
def _level_slopes(values: np.ndarray, work: np.ndarray) -> None:
    """Take the slope that all lines share out of them: the scene's brightness follows it from now on.

    Lines and scene could otherwise run apart for ever, each making up for the other.
    """
    members = 0
    for i in range(len(values)):
        base = 1.0 + values[i, LEVEL]
        if values[i, MEMORY] >= 2.0 and base > 0.05:
            work[1, members] = values[i, SLOPE] / base
            members += 1
    if members < COMMON_LEAST:
        return
    shared = np.median(work[1, :members])
    for i in range(len(values)):
        values[i, SLOPE] -= shared * (1.0 + values[i, LEVEL])


@njit(**JIT)
def _mean_square_slope(sigma: np.ndarray, values: np.ndarray, scene: float) -> float:
    """Mean of slope**2 over the particles in sigma a frame, without the steepest and without what noise makes of it."""
    total, largest, members = 0.0, 0.0, 0
    for i in range(sigma.size):
        memory = values[i, MEMORY]
        if memory >= MEMORY_MIN and sigma[i] > 0.0:
            slope = values[i, SLOPE] * scene / sigma[i]
            square = max(slope * slope - SLOPE_NOISE / (memory * memory * memory), 0.0)
            largest = max(largest, square)
            total += square
            members += 1
    return SLOPE_TAIL * (total - largest) / members if members else 0.0


@njit(**JIT)
def _coast_over_gap(values: np.ndarray, counts: np.ndarray, i: int) -> None:
    """A frame without a value: the line goes on by itself, for as long as it has been known."""
    if counts[i, AGE] == 0:
        return
    counts[i, AGE] = min(counts[i, AGE] + 1, HISTORY)
    counts[i, MISSING] += 1
    values[i, LEVEL] += values[i, SLOPE]
    if counts[i, MISSING] > values[i, MEMORY]:
        _begin(values, counts, i, 0.0, 0.0, 0.0, 0)


@njit(**JIT)
def _begin(values: np.ndarray, counts: np.ndarray, i: int, level: float, slope: float, memory: float, age: int) -> None:
    """Start the line anew with what is known of it; what was learnt of the scatter stays."""
    values[i, LEVEL] = level
    values[i, SLOPE] = slope
    values[i, MEMORY] = memory
    values[i, LAG] = 0.0
    values[i, BLOCK_SUM] = 0.0
    values[i, RISE:] = 0.0
    counts[i, AGE] = age
    counts[i, MISSING] = 0
    counts[i, BLOCK_COUNT] = 0


@njit(**JIT)
def _follow(
    innovation: float, noise: float, thresholds: np.ndarray, values: np.ndarray, counts: np.ndarray, i: int
) -> float:
    """Advance statistics and line by one frame; the highest statistic above its threshold, 0 when none is."""
    if counts[i, AGE] == 0:
        _begin(values, counts, i, values[i, LEVEL] + innovation, 0.0, 1.0, 1)
        return 0.0
    counts[i, AGE] = min(counts[i, AGE] + 1, HISTORY)
    memory = _memory_after_gap(values, counts, i)
    statistic, highest = 0.0, 0.0
    if memory >= MEMORY_MIN:
        ratio = innovation / (noise * np.sqrt(1.0 + 4.0 / memory))
        statistic, highest = _cumulate(ratio, thresholds, values, i)
        if highest <= COAST_ABOVE:
            _learn_scale(ratio, values, counts, i)
            memory = _shorten_if_lagging(ratio, values, i)
        most = CLIP * noise * _doubt(values, i)
        innovation = min(max(innovation, -most), most)
    if highest <= COAST_ABOVE:
        share = 2.0 / ((memory + 1.0) * (memory + 2.0))
        values[i, LEVEL] += share * (2.0 * memory + 1.0) * innovation
        values[i, SLOPE] += share * 3.0 * innovation
        values[i, MEMORY] = min(memory + 1.0, MEMORY_MAX)
    values[i, LEVEL] += values[i, SLOPE]
    return statistic


@njit(**JIT)
def _memory_after_gap(values: np.ndarray, counts: np.ndarray, i: int) -> float:
    """A line of n frames known with variance 4/n is known with 4/n (1 + 3 x + 3 x**2) after a gap of x n frames."""
    if counts[i, MISSING] > 0:
        x = counts[i, MISSING] / values[i, MEMORY]
        values[i, MEMORY] = max(values[i, MEMORY] / (1.0 + 3.0 * x + 3.0 * x * x), 1.0)
        counts[i, MISSING] = 0
    return values[i, MEMORY]


@njit(**JIT)
def _doubt(values: np.ndarray, i: int) -> float:
    """How much larger than its sigma the noise is taken to be."""
    return max(1.0, values[i, SCALE], BLOCK_SHARE * values[i, BLOCK_SCALE])


@njit(**JIT)
def _cumulate(ratio: float, thresholds: np.ndarray, values: np.ndarray, i: int) -> tuple[float, float]:
    """CUSUMs take an innovation in sigma; returns (highest above its threshold or 0, highest of all)."""
    u = min(max(ratio / _doubt(values, i), -CLIP), CLIP)
    above, highest = 0.0, 0.0
    for j in range(thresholds.size):
        step = DESIGN_STEPS[j]
        rise = max(values[i, RISE + j] + step * (u - 0.5 * step), 0.0)
        fall = max(values[i, FALL + j] - step * (u + 0.5 * step), 0.0)
        values[i, RISE + j] = rise
        values[i, FALL + j] = fall
        larger = max(rise, fall)
        highest = max(highest, larger)
        if larger > thresholds[j]:
            above = max(above, larger)
    return above, highest


@njit(**JIT)
def _learn_scale(ratio: float, values: np.ndarray, counts: np.ndarray, i: int) -> None:
    """Compare innovations, and sums of 16, with what sigma promises; outliers count as 4 sigma."""
    bounded = min(max(ratio, -4.0), 4.0)
    values[i, SCALE] += SCALE_RATE * (abs(bounded) / MEAN_ABS - values[i, SCALE])
    values[i, BLOCK_SUM] += bounded
    counts[i, BLOCK_COUNT] += 1
    if counts[i, BLOCK_COUNT] == BLOCK:
        sum_ratio = min(abs(values[i, BLOCK_SUM]) / np.sqrt(BLOCK), 4.0)
        values[i, BLOCK_SCALE] += BLOCK_RATE * (sum_ratio / MEAN_ABS - values[i, BLOCK_SCALE])
        values[i, BLOCK_SUM] = 0.0
        counts[i, BLOCK_COUNT] = 0


@njit(**JIT)
def _shorten_if_lagging(ratio: float, values: np.ndarray, i: int) -> float:
    """Innovations with a mean say that the trace bends within the line's memory: forget faster; returns the memory.

    A curve leaves a lag that grows as memory squared. It stays below what the bank takes for a step: small steps are
    looked for with a long memory only.
    """
    memory = values[i, MEMORY]
    values[i, LAG] += 4.0 / memory * (min(max(ratio, -4.0), 4.0) - values[i, LAG])
    if abs(values[i, LAG]) > LAG_SIGMAS * np.sqrt(2.0 / memory):
        values[i, LAG] = 0.0
        values[i, MEMORY] = max(SHORTEN * memory, MEMORY_MIN)
    return values[i, MEMORY]


@njit(**JIT)
def _judge(
    i: int,
    row: int,
    noise: float,
    steepness: float,
    least: float,
    values: np.ndarray,
    counts: np.ndarray,
    history: np.ndarray,
    alarm: np.ndarray,
) -> bool:
    """Ask the last frames what raised the statistic, and begin the line anew accordingly; True for a step."""
    scale = noise * _doubt(values, i)
    verdict, onset, mean, after = explain(history[:, i], row, counts[i, AGE], values[i], scale, steepness)
    if verdict == STEP and evidence(mean / scale, float(after), values[i, MEMORY]) <= least:
        verdict = PENDING
    if verdict == STEP:
        alarm[0] = onset
        alarm[1] = mean
        alarm[2] = scale * np.sqrt(1.0 / after + 4.0 / values[i, MEMORY])
        # the slope stays known: a level from n frames is as sure as that of a line from 4 n
        memory = max(min(4.0 * after, values[i, MEMORY]), float(after))
        _begin(values, counts, i, values[i, LEVEL] + mean, values[i, SLOPE], memory, onset)
    elif verdict == SPIKE:
        values[i, RISE:] = 0.0
    elif verdict == SMOOTH:
        _begin_on_last_frames(history[:, i], row, values, counts, i)
    return verdict == STEP


@njit(**JIT)
def evidence(mean: float, after: float, memory: float) -> float:
    """Log-likelihood ratio of a step of `mean` sigma over `after` frames against an error of the line.

    A line from n frames is known with variance 4/n, and x n frames on with 4/n (1 + 3 x + 3 x**2); the middle of the
    step counts.
    """
    x = 0.5 * after / memory
    return 0.5 * mean * mean * after / (1.0 + 4.0 * after / memory * (1.0 + 3.0 * x + 3.0 * x * x))


@njit(**JIT)
def explain(
    history: np.ndarray,
    row: int,
    age: int,
    line: np.ndarray,
    scale: float,
    steepness: float,
) -> tuple[int, int, float, int]:
    """(verdict, frames since onset, mean step, frames with a value since) for the last `age` frames.

    `history` (N,) is a ring with the newest frame at `row`, NaN where there was none, `age` <= N. `line` is
    the particle's row of `values`; `scale` is the standard deviation of a frame.

    Each explanation has one free onset and one amplitude, and gains ``(sum w d)**2 / sum w**2`` from the deviations d:
    a step (w = 1), a bend (w grows linearly), a curve (w grows quadratically), a single spike; or no onset: an offset
    or a slant of the line itself. Bends and curves as steep as none before are unlikely: their slope has the prior
    variance `steepness`, in (scale a frame)**2.
    """
    level, slope = line[LEVEL], line[SLOPE]
    oldest = max(OLDEST * line[MEMORY], SHORTEST + 2.0)
    total = 0
    for k in range(age):
        total += not np.isnan(history[row - k])
    s0, s1, s2, s3, s4, d0, d1, d2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    best, short, spike, smooth = 0.0, 0.0, 0.0, 0.0
    onset, mean, after = 0, 0.0, 0
    for k in range(age):
        value = history[row - k]
        if np.isnan(value):
            continue
        d = value - level + slope * (k + 1)
        kk = float(k)
        s0, s1, s2, s3, s4 = s0 + 1.0, s1 + kk, s2 + kk * kk, s3 + kk**3, s4 + kk**4
        d0, d1, d2 = d0 + d, d1 + kk * d, d2 + kk * kk * d
        spike = max(spike, d * d)
        gain = d0 * d0 / s0
        if s0 < SHORTEST:
            short = max(short, gain)
            continue
        if total - s0 < BEFORE or s0 > oldest:
            smooth = max(smooth, gain)
        elif gain > best:
            best, onset, mean, after = gain, k + 1, d0 / s0, int(s0)
        smooth = max(smooth, _bend(kk + 1.0, s0, s1, s2, d0, d1, steepness))
        smooth = max(smooth, _curve(kk + 1.0, s0, s1, s2, s3, s4, d0, d1, d2, steepness))
    smooth = max(smooth, _slant(s0, s1, s2, d0, d1))
    return _verdict(best, short, spike, smooth, scale, after), onset, mean, after


@njit(**JIT)
def _bend(c: float, s0: float, s1: float, s2: float, d0: float, d1: float, steepness: float) -> float:
    """Gain of w = c - k, from the running sums of k**p (s) and k**p d (d)."""
    return (c * d0 - d1) ** 2 / (c * c * s0 - 2 * c * s1 + s2 + 1.0 / steepness)


@njit(**JIT)
def _curve(
    c: float,
    s0: float,
    s1: float,
    s2: float,
    s3: float,
    s4: float,
    d0: float,
    d1: float,
    d2: float,
    steepness: float,
) -> float:
    """Gain of w = (c - k)**2, from the same sums."""
    norm = c**4 * s0 - 4 * c**3 * s1 + 6 * c * c * s2 - 4 * c * s3 + s4
    return (c * c * d0 - 2 * c * d1 + d2) ** 2 / (norm + max(CURVE_FRAMES, c) ** 2 / steepness)


@njit(**JIT)
def _slant(s0: float, s1: float, s2: float, d0: float, d1: float) -> float:
    """Gain of a straight line through all deviations."""
    if s0 < SHORTEST:
        return 0.0
    slant = s0 * d1 - s1 * d0
    return d0 * d0 / s0 + slant * slant / (s0 * (s0 * s2 - s1 * s1))


@njit(**JIT)
def _verdict(best: float, short: float, spike: float, smooth: float, scale: float, after: int) -> int:
    """A deviation that fewer than `SHORTEST` frames explain best is neither a step nor anything else yet."""
    margin = (best - max(spike, smooth)) / (scale * scale)
    if margin > MARGIN + MARGIN_A_FRAME * max(after - LONG, 0) and best > short:
        return STEP
    if margin < -REJECT and short < max(spike, smooth):
        return SPIKE if spike > smooth else SMOOTH
    return PENDING


@njit(**JIT)
def _begin_on_last_frames(history: np.ndarray, row: int, values: np.ndarray, counts: np.ndarray, i: int) -> None:
    """Least-squares line through the last `MEMORY_MIN` frames: the old one no longer describes the trace."""
    age = min(counts[i, AGE], int(MEMORY_MIN))
    s0, s1, s2, x0, x1 = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(age):
        x = history[row - k]
        if not np.isnan(x):
            s0, s1, s2 = s0 + 1.0, s1 - k, s2 + k * k
            x0, x1 = x0 + x, x1 - k * x
    determinant = s0 * s2 - s1 * s1
    if determinant <= 0.0:
        _begin(values, counts, i, 0.0, 0.0, 0.0, 0)
        return
    slope = (s0 * x1 - s1 * x0) / determinant
    _begin(values, counts, i, (x0 - slope * s1) / s0 + slope, slope, s0, age)
