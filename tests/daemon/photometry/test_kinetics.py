import numpy as np
import pytest

from daemon.photometry.cycles import CycleBook
from daemon.photometry.halves import Half
from daemon.photometry.kinetics import Kinetics, find_holds, overpotential, spread, step_spread
from daemon.photometry.soc import Window
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp

WINDOW = Window(0.0, 1.0)
TAU_S = np.linspace(200.0, 600.0, 20)


def soc(contrast: np.ndarray) -> np.ndarray:
    return contrast / 0.2


def held(index: int = 0, level_v: float = 3.9, rest_v: float | None = None) -> Half:
    """An hour at one voltage whose current decays; optionally behind a rest at another."""
    half = Half(index, 1, 0.0, 3600.0)
    for t_s in np.linspace(0.0, 3600.0, 181):
        resting = rest_v is not None and t_s < 600.0
        since = t_s - (600.0 if rest_v is not None else 0.0)
        current = 0.0 if resting else 2.0 * np.exp(-since / 400.0)
        charge = 0.0 if resting else 0.222 * (1 - np.exp(-since / 400.0))
        half.add((float(t_s), rest_v if resting else level_v, current, charge))
    half.drive_end_t_s, half.drive_s = 3600.0, 3600.0
    return half


def relaxing(half: Half, start_s: float = 0.0, sigma: float = 1e-5):
    """Particles that approach 0.5 from 0 with their own time constants."""
    t_s = np.linspace(0.0, 3600.0, 721)[:, None]
    x = 0.5 * (1 - np.exp(-np.clip(t_s - start_s, 0, None) / TAU_S))
    return make_curves(half, 0.2 * x, sigma)


def test_a_hold_is_found_behind_its_step_and_a_constant_current_is_none() -> None:
    holds = find_holds(relaxing(held()), 1.0)
    assert [round(hold.voltage_v, 3) for hold in holds] == [3.9]
    assert holds[0].settled
    behind = find_holds(relaxing(held(rest_v=3.5), 600.0), 1.0)
    assert len(behind) == 1
    assert behind[0].start_t_s == pytest.approx(580.0, abs=30)
    assert find_holds(make_curves(make_half(), 0.2 * ramp(300, 0, 1)[:, None]), 1.0) == []


def test_rates_at_equal_charge_follow_the_time_constants() -> None:
    steps = Kinetics(1.0).add(relaxing(held()), soc, WINDOW, np.ones(20, bool))
    assert len(steps) == 1
    rate = steps[0].rate_per_h
    assert rate * TAU_S == pytest.approx(np.full(20, np.mean(rate * TAU_S)), rel=0.02)
    low, high = steps[0].soc_from, steps[0].soc_to
    slowest = (high - low) / (TAU_S[-1] * np.log((0.5 - low) / (0.5 - high))) * 3600.0
    assert rate[-1] == pytest.approx(slowest, rel=0.02)
    cv, sigma, count = step_spread(steps)
    assert cv == pytest.approx(np.std(1 / TAU_S, ddof=1) / np.mean(1 / TAU_S), rel=0.03)
    assert 0 < sigma < cv
    assert count == 20


def test_overpotential_needs_an_equilibrium() -> None:
    kinetics, curves = Kinetics(1.0), relaxing(held())
    kinetics_first = kinetics.add(curves, soc, WINDOW, np.ones(20, bool))[0]
    assert np.isnan(kinetics_first.overpotential_v)
    slow = Kinetics(1.0)
    for index, sign in ((0, 1), (1, -1)):
        start_mah = 0.0 if sign > 0 else 1.0
        half = make_half(index, sign, 0.0, 72_000.0, current_ma=0.05, start_mah=start_mah)
        slow.add(make_curves(half, 0.2 * ramp(300, 0, 1)[:, None]), soc, WINDOW, np.ones(1, bool))
    told = slow.add(curves, soc, WINDOW, np.ones(20, bool))[0]
    over_v = 3.9 - (3.0 + np.linspace(told.soc_from, told.soc_to, 999))
    as_long = 0.0513852 * np.arcsinh(1 / np.mean(1 / np.sinh(over_v / 0.0513852)))
    assert told.overpotential_v == pytest.approx(as_long, abs=5e-3)
    assert told.overpotential_v < np.mean(over_v)
    row = told.rows(np.arange(20))[4]
    assert (row["particle_id"], row["half"], row["step"]) == (4, "charge", 0)


def test_one_overpotential_stands_for_a_way() -> None:
    assert overpotential(np.full(9, 0.05)) == pytest.approx(0.05)
    falling = np.linspace(0.12, 0.04, 2001)
    as_long = 0.051385158 * np.arcsinh(1 / np.mean(1 / np.sinh(falling / 0.051385158)))
    assert overpotential(-falling[::250]) == pytest.approx(-as_long, rel=0.01)
    assert overpotential(np.array([0.02, 0.01, -0.001])) == 0.01  # the equilibrium voltage is not known so well
    assert overpotential(np.array([np.nan, 0.01, 0.005])) == 0.01
    assert np.isnan(overpotential(np.full(9, np.nan)))


def test_no_window_no_members_and_no_samples_tell_nothing() -> None:
    curves = relaxing(held())
    assert Kinetics(None).add(curves, soc, None, np.ones(20, bool)) == []
    assert Kinetics(1.0).add(curves, soc, WINDOW, np.zeros(20, bool)) == []
    assert np.isnan(step_spread([])[0])


def test_spread_leaves_out_the_noise_and_says_how_sure_it_is() -> None:
    rng = np.random.default_rng(2)
    true, noise = rng.normal(1.0, 0.2, (200, 300)), 0.15
    told = [spread(row + rng.normal(0, noise, 300), np.full(300, noise)) for row in true]
    error = np.array([cv - row.std(ddof=1) / row.mean() for (cv, _, _), row in zip(told, true, strict=True)])
    assert abs(error.mean()) < 0.003
    whole = np.std([cv for cv, _, _ in told])
    assert np.mean([sigma for _, sigma, _ in told]) == pytest.approx(whole, rel=0.25)
    assert np.isnan(spread(np.ones(4), np.zeros(4))[0])


def test_halves_under_held_voltage_are_one_rate_whatever_current_follows() -> None:
    book = CycleBook(np.arange(20), np.ones(20))
    measures = book.add(relaxing(held()), np.ones(20, bool))
    assert measures.potentiostatic
    assert held().hold_v == pytest.approx(3.9)
    assert np.isnan(make_half().hold_v)
    again = book.add(relaxing(held(2)), np.ones(20, bool))
    other = book.add(relaxing(held(4, level_v=4.0)), np.ones(20, bool))
    assert [measures.reference, again.reference, other.reference] == [0, 0, 1]
