"""A front's place at each instant from what a particle's bins or layers show, and its way smoothed through time.

Places are in steps of the response's grid. A channel's value is ``level + change * z``, z its response at the front's
place, from 0 to 1, and what drift adds to that.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT

STEPS = 8
WHOLE_STEPS = 4  # then half ones: between two grid points it may swing to and fro
LONGEST = 4.0
"""Grid steps that one Gauss-Newton step may go: beyond, the response is another."""


@njit(**JIT)
def _response(
    response: np.ndarray, drift: np.ndarray, k: int, cell: int, share: float, dy: float, dx: float
) -> tuple[float, float]:
    """Channel k's z between grid points `cell` and `cell` + 1, and its slope a step over the cells around it."""
    z0 = response[cell, k] + drift[cell, k, 0] * dy + drift[cell, k, 1] * dx
    z1 = response[cell + 1, k] + drift[cell + 1, k, 0] * dy + drift[cell + 1, k, 1] * dx
    low, high = max(cell - 1, 0), min(cell + 2, response.shape[0] - 1)
    slope = (response[high, k] - response[low, k]) / (high - low)
    return z0 + share * (z1 - z0), slope


@njit(**JIT)
def locate(
    values: np.ndarray,
    rest: np.ndarray,
    span: np.ndarray,
    level: np.ndarray,
    change: np.ndarray,
    weight: np.ndarray,
    response: np.ndarray,
    drift: np.ndarray,
    nuisance: np.ndarray,
    place: np.ndarray,
    information: np.ndarray,
    misfit: np.ndarray,
    amount: np.ndarray,
) -> None:
    """Most likely place of Q fronts at n instants by Gauss-Newton from where `place` (n, Q) has them.

    `values` (n, Q, K) float32, NaN where unmeasured; `rest` (n, 2) drift in px; `span` (Q, 2) first and last instant
    (exclusive) to look at; `level`, `change`, `weight` (Q, K): see above, and 1 / variance; `response` (Q, G, K) and
    `drift` (Q, G, K, 2) float32; `nuisance` (Q, 2, K) what one standard deviation of each of two unknowns, normal and
    new at every instant, adds to each channel. Into `place` go the places, into `information` (n, Q) their 1 / variance
    a squared step, into `misfit` (n, Q) the weighted squares left over, into `amount` (n, Q, 2) the likely unknowns.
    """
    last = response.shape[1] - 1
    for q in range(place.shape[1]):
        for t in range(span[q, 0], span[q, 1]):
            at = place[t, q]
            dy, dx = rest[t, 0], rest[t, 1]
            for attempt in range(STEPS):
                pull, stiff, _ = _normal(
                    values[t, q], dy, dx, at, level[q], change[q], weight[q], response[q], drift[q], nuisance[q],
                    amount[t, q],
                )  # fmt: skip
                step = min(max(pull / (stiff + 1e-12), -LONGEST), LONGEST)
                step *= 1.0 if attempt < WHOLE_STEPS else 0.5
                at = min(max(at + step, 0.0), float(last))
                if abs(step) < 1e-3:
                    break
            _, stiff, left = _normal(
                values[t, q], dy, dx, at, level[q], change[q], weight[q], response[q], drift[q], nuisance[q],
                amount[t, q],
            )  # fmt: skip
            place[t, q], information[t, q], misfit[t, q] = at, stiff, left


@njit(**JIT)
def _normal(
    values: np.ndarray,
    dy: float,
    dx: float,
    at: float,
    level: np.ndarray,
    change: np.ndarray,
    weight: np.ndarray,
    response: np.ndarray,
    drift: np.ndarray,
    nuisance: np.ndarray,
    amount: np.ndarray,
) -> tuple[float, float, float]:
    """Gradient and curvature of half the squares, and the squares, of one particle at one instant; the likely unknowns
    go into `amount` (2,).
    """
    cell = min(max(int(at), 0), response.shape[0] - 2)
    ge, gg, ee = 0.0, 0.0, 0.0
    ga, gb, ea, eb, aa, ab, bb = 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0
    for k in range(values.size):
        if np.isnan(values[k]):
            continue
        z, slope = _response(response, drift, k, cell, at - cell, dy, dx)
        gain, error, w = change[k] * slope, values[k] - level[k] - change[k] * z, weight[k]
        a, b = nuisance[0, k], nuisance[1, k]
        ge += w * gain * error
        gg += w * gain * gain
        ee += w * error * error
        ga += w * gain * a
        gb += w * gain * b
        ea += w * error * a
        eb += w * error * b
        aa += w * a * a
        ab += w * a * b
        bb += w * b * b
    # by Woodbury: the covariance of the noise and of both unknowns
    det = aa * bb - ab * ab
    amount[0], amount[1] = (bb * ea - ab * eb) / det, (aa * eb - ab * ea) / det
    own_a, own_b = (bb * ga - ab * gb) / det, (aa * gb - ab * ga) / det
    return ge - ga * amount[0] - gb * amount[1], gg - ga * own_a - gb * own_b, ee - ea * amount[0] - eb * amount[1]


@njit(**JIT)
def level_sums(
    values: np.ndarray,
    rest: np.ndarray,
    span: np.ndarray,
    response: np.ndarray,
    drift: np.ndarray,
    nuisance: np.ndarray,
    place: np.ndarray,
    amount: np.ndarray,
    out: np.ndarray,
) -> None:
    """What a straight line of each channel's values over its z needs, the unknowns taken off: sums of 1, z, z z, y, z y
    into `out` (Q, K, 5).

    Arguments as in `locate`.
    """
    out[:] = 0.0
    last = response.shape[1] - 1
    for q in range(place.shape[1]):
        for t in range(span[q, 0], span[q, 1]):
            at = place[t, q]
            cell = min(max(int(at), 0), last - 1)
            for k in range(values.shape[2]):
                y = values[t, q, k] - nuisance[q, 0, k] * amount[t, q, 0] - nuisance[q, 1, k] * amount[t, q, 1]
                if np.isnan(y):
                    continue
                z, _ = _response(response[q], drift[q], k, cell, at - cell, rest[t, 0], rest[t, 1])
                out[q, k, 0] += 1.0
                out[q, k, 1] += z
                out[q, k, 2] += z * z
                out[q, k, 3] += y
                out[q, k, 4] += z * y


@njit(**JIT)
def smooth(
    t_s: np.ndarray,
    span: np.ndarray,
    place: np.ndarray,
    variance: np.ndarray,
    restless: np.ndarray,
    out: np.ndarray,
    out_variance: np.ndarray,
    likelihood: np.ndarray,
) -> None:
    """Places of Q fronts smoothed by a Kalman filter and Rauch-Tung-Striebel smoother of place and speed.

    `place` and `variance` (n, Q), the variance infinite where nothing was measured; `restless` (Q,) the spectral
    density of the acceleration, steps**2/s**3 (integrated Wiener process). Into `out` and `out_variance` (n, Q) between
    the instants `span` (Q, 2), and the log likelihood of the innovations into `likelihood` (Q,).
    """
    n = t_s.size
    kept = np.empty((n, 10))  # filtered state and covariance, then the predicted ones
    for q in range(place.shape[1]):
        first, last = span[q, 0], span[q, 1]
        likelihood[q] = 0.0
        begun = False
        s, v, a, b, c = 0.0, 0.0, 0.0, 0.0, 0.0
        wide = (t_s[last - 1] - t_s[first]) if last > first else 0.0
        for t in range(first, last):
            if begun:
                h = t_s[t] - t_s[t - 1]
                s += h * v
                a += 2 * h * b + h * h * c + restless[q] * h * h * h / 3
                b += h * c + restless[q] * h * h / 2
                c += restless[q] * h
            elif np.isfinite(variance[t, q]):
                reach = 100.0 / max(wide, 1e-9)  # more than the whole way in the time there is: knows nothing yet
                s, v, a, b, c, begun = place[t, q], 0.0, variance[t, q], 0.0, reach * reach, True
                kept[t, 0], kept[t, 1], kept[t, 2], kept[t, 3], kept[t, 4] = s, v, a, b, c
                kept[t, 5], kept[t, 6], kept[t, 7], kept[t, 8], kept[t, 9] = s, v, a, b, c
                out[t, q], out_variance[t, q] = s, a
                continue
            else:
                out[t, q], out_variance[t, q] = np.nan, np.nan
                kept[t, 0] = np.nan
                continue
            kept[t, 5], kept[t, 6], kept[t, 7], kept[t, 8], kept[t, 9] = s, v, a, b, c
            if np.isfinite(variance[t, q]):
                e, w = place[t, q] - s, a + variance[t, q]
                likelihood[q] -= 0.5 * (np.log(w) + e * e / w)
                ks, kv = a / w, b / w
                s += ks * e
                v += kv * e
                c -= kv * b
                b -= kv * a
                a -= ks * a
            kept[t, 0], kept[t, 1], kept[t, 2], kept[t, 3], kept[t, 4] = s, v, a, b, c
            out[t, q], out_variance[t, q] = s, a
        _smooth_back(t_s, first, last, kept, out[:, q], out_variance[:, q])


@njit(**JIT)
def _smooth_back(
    t_s: np.ndarray, first: int, last: int, kept: np.ndarray, out: np.ndarray, out_variance: np.ndarray
) -> None:
    """The way back of the Rauch-Tung-Striebel smoother over what `smooth` kept."""
    if last - first < 2:
        return
    s, v = kept[last - 1, 0], kept[last - 1, 1]
    a, b, c = kept[last - 1, 2], kept[last - 1, 3], kept[last - 1, 4]
    for t in range(last - 2, first - 1, -1):
        if np.isnan(kept[t, 0]):
            return
        h = t_s[t + 1] - t_s[t]
        fa, fb, fc = kept[t, 2], kept[t, 3], kept[t, 4]
        pa, pb, pc = kept[t + 1, 7], kept[t + 1, 8], kept[t + 1, 9]
        # gain = filtered covariance x transition' x predicted covariance^-1
        xa, xb, ya, yb = fa + h * fb, fb, fb + h * fc, fc
        det = pa * pc - pb * pb
        if not det > 0.0:
            return
        g00, g01 = (xa * pc - xb * pb) / det, (xb * pa - xa * pb) / det
        g10, g11 = (ya * pc - yb * pb) / det, (yb * pa - ya * pb) / det
        es, ev = s - kept[t + 1, 5], v - kept[t + 1, 6]
        s, v = kept[t, 0] + g00 * es + g01 * ev, kept[t, 1] + g10 * es + g11 * ev
        da, db, dc = a - pa, b - pb, c - pc
        a = fa + g00 * (g00 * da + g01 * db) + g01 * (g00 * db + g01 * dc)
        b = fb + g00 * (g10 * da + g11 * db) + g01 * (g10 * db + g11 * dc)
        c = fc + g10 * (g10 * da + g11 * db) + g11 * (g10 * db + g11 * dc)
        out[t], out_variance[t] = s, a
