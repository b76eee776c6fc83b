"""Hot and dead pixels: fixed to the camera, so that a drifting mask's edge would run over them and see a step."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from daemon.engine.measures import NoiseModel

AROUND = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
SIGMAS = 8.0  # one false defect in 1e14 pixels
LEAST_SHARE = 0.3  # of the neighbours' level: blur of half a pixel or more leaves no scene that steep
HOT_SIGMAS = 10.0
HOT_VARIANCES = 4.0  # dark current of so many times the read noise's variance is noise that matters
MOST_SHARE = 1e-3  # of all pixels: more is texture, not defects


def find_defects(reference_e: np.ndarray, noise: NoiseModel, frames: int) -> np.ndarray:
    """Sorted linear indices (D,) int32 of single pixels of the (H, W) mean of `frames` frames, in electrons, that stand
    out of all their eight neighbours. Pixels of the frame's outermost lines are left out.
    """
    level = ndimage.median_filter(reference_e, footprint=AROUND, mode="nearest")
    highest = ndimage.maximum_filter(reference_e, footprint=AROUND, mode="nearest")
    lowest = ndimage.minimum_filter(reference_e, footprint=AROUND, mode="nearest")
    variance = np.maximum(level, 0.0) + noise.read_noise_e**2 + noise.gain_e_per_dn**2 / 12
    least = np.maximum(SIGMAS * np.sqrt(variance / frames), LEAST_SHARE * np.abs(level))
    stands_out = np.maximum(reference_e - highest, lowest - reference_e) > least / 2
    found = stands_out & (np.abs(reference_e - level) > least)
    found[0], found[-1], found[:, 0], found[:, -1] = False, False, False, False
    index = np.flatnonzero(found).astype(np.int32)
    return index if len(index) <= MOST_SHARE * found.size else np.empty(0, np.int32)


def find_hot(dark_dn: np.ndarray, noise: NoiseModel) -> np.ndarray:
    """Sorted linear indices (D,) int32 of single pixels of the (H, W) dark frame, in DN, that are hot or dead: farther
    from their neighbours than the sensor's own pattern scatters, and by more electrons than read noise hides.

    Their level could be subtracted; the noise of their dark current, and its blinking, cannot. Pixels of the frame's
    outermost lines are left out.
    """
    away = dark_dn - ndimage.median_filter(dark_dn, footprint=AROUND, mode="nearest")
    scatter = 1.4826 * float(np.median(np.abs(away)))
    least = max(HOT_SIGMAS * scatter, HOT_VARIANCES * noise.read_noise_e**2 / noise.gain_e_per_dn)
    found = np.abs(away) > least
    found[0], found[-1], found[:, 0], found[:, -1] = False, False, False, False
    index = np.flatnonzero(found).astype(np.int32)
    return index if len(index) <= MOST_SHARE * found.size else np.empty(0, np.int32)


def repair(image: np.ndarray, defects: np.ndarray) -> None:
    """Give defective pixels of an (H, W) image, in place, the mean of their four nearest neighbours."""
    flat, width = image.reshape(-1), image.shape[1]
    flat[defects] = 0.25 * (flat[defects - 1] + flat[defects + 1] + flat[defects - width] + flat[defects + width])
