"""Many particles at one potential: an intercalation electrode under current, voltage or at rest.

`c` is a particle's lithium content, 0 to 1. Rates are in 1/s of a particle's own full content, the electrode's current
in 1/s of the whole electrode's, positive where it lithiates. Particles share one electrode potential; `weight` is a
particle's share of the capacity.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kernels.jit import JIT

THERMAL_V = 0.025692579  # RT/F at 298.15 K
OFF, GALVANOSTATIC, POTENTIOSTATIC = 0, 1, 2
DRIVE_MODE, DRIVE_VALUE, DRIVE_MAX_RATE, LIMIT_LO_V, LIMIT_HI_V, LIMIT_RATE, COMPLY_LO_V, COMPLY_HI_V = range(8)
CELL_RATE, CELL_OPEN_V, CELL_TERMINAL_V, CELL_TRIPPED, CELL_LOST, CELL_STEPS = range(6)
EDGE = 1e-6  # particles never are quite full or empty: the entropy there is infinite
MAX_STIFFNESS = 0.4  # explicit Euler oscillates above 1
MAX_SWING = 0.3  # of ln b in a step: beyond, the step is reckoned anew at the potential found
MIN_STEP_S = 0.02  # stiffer particles than this resolves are damped instead


@njit(**JIT)
def table_at(table: np.ndarray, c: float) -> float:
    """Value at `c` of a table over [0, 1] in equal steps, linear between; `c` outside is taken at the end."""
    last = table.shape[0] - 1
    place = min(max(c, 0.0), 1.0) * last
    i = min(int(place), last - 1)
    part = place - i
    return table[i] * (1.0 - part) + table[i + 1] * part


@njit(**JIT)
def equilibrium_v(c: float, potential: np.ndarray, entropy: float) -> float:
    """Equilibrium potential in V: the table's, less `entropy` * RT/F * ln(c / (1 - c))."""
    c = min(max(c, EDGE), 1.0 - EDGE)
    return table_at(potential, c) - entropy * THERMAL_V * math.log(c / (1.0 - c))


@njit(**JIT)
def equilibrium_slope(c: float, potential: np.ndarray, entropy: float) -> float:
    """dU/dc of `equilibrium_v`, in V."""
    c = min(max(c, EDGE), 1.0 - EDGE)
    last = potential.shape[0] - 1
    i = min(int(c * last), last - 1)
    return (potential[i + 1] - potential[i]) * last - entropy * THERMAL_V / (c * (1.0 - c))


@njit(**JIT)
def exchange(
    c_surface: np.ndarray,
    k_hz: np.ndarray,
    boost: np.ndarray,
    resistance_s: np.ndarray,
    potential: np.ndarray,
    activity: np.ndarray,
    entropy: float,
    reference_v: float,
    factor: np.ndarray,
    kappa: np.ndarray,
    stiff: np.ndarray,
) -> float:
    """For each particle `factor` exp(F (U - reference_v) / 2RT), `kappa` its exchange and `stiff` its relaxation rate.

    All (P,) float64; rates in 1/s. `k_hz` is the rate constant (0: not connected), quickened by half of
    `boost`; `resistance_s` the contact resistance in series with the reaction (linear regime). `reference_v` is best
    the electrode's last potential: relaxation is reckoned there. Returns the largest relaxation rate.
    """
    stiffest = 0.0
    for i in range(c_surface.shape[0]):
        c = c_surface[i]
        forward = math.exp((equilibrium_v(c, potential, entropy) - reference_v) / (2.0 * THERMAL_V))
        rate = k_hz[i] * (1.0 + 0.5 * boost[i]) * table_at(activity, c)
        rate = rate / (1.0 + rate * resistance_s[i])
        slope = -equilibrium_slope(c, potential, entropy) / (2.0 * THERMAL_V)
        factor[i], kappa[i] = forward, rate
        stiff[i] = max(0.0, rate * (forward + 1.0 / forward) * slope)
        stiffest = max(stiffest, stiff[i])
    return stiffest


@njit(**JIT)
def damp(kappa: np.ndarray, stiff: np.ndarray, dt_s: float) -> None:
    """Slow down particles that a step of `dt_s` would overshoot; charge stays conserved, for `closure` comes after."""
    for i in range(kappa.shape[0]):
        kappa[i] /= max(1.0, stiff[i] * dt_s / MAX_STIFFNESS)


@njit(**JIT)
def conductances(weight: np.ndarray, factor: np.ndarray, kappa: np.ndarray) -> tuple[float, float]:
    """(P, Q) of the closure: sums of weight * kappa * factor and of weight * kappa / factor."""
    forward, backward = 0.0, 0.0
    for i in range(weight.shape[0]):
        forward += weight[i] * kappa[i] * factor[i]
        backward += weight[i] * kappa[i] / factor[i]
    return forward, backward


@njit(**JIT)
def closure(rate: float, forward: float, backward: float) -> float:
    """ln b solving forward * b - backward / b = rate, exactly: the potential at which the particles take `rate`.

    NaN when no particle is connected (forward or backward not positive).
    """
    if not (forward > 0.0 and backward > 0.0):
        return math.nan
    root = math.sqrt(rate * rate + 4.0 * forward * backward)
    if rate >= 0.0:
        return math.log((rate + root) / (2.0 * forward))
    return math.log(2.0 * backward / (root - rate))


@njit(**JIT)
def hold(terminal_v: float, reference_v: float, ohm_s: float, forward: float, backward: float) -> float:
    """ln b at which the terminal stands at `terminal_v` behind the series resistance `ohm_s` (V per unit rate).

    Newton from the side on which the function is convex, so that it converges from anywhere.
    """
    x = (reference_v - terminal_v) / (2.0 * THERMAL_V)
    for _ in range(200):
        take, give = forward * math.exp(x), backward * math.exp(-x)
        error = 2.0 * THERMAL_V * x + ohm_s * (take - give) - (reference_v - terminal_v)
        change = error / (2.0 * THERMAL_V + ohm_s * (take + give))
        x -= change
        if abs(change) < 1e-12:
            break
    return x


@njit(**JIT)
def terminal(
    log_b: float, reference_v: float, ohm_s: float, forward: float, backward: float
) -> tuple[float, float, float]:
    """(rate, open_v, terminal_v) at `log_b`: current, the electrode's potential, and that behind the resistance."""
    rate = forward * math.exp(log_b) - backward * math.exp(-log_b)
    open_v = reference_v - 2.0 * THERMAL_V * log_b
    return rate, open_v, open_v - ohm_s * rate


@njit(**JIT)
def drive_cell(drive: np.ndarray, reference_v: float, ohm_s: float, forward: float, backward: float) -> float:
    """ln b for what `drive` asks of the cell, inside the device's current bound and compliance voltage."""
    mode = drive[DRIVE_MODE]
    if mode == POTENTIOSTATIC:
        x = hold(drive[DRIVE_VALUE], reference_v, ohm_s, forward, backward)
        bound = drive[DRIVE_MAX_RATE]
        rate = terminal(x, reference_v, ohm_s, forward, backward)[0]
        if abs(rate) > bound:
            x = closure(math.copysign(bound, rate), forward, backward)
        return x
    rate = drive[DRIVE_VALUE] if mode == GALVANOSTATIC else 0.0
    x = closure(rate, forward, backward)
    if mode == GALVANOSTATIC:
        volts = terminal(x, reference_v, ohm_s, forward, backward)[2]
        bounded = min(max(volts, drive[COMPLY_LO_V]), drive[COMPLY_HI_V])
        if bounded != volts:
            x = hold(bounded, reference_v, ohm_s, forward, backward)
    return x


@njit(**JIT)
def move_lithium(
    dt_s: float,
    log_b: float,
    weight: np.ndarray,
    factor: np.ndarray,
    kappa: np.ndarray,
    stiff: np.ndarray,
    diffusion_s: np.ndarray,
    c: np.ndarray,
    q: np.ndarray,
    c_surface: np.ndarray,
    c_rate: np.ndarray,
) -> float:
    """One Euler step of content, flux moment and surface content (three-parameter profile, Subramanian 2005).

    `diffusion_s` is R^2/D (0: no profile). The surface content goes along with the mean and follows its algebraic
    equation by one damped Newton step, for it also sets the rate. Returns the content that clipping at full or empty
    made or lost.
    """
    b = math.exp(log_b)
    lost = 0.0
    for i in range(c.shape[0]):
        rate = kappa[i] * (b * factor[i] - 1.0 / (b * factor[i]))
        moved = c[i] + dt_s * rate
        c[i] = min(max(moved, EDGE), 1.0 - EDGE)
        lost += weight[i] * (c[i] - moved)
        c_rate[i] = rate
        tau = diffusion_s[i]
        if tau <= 0.0:
            c_surface[i] = c[i]
            continue
        keep = math.exp(-30.0 * dt_s / tau)
        q[i] = q[i] * keep + (1.0 - keep) * 0.25 * tau * rate
        target = c[i] + (8.0 * q[i] + tau * rate / 3.0) / 35.0
        ahead = c_surface[i] + dt_s * rate
        c_surface[i] = ahead + (target - ahead) / (1.0 + stiff[i] * tau / 105.0)
        c_surface[i] = min(max(c_surface[i], EDGE), 1.0 - EDGE)
    return lost


@njit(**JIT)
def wear(
    dt_s: float,
    c: np.ndarray,
    c_surface: np.ndarray,
    c_rate: np.ndarray,
    two_phase: bool,
    hazard_hz: np.ndarray,
    boost: np.ndarray,
    hazard: np.ndarray,
) -> None:
    """Add to each particle's crack hazard (square of its inner contrast in c, five-fold while it gives lithium away).

    A two-phase front within the particle counts as contrast 0.4c(1 - c). `boost`, the fresh surface after a crack,
    fades in an hour.
    """
    for i in range(c.shape[0]):
        stress = 2.0 * abs(c_surface[i] - c[i])
        if two_phase:
            stress += 0.4 * c[i] * (1.0 - c[i])
        sense = 5.0 if c_rate[i] < 0.0 else 1.0
        hazard[i] += dt_s * hazard_hz[i] * sense * stress * stress
        boost[i] *= math.exp(-dt_s / 3600.0)


@njit(**JIT)
def track_front(c: np.ndarray, poor: float, rich: float, invader: np.ndarray) -> None:
    """Which phase comes in from the edge: 1 the poor one once the particle was full, 0 the rich one once empty."""
    for i in range(c.shape[0]):
        share = (c[i] - poor) / (rich - poor)
        if share >= 1.0:
            invader[i] = 1.0
        elif share <= 0.0:
            invader[i] = 0.0


@njit(**JIT)
def advance(
    duration_s: float,
    max_step_s: float,
    drive: np.ndarray,
    ohm_s: float,
    potential: np.ndarray,
    activity: np.ndarray,
    entropy: float,
    two_phase: bool,
    weight: np.ndarray,
    k_hz: np.ndarray,
    resistance_s: np.ndarray,
    diffusion_s: np.ndarray,
    hazard_hz: np.ndarray,
    c: np.ndarray,
    q: np.ndarray,
    c_surface: np.ndarray,
    c_rate: np.ndarray,
    boost: np.ndarray,
    hazard: np.ndarray,
    factor: np.ndarray,
    kappa: np.ndarray,
    stiff: np.ndarray,
    cell: np.ndarray,
) -> float:
    """Let the electrode live for `duration_s`; returns how much of it passed (less when a limit tripped or it broke).

    `drive` holds what the DRIVE_, LIMIT_ and COMPLY_ indices name, in electrode volts and 1/s; `cell` gets what the
    CELL_ indices name. A tripped limit sets CELL_TRIPPED and drive[DRIVE_MODE] = OFF before any further charge passes.
    `factor`, `kappa`, `stiff` are scratch, (P,) float64.
    """
    passed, tries = 0.0, 0
    cell[CELL_TRIPPED] = 0.0
    while passed < duration_s:
        reference = cell[CELL_OPEN_V]
        stiffest = exchange(
            c_surface, k_hz, boost, resistance_s, potential, activity, entropy, reference, factor, kappa, stiff
        )
        step = min(max_step_s, max(MIN_STEP_S, MAX_STIFFNESS / max(stiffest, 1e-9)))
        dt = min(step, duration_s - passed)
        damp(kappa, stiff, dt)
        forward, backward = conductances(weight, factor, kappa)
        x = drive_cell(drive, reference, ohm_s, forward, backward)
        if math.isnan(x):
            drive[DRIVE_MODE] = OFF
            cell[CELL_RATE] = 0.0
            break
        rate, open_v, volts = terminal(x, reference, ohm_s, forward, backward)
        if abs(x) > MAX_SWING and tries < 5:
            cell[CELL_OPEN_V], tries = open_v, tries + 1
            continue
        tries = 0
        cell[CELL_RATE], cell[CELL_OPEN_V], cell[CELL_TERMINAL_V] = rate, open_v, volts
        outside = volts < drive[LIMIT_LO_V] or volts > drive[LIMIT_HI_V] or abs(rate) > drive[LIMIT_RATE]
        if drive[DRIVE_MODE] != OFF and outside:
            drive[DRIVE_MODE] = OFF
            cell[CELL_TRIPPED] = 1.0
            break
        cell[CELL_LOST] += move_lithium(dt, x, weight, factor, kappa, stiff, diffusion_s, c, q, c_surface, c_rate)
        wear(dt, c, c_surface, c_rate, two_phase, hazard_hz, boost, hazard)
        passed += dt
        cell[CELL_STEPS] += 1.0
    return passed
