"""Layers as they are, from layers as the optics mix them: a blurred surface holds some of the core's light.

What each layer's mask collects of each layer's light follows from outline and PSF. The contrasts of the layers are the
true ones mixed by these shares; each is estimated from all four by linear regression on what profiles are
like (constant and even curvature, freely; departures from these less), so that little noise is taken in for them.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from daemon.engine.measures import LAYERS, MaskSet
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, layers, smooth_step

EVEN = 1e3
"""Prior standard deviation of what all layers share, in units of a layer's noise over `NOISE`: free."""
CURVED = 10.0
"""... of how curved the profile is: free."""
DIFFUSE, SHARP = 0.2, 1.0
"""... of each layer's departure from the profile, in a solid solution and with the sharp front of two phases."""
NOISE = 0.1
"""Standard deviation of a layer's measured contrast, where a usual gradient is 1."""
LEAST_AREA_PX = 24
"""Smaller particles have no layers to speak of: theirs stay as measured."""
PROFILE = (np.arange(len(LAYERS))[::-1] - (len(LAYERS) - 1) / 2) / (len(LAYERS) - 1)
"""A sphere under even flux, means of quarters of the area: 1 from core to surface."""
PLAIN = np.eye(len(LAYERS))
"""Layers as measured."""


def shares(masks: MaskSet) -> np.ndarray:
    """(P, 4, 4): share of each layer j in the light that the mask of layer k collects; rows sum to 1."""
    found = np.repeat(PLAIN[None], masks.count, axis=0)
    if masks.psf_sigma_px > 0:
        for i, box in enumerate(ndimage.find_objects(masks.labels, max_label=masks.count)):
            if box is not None:
                found[i] = _shares_of(masks.labels[box] == i + 1, masks.psf_sigma_px)
    return found


def _shares_of(inside: np.ndarray, psf_sigma_px: float) -> np.ndarray:
    if inside.sum() < LEAST_AREA_PX:
        return PLAIN
    grow_px = GROW_SIGMA * psf_sigma_px
    inside = np.pad(inside, int(np.ceil(grow_px + EDGE_PX + 4.0 * psf_sigma_px)))
    layer = layers(inside)
    mask = smooth_step(1.0 - (ndimage.distance_transform_edt(~inside) - grow_px) / EDGE_PX)
    light = [ndimage.gaussian_filter((inside & (layer == j)).astype(float), psf_sigma_px) for j in range(len(LAYERS))]
    collected = np.array([[(mask * (layer == k) * each).sum() for each in light] for k in range(len(LAYERS))])
    return np.asarray(collected / collected.sum(axis=1, keepdims=True))


def doubt(share: np.ndarray, weights: np.ndarray, departure: float) -> np.ndarray:
    """(P,) standard deviation, as a share of the gradient, of what `weights` of `unmixing` take for a difference
    between surface and core: departures of the layers from the profile, which blur hides.
    """
    left = weights @ share - np.eye(len(LAYERS))
    return np.asarray(departure * np.linalg.norm(left[:, 0] - left[:, -1], axis=1))


def unmixing(share: np.ndarray, departure: float) -> np.ndarray:
    """(P, 4, 4): weights of the measured contrasts that estimate each layer's own best under `share` (P, 4, 4), with
    departures from the profile by `departure` (`DIFFUSE` or `SHARP`); rows sum to 1.
    """
    ones, own = np.ones((len(LAYERS), len(LAYERS))), np.eye(len(LAYERS))
    prior = EVEN**2 * ones + CURVED**2 * np.outer(PROFILE, PROFILE) + departure**2 * own
    measured = share @ prior @ share.transpose(0, 2, 1) + NOISE**2 * own
    weights = np.linalg.solve(measured, share @ prior).transpose(0, 2, 1)
    return np.asarray(weights / weights.sum(axis=2, keepdims=True))
