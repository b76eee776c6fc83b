import numpy as np
import pytest
from scipy.special import erf

from kernels.fronts import level_sums, locate, smooth
from tests.kernels.naive_fronts import naive_response, naive_smooth, naive_squares

GRID, CHANNELS = 64, 8


def _tables(rng, particles):
    """Channels that a front passes one after the other, and some drift."""
    grid = np.arange(GRID + 1.0)
    middle = (np.arange(CHANNELS) + 0.5) * GRID / CHANNELS
    response = 0.5 * (1 + erf((grid[:, None] - middle) / 4.0))
    response = (response - response[0]) / (response[-1] - response[0])
    waves = np.sin(grid[:, None] / 9.0 + rng.uniform(0, 6, (particles, 1, CHANNELS * 2)))
    drift = 0.03 * waves.reshape(particles, GRID + 1, CHANNELS, 2)
    return np.repeat(response[None], particles, axis=0).astype(np.float32), drift.astype(np.float32)


def _case(seed, n=12, particles=3, noise=0.002):
    rng = np.random.default_rng(seed)
    response, drift = _tables(rng, particles)
    rest = rng.normal(0, 0.3, (n, 2))
    level, change = rng.uniform(0.9, 1.1, (particles, CHANNELS)), rng.uniform(0.05, 0.2, (particles, CHANNELS))
    weight = rng.uniform(0.5, 2.0, (particles, CHANNELS)) / noise**2
    nuisance = rng.normal(0, noise, (particles, 2, CHANNELS))
    true = np.sort(rng.uniform(6, GRID - 6, (n, particles)), axis=0)
    values = np.empty((n, particles, CHANNELS), np.float32)
    for t in range(n):
        for q in range(particles):
            z, _ = naive_response(response[q], drift[q], true[t, q], rest[t])
            seen = level[q] + change[q] * z + rng.normal(0, 1, 2) @ nuisance[q]
            values[t, q] = seen + rng.normal(0, 1, CHANNELS) / np.sqrt(weight[q])
    span = np.repeat([[0, n]], particles, axis=0)
    return true, values, (rest, span, level, change, weight, response, drift, nuisance)


def _locate(values, known, start):
    place = start.copy()
    information, misfit = np.zeros(place.shape), np.zeros(place.shape)
    amount = np.zeros((*place.shape, 2))
    locate(values, *known, place, information, misfit, amount)
    return place, information, misfit, amount


@pytest.mark.parametrize("seed", range(4))
def test_squares_are_those_of_the_naive_twin_at_their_least(seed):
    true, values, known = _case(seed)
    values[2, 1, 3] = np.nan
    place, information, misfit, amount = _locate(values, known, true + 2.0)
    rest, _, *own, response, drift, nuisance = known
    for t in range(len(true)):
        for q in range(true.shape[1]):
            tables = [each[q] for each in (*own, response, drift, nuisance)]
            left, slope, stiff, unknown = naive_squares(values[t, q].astype(float), place[t, q], rest[t], *tables)
            np.testing.assert_allclose([misfit[t, q], information[t, q]], [left, stiff], rtol=1e-6)
            np.testing.assert_allclose(amount[t, q], unknown, rtol=1e-5, atol=1e-8)
            assert abs(slope / stiff) < 0.3, "farther from the least squares than a corner of the table explains"


def test_places_are_as_sure_as_told():
    errors = []
    for seed in range(30):
        true, values, known = _case(100 + seed)
        place, information, _, _ = _locate(values, known, true + 1.5)
        errors.append((place - true) * np.sqrt(information))
    assert np.std(errors) == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(errors)) < 0.1


def test_nothing_outside_the_span_is_touched_and_nothing_measured_stays_put():
    true, values, known = _case(5)
    known = (known[0], np.array([[3, 6], [0, 0], [0, 12]]), *known[2:])
    values[:, 2] = np.nan
    place, information, _, _ = _locate(values, known, true + 1.0)
    np.testing.assert_array_equal(place[:, 1:], true[:, 1:] + 1.0)
    np.testing.assert_array_equal(np.delete(place[:, 0], [3, 4, 5]), np.delete(true[:, 0] + 1.0, [3, 4, 5]))
    assert (information[:, 2] == 0).all() and (information[3:6, 0] > 0).all()


def test_level_sums_make_the_straight_line():
    true, values, known = _case(6, n=40)
    rest, span, level, change, _, *tables = known
    values[7, 1, 2] = np.nan
    sums = np.empty((*level.shape, 5))
    level_sums(values, rest, span, *tables, true, np.zeros((*true.shape, 2)), sums)
    for q in range(true.shape[1]):
        z = np.array([naive_response(tables[0][q], tables[1][q], true[t, q], rest[t])[0] for t in range(len(true))])
        for k in range(CHANNELS):
            good = np.isfinite(values[:, q, k])
            y, x = values[good, q, k].astype(float), z[good, k]
            wanted = [good.sum(), x.sum(), (x * x).sum(), y.sum(), (x * y).sum()]
            np.testing.assert_allclose(sums[q, k], wanted, rtol=1e-6)
    fitted = (sums[..., 4] - sums[..., 1] * sums[..., 3] / sums[..., 0]) / (
        sums[..., 2] - sums[..., 1] ** 2 / sums[..., 0]
    )
    inner = slice(1, -1)  # fronts hardly reach the outermost
    np.testing.assert_allclose(fitted[:, inner], change[:, inner], rtol=0.1)


def test_unknowns_are_taken_off_before_the_line():
    true, values, known = _case(7)
    rest, span, level, _, _, *tables = known
    amount = np.random.default_rng(1).normal(0, 1, (*true.shape, 2))
    plain, taken = np.empty((*level.shape, 5)), np.empty((*level.shape, 5))
    shifted = (values + np.einsum("tqj,qjk->tqk", amount, tables[2])).astype(np.float32)
    level_sums(values, rest, span, *tables, true, np.zeros_like(amount), plain)
    level_sums(shifted, rest, span, *tables, true, amount, taken)
    np.testing.assert_allclose(taken, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("missing", [(), (0,), (3, 4), (0, 1, 9)])
def test_smoothing_is_the_joint_solution(missing):
    rng = np.random.default_rng(8)
    t_s = np.cumsum(rng.uniform(0.5, 2.0, 10))
    place = (3.0 * t_s + rng.normal(0, 0.5, 10))[:, None]
    variance = rng.uniform(0.1, 0.5, (10, 1))
    variance[list(missing)] = np.inf
    out, spread, likelihood = np.empty((10, 1)), np.empty((10, 1)), np.empty(1)
    smooth(t_s, np.array([[0, 10]]), place, variance, np.array([0.05]), out, spread, likelihood)
    start = (100.0 / (t_s[-1] - t_s[0])) ** 2
    mean, own = naive_smooth(t_s, place[:, 0], variance[:, 0], 0.05, start)
    np.testing.assert_allclose(out[:, 0], mean, rtol=1e-6)
    np.testing.assert_allclose(spread[:, 0], own, rtol=1e-5)
    assert np.isfinite(likelihood[0])


def test_the_likelihood_prefers_what_was_so():
    rng = np.random.default_rng(9)
    t_s = np.arange(200.0)
    speed = 1.0 + np.cumsum(rng.normal(0, 0.1, 200))
    place = (np.cumsum(speed) + rng.normal(0, 0.3, 200))[:, None]
    found = {}
    for restless in (1e-6, 1e-4, 1e-2, 1.0):
        out, spread, likelihood = np.empty((200, 1)), np.empty((200, 1)), np.empty(1)
        smooth(t_s, np.array([[0, 200]]), place, np.full((200, 1), 0.09), np.array([restless]), out, spread, likelihood)
        found[restless] = likelihood[0]
    assert max(found, key=found.get) == 1e-2


def test_nothing_measured_gives_nothing():
    out, spread, likelihood = np.zeros((5, 1)), np.zeros((5, 1)), np.empty(1)
    smooth(
        np.arange(5.0), np.array([[0, 5]]), np.zeros((5, 1)), np.full((5, 1), np.inf), np.ones(1), out, spread,
        likelihood,
    )  # fmt: skip
    assert np.isnan(out).all() and np.isnan(spread).all()
