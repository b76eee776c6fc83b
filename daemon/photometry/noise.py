"""Gain, read noise and dark level: as given, or from the photon-transfer line of the data's own static pixels.

Photon transfer (Janesick 2007): the temporal variance of a pixel in DN is ``(mean - dark) / gain + (read / gain)**2``,
a line in its mean whose slope is 1 / gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.engine.measures import NoiseModel
from daemon.errors import RecordingError, RecordingReason

BINS = 24
MIN_BIN_PIXELS = 200
MIN_SPAN = 1.3  # brightest over darkest bin: a flatter scene has no line to fit


@dataclass(frozen=True)
class NoiseHints:
    """What camera, recording or settings say; None where they do not."""

    gain_e_per_dn: float | None = None
    read_noise_e: float | None = None
    dark_dn: float | None = None


def resolve_noise(
    hints: NoiseHints, mean_dn: np.ndarray, variance_dn2: np.ndarray, bit_depth: int, frames: int
) -> NoiseModel:
    """The noise model from hints, the missing part from (H, W) mean and temporal variance over `frames` frames.

    Raises `RecordingError` (MISSING_VALUE) naming the value when it is neither given nor to be had from the data.
    """
    if hints.gain_e_per_dn is not None and hints.read_noise_e is not None and hints.dark_dn is not None:
        return NoiseModel(hints.gain_e_per_dn, hints.read_noise_e, hints.dark_dn)
    slope, intercept = _transfer_line(mean_dn, variance_dn2, bit_depth, frames, hints.dark_dn)
    gain = hints.gain_e_per_dn if hints.gain_e_per_dn is not None else 1.0 / slope
    dark, read_noise = hints.dark_dn, hints.read_noise_e
    # the line fixes only (read / gain)**2 - dark / gain: with neither known, the smaller story is taken
    if dark is None and read_noise is None:
        dark = max(0.0, -intercept * gain)
        read_noise = gain * float(np.sqrt(max(intercept, 0.0)))
    elif dark is None:
        dark = max(0.0, (float(read_noise or 0.0) / gain) ** 2 - intercept) * gain
    elif read_noise is None:
        read_noise = gain * float(np.sqrt(max(intercept + dark / gain, 0.0)))
    return NoiseModel(gain, float(read_noise or 0.0), float(dark), estimated=True)


def _transfer_line(
    mean_dn: np.ndarray, variance_dn2: np.ndarray, bit_depth: int, frames: int, dark_dn: float | None
) -> tuple[float, float]:
    """Slope (DN) and intercept (DN squared) of variance against mean, over bins of equal population.

    A scene too evenly bright for a line gives one point; the line then goes through it and the dark level (0 unless
    given): electrons are uncertain by the dark level's share, relative noise at the scene's brightness is right.
    """
    good = np.isfinite(variance_dn2) & (variance_dn2 > 0) & (mean_dn < 0.9 * (2**bit_depth - 1))
    mean, variance = mean_dn[good].astype(np.float64), variance_dn2[good].astype(np.float64)
    if frames < 5 or mean.size < 4 * MIN_BIN_PIXELS:
        raise RecordingError(
            RecordingReason.MISSING_VALUE, "gain_e_per_dn is not given, and too few frames or pixels tell it"
        )
    x, y = _binned(mean, variance, frames)
    if len(x) >= 3 and x[-1] >= MIN_SPAN * max(x[0], 1e-9):
        slope, intercept = np.polyfit(x, y, 1, w=1.0 / np.maximum(y, 1e-9))
        if slope > 0 and np.isfinite(intercept):
            return float(slope), float(intercept)
    dark = dark_dn or 0.0
    slope = float(np.median(y)) / max(float(np.median(x)) - dark, 1e-9)
    return slope, -slope * dark


def _binned(mean: np.ndarray, variance: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean level and typical variance of each bin."""
    edges = np.unique(np.quantile(mean, np.linspace(0.0, 1.0, min(BINS, mean.size // MIN_BIN_PIXELS) + 1)))
    which = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, max(len(edges) - 2, 0))
    bins = [which == b for b in np.unique(which)]
    # the median sets moving and flickering pixels aside; it lies below the mean of the chi-square it is taken from
    freedom = max(2.0 * (frames - 1) / 3.0, 1.0)  # successive differences overlap: two thirds of the pairs are news
    x = np.array([mean[b].mean() for b in bins])
    return x, np.array([np.median(variance[b]) for b in bins]) / (1 - 2 / (9 * freedom)) ** 3
