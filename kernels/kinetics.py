"""A particle's answer to a cell voltage that is known: its charge over time and how that depends on every parameter.

Charge `x` is the particle's SoC, in the cell's sense for either electrode: charging raises it, and U(x), the cell
voltage of a particle in equilibrium, rises with it. Butler-Volmer with alpha = 1/2 at the surface (overbar: mean)

    dx/dt = k a(x_s) 2 sinh(F (V - I R - U(x_s)) / 2RT)

and the three-parameter profile inside (Subramanian et al., J. Electrochem. Soc. 152, 2005; tau = R^2/D):

    dq/dt = -30 q / tau + 7.5 dx/dt,   x_s = x + (8 q + tau/3 dx/dt) / 35.

U is a table plus straight lines between knots, ln a straight lines between knots. At every measured charge the model is
drawn to it by a share (a predictor with a constant gain, Ljung, System Identification, 1999): where a slow or
autocatalytic particle would carry a small error along for hours, what is compared is a prediction over a few points.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kernels.electrode import THERMAL_V
from kernels.jit import JIT

TABLE_LO, TABLE_HI = -0.1, 1.1
"""What `table` covers in equal steps; outside it goes on straight."""
LN_RATE, LN_TAU, START, OFF = range(4)
"""Places of a particle's own parameters, from `OFF` on what its calibration is off by; then series resistance, U knots
and ln a knots."""
MAX_STEPS = 60
TOLERANCE_V = 1e-9


@njit(**JIT)
def place(x: float, at: np.ndarray, near: int) -> tuple[int, float]:
    """(knot, share) of `x` among rising knots `at`: knot * (1 - share) + next * share; ends held outside.

    Looked for at the knot `near` first, whose number is that of the last step as a rule.
    """
    lo, hi = 0, at.shape[0] - 1
    if at[near] <= x < at[near + 1]:
        lo, hi = near, near + 1
    while hi - lo > 1:
        middle = (lo + hi) // 2
        if x < at[middle]:
            hi = middle
        else:
            lo = middle
    return lo, min(max((x - at[lo]) / (at[lo + 1] - at[lo]), 0.0), 1.0)


@njit(**JIT)
def rest_v(x: float, table: np.ndarray, at: np.ndarray, knots: np.ndarray, near: int) -> tuple[float, float, int]:
    """(U, dU/dx, knot) at `x`."""
    last = table.shape[0] - 1
    step = (TABLE_HI - TABLE_LO) / last
    cell = (x - TABLE_LO) / step
    i = min(max(int(cell), 0), last - 1)
    slope = (table[i + 1] - table[i]) / step
    volts = table[i] + slope * (cell - i) * step
    j, share = place(x, at, near)
    if 0.0 < share < 1.0:
        slope += (knots[j + 1] - knots[j]) / (at[j + 1] - at[j])
    return volts + knots[j] * (1.0 - share) + knots[j + 1] * share, slope, j


@njit(**JIT)
def surface(
    ahead: float,
    gain_s: float,
    volts: float,
    ln_rate: float,
    table: np.ndarray,
    u_at: np.ndarray,
    u: np.ndarray,
    a_at: np.ndarray,
    a: np.ndarray,
    s: float,
    i: int,
    j: int,
) -> tuple[float, float, float, float, int, int]:
    """Surface charge at the end of a step: the root of V - U(s) - 2RT/F asinh((s - ahead) / (2 gain_s k a(s))).

    `s` is where to begin, near the knots `i` of U and `j` of a. Newton inside a bracket that shrinks. Returns s, the
    derivatives of that expression there by s, by `ahead` and by `ln_rate`, all in V, and its knots.
    """
    lo, hi = TABLE_LO - 1.0, TABLE_HI + 1.0
    slope, pull, by_rate = -1.0, 0.0, 0.0
    for _ in range(MAX_STEPS):
        volts_s, volts_slope, i = rest_v(s, table, u_at, u, i)
        j, share = place(s, a_at, j)
        ln_a_slope = (a[j + 1] - a[j]) / (a_at[j + 1] - a_at[j]) if 0.0 < share < 1.0 else 0.0
        scale = 2.0 * gain_s * math.exp(ln_rate + a[j] * (1.0 - share) + a[j + 1] * share)
        y = (s - ahead) / scale
        left = volts - volts_s - 2.0 * THERMAL_V * math.asinh(y)
        shade = 2.0 * THERMAL_V / math.sqrt(1.0 + y * y)
        pull, by_rate = shade / scale, shade * y
        slope = -volts_slope - pull + by_rate * ln_a_slope
        if left > 0.0:
            lo = s
        else:
            hi = s
        if abs(left) < TOLERANCE_V:
            break
        new = s - left / slope if slope < 0.0 else 0.5 * (lo + hi)
        s = new if lo < new < hi else 0.5 * (lo + hi)
    return s, slope, pull, by_rate, i, j


@njit(**JIT)
def sense(
    dt: float,
    tau_s: float,
    keep: float,
    gain: float,
    rate: float,
    q: float,
    slope: float,
    pull: float,
    by_rate: float,
    direct: np.ndarray,
    x_by: np.ndarray,
    q_by: np.ndarray,
    s_by: np.ndarray,
) -> None:
    """Carry derivatives over a step: `direct` (n,) are those of what `surface` solves, `x_by`, `q_by`, `s_by` go along.

    `keep` is what is left of q, `gain` the charge at the surface per rate, `q` that before the step.
    """
    keep_by_tau = keep * 30.0 * dt / tau_s
    for p in range(direct.shape[0]):
        ahead_by = x_by[p] + 8.0 * q_by[p] * keep / 35.0
        gain_by, q_more = 0.0, 0.0
        if p == LN_TAU:
            ahead_by += 8.0 * q * keep_by_tau / 35.0
            gain_by = tau_s * (2.0 * (1.0 - keep) + 1.0 / 3.0 - 2.0 * keep_by_tau) / 35.0
            q_more = q * keep_by_tau + 0.25 * tau_s * rate * (1.0 - keep - keep_by_tau)
        s_by[p] = -(pull * ahead_by + by_rate / gain * gain_by + direct[p]) / slope
        rate_by = (s_by[p] - ahead_by - rate * gain_by) / gain
        q_by[p] = q_by[p] * keep + 0.25 * tau_s * (1.0 - keep) * rate_by + q_more
        x_by[p] += dt * rate_by


@njit(**JIT)
def point(
    by_rate: float,
    amps: float,
    s: float,
    first: int,
    u_at: np.ndarray,
    a_at: np.ndarray,
    i: int,
    j: int,
    direct: np.ndarray,
) -> None:
    """Derivatives, by each parameter, of what `surface` solves, into `direct` (n,); `first`: the resistance's place;
    `i`, `j` the knots near s."""
    direct[:] = 0.0
    direct[LN_RATE] = by_rate
    if direct.shape[0] <= first:
        return
    u, share_u = place(s, u_at, i)
    a, share_a = place(s, a_at, j)
    first_a = first + 1 + u_at.shape[0]
    direct[first] = -amps
    direct[first + 1 + u], direct[first + 2 + u] = share_u - 1.0, -share_u
    direct[first_a + a], direct[first_a + a + 1] = by_rate * (1.0 - share_a), by_rate * share_a


@njit(**JIT)
def compare(
    x: float,
    lead: float,
    seen: float,
    draw: float,
    off_at: np.ndarray,
    off: np.ndarray,
    x_by: np.ndarray,
    s_by: np.ndarray,
    mean_by: np.ndarray,
    lead_by: np.ndarray,
) -> tuple[float, float]:
    """(x as the calibration would show it, x drawn to `seen`), and derivatives of the former and of `lead`, (n,)."""
    is_seen = not math.isnan(seen)
    knot, share = place(seen if is_seen else x + lead, off_at, 0)
    lift = off[knot] * (1.0 - share) + off[knot + 1] * share
    for p in range(x_by.shape[0]):
        mean_by[p], lead_by[p] = x_by[p], s_by[p] - x_by[p]
    mean_by[OFF + knot] += 1.0 - share
    mean_by[OFF + knot + 1] += share
    if not is_seen:
        return x + lift, x
    for p in range(x_by.shape[0]):
        x_by[p] *= 1.0 - draw
    x_by[OFF + knot] -= draw * (1.0 - share)
    x_by[OFF + knot + 1] -= draw * share
    return x + lift, x + draw * (seen - lift - x)


@njit(**JIT)
def respond(
    dt_s: np.ndarray,
    volts: np.ndarray,
    amps: np.ndarray,
    every: int,
    table: np.ndarray,
    u_at: np.ndarray,
    u: np.ndarray,
    a_at: np.ndarray,
    a: np.ndarray,
    off_at: np.ndarray,
    own: np.ndarray,
    ohm: float,
    seen: np.ndarray,
    draw: float,
    sensed: int,
    mean: np.ndarray,
    lead: np.ndarray,
    mean_by: np.ndarray,
    lead_by: np.ndarray,
) -> None:
    """One particle through S steps by backward Euler, with exact derivatives of what it computes.

    `dt_s`, `volts`, `amps` (S,): length of each step, cell voltage and current at its end. `own` holds ln k (1/s),
    ln tau (s), the charge at the start and what is to be taken off measured charges near those of `off_at`. Every
    `every` steps a row of `mean` (M,), x as the calibration would show it, and `lead` (M,), x_s - x, is written, and x
    is drawn by the share `draw` to `seen` (M,), if that is not NaN. The first `sensed` parameters' derivatives go to
    `mean_by`, `lead_by` (M, sensed), exact where `seen` is not NaN.
    """
    tau_s, first = math.exp(own[LN_TAU]), OFF + off_at.shape[0]
    x, q, s = own[START], 0.0, own[START]
    i, j = 0, 0
    x_by, q_by, s_by, direct = np.zeros(sensed), np.zeros(sensed), np.zeros(sensed), np.zeros(sensed)
    x_by[START] = 1.0
    for k in range(mean.shape[0] * every):
        dt = dt_s[k]
        keep = math.exp(-30.0 * dt / tau_s)
        ahead = x + 8.0 * q * keep / 35.0
        gain = dt + tau_s * (2.0 * (1.0 - keep) + 1.0 / 3.0) / 35.0
        driven = volts[k] - ohm * amps[k]
        s, slope, pull, by_rate, i, j = surface(ahead, gain, driven, own[LN_RATE], table, u_at, u, a_at, a, s, i, j)
        rate = (s - ahead) / gain
        point(by_rate, amps[k], s, first, u_at, a_at, i, j, direct)
        sense(dt, tau_s, keep, gain, rate, q, slope, pull, by_rate, direct, x_by, q_by, s_by)
        q = q * keep + 0.25 * tau_s * (1.0 - keep) * rate
        x += dt * rate
        if (k + 1) % every == 0:
            row = (k + 1) // every - 1
            lead[row] = s - x
            mean[row], x = compare(
                x, lead[row], seen[row], draw, off_at, own[OFF:], x_by, s_by, mean_by[row], lead_by[row]
            )
