"""What other libraries take for flux and ring alone, each written as its users would for speed.

Every function takes an (H, W) frame and returns background-subtracted sums of all particles, (P,). Frames of the type
that a library wants, masks, rings and index lists are made beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import scipy.sparse
from scipy import ndimage

from tests.scenes import PoissonScene

GROW_PX = 3.0  # as wide as ours reaches at half weight
RING_PX = (5.0, 8.0)  # beyond the outline
Peer = Callable[[np.ndarray], np.ndarray]


def regions(scene: PoissonScene) -> tuple[np.ndarray, list[np.ndarray]]:
    """(H, W) int32 labels grown by `GROW_PX`, and the flat ring pixels of each particle."""
    labels = scene.labels()
    distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    owner = labels[tuple(nearest)]
    grown = np.where(distance <= GROW_PX, owner, 0).astype(np.int32)
    ring = np.where((distance > RING_PX[0]) & (distance <= RING_PX[1]), owner, 0).reshape(-1)
    order = np.argsort(ring, kind="stable")
    starts = np.searchsorted(ring[order], np.arange(1, scene.count + 2))
    return grown, [order[a:b] for a, b in pairwise(starts)]


def scipy_sparse(scene: PoissonScene) -> Peer:
    """One sparse product: mask minus area times ring mean, a row a particle."""
    grown, rings = regions(scene)
    flat = grown.reshape(-1)
    index = np.flatnonzero(flat)
    rows, columns, values = [flat[index] - 1], [index], [np.ones(len(index), np.float32)]
    area = np.bincount(flat, minlength=scene.count + 1)[1:]
    for p, ring in enumerate(rings):
        rows.append(np.full(len(ring), p))
        columns.append(ring)
        values.append(np.full(len(ring), -area[p] / max(len(ring), 1), np.float32))
    shape = (scene.count, flat.size)
    matrix = scipy.sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape
    )
    matrix.sort_indices()
    return lambda frame: matrix @ frame.reshape(-1)


def sep(scene: PoissonScene) -> Peer:
    """SEP's circular apertures with an annulus for the background."""
    import sep as library

    y, x, r = scene.y_px, scene.x_px, scene.radii_px + GROW_PX
    annulus = (r + RING_PX[0] - GROW_PX, r + RING_PX[1] - GROW_PX)
    return lambda frame: library.sum_circle(frame, x, y, r, bkgann=annulus, subpix=1)[0]


def photutils(scene: PoissonScene) -> Peer:
    """photutils' aperture sums and annulus means, one aperture list a radius class (its apertures share a radius)."""
    from photutils.aperture import CircularAnnulus, CircularAperture

    classes = np.round(scene.radii_px).astype(int)
    work = []
    for radius in np.unique(classes):
        which = np.flatnonzero(classes == radius)
        places = np.column_stack([scene.x_px, scene.y_px])[which]
        mask = CircularAperture(places, radius + GROW_PX)
        ring = CircularAnnulus(places, radius + RING_PX[0], radius + RING_PX[1])
        work.append((which, mask, ring))

    def measure(frame: np.ndarray) -> np.ndarray:
        out = np.empty(scene.count)
        for which, mask, ring in work:
            sums = mask.do_photometry(frame, method="center")[0]
            background = ring.do_photometry(frame, method="center")[0] / ring.area
            out[which] = sums - background * mask.area
        return out

    return measure


def scikit_image(scene: PoissonScene) -> Peer:
    """regionprops_table over labels of masks and of rings."""
    from skimage.measure import regionprops_table

    grown, rings = regions(scene)
    ring_labels = np.zeros(grown.size, np.int32)
    for p, ring in enumerate(rings):
        ring_labels[ring] = p + 1
    ring_image = ring_labels.reshape(grown.shape)

    def measure(frame: np.ndarray) -> np.ndarray:
        mask = regionprops_table(grown, frame, properties=("label", "area", "mean_intensity"))
        ring = regionprops_table(ring_image, frame, properties=("label", "mean_intensity"))
        level = np.full(scene.count + 1, np.nan)
        level[ring["label"]] = ring["mean_intensity"]
        return mask["area"] * (mask["mean_intensity"] - level[mask["label"]])

    return measure


def opencv(scene: PoissonScene) -> Peer:
    """cv2.mean under each particle's mask and ring, on windows."""
    import cv2

    grown, rings = regions(scene)
    height, width = grown.shape
    windows = []
    for p, ring in enumerate(rings):
        y, x = np.divmod(np.concatenate([np.flatnonzero(grown.reshape(-1) == p + 1), ring]), width)
        window = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
        mask = np.ascontiguousarray((grown[window] == p + 1).astype(np.uint8))
        around = np.zeros(height * width, np.uint8)
        around[ring] = 1
        windows.append((window, mask, np.ascontiguousarray(around.reshape(height, width)[window]), int(mask.sum())))

    def measure(frame: np.ndarray) -> np.ndarray:
        out = np.empty(scene.count)
        for p, (window, mask, ring, area) in enumerate(windows):
            cut = frame[window]
            out[p] = area * (cv2.mean(cut, mask)[0] - cv2.mean(cut, ring)[0])
        return out

    return measure


PEERS: dict[str, tuple[Callable[[PoissonScene], Peer], type]] = {
    "SEP, sum_circle with bkgann": (sep, np.float32),
    "photutils, apertures and annuli": (photutils, np.float64),
    "scipy.sparse, one product": (scipy_sparse, np.float32),
    "scikit-image, regionprops_table": (scikit_image, np.uint16),
    "OpenCV, mean under masks": (opencv, np.uint16),
}
"""Name -> (how it is made, the type of frame it is given)."""
