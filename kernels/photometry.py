"""From a frame's sums to fluxes: background, drift and blur taken off, variances beside every value.

A particle's sums are taken with weights that stand still. What a small drift and a change of blur do to them follows
from the Taylor series of the reference scene, times the particle's present brightness; what the drift does to the total
also from sums with the mask's own gradient, whatever the particle has become.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.background import LEVEL, VARIANCE
from kernels.jit import JIT
from kernels.lanes import combine

AXIAL_BINS = 8
OUTER, INNER, CORE, MOMENT_Y, MOMENT_X, BEND_Y, BEND_X = range(AXIAL_BINS, AXIAL_BINS + 7)
SHIFT_Y, SHIFT_X, BLUR, TEMPLATE = range(AXIAL_BINS + 7, AXIAL_BINS + 11)
SUMS = AXIAL_BINS + 11
"""Columns of a particle's sums: soft mask by axial bin (together the total), three inner layers, first moments,
gradient of the soft mask, and what tells drift, blur and likeness to the reference."""
DERIVATIVES = ("y", "x", "yy", "yx", "xx", "yyy", "yyx", "yxx", "xxx", "laplace", "blur")
TERMS = len(DERIVATIVES)
"""Derivatives of the reference scene that a Taylor series is made of, and what blur does to it beyond its Laplacian."""
FLUX, SIGMA, LAYER, LAYER_SIGMA, AXIAL, CENTROID_Y, CENTROID_X = 0, 1, 2, 6, 10, 18, 19
MEASURES = 20
"""Columns of a particle's measures: four layers from the surface inwards from LAYER and LAYER_SIGMA on."""
LEAST_LIGHT = 0.01  # of the reference's: less is stray light, or an error of the dark level
LEAST_BRIGHTNESS, MOST_BRIGHTNESS = 0.1, 10.0  # of the reference's: beyond, its Taylor series says nothing


@njit(**JIT)
def monomials(dy: float, dx: float, blur: float, out: np.ndarray) -> None:
    """What each derivative counts for in a scene moved by (dy, dx) px with `blur` px**2 more of the PSF's variance.

    `out` is (TERMS,) float32: the third-order Taylor series of ``R(x - d)``, and ``b/2 laplace + b**2 blur`` for
    blur by variance b, which multiplies the spectrum by ``exp(-b k**2 / 2)``.
    """
    out[0], out[1] = -dy, -dx
    out[2], out[3], out[4] = 0.5 * dy * dy, dy * dx, 0.5 * dx * dx
    # a blurred scene's gradient is that of the sharp one and half of the blur times its Laplacian's
    out[5], out[6] = -dy * (dy * dy / 6.0 + 0.5 * blur), -dx * (0.5 * dy * dy + 0.5 * blur)
    out[7], out[8] = -dy * (0.5 * dx * dx + 0.5 * blur), -dx * (dx * dx / 6.0 + 0.5 * blur)
    out[9], out[10] = 0.5 * blur, blur * blur


@njit(**JIT)
def changes(taylor: np.ndarray, p: int, moved: np.ndarray, out: np.ndarray) -> None:
    """What drift and blur add to particle p's sums, whose weights summed over the derivatives of the reference are
    ``taylor[p]``.

    `taylor` is (P, TERMS, SHIFT_Y) float32, `moved` the `monomials`, `out` (SHIFT_Y,) float32.
    """
    stride = taylor.shape[2]
    combine(  # type: ignore[call-arg]
        taylor, np.uint64(p * TERMS * stride), np.uint64(stride), np.uint64(SHIFT_Y), moved, out
    )


@njit(**JIT)
def fluxes(
    sums: np.ndarray,
    dark_sums: np.ndarray,
    scale: np.ndarray,
    weight_sums: np.ndarray,
    taylor: np.ndarray,
    reference_flux: np.ndarray,
    reference_bend: np.ndarray,
    layer_noise: np.ndarray,
    calibration: np.ndarray,
    drift: np.ndarray,
    moved: np.ndarray,
    gain: np.ndarray,
    gain_variance: np.ndarray,
    background: np.ndarray,
    valid: np.ndarray,
    out: np.ndarray,
) -> None:
    """Measures of P particles into `out` (P, MEASURES) float32; NaN where not `valid` (P,) bool.

    `sums` (P, SUMS) int64 of counts, `scale` (P, SUMS) makes weights of the integers; `dark_sums` (P, SUMS) counts that
    the dark level adds, and `weight_sums` (P, SUMS), both of the real weights; `taylor` (P, TERMS, SHIFT_Y) float32
    electrons. Of the reference: `reference_flux` (P,), `reference_bend` (P, 2), the sums
    with the mask's gradient without background, and `layer_noise` (P, 4, 2): sum(m**2 e) / sum(m e) and sum(m**2).
    `calibration` (2,): electrons a count, variance a pixel beside photons (e**2). `drift`
    (2,): y, x in px; `moved` (TERMS,): `monomials` of drift and blur. `gain` (P,): illumination relative to the
    reference, and its variance. `background` (P, STATES): the state of `kernels.background`, electrons a pixel under
    the reference's illumination.
    """
    unit, floor = calibration[0], calibration[1]
    dy, dx = drift[0], drift[1]
    net, change = np.empty(SHIFT_Y), np.empty(SHIFT_Y, np.float32)
    for p in range(sums.shape[0]):
        if not valid[p]:
            out[p, :] = np.nan
            continue
        per_gain, b = unit / gain[p], background[p, LEVEL]
        for k in range(SHIFT_Y):
            net[k] = per_gain * (scale[p, k] * sums[p, k] - dark_sums[p, k]) - b * weight_sums[p, k]
        changes(taylor, p, moved, change)
        flux = -dy * net[BEND_Y] - dx * net[BEND_X]
        for k in range(AXIAL_BINS):
            flux += net[k]
        brightness = flux / reference_flux[p]
        # a particle that turned from bright to dark, or one that was nothing at first: no series for those
        if not (brightness > LEAST_BRIGHTNESS and brightness < MOST_BRIGHTNESS):
            brightness = 0.0
        flux -= brightness * _total_change(p, taylor, reference_bend, change, moved[9], dy, dx)
        for k in range(BEND_Y):
            net[k] -= brightness * change[k]
        for k in range(AXIAL_BINS):
            out[p, AXIAL + k] = net[k]
        out[p, FLUX] = flux
        out[p, LAYER] = flux - net[OUTER] - net[INNER] - net[CORE]
        for j in range(3):
            out[p, LAYER + 1 + j] = net[OUTER + j]
        out[p, CENTROID_Y] = net[MOMENT_Y] / flux
        out[p, CENTROID_X] = net[MOMENT_X] / flux
        variance, area = _layer_sigmas(
            p, weight_sums, layer_noise, floor, gain[p], b, background[p, VARIANCE], dy, dx, out
        )
        # a wrong illumination is taken for the particle's and the background's light alike: the latter is followed
        # over many frames
        light = flux + b * area
        out[p, SIGMA] = np.sqrt(np.float32(variance + light * light * gain_variance[p]))


@njit(**JIT)
def _total_change(
    p: int,
    taylor: np.ndarray,
    reference_bend: np.ndarray,
    change: np.ndarray,
    half_blur: float,
    dy: float,
    dx: float,
) -> float:
    """What the reference's total, bent after the drift as a frame's is, gains when it is moved and blurred alike."""
    total = -dy * (reference_bend[p, 0] + change[BEND_Y]) - dx * (reference_bend[p, 1] + change[BEND_X])
    # drift and blur together: the total's own cross term, a fourth derivative, takes back half of the gradient's
    for j in range(2):
        k = BEND_Y + j
        cross = dy * (taylor[p, 5, k] + taylor[p, 7, k]) + dx * (taylor[p, 6, k] + taylor[p, 8, k])
        total -= 0.5 * half_blur * (dx if j else dy) * cross
    for k in range(AXIAL_BINS):
        total += change[k]
    return total


@njit(**JIT)
def _layer_sigmas(
    p: int,
    weight_sums: np.ndarray,
    layer_noise: np.ndarray,
    floor: float,
    gain: float,
    background: float,
    background_variance: float,
    dy: float,
    dx: float,
    out: np.ndarray,
) -> tuple[float, float]:
    """Sigmas of particle p's layers, from its own photons and the background; returns the variance of its flux, and
    its area.
    """
    area = -dy * weight_sums[p, BEND_Y] - dx * weight_sums[p, BEND_X]
    for k in range(AXIAL_BINS):
        area += weight_sums[p, k]
    variance = area * area * background_variance
    surface = area - weight_sums[p, OUTER] - weight_sums[p, INNER] - weight_sums[p, CORE]
    for j in range(4):
        pixels = weight_sums[p, OUTER + j - 1] if j > 0 else surface
        light = max((out[p, LAYER + j] + background * pixels) * gain, 0.0)
        own = (layer_noise[p, j, 0] * light + floor * layer_noise[p, j, 1]) / (gain * gain)
        variance += own
        out[p, LAYER_SIGMA + j] = np.sqrt(np.float32(own + pixels * pixels * background_variance))
    return variance, area


@njit(**JIT)
def illumination(
    sums: np.ndarray,
    dark: np.ndarray,
    unit: float,
    taylor: np.ndarray,
    moved: np.ndarray,
    covariance: np.ndarray,
    basis: np.ndarray,
    plane: np.ndarray,
    gain: np.ndarray,
) -> None:
    """The illumination relative to the reference: `plane` (3,) a, b, c of ``a + b u + c v``, and `gain` (P,) at each
    particle, whose (1, u, v) is ``basis[p]``.

    `sums` (3,) are counts times 1, u and v over inactive pixels, `dark` (3,) the same of the dark level, `unit`
    electrons a count, `taylor` (3, TERMS) electrons that the `monomials` `moved` (TERMS,) add, `covariance` (3, 3). All
    are NaN when a is below LEAST_LIGHT or the plane is not finite: such a frame shows nothing.
    """
    net = np.empty(3)
    for i in range(3):
        net[i] = unit * (sums[i] - dark[i])
        for j in range(TERMS):
            net[i] -= taylor[i, j] * moved[j]
    for i in range(3):
        plane[i] = covariance[i, 0] * net[0] + covariance[i, 1] * net[1] + covariance[i, 2] * net[2]
    if not (plane[0] >= LEAST_LIGHT and np.isfinite(plane[0] + plane[1] + plane[2])):
        plane[:] = np.nan
    for p in range(gain.size):
        gain[p] = basis[p, 0] * plane[0] + basis[p, 1] * plane[1] + basis[p, 2] * plane[2]


@njit(**JIT)
def shift_sums(
    sums: np.ndarray,
    dark_sums: np.ndarray,
    scale: np.ndarray,
    weight_sums: np.ndarray,
    leak: np.ndarray,
    calibration: np.ndarray,
    gain: np.ndarray,
    background: np.ndarray,
    valid: np.ndarray,
    out: np.ndarray,
) -> None:
    """The scene's drift, blur and likeness functionals: `out` (4,) float64, columns SHIFT_Y to TEMPLATE summed over the
    particles that are `valid`.

    `leak` (P, 4): how much of a particle's own flux its functionals still hold, which is taken off; 0 for the template.
    Others as in `fluxes`.
    """
    unit = calibration[0]
    out[:] = 0.0
    for p in range(sums.shape[0]):
        if not valid[p]:
            continue
        # without a background: the functionals hardly see a constant
        known = background[p, LEVEL] if np.isfinite(background[p, LEVEL]) else 0.0
        level = known * gain[p]
        flux = 0.0
        for k in range(AXIAL_BINS):
            flux += unit * (scale[p, k] * sums[p, k] - dark_sums[p, k]) - level * weight_sums[p, k]
        for j in range(4):
            k = SHIFT_Y + j
            net = unit * (scale[p, k] * sums[p, k] - dark_sums[p, k]) - level * weight_sums[p, k]
            out[j] += (net - leak[p, j] * flux) / gain[p]


@njit(**JIT)
def ring_levels(
    sums: np.ndarray,
    dark: np.ndarray,
    count: np.ndarray,
    taylor: np.ndarray,
    calibration: np.ndarray,
    moved: np.ndarray,
    gain: np.ndarray,
    out: np.ndarray,
) -> None:
    """Background of each particle in this frame under the reference's illumination, and its variance: `out` (2, P).

    `sums` (P,) int64 counts over rings of `count` (P,) pixels whose mean dark level is `dark` (P,) counts, `taylor`
    (P, TERMS) mean derivatives of the reference there: the level is told for the place it has without drift. NaN for
    empty rings. Others as in `fluxes`.
    """
    unit, floor = calibration[0], calibration[1]
    for p in range(count.size):
        if count[p] == 0:
            out[0, p], out[1, p] = np.nan, np.nan
            continue
        level = unit * (sums[p] / count[p] - dark[p])
        change = np.float32(0.0)
        for j in range(TERMS):
            change += taylor[p, j] * moved[j]
        out[0, p] = level / gain[p] - change
        out[1, p] = (max(level, 0.0) + floor) / (count[p] * gain[p] * gain[p])


@njit(**JIT)
def part(
    measures: np.ndarray,
    flux: np.ndarray,
    sigma: np.ndarray,
    layer: np.ndarray,
    layer_sigma: np.ndarray,
    axial: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
) -> None:
    """`measures` (N, P, MEASURES) float32 of N frames into an array of its own for each kind: (N, P), layers (N, P, 4),
    axial bins (N, P, AXIAL_BINS).
    """
    for n in range(measures.shape[0]):
        for p in range(measures.shape[1]):
            flux[n, p], sigma[n, p] = measures[n, p, FLUX], measures[n, p, SIGMA]
            for j in range(4):
                layer[n, p, j] = measures[n, p, LAYER + j]
                layer_sigma[n, p, j] = measures[n, p, LAYER_SIGMA + j]
            for j in range(AXIAL_BINS):
                axial[n, p, j] = measures[n, p, AXIAL + j]
            y[n, p], x[n, p] = measures[n, p, CENTROID_Y], measures[n, p, CENTROID_X]


@njit(**JIT)
def deblend(pointer: np.ndarray, neighbour: np.ndarray, share: np.ndarray, flux: np.ndarray, out: np.ndarray) -> None:
    """Take the light of close neighbours out of fluxes and surface layers.

    Particle p has the neighbours ``neighbour[pointer[p] : pointer[p + 1]]``, of whose flux it receives the `share`.
    `out` (P, MEASURES) as `fluxes` left it; `flux` (P,) float32 is scratch.
    """
    for p in range(flux.size):
        flux[p] = out[p, FLUX]
    for p in range(flux.size):
        foreign = np.float32(0.0)
        for j in range(pointer[p], pointer[p + 1]):
            foreign += share[j] * flux[neighbour[j]]
        if np.isfinite(foreign):
            out[p, FLUX] -= foreign
            out[p, LAYER] -= foreign
