import numpy as np
import pytest

from daemon.photometry.activity import ACTIVE, DEAD, LOST, PARTIAL
from daemon.photometry.cycles import CycleBook
from daemon.photometry.ensemble import ensemble_row, rate_cv, robust_score, unusual, weighted
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


def test_rate_cv_is_that_of_the_particles_not_of_the_noise() -> None:
    rng = np.random.default_rng(4)
    rates = np.exp(rng.normal(0, 0.2, 200))
    truth = rates.std(ddof=1) / rates.mean()
    members = np.ones(200, bool)
    assert rate_cv(measured(rates, 1e-4), soc, members) == pytest.approx(truth, rel=0.05)
    assert rate_cv(measured(rates, 3e-3), soc, members) == pytest.approx(truth, rel=0.10)
    assert rate_cv(measured(np.ones(200), 3e-3), soc, members) < 0.02


def test_rate_cv_of_too_few_is_unknown() -> None:
    assert np.isnan(rate_cv(measured(np.ones(4), 1e-4), soc, np.ones(4, bool)))


def test_the_particle_that_differs_is_named_with_its_reason() -> None:
    rates = np.linspace(0.95, 1.05, 30)
    rates[7] = 2.5
    found = unusual(measured(rates, 1e-4), soc, np.arange(100, 130), np.ones(30, bool))
    assert found[0]["particle_id"] == 107
    assert found[0]["by"] in ("rate_per_h", "lag_s")
    assert all(entry["score"] >= 3.5 for entry in found)


def test_robust_scores_need_a_population() -> None:
    assert np.isnan(robust_score(np.array([1.0, 2.0, 3.0]))).all()
    assert np.isnan(robust_score(np.ones(10))).all()
    assert robust_score(np.array([1, 2, 3, 4, 100.0]))[4] > 10
