from dataclasses import replace

import numpy as np
import pytest

from daemon.photometry.activity import ACTIVE, DEAD, LOST, PARTIAL
from daemon.photometry.cycles import CycleBook
from daemon.photometry.ensemble import SPREAD_MEANS, ensemble_row, rate_spread, weighted
from daemon.photometry.kinetics import StepRates
from daemon.tables import ENSEMBLE
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp


def test_row_weights_active_particles_by_area() -> None:
    soc = np.array([0.2, 0.6, 0.9, np.nan, 0.9])
    states = np.array([ACTIVE, ACTIVE, DEAD, ACTIVE, PARTIAL])
    row = ensemble_row(4.0, soc, np.array([3.0, 1.0, 5.0, 1.0, 9.0]), states, judged=True, rate_cv=0.1)
    assert tuple(row) == ENSEMBLE
    assert row["soc_mean"] == pytest.approx(0.3)
    assert row["soc_std"] == pytest.approx(np.sqrt(0.75 * 0.01 + 0.25 * 0.09))
    assert row["active_fraction"] == pytest.approx(0.8)


def test_lost_particles_are_not_counted_and_nothing_is_claimed_unjudged() -> None:
    states = np.array([ACTIVE, DEAD, LOST])
    soc, weights = np.full(3, np.nan), np.ones(3)
    assert ensemble_row(0.0, soc, weights, states, judged=True, rate_cv=0.0)["active_fraction"] == 0.5
    unjudged = ensemble_row(0.0, soc, weights, states, judged=False, rate_cv=0.0)
    assert np.isnan(unjudged["active_fraction"])
    assert np.isnan(unjudged["soc_mean"])


def test_weighted_of_one_and_of_none() -> None:
    mean, std = weighted(np.array([0.5, np.nan]), np.ones(2))
    assert mean == 0.5
    assert np.isnan(std)
    assert np.isnan(weighted(np.array([np.nan]), np.ones(1))).all()


def measured(rates: np.ndarray, sigma: float):
    contrast = 0.2 * np.stack([ramp(721, 0.05, 0.05 + 0.4 / rate) for rate in rates], axis=1)
    book = CycleBook(np.arange(len(rates)), np.ones(len(rates)))
    return book.add(make_curves(make_half(), contrast, sigma), np.ones(len(rates), bool))


def soc(contrast: np.ndarray) -> np.ndarray:
    return contrast / 0.2


def test_spread_is_that_of_the_particles_not_of_the_noise() -> None:
    rng = np.random.default_rng(4)
    rates = np.exp(rng.normal(0, 0.2, 200))
    truth = rates.std(ddof=1) / rates.mean()
    members = np.ones(200, bool)
    assert rate_spread(measured(rates, 1e-4), soc, members, []).cv == pytest.approx(truth, rel=0.05)
    assert rate_spread(measured(rates, 3e-3), soc, members, []).cv == pytest.approx(truth, rel=0.10)
    assert rate_spread(measured(np.ones(200), 3e-3), soc, members, []).cv < 0.02


def test_spread_says_what_it_is_the_spread_of() -> None:
    rates = np.linspace(0.8, 1.2, 30)
    told = rate_spread(measured(rates, 1e-4), soc, np.ones(30, bool), [])
    assert told.basis == "held_current"
    assert "fixes their mean" in SPREAD_MEANS[told.basis]
    assert 0 < told.sigma < 0.1
    assert told.count == 30


def test_a_potential_step_tells_the_spread_when_most_particles_passed_it() -> None:
    members = np.ones(30, bool)
    rate = np.linspace(1.0, 3.0, 30)
    step = StepRates(0, "charge", 0, 0.0, 3.9, 0.1, 0.2, 0.4, rate, np.full(30, 1e-3))
    told = rate_spread(measured(np.ones(30), 1e-4), soc, members, [step])
    assert told.basis == "potential_step"
    assert told.cv == pytest.approx(rate.std(ddof=1) / rate.mean(), rel=1e-3)
    few = replace(step, rate_per_h=np.where(np.arange(30) < 10, rate, np.nan))
    assert rate_spread(measured(np.ones(30), 1e-4), soc, members, [few]).basis == "held_current"


def test_spread_of_too_few_is_unknown() -> None:
    told = rate_spread(measured(np.ones(4), 1e-4), soc, np.ones(4, bool), [])
    assert np.isnan(told.cv)
    assert told.basis == "unknown"
