import math

import numpy as np
import pytest

from kernels import kinetics as k

GRID = np.linspace(k.TABLE_LO, k.TABLE_HI, 121)
TABLE = 3.5 + 0.8 * GRID + 0.05 * np.sin(9 * GRID)
U_AT = np.sin(np.linspace(0, np.pi / 2, 5)) ** 2
A_AT, OFF_AT = np.linspace(0, 1, 5), np.linspace(0, 1, 3)
U, A = 0.002 * np.array([1, -2, 3, 0, 1.0]), np.array([-3, -1, 0, 0.4, 0.1])
OWN = np.array([math.log(5 / 3600), math.log(900.0), 0.2, 0.01, -0.02, 0.005])
DT, ROWS, EVERY = np.full(240, 45.0), 120, 2
AMPS = np.repeat([1.0, 0.0, -1.0], 80)
VOLTS = 3.72 + 0.15 * np.sin(np.arange(240) / 40) + 0.04 * AMPS
SEEN = 0.3 + 0.1 * np.sin(np.arange(ROWS) / 20)
SEEN[30:50] = np.nan
FIRST = len(OWN)


def respond(own=OWN, ohm=0.01, u=U, a=A, seen=SEEN, draw=0.1, sensed=FIRST):
    out = np.empty(ROWS), np.empty(ROWS), np.empty((ROWS, sensed)), np.empty((ROWS, sensed))
    k.respond(DT, VOLTS, AMPS, EVERY, TABLE, U_AT, u, A_AT, a, OFF_AT, own, ohm, seen, draw, sensed, *out)
    return out


def naive(own=OWN, ohm=0.01, u=U, a=A, seen=SEEN, draw=0.1):
    """The same equations, each step's surface charge by bisection."""
    x, q, mean, lead = own[2], 0.0, [], []
    tau = math.exp(own[1])
    for step, dt in enumerate(DT):
        keep = math.exp(-30 * dt / tau)

        def missing(rate, x=x, q=q, keep=keep, dt=dt, step=step):
            s = x + dt * rate + (8 * (q * keep + (1 - keep) * tau * rate / 4) + tau * rate / 3) / 35
            rest = np.interp(s, GRID, TABLE) + np.interp(s, U_AT, u)
            exchange = math.exp(own[0] + np.interp(s, A_AT, a))
            drive = (VOLTS[step] - ohm * AMPS[step] - rest) / (2 * 0.025692579)
            return drive - math.asinh(rate / (2 * exchange)), s

        lo, hi = -0.01, 0.01
        for _ in range(60):
            rate = 0.5 * (lo + hi)
            lo, hi = (rate, hi) if missing(rate)[0] > 0 else (lo, rate)
        s, q = missing(rate)[1], q * keep + (1 - keep) * tau * rate / 4
        x += dt * rate
        if step % EVERY == EVERY - 1:
            now = seen[len(mean)]
            off = np.interp(s if np.isnan(now) else now, OFF_AT, own[3:])
            mean.append(x + off)
            lead.append(s - x)
            x += 0.0 if np.isnan(now) else draw * (now - off - x)
    return np.array(mean), np.array(lead)


@pytest.mark.parametrize("draw", [0.0, 0.1])
def test_it_equals_the_naive_one(draw):
    mean, lead, _, _ = respond(draw=draw)
    expected = naive(draw=draw)
    np.testing.assert_allclose(mean, expected[0], atol=1e-7)
    np.testing.assert_allclose(lead, expected[1], atol=1e-7)


def test_derivatives_are_those_of_what_it_computes():
    whole = np.concatenate([OWN, [0.01], U, A])

    def at(values):
        return respond(values[:FIRST], values[FIRST], values[FIRST + 1 : FIRST + 6], values[FIRST + 6 :])[:2]

    exact = respond(sensed=len(whole))[2:]  # where a step crosses a knot, slopes differ for a while
    for p in range(len(whole)):
        step = np.zeros(len(whole))
        step[p] = 1e-6
        for k_out in (0, 1):
            slope = (at(whole + step)[k_out] - at(whole - step)[k_out]) / 2e-6
            away = np.abs(slope - exact[k_out][:, p])[np.isfinite(SEEN)]  # the others are compared with nothing
            assert np.quantile(away, 0.95) < 1e-4 * max(1.0, np.abs(slope).max()), p


def test_at_rest_nothing_moves_and_far_voltages_do_not_break_it():
    own = OWN.copy()
    own[3:] = 0.0
    rest_v = np.interp(own[2], GRID, TABLE)
    out = np.empty(ROWS), np.empty(ROWS), np.empty((ROWS, FIRST)), np.empty((ROWS, FIRST))
    unseen = np.full(ROWS, np.nan)
    for volts, bounds in ((rest_v, (0.1999, 0.2001)), (9.0, (0.2, 3.0)), (0.0, (-3.0, 0.2))):
        k.respond(
            DT, np.full(240, volts), AMPS, 2, TABLE, U_AT, 0 * U, A_AT, A, OFF_AT, own, 0.0, unseen, 0.1, FIRST, *out
        )
        assert bounds[0] <= out[0].min() and out[0].max() <= bounds[1]
