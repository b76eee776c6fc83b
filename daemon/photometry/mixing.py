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
"""Prior standard deviation of what all layers share; the profile's is 1."""
DEPARTURE = 0.2
"""... of each layer's departure from the profile."""
NOISE = 0.05
"""Standard deviation of a layer's measured contrast."""
LEAST_AREA_PX = 24
"""Smaller particles have no layers to speak of: theirs stay as measured."""
PROFILE = (np.arange(len(LAYERS))[::-1] - (len(LAYERS) - 1) / 2) / (len(LAYERS) - 1)
"""A sphere under even flux, means of quarters of the area: 1 from core to surface."""
PLAIN = np.eye(len(LAYERS))
"""The layers as measured."""


def mixing(masks: MaskSet) -> np.ndarray:
    """(P, 4, 4) weights of the measured contrasts that make each layer's own, surface first; rows sum to 1."""
    found = np.repeat(PLAIN[None], masks.count, axis=0)
    if masks.psf_sigma_px > 0:
        for i, box in enumerate(ndimage.find_objects(masks.labels, max_label=masks.count)):
            if box is not None:
                found[i] = _weights(masks.labels, i + 1, box, masks.psf_sigma_px)
    return found


def _weights(labels: np.ndarray, label: int, box: tuple[slice, slice], psf_sigma_px: float) -> np.ndarray:
    grow = GROW_SIGMA * psf_sigma_px
    reach = int(np.ceil(grow + EDGE_PX + 4.0 * psf_sigma_px))
    inside = np.pad(labels[box] == label, reach)
    if inside.sum() < LEAST_AREA_PX:
        return PLAIN
    return unmixing(shares(inside, psf_sigma_px, grow))


def shares(inside: np.ndarray, psf_sigma_px: float, grow_px: float) -> np.ndarray:
    """(4, 4): share of each layer j in the light that the mask of layer k collects; rows sum to 1."""
    layer = layers(inside)
    mask = smooth_step(1.0 - (ndimage.distance_transform_edt(~inside) - grow_px) / EDGE_PX)
    light = [ndimage.gaussian_filter((inside & (layer == j)).astype(float), psf_sigma_px) for j in range(len(LAYERS))]
    collected = np.array([[(mask * (layer == k) * each).sum() for each in light] for k in range(len(LAYERS))])
    return np.asarray(collected / collected.sum(axis=1, keepdims=True))


def unmixing(share: np.ndarray) -> np.ndarray:
    """(4, 4): the best linear estimates of the layers under `share` (4, 4); see the module."""
    ones = np.ones((len(LAYERS), len(LAYERS)))
    prior = EVEN**2 * ones + np.outer(PROFILE, PROFILE) + DEPARTURE**2 * np.eye(len(LAYERS))
    measured = share @ prior @ share.T + NOISE**2 * np.eye(len(LAYERS))
    weights = np.linalg.solve(measured, share @ prior).T
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
