"""One particle's surroundings on a small window: soft mask, layers, axial bins and ring."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from daemon.engine.measures import LAYERS, MaskSet
from kernels.photometry import AXIAL_BINS

GROW_SIGMA = 2.0  # the mask grows by this many PSF sigmas: what blur does to the flux is then small and well known
EDGE_PX = 2.0  # width of the soft edge beyond it
RING_GAP_PX = 1.0
RING_WIDTH_PX = 6.0
RING_MARGIN_PX = 6  # rings keep off the frame's edge: a small drift then loses no particle


def smooth_step(fraction: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, without kinks between: a mask's edge must bend by its gradient."""
    t = np.clip(fraction, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


class Patch:
    """Particle `i` of `masks`. `occupied` (H, W) bool is anybody's light, `distance` (H, W) px to the nearest of it.

    `mask`, `layer`, `along`, `axial` and `ring` cover `window` of the frame, whose first pixel is (`y0`, `x0`).
    """

    def __init__(
        self,
        masks: MaskSet,
        i: int,
        box: tuple[slice, slice],
        occupied: np.ndarray,
        distance: np.ndarray,
        grow: float,
    ) -> None:
        height, width = masks.labels.shape
        reach = int(np.ceil(grow + EDGE_PX + RING_GAP_PX + RING_WIDTH_PX)) + 2
        self.y0, self.x0 = max(box[0].start - reach, 0), max(box[1].start - reach, 0)
        self.window = (
            slice(self.y0, min(box[0].stop + reach, height)),
            slice(self.x0, min(box[1].stop + reach, width)),
        )
        inside = masks.labels[self.window] == i + 1
        outside = ndimage.distance_transform_edt(~inside)
        self.mask = smooth_step(1.0 - (outside - grow) / EDGE_PX)
        self.mask *= _share(occupied[self.window] & ~inside, inside)
        self.layer = layers(inside)
        self.centre = (float(masks.y_px[i]), float(masks.x_px[i]))
        self.along = along_axis(inside)
        self.axial = axial_bins(inside, self.along)
        near = grow + EDGE_PX + RING_GAP_PX
        free = distance[self.window] > near - 0.5
        self.ring = free & (outside > near) & (outside <= near + RING_WIDTH_PX) & self._interior(height, width)
        rows, columns = np.nonzero(ndimage.binary_dilation(self.mask > 0) | self.ring)
        self.box = (rows[0] + self.y0, rows[-1] + self.y0, columns.min() + self.x0, columns.max() + self.x0)

    def _interior(self, height: int, width: int) -> np.ndarray:
        """Where the window's pixels stay in the frame while the scene drifts a little."""
        y = np.arange(self.window[0].start, self.window[0].stop)
        x = np.arange(self.window[1].start, self.window[1].stop)
        inside_y = (y >= RING_MARGIN_PX) & (y < height - RING_MARGIN_PX)
        inside_x = (x >= RING_MARGIN_PX) & (x < width - RING_MARGIN_PX)
        return inside_y[:, None] & inside_x[None, :]

    def linear(self, where: np.ndarray, width: int) -> np.ndarray:
        """Linear frame indices of the window's True pixels."""
        y, x = np.nonzero(where)
        return ((y + self.y0) * width + x + self.x0).astype(np.int32)


def _share(others: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How much of each pixel belongs to this particle: all of it, or, near a neighbour, less across a soft border half
    way between the two, so that the shares of both add up to one.
    """
    if not others.any():
        return np.ones(others.shape)
    return smooth_step(0.5 + (_signed(others) - _signed(inside)) / (2.0 * EDGE_PX))


def _signed(body: np.ndarray) -> np.ndarray:
    """Distance of each pixel's centre from the outline, px, negative inside; half a pixel for those beside it."""
    return np.where(body, 0.5 - ndimage.distance_transform_edt(body), ndimage.distance_transform_edt(~body) - 0.5)


def layers(inside: np.ndarray) -> np.ndarray:
    """Layer number 0 (surface) to 3 (core) of each pixel: quartiles by area of the distance to the particle's edge.

    Pixels of the grown skirt belong to the surface layer, whose light the optics spread there.
    """
    depth = ndimage.distance_transform_edt(inside)
    y, x = np.nonzero(inside)
    # ties of the distance are broken by position, so that the quarters are equal to a pixel
    order = np.lexsort((x, y, depth[inside]))
    layer = np.zeros(inside.shape, np.int8)
    layer[y[order], x[order]] = np.arange(len(order)) * len(LAYERS) // max(len(order), 1)
    return layer


def along_axis(inside: np.ndarray) -> np.ndarray:
    """Each pixel's coordinate along the major axis of the True ones, px from their centre.

    The axis points down the image, or to the right when it is level.
    """
    y, x = np.nonzero(inside)
    if not len(y):
        return np.zeros(inside.shape)
    places = np.stack([y, x]) - np.array([[y.mean()], [x.mean()]])
    _, vectors = np.linalg.eigh(places @ places.T)
    down, right = vectors[:, 1]
    sign = 1.0 if down > 1e-9 or (abs(down) <= 1e-9 and right > 0) else -1.0
    rows, columns = np.arange(inside.shape[0])[:, None], np.arange(inside.shape[1])[None, :]
    return sign * (down * (rows - y.mean()) + right * (columns - x.mean()))


def axial_bins(inside: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Bin number 0 to 7 of each pixel by its coordinate `along` the major axis: eighths of the area of `inside`.

    Pixels of the skirt belong to the bin they lie beside.
    """
    own = np.sort(along[inside])
    edges = own[(np.arange(1, AXIAL_BINS) * len(own)) // AXIAL_BINS] if len(own) else np.empty(0)
    return np.searchsorted(edges, along, side="right").astype(np.int8)
