"""Slow and obvious twin of `kernels.curves`."""

import numpy as np
from scipy.optimize import isotonic_regression


def naive_turns_back(mean, sigma, share, sigmas):
    """Whether one response falls and rises, each by more than a share of its span and its uncertainty."""
    least = max(share * np.ptp(mean), 1e-12)
    return all(_falls(sign * mean, sigma, least, sigmas) for sign in (1.0, -1.0))


def _falls(mean, sigma, least, sigmas):
    fall = np.maximum.accumulate(mean) - mean
    place = int(fall.argmax())
    top = int(mean[: place + 1].argmax())
    return bool(fall[place] > max(least, sigmas * np.hypot(sigma[place], sigma[top])))


def naive_invert(mean, sigma, axis, knots):
    """Contrasts, places and deviations of one response's inverse."""
    rising = mean[-1] >= mean[0]
    level = isotonic_regression(mean, increasing=bool(rising)).x
    c, f, s = (each if rising else each[::-1] for each in (level, axis, sigma))
    c = c + np.arange(len(c)) * (1e-7 * (c[-1] - c[0]))
    grid = np.linspace(c[0], c[-1], knots)
    width = np.interp(grid, c, s)
    below, here, above = (np.interp(grid + shift, c, f) for shift in (-width, 0.0, width))
    return grid, here, np.maximum(np.abs(above - here), np.abs(here - below))
