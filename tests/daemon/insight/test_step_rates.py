import numpy as np
import pytest

from daemon.insight.drivers import drivers
from daemon.insight.outcomes import outcomes
from daemon.insight.step_rates import soc_sigmas, step_slopes
from daemon.tables import RATES
from tests.daemon.insight.runs import particle_columns, run_data

COUNT = 60
THERMAL_V = 0.025692579
IDS = np.arange(COUNT) + 1


def columns(steps, slope, *, noise=0.02, seed=1, told=None):
    """The `rates` table of `steps`, (overpotential, exchange there), for particles with `slope` (P,)."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, (eta_v, gain) in enumerate(steps):
        drive = 2 * THERMAL_V * np.sinh(abs(eta_v) / (2 * THERMAL_V))
        rate = gain * slope * drive * np.exp(noise * rng.normal(size=COUNT))
        whole = {name: np.full(COUNT, np.nan) for name in RATES}
        whole |= {"particle_id": IDS * 1.0, "t_s": np.full(COUNT, 100.0 * number),
                  "overpotential_v": np.full(COUNT, eta_v), "soc_from": np.full(COUNT, 0.2),
                  "soc_to": np.full(COUNT, 0.4), "rate_per_h": rate, "rate_sigma_per_h": noise * rate}  # fmt: skip
        keep = np.ones(COUNT, bool) if told is None else told[number]
        parts.append({name: values[keep] for name, values in whole.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in RATES}


@pytest.fixture
def slope():
    return 5.0 * np.exp(0.4 * np.random.default_rng(2).normal(size=COUNT))


def test_slopes_are_told_with_their_intervals(slope):
    got = step_slopes(columns([(0.04, 1.1), (-0.05, 0.95), (0.02, 1.0)], slope), IDS)
    assert np.abs(np.log(got.slope_per_h_v / slope)).max() < 0.15
    inside = (got.slope_lo_per_h_v < slope) & (slope < got.slope_hi_per_h_v)
    assert inside.mean() > 0.85
    away = np.log(got.slope_per_h_v / slope)
    assert np.sqrt(np.mean(((away - np.median(away)) / got.relative_sigma) ** 2)) == pytest.approx(1.0, abs=0.4)
    assert got.steps.tolist() == [3] * COUNT and got.overpotential_v == (0.02, 0.05) and got.reason == ""


def test_one_step_tells_particles_apart_and_the_scale_less_surely(slope):
    one = step_slopes(columns([(0.04, 1.0)], slope), IDS)
    many = step_slopes(columns([(0.04, 1.0), (0.03, 1.0), (-0.04, 1.0)], slope), IDS)
    wide, narrow = (np.log(each.slope_hi_per_h_v / each.slope_lo_per_h_v) for each in (one, many))
    assert (wide > 3 * narrow).all()
    assert (one.relative_sigma < 0.03).all()


def test_calibrations_part_is_in_it_and_those_who_passed_less_often_are_less_sure(slope):
    told = np.ones((4, COUNT), bool)
    told[1:, 0], told[:, 1] = False, False
    table = columns([(0.04, 1.0)] * 4, slope, told=told)
    got, sure = step_slopes(table, IDS, np.full(COUNT, 0.01)), step_slopes(table, IDS)
    assert got.relative_sigma[5] > 2 * sure.relative_sigma[5]
    assert sure.relative_sigma[0] > 1.5 * np.median(sure.relative_sigma[2:])
    assert got.steps[:2].tolist() == [1, 0] and np.isnan(got.slope_per_h_v[1])


def test_why_nothing_is_told(slope):
    none = {name: np.zeros(0) for name in RATES}
    assert "no potential step" in step_slopes(none, IDS).reason
    for steps, told in (([(np.nan, 1.0)], None), ([(0.001, 1.0)], None), ([(0.04, 1.0)], [IDS < 4])):
        got = step_slopes(columns(steps, slope, told=told), IDS)
        assert got.reason and np.isnan(got.slope_per_h_v).all() and np.isnan(got.overpotential_v).all()


def test_they_are_a_fate_that_may_have_a_driver(slope):
    table = particle_columns(np.random.default_rng(3), COUNT)
    run = run_data(table)
    assert "rate_steps" not in [each.name for each in outcomes(run)]
    table["solidity"] = 0.9 + 0.02 * np.log(slope) + 0.002 * np.random.default_rng(4).normal(size=COUNT)
    object.__setattr__(run, "rates", columns([(0.04, 1.0), (-0.03, 1.1)], slope))
    assert "rate_steps" in [each.name for each in outcomes(run)]
    assert np.isnan(soc_sigmas(run)).all()
    fate = next(each for each in drivers(run).fates if each.outcome == "rate_steps")
    assert [each.covariate for each in fate.drivers] == ["solidity"]
