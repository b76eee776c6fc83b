"""Compiling a run's masks into index lists and weights, once, so that a frame costs a handful of weighted sums.

Sources: the photometry and its variance follow the CCD equation (Merline & Howell 1995); registration is one step of
inverse-variance-weighted Gauss-Newton (Robinson & Milanfar 2004) written as fixed linear functionals, with the gain and
background of every particle projected out so that brightening is not motion; its answer is made exact for shifts up to
about a pixel by the third-order Taylor series of the reference.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from daemon.engine.measures import LAYERS, MaskSet, NoiseModel
from daemon.engine.operator import MARGIN_PX, Operator

GROW_SIGMA = (
    2.0  # the mask grows by this many PSF sigmas: a 33 % wider blur then moves the flux by under half a percent
)
EDGE_PX = 2.0  # width of the soft edge beyond it
RING_GAP_PX = 1.0
RING_WIDTH_PX = 6.0
RING_MARGIN_PX = 6  # rings keep off the frame's edge: a small drift then loses no particle
MIN_RING_PIXELS = 30
MAX_PLANE_PIXELS = 100_000  # the illumination's own noise then adds 1 % to a particle's
MAX_REGISTRATION_PIXELS = 100_000  # the steepest hold most of what is to be known
GRADIENT_SIGMA = 5.0  # gradients below this many noise sigmas only bias the scale of the shift
# eighth-order central difference (taps -4..4): exact to 1e-4 for a PSF of sigma >= 1.2 px
DERIVATIVE = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0.0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])


def compile_operator(
    reference_e: np.ndarray,
    masks: MaskSet,
    noise: NoiseModel,
    reference_frames: int,
    defects: np.ndarray | None = None,
) -> Operator:
    """Build the operator from the (H, W) mean of `reference_frames` frames in electrons and the run's masks.

    `defects` are the camera's bad pixels, already repaired in `reference_e`.
    """
    variance = np.maximum(reference_e, 0.0) + noise.read_noise_e**2 + noise.gain_e_per_dn**2 / 12
    occupied = masks.labels > 0 if masks.excluded is None else (masks.labels > 0) | masks.excluded
    distance = ndimage.distance_transform_edt(~occupied) if occupied.any() else np.full(reference_e.shape, np.inf)
    grow = GROW_SIGMA * masks.psf_sigma_px
    boxes = ndimage.find_objects(masks.labels, max_label=masks.count)
    patches = [_Patch(masks, i, boxes[i], occupied, distance, grow) for i in range(masks.count)]
    segments = _segments(patches, masks.labels.shape[1])
    ring_index, ring_pointer, ring_poor = _rings(patches, masks.labels.shape[1])
    plane = _plane(reference_e, distance, grow)
    shift = _shift(reference_e, variance, patches, reference_frames)
    return Operator(
        shape=np.array(reference_e.shape, np.int64),
        defects=np.empty(0, np.int32) if defects is None else defects,
        noise=np.array([noise.gain_e_per_dn, noise.read_noise_e, noise.dark_dn]),
        ring_index=ring_index,
        ring_pointer=ring_pointer,
        ring_poor=ring_poor,
        box=np.array([patch.box for patch in patches], np.int32).reshape(-1, 4),
        centre_uv=_uv(masks.y_px, masks.x_px, reference_e.shape),
        psf_sigma_px=masks.psf_sigma_px,
        **segments,  # type: ignore[arg-type]
        **plane,  # type: ignore[arg-type]
        **shift,  # type: ignore[arg-type]
    )


def _smooth(fraction: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, without kinks between: a mask's edge must bend by its gradient."""
    t = np.clip(fraction, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _share(others: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """How much of each pixel belongs to this particle: all of it, or, near a neighbour, less across a soft border half
    way between the two, so that the shares of both add up to one.
    """
    if not others.any():
        return np.ones(others.shape)
    here = outside - ndimage.distance_transform_edt(inside)
    there = ndimage.distance_transform_edt(~others) - ndimage.distance_transform_edt(others)
    return _smooth(0.5 + (there - here) / (2.0 * EDGE_PX))


class _Patch:
    """One particle's surroundings: soft mask, layers and ring on a small window."""

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
        labels = masks.labels[self.window]
        inside = labels == i + 1
        outside = ndimage.distance_transform_edt(~inside)
        self.mask = _smooth(1.0 - (outside - grow) / EDGE_PX) * _share(occupied[self.window] & ~inside, inside, outside)
        self.core = inside
        self.layer = _layers(inside)
        near = grow + EDGE_PX + RING_GAP_PX
        free = distance[self.window] > near - 0.5
        self.ring = free & (outside > near) & (outside <= near + RING_WIDTH_PX) & self._interior(height, width)
        self.centre = (float(masks.y_px[i]), float(masks.x_px[i]))
        rows, cols = np.nonzero(ndimage.binary_dilation(self.mask > 0) | self.ring)
        self.box = (rows[0] + self.y0, rows[-1] + self.y0, cols.min() + self.x0, cols.max() + self.x0)

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


def _layers(inside: np.ndarray) -> np.ndarray:
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


def _segments(patches: list[_Patch], width: int) -> dict[str, np.ndarray]:
    """Rim and inner pixels of every layer, particle by particle; see `Operator`."""
    rim, inner, sums = _Entries(5), _Entries(2), []
    for patch in patches:
        gradient_y, gradient_x = np.gradient(patch.mask)
        support = (patch.mask > 0) | (gradient_y != 0) | (gradient_x != 0)
        y, x = np.nonzero(support)
        place = np.stack([y + patch.y0 - patch.centre[0], x + patch.x0 - patch.centre[1]])
        soft = np.stack([patch.mask[support], gradient_y[support], gradient_x[support]])
        index, layer = patch.linear(support, width), patch.layer[support]
        full = (soft[0] == 1.0) & (soft[1] == 0.0) & (soft[2] == 0.0)
        rows = np.concatenate([soft, place])
        rim.add(index[~full], rows[:, ~full], layer[~full])
        inner.add(index[full], place[:, full], layer[full])
        sums.append(_weight_sums(rows, layer))
    return {
        "index": rim.joined_index(),
        "weights": rim.joined_rows(),
        "pointer": rim.pointer(),
        "inner_index": inner.joined_index(),
        "inner_place": inner.joined_rows(),
        "inner_pointer": inner.pointer(),
        "weight_sums": np.concatenate(sums) if sums else np.empty((0, 7)),
    }


class _Entries:
    """Pixels gathered layer by layer."""

    def __init__(self, rows: int) -> None:
        self._index: list[np.ndarray] = [np.empty(0, np.int32)]
        self._rows: list[np.ndarray] = [np.empty((rows, 0), np.float32)]
        self._lengths: list[np.ndarray] = [np.zeros(1, np.int64)]

    def add(self, index: np.ndarray, rows: np.ndarray, layer: np.ndarray) -> None:
        """One particle's pixels, sorted by layer."""
        order = np.argsort(layer, kind="stable")
        self._index.append(index[order])
        self._rows.append(rows[:, order].astype(np.float32))
        self._lengths.append(np.bincount(layer, minlength=len(LAYERS)))

    def joined_index(self) -> np.ndarray:
        return np.concatenate(self._index)

    def joined_rows(self) -> np.ndarray:
        return np.ascontiguousarray(np.concatenate(self._rows, axis=1))

    def pointer(self) -> np.ndarray:
        return np.cumsum(np.concatenate(self._lengths)).astype(np.int32)


def _weight_sums(rows: np.ndarray, layer: np.ndarray) -> np.ndarray:
    w, wy, wx, y, x = rows
    terms = (w, wy, wx, w * w, y * w, x * w, (w > 0.5).astype(float))
    return np.stack([np.bincount(layer, weights=term, minlength=len(LAYERS)) for term in terms], axis=1)


def _rings(patches: list[_Patch], width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rings = [patch.linear(patch.ring, width) for patch in patches]
    counts = np.array([len(ring) for ring in rings], np.int64)
    pointer = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return np.concatenate(rings) if rings else np.empty(0, np.int32), pointer, counts < MIN_RING_PIXELS


def _uv(y: np.ndarray, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Coordinates of the illumination plane: -1 to 1 across the frame."""
    return np.stack([2.0 * y / shape[0] - 1.0, 2.0 * x / shape[1] - 1.0], axis=1)


def _interior(shape: tuple[int, ...]) -> np.ndarray:
    interior = np.zeros(shape, bool)
    interior[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    return interior


def _thin(where: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the True pixels, evenly thinned, as sorted linear indices."""
    index = np.flatnonzero(where)
    step = max(1, -(-len(index) // most))
    return index[::step]


def _plane(reference_e: np.ndarray, distance: np.ndarray, grow: float) -> dict[str, np.ndarray]:
    """Inactive pixels: far enough from every particle that its light, even brightened, does not reach them.

    A crowded scene has no such pixels; then the distance is relaxed to the edge of the grown masks.
    """
    interior = _interior(reference_e.shape)
    for clearance in (grow + EDGE_PX + 3.0, grow + EDGE_PX, grow):
        index = _thin(interior & (distance > clearance), MAX_PLANE_PIXELS)
        if len(index) >= 1000:
            break
    y, x = np.divmod(index, reference_e.shape[1])
    uv = _uv(y, x, reference_e.shape)
    basis = np.column_stack([np.ones(len(index)), uv])
    level = np.maximum(reference_e.reshape(-1)[index], 1e-3).astype(np.float64)
    normal = basis.T @ (basis * level[:, None])
    return {
        "plane_index": index.astype(np.int32),
        "plane_u": uv[:, 0].astype(np.float32),
        "plane_v": uv[:, 1].astype(np.float32),
        "plane_covariance": np.linalg.pinv(normal),
    }


def _derivative(image: np.ndarray, *axes: int) -> np.ndarray:
    for axis in axes:
        image = ndimage.correlate1d(image, DERIVATIVE, axis=axis, mode="nearest")
    return image


def _shift(
    reference_e: np.ndarray, variance: np.ndarray, patches: list[_Patch], reference_frames: int
) -> dict[str, np.ndarray | float]:
    """The registration functionals; see the module's docstring.

    For the scene moved by d, sum A (R - M) equals the Taylor series of sum A (R - R(x - d)) in d whatever gain and
    background each particle has, because A is made orthogonal to both.
    """
    reference = reference_e.astype(np.float64)
    first = [_derivative(reference, 0), _derivative(reference, 1)]
    laplacian = _derivative(reference, 0, 0) + _derivative(reference, 1, 1)
    steep = first[0] ** 2 + first[1] ** 2
    usable = _interior(reference.shape) & (steep > GRADIENT_SIGMA**2 * 1.6 * variance / reference_frames)
    chosen = _steepest(usable, steep / variance, [patch.window for patch in patches])
    index, rows = _functionals(reference, variance, [*first, laplacian], patches, chosen)
    terms = [(0,), (1,), (0, 0), (0, 1), (1, 1), (0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)]
    factors = [1.0, 1.0, -1 / 2, -1.0, -1 / 2, 1 / 6, 1 / 2, 1 / 2, 1 / 6]
    series = np.empty((4, 9))
    for k, (axes, factor) in enumerate(zip(terms, factors, strict=True)):
        series[:, k] = factor * (rows @ _derivative(reference, *axes).reshape(-1)[index])
    inverse = np.linalg.pinv(series[:2, :2])
    noise = (rows[:2] * variance.reshape(-1)[index]) @ rows[:2].T
    curvature = float(rows[2] @ laplacian.reshape(-1)[index])
    return {
        "shift_index": index.astype(np.int32),
        "shift_weights": np.ascontiguousarray(rows, dtype=np.float32),
        "shift_bias": rows @ reference.reshape(-1)[index],
        "shift_series": series,
        "shift_covariance": inverse @ noise @ inverse.T,
        "blur_gain": 2.0 / curvature if curvature > 0 else 0.0,
    }


def _steepest(usable: np.ndarray, information: np.ndarray, windows: list[tuple[slice, slice]]) -> np.ndarray:
    """The pixels near particles that hold most of the information about the shift, at most the allowed number."""
    near = np.zeros(usable.shape, bool)
    for window in windows:
        near[window] = True
    candidates = usable & near
    count = int(candidates.sum())
    if count > MAX_REGISTRATION_PIXELS:
        floor = np.partition(information[candidates], count - MAX_REGISTRATION_PIXELS)[count - MAX_REGISTRATION_PIXELS]
        candidates &= information >= floor
    return candidates


def _functionals(
    reference: np.ndarray,
    variance: np.ndarray,
    targets: list[np.ndarray],
    patches: list[_Patch],
    chosen: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted targets per particle with its own brightness and background projected out; the fourth row is a
    template.
    """
    width = reference.shape[1]
    left = chosen.copy()
    indices, rows = [], []
    for patch in patches:
        where = left[patch.window] & (patch.mask > 0)
        if where.sum() < 8:
            continue
        left[patch.window][where] = False
        w = 1.0 / variance[patch.window][where]
        profile = reference[patch.window][where]
        nuisance = np.column_stack([np.ones(len(profile)), profile - np.average(profile, weights=w)])
        gram = np.linalg.pinv(nuisance.T @ (nuisance * w[:, None]))
        projected = []
        for target in targets:
            t = target[patch.window][where]
            projected.append(w * (t - nuisance @ (gram @ (nuisance.T @ (w * t)))))
        projected.append(w * nuisance[:, 1])
        indices.append(patch.linear(where, width))
        rows.append(np.stack(projected))
    if not indices:
        return np.empty(0, np.int64), np.empty((4, 0))
    index = np.concatenate(indices).astype(np.int64)
    stacked = np.concatenate(rows, axis=1)
    order = np.argsort(index)
    return index[order], stacked[:, order]
