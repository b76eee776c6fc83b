from __future__ import annotations

import numpy as np
import pytest

from daemon.insight.spatial import Field
from tests.daemon.insight.runs import correlated, particle_columns


def exact(y, x, values, design, length, share):
    """Generalised least squares by the whole covariance."""
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    diagonal = np.hypot(np.ptp(y), np.ptp(x))
    covariance = share * np.exp(-distance / (length * diagonal)) + (1 - share) * np.eye(len(y))
    inverse = np.linalg.inv(covariance)
    spread = np.linalg.inv(design.T @ inverse @ design)
    return spread @ design.T @ inverse @ values, np.sqrt(np.diag(spread)), np.linalg.slogdet(covariance)[1]


def test_whitening_is_generalised_least_squares_but_for_the_approximation():
    off = []
    for seed in range(1):
        rng = np.random.default_rng(seed)
        particles = particle_columns(rng, 80)
        y, x = particles["y_px"], particles["x_px"]
        field = Field(y, x)
        values = correlated(rng, particles, 400.0) + rng.normal(size=80)
        design = np.column_stack([np.ones(80), rng.normal(size=80), (x - x.mean()) / x.std()])
        white_y, white_x = field._whitened(values[:, None])[:, :, 0], field._whitened(design)
        for k, (length, share) in enumerate(field.models):
            expected, sigma, log_det = exact(y, x, values, design, length or 1.0, share)
            off.append((np.linalg.lstsq(white_x[k], white_y[k])[0] - expected) / sigma)
            assert 2 * field._half_log_det[k] == pytest.approx(log_det, abs=0.02 * 80)
    rms = np.sqrt(np.square(off).mean(axis=0))
    assert (rms[1:] < (0.15, 0.25)).all() and rms[0] < 0.5


def test_without_correlation_it_is_least_squares():
    rng = np.random.default_rng(3)
    y, x, column = rng.uniform(0, 100, (3, 300))
    design = np.column_stack([np.ones(300), column])
    values = 0.02 * column + rng.normal(size=300)
    fit = Field(y, x).fit(values, design)
    beta, rest = np.linalg.lstsq(design, values)[:2]
    sigma = np.sqrt(rest[0] / 298 * np.linalg.inv(design.T @ design)[1, 1])
    assert fit.free == 298 and fit.alone > 0.3
    assert fit.beta[1] == pytest.approx(beta[1], abs=0.3 * sigma) and fit.sigma[1] == pytest.approx(sigma, rel=0.1)


def test_correlation_is_found_and_what_goes_by_place_is_not_taken_for_a_trend():
    false = plain = 0
    for seed in range(6):
        rng = np.random.default_rng(100 + seed)
        particles = particle_columns(rng, 120)
        values = np.sqrt(0.7) * correlated(rng, particles, 500.0) + np.sqrt(0.3) * rng.normal(size=120)
        x = particles["x_px"] / particles["x_px"].std()
        design = np.column_stack([np.ones(120), x - x.mean()])
        fit = Field(particles["y_px"], particles["x_px"]).fit(values, design, tested=1)
        assert fit.share > 0.3 and fit.alone < 0.05
        false += abs(fit.beta[1]) > 2 * fit.sigma[1]
        beta, rest = np.linalg.lstsq(design, values)[:2]
        plain += abs(beta[1]) > 2 * np.sqrt(rest[0] / 118 * np.linalg.inv(design.T @ design)[1, 1])
    assert false <= 1 and plain >= 3


@pytest.mark.parametrize("count", [1, 2, 5, 14])
def test_a_few_particles(count):
    rng = np.random.default_rng(count)
    y, x, values = rng.uniform(0, 100, (3, count))
    fit = Field(y, x).fit(values, np.ones((count, 1)))
    assert fit is None if count == 1 else np.isfinite(fit.sigma).all()


def test_all_at_one_place_or_columns_that_say_the_same():
    values = np.arange(30.0)
    same = Field(np.zeros(30), np.zeros(30))
    assert same.fit(values, np.ones((30, 1))).beta[0] == pytest.approx(14.5)
    assert same.fit(values, np.ones((30, 2))) is None
    assert np.isfinite(same.fit(np.ones(30), np.ones((30, 1))).sigma).all(), "nothing left over"
