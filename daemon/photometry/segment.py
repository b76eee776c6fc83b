"""Outlining bright objects on a flat dark ground: one label each, drawn where the un-blurred edge was.

All functions take `signal`, (H, W) float, background near zero and objects positive, and labels, (H, W) int32 with 0
for none. Blur is Gaussian, `sigma_px`.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.stats import ncx2, norm
from skimage.measure import label as label_equal
from skimage.segmentation import watershed

EIGHT = np.ones((3, 3), bool)
SAME_BRIGHTNESS = 0.7  # a dip to less than this share of the dimmer peak parts two objects
SAME_WIDTH = 0.8  # a neck narrower than this share of the smaller body parts two particles
MOST_SHARPENED = 1.2  # px**2: beyond, noise grows faster than necks do
SMALLEST_BODY = 0.4  # of the larger body's half width: less is a corner of one irregular particle
LEAST_LEVEL = 0.25  # lowest share of the plateau that an outline is drawn at, for objects as small as the blur
DIFFERENCE_BLUR = 0.28  # px**2, of a central difference: 1/3 along its axis, averaged over an edge's directions
PLATEAU_QUANTILE = 0.9  # of an object's pixels: free of the blurred rim, and of a few hot pixels


def outline(signal: np.ndarray, found: np.ndarray, sigma_px: float) -> np.ndarray:
    """Labels of the objects in the mask `found`, cut where brightness dips, each drawn at its own half maximum."""
    objects = basins(signal, found, SAME_BRIGHTNESS)
    return draw_outlines(signal, objects, sigma_px)


def split_touching(
    signal: np.ndarray, labels: np.ndarray, found: np.ndarray, sigma_px: float, min_area_px: int
) -> np.ndarray:
    """Cut labels at narrow necks, then draw each part again at its own half maximum."""
    parts = _bodies(signal, labels, sigma_px)
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        pieces = cut_necks(np.pad(parts[box] == i, 1), min_area_px)[1:-1, 1:-1]
        parts[box][(parts[box] == i) & (pieces != 1)] = 0
        extra = pieces > 1
        parts[box][extra] = parts.max() + pieces[extra] - 1
    if parts.max() == labels.max():
        return labels
    flooded = watershed(-signal, parts, mask=found | (parts > 0), connectivity=2)
    return draw_outlines(signal, flooded.astype(np.int32), sigma_px)


def _bodies(signal: np.ndarray, labels: np.ndarray, sigma_px: float) -> np.ndarray:
    """`labels` without what only blur joined to them: the half maximum of the image sharpened to first order."""
    sharp = signal - min(sigma_px**2 / 2, MOST_SHARPENED) * ndimage.laplace(signal)
    bodies = _without_holes(np.where(sharp > 0.5 * plateaus(signal, labels)[labels], labels, 0))
    lost = np.bincount(bodies.ravel(), minlength=labels.max() + 1) == 0
    return np.where(lost[labels], labels, bodies)


def cut_necks(body: np.ndarray, min_area_px: int) -> np.ndarray:
    """Pieces 1..N of one mask, parted at necks, crumbs left out; its outermost pixels must be outside."""
    width = ndimage.distance_transform_edt(body)
    smallest = max(SMALLEST_BODY * width.max(), 0.7 * np.sqrt(min_area_px / np.pi))
    pieces = basins(width, body, SAME_WIDTH, smallest)
    thickest = ndimage.maximum(width, pieces, np.arange(pieces.max() + 1))
    kept = thickest >= min(smallest, width.max())
    kept[0] = False
    return _renumber(np.where(kept[pieces], pieces, 0))


def basins(height: np.ndarray, mask: np.ndarray, ratio: float, least_peak: float = 0.0) -> np.ndarray:
    """Label the peaks of `height` within `mask` with all that drains to them, 1..N.

    Peaks are parted only by a saddle lower than `ratio` times the lower of them; peaks under `least_peak` join a
    neighbour always.
    """
    tops = mask & (height == ndimage.maximum_filter(height, footprint=EIGHT))
    markers, count = ndimage.label(tops, EIGHT)
    if count < 2:
        return label_equal(mask, connectivity=2).astype(np.int32) if count else np.zeros(mask.shape, np.int32)
    drained = watershed(-height, markers, mask=mask, connectivity=2)
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, drained.ravel(), height.ravel())
    roots = _merge(peaks, _saddles(height, drained), ratio, least_peak)
    return _renumber(roots[drained])


def _saddles(height: np.ndarray, labels: np.ndarray) -> list[tuple[float, int, int]]:
    """(height, label, label) of the highest pass between each two adjacent labels, highest first."""
    passes: list[np.ndarray] = []
    for here, there in _neighbour_views(labels.shape):
        a, b = labels[here], labels[there]
        meet = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a, b)[meet], np.maximum(a, b)[meet]
        passes.append(np.stack([np.minimum(height[here], height[there])[meet], low, high]))
    found = np.concatenate(passes, axis=1)
    found = found[:, np.argsort(-found[0], kind="stable")]
    _, first = np.unique(found[1:], axis=1, return_index=True)
    return [(float(h), int(a), int(b)) for h, a, b in found[:, np.sort(first)].T]


def _neighbour_views(shape: tuple[int, ...]) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of views that put each pixel beside its right, lower and two lower diagonal neighbours."""
    rows, columns = shape
    up, down, left, right = slice(0, rows - 1), slice(1, rows), slice(0, columns - 1), slice(1, columns)
    everything = slice(None)
    return [
        ((everything, left), (everything, right)),
        ((up, everything), (down, everything)),
        ((up, left), (down, right)),
        ((up, right), (down, left)),
    ]


def _merge(peaks: np.ndarray, saddles: list[tuple[float, int, int]], ratio: float, least_peak: float) -> np.ndarray:
    """The label each label ends up in: from the highest pass down, the lower peak joins unless it stands out."""
    parent = np.arange(len(peaks))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for height, a, b in saddles:
        low, high = sorted((root(a), root(b)), key=lambda i: peaks[i])
        if low != high and (height > ratio * peaks[low] or peaks[low] < least_peak):
            parent[low] = high
    return np.array([root(i) for i in range(len(peaks))])


def _renumber(labels: np.ndarray) -> np.ndarray:
    """The same labels as 1..N without gaps."""
    used = np.bincount(labels.ravel()) > 0
    used[0] = False
    return np.where(used, np.cumsum(used), 0)[labels].astype(np.int32)


def draw_outlines(signal: np.ndarray, objects: np.ndarray, sigma_px: float) -> np.ndarray:
    """Shrink each label of `objects` to its outline: one piece, no holes, the area of the un-blurred object."""
    plateau = plateaus(signal, objects)
    core = _one_piece_each(np.where(signal > 0.5 * plateau[objects], objects, 0))
    share = _edge_share(np.bincount(core.ravel(), minlength=len(plateau)), sigma_px)
    drawn = np.where((signal > (share * plateau)[objects]) & (objects > 0), objects, 0)
    drawn[~ndimage.binary_opening(drawn > 0)] = 0
    return _renumber(_without_holes(_one_piece_each(drawn)))


def _edge_share(area_px: np.ndarray, sigma_px: float) -> np.ndarray:
    """Share of its plateau that an object has at its un-blurred edge, from its area at half the plateau.

    Below 1/2: blur moves the half-maximum contour of any closed shape inwards by pi sigma**2 in area. A disc of radius
    r has ``P(chi'2(2, (x / sigma)**2) < (r / sigma)**2)`` at distance x from its centre.
    """
    if sigma_px <= 0:
        return np.full(len(area_px), 0.5)
    radius = (area_px + np.pi * sigma_px**2) / (np.pi * sigma_px**2)  # squared, in sigma squared
    top = ncx2.cdf(radius, 2, (1 - PLATEAU_QUANTILE) * radius)
    return np.maximum(ncx2.cdf(radius, 2, radius) / top, LEAST_LEVEL)


def plateaus(signal: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Level of each label's flat top, index 0 (no label) infinite."""
    count = int(objects.max()) + 1
    highest = np.zeros(count)
    np.maximum.at(highest, objects.ravel(), signal.ravel())
    upper = (objects > 0) & (signal > 0.5 * highest[objects])
    levels = quantile_of_labels(signal[upper], objects[upper], count, PLATEAU_QUANTILE)
    levels[0] = np.inf
    return levels


def quantile_of_labels(values: np.ndarray, labels: np.ndarray, count: int, quantile: float) -> np.ndarray:
    """(count,) quantile of the values under each label 0..count-1; NaN for a label without values."""
    order = np.lexsort((values, labels))
    sizes = np.bincount(labels, minlength=count)
    starts = np.cumsum(sizes) - sizes
    at = starts + np.floor(quantile * np.maximum(sizes - 1, 0)).astype(int)
    result = np.full(count, np.nan)
    result[sizes > 0] = values[order][at[sizes > 0]]
    return result


def _one_piece_each(labels: np.ndarray) -> np.ndarray:
    """Only the largest connected piece of each label."""
    pieces = label_equal(labels, background=0, connectivity=1)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    owner = np.zeros(len(sizes), np.int64)
    owner[pieces.ravel()] = labels.ravel()
    order = np.lexsort((sizes, owner))
    largest = order[np.append(owner[order][1:] != owner[order][:-1], True)]
    kept = np.zeros(len(sizes), bool)
    kept[largest] = True
    kept[0] = False
    return np.where(kept[pieces], labels, 0)


def _without_holes(labels: np.ndarray) -> np.ndarray:
    """Holes that a single label encloses become part of it; what several enclose together stays open."""
    holes, count = ndimage.label(ndimage.binary_fill_holes(labels > 0) & (labels == 0))
    if not count:
        return labels
    around_max = ndimage.grey_dilation(labels, footprint=EIGHT)
    around_min = ndimage.grey_erosion(np.where(labels > 0, labels, labels.max() + 1), footprint=EIGHT)
    index = np.arange(count + 1)
    most = ndimage.maximum(around_max, holes, index)
    least = ndimage.minimum(around_min, holes, index)
    fill = np.where(most == least, most, 0)
    fill[0] = 0
    return np.where(holes > 0, fill[holes], labels).astype(labels.dtype)


def edge_sigma(signal: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(N,) blur of each label's edge in pixels: a Gaussian edge of height h has slope h / sigma phi(Phi^-1(u)) at u h.

    `objects` should reach beyond the edges (basins rather than outlines). NaN for a label without edge pixels.
    """
    plateau = plateaus(signal, objects)
    share = signal / plateau[objects]
    rim = (objects > 0) & (share > 0.25) & (share < 0.75)
    slope = np.hypot(*np.gradient(signal))[rim]
    steepness = norm.pdf(norm.ppf(share[rim])) * plateau[objects][rim]
    sigma = steepness / np.maximum(slope, np.finfo(float).tiny)
    median = quantile_of_labels(sigma, objects[rim], len(plateau), 0.5)[1:]
    return np.sqrt(np.maximum(median**2 - DIFFERENCE_BLUR, 0.0))
