"""What the data themselves say of the camera: the photon-transfer line, and the dark level from changes of the light.

Photon transfer (Janesick 2007): the temporal variance of a pixel in DN squared is ``(mean - dark) / gain + (read /
gain)**2 + 1/12``, a line in its mean. And when the light changes, a pixel answers in proportion to what it shows above
the dark level, so that the line of answers against means crosses zero there.

Weights come from the fitted model, never from a pixel's own noise, which keeps the fits unbiased. Uncertainties are a
jackknife over stretches of the frame: they hold whatever differs from place to place, noise or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from daemon.engine.transfer import Transfer
from daemon.photometry.background import estimate_background

MIN_FRAMES = 5
MIN_PIXELS = 800
BINS = 24
STRETCHES = 32
NEIGHBOURS_PX = 5  # window in which a moving or flickering patch is told from noise
ROUNDS = (20.0, 10.0, 5.0, 5.0)  # standard deviations: patches farther off are left out, the worst first
STEEP = 20.0  # noise standard deviations a pixel: beyond, the least shaking is more than noise
FULL_SHARE = 0.9  # of full scale: sensors bend before they saturate
MESH_PX = 64
WING_PX = 5  # light of particles reaches so far beyond what stands out
MIN_SIGNAL = 100.0  # power of the light's changes over what the frames' own noise makes of it
WANDER = 1e-4  # relative change of contrast, in 1000 s, that may go along with the light: drift, focus, growth
WANDER_S = 1000.0
COMMON_SHARE = 0.05  # of the light's changes that inactive pixels may miss: more, and it was the particles that changed
AGREE = 2.0  # standard deviations between the line of inactive pixels and that of all
LEVER = 0.3  # share of the pixels' scatter in brightness that must be more than noise, for a line to be laid through


@dataclass(frozen=True)
class TransferLine:
    """Variance `variance_dn2` at mean `mean_dn`, rising by `slope_dn` a DN; (2, 2) `covariance` of (slope, variance).

    `slope_dn` is NaN, its variance infinite, where the scene is too even, or too odd, for a line.
    """

    mean_dn: float
    variance_dn2: float
    slope_dn: float
    covariance: np.ndarray

    def at(self, mean_dn: np.ndarray) -> np.ndarray:
        """The line's variance, never below a tenth of that at its centre."""
        slope = self.slope_dn if np.isfinite(self.slope_dn) else 0.0
        return np.maximum(self.variance_dn2 + slope * (mean_dn - self.mean_dn), 0.1 * self.variance_dn2)


@dataclass(frozen=True)
class Evidence:
    """What was read off the data: None where they say nothing. `dark_dn` is (level, standard deviation)."""

    line: TransferLine | None = None
    dark_dn: tuple[float, float] | None = None


def read_off(transfer: Transfer, bit_depth: int) -> Evidence:
    """The line through all static pixels, and the dark level from inactive ones if the light changed."""
    if transfer.frames < MIN_FRAMES or transfer.pairs < MIN_FRAMES - 1:
        return Evidence()
    mean, variance, static = _prepared(transfer, bit_depth)
    if static.sum() < MIN_PIXELS or np.median(variance[static]) <= 0:
        return Evidence()
    steep = ndimage.gaussian_gradient_magnitude(mean, 1.0) ** 2
    line, static = _line(mean, variance, steep, static, transfer)
    if line is None:
        return Evidence()
    inactive = _inactive(mean, static)
    if inactive.sum() < MIN_PIXELS:
        return Evidence(line)
    quiet = _fit_line(mean[inactive], variance[inactive], steep[inactive], line, transfer.frames)
    if np.isfinite(quiet.slope_dn) and not _agree(quiet, line):
        line = quiet  # particles flickered, or shook
    levels = [_dark_level(mean, inactive, line, transfer, answer) for answer in _responses(transfer, line)]
    found = [level for level in levels if level is not None]
    return Evidence(line, min(found, key=lambda level: level[1]) if found else None)


def inactive_pixels(transfer: Transfer, bit_depth: int) -> np.ndarray:
    """(H, W) bool: static pixels away from particles; none True when the statistics do not tell."""
    mean, _, static = _prepared(transfer, bit_depth)
    return _inactive(mean, static) if static.sum() >= MIN_PIXELS else np.zeros(mean.shape, bool)


def _agree(quiet: TransferLine, line: TransferLine) -> bool:
    apart = abs(quiet.slope_dn - line.slope_dn)
    return bool(apart <= AGREE * np.sqrt(quiet.covariance[0, 0] + line.covariance[0, 0]))


def _prepared(transfer: Transfer, bit_depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W) mean and variance, 0 where not known, and which pixels are static."""
    mean, variance = transfer.mean_dn.astype(np.float64), _without_common(transfer)
    known = np.isfinite(mean) & np.isfinite(variance)
    mean, variance = np.where(known, mean, 0.0), np.where(known, variance, 0.0)
    return mean, variance, known & _static(mean, variance, 2**bit_depth - 1)


def _without_common(transfer: Transfer) -> np.ndarray:
    """Temporal variance with each pixel's answer to the common light taken out, as one more fitted parameter."""
    variance = transfer.variance_dn2.astype(np.float64)
    power, pairs = transfer.step_power_dn2, transfer.pairs
    if transfer.step_response is None or power <= 0:
        return variance
    taken = transfer.step_response.astype(np.float64) ** 2 * power
    return np.maximum(variance * pairs - taken / 2, 0.0) / (pairs - 1 + transfer.step_overlap_dn2 / power)


def _static(mean: np.ndarray, variance: np.ndarray, full_scale: int) -> np.ndarray:
    """(H, W) bool: neither clipped above or below, nor so steep that the slightest shaking is more than noise."""
    sigma = np.sqrt(np.maximum(ndimage.uniform_filter(variance, NEIGHBOURS_PX), 0.0))
    good = (mean < FULL_SHARE * full_scale) & (mean + 4 * sigma < full_scale) & (mean - 4 * sigma > 0)
    if not good.any():
        return good
    steepness = ndimage.gaussian_gradient_magnitude(mean, 1.0) / np.maximum(sigma, 1e-6)
    return good & (steepness <= max(STEEP, float(np.median(steepness[good]))))


def _line(
    mean: np.ndarray, variance: np.ndarray, steep: np.ndarray, static: np.ndarray, transfer: Transfer
) -> tuple[TransferLine | None, np.ndarray]:
    """The line, and the pixels that lie on it; None when too few do."""
    freedom = transfer.freedom
    line = _rough_line(mean[static], variance[static], freedom)
    for limit in ROUNDS:
        if static.sum() < MIN_PIXELS:
            return None, static
        static = static & _alike(variance / line.at(mean), static, 2.0 / freedom, limit)
        if static.sum() < MIN_PIXELS:
            return None, static
        line = _fit_line(mean[static], variance[static], steep[static], line, transfer.frames)
    return line, static


def _rough_line(mean: np.ndarray, variance: np.ndarray, freedom: float) -> TransferLine:
    """Through the medians of bins of equal population: they set moving and flickering pixels aside."""
    edges = np.unique(np.quantile(mean, np.linspace(0.0, 1.0, min(BINS, mean.size // 200) + 1)))
    which = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, max(len(edges) - 2, 0))
    bins = [which == b for b in np.unique(which)]
    x = np.array([mean[b].mean() for b in bins])
    # the median of a chi-square lies below its mean
    y = np.array([np.median(variance[b]) for b in bins]) / (1 - 2 / (9 * freedom)) ** 3
    level, unknown = float(np.median(mean)), np.diag([np.inf, np.inf])
    if len(x) >= 3:
        slope, height = np.polyfit(x - level, y, 1, w=1.0 / np.maximum(y, 1e-9))
        if slope > 0 and height > 0:
            return TransferLine(level, float(height), float(slope), unknown)
    return TransferLine(level, max(float(np.median(y)), 1e-9), float("nan"), unknown)


def _alike(ratio: np.ndarray, chosen: np.ndarray, spread: float, limit: float) -> np.ndarray:
    """Which (H, W) pixels are like the others: they, and their neighbourhood's mean, within `limit` sigma.

    `ratio` has the relative variance `spread` and the skewness of a chi-square.
    """
    weight = ndimage.uniform_filter(chosen.astype(np.float64), NEIGHBOURS_PX)
    around = ndimage.uniform_filter(np.where(chosen, ratio, 0.0), NEIGHBOURS_PX) / np.maximum(weight, 1e-9)
    centre = max(float(np.median(around[chosen])), 1e-9)
    error = np.sqrt(spread / np.maximum(weight * NEIGHBOURS_PX**2, 1.0))
    # Wilson-Hilferty: the cube root of a chi-square is nearly normal
    score = (np.cbrt(np.maximum(ratio, 0.0) / centre) - (1 - spread / 9)) / np.sqrt(spread / 9)
    return chosen & (np.abs(around / centre - 1) <= limit * error) & (np.abs(score) <= limit)


def _fit_line(
    mean: np.ndarray, variance: np.ndarray, steep: np.ndarray, rough: TransferLine, frames: int
) -> TransferLine:
    """By the rough line's weights. Shaking adds to the variance in proportion to the squared gradient `steep`."""
    weight = 1.0 / rough.at(mean) ** 2
    level = float(np.average(mean, weights=weight))
    away = mean - level
    noise = float(np.sum(weight * rough.at(mean)) / frames)  # of the means themselves: it flattens a line
    scatter = float(np.sum(weight * away**2))
    if scatter - noise > LEVER * scatter:
        samples = _jackknife([np.ones_like(away), away, steep], variance, weight, noise)[:, :2]
        height, slope = samples.mean(axis=0)
        if slope > 0 and height > 0:
            return TransferLine(level, float(height), float(slope), _covariance(samples[:, ::-1]))
    samples = _jackknife([np.ones_like(away)], variance, weight, 0.0)
    unknown = np.diag([np.inf, float(_covariance(samples)[0, 0])])
    return TransferLine(level, float(samples.mean()), float("nan"), unknown)


def _jackknife(columns: list[np.ndarray], values: np.ndarray, weight: np.ndarray, noise: float) -> np.ndarray:
    """(K, p) weighted least-squares coefficients of (n,) `columns`, each time without one of K stretches of pixels.

    `noise` is what the noise of the second column adds to its sum of squares.
    """
    p, n = len(columns), len(values)
    stretch = np.arange(n) * STRETCHES // n
    normal, right = np.empty((STRETCHES, p, p)), np.empty((STRETCHES, p))
    for i in range(p):
        right[:, i] = np.bincount(stretch, weight * columns[i] * values, STRETCHES)
        for j in range(i, p):
            normal[:, i, j] = normal[:, j, i] = np.bincount(stretch, weight * columns[i] * columns[j], STRETCHES)
    if p > 1:
        normal[:, 1, 1] -= noise / STRETCHES
    scale = np.sqrt(np.maximum(np.abs(np.diag(normal.sum(axis=0))), 1e-300))
    inverse = np.linalg.pinv((normal.sum(axis=0) - normal) / np.outer(scale, scale), rcond=1e-10, hermitian=True)
    return np.einsum("kij,kj->ki", inverse, (right.sum(axis=0) - right) / scale) / scale


def _covariance(samples: np.ndarray) -> np.ndarray:
    """(p, p) of the (K, p) jackknife samples' mean."""
    away = samples - samples.mean(axis=0)
    return (len(samples) - 1) / len(samples) * (away.T @ away)


@dataclass(frozen=True)
class _Answer:
    """A response, its variance over the pixel's own, and the relative error of its slope by what else changed."""

    response: np.ndarray
    noise: float
    wander: float


def _responses(transfer: Transfer, line: TransferLine) -> list[_Answer]:
    """The responses for which the light changed enough."""
    found = []
    own = line.variance_dn2 / transfer.common_pixels  # variance of M from noise
    wander = WANDER * np.sqrt(max(1.0, transfer.duration_s / WANDER_S)) * transfer.common_dn
    power = transfer.step_power_dn2
    if transfer.step_response is not None and power > MIN_SIGNAL * 2 * transfer.pairs * own:
        noise = 2 * (power - transfer.step_overlap_dn2) / power**2
        found.append(_Answer(transfer.step_response.astype(np.float64), noise, wander / np.sqrt(power)))
    power = transfer.level_power_dn2
    if transfer.level_response is not None and power > MIN_SIGNAL * transfer.frames * own:
        wander /= np.sqrt(power / transfer.frames)
        found.append(_Answer(transfer.level_response.astype(np.float64), 1 / power, wander))
    return found


def _dark_level(
    mean: np.ndarray, inactive: np.ndarray, line: TransferLine, transfer: Transfer, answer: _Answer
) -> tuple[float, float] | None:
    """Where the answers of inactive pixels vanish, and its standard deviation; None when they do not tell."""
    level, inactive = 0.0, inactive & np.isfinite(answer.response)
    for _ in range(3):
        if inactive.sum() < MIN_PIXELS:
            return None
        fitted = _fit_response(mean, inactive, line, answer, transfer.frames, level)
        if fitted is None:
            return None
        level, sigma, slope, residual = fitted
        inactive = inactive & _quiet(residual / np.sqrt(answer.noise * line.at(mean)), inactive)
    if not inactive.any() or abs(slope * (transfer.common_dn - level) - 1) > COMMON_SHARE:
        return None
    above = float(mean[inactive].mean()) - level
    return level, float(np.hypot(sigma, above * answer.wander))


def _fit_response(
    mean: np.ndarray, inactive: np.ndarray, line: TransferLine, answer: _Answer, frames: int, dark_dn: float
) -> tuple[float, float, float, np.ndarray] | None:
    """Dark level, standard deviation, slope of the responses, and (H, W) what is left of them.

    Two further terms let the light change more on one side of the frame than on the other; they need a rough `dark_dn`.
    """
    weight = 1.0 / (answer.noise * line.at(mean[inactive]))
    centre = float(np.average(mean[inactive], weights=weight))
    away = mean - centre
    flattening = float(np.sum(weight * line.at(mean[inactive])) / frames)
    if np.sum(weight * away[inactive] ** 2) < flattening / (1 - LEVER):
        return None
    v, u = np.meshgrid(*(np.linspace(-1, 1, n) for n in mean.shape), indexing="ij")
    columns = [np.ones_like(mean), away, u * (mean - dark_dn), v * (mean - dark_dn)]
    chosen = [column[inactive] for column in columns]
    samples = _jackknife(chosen, answer.response[inactive], weight, flattening)
    height, slope = samples[:, 0], samples[:, 1]
    if np.any(slope <= 0):
        return None  # no answer that rises with brightness: what changed was not the light
    levels = centre - height / slope
    coefficients = samples.mean(axis=0)
    left = answer.response - sum(c * column for c, column in zip(coefficients, columns, strict=True))
    return float(levels.mean()), float(np.sqrt(_covariance(levels[:, None])[0, 0])), float(coefficients[1]), left


def _inactive(mean: np.ndarray, static: np.ndarray) -> np.ndarray:
    """Static pixels that do not stand out of the smooth background: particles change by themselves."""
    try:
        level, scatter = estimate_background(mean, ~static, MESH_PX)
    except ValueError:  # nowhere enough static pixels together
        return np.zeros_like(static)
    particles = np.abs(ndimage.uniform_filter(mean - level, 3)) > 4 * scatter
    return static & ~ndimage.binary_dilation(particles, iterations=WING_PX)


def _quiet(score: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Which pixels, and neighbourhoods, answered like the others: within five standard deviations."""
    weight = ndimage.uniform_filter(chosen.astype(np.float64), NEIGHBOURS_PX)
    around = ndimage.uniform_filter(np.where(chosen, score, 0.0), NEIGHBOURS_PX) / np.maximum(weight, 1e-9)
    error = 1.0 / np.sqrt(np.maximum(weight * NEIGHBOURS_PX**2, 1.0))
    return (np.abs(score) <= 5) & (np.abs(around) <= 5 * error)
