"""Compiling a run's masks into pixels and weights, once, so that a frame costs a handful of weighted sums.

The photometry and its variance follow the CCD equation (Merline & Howell 1995). Masks stand still between whole-pixel
shifts; what smaller drifts and a change of blur do to each sum is its Taylor series over the derivatives of the
reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft, ndimage

from daemon.engine.measures import LAYERS, MaskSet, NoiseModel
from daemon.engine.operator import BLUR_ANCHOR, Operator, ring_donors
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, Patch
from daemon.photometry.registering import Targets, derivative, interior, search_template
from daemon.photometry.spans import Spans, cover, extent, quantise
from kernels.lanes import SPAN_PX
from kernels.photometry import AXIAL_BINS, BEND_Y, DERIVATIVES, MOMENT_Y, SHIFT_Y, SUMS, TERMS

MIN_RING_PIXELS = 30
RING_ENOUGH = 200  # pixels: followed through time, every n-th row of a larger ring tells as much
BLEND_SIGMA = 3.0  # PSF sigmas that a neighbour's light is looked for beyond its outline
LEAST_BLEND = 1e-4
MAX_PLANE_SPANS = 12_500  # the illumination's own noise then adds 1 % to a particle's
LEAST_PLANE_SPANS = 125


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
    patches = [Patch(masks, i, boxes[i], occupied, distance, grow) for i in range(masks.count)]
    terms = _derivatives(reference_e, BLUR_ANCHOR * masks.psf_sigma_px**2)
    targets = Targets.of(reference_e, variance)
    centre_uv = _uv(masks.y_px, masks.x_px, reference_e.shape)
    rings = _rings(patches, reference_e, terms, centre_uv)
    return Operator(
        shape=np.array(reference_e.shape, np.int64),
        defects=np.empty(0, np.int32) if defects is None else defects,
        noise=np.array([noise.gain_e_per_dn, noise.read_noise_e, noise.dark_dn]),
        reference_frames=reference_frames,
        box=np.array([patch.box for patch in patches], np.int32).reshape(-1, 4),
        centre_uv=centre_uv,
        psf_sigma_px=masks.psf_sigma_px,
        **_masks(patches, reference_e, terms, targets, rings["ring_level"]),
        **rings,
        **_blends(patches, masks),
        **_plane(reference_e, terms, distance, grow),
        **search_template(targets.profile, patches),
    )


def _derivatives(reference_e: np.ndarray, anchor_px2: float) -> np.ndarray:
    """(TERMS, H W) float32: the derivatives of the reference that a sum's Taylor series needs.

    The blur's second-order term makes the series exact for blur by `anchor_px2`.
    """
    found: dict[str, np.ndarray] = {"": reference_e.astype(np.float32)}
    for name in DERIVATIVES[:-2]:
        found[name] = derivative(found[name[:-1]], "yx".index(name[-1]))
    found["laplace"] = found["yy"] + found["xx"]
    change = _blurred(found[""], anchor_px2) - found[""]
    found["blur"] = (change - 0.5 * anchor_px2 * found["laplace"]) / anchor_px2**2
    return np.stack([found[name] for name in DERIVATIVES]).reshape(TERMS, -1)


def _blurred(image: np.ndarray, variance_px2: float) -> np.ndarray:
    """The image under a Gaussian of this variance, exact for any scene that the pixels resolve."""
    y, x = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :]
    damping = np.exp(-2.0 * np.pi**2 * variance_px2 * (y * y + x * x)).astype(np.float32)
    blurred: np.ndarray = fft.irfft2(fft.rfft2(image) * damping, image.shape)
    return blurred


def _masks(
    patches: list[Patch], reference_e: np.ndarray, terms: np.ndarray, targets: Targets, level: np.ndarray
) -> dict[str, np.ndarray]:
    """Spans, weights and all that is known of them beforehand; see `Operator`."""
    count, width = len(patches), reference_e.shape[1]
    starts, rows, pointer = [np.empty(0, np.int64)], [np.empty(0, np.int8)], [0]
    firsts: list[int] = []
    lengths = [0]
    known: dict[str, np.ndarray] = {
        "weight_scale": np.ones((count, SUMS)),
        "weight_sums": np.zeros((count, SUMS)),
        "taylor": np.zeros((count, TERMS, SHIFT_Y), np.float32),
        "shift_taylor": np.zeros((count, TERMS, SUMS - SHIFT_Y), np.float32),
        "reference_flux": np.zeros(count),
        "reference_bend": np.zeros((count, 2)),
        "reference_shift": np.zeros((count, SUMS - SHIFT_Y)),
        "shift_noise": np.zeros((count, 2, 2)),
        "layer_noise": np.zeros((count, len(LAYERS), 2)),
    }
    flat = reference_e.reshape(-1).astype(np.float64)
    telling = targets.telling(patches)
    for p, patch in enumerate(patches):
        spans = cover(patch.mask > 0, patch.y0, patch.x0, width).sorted_along(patch.along)
        nothing = np.zeros((SUMS - SHIFT_Y, *patch.mask.shape))
        planes = [*_planes(patch), *(targets.planes(patch) if telling[p] else nothing)]
        weights, scale = quantise(np.stack([spans.take(plane) for plane in planes]), MOMENT_Y)
        starts.append(spans.start)
        for row in weights:
            first, last = extent(row)
            rows.append(row[first:last])
            firsts.append(pointer[-1] + first)
            lengths.append(last - first)
        pointer.append(pointer[-1] + SPAN_PX * len(spans.start))
        real = weights * scale[:, None]
        known["weight_scale"][p], known["weight_sums"][p] = scale, real.sum(axis=1)
        series = terms[:, spans.index] @ real.T
        known["taylor"][p], known["shift_taylor"][p] = series[:, :SHIFT_Y], series[:, SHIFT_Y:]
        light = real @ flat[spans.index]
        net = light - level[p] * real.sum(axis=1)
        known["reference_flux"][p] = net[:AXIAL_BINS].sum()
        known["reference_bend"][p], known["reference_shift"][p] = net[BEND_Y:SHIFT_Y], net[SHIFT_Y:]
        drift = real[SHIFT_Y : SHIFT_Y + 2]
        known["shift_noise"][p] = (drift * targets.variance.reshape(-1)[spans.index]) @ drift.T
        known["layer_noise"][p] = _layer_noise(patch, spans, real, flat[spans.index])
    return {
        "mask_span": np.concatenate(starts).astype(np.int32),
        "mask_pointer": np.array(pointer, np.int32),
        "weights": np.concatenate(rows),
        "weight_first": np.array(firsts, np.int32),
        "weight_pointer": np.cumsum(lengths).astype(np.int32),
        **known,
    }


def _planes(patch: Patch) -> list[np.ndarray]:
    """The weights of each sum on the patch's window, in the order of `kernels.photometry`."""
    y = np.arange(patch.mask.shape[0])[:, None] + patch.y0 - patch.centre[0]
    x = np.arange(patch.mask.shape[1])[None, :] + patch.x0 - patch.centre[1]
    axial = [patch.mask * (patch.axial == k) for k in range(AXIAL_BINS)]
    inner = [patch.mask * (patch.layer == k) for k in range(1, len(LAYERS))]
    return [*axial, *inner, patch.mask * y, patch.mask * x, *np.gradient(patch.mask)]


def _layer_noise(patch: Patch, spans: Spans, real: np.ndarray, light: np.ndarray) -> np.ndarray:
    """(4, 2): sum(m**2 e) / sum(m e) and sum(m**2) of each layer."""
    mask, layer = real[:AXIAL_BINS].sum(axis=0), spans.take(patch.layer)
    found = np.zeros((len(LAYERS), 2))
    for k in range(len(LAYERS)):
        m, e = mask[layer == k], np.maximum(light[layer == k], 0.0)
        found[k] = (m * m * e).sum() / max((m * e).sum(), 1e-9), (m * m).sum()
    return found


def _blends(patches: list[Patch], masks: MaskSet) -> dict[str, np.ndarray]:
    """How much of a close neighbour's light, blurred by the PSF, falls into each mask."""
    area = np.maximum(np.bincount(masks.labels.reshape(-1), minlength=masks.count + 1), 1)
    pointer, index, share = [0], [], []
    for p, patch in enumerate(patches):
        labels = masks.labels[patch.window]
        near = ndimage.binary_dilation(patch.mask > 0, iterations=int(np.ceil(BLEND_SIGMA * masks.psf_sigma_px)))
        for label in np.unique(labels[near]):
            if label in (0, p + 1):
                continue
            light = ndimage.gaussian_filter((labels == label).astype(np.float32), masks.psf_sigma_px, mode="constant")
            part = float((patch.mask * light).sum()) / area[label]
            if part > LEAST_BLEND:
                index.append(label - 1)
                share.append(part)
        pointer.append(len(index))
    return {
        "blend_pointer": np.array(pointer, np.int32),
        "blend_index": np.array(index, np.int32),
        "blend_share": np.array(share, np.float32),
    }


def _rings(
    patches: list[Patch], reference_e: np.ndarray, terms: np.ndarray, centre_uv: np.ndarray
) -> dict[str, np.ndarray]:
    starts, weights, pointer = [np.empty(0, np.int64)], [np.empty(0, np.int8)], [0]
    counts = np.zeros(len(patches), np.int64)
    taylor, level = np.zeros((len(patches), TERMS), np.float32), np.zeros(len(patches))
    flat = reference_e.reshape(-1)
    for p, patch in enumerate(patches):
        ring = patch.ring.copy()
        every = max(int(ring.sum()) // RING_ENOUGH, 1)
        ring[np.arange(len(ring)) % every > 0] = False
        spans = [cover(part, patch.y0, patch.x0, reference_e.shape[1]) for part in _halves(ring)]
        start = np.concatenate([part.start for part in spans])
        own = np.concatenate([part.take(half) for part, half in zip(spans, _halves(ring), strict=True)])
        index = np.concatenate([part.index for part in spans])[own > 0]
        starts.append(start)
        weights.append(own.astype(np.int8))
        pointer.append(pointer[-1] + SPAN_PX * len(start))
        counts[p] = len(index)
        if len(index):
            taylor[p], level[p] = terms[:, index].mean(axis=1), flat[index].mean(dtype=np.float64)
    poor = counts < MIN_RING_PIXELS
    for particle, donors in ring_donors(poor, centre_uv):
        level[particle] = level[donors].mean() if len(donors) else 0.0
    return {
        "ring_span": np.concatenate(starts).astype(np.int32),
        "ring_pointer": np.array(pointer, np.int32),
        "ring_weights": np.concatenate(weights),
        "ring_count": counts,
        "ring_taylor": taylor,
        "ring_level": level,
        "ring_poor": poor,
    }


def _halves(ring: np.ndarray) -> list[np.ndarray]:
    """The ring's left and right half: a row's spans then cover its two arcs and not what lies between."""
    middle = ring.shape[1] // 2
    left, right = ring.copy(), ring.copy()
    left[:, middle:] = False
    right[:, :middle] = False
    return [left, right]


def _uv(y: np.ndarray, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Coordinates of the illumination plane: -1 to 1 across the frame."""
    return np.stack([2.0 * y / shape[0] - 1.0, 2.0 * x / shape[1] - 1.0], axis=1)


def _plane(reference_e: np.ndarray, terms: np.ndarray, distance: np.ndarray, grow: float) -> dict[str, Any]:
    """Inactive pixels: far enough from every particle that its light, even brightened, does not reach them.

    A crowded scene has no such pixels; then the distance is relaxed to the edge of the grown masks.
    """
    height, width = reference_e.shape
    whole = width // SPAN_PX * SPAN_PX
    inside = interior(reference_e.shape)
    free = np.empty(0, np.int64)
    for clearance in (grow + EDGE_PX + 3.0, grow + EDGE_PX, grow):
        inactive = inside & (distance > clearance)
        free = np.flatnonzero(inactive[:, :whole].reshape(height, -1, SPAN_PX).all(axis=2))
        if len(free) >= LEAST_PLANE_SPANS:
            break
    free = free[:: max(1, -(-len(free) // MAX_PLANE_SPANS))]
    y, x = np.divmod(free, whole // SPAN_PX)
    x = x * SPAN_PX
    pixels = (y * width + x)[:, None] + np.arange(SPAN_PX)
    level = np.maximum(reference_e.reshape(-1)[pixels], 1e-3).astype(np.float64)
    uv = _uv(y, x + (SPAN_PX - 1) / 2, reference_e.shape)
    basis = np.column_stack([np.ones(len(free)), uv])
    exact = np.stack([level.sum(axis=1), level.sum(axis=1) * uv[:, 0], (level * _v_of(x, width)).sum(axis=1)], axis=1)
    return {
        "plane_span": (y * width + x).astype(np.int32),
        "plane_u": uv[:, 0].astype(np.float32),
        "plane_v": uv[:, 1].astype(np.float32),
        "plane_basis": basis.sum(axis=0),
        "plane_taylor": basis.T @ terms[:, pixels].sum(axis=2).T.astype(np.float64),
        "plane_covariance": np.linalg.pinv(basis.T @ exact),
    }


def _v_of(x: np.ndarray, width: int) -> np.ndarray:
    """(L, 8) column coordinate of each pixel of the spans."""
    return 2.0 * (x[:, None] + np.arange(SPAN_PX)) / width - 1.0
