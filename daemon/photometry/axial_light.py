"""What an uneven background adds to a particle's centroid.

The engine takes one level of background off a particle. A background that rises from end to end leaves a dipole, which
stays when the particle brightens and counts for less: the centroid would seem to move. It is read off the ring around
the particle in the reference.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from daemon.engine.measures import MaskSet
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, RING_GAP_PX, RING_WIDTH_PX, smooth_step

USUAL_PX = 0.1
"""Of a dipole over the particle's light where no ring tells it: a background of half of a particle's brightness that
changes by a tenth over 100 px, and a rod of 40 px, have as much."""
UNSEEN = np.array([0.0, 0.0, USUAL_PX])
LEAST_RING_PX = 60
CLIP_SIGMA = 4.0
GRAIN_PX = 9.0
"""Pixels of a background's grain that tell as much as one."""


def backgrounds_dipoles(masks: MaskSet, level_dn: np.ndarray, start: int = 0) -> np.ndarray:
    """(P - start, 3) px: first moments y and x of what of the background is not even, over the particle's light, and
    their standard deviation. `level_dn` is the (H, W) reference above its dark level, any unit.
    """
    found = np.tile(UNSEEN, (masks.count - start, 1))
    taken = masks.labels > 0 if masks.excluded is None else (masks.labels > 0) | masks.excluded
    boxes = ndimage.find_objects(masks.labels, max_label=masks.count)
    for i in range(start, masks.count):
        box = boxes[i]
        if box is not None:
            found[i - start] = _dipole(masks, i, box, taken, level_dn)
    return found


def _dipole(masks: MaskSet, i: int, box: tuple[slice, slice], taken: np.ndarray, level_dn: np.ndarray) -> np.ndarray:
    grow = GROW_SIGMA * masks.psf_sigma_px
    near = grow + EDGE_PX + RING_GAP_PX
    reach = int(np.ceil(near + RING_WIDTH_PX)) + 1
    window = tuple(
        slice(max(part.start - reach, 0), min(part.stop + reach, size))
        for part, size in zip(box, level_dn.shape, strict=True)
    )
    inside = masks.labels[window] == i + 1
    others = taken[window] & ~inside
    image = np.asarray(level_dn[window], float)
    outside = ndimage.distance_transform_edt(~inside)
    free = ndimage.distance_transform_edt(~others) > near if others.any() else np.ones(inside.shape, bool)
    ring = (outside > near) & (outside <= near + RING_WIDTH_PX) & free & np.isfinite(image)
    if ring.sum() < LEAST_RING_PX:
        return UNSEEN
    mask = smooth_step(1.0 - (outside - grow) / EDGE_PX)
    y, x = (axis - (axis * mask).sum() / mask.sum() for axis in np.indices(inside.shape).astype(float))
    slope, covariance, middle = _plane(y[ring], x[ring], image[ring])
    light = (mask * np.nan_to_num(image - middle)).sum()
    if not abs(light) > 0.0:
        return UNSEEN
    moments = np.array([[(mask * a * b).sum() for a in (y, x)] for b in (y, x)]) / light
    doubt = moments @ covariance @ moments.T
    return np.array([*(moments @ slope), min(float(np.sqrt(np.trace(doubt))), USUAL_PX)])


def _plane(y: np.ndarray, x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Slopes (2,) of a plane through `values`, their covariance, and the values' mean; outliers left out once."""
    basis = np.stack([np.ones(len(y)), y, x], axis=1)
    keep = np.ones(len(y), bool)
    for _ in range(2):
        found = np.linalg.lstsq(basis[keep], values[keep], rcond=None)[0]
        away = values - basis @ found
        scatter = 1.4826 * float(np.median(np.abs(away[keep] - np.median(away[keep]))))
        keep = np.abs(away) <= CLIP_SIGMA * max(scatter, 1e-12)
    covariance = np.linalg.pinv(basis[keep].T @ basis[keep]) * scatter**2 * GRAIN_PX
    return found[1:], covariance[1:, 1:], float(values[keep].mean())
