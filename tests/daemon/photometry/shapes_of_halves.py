"""Hand-made curves of one half, for tests of what is measured on them."""

from __future__ import annotations

import numpy as np

from daemon.photometry.blocks import Block, History
from daemon.photometry.curves import HalfCurves, half_curves
from daemon.photometry.halves import Half


def make_half(
    index: int = 0, sign: int = 1, start_s: float = 0.0, end_s: float = 3600.0, drive_s: float | None = None,
    current_ma: float = 1.0, start_mah: float = 0.0,
) -> Half:  # fmt: skip
    """A half of constant current and a linear voltage, 3 V + 1 V a mAh and 0.1 V of polarisation."""
    half = Half(index, sign, start_s, end_s, start_mah=start_mah, turn_mah=start_mah)
    drive_end_s = end_s if drive_s is None else start_s + drive_s
    for t_s in np.linspace(start_s, end_s, 201):
        charge = start_mah + sign * current_ma * (min(t_s, drive_end_s) - start_s) / 3600.0
        half.add((float(t_s), 3.0 + charge + 0.1 * sign, sign * current_ma, charge))
    half.drive_end_t_s, half.drive_s = drive_end_s, drive_end_s - start_s
    return half


def make_curves(
    half: Half, contrast: np.ndarray, sigma: float = 0.0, layers: np.ndarray | None = None, seed: int = 0
) -> HalfCurves:
    """Curves of (n, P) contrasts at equal distances over the half."""
    points, particles = contrast.shape
    noisy = contrast + np.random.default_rng(seed).normal(0.0, sigma, contrast.shape)
    history = History(particles, 2 * points)
    for k, t_s in enumerate(np.linspace(half.start_t_s, half.end_t_s, points)):
        inner = np.repeat(noisy[k][:, None], 4, axis=1) if layers is None else layers[k]
        values = np.concatenate([noisy[k][:, None], inner], axis=1)
        history.append(Block(float(t_s), values, np.where(np.isfinite(noisy[k]), sigma**2, np.nan)))
    curves = half_curves(half, history)
    assert curves is not None
    return curves


def ramp(points: int, start: float, stop: float) -> np.ndarray:
    """(points,) progress: 0 up to the share `start` of the half, 1 from `stop`, straight between."""
    return np.clip((np.linspace(0.0, 1.0, points) - start) / (stop - start), 0.0, 1.0)
