"""The electrode's kernels written the slow, obvious way."""

import math

import numpy as np

from kernels.electrode import EDGE, THERMAL_V


def naive_table_at(table, c):
    return float(np.interp(c, np.linspace(0, 1, len(table)), table))


def naive_equilibrium_v(c, potential, entropy):
    c = min(max(c, EDGE), 1 - EDGE)
    return naive_table_at(potential, c) - entropy * THERMAL_V * (math.log(c) - math.log(1 - c))


def naive_exchange(c_surface, k_hz, boost, resistance_s, potential, activity, entropy, reference_v):
    """(factor, kappa)."""
    factor, kappa = [], []
    for c, k, b, r in zip(c_surface, k_hz, boost, resistance_s, strict=True):
        volts = naive_equilibrium_v(c, potential, entropy)
        factor.append(math.exp((volts - reference_v) / (2 * THERMAL_V)))
        rate = k * (1 + b / 2) * naive_table_at(activity, c)
        kappa.append(0.0 if rate == 0 else 1 / (1 / rate + r))
    return np.array(factor), np.array(kappa)


def naive_rates(volts, equilibrium_v, kappa):
    """Butler-Volmer at electrode potential `volts`, positive lithiating."""
    eta = (np.asarray(equilibrium_v) - volts) / (2 * THERMAL_V)
    return kappa * 2 * np.sinh(eta)


def naive_move_lithium(dt_s, log_b, weight, factor, kappa, stiff, diffusion_s, c, q, c_surface):
    """(c, q, c_surface, c_rate, lost) after the step."""
    c, q, c_surface, rates, lost = list(c), list(q), list(c_surface), [], 0.0
    for i in range(len(c)):
        rate = kappa[i] * (math.exp(log_b) * factor[i] - math.exp(-log_b) / factor[i])
        rates.append(rate)
        moved = c[i] + rate * dt_s
        c[i] = float(np.clip(moved, EDGE, 1 - EDGE))
        lost += weight[i] * (c[i] - moved)
        tau = diffusion_s[i]
        if tau == 0:
            c_surface[i] = c[i]
            continue
        flux = -tau * rate / 3  # outward, times R/D
        settled = -0.75 * flux  # where dq/dt = -30 q/tau - 22.5 flux/tau stands still
        q[i] = settled + (q[i] - settled) * math.exp(-30 * dt_s / tau)
        target = c[i] + (8 * q[i] - flux) / 35
        newton = 1 / (1 + stiff[i] * tau / 105)
        c_surface[i] = newton * target + (1 - newton) * (c_surface[i] + rate * dt_s)
        c_surface[i] = float(np.clip(c_surface[i], EDGE, 1 - EDGE))
    return np.array(c), np.array(q), np.array(c_surface), np.array(rates), lost


def naive_wear(dt_s, c, c_surface, c_rate, two_phase, hazard_hz, boost, hazard):
    """(boost, hazard) after the step."""
    stress = 2 * np.abs(np.asarray(c_surface) - c) + (0.4 * c * (1 - c) if two_phase else 0)
    sense = np.where(np.asarray(c_rate) < 0, 5, 1)
    return boost * math.exp(-dt_s / 3600), hazard + dt_s * hazard_hz * sense * stress**2


def naive_track_front(c, poor, rich, invader):
    share = (np.asarray(c) - poor) / (rich - poor)
    return np.where(share >= 1, 1.0, np.where(share <= 0, 0.0, invader))
