import numpy as np
import pytest

from kernels.leftover import robust_shift
from tests.kernels.naive_leftover import naive_robust_shift


def found(moved, direction, spread, prior=0.1, huber=1.5, rounds=5):
    out = np.empty(5)
    robust_shift(moved, direction, spread, prior, huber, rounds, out)
    return out


@pytest.mark.parametrize("seed", range(6))
def test_it_equals_its_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = [1, 2, 5, 50, 500, 0][seed]
    angle = rng.uniform(0, np.pi, count)
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    spread = rng.uniform(1e-4, 1e-2, count)
    moved = direction @ [0.02, -0.01] + rng.standard_t(2, count) * spread
    moved[:: max(count // 3, 1)][1:] = np.nan
    spread[1::7] = np.nan
    want = naive_robust_shift(moved, direction, spread, 0.1, 1.5, 5)
    np.testing.assert_allclose(found(moved, direction, spread), want, rtol=1e-6, atol=1e-12)


def test_a_shift_of_all_is_found_and_one_that_stands_out_is_not_followed() -> None:
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, np.pi, 60)
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    moved = direction @ [0.02, -0.03]
    moved[:5] += 1.0
    got = found(moved, direction, np.full(60, 1e-3))
    np.testing.assert_allclose(got[:2], [0.02, -0.03], atol=1e-3)


def test_nothing_known_leaves_the_prior() -> None:
    np.testing.assert_allclose(found(np.full(3, np.nan), np.ones((3, 2)), np.ones(3)), [0, 0, 0.01, 0, 0.01])
